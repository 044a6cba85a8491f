package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hpke"
	"fmt"
)

// Primitives are the pure functions of a cipher suite, below the level of
// groups. They are what test vectors are about, and of use to protocols that
// build upon MLS; an application needs Client and Group only.
type Primitives struct{ suite *suite }

// NewPrimitives gives the functions of a cipher suite.
func NewPrimitives(c CipherSuite) (Primitives, error) {
	s, err := lookupSuite(c)
	return Primitives{s}, err
}

// CipherSuite returns the cipher suite.
func (p Primitives) CipherSuite() CipherSuite { return p.suite.id }

// HashLength is KDF.Nh, the length of most secrets.
func (p Primitives) HashLength() int { return p.suite.nh }

// RefHash is RefHash (section 5.2).
func (p Primitives) RefHash(label string, value []byte) []byte { return p.suite.refHash(label, value) }

// ExpandWithLabel is ExpandWithLabel (section 8).
func (p Primitives) ExpandWithLabel(secret []byte, label string, context []byte, length int) ([]byte, error) {
	if limit := 255 * p.suite.nh; length < 0 || length > limit {
		return nil, fmt.Errorf("mls: cannot expand to %d octets; at most %d", length, limit)
	}
	return p.suite.expandWithLabel(secret, label, context, length), nil
}

// DeriveSecret is DeriveSecret (section 8).
func (p Primitives) DeriveSecret(secret []byte, label string) []byte {
	return p.suite.deriveSecret(secret, label)
}

// DeriveTreeSecret is DeriveTreeSecret (section 9.1).
func (p Primitives) DeriveTreeSecret(secret []byte, label string, generation uint32, length int) ([]byte, error) {
	g := [4]byte{byte(generation >> 24), byte(generation >> 16), byte(generation >> 8), byte(generation)}
	return p.ExpandWithLabel(secret, label, g[:], length)
}

// EncryptWithLabel is EncryptWithLabel (section 5.1.3).
func (p Primitives) EncryptWithLabel(publicKey []byte, label string, context, plaintext []byte) (HPKECiphertext, error) {
	return p.suite.encryptWithLabel(publicKey, label, context, plaintext)
}

// DecryptWithLabel is DecryptWithLabel (section 5.1.3).
func (p Primitives) DecryptWithLabel(k hpke.PrivateKey, label string, context []byte, c HPKECiphertext) ([]byte, error) {
	return p.suite.decryptWithLabel(k, label, context, c)
}

// SenderDataKey gives the AEAD key and nonce of a PrivateMessage's sender data
// (section 6.3.2).
func (p Primitives) SenderDataKey(senderDataSecret, ciphertext []byte) (key, nonce []byte) {
	k := p.suite.senderDataKey(senderDataSecret, ciphertext)
	return k.key, k.nonce
}

// MAC computes a confirmation tag or membership tag (section 5.1).
func (p Primitives) MAC(key, data []byte) []byte { return p.suite.mac(key, data) }

// PSKSecret chains pre-shared keys in order (section 8.4).
func (p Primitives) PSKSecret(ids []PreSharedKeyID, secrets [][]byte) ([]byte, error) {
	if len(ids) != len(secrets) {
		return nil, fmt.Errorf("mls: %d names for %d pre-shared keys", len(ids), len(secrets))
	}
	psks := make([]psk, len(ids))
	for i := range ids {
		psks[i] = psk{ids[i], secrets[i]}
	}
	return p.suite.pskSecret(psks), nil
}

// TranscriptHashes gives the confirmed and the interim transcript hash after a
// commit (section 8.2).
func (p Primitives) TranscriptHashes(interimBefore []byte, commit *AuthenticatedContent) (confirmed, interim []byte) {
	confirmed = p.suite.confirmedTranscript(interimBefore, commit)
	return confirmed, p.suite.interimTranscript(confirmed, commit.Auth.ConfirmationTag)
}

// EpochSecrets are the secrets of one epoch (section 8, table 4).
type EpochSecrets struct {
	Joiner, Welcome    []byte
	SenderData         []byte
	Encryption         []byte
	Exporter           []byte
	External           []byte
	ConfirmationKey    []byte
	MembershipKey      []byte
	ResumptionPSK      []byte
	EpochAuthenticator []byte
	Init               []byte
}

// JoinerSecret combines the last epoch's init secret with a commit secret.
// groupContext is the encoded GroupContext of the new epoch.
func (p Primitives) JoinerSecret(initSecret, commitSecret, groupContext []byte) []byte {
	return p.suite.joinerSecret(initSecret, commitSecret, groupContext)
}

// EpochSecrets runs the key schedule from the joiner secret down (section 8).
func (p Primitives) EpochSecrets(joiner, pskSecret, groupContext []byte) *EpochSecrets {
	e := p.suite.deriveEpoch(joiner, pskSecret, groupContext)
	return &EpochSecrets{
		Joiner: e.joiner, Welcome: e.welcome, SenderData: e.senderData, Encryption: e.encryption,
		Exporter: e.exporter, External: e.external, ConfirmationKey: e.confirmationKey,
		MembershipKey: e.membershipKey, ResumptionPSK: e.resumptionPSK,
		EpochAuthenticator: e.epochAuthenticator, Init: e.init,
	}
}

// ExternalPub is the public key of external joins (section 8).
func (p Primitives) ExternalPub(external []byte) ([]byte, error) {
	k, err := p.suite.deriveKeyPair(external)
	if err != nil {
		return nil, err
	}
	return k.PublicKey().Bytes(), nil
}

