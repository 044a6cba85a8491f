package certs

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/internal/signing"
)

// A leafShape is what all device and hub certificates of an issuer have in common,
// in DER. Package x509 builds no certificate without signing it and verifying the
// signature, which for a draft that is only read back costs more than all the rest.
// What is written here is what x509.CreateCertificate would write.
type leafShape struct {
	algorithm []byte // AlgorithmIdentifier
	issuer    []byte // Name
	usages    []byte // the extensions before the subject key identifier,
	places    []byte // between it and the names,
	crl       []byte // and after those, before the names
}

// newLeafShape returns the shape of the leaves of a CA.
func newLeafShape(algorithm []byte, ca *x509.Certificate, p Profile) (*leafShape, error) {
	var usages, places, crl cryptobyte.Builder
	addExtension(&usages, pkix.Extension{Id: oidKeyUsage, Critical: true, Value: []byte{byte(asn1.BIT_STRING), 2, 7, 0x80}}) // digitalSignature
	addExtension(&usages, pkix.Extension{Id: oidExtKeyUsage, Value: der(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(OIDIMURI) })
	})})
	addExtension(&usages, pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: []byte{byte(asn1.SEQUENCE), 0}}) // cA FALSE
	addExtension(&places, pkix.Extension{Id: oidAuthorityKeyID, Value: der(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(ca.SubjectKeyId) })
		})
	})})
	if len(p.OCSP)+len(p.CAIssuers) > 0 {
		addExtension(&places, accessPlaces(p))
	}
	if len(p.CRL) > 0 {
		addExtension(&crl, pkix.Extension{Id: oidCRLDistPoints, Value: der(func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, uri := range p.CRL {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addPointName(b, uri) })
				}
			})
		})})
	}
	s := &leafShape{algorithm: algorithm, issuer: ca.RawSubject}
	for _, part := range []struct {
		to   *[]byte
		from *cryptobyte.Builder
	}{{&s.usages, &usages}, {&s.places, &places}, {&s.crl, &crl}} {
		var err error
		if *part.to, err = part.from.Bytes(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// der returns what f writes. What fails shows when the whole is built.
func der(f func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	f(&b)
	return b.BytesOrPanic()
}

// accessPlaces encodes
//
//	AuthorityInfoAccessSyntax ::= SEQUENCE SIZE (1..MAX) OF AccessDescription
//	AccessDescription ::= SEQUENCE { accessMethod OBJECT IDENTIFIER, accessLocation GeneralName }
func accessPlaces(p Profile) pkix.Extension {
	add := func(b *cryptobyte.Builder, method stdasn1.ObjectIdentifier, uris []string) {
		for _, uri := range uris {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(method)
				b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(uri)) })
			})
		}
	}
	return pkix.Extension{Id: oidAuthorityInfoAccess, Value: der(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			add(b, oidAccessOCSP, p.OCSP)
			add(b, oidAccessCAIssuers, p.CAIssuers)
		})
	})}
}

// tbs returns the TBSCertificate (RFC 5280 section 4.1) of a leaf. Of the template
// it takes the serial number, the validity, the subject, the subject key identifier
// and the extra extensions; the rest is that of the shape.
func (s *leafShape) tbs(t *x509.Certificate, spki []byte) ([]byte, error) {
	subject := []byte{byte(asn1.SEQUENCE), 0}
	if rdns := t.Subject.ToRDNSequence(); len(rdns) > 0 {
		var err error
		if subject, err = stdasn1.Marshal(rdns); err != nil {
			return nil, err
		}
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // v3
		b.AddASN1BigInt(t.SerialNumber)
		b.AddBytes(s.algorithm)
		b.AddBytes(s.issuer)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, t.NotBefore)
			addTime(b, t.NotAfter)
		})
		b.AddBytes(subject)
		b.AddBytes(spki)
		b.AddASN1(asn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { s.addExtensions(b, t) })
		})
	})
	return b.Bytes()
}

func (s *leafShape) addExtensions(b *cryptobyte.Builder, t *x509.Certificate) {
	b.AddBytes(s.usages)
	addExtension(b, pkix.Extension{Id: oidSubjectKeyIdentifier, Value: append([]byte{byte(asn1.OCTET_STRING), byte(len(t.SubjectKeyId))}, t.SubjectKeyId...)})
	b.AddBytes(s.places)
	b.AddBytes(s.crl)
	for _, ext := range t.ExtraExtensions {
		addExtension(b, ext)
	}
}

// addTime writes a UTCTime until 2049 and a GeneralizedTime from 2050 on (RFC 5280
// section 4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t = t.UTC(); t.Year() < 2050 {
		b.AddASN1UTCTime(t)
	} else {
		b.AddASN1GeneralizedTime(t)
	}
}

// draftLeaf returns a leaf with the octet 0 for a signature, read by package x509,
// which does not verify it: by the key itself, if it parses what it signs.
func (i *Issuer) draftLeaf(template *x509.Certificate, spki []byte) (*x509.Certificate, signing.Read, error) {
	tbs, err := i.leaf.tbs(template, spki)
	if err != nil {
		return nil, nil, fmt.Errorf("building the certificate: %w", err)
	}
	if key, ok := i.key.(signing.ReadingSigner); ok {
		read, err := key.Read(tbs)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the certificate: %w", err)
		}
		if draft, ok := read.Parsed().(*x509.Certificate); ok && bytes.Equal(draft.RawTBSCertificate, read.Octets()) {
			return draft, read, nil
		}
	}
	draft, err := assemble(tbs, i.leaf.algorithm, []byte{0})
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(draft)
	return cert, nil, err
}
