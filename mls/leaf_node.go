package mls

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"slices"
	"time"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A Lifetime is the time within which a KeyPackage's leaf is valid, in
// seconds since 1970 (section 7.2).
type Lifetime struct {
	NotBefore uint64
	NotAfter  uint64
}

// A LeafNode describes one member (section 7.2). One that was parsed or made
// by this package is read-only: its encoding is kept with it.
//
//	struct {
//	    HPKEPublicKey encryption_key;
//	    SignaturePublicKey signature_key;
//	    Credential credential;
//	    Capabilities capabilities;
//	    LeafNodeSource leaf_node_source;
//	    select (LeafNode.leaf_node_source) {
//	        case key_package: Lifetime lifetime;
//	        case update:      struct{};
//	        case commit:      opaque parent_hash<V>;
//	    };
//	    Extension extensions<V>;
//	    /* SignWithLabel(., "LeafNodeTBS", LeafNodeTBS) */
//	    opaque signature<V>;
//	} LeafNode;
type LeafNode struct {
	EncryptionKey []byte
	SignatureKey  []byte
	Credential    Credential
	Capabilities  Capabilities
	Source        LeafNodeSource
	Lifetime      Lifetime // if Source is LeafFromKeyPackage
	ParentHash    []byte   // if Source is LeafFromCommit
	Extensions    Extensions
	Signature     []byte

	raw []byte // the whole encoding
	tbs int    // length of the part before signature
}

func (l *LeafNode) marshal(b *tlsvec.Builder) {
	if l.raw != nil {
		b.Raw(l.raw)
		return
	}
	l.marshalUnsigned(b)
	b.Vector(l.Signature)
}

func (l *LeafNode) marshalUnsigned(b *tlsvec.Builder) {
	b.Vector(l.EncryptionKey)
	b.Vector(l.SignatureKey)
	l.Credential.marshal(b)
	l.Capabilities.marshal(b)
	b.Uint8(uint8(l.Source))
	switch l.Source {
	case LeafFromKeyPackage:
		b.Uint64(l.Lifetime.NotBefore)
		b.Uint64(l.Lifetime.NotAfter)
	case LeafFromCommit:
		b.Vector(l.ParentHash)
	}
	l.Extensions.marshal(b)
}

func (l *LeafNode) unmarshal(r *tlsvec.Reader) {
	start := r.Pos()
	l.EncryptionKey = r.Vector()
	l.SignatureKey = r.Vector()
	l.Credential.unmarshal(r)
	l.Capabilities.unmarshal(r)
	l.Source = LeafNodeSource(r.Uint8())
	switch l.Source {
	case LeafFromKeyPackage:
		l.Lifetime = Lifetime{r.Uint64(), r.Uint64()}
	case LeafFromUpdate:
	case LeafFromCommit:
		l.ParentHash = r.Vector()
	default:
		r.Fail(fmt.Sprintf("leaf_node_source %d is unknown", l.Source))
	}
	l.Extensions.unmarshal(r)
	l.tbs = r.Pos() - start
	l.Signature = r.Vector()
	if r.Err() == nil {
		l.raw = r.Since(start)
	}
}

// own copies the leaf out of the message that it came in, so that the tree
// does not keep the message alive.
func (l *LeafNode) own() *LeafNode {
	c := new(LeafNode)
	if err := decode("LeafNode", bytes.Clone(l.raw), c); err != nil {
		panic("mls: a decoded leaf does not decode: " + err.Error())
	}
	return c
}

// leafTBS is what a leaf's signature covers.
//
//	struct {
//	    ... /* the fields of LeafNode before signature */
//	    select (LeafNodeTBS.leaf_node_source) {
//	        case key_package: struct{};
//	        case update:      opaque group_id<V>; uint32 leaf_index;
//	        case commit:      opaque group_id<V>; uint32 leaf_index;
//	    };
//	} LeafNodeTBS;
func leafTBS(unsigned []byte, source LeafNodeSource, groupID []byte, index LeafIndex) []byte {
	b := tlsvec.NewBuilder(len(unsigned) + len(groupID) + 8)
	b.Raw(unsigned)
	if source != LeafFromKeyPackage {
		b.Vector(groupID)
		b.Uint32(uint32(index))
	}
	return b.Bytes()
}

// sign completes the leaf: it signs the fields as they are and keeps the
// encoding.
func (l *LeafNode) sign(ctx context.Context, s *suite, signer crypto.Signer, groupID []byte, index LeafIndex) error {
	if err := l.Credential.check(); err != nil {
		return err
	}
	var b tlsvec.Builder
	l.marshalUnsigned(&b)
	sig, err := s.signWithLabel(ctx, signer, "LeafNodeTBS", leafTBS(b.Bytes(), l.Source, groupID, index))
	if err != nil {
		return err
	}
	l.tbs, l.Signature = b.Len(), sig
	b.Vector(sig)
	l.raw = b.Bytes()
	return nil
}

