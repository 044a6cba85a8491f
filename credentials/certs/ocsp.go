package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha1" // names of issuers in OCSP, never a signature
	"crypto/sha256"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
)

// Limits of OCSP messages.
const (
	MaxOCSPRequest  = 4 << 10
	MaxOCSPResponse = 64 << 10
	maxOCSPNonce    = 128 // RFC 9654 section 2.1
)

var (
	oidOCSPBasic = stdasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidOCSPNonce = stdasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidSHA1      = stdasn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256    = stdasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}

	context0 = asn1.Tag(0).ContextSpecific().Constructed()
	context1 = asn1.Tag(1).ContextSpecific().Constructed()
	context2 = asn1.Tag(2).ContextSpecific().Constructed()
)

// certID is
//
//	CertID ::= SEQUENCE {
//	     hashAlgorithm  AlgorithmIdentifier,
//	     issuerNameHash OCTET STRING, -- of the issuer's Name in DER
//	     issuerKeyHash  OCTET STRING, -- of the content of the issuer's BIT STRING
//	     serialNumber   CertificateSerialNumber }
type certID struct {
	hash     stdasn1.ObjectIdentifier
	nameHash []byte
	keyHash  []byte
	serial   *big.Int
}

func newCertID(issuer *x509.Certificate, hash stdasn1.ObjectIdentifier, serial *big.Int) (certID, error) {
	bits, err := keyBits(issuer.RawSubjectPublicKeyInfo)
	if err != nil {
		return certID{}, err
	}
	sum := func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	if hash.Equal(oidSHA1) {
		sum = func(b []byte) []byte { s := sha1.Sum(b); return s[:] }
	}
	return certID{hash: hash, nameHash: sum(issuer.RawSubject), keyHash: sum(bits), serial: serial}, nil
}

func (c certID) add(b *cryptobyte.Builder) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(c.hash)
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(c.nameHash)
		b.AddASN1OctetString(c.keyHash)
		b.AddASN1BigInt(c.serial)
	})
}

func readCertID(s *cryptobyte.String) (c certID, ok bool) {
	var seq, alg, serial cryptobyte.String
	c.serial = new(big.Int)
	if !s.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1(&alg, asn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&c.hash) ||
		!alg.Empty() && (!alg.ReadASN1(&serial, asn1.NULL) || !serial.Empty() || !alg.Empty()) ||
		!seq.ReadASN1Bytes(&c.nameHash, asn1.OCTET_STRING) || !seq.ReadASN1Bytes(&c.keyHash, asn1.OCTET_STRING) {
		return c, false
	}
	serial = seq
	if !skipSerial(&serial) || !serial.Empty() || !seq.ReadASN1Integer(c.serial) {
		return c, false
	}
	size := sha256.Size
	if c.hash.Equal(oidSHA1) {
		size = sha1.Size
	} else if !c.hash.Equal(oidSHA256) {
		return c, false
	}
	return c, len(c.nameHash) == size && len(c.keyHash) == size
}

// of reports whether the CertID names a certificate of issuer.
func (c certID) of(issuer *x509.Certificate) bool {
	want, err := newCertID(issuer, c.hash, c.serial)
	return err == nil && bytes.Equal(want.nameHash, c.nameHash) && bytes.Equal(want.keyHash, c.keyHash)
}

// responderKeyHash is the KeyHash of a ResponderID: the SHA-1 of the BIT
// STRING (RFC 6960 section 4.2.1).
func responderKeyHash(spki []byte) ([]byte, error) {
	bits, err := keyBits(spki)
	sum := sha1.Sum(bits)
	return sum[:], err
}

// CreateOCSPRequest returns the OCSP request (RFC 6960) for one certificate, to
// be posted as application/ocsp-request. The nonce may be nil; 32 octets are
// customary (RFC 9654).
//
//	OCSPRequest ::= SEQUENCE { tbsRequest TBSRequest, … }
//	TBSRequest  ::= SEQUENCE { …, requestList SEQUENCE OF Request,
//	     requestExtensions [2] EXPLICIT Extensions OPTIONAL }
//	Request     ::= SEQUENCE { reqCert CertID, … }
func CreateOCSPRequest(cert, issuer *x509.Certificate, nonce []byte) ([]byte, error) {
	if len(nonce) > maxOCSPNonce {
		return nil, credentials.Errorf(credentials.CodeNonce, "OCSP request", "nonce of %d octets, want at most %d", len(nonce), maxOCSPNonce)
	}
	id, err := newCertID(issuer, oidSHA1, cert.SerialNumber)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, id.add)
			})
			addNonce(b, context2, nonce)
		})
	})
	return b.Bytes()
}

// addNonce writes the Extensions with the nonce, if there is one:
//
//	Nonce ::= OCTET STRING(SIZE(1..128))
func addNonce(b *cryptobyte.Builder, tag asn1.Tag, nonce []byte) {
	if len(nonce) == 0 {
		return
	}
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidOCSPNonce)
				b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
			})
		})
	})
}

