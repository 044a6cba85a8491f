package signer

import (
	"crypto"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/credentials"
)

const derSequence = 0x30

// The four X.509 shapes by the elements that they begin with.
//
//	TBSCertificate            [0] version (v3 only), ...
//	TBSCertList               INTEGER 1, SEQUENCE AlgorithmIdentifier, ...
//	CertificationRequestInfo  INTEGER 0, SEQUENCE Name, ...
//	ResponseData              [1] or [2] ResponderID, ... (version is DEFAULT v1)
func parseDER(b []byte) (*Request, error) {
	in := cryptobyte.String(b)
	var tbs cryptobyte.String
	if !in.ReadASN1(&tbs, asn1.SEQUENCE) || !in.Empty() {
		return nil, refuse(ShapeUnknown, "not one DER SEQUENCE, or octets are left after it")
	}
	var version int
	switch head := tbs; {
	case tbs.PeekASN1Tag(contextTag(0)):
		return parseTBSCertificate(b)
	case tbs.PeekASN1Tag(contextTag(1)), tbs.PeekASN1Tag(contextTag(2)):
		return parseResponseData(b)
	case head.ReadASN1Integer(&version) && version == 1:
		return parseTBSCertList(b)
	case tbs.PeekASN1Tag(asn1.INTEGER) && version == 0:
		return parseCSRInfo(b)
	}
	return nil, refuse(ShapeUnknown, "a DER SEQUENCE that is no TBSCertificate (version 3), TBSCertList (version 2), CertificationRequestInfo or ResponseData")
}

func contextTag(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }

// signed returns SEQUENCE { tbs, alg, BIT STRING } with a signature of one
// octet, so that the parsers of complete structures read a to-be-signed one.
func signed(tbs, alg []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(alg)
		b.AddASN1BitString([]byte{0})
	})
	return b.Bytes()
}

// innerAlgorithm returns the AlgorithmIdentifier inside a TBSCertificate or
// TBSCertList: the first SEQUENCE there.
func innerAlgorithm(tbs []byte) ([]byte, error) {
	in := cryptobyte.String(tbs)
	var body, alg cryptobyte.String
	if !in.ReadASN1(&body, asn1.SEQUENCE) {
		return nil, fmt.Errorf("not a SEQUENCE")
	}
	for !body.PeekASN1Tag(asn1.SEQUENCE) {
		var skipped cryptobyte.String
		var tag asn1.Tag
		if !body.ReadAnyASN1Element(&skipped, &tag) {
			return nil, fmt.Errorf("no AlgorithmIdentifier")
		}
	}
	if !body.ReadASN1Element(&alg, asn1.SEQUENCE) {
		return nil, fmt.Errorf("no AlgorithmIdentifier")
	}
	return alg, nil
}

func parseTBSCertificate(b []byte) (*Request, error) {
	der, err := wrapInner(b)
	if err != nil {
		return nil, refuse(ShapeCertificate, "TBSCertificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse(ShapeCertificate, "TBSCertificate: %w", err)
	}
	return &Request{shape: ShapeCertificate, parsed: cert, suits: suitsX509(cert.SignatureAlgorithm)}, nil
}

func parseTBSCertList(b []byte) (*Request, error) {
	der, err := wrapInner(b)
	if err != nil {
		return nil, refuse(ShapeCRL, "TBSCertList: %w", err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, refuse(ShapeCRL, "TBSCertList: %w", err)
	}
	return &Request{shape: ShapeCRL, parsed: crl, suits: suitsX509(crl.SignatureAlgorithm)}, nil
}

func wrapInner(tbs []byte) ([]byte, error) {
	alg, err := innerAlgorithm(tbs)
	if err != nil {
		return nil, err
	}
	return signed(tbs, alg)
}

// ecdsaWithSHA256 stands in for the algorithm where it is outside of what is
// signed: 1.2.840.10045.4.3.2 (RFC 5758 section 3.2).
var ecdsaWithSHA256 = must(stdasn1.Marshal(struct{ OID stdasn1.ObjectIdentifier }{stdasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}))

// parseCSRInfo also sees to it that a key signs a request for itself only.
func parseCSRInfo(b []byte) (*Request, error) {
	der, err := signed(b, ecdsaWithSHA256)
	if err != nil {
		return nil, refuse(ShapeCSR, "CertificationRequestInfo: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse(ShapeCSR, "CertificationRequestInfo: %w", err)
	}
	return &Request{shape: ShapeCSR, parsed: csr, suits: func(_ *credentials.Scheme, pub crypto.PublicKey) error {
		if !credentials.SamePublicKey(csr.PublicKey, pub) {
			return fmt.Errorf("the request is for another public key than the one that would sign it")
		}
		return nil
	}}, nil
}

// OIDs of a whole OCSP response (RFC 6960 section 4.2.1).
var oidBasicResponse = stdasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}

// parseResponseData wraps the ResponseData in an OCSPResponse that is
// successful (0) and has a BasicOCSPResponse.
func parseResponseData(b []byte) (*Request, error) {
	basic, err := signed(b, ecdsaWithSHA256)
	if err != nil {
		return nil, refuse(ShapeOCSP, "ResponseData: %w", err)
	}
	var w cryptobyte.Builder
	w.AddASN1(asn1.SEQUENCE, func(w *cryptobyte.Builder) {
		w.AddASN1Enum(0)
		w.AddASN1(contextTag(0), func(w *cryptobyte.Builder) {
			w.AddASN1(asn1.SEQUENCE, func(w *cryptobyte.Builder) {
				w.AddASN1ObjectIdentifier(oidBasicResponse)
				w.AddASN1OctetString(basic)
			})
		})
	})
	der, err := w.Bytes()
	if err != nil {
		return nil, refuse(ShapeOCSP, "ResponseData: %w", err)
	}
	resp, err := ocsp.ParseResponse(der, nil)
	if err != nil {
		return nil, refuse(ShapeOCSP, "ResponseData: %w", err)
	}
	return &Request{shape: ShapeOCSP, parsed: resp}, nil
}

// suitsX509 refuses a structure that names another signature algorithm than
// the key's.
func suitsX509(named x509.SignatureAlgorithm) func(*credentials.Scheme, crypto.PublicKey) error {
	return func(s *credentials.Scheme, _ crypto.PublicKey) error {
		if want := x509Algorithm(s); named != want {
			return fmt.Errorf("the structure says %v and the key is for %v", named, want)
		}
		return nil
	}
}

func x509Algorithm(s *credentials.Scheme) x509.SignatureAlgorithm {
	switch s {
	case credentials.ECDSAP256:
		return x509.ECDSAWithSHA256
	case credentials.ECDSAP384:
		return x509.ECDSAWithSHA384
	case credentials.ECDSAP521:
		return x509.ECDSAWithSHA512
	case credentials.Ed25519:
		return x509.PureEd25519
	}
	return x509.UnknownSignatureAlgorithm
}
