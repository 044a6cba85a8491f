package policy

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/privyseal/privyseal/internal/dcbor"
)

// CredentialX509 is the MLS credential type of X.509 (RFC 9420 section 17.5).
// Those of SD-CWT and SD-JWT are provisional, and given by the caller.
const CredentialX509 uint16 = 0x0002

// The three credentials below expect claims that a verifier has accepted:
// certs.Result's leaf certificate, sdjwt.Verified.Claims and
// sdcwt.Verified.Claims, whose issuer is believed for the name in the
// credential. Claims that were not disclosed are not there and match nothing.

type x509Credential struct{ cert *x509.Certificate }

// NewX509 returns the claims of a verified certificate. The id of a claim is the
// content octets of an OID, without tag and length. For subjectAltName the value
// is the content octets of one general name; for any other extension it is its
// extnValue; else it is the octets of a subject attribute's string.
func NewX509(cert *x509.Certificate) Credential { return x509Credential{cert} }

func (c x509Credential) CredentialType() uint16 { return CredentialX509 }
func (c x509Credential) Issuer() string         { return c.cert.Issuer.String() }

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

func (c x509Credential) Has(id, value []byte) bool {
	for _, e := range c.cert.Extensions {
		if !bytes.Equal(oidContent(e.Id), id) {
			continue
		}
		if e.Id.Equal(oidSubjectAltName) {
			return hasGeneralName(e.Value, value)
		}
		return bytes.Equal(e.Value, value)
	}
	return hasAttribute(c.cert.RawSubject, id, value)
}

// oidContent returns the content octets of an OID, or nil.
func oidContent(oid asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(oid)
	if err != nil {
		return nil
	}
	var raw asn1.RawValue
	if _, err := asn1.Unmarshal(der, &raw); err != nil {
		return nil
	}
	return raw.Bytes
}

func hasGeneralName(der, value []byte) bool {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return false
	}
	for _, name := range names {
		if bytes.Equal(name.Bytes, value) {
			return true
		}
	}
	return false
}

// An attribute is AttributeTypeAndValue of RFC 5280.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type relativeNameSET []attribute

func hasAttribute(subject, id, value []byte) bool {
	var name []relativeNameSET
	if rest, err := asn1.Unmarshal(subject, &name); err != nil || len(rest) > 0 {
		return false
	}
	for _, set := range name {
		for _, a := range set {
			if bytes.Equal(oidContent(a.Type), id) && bytes.Equal(a.Value.Bytes, value) {
				return true
			}
		}
	}
	return false
}

type jwtCredential struct {
	kind   uint16
	issuer string
	claims map[string]json.RawMessage
}

// NewJWT returns the claims of a verified JWT or SD-JWT, a JSON object. The id of
// a claim is its name. The value is the UTF-8 octets of a string, or the
// canonical JSON (RFC 8785) of anything else; an array has each of its elements.
func NewJWT(credentialType uint16, issuer string, claims []byte) (Credential, error) {
	c := jwtCredential{kind: credentialType, issuer: issuer}
	if err := json.Unmarshal(claims, &c.claims); err != nil || c.claims == nil {
		return nil, fmt.Errorf("policy: the claims are not a JSON object: %w", err)
	}
	return c, nil
}

func (c jwtCredential) CredentialType() uint16 { return c.kind }
func (c jwtCredential) Issuer() string         { return c.issuer }

func (c jwtCredential) Has(id, value []byte) bool {
	raw, ok := c.claims[string(id)]
	if !ok || !utf8.Valid(id) {
		return false
	}
	var array []json.RawMessage
	if json.Unmarshal(raw, &array) != nil || array == nil {
		return sameJSON(raw, value)
	}
	for _, element := range array {
		if sameJSON(element, value) {
			return true
		}
	}
	return false
}

func sameJSON(raw json.RawMessage, value []byte) bool {
	var text string
	if raw[0] == '"' {
		return json.Unmarshal(raw, &text) == nil && text == string(value)
	}
	canonical, ok := canonicalJSON(raw)
	return ok && bytes.Equal(canonical, value)
}

type cwtCredential struct {
	kind   uint16
	issuer string
	claims dcbor.Value
}

// NewCWT returns the claims of a verified CWT or SD-CWT, a CBOR map. The id of a
// claim is its key and the value is its value, both in deterministic CBOR; an
// array has each of its elements.
func NewCWT(credentialType uint16, issuer string, claims []byte) (Credential, error) {
	v, err := dcbor.Decode(claims)
	if err != nil {
		return nil, fmt.Errorf("policy: the claims are not CBOR: %w", err)
	}
	if v.Kind() != dcbor.Map {
		return nil, fmt.Errorf("policy: the claims are a CBOR %s, want a map", v.Kind())
	}
	return cwtCredential{credentialType, issuer, v}, nil
}

func (c cwtCredential) CredentialType() uint16 { return c.kind }
func (c cwtCredential) Issuer() string         { return c.issuer }

func (c cwtCredential) Has(id, value []byte) bool {
	for key, v := range c.claims.Pairs() {
		if !bytes.Equal(dcbor.Encode(key), id) {
			continue
		}
		elements, array := v.Elements()
		if !array {
			return bytes.Equal(dcbor.Encode(v), value)
		}
		for _, element := range elements {
			if bytes.Equal(dcbor.Encode(element), value) {
				return true
			}
		}
	}
	return false
}