// readOCSPExtensions returns the nonce among Extensions, and whether they can
// be read and none of them is there twice, or critical and unknown.
func readOCSPExtensions(s cryptobyte.String) (nonce []byte, ok bool) {
	var list cryptobyte.String
	check := s
	if !skipExtensions(&check) || !check.Empty() || !s.ReadASN1(&list, asn1.SEQUENCE) {
		return nil, false
	}
	for !list.Empty() {
		var ext, value cryptobyte.String
		var id stdasn1.ObjectIdentifier
		critical := false
		if !list.ReadASN1(&ext, asn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&id) ||
			ext.PeekASN1Tag(asn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) || !ext.ReadASN1(&value, asn1.OCTET_STRING) {
			return nil, false
		}
		if !id.Equal(oidOCSPNonce) {
			if critical {
				return nil, false
			}
			continue
		}
		if !value.ReadASN1Bytes(&nonce, asn1.OCTET_STRING) || !value.Empty() || len(nonce) == 0 || len(nonce) > maxOCSPNonce {
			return nil, false
		}
	}
	return nonce, true
}

// parseOCSPRequest reads a request for one certificate. Who asks, and a
// signature, are read and not looked at: everybody may ask.
//
//	OCSPRequest ::= SEQUENCE {
//	     tbsRequest        TBSRequest,
//	     optionalSignature [0] EXPLICIT Signature OPTIONAL }
//	TBSRequest  ::= SEQUENCE {
//	     version           [0] EXPLICIT Version DEFAULT v1,
//	     requestorName     [1] EXPLICIT GeneralName OPTIONAL,
//	     requestList       SEQUENCE OF Request,
//	     requestExtensions [2] EXPLICIT Extensions OPTIONAL }
func parseOCSPRequest(der cryptobyte.String) (id certID, nonce []byte, ok bool) {
	var outer, tbs, list, exts, signature, name cryptobyte.String
	var hasExts, hasName, signed bool
	if len(der) > MaxOCSPRequest || !der.ReadASN1(&outer, asn1.SEQUENCE) || !der.Empty() || !outer.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!outer.ReadOptionalASN1(&signature, &signed, context0) || !outer.Empty() || signed && !isOCSPSignature(signature) {
		return id, nil, false
	}
	if tbs.PeekASN1Tag(context0) || !tbs.ReadOptionalASN1(&name, &hasName, context1) ||
		hasName && !isGeneralName(name) || !tbs.ReadASN1(&list, asn1.SEQUENCE) || !tbs.ReadOptionalASN1(&exts, &hasExts, context2) || !tbs.Empty() {
		return id, nil, false // the version v1 is the default and not written in DER
	}
	if id, ok = readOCSPRequest(list); ok && hasExts {
		nonce, ok = readOCSPExtensions(exts)
	}
	return id, nonce, ok
}

// readOCSPRequest reads a list of one
//
//	Request ::= SEQUENCE {
//	     reqCert CertID, singleRequestExtensions [0] EXPLICIT Extensions OPTIONAL }
func readOCSPRequest(list cryptobyte.String) (id certID, ok bool) {
	var one, exts cryptobyte.String
	var hasExts bool
	if !list.ReadASN1(&one, asn1.SEQUENCE) || !list.Empty() {
		return id, false
	}
	if id, ok = readCertID(&one); !ok || !one.ReadOptionalASN1(&exts, &hasExts, context0) || !one.Empty() {
		return id, false
	}
	if hasExts {
		_, ok = readOCSPExtensions(exts)
	}
	return id, ok
}

// isOCSPSignature reads
//
//	Signature ::= SEQUENCE {
//	     signatureAlgorithm AlgorithmIdentifier, signature BIT STRING,
//	     certs [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL }
func isOCSPSignature(s cryptobyte.String) bool {
	var seq, certs cryptobyte.String
	var has bool
	return s.ReadASN1(&seq, asn1.SEQUENCE) && s.Empty() && seq.SkipASN1(asn1.SEQUENCE) && seq.SkipASN1(asn1.BIT_STRING) &&
		seq.ReadOptionalASN1(&certs, &has, context0) && seq.Empty() && (!has || certs.SkipASN1(asn1.SEQUENCE) && certs.Empty())
}

// isGeneralName reads one of the nine kinds of name.
func isGeneralName(s cryptobyte.String) bool {
	var value cryptobyte.String
	var tag asn1.Tag
	const most = 8
	return s.ReadAnyASN1(&value, &tag) && s.Empty() && tag&0x80 != 0 && tag&0x1f <= most
}

// CreateOCSPResponder makes the certificate of a delegated OCSP responder:
// id-kp-OCSPSigning, and id-pkix-ocsp-nocheck, so that nobody asks for its own
// revocation; hence it lives 30 days at most. The caller holds its key.
func (i *Issuer) CreateOCSPResponder(ctx context.Context, key crypto.Signer, o CAOrder) (*x509.Certificate, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Lifetime > ocspResponderLifetime {
		return nil, credentials.Errorf(credentials.CodePolicy, "order", "OCSP responder for %v, want at most %v: nobody can revoke it", o.Lifetime, ocspResponderLifetime)
	}
	if o.Lifetime == 0 {
		o.Lifetime = ocspResponderLifetime
	}
	template, err := ocspTemplate(o, key.Public(), i.now())
	if err != nil {
		return nil, err
	}
	p, err := i.prepare(ctx, Intent{Kind: KindOCSP, Names: []string{o.Subject.String()}, Public: key.Public()}, template)
	if err != nil {
		return nil, err
	}
	if err := proveCA(key, p); err != nil {
		return nil, err
	}
	return i.Issue(ctx, p)
}
