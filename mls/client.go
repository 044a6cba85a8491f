package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hpke"
	"errors"
	"fmt"
	"time"
)

// A Config says who a client is and what it accepts. CipherSuite, Signer and
// Credential are needed; the zero value of everything else works.
type Config struct {
	CipherSuite CipherSuite

	// Signer holds the client's signature key, in software or in a device.
	// See ContextSigner and MessageContextSigner for what is called.
	Signer     crypto.Signer
	Credential Credential

	// Capabilities of the client's leaves; DefaultCapabilities if empty.
	Capabilities Capabilities
	// LeafExtensions of the client's leaves.
	LeafExtensions Extensions

	// Judge decides whether credentials are believed (section 5.3.1). If it
	// is nil, newcomers are believed and a member may not change its
	// credential.
	Judge JudgeFunc

	// PSK finds an external pre-shared key, or returns ErrUnknownPSK.
	PSK func(ctx context.Context, id []byte) ([]byte, error)
	// ComponentPSK finds a pre-shared key of a component, or returns
	// ErrUnknownPSK.
	ComponentPSK func(ctx context.Context, component ComponentID, id []byte) ([]byte, error)

	// Components are what the application knows of the app_data_dictionary.
	// Leaves name them if Capabilities list the extension; see
	// ExtendedCapabilities.
	Components Components
	// SafeAADItems are the components whose Safe AAD items are understood.
	SafeAADItems ComponentsList
	// MediaTypes are what the client can receive, if it says so in its leaves.
	MediaTypes MediaTypeList
	// WireFormats are those beyond RFC 9420 that the client supports.
	WireFormats []WireFormat

	// Storage keeps groups and KeyPackages. Without it the application saves
	// Group.MarshalBinary itself, after each call that changes the group.
	Storage Storage

	// PrivateKey finds an HPKE private key that a device holds, when stored
	// state refers to it.
	PrivateKey func(ctx context.Context, publicKey []byte) (hpke.PrivateKey, error)

	// SignerFor finds the signer of a leaf's signature key, for a client that
	// has had several. If it is nil, Signer is used.
	SignerFor func(ctx context.Context, signatureKey []byte) (crypto.Signer, error)

	Padding PaddingPolicy    // PadToMultiple(32) if nil
	Now     func() time.Time // time.Now if nil

	// NoGREASE leaves GREASE values out of what the client publishes.
	NoGREASE bool
	// AdmitUnlisted accepts leaves whose capabilities leave out the cipher
	// suite of the group that they are in, and KeyPackages whose extensions
	// are not in them. Engines exist that send such ones.
	AdmitUnlisted bool
	// SendDespiteProposals lets application data be sent while proposals wait
	// to be committed, which section 12.4 forbids.
	SendDespiteProposals bool

	Limits Limits
}

// Limits bound what others can cost a client. Zero fields have the defaults
// that are named beside them.
type Limits struct {
	MaxMembers         int           // members of a group, 50,000
	MaxLifetime        time.Duration // of KeyPackages, 400 days; -1 for any
	MaxForward         uint32        // generations that a message may skip, 4,096
	MaxKept            int           // skipped keys kept for each sender, 1,024
	MaxProposals       int           // proposals kept in an epoch, 4,096
	PastEpochs         int           // epochs whose late messages are read, 2; -1 for none
	PastResumptionPSKs int           // resumption PSKs kept, 64
	GenerationBlock    uint32        // generations reserved at a time, 32
	KeyPackageLifetime time.Duration // of own KeyPackages, 84 days
}

func (l Limits) withDefaults() Limits {
	set(&l.MaxMembers, 50_000)
	set(&l.MaxLifetime, 400*24*time.Hour)
	set(&l.MaxForward, 4096)
	set(&l.MaxKept, 1024)
	set(&l.MaxProposals, 4096)
	set(&l.PastEpochs, 2)
	set(&l.PastResumptionPSKs, 64)
	set(&l.GenerationBlock, 32)
	set(&l.KeyPackageLifetime, 84*24*time.Hour)
	if l.MaxMembers < 0 || l.MaxMembers > maxLeaves {
		l.MaxMembers = maxLeaves
	}
	l.PastResumptionPSKs = max(l.PastResumptionPSKs, 1)
	l.PastEpochs = max(l.PastEpochs, 0)
	l.MaxLifetime = max(l.MaxLifetime, 0)
	return l
}

func set[T comparable](v *T, standard T) {
	var zero T
	if *v == zero {
		*v = standard
	}
}