func (l *LeafNode) verifySignature(s *suite, groupID []byte, index LeafIndex) error {
	tbs := leafTBS(l.raw[:l.tbs], l.Source, groupID, index)
	if err := s.verifyWithLabel(l.SignatureKey, "LeafNodeTBS", tbs, l.Signature); err != nil {
		return brokenBy(RuleLeafSignature, err, "leaf %d", index)
	}
	return nil
}

// A LeafPolicy is what an application decides about leaves (section 7.2).
type LeafPolicy struct {
	Now         time.Time     // if set, lifetimes must contain it
	MaxLifetime time.Duration // if set, lifetimes must not be longer
}

func (p LeafPolicy) rules() leafRules { return leafRules{now: p.Now, maxLifetime: p.MaxLifetime} }

// leafRules are the parts of section 7.3 that depend on the receiver.
type leafRules struct {
	now         time.Time     // zero: lifetimes are not checked
	maxLifetime time.Duration // zero: no limit
	unlisted    bool          // Config.AdmitUnlisted
	own         *Capabilities // of the client that checks; nil: all that this package implements
}

// validateAlone checks what section 7.3 says about a leaf by itself, its
// signature excepted.
func (l *LeafNode) validateAlone(s *suite, source LeafNodeSource, rules leafRules) error {
	if l.Source != source {
		return broken(RuleLeafSource, "leaf_node_source is %d, want %d", l.Source, source)
	}
	return l.validateFields(s, rules)
}

func (l *LeafNode) validateFields(s *suite, rules leafRules) error {
	if err := s.checkPublicKey(l.EncryptionKey); err != nil {
		return brokenBy(RuleLeafPublicKeys, err, "encryption_key")
	}
	c := &l.Capabilities
	if !slices.Contains(c.Versions, MLS10) || !rules.unlisted && !slices.Contains(c.CipherSuites, s.id) {
		return broken(RuleLeafVersion, "capabilities lack mls10 or cipher suite 0x%04x", uint16(s.id))
	}
	if !slices.Contains(c.Credentials, l.Credential.Type) {
		return broken(RuleLeafCredentialListed, "credential type 0x%04x is not in capabilities", uint16(l.Credential.Type))
	}
	if !l.Credential.certifies(l.SignatureKey) {
		return broken(RuleLeafCertificateKey, "the certificate of the x509 credential is for another key than signature_key")
	}
	if err := l.Extensions.checkUnique(); err != nil {
		return err
	}
	for i := range l.Extensions {
		if t := l.Extensions[i].Type; !c.supportsExtension(t) {
			return broken(RuleLeafExtensions, "extension 0x%04x is not in capabilities", uint16(t))
		}
	}
	if err := l.checkBindings(rules.own); err != nil {
		return err
	}
	if len(l.Extensions) > 0 {
		if _, err := l.Extensions.readNeeds(ExtensionSupportedWireFormats); err != nil {
			return err
		}
	}
	if l.Source == LeafFromKeyPackage {
		return l.Lifetime.validate(rules)
	}
	return nil
}

func (t Lifetime) validate(rules leafRules) error {
	if t.NotAfter < t.NotBefore {
		return broken(RuleLeafLifetime, "lifetime ends before it begins")
	}
	if limit := uint64(rules.maxLifetime / time.Second); limit > 0 && t.NotAfter-t.NotBefore > limit {
		return broken(RuleLeafLifetimeTotal, "lifetime of %d s is longer than %d s", t.NotAfter-t.NotBefore, limit)
	}
	if rules.now.IsZero() {
		return nil
	}
	if now := uint64(max(rules.now.Unix(), 0)); now < t.NotBefore || now > t.NotAfter {
		return broken(RuleLeafLifetime, "lifetime is from %d to %d, it is %d", t.NotBefore, t.NotAfter, now)
	}
	return nil
}

// meets checks a leaf against the extensions of a group (sections 7.3, 13.4).
func (l *LeafNode) meets(required *RequiredCapabilities, ext Extensions) error {
	c := &l.Capabilities
	for i := range ext {
		if !c.supportsExtension(ext[i].Type) {
			return broken(RuleLeafGroupExtensions, "GroupContext extension 0x%04x is not supported", uint16(ext[i].Type))
		}
	}
	if required == nil {
		return nil
	}
	for _, t := range required.Extensions {
		if !c.supportsExtension(t) {
			return broken(RuleLeafRequired, "required extension 0x%04x is not supported", uint16(t))
		}
	}
	for _, t := range required.Proposals {
		if !c.supportsProposal(t) {
			return broken(RuleLeafRequired, "required proposal 0x%04x is not supported", uint16(t))
		}
	}
	for _, t := range required.Credentials {
		if !slices.Contains(c.Credentials, t) {
			return broken(RuleLeafRequired, "required credential 0x%04x is not supported", uint16(t))
		}
	}
	return nil
}
