package mimi

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// The encoding is that of RFC 9420 section 2.1: minimal vector headers,
// presence octets of 0 or 1 and no trailing octets. The draft cites the TLS
// presentation language of RFC 8446, which lacks vectors and optional values
// of this form.

// A Protocol names the end-to-end protocol of a room, not the version of
// MIMI.
//
//	enum { reserved(0), mls10(1), (255) } Protocol;
type Protocol uint8

// ProtocolMLS10 is the only protocol.
const ProtocolMLS10 Protocol = 1

// A body is a struct of the draft.
type body interface {
	append(*tlsvec.Builder)
	read(*tlsvec.Reader)
}

func marshal(m body) []byte {
	b := tlsvec.NewBuilder(512)
	m.append(b)
	return b.Bytes()
}

// parse decodes exactly one struct from a copy of b.
func parse(name string, b []byte, m body) error { return read(name, bytes.Clone(b), m) }

// read is parse of b itself, which nobody may change any more.
func read(name string, b []byte, m body) error {
	r := tlsvec.NewReader(b)
	m.read(r)
	if err := r.Done(); err != nil {
		return fmt.Errorf("mimi: %s: %w", name, err)
	}
	return nil
}

func readProtocol(r *tlsvec.Reader) Protocol {
	p := Protocol(r.Uint8())
	if r.Err() == nil && p != ProtocolMLS10 {
		r.Fail(fmt.Sprintf("protocol %d is unknown, want %d (mls10)", p, ProtocolMLS10))
	}
	return p
}

// readCode reads an enum whose values go from least to most without a gap.
func readCode[T ~uint8](r *tlsvec.Reader, name string, least, most T) T {
	v := T(r.Uint8())
	if r.Err() == nil && (v < least || v > most) {
		r.Fail(fmt.Sprintf("%s %d is unknown", name, v))
	}
	return v
}

// readBounded reads opaque data<V> of at most the given octets.
func readBounded(r *tlsvec.Reader, name string, most int) []byte {
	v := r.Vector()
	if len(v) > most {
		r.Fail(fmt.Sprintf("%s of %d octets, want at most %d", name, len(v), most))
	}
	return v
}

// readNote reads UTF-8 text for a person.
func readNote(r *tlsvec.Reader, name string, most int) string {
	v := readBounded(r, name, most)
	if !utf8.Valid(v) {
		r.Fail(name + " is not UTF-8")
	}
	return string(v)
}

// readList reads a vector of at most the given elements.
func readList[T any](r *tlsvec.Reader, name string, most int, read func(*tlsvec.Reader) T) []T {
	var list []T
	r.Each(func(r *tlsvec.Reader) {
		if len(list) == most {
			r.Fail(fmt.Sprintf("more than %d %s", most, name))
			return
		}
		list = append(list, read(r))
	})
	return list
}

func appendList[T any](b *tlsvec.Builder, list []T, write func(*tlsvec.Builder, T)) {
	b.Nested(func(b *tlsvec.Builder) {
		for _, v := range list {
			write(b, v)
		}
	})
}

func appendURI(b *tlsvec.Builder, u URI) { b.String(u.String()) }

// readUser reads the IdentifierUri of a user or pseudonym.
func readUser(r *tlsvec.Reader) URI { return readURI(r, KindUser, KindPseudonym) }

// readURIOrNone reads an IdentifierUri that may be empty, which stands for
// "none" where the draft has no optional.
func readURIOrNone(r *tlsvec.Reader, kinds ...Kind) URI {
	v := r.Vector()
	if len(v) == 0 {
		return URI{}
	}
	u, err := ParseURI(string(v))
	switch {
	case err != nil:
		r.Fail(err.Error())
	case !slices.Contains(kinds, u.Kind()):
		r.Fail("URI of a " + u.Kind().String())
	}
	return u
}

func appendUint16s[T ~uint16](b *tlsvec.Builder, list []T) {
	appendList(b, list, func(b *tlsvec.Builder, v T) { b.Uint16(uint16(v)) })
}

func readUint16s[T ~uint16](r *tlsvec.Reader) (list []T) {
	r.Each(func(r *tlsvec.Reader) { list = append(list, T(r.Uint16())) })
	return list
}

