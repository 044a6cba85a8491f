package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hpke"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/mls/vectors"
)

// A peerClient is a client that the driver made.
type peerClient struct {
	*mls.Client
	suite      mls.CipherSuite
	credential mls.Credential
	lifetime   *mls.Lifetime
	entries    []*mls.KeyPackageEntry
	deviceKeys map[string]hpke.PrivateKey // by public key, those that a device holds
	psks       map[string][]byte
	components mls.Components
	refused    []octets  // identities
	clock      time.Time // while a KeyPackage of another time is made; zero: now
}

// A peerCredential is a credential on the line.
type peerCredential struct {
	Type     json.RawMessage `json:"type"` // "basic", "x509" or a number
	Identity octets          `json:"identity,omitzero"`
	Certs    []octets        `json:"certs,omitempty"`
	Data     octets          `json:"data,omitzero"`
}

func (c *peerCredential) credential() (mls.Credential, error) {
	var name string
	var number uint16
	switch {
	case json.Unmarshal(c.Type, &name) == nil && name == "basic":
		if c.Identity == nil {
			return mls.Credential{}, malformed("params: a basic credential needs identity")
		}
		return mls.BasicCredential(c.Identity), nil
	case name == "x509":
		if len(c.Certs) == 0 {
			return mls.Credential{}, malformed("params: an x509 credential needs certs")
		}
		chain := make([][]byte, len(c.Certs))
		for i := range chain {
			chain[i] = c.Certs[i]
		}
		return mls.X509Credential(chain), nil
	case name == "" && json.Unmarshal(c.Type, &number) == nil && number != 0:
		return mls.Credential{Type: mls.CredentialType(number), Body: c.Data}, nil
	}
	return mls.Credential{}, malformed("params: credential type %.20s; want basic, x509 or a number", c.Type)
}

func describeCredential(c *mls.Credential) *peerCredential {
	switch c.Type {
	case mls.CredentialBasic:
		return &peerCredential{Type: json.RawMessage(`"basic"`), Identity: nonNil(c.Body)}
	case mls.CredentialX509:
		if chain, err := c.Certificates(); err == nil {
			out := &peerCredential{Type: json.RawMessage(`"x509"`)}
			for _, cert := range chain {
				out.Certs = append(out.Certs, cert)
			}
			return out
		}
	}
	return &peerCredential{Type: fmt.Appendf(nil, "%d", c.Type), Data: nonNil(c.Body)}
}

func nonNil(b []byte) octets { return append(octets{}, b...) }

type peerCapabilities struct {
	Extensions   []mls.ExtensionType  `json:"extensions"`
	Proposals    []mls.ProposalType   `json:"proposals"`
	Credentials  []mls.CredentialType `json:"credentials"`
	CipherSuites []mls.CipherSuite    `json:"ciphersuites"`
}

// over replaces the lists that are given.
func (c *peerCapabilities) over(base mls.Capabilities) mls.Capabilities {
	if c == nil {
		return base
	}
	replace(&base.Extensions, c.Extensions)
	replace(&base.Proposals, c.Proposals)
	replace(&base.Credentials, c.Credentials)
	replace(&base.CipherSuites, c.CipherSuites)
	return base
}

func replace[T any](to *[]T, list []T) {
	if list != nil {
		*to = list
	}
}

type peerLifetime struct {
	NotBefore *uint64 `json:"not_before"`
	NotAfter  *uint64 `json:"not_after"`
}

func (l *peerLifetime) lifetime() (*mls.Lifetime, error) {
	if l == nil {
		return nil, nil
	}
	if l.NotBefore == nil || l.NotAfter == nil {
		return nil, malformed("params: lifetime needs not_before and not_after")
	}
	return &mls.Lifetime{NotBefore: *l.NotBefore, NotAfter: *l.NotAfter}, nil
}

type createClientParams struct {
	Suite            *mls.CipherSuite  `json:"suite"`
	Identity         octets            `json:"identity"`
	Credential       *peerCredential   `json:"credential"`
	Capabilities     *peerCapabilities `json:"capabilities"`
	Lifetime         *peerLifetime     `json:"lifetime"`
	SignaturePrivate octets            `json:"signature_private_key"`
	SignaturePublic  octets            `json:"signature_public_key"`
	RefuseIdentities []octets          `json:"refuse_identities"`
}

