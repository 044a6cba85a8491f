package signer

import (
	"bytes"
	"crypto"
	"fmt"

	"github.com/privyseal/privyseal/credentials"
)

// A Shape is a kind of to-be-signed octets. The shapes differ in their first
// octets, so that no octets have two of them:
//
//	mls          a vector length, then "MLS 1.0 "
//	cose-sign1   84 6a "Signature1"
//	jws          "eyJ", the base64url of `{"`
//	DER          30; the four X.509 shapes differ in the next two elements
//	tls13        64 spaces
//	checkpoint   a lower-case letter, and line feeds, which JWS cannot have
//	self-test    fe, which begins nothing else
type Shape string

// The shapes.
const (
	ShapeUnknown     Shape = "unclassified octets"
	ShapeMLS         Shape = "mls"           // SignContent, RFC 9420 section 5.1.2
	ShapeJWS         Shape = "jws"           // JWS Signing Input, RFC 7515 section 5.1
	ShapeCOSE        Shape = "cose-sign1"    // Sig_structure, RFC 9052 section 4.4
	ShapeCertificate Shape = "certificate"   // TBSCertificate, RFC 5280 section 4.1
	ShapeCRL         Shape = "crl"           // TBSCertList, RFC 5280 section 5.1
	ShapeOCSP        Shape = "ocsp-response" // ResponseData, RFC 6960 section 4.2.1
	ShapeCSR         Shape = "csr"           // CertificationRequestInfo, RFC 2986 section 4.1
	ShapeTLS13       Shape = "tls13"         // CertificateVerify content, RFC 8446 section 4.4.3
	ShapeCheckpoint  Shape = "checkpoint"    // C2SP tlog-checkpoint note text
	ShapeSelfTest    Shape = "self-test"     // SelfTest, which only the Keyring itself has signed
	ShapeDigest      Shape = "digest"        // a bare digest, or octets nobody looked into
)

// MaxRequest bounds the to-be-signed octets: a CRL may have 32 MiB.
const MaxRequest = 32 << 20

// A Request is to-be-signed octets that were parsed completely. There is no
// other way to get one than to parse, so what reaches a key has a shape and a
// type that policy can look at.
type Request struct {
	shape  Shape
	typ    string
	octets []byte
	hash   crypto.Hash // of a digest
	parsed any         // *MLSContent, *JWSInput, *SigStructure, *x509.…, *ocsp.Response, *TLSContent, *Checkpoint, *SelfTest
	// suits reports why the request is not for this key, or nil.
	suits func(s *credentials.Scheme, pub crypto.PublicKey) error
}

// Shape returns what the octets are.
func (r *Request) Shape() Shape { return r.shape }

// Type returns the kind within the shape: the label of an MLS SignContent
// without "MLS 1.0 ", the typ of a JWS or COSE_Sign1 without "application/",
// "server" or "client" for TLS, the origin of a checkpoint; otherwise "".
func (r *Request) Type() string { return r.typ }

// Octets returns the to-be-signed octets. The caller must not change them.
func (r *Request) Octets() []byte { return r.octets }

// Parsed returns the fields: a *MLSContent, *JWSInput, *SigStructure,
// *x509.Certificate, *x509.RevocationList, *x509.CertificateRequest,
// *ocsp.Response, *TLSContent or *Checkpoint; nil for a digest.
func (r *Request) Parsed() any { return r.parsed }

// ParseRequest classifies octets by how they begin and then parses them to
// their end. Octets of no known shape, or with anything left over, yield a
// *Refusal.
func ParseRequest(octets []byte) (*Request, error) {
	if len(octets) > MaxRequest {
		return nil, refuse(ShapeUnknown, "%d octets are more than the %d that a request may have", len(octets), MaxRequest)
	}
	octets = bytes.Clone(octets)
	r, err := classify(octets)
	if err != nil {
		return nil, err
	}
	r.octets = octets
	return r, nil
}

func classify(b []byte) (*Request, error) {
	switch {
	case looksLikeMLS(b):
		return parseMLS(b)
	case bytes.HasPrefix(b, cosePrefix):
		return parseCOSE(b)
	case bytes.HasPrefix(b, []byte(jwsPrefix)):
		return parseJWS(b)
	case len(b) > 0 && b[0] == derSequence:
		return parseDER(b)
	case bytes.HasPrefix(b, tlsPadding):
		return parseTLS13(b)
	case len(b) > 0 && b[0] == selfTestPrefix[0]:
		return parseSelfTest(b)
	case len(b) > 0 && 'a' <= b[0] && b[0] <= 'z':
		return parseCheckpoint(b)
	}
	return nil, refuse(ShapeUnknown, "the first octets are of none of the shapes that may be signed; a bare digest needs a key of purpose raw")
}

// DigestRequest returns a Request for a bare digest made with hash, or, where
// hash is zero, for octets that nobody looked into. Only a key of purpose raw
// signs it.
func DigestRequest(hash crypto.Hash, digest []byte) (*Request, error) {
	if hash != 0 && (!hash.Available() || len(digest) != hash.Size()) {
		return nil, refuse(ShapeDigest, "a digest of %d octets does not fit the hash %v", len(digest), hash)
	}
	if len(digest) > MaxRequest {
		return nil, refuse(ShapeDigest, "%d octets are more than %d", len(digest), MaxRequest)
	}
	return &Request{shape: ShapeDigest, octets: bytes.Clone(digest), hash: hash, suits: func(s *credentials.Scheme, _ crypto.PublicKey) error {
		if hash != s.Hash {
			return fmt.Errorf("%s signs digests of %v, not of %v", s, hashName(s.Hash), hashName(hash))
		}
		return nil
	}}, nil
}

func hashName(h crypto.Hash) string {
	if h == 0 {
		return "no hash (the message itself)"
	}
	return h.String()
}
