package mls

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// An Extension is one extension, its data kept as it came (section 7.2).
//
//	struct {
//	    ExtensionType extension_type;
//	    opaque extension_data<V>;
//	} Extension;
type Extension struct {
	Type ExtensionType
	Data []byte
}

// Extensions is a list of extensions with at most one of each type.
type Extensions []Extension

// Find returns the data of an extension, and whether it is there.
func (e Extensions) Find(t ExtensionType) ([]byte, bool) {
	for i := range e {
		if e[i].Type == t {
			return e[i].Data, true
		}
	}
	return nil, false
}

// With returns a copy of the list in which the extension is set, at its old
// place or else at the end.
func (e Extensions) With(t ExtensionType, data []byte) Extensions {
	out := slices.Clone(e)
	for i := range out {
		if out[i].Type == t {
			out[i].Data = data
			return out
		}
	}
	return append(out, Extension{t, data})
}

func (e Extensions) equal(other Extensions) bool {
	return slices.EqualFunc(e, other, func(a, b Extension) bool {
		return a.Type == b.Type && bytes.Equal(a.Data, b.Data)
	})
}

func (e Extensions) marshal(b *tlsvec.Builder) {
	b.Raw(tlsvec.AppendLength(nil, e.size()))
	for i := range e {
		b.Uint16(uint16(e[i].Type))
		b.Vector(e[i].Data)
	}
}

// size is the length of the vector without its header.
func (e Extensions) size() (n int) {
	for i := range e {
		n += 2 + vectorSize(e[i].Data)
	}
	return n
}

func (e *Extensions) unmarshal(r *tlsvec.Reader) {
	*e = nil
	r.Each(func(r *tlsvec.Reader) {
		*e = append(*e, Extension{ExtensionType(r.Uint16()), r.Vector()})
		limitCount(r, len(*e), 1<<16)
	})
	if t, twice := e.duplicate(); twice && r.Err() == nil {
		r.Fail(fmt.Sprintf("extension type 0x%04x appears twice (rule %v)", uint16(t), RuleExtensionsUnique))
	}
}

// checkUnique checks a list that did not come through a decoder.
func (e Extensions) checkUnique() error {
	if t, twice := e.duplicate(); twice {
		return broken(RuleExtensionsUnique, "extension 0x%04x", uint16(t))
	}
	return nil
}

// duplicate returns a type that appears twice (section 13.4).
func (e Extensions) duplicate() (ExtensionType, bool) {
	if len(e) < 2 {
		return 0, false
	}
	seen := make(map[ExtensionType]bool, len(e))
	for i := range e {
		if seen[e[i].Type] {
			return e[i].Type, true
		}
		seen[e[i].Type] = true
	}
	return 0, false
}

// Capabilities say what a client supports (section 7.2).
//
//	struct {
//	    ProtocolVersion versions<V>;
//	    CipherSuite cipher_suites<V>;
//	    ExtensionType extensions<V>;
//	    ProposalType proposals<V>;
//	    CredentialType credentials<V>;
//	} Capabilities;
type Capabilities struct {
	Versions     []ProtocolVersion
	CipherSuites []CipherSuite
	Extensions   []ExtensionType
	Proposals    []ProposalType
	Credentials  []CredentialType
}

// DefaultCapabilities is what this package supports by itself, with basic and
// X.509 credentials.
func DefaultCapabilities() Capabilities {
	return Capabilities{
		Versions:     []ProtocolVersion{MLS10},
		CipherSuites: CipherSuites(),
		Credentials:  []CredentialType{CredentialBasic, CredentialX509},
	}
}

func (c *Capabilities) marshal(b *tlsvec.Builder) {
	writeUint16s(b, c.Versions)
	writeUint16s(b, c.CipherSuites)
	writeUint16s(b, c.Extensions)
	writeUint16s(b, c.Proposals)
	writeUint16s(b, c.Credentials)
}

func (c *Capabilities) unmarshal(r *tlsvec.Reader) {
	c.Versions = readUint16s[ProtocolVersion](r)
	c.CipherSuites = readUint16s[CipherSuite](r)
	c.Extensions = readUint16s[ExtensionType](r)
	c.Proposals = readUint16s[ProposalType](r)
	c.Credentials = readUint16s[CredentialType](r)
}

func (c *Capabilities) supportsExtension(t ExtensionType) bool {
	return t.isDefault() || slices.Contains(c.Extensions, t)
}

func (c *Capabilities) supportsProposal(t ProposalType) bool {
	return t.isDefault() || slices.Contains(c.Proposals, t)
}

// isZero reports whether nothing was set, so that defaults apply.
func (c *Capabilities) isZero() bool {
	return len(c.Versions)+len(c.CipherSuites)+len(c.Extensions)+len(c.Proposals)+len(c.Credentials) == 0
}