type clientResult struct {
	Client     string          `json:"client"`
	Identity   octets          `json:"identity"`
	Credential *peerCredential `json:"credential"`
}

func (p *peer) createClient(ctx context.Context, q *createClientParams) (any, error) {
	if q.Suite == nil {
		return nil, malformed("params: suite is needed")
	}
	if q.Credential == nil && q.Identity == nil {
		return nil, malformed("params: identity or credential is needed")
	}
	c := &peerClient{suite: *q.Suite, credential: mls.BasicCredential(q.Identity), refused: q.RefuseIdentities}
	var err error
	if c.lifetime, err = q.Lifetime.lifetime(); err != nil {
		return nil, err
	}
	if q.Credential != nil {
		if c.credential, err = q.Credential.credential(); err != nil {
			return nil, err
		}
	}
	signer, err := p.signatureKey(ctx, c.suite, q.SignaturePrivate)
	if err != nil {
		return nil, err
	}
	if err := c.open(signer, q.Capabilities.over(defaultCapabilities(&c.credential))); err != nil {
		return nil, err
	}
	if q.SignaturePublic != nil && !bytes.Equal(q.SignaturePublic, c.SignatureKey()) {
		return nil, failed("signature_public_key is not that of signature_private_key")
	}
	return p.newClient(c)
}

func (p *peer) newClient(c *peerClient) (any, error) {
	h, err := p.addClient(c)
	if err != nil {
		return nil, err
	}
	return &clientResult{h, nonNil(c.credential.Identity()), describeCredential(&c.credential)}, nil
}

// signatureKey takes a given key, or makes one where keys are made.
func (p *peer) signatureKey(ctx context.Context, suite mls.CipherSuite, private []byte) (crypto.Signer, error) {
	if !suite.Supported() {
		return nil, unsupported("cipher suite %d", suite)
	}
	if private == nil {
		return p.keys.signer(ctx, suite)
	}
	k, err := vectors.SignatureKey(suite, private)
	if err != nil {
		return nil, malformed("params: signature_private_key: %v", err)
	}
	return k, nil
}

func defaultCapabilities(c *mls.Credential) mls.Capabilities {
	caps := mls.ExtendedCapabilities()
	if !slices.Contains(caps.Credentials, c.Type) {
		caps.Credentials = append(caps.Credentials, c.Type)
	}
	return caps
}

// open makes the mls.Client. Proposals may wait while application data is
// sent, since the driver decides what comes when; every credential is believed
// but those that judge refuses; capabilities are published as they are given; and there is
// no padding, since engines exist that do not expect it in handshakes.
func (c *peerClient) open(signer crypto.Signer, caps mls.Capabilities) (err error) {
	c.psks, c.deviceKeys, c.components = map[string][]byte{}, map[string]hpke.PrivateKey{}, mls.Components{}
	c.Client, err = mls.NewClient(mls.Config{
		CipherSuite: c.suite, Signer: signer, Credential: c.credential, Capabilities: caps,
		Judge: c.judge, PSK: c.psk, PrivateKey: c.devicePrivateKey, Now: c.now,
		NoGREASE: true, AdmitUnlisted: true, SendDespiteProposals: true,
		Limits:     mls.Limits{MaxLifetime: -1, MaxMembers: 1 << 17, PastEpochs: 8, MaxForward: 1 << 16},
		Components: c.components, Padding: mls.NoPadding,
	})
	return err
}

// learn makes components known before their updates are judged: to a driver,
// an update is the component's new data.
func (c *peerClient) learn(proposals ...mls.Proposal) {
	for _, p := range proposals {
		if u, ok := p.(*mls.AppDataUpdate); ok {
			if _, known := c.components[u.Component]; !known && !builtinComponent(u.Component) {
				c.components[u.Component] = mls.ReplaceData(func([]byte) error { return nil })
			}
		}
	}
}

