package mls

import (
	"context"
	"crypto"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// Bounds of what the check of a whole group costs.
const (
	maxBindings     = 8  // of one credential
	maxBindingLists = 64 // kinds of bindings in one group
)

// A CredentialBinding is the statement of a credential's holder that a leaf's
// signature key is the holder's (section 5.5.1). The signature schemes of the
// binding and of the group may differ.
//
//	struct {
//	  CipherSuite cipher_suite;
//	  Credential credential;
//	  SignaturePublicKey credential_key;
//	  /* SignWithLabel(., "CredentialBindingTBS", CredentialBindingTBS) */
//	  opaque signature<V>;
//	} CredentialBinding;
type CredentialBinding struct {
	CipherSuite   CipherSuite
	Credential    Credential
	CredentialKey []byte
	Signature     []byte
}

// BindCredential makes a binding: signer holds the credential's key, which may
// be in a device, and signatureKey is the leaf's. A leaf that takes a new
// signature key needs new bindings.
func BindCredential(ctx context.Context, c CipherSuite, credential Credential, signer crypto.Signer, signatureKey []byte) (*CredentialBinding, error) {
	s, err := lookupSuite(c)
	if err != nil {
		return nil, err
	}
	b := &CredentialBinding{CipherSuite: c, Credential: credential}
	if b.CredentialKey, err = s.sig.encodePublicKey(signer.Public()); err != nil {
		return nil, err
	}
	b.Signature, err = s.signWithLabel(ctx, signer, bindingLabel, b.tbs(signatureKey))
	return b, err
}

const bindingLabel = "CredentialBindingTBS"

// Verify checks that the credential's key signed for a leaf's signature key.
// Whether that key is the credential's is for the application to judge.
func (c *CredentialBinding) Verify(signatureKey []byte) error {
	return VerifyWithLabel(c.CipherSuite, c.CredentialKey, bindingLabel, c.tbs(signatureKey), c.Signature)
}

// tbs is what the signature covers.
//
//	struct {
//	  CipherSuite cipher_suite;
//	  Credential credential;
//	  SignaturePublicKey credential_key;
//	  SignaturePublicKey signature_key;
//	} CredentialBindingTBS;
func (c *CredentialBinding) tbs(signatureKey []byte) []byte {
	var b tlsvec.Builder
	c.marshalUnsigned(&b)
	b.Vector(signatureKey)
	return b.Bytes()
}

func (c *CredentialBinding) marshalUnsigned(b *tlsvec.Builder) {
	b.Uint16(uint16(c.CipherSuite))
	c.Credential.marshal(b)
	b.Vector(c.CredentialKey)
}

func (c *CredentialBinding) marshal(b *tlsvec.Builder) {
	c.marshalUnsigned(b)
	b.Vector(c.Signature)
}

func (c *CredentialBinding) unmarshal(r *tlsvec.Reader) {
	c.CipherSuite = CipherSuite(r.Uint16())
	c.Credential.unmarshal(r)
	c.CredentialKey = r.Vector()
	c.Signature = r.Vector()
}

// MultiCredential joins bindings that all members must support and verify
// (section 5.5).
//
//	struct {
//	  CredentialBinding bindings<V>;
//	} MultiCredential;
func MultiCredential(bindings ...*CredentialBinding) Credential {
	return Credential{CredentialMulti, encodeBindings(bindings)}
}

// WeakMultiCredential joins bindings of which every member must support one.
// It is as strong as its weakest binding (section 5.5).
//
//	struct {
//	  CredentialBinding bindings<V>;
//	} WeakMultiCredential;
func WeakMultiCredential(bindings ...*CredentialBinding) Credential {
	return Credential{CredentialWeakMulti, encodeBindings(bindings)}
}

func encodeBindings(bindings []*CredentialBinding) []byte {
	var b tlsvec.Builder
	for _, c := range bindings {
		c.marshal(&b)
	}
	return b.Bytes()
}

// isMulti reports whether the credential consists of bindings.
func (c *Credential) isMulti() bool {
	return c.Type == CredentialMulti || c.Type == CredentialWeakMulti
}

// Bindings returns the bindings of a multi or weak-multi credential, of which
// there are one to eight with different keys, and nil for other credentials.
// They are not verified.
func (c *Credential) Bindings() ([]CredentialBinding, error) {
	if !c.isMulti() {
		return nil, nil
	}
	var list []CredentialBinding
	r := tlsvec.NewReader(c.Body)
	for !r.Empty() {
		var b CredentialBinding
		b.unmarshal(r)
		if list = append(list, b); len(list) > maxBindings {
			return nil, broken(RuleBindingList, "more than %d bindings", maxBindings)
		}
	}
	if err := r.Done(); err != nil {
		return nil, brokenBy(RuleBindingList, &ParseError{"credential bindings", err}, "credential")
	}
	return list, checkBindingList(list)
}

func checkBindingList(list []CredentialBinding) error {
	if len(list) == 0 {
		return broken(RuleBindingList, "credential without bindings")
	}
	for i := range list {
		if list[i].Credential.isMulti() {
			return broken(RuleBindingList, "binding %d is of a credential with bindings", i)
		}
		for j := range i {
			if slices.Equal(list[i].CredentialKey, list[j].CredentialKey) {
				return broken(RuleBindingList, "bindings %d and %d have one credential_key", j, i)
			}
		}
	}
	return nil
}

// supportsBinding reports whether a client supports a binding's credential
// type and cipher suite.
func (c *Capabilities) supportsBinding(b *CredentialBinding) bool {
	return slices.Contains(c.CipherSuites, b.CipherSuite) && slices.Contains(c.Credentials, b.Credential.Type)
}

// supportsCredential checks that the client of these capabilities supports a
// credential: its type and, if it has bindings, all of them or, if it is a
// weak one, one of them (section 5.5.2).
func (c *Capabilities) supportsCredential(t CredentialType, bindings []CredentialBinding) error {
	if bindings == nil {
		return nil
	}
	if !slices.Contains(c.Credentials, t) {
		return broken(RuleBindingSupport, "credential type 0x%04x is not in capabilities", uint16(t))
	}
	supported := 0
	for i := range bindings {
		if c.supportsBinding(&bindings[i]) {
			supported++
		}
	}
	if t == CredentialMulti && supported < len(bindings) {
		return broken(RuleBindingSupport, "%d of %d bindings are not in capabilities", len(bindings)-supported, len(bindings))
	}
	if supported == 0 {
		return broken(RuleBindingSupport, "none of %d bindings is in capabilities", len(bindings))
	}
	return nil
}

// checkBindings verifies the bindings of a leaf's credential. own are the
// capabilities of the client that checks, or nil for all that this package
// implements: of a weak credential only what is supported is verified.
func (l *LeafNode) checkBindings(own *Capabilities) error {
	list, err := l.Credential.Bindings()
	if err != nil || list == nil {
		return err
	}
	if err := l.Capabilities.supportsCredential(l.Credential.Type, list); err != nil {
		return err
	}
	for i := range list {
		b := &list[i]
		if l.Credential.Type == CredentialWeakMulti && !b.checkedBy(own) {
			continue
		}
		if err := b.Verify(l.SignatureKey); err != nil {
			return brokenBy(RuleBindingSignature, err, "binding %d", i)
		}
	}
	return nil
}

func (c *CredentialBinding) checkedBy(own *Capabilities) bool {
	return c.CipherSuite.Supported() && (own == nil || own.supportsBinding(c))
}