func appendCredential(b *tlsvec.Builder, c mls.Credential) {
	b.Uint16(uint16(c.Type))
	if c.Type == mls.CredentialSDJWT {
		b.Raw(c.Body)
		return
	}
	b.Vector(c.Body)
}

// maxCredential is the most octets of a credential.
const maxCredential = 128 << 10

func readCredential(r *tlsvec.Reader) mls.Credential {
	raw := span(r, func(r *tlsvec.Reader) { skipCredential(r) })
	if r.Err() != nil {
		return mls.Credential{}
	}
	in := tlsvec.NewReader(raw)
	c := mls.Credential{Type: mls.CredentialType(in.Uint16())}
	if c.Body = raw[2:]; c.Type != mls.CredentialSDJWT {
		c.Body = in.Vector()
	}
	if len(c.Body) > maxCredential {
		r.Fail(fmt.Sprintf("credential of %d octets, want at most %d", len(c.Body), maxCredential))
	}
	if c.Type == mls.CredentialX509 && r.Err() == nil {
		if _, err := c.Certificates(); err != nil {
			r.Fail(err.Error())
		}
	}
	return c
}

func appendExternalSender(b *tlsvec.Builder, s mls.ExternalSender) {
	b.Vector(s.SignatureKey)
	appendCredential(b, s.Credential)
}

func readExternalSender(r *tlsvec.Reader) mls.ExternalSender {
	return mls.ExternalSender{SignatureKey: r.Vector(), Credential: readCredential(r)}
}

func appendCapabilities(b *tlsvec.Builder, c *mls.Capabilities) {
	appendUint16s(b, c.Versions)
	appendUint16s(b, c.CipherSuites)
	appendUint16s(b, c.Extensions)
	appendUint16s(b, c.Proposals)
	appendUint16s(b, c.Credentials)
}

func readCapabilities(r *tlsvec.Reader) *mls.Capabilities {
	return &mls.Capabilities{
		Versions:     readUint16s[mls.ProtocolVersion](r),
		CipherSuites: readUint16s[mls.CipherSuite](r),
		Extensions:   readUint16s[mls.ExtensionType](r),
		Proposals:    readUint16s[mls.ProposalType](r),
		Credentials:  readUint16s[mls.CredentialType](r),
	}
}

func appendDictionary(b *tlsvec.Builder, d mls.AppDataDictionary) {
	appendList(b, d, func(b *tlsvec.Builder, e mls.ComponentData) {
		b.Uint16(uint16(e.ID))
		b.Vector(e.Data)
	})
}

// readDictionary reads the extension point of a request or response. Its
// entries are in strictly increasing order; those that are unknown are kept
// and ignored.
func readDictionary(r *tlsvec.Reader) (d mls.AppDataDictionary) {
	last := -1
	r.Each(func(r *tlsvec.Reader) {
		e := mls.ComponentData{ID: mls.ComponentID(r.Uint16()), Data: r.Vector()}
		if int(e.ID) <= last {
			r.Fail(fmt.Sprintf("component 0x%04x is not in strictly increasing order", uint16(e.ID)))
		}
		last = int(e.ID)
		d = append(d, e)
	})
	return d
}

// A signed struct ends in a signature over what stands before it.
type signed interface{ appendTBS(*tlsvec.Builder) }

func tbs(m signed) []byte {
	b := tlsvec.NewBuilder(512)
	m.appendTBS(b)
	return b.Bytes()
}

func sign(ctx context.Context, suite mls.CipherSuite, key crypto.Signer, label string, m signed) ([]byte, error) {
	sig, err := mls.SignWithLabel(ctx, suite, key, label, tbs(m))
	if err != nil {
		return nil, fmt.Errorf("mimi: %s: %w", label, err)
	}
	return sig, nil
}

func verify(suite mls.CipherSuite, key []byte, label string, m signed, signature []byte) error {
	if err := mls.VerifyWithLabel(suite, key, label, tbs(m), signature); err != nil {
		return fmt.Errorf("mimi: %s: %w", label, err)
	}
	return nil
}