// builtinComponent reports whether the engine itself knows the component.
func builtinComponent(id mls.ComponentID) bool {
	switch id {
	case mls.ComponentAppComponents, mls.ComponentSafeAAD, mls.ComponentContentMediaTypes, mls.ComponentAppAck:
		return true
	}
	return false
}

func (c *peerClient) now() time.Time {
	if c.clock.IsZero() {
		return time.Now()
	}
	return c.clock
}

// judge refuses the identities that the driver named, and a leaf that takes the
// place of another basic identity's (RFC 9420 sections 12.1.2 and 12.2).
func (c *peerClient) judge(_ context.Context, j *mls.Judgement) error {
	if j.Old != nil && j.Old.Credential.Type == mls.CredentialBasic && j.Leaf.Credential.Type == mls.CredentialBasic &&
		!j.Old.Credential.Equal(&j.Leaf.Credential) {
		return fmt.Errorf("the identity %x takes the place of %x", j.Leaf.Credential.Body, j.Old.Credential.Body)
	}
	for _, id := range c.refused {
		if j.Leaf.Credential.Type == mls.CredentialBasic && bytes.Equal(id, j.Leaf.Credential.Body) {
			return fmt.Errorf("the identity %x is refused", []byte(id))
		}
	}
	return nil
}

func (c *peerClient) psk(_ context.Context, id []byte) ([]byte, error) {
	if k, ok := c.psks[string(id)]; ok {
		return k, nil
	}
	return nil, mls.ErrUnknownPSK
}

func (c *peerClient) devicePrivateKey(_ context.Context, public []byte) (hpke.PrivateKey, error) {
	if k := c.deviceKeys[string(public)]; k != nil {
		return k, nil
	}
	return nil, mls.ErrNotFound
}

type createKeyPackageParams struct {
	Client         string            `json:"client"`
	Extensions     []peerExtension   `json:"extensions"`
	LeafExtensions []peerExtension   `json:"leaf_extensions"`
	Capabilities   *peerCapabilities `json:"capabilities"`
	Lifetime       *peerLifetime     `json:"lifetime"`
}

type keyPackageResult struct {
	KeyPackage octets `json:"key_package"`
	Message    octets `json:"mls_message"`
	Ref        octets `json:"ref"`
}

func (p *peer) createKeyPackage(ctx context.Context, q *createKeyPackageParams) (any, error) {
	c, err := p.client(q.Client)
	if err != nil {
		return nil, err
	}
	opts := mls.KeyPackageOptions{Extensions: extensionList(q.Extensions)}
	if opts.Lifetime, err = q.Lifetime.lifetime(); err != nil {
		return nil, err
	}
	if q.LeafExtensions != nil {
		opts.LeafExtensions = extensionList(q.LeafExtensions)
	}
	if q.Capabilities != nil {
		caps := q.Capabilities.over(defaultCapabilities(&c.credential))
		opts.Capabilities = &caps
	}
	e, err := p.newKeyPackage(ctx, c, opts)
	if err != nil {
		return nil, err
	}
	return &keyPackageResult{e.KeyPackage.Bytes(), e.KeyPackage.Message(), e.Ref()}, nil
}

// newKeyPackage makes a KeyPackage whose init key is in the device, if the
// device has keys of the suite's KEM. One that is not valid now is made at a
// time when it is, for others to refuse.
func (p *peer) newKeyPackage(ctx context.Context, c *peerClient, opts mls.KeyPackageOptions) (*mls.KeyPackageEntry, error) {
	if opts.Lifetime == nil {
		opts.Lifetime = c.lifetime
	}
	if l := opts.Lifetime; l != nil {
		c.clock = within(l, time.Now())
		defer func() { c.clock = time.Time{} }()
	}
	var err error
	if opts.InitKey, err = p.keys.initKey(ctx, c.suite); err != nil {
		return nil, err
	}
	e, err := c.NewKeyPackage(ctx, opts)
	if err != nil {
		return nil, err
	}
	if opts.InitKey != nil {
		c.deviceKeys[string(opts.InitKey.PublicKey().Bytes())] = opts.InitKey
	}
	c.entries = append(c.entries, e)
	return e, nil
}

