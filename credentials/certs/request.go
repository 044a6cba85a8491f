package certs

import (
	"crypto"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
)

// Proof of possession is a PKCS#10 CertificationRequest (RFC 2986) signed by
// the device key:
//
//	CertificationRequestInfo ::= SEQUENCE {
//	     version       INTEGER { v1(0) },
//	     subject       Name,                    -- empty
//	     subjectPKInfo SubjectPublicKeyInfo,    -- the device key
//	     attributes    [0] Attributes }
//
// with two attributes: extensionRequest, holding the subject alternative name
// with the URIs that are asked for, and challengePassword, holding the
// server's nonce in lower-case hexadecimal as EST does with its channel
// binding (RFC 7030 section 3.5). Any PKCS#10 tool can write it.
//
// What is signed cannot be taken for anything else that the key signs. It
// begins with the octet 30 of a DER SEQUENCE and, after the length, with
// INTEGER 0 (02 01 00). An MLS SignContent has a length and then "MLS 1.0 ", a
// COSE Sig_structure begins with 84 6a and a JWS with "eyJ"; of the other DER
// shapes a TBSCertificate of version 3 has [0] in that place, a TBSCertList
// INTEGER 1 and an OCSP ResponseData [1] or [2].

// maxRequest is the most octets of a request.
const maxRequest = 16 << 10

// Nonce sizes in octets. The upper bound is that of challengePassword, 255
// characters (RFC 2985, pkcs-9-ub-challengePassword).
const (
	NonceSize    = 32 // what NewNonce returns
	minNonceSize = 8
	maxNonceSize = 127
)

// NewNonce returns a fresh nonce for a requester.
func NewNonce() []byte {
	nonce := make([]byte, NonceSize)
	rand.Read(nonce)
	return nonce
}

// CreateRequest returns a PKCS#10 request in DER, signed by the device key, for
// a certificate with the given names. The nonce is the server's; it may be nil
// where the server asks for none.
func CreateRequest(random io.Reader, key crypto.Signer, names Names, nonce []byte) ([]byte, error) {
	if err := names.check("request"); err != nil {
		return nil, err
	}
	if n := len(nonce); n != 0 && (n < minNonceSize || n > maxNonceSize) {
		return nil, credentials.Errorf(credentials.CodeNonce, "request", "nonce of %d octets, want %d to %d", n, minNonceSize, maxNonceSize)
	}
	scheme, err := credentials.SchemeOf(key.Public())
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeCnfCurve, "request", "%w", err)
	}
	info, err := requestInfo(key.Public(), names, nonce)
	if err != nil {
		return nil, err
	}
	sig, err := scheme.Sign(random, key, info)
	if err != nil {
		return nil, err
	}
	if !scheme.Verify(key.Public(), info, sig) {
		return nil, ErrBadSignature
	}
	return assemble(info, signatureAlgorithm(scheme), sig)
}

// requestInfo returns the CertificationRequestInfo.
func requestInfo(pub crypto.PublicKey, names Names, nonce []byte) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	san, err := altNameExtension(names.URIs(), true)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(asn1.SEQUENCE, func(*cryptobyte.Builder) {})
		b.AddBytes(spki)
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			// A SET OF in DER is sorted: of the two attributes the shorter is first.
			addSorted(b, extensionRequestAttribute(san), challengeAttribute(nonce))
		})
	})
	return b.Bytes()
}

func extensionRequestAttribute(ext pkix.Extension) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidExtensionRequest)
		b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addExtension(b, ext) })
		})
	})
	return b.BytesOrPanic()
}

func challengeAttribute(nonce []byte) []byte {
	if len(nonce) == 0 {
		return nil
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidChallengePassword)
		b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.PrintableString, func(b *cryptobyte.Builder) { b.AddBytes([]byte(hex.EncodeToString(nonce))) })
		})
	})
	return b.BytesOrPanic()
}

// A Request is a PKCS#10 request whose signature has been verified: the one
// who made it holds the key.
type Request struct {
	key    crypto.PublicKey
	spki   []byte // SubjectPublicKeyInfo of key, as we write it
	scheme *credentials.Scheme
	names  Names
	nonce  []byte
}

// PublicKey returns the key whose possession is proven.
func (r *Request) PublicKey() crypto.PublicKey { return r.key }

// Names returns the names that are asked for. They are not authorised yet.
func (r *Request) Names() Names { return r.names }

// Nonce returns the nonce in the request, or nil.
func (r *Request) Nonce() []byte { return r.nonce }