// Export is MLS-Exporter (section 8.5).
func (p Primitives) Export(exporter []byte, label string, context []byte, length int) ([]byte, error) {
	return p.ExpandWithLabel(p.suite.deriveSecret(exporter, label), "exported", p.suite.sum(context), length)
}

// A SecretTree gives the message keys of an epoch (section 9).
type SecretTree struct {
	suite *suite
	tree  *secretTree
	limit ratchetLimits
}

// NewSecretTree makes the secret tree of a group with that many leaves. Message
// keys may lie up to forward generations ahead of the last one.
func (p Primitives) NewSecretTree(leaves, forward uint32, encryptionSecret []byte) (*SecretTree, error) {
	if leaves == 0 || leaves > maxLeaves {
		return nil, fmt.Errorf("mls: a tree of %d leaves; want 1 to %d", leaves, maxLeaves)
	}
	t := newSecretTree(p.suite, sizeFor(leaves), bytes.Clone(encryptionSecret))
	return &SecretTree{p.suite, t, ratchetLimits{forward, int(forward) + 1}}, nil
}

// Key gives the key and nonce of one generation of a leaf's ratchet.
func (t *SecretTree) Key(l LeafIndex, c ContentType, generation uint32) (key, nonce []byte, err error) {
	k, err := t.key(l, c, generation)
	return k.key, k.nonce, err
}

func (t *SecretTree) key(l LeafIndex, c ContentType, generation uint32) (keyNonce, error) {
	r, err := t.tree.ratchet(l, c)
	if err != nil {
		return keyNonce{}, err
	}
	return r.find(t.suite, generation, t.limit)
}

// A Framing holds what protects the messages of one member in an epoch
// (section 6).
type Framing struct {
	Primitives
	GroupContext     []byte // encoded
	Leaf             LeafIndex
	SignatureKey     []byte
	MembershipKey    []byte
	SenderDataSecret []byte
}

// Protect signs content of the member and encodes it as an MLSMessage. A
// private one takes a generation of the secret tree.
func (f *Framing) Protect(ctx context.Context, signer crypto.Signer, w WireFormat, c FramedContent, tag []byte, tree *SecretTree, generation uint32) ([]byte, error) {
	c.Sender = memberSender(f.Leaf)
	c.setBody()
	a := &AuthenticatedContent{WireFormat: w, Content: c}
	if err := a.sign(ctx, f.suite, signer, f.GroupContext); err != nil {
		return nil, err
	}
	a.Auth.ConfirmationTag = tag
	if w == WirePublicMessage {
		m, err := a.public(f.suite, f.MembershipKey, f.GroupContext)
		if err != nil {
			return nil, err
		}
		return wrapMessage(w, m), nil
	}
	k, err := tree.key(f.Leaf, c.ContentType, generation)
	if err != nil {
		return nil, err
	}
	m, err := a.seal(f.suite, f.SenderDataSecret, k, generation, PadToMultiple(64))
	if err != nil {
		return nil, err
	}
	return wrapMessage(w, m), nil
}

// Open removes the protection of a message that the member sent and verifies
// it.
func (f *Framing) Open(m *Message, tree *SecretTree) (*AuthenticatedContent, error) {
	a, err := f.unprotect(m, tree)
	if err != nil {
		return nil, err
	}
	if a.Content.Sender != memberSender(f.Leaf) {
		return nil, broken(RuleFrameSender, "sender is %d/%d, want leaf %d", a.Content.Sender.Type, a.Content.Sender.Index, f.Leaf)
	}
	return a, a.verify(f.suite, f.SignatureKey, f.GroupContext)
}

func (f *Framing) unprotect(m *Message, tree *SecretTree) (*AuthenticatedContent, error) {
	if m.PublicMessage != nil {
		return m.PublicMessage.open(f.suite, f.MembershipKey, f.GroupContext)
	}
	if m.PrivateMessage == nil {
		return nil, fmt.Errorf("%w: wire format 0x%04x is not a message to a group", ErrUnsupported, uint16(m.WireFormat))
	}
	d, err := f.suite.openSenderData(f.SenderDataSecret, m.PrivateMessage)
	if err != nil {
		return nil, err
	}
	k, err := tree.key(d.leaf, m.PrivateMessage.ContentType, d.generation)
	if err != nil {
		return nil, err
	}
	return f.suite.openContent(m.PrivateMessage, k, d)
}

// Body returns the encoding of what ContentType selects.
func (c *FramedContent) Body() []byte { return bytes.Clone(c.body) }

// OpenWelcome decrypts a Welcome that names no pre-shared key with the init
// key of a KeyPackage and returns the joiner secret and the GroupInfo, whose
// signature and confirmation tag are not checked (section 12.4.3.1).
func (p Primitives) OpenWelcome(w *Welcome, k *KeyPackage, initKey hpke.PrivateKey) (joiner []byte, info *GroupInfo, err error) {
	part := w.For(k.Ref())
	if part == nil {
		return nil, nil, ErrNotForUs
	}
	secrets, err := w.openSecrets(p.suite, part, initKey)
	if err != nil {
		return nil, nil, err
	}
	if len(secrets.psks) > 0 {
		return nil, nil, ErrUnknownPSK
	}
	member := p.suite.memberSecret(secrets.joiner, p.suite.zero())
	info, err = w.openGroupInfo(p.suite, p.suite.deriveSecret(member, "welcome"))
	return secrets.joiner, info, err
}

// VerifyGroupInfo checks the signature of a GroupInfo.
func (p Primitives) VerifyGroupInfo(g *GroupInfo, signatureKey []byte) error {
	return g.verify(p.suite, signatureKey)
}

// Bytes returns the encoding.
func (c *GroupContext) Bytes() []byte { return encode(c) }