// within is the time in a lifetime that is nearest to now.
func within(l *mls.Lifetime, now time.Time) time.Time {
	const last = 1 << 40 // seconds; later years do not fit everywhere
	unix := uint64(max(now.Unix(), 0))
	unix = min(max(unix, l.NotBefore), max(l.NotAfter, l.NotBefore), last)
	return time.Unix(int64(unix), 0)
}

type importKeyPackageParams struct {
	Suite          mls.CipherSuite `json:"suite"`
	KeyPackage     octets          `json:"key_package"`
	InitPriv       octets          `json:"init_priv"`
	EncryptionPriv octets          `json:"encryption_priv"`
	SignaturePriv  octets          `json:"signature_priv"`
}

// importKeyPackage makes a client of a KeyPackage and its private keys, which
// are in software whatever --key says.
func (p *peer) importKeyPackage(ctx context.Context, q *importKeyPackageParams) (any, error) {
	kp, err := mls.ParseKeyPackage(q.KeyPackage)
	if err != nil {
		return nil, err
	}
	suite := kp.CipherSuite
	if q.Suite != 0 && q.Suite != suite {
		return nil, failed("the KeyPackage is for cipher suite %d", suite)
	}
	if q.SignaturePriv == nil {
		return nil, malformed("params: signature_priv is needed")
	}
	signer, err := p.signatureKey(ctx, suite, q.SignaturePriv)
	if err != nil {
		return nil, err
	}
	initKey, err := vectors.HPKEKey(suite, q.InitPriv)
	if err != nil {
		return nil, malformed("params: init_priv: %v", err)
	}
	leafKey, err := vectors.HPKEKey(suite, q.EncryptionPriv)
	if err != nil {
		return nil, malformed("params: encryption_priv: %v", err)
	}
	c := &peerClient{suite: suite, credential: kp.LeafNode.Credential}
	if err := c.open(signer, kp.LeafNode.Capabilities); err != nil {
		return nil, err
	}
	if !bytes.Equal(c.SignatureKey(), kp.LeafNode.SignatureKey) {
		return nil, failed("signature_priv is not the key of the KeyPackage")
	}
	e, err := c.ImportKeyPackage(ctx, kp, initKey, leafKey)
	if err != nil {
		return nil, err
	}
	c.entries = append(c.entries, e)
	return p.newClient(c)
}

type storePSKParams struct {
	Client string `json:"client"`
	State  string `json:"state"`
	ID     octets `json:"psk_id"`
	PSK    octets `json:"psk"`
}

// storePSK gives a PSK to a client and all of its groups.
func (p *peer) storePSK(_ context.Context, q *storePSKParams) (any, error) {
	var c *peerClient
	if q.Client != "" || q.State == "" {
		var err error
		if c, err = p.client(q.Client); err != nil {
			return nil, err
		}
	} else {
		s, err := p.group(q.State)
		if err != nil {
			return nil, err
		}
		c = s.client
	}
	if q.ID == nil || q.PSK == nil {
		return nil, malformed("params: psk_id and psk are needed")
	}
	c.psks[string(q.ID)] = q.PSK
	return nil, nil
}

// A peerExtension is an extension on the line.
type peerExtension struct {
	Type mls.ExtensionType `json:"type"`
	Data octets            `json:"data"`
}

// UnmarshalJSON refuses an extension without a type, which would be the reserved 0.
func (e *peerExtension) UnmarshalJSON(b []byte) error {
	v := struct {
		Type *mls.ExtensionType `json:"type"`
		Data octets             `json:"data"`
	}{}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v.Type == nil {
		return errors.New("an extension needs a type")
	}
	*e = peerExtension{*v.Type, v.Data}
	return nil
}

func extensionList(list []peerExtension) mls.Extensions {
	out := mls.Extensions{}
	for _, e := range list {
		out = append(out, mls.Extension{Type: e.Type, Data: nonNil(e.Data)})
	}
	return out
}

func describeExtensions(ext mls.Extensions) []peerExtension {
	out := []peerExtension{}
	for _, e := range ext {
		out = append(out, peerExtension{e.Type, nonNil(e.Data)})
	}
	return out
}