// ParseRequest reads a PKCS#10 request in DER and verifies its signature.
//
// The errors: malformed (not DER, or trailing octets), cnf-curve (not a key of
// an MLS signature scheme), alg (SHA-1 and other weak algorithms),
// binding-signature (possession is not proven), key-usage (asks to be a CA or
// for another usage), identity-missing, identity-malformed,
// identity-host-mismatch, nonce (the challenge is not hexadecimal).
func ParseRequest(der []byte) (*Request, error) {
	const where = "request"
	if len(der) > maxRequest {
		return nil, credentials.Errorf(credentials.CodeMalformed, where, "%d octets, want at most %d", len(der), maxRequest)
	}
	parts, err := readRequest(der)
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, where, "not a PKCS#10 request in DER: %w", err)
	}
	r := new(Request)
	if r.key, r.spki, r.scheme, err = readKey(parts.spki); err != nil {
		return nil, credentials.Errorf(credentials.CodeCnfCurve, where, "%w", err)
	}
	if err := parts.checkPossession(r.key); err != nil {
		return nil, err
	}
	if err := checkWishes(parts.extensions); err != nil {
		return nil, err
	}
	if r.names, err = requestedNames(parts.extensions); err != nil {
		return nil, err
	}
	if r.nonce, err = requestNonce(parts.challenges); err != nil {
		return nil, err
	}
	return r, nil
}

// checkWishes refuses a request for more than a device certificate. Wishes
// that the profile fulfils anyway are let pass; nothing is copied from them.
func checkWishes(exts []pkix.Extension) error {
	const where = "request extensions"
	for _, ext := range exts {
		var ok bool
		switch {
		case ext.Id.Equal(oidBasicConstraints):
			ok = wishesNoCA(ext.Value)
		case ext.Id.Equal(oidExtKeyUsage):
			ok = wishesOnlyIMURI(ext.Value)
		case ext.Id.Equal(oidKeyUsage):
			ok = wishesNoCertSign(ext.Value)
		default:
			ok = true
		}
		if !ok {
			return credentials.Errorf(credentials.CodeKeyUsage, where, "asks for another use of the key than signing as a MIMI client (extension %v)", ext.Id)
		}
	}
	return nil
}

func wishesNoCA(value cryptobyte.String) bool {
	var seq cryptobyte.String
	ca := false
	if !value.ReadASN1(&seq, asn1.SEQUENCE) || seq.PeekASN1Tag(asn1.BOOLEAN) && !seq.ReadASN1Boolean(&ca) {
		return false
	}
	return !ca && seq.Empty()
}

func wishesOnlyIMURI(value cryptobyte.String) bool {
	var seq cryptobyte.String
	var id encodedOID
	return value.ReadASN1(&seq, asn1.SEQUENCE) && seq.ReadASN1ObjectIdentifier(&id) && seq.Empty() && id.Equal(OIDIMURI)
}

func wishesNoCertSign(value cryptobyte.String) bool {
	var bits encodedBits
	if !value.ReadASN1BitString(&bits) {
		return false
	}
	return bits.At(5) == 0 && bits.At(6) == 0 // keyCertSign, cRLSign
}

func requestedNames(exts []pkix.Extension) (Names, error) {
	const where = "requested names"
	alt, err := readAltNames(exts, where)
	if err != nil {
		return Names{}, err
	}
	if len(alt.dns) > 0 || alt.others > 0 {
		return Names{}, credentials.Errorf(credentials.CodeIdentityUnauthorized, where, "asks for names that are not mimi: URIs")
	}
	return namesOf(alt.uris, where)
}

// requestNonce returns the decoded value of the challengePassword attribute, or nil
// if there is none.
func requestNonce(challenges []cryptobyte.String) ([]byte, error) {
	switch len(challenges) {
	case 0:
		return nil, nil
	case 1:
		return readChallenge(challenges[0])
	}
	return nil, credentials.Errorf(credentials.CodeNonce, "request", "%d challengePassword attributes, want one", len(challenges))
}

func readChallenge(values cryptobyte.String) ([]byte, error) {
	var text cryptobyte.String
	var tag asn1.Tag
	if !values.ReadAnyASN1(&text, &tag) || !values.Empty() || (tag != asn1.PrintableString && tag != asn1.UTF8String && tag != asn1.IA5String) {
		return nil, credentials.Errorf(credentials.CodeNonce, "request", "challengePassword is not one string")
	}
	nonce, err := hex.DecodeString(string(text))
	if err != nil || len(nonce) < minNonceSize || len(nonce) > maxNonceSize || hex.EncodeToString(nonce) != string(text) {
		return nil, credentials.Errorf(credentials.CodeNonce, "request", "challengePassword is not the nonce in lower-case hexadecimal")
	}
	return nonce, nil
}

// authorise compares the request with what the account may have.
func (r *Request) authorise(names Names, nonce []byte) error {
	if len(nonce) > 0 && subtle.ConstantTimeCompare(r.nonce, nonce) != 1 {
		return credentials.Errorf(credentials.CodeNonce, "request", "not made for the nonce that was given out")
	}
	if !r.names.same(names) {
		return credentials.Errorf(credentials.CodeIdentityUnauthorized, "request", "asks for %q, the account may have %q", r.names.URIs(), names.URIs())
	}
	return nil
}