// grease returns a copy with one random GREASE value in each list that takes
// one (section 13.5).
func (c Capabilities) grease() Capabilities {
	g := randomGREASE()
	c.CipherSuites = append(slices.Clone(c.CipherSuites), CipherSuite(g[0]))
	c.Extensions = append(slices.Clone(c.Extensions), ExtensionType(g[1]))
	c.Proposals = append(slices.Clone(c.Proposals), ProposalType(g[2]))
	c.Credentials = append(slices.Clone(c.Credentials), CredentialType(g[3]))
	return c
}

func randomGREASE() (g [4]uint16) {
	var pick [4]byte
	rand.Read(pick[:])
	for i := range g {
		g[i] = greaseValues[int(pick[i])%len(greaseValues)]
	}
	return g
}

// RequiredCapabilities is the required_capabilities extension (section 11.1).
//
//	struct {
//	    ExtensionType extension_types<V>;
//	    ProposalType proposal_types<V>;
//	    CredentialType credential_types<V>;
//	} RequiredCapabilities;
type RequiredCapabilities struct {
	Extensions  []ExtensionType
	Proposals   []ProposalType
	Credentials []CredentialType
}

// Extension encodes c for a GroupContext.
func (c RequiredCapabilities) Extension() Extension {
	return Extension{ExtensionRequiredCapabilities, encode(&c)}
}

func (c *RequiredCapabilities) marshal(b *tlsvec.Builder) {
	writeUint16s(b, c.Extensions)
	writeUint16s(b, c.Proposals)
	writeUint16s(b, c.Credentials)
}

func (c *RequiredCapabilities) unmarshal(r *tlsvec.Reader) {
	c.Extensions = readUint16s[ExtensionType](r)
	c.Proposals = readUint16s[ProposalType](r)
	c.Credentials = readUint16s[CredentialType](r)
}

// RequiredCapabilities decodes the extension, or returns nil if it is absent.
func (e Extensions) RequiredCapabilities() (*RequiredCapabilities, error) {
	data, ok := e.Find(ExtensionRequiredCapabilities)
	if !ok {
		return nil, nil
	}
	c := new(RequiredCapabilities)
	return c, decode("required_capabilities", data, c)
}

// An ExternalSender may send external proposals (section 12.1.8.1).
//
//	struct {
//	  SignaturePublicKey signature_key;
//	  Credential credential;
//	} ExternalSender;
type ExternalSender struct {
	SignatureKey []byte
	Credential   Credential
}

func (s *ExternalSender) marshal(b *tlsvec.Builder) {
	b.Vector(s.SignatureKey)
	s.Credential.marshal(b)
}

func (s *ExternalSender) unmarshal(r *tlsvec.Reader) {
	s.SignatureKey = r.Vector()
	s.Credential.unmarshal(r)
}

// ExternalSendersExtension encodes a list of senders for a GroupContext.
func ExternalSendersExtension(senders ...ExternalSender) Extension {
	var b tlsvec.Builder
	b.Nested(func(b *tlsvec.Builder) {
		for i := range senders {
			senders[i].marshal(b)
		}
	})
	return Extension{ExtensionExternalSenders, b.Bytes()}
}

// ExternalSenders decodes the external_senders extension; absent is empty.
func (e Extensions) ExternalSenders() ([]ExternalSender, error) {
	data, ok := e.Find(ExtensionExternalSenders)
	if !ok {
		return nil, nil
	}
	var list []ExternalSender
	r := tlsvec.NewReader(data)
	r.Each(func(r *tlsvec.Reader) {
		var s ExternalSender
		s.unmarshal(r)
		list = append(list, s)
	})
	if err := r.Done(); err != nil {
		return nil, &ParseError{"external_senders", err}
	}
	return list, nil
}

// ExternalPub decodes the external_pub extension (section 12.4.3.2), or
// returns nil if it is absent.
func (e Extensions) ExternalPub() ([]byte, error) {
	data, ok := e.Find(ExtensionExternalPub)
	if !ok {
		return nil, nil
	}
	r := tlsvec.NewReader(data)
	pub := r.Vector()
	if err := r.Done(); err != nil {
		return nil, &ParseError{"external_pub", err}
	}
	return pub, nil
}

func externalPubExtension(pub []byte) Extension {
	var b tlsvec.Builder
	b.Vector(pub)
	return Extension{ExtensionExternalPub, b.Bytes()}
}

// checkKnown decodes the extensions of a GroupContext that this package
// interprets, so that a malformed one is found when it is proposed.
func (e Extensions) checkKnown() error {
	if err := e.checkUnique(); err != nil {
		return err
	}
	if _, err := e.TreeSourceDomains(); err != nil {
		return err
	}
	if _, err := e.RequiredCapabilities(); err != nil {
		return err
	}
	if _, err := e.ExternalSenders(); err != nil {
		return err
	}
	_, err := e.groupNeeds()
	return err
}