// A Judgement asks whether a credential is believed.
type Judgement struct {
	GroupID []byte
	// Leaf is the leaf in question. Old is the leaf that it replaces by an
	// Update, a commit or an external commit; nil for a newcomer.
	Leaf, Old *LeafNode
	Index     LeafIndex
	// Joining is set when the leaf is in the tree of a group that this client
	// is about to join.
	Joining bool
	// Bindings are those of a multi or weak-multi credential. Their signatures
	// verify as far as this client supports their cipher suites and types; that
	// each key belongs to its credential is to be judged.
	Bindings []CredentialBinding
}

// A Client makes KeyPackages, and creates and joins groups.
type Client struct {
	cfg    Config
	suite  *suite
	public []byte // signature key of cfg.Signer
}

// NewClient checks the configuration.
func NewClient(cfg Config) (*Client, error) {
	s, err := lookupSuite(cfg.CipherSuite)
	if err != nil {
		return nil, err
	}
	if cfg.Signer == nil {
		return nil, errors.New("mls: Config.Signer is nil; give the client's signature key")
	}
	public, err := s.sig.encodePublicKey(cfg.Signer.Public())
	if err != nil {
		return nil, err
	}
	if !cfg.Credential.certifies(public) {
		return nil, broken(RuleLeafCertificateKey, "the certificate of the x509 credential is for another key than the signer's")
	}
	if cfg.Capabilities.isZero() {
		cfg.Capabilities = DefaultCapabilities()
	}
	if cfg.Padding == nil {
		cfg.Padding = PadToMultiple(32)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Limits = cfg.Limits.withDefaults()
	return &Client{cfg, s, public}, nil
}

// SignatureKey returns the client's SignaturePublicKey.
func (c *Client) SignatureKey() []byte { return bytes.Clone(c.public) }

// sending are the rules for leaves that this client sends (section 7.3).
func (c *Client) sending() leafRules {
	rules := c.receiving()
	rules.now = c.cfg.Now()
	return rules
}

// receiving does not check the present time, since a leaf may have expired on
// its way.
func (c *Client) receiving() leafRules {
	return leafRules{maxLifetime: c.cfg.Limits.MaxLifetime, unlisted: c.cfg.AdmitUnlisted, own: &c.cfg.Capabilities}
}

func (c *Client) ratchetLimits() ratchetLimits {
	return ratchetLimits{c.cfg.Limits.MaxForward, c.cfg.Limits.MaxKept}
}

// A JudgeFunc decides whether a credential is believed. A nil one believes
// newcomers and refuses changed credentials.
type JudgeFunc func(context.Context, *Judgement) error

func (c *Client) judge(ctx context.Context, j *Judgement) error {
	return c.cfg.Judge.judge(ctx, j)
}

// judge asks the application, or applies the default.
func (f JudgeFunc) judge(ctx context.Context, j *Judgement) error {
	var err error
	if j.Bindings, err = j.Leaf.Credential.Bindings(); err != nil {
		return err
	}
	switch {
	case f != nil:
		err = f(ctx, j)
	case j.Old != nil && !j.Old.Credential.Equal(&j.Leaf.Credential):
		err = errors.New("the credential changed, and there is no Config.Judge to accept that")
	}
	if err != nil {
		return brokenBy(RuleLeafCredential, err, "leaf %d", j.Index)
	}
	return nil
}

// newLeaf fills in a leaf of this client, without its signature.
func (c *Client) newLeaf(source LeafNodeSource, encryptionKey []byte) *LeafNode {
	l := &LeafNode{
		EncryptionKey: encryptionKey,
		SignatureKey:  c.public,
		Credential:    c.cfg.Credential,
		Capabilities:  c.cfg.Capabilities,
		Source:        source,
	}
	l.Extensions = c.advertise(c.cfg.LeafExtensions, &c.cfg.Capabilities)
	if !c.cfg.NoGREASE {
		l.Capabilities = l.Capabilities.grease()
	}
	if source == LeafFromKeyPackage {
		now := c.cfg.Now()
		l.Lifetime.NotBefore = uint64(max(now.Add(-time.Hour).Unix(), 0))
		l.Lifetime.NotAfter = uint64(max(now.Add(c.cfg.Limits.KeyPackageLifetime).Unix(), 0))
	}
	return l
}

// KeyPackageOptions vary a KeyPackage.
type KeyPackageOptions struct {
	// InitKey and LeafKey may be keys of a device, made by
	// hpke.NewDHKEMPrivateKey from its ecdh.KeyExchanger. If nil, software
	// keys are generated.
	InitKey, LeafKey hpke.PrivateKey
	Extensions       Extensions
	LeafExtensions   Extensions    // in place of Config.LeafExtensions
	Capabilities     *Capabilities // in place of Config.Capabilities
	Lifetime         *Lifetime
	// LastResort marks a KeyPackage that may be used more than once. It is
	// then kept when a group is joined with it.
	LastResort bool
}

// A KeyPackageEntry is a KeyPackage with its private keys: what a client
// keeps until a Welcome comes.
type KeyPackageEntry struct {
	KeyPackage *KeyPackage
	init, leaf keyPair
}

// Ref is the KeyPackageRef.
func (e *KeyPackageEntry) Ref() []byte { return e.KeyPackage.Ref() }

// NewKeyPackage makes a KeyPackage and, if there is a Storage, stores it.
func (c *Client) NewKeyPackage(ctx context.Context, opts KeyPackageOptions) (*KeyPackageEntry, error) {
	e := new(KeyPackageEntry)
	var err error
	if e.init, err = c.keyPair(opts.InitKey); err != nil {
		return nil, err
	}
	if e.leaf, err = c.keyPair(opts.LeafKey); err != nil {
		return nil, err
	}
	leaf := c.newLeaf(LeafFromKeyPackage, e.leaf.public)
	opts.apply(c, leaf)
	ext := opts.Extensions
	if opts.LastResort {
		if ext, err = c.markLastResort(ext); err != nil {
			return nil, err
		}
	}
	if err := leaf.sign(ctx, c.suite, c.cfg.Signer, nil, 0); err != nil {
		return nil, err
	}
	e.KeyPackage = &KeyPackage{
		Version: MLS10, CipherSuite: c.suite.id, InitKey: e.init.public, LeafNode: leaf, Extensions: ext,
	}
	if err := e.KeyPackage.sign(ctx, c.suite, c.cfg.Signer); err != nil {
		return nil, err
	}
	if err := e.KeyPackage.validateFields(c.suite, c.sending()); err != nil {
		return nil, err
	}
	return e, c.storeKeyPackage(ctx, e)
}

func (o *KeyPackageOptions) apply(c *Client, leaf *LeafNode) {
	given := c.cfg.LeafExtensions
	if o.LeafExtensions != nil {
		given = o.LeafExtensions
	}
	if o.Capabilities != nil {
		leaf.Capabilities = *o.Capabilities
	}
	if o.Lifetime != nil {
		leaf.Lifetime = *o.Lifetime
	}
	leaf.Extensions = c.advertise(given, &leaf.Capabilities)
}

// keyPair checks a given HPKE key, or generates one.
func (c *Client) keyPair(k hpke.PrivateKey) (keyPair, error) {
	if k == nil {
		k, err := c.suite.kem.GenerateKey()
		if err != nil {
			return keyPair{}, fmt.Errorf("mls: generating an HPKE key: %w", err)
		}
		return newKeyPair(k), nil
	}
	if k.KEM().ID() != c.suite.kem.ID() {
		return keyPair{}, fmt.Errorf("mls: HPKE key is for KEM 0x%04x, the cipher suite has 0x%04x", k.KEM().ID(), c.suite.kem.ID())
	}
	return newKeyPair(k), nil
}

// ImportKeyPackage pairs a KeyPackage that was made elsewhere with its
// private keys, which must fit it. Its signatures must verify; whether its
// lifetime is over does not matter to who owns it.
func (c *Client) ImportKeyPackage(ctx context.Context, k *KeyPackage, initKey, leafKey hpke.PrivateKey) (*KeyPackageEntry, error) {
	if k.CipherSuite != c.suite.id {
		return nil, broken(RuleKeyPackageSuite, "KeyPackage is for cipher suite 0x%04x, the client has 0x%04x", uint16(k.CipherSuite), uint16(c.suite.id))
	}
	e := &KeyPackageEntry{KeyPackage: k}
	var err error
	if e.init, err = c.keyPair(initKey); err != nil {
		return nil, err
	}
	if e.leaf, err = c.keyPair(leafKey); err != nil {
		return nil, err
	}
	if !bytes.Equal(e.init.public, k.InitKey) || !bytes.Equal(e.leaf.public, k.LeafNode.EncryptionKey) {
		return nil, errors.New("mls: the private keys are not those of the KeyPackage")
	}
	if err := k.verifySignatures(c.suite); err != nil {
		return nil, err
	}
	return e, c.storeKeyPackage(ctx, e)
}
