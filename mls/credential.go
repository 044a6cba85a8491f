package mls

import (
	"bytes"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A Credential presents a client's identity (section 5.3). Its body is the
// content of one vector for every type but sd_jwt: the identity of a basic
// credential, the certificates of an X.509 one, a key binding token, opaque
// octets of a type that this package does not know. That of an sd_jwt is its
// whole SdJwt structure (draft-mahy-mls-sd-cwt-credential-02). It is kept
// exactly as it came, and judged by the application.
//
//	struct {
//	    CredentialType credential_type;
//	    select (Credential.credential_type) {
//	        case basic:
//	            opaque identity<V>;
//	        case x509:
//	            Certificate certificates<V>;
//	        case sd_cwt:
//	            opaque sd_kbt<V>;
//	        case sd_jwt:
//	            SdJwt sd_jwt;
//	    };
//	} Credential;
type Credential struct {
	Type CredentialType
	Body []byte
}

// BasicCredential is a bare assertion of an identity.
func BasicCredential(identity []byte) Credential {
	return Credential{CredentialBasic, identity}
}

// X509Credential is a chain of DER certificates, the client's first.
func X509Credential(chain [][]byte) Credential {
	var b tlsvec.Builder
	for _, cert := range chain {
		b.Vector(cert)
	}
	return Credential{CredentialX509, b.Bytes()}
}

// Identity returns the identity of a basic credential, or nil.
func (c *Credential) Identity() []byte {
	if c.Type != CredentialBasic {
		return nil
	}
	return c.Body
}

// Certificates returns the chain of an X.509 credential.
func (c *Credential) Certificates() ([][]byte, error) {
	if c.Type != CredentialX509 {
		return nil, fmt.Errorf("mls: credential type 0x%04x has no certificates", uint16(c.Type))
	}
	var chain [][]byte
	r := tlsvec.NewReader(c.Body)
	for !r.Empty() {
		chain = append(chain, r.Vector())
	}
	if err := r.Done(); err != nil {
		return nil, &ParseError{"x509 credential", err}
	}
	return chain, nil
}

// certifies reports whether the client's certificate is for a signature key
// (section 5.3). What is no certificate is for the application to refuse.
func (c *Credential) certifies(signatureKey []byte) bool {
	if c.Type != CredentialX509 {
		return true
	}
	r := tlsvec.NewReader(c.Body)
	key, ok := certificateKey(r.Vector())
	return !ok || bytes.Equal(key, signatureKey)
}

// certificateKey finds the subjectPublicKey of a Certificate (RFC 5280 section
// 4.1), whose bits are what section 5.1.1 makes of a key of our suites.
func certificateKey(der []byte) (key []byte, ok bool) {
	outer := cryptobyte.String(der)
	var cert, tbs, spki cryptobyte.String
	version := asn1.Tag(0).Constructed().ContextSpecific()
	ok = outer.ReadASN1(&cert, asn1.SEQUENCE) && cert.ReadASN1(&tbs, asn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(version) && tbs.SkipASN1(asn1.INTEGER) && // serialNumber
		tbs.SkipASN1(asn1.SEQUENCE) && tbs.SkipASN1(asn1.SEQUENCE) && // signature, issuer
		tbs.SkipASN1(asn1.SEQUENCE) && tbs.SkipASN1(asn1.SEQUENCE) && // validity, subject
		tbs.ReadASN1(&spki, asn1.SEQUENCE) && spki.SkipASN1(asn1.SEQUENCE) && // algorithm
		spki.ReadASN1BitStringAsBytes(&key)
	return key, ok
}

// check refuses a credential that was put together wrongly: nobody could
// decode it.
func (c *Credential) check() error {
	switch c.Type {
	case CredentialX509:
		_, err := c.Certificates()
		return err
	case CredentialSDJWT:
		r := tlsvec.NewReader(c.Body)
		readSDJWT(r)
		if err := r.Done(); err != nil {
			return &ParseError{"sd_jwt credential", err}
		}
	}
	return nil
}

// readSDJWT passes over an SdJwt.
//
//	struct {
//	  Bool compacted;
//	  select (compacted) {
//	    case true:  opaque protected<V>; opaque payload<V>; opaque signature<V>;
//	                SdJwtDisclosure disclosures<V>; opaque sd_jwt_key_binding<V>;
//	    case false: opaque sd_jwt_kb<V>;
//	  };
//	} SdJwt;
func readSDJWT(r *tlsvec.Reader) {
	switch r.Uint8() {
	case 0:
		r.Vector()
	case 1:
		for range 3 {
			r.Vector()
		}
		r.Each(func(r *tlsvec.Reader) { r.Vector() })
		r.Vector()
	default:
		r.Fail("compacted of an SdJwt is neither 0 nor 1")
	}
}

// Equal reports whether two credentials are the same octets.
func (c *Credential) Equal(other *Credential) bool {
	return c.Type == other.Type && bytes.Equal(c.Body, other.Body)
}

func (c *Credential) marshal(b *tlsvec.Builder) {
	b.Uint16(uint16(c.Type))
	if c.Type == CredentialSDJWT {
		b.Raw(c.Body)
		return
	}
	b.Vector(c.Body)
}

func (c *Credential) unmarshal(r *tlsvec.Reader) {
	c.Type = CredentialType(r.Uint16())
	if c.Type == CredentialSDJWT {
		start := r.Pos()
		readSDJWT(r)
		c.Body = r.Since(start)
		return
	}
	if c.Type != CredentialX509 {
		c.Body = r.Vector()
		return
	}
	start := r.Pos()
	r.Each(func(r *tlsvec.Reader) { r.Vector() })
	if r.Err() == nil {
		c.Body = tlsvec.NewReader(r.Since(start)).Vector()
	}
}
