package mls

import (
	"context"
	"crypto"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A KeyPackage lets others add a client to a group (section 10). One that was
// parsed or made by this package is read-only.
//
//	struct {
//	    ProtocolVersion version;
//	    CipherSuite cipher_suite;
//	    HPKEPublicKey init_key;
//	    LeafNode leaf_node;
//	    Extension extensions<V>;
//	    /* SignWithLabel(., "KeyPackageTBS", KeyPackageTBS) */
//	    opaque signature<V>;
//	} KeyPackage;
type KeyPackage struct {
	Version     ProtocolVersion
	CipherSuite CipherSuite
	InitKey     []byte
	LeafNode    *LeafNode
	Extensions  Extensions
	Signature   []byte

	raw []byte
	tbs int
}

// ParseKeyPackage decodes a KeyPackage, bare or as an MLSMessage. It does not
// verify it; see KeyPackage.Validate.
func ParseKeyPackage(b []byte) (*KeyPackage, error) {
	k := new(KeyPackage)
	return k, parseBareOrMessage("KeyPackage", b, WireKeyPackage, k)
}

// parseBareOrMessage tells an MLSMessage of the given wire format from the
// bare structure. The two cannot be confused: a KeyPackage, Welcome or
// GroupInfo whose second field were the wire format would name a cipher suite
// of the RFC's range and then fail to parse as an MLSMessage, or the reverse.
func parseBareOrMessage(name string, b []byte, w WireFormat, m unmarshaler) error {
	r := tlsvec.NewReader(b)
	if ProtocolVersion(r.Uint16()) == MLS10 && WireFormat(r.Uint16()) == w {
		if err := parse(name, b[4:], m); err == nil {
			return nil
		}
	}
	return parse(name, b, m)
}

// Bytes returns the encoding.
func (k *KeyPackage) Bytes() []byte { return encode(k) }

// Message returns the encoding as an MLSMessage.
func (k *KeyPackage) Message() []byte { return wrapMessage(WireKeyPackage, k) }

// Ref is the KeyPackageRef (section 5.2), or nil for an unsupported suite.
func (k *KeyPackage) Ref() []byte {
	s := suites[k.CipherSuite]
	if s == nil {
		return nil
	}
	return s.refHash("MLS 1.0 KeyPackage Reference", encode(k))
}

func (k *KeyPackage) marshal(b *tlsvec.Builder) {
	if k.raw != nil {
		b.Raw(k.raw)
		return
	}
	k.marshalUnsigned(b)
	b.Vector(k.Signature)
}

func (k *KeyPackage) marshalUnsigned(b *tlsvec.Builder) {
	b.Uint16(uint16(k.Version))
	b.Uint16(uint16(k.CipherSuite))
	b.Vector(k.InitKey)
	k.LeafNode.marshal(b)
	k.Extensions.marshal(b)
}

func (k *KeyPackage) unmarshal(r *tlsvec.Reader) {
	start := r.Pos()
	k.Version = readVersion(r)
	k.CipherSuite = CipherSuite(r.Uint16())
	k.InitKey = r.Vector()
	k.LeafNode = new(LeafNode)
	k.LeafNode.unmarshal(r)
	k.Extensions.unmarshal(r)
	k.tbs = r.Pos() - start
	k.Signature = r.Vector()
	if r.Err() == nil {
		k.raw = r.Since(start)
	}
}

func (k *KeyPackage) sign(ctx context.Context, s *suite, signer crypto.Signer) error {
	var b tlsvec.Builder
	k.marshalUnsigned(&b)
	sig, err := s.signWithLabel(ctx, signer, "KeyPackageTBS", b.Bytes())
	if err != nil {
		return err
	}
	k.tbs, k.Signature = b.Len(), sig
	b.Vector(sig)
	k.raw = b.Bytes()
	return nil
}

// Validate checks a KeyPackage by itself (section 10.1): suite, keys, leaf,
// lifetime and both signatures. Whether its credential is believed is for the
// application to say.
func (k *KeyPackage) Validate(rules LeafPolicy) error {
	s, err := lookupSuite(k.CipherSuite)
	if err != nil {
		return brokenBy(RuleKeyPackageSuite, err, "KeyPackage")
	}
	if err := k.validateFields(s, rules.rules()); err != nil {
		return err
	}
	return k.verifySignatures(s)
}

// validateFields checks everything but the signatures.
func (k *KeyPackage) validateFields(s *suite, rules leafRules) error {
	if k.Version != MLS10 || k.CipherSuite != s.id {
		return broken(RuleKeyPackageSuite, "KeyPackage is for cipher suite 0x%04x, the group has 0x%04x", uint16(k.CipherSuite), uint16(s.id))
	}
	if err := s.checkPublicKey(k.InitKey); err != nil {
		return brokenBy(RuleKeyPackagePublicKey, err, "init_key")
	}
	if string(k.InitKey) == string(k.LeafNode.EncryptionKey) {
		return broken(RuleKeyPackageInitKey, "init_key equals the leaf's encryption_key")
	}
	if err := k.Extensions.checkUnique(); err != nil {
		return err
	}
	for i := range k.Extensions {
		if t := k.Extensions[i].Type; !rules.unlisted && !k.LeafNode.Capabilities.supportsExtension(t) {
			return broken(RuleKeyPackageExtensions, "extension 0x%04x is not in capabilities", uint16(t))
		}
	}
	if err := k.checkMarks(); err != nil {
		return err
	}
	return k.LeafNode.validateAlone(s, LeafFromKeyPackage, rules)
}

func (k *KeyPackage) verifySignatures(s *suite) error {
	leaf := k.LeafNode
	if err := leaf.verifySignature(s, nil, 0); err != nil {
		return err
	}
	if err := s.verifyWithLabel(leaf.SignatureKey, "KeyPackageTBS", k.raw[:k.tbs], k.Signature); err != nil {
		return brokenBy(RuleKeyPackageSignature, err, "KeyPackage")
	}
	return nil
}
