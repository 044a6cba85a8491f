package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
)

// requestParts are the parts of a PKCS#10 request (RFC 2986 section 4):
//
//	CertificationRequest ::= SEQUENCE {
//	     certificationRequestInfo CertificationRequestInfo,
//	     signatureAlgorithm       AlgorithmIdentifier,
//	     signature                BIT STRING }
//
// Package x509 reads requests by reflection, which costs half as much as the
// signature in them. What is read here it reads too, in the same way.
type requestParts struct {
	info       []byte // what is signed
	spki       []byte // SubjectPublicKeyInfo
	algorithm  encodedOID
	plain      bool // the algorithm has no parameters
	signature  []byte
	extensions []pkix.Extension
	challenges []cryptobyte.String // the value sets of challengePassword
}

var errRequest = errors.New("not a SEQUENCE of CertificationRequestInfo, AlgorithmIdentifier and BIT STRING, and nothing after it")

// readRequest reads a request to its last octet.
func readRequest(der []byte) (*requestParts, error) {
	in := cryptobyte.String(der)
	var seq, info, algorithm cryptobyte.String
	p := new(requestParts)
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1Element(&info, asn1.SEQUENCE) ||
		!seq.ReadASN1(&algorithm, asn1.SEQUENCE) || !seq.ReadASN1BitStringAsBytes(&p.signature) || !seq.Empty() ||
		!algorithm.ReadASN1ObjectIdentifier(&p.algorithm) {
		return nil, errRequest
	}
	if p.plain = algorithm.Empty(); !p.plain {
		var parameters cryptobyte.String
		var tag asn1.Tag
		if !algorithm.ReadAnyASN1(&parameters, &tag) || !algorithm.Empty() {
			return nil, errRequest
		}
	}
	p.info = info
	return p, p.readInfo(info)
}

// readInfo reads the CertificationRequestInfo.
func (p *requestParts) readInfo(info cryptobyte.String) error {
	var seq, subject, spki, attributes cryptobyte.String
	var version int
	if !info.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1Integer(&version) || !seq.ReadASN1Element(&subject, asn1.SEQUENCE) ||
		!seq.ReadASN1Element(&spki, asn1.SEQUENCE) || !seq.ReadASN1(&attributes, context0) || !seq.Empty() {
		return errors.New("not a SEQUENCE of version, subject, key and [0] attributes")
	}
	if version != 0 {
		return fmt.Errorf("version %d, want 0", version)
	}
	if len(subject) > 2 { // it is not looked at, but is to be one
		var name pkix.RDNSequence
		if rest, err := stdasn1.Unmarshal(subject, &name); err != nil || len(rest) > 0 {
			return fmt.Errorf("subject: %w", err)
		}
	}
	p.spki = spki
	for !attributes.Empty() {
		if err := p.readAttribute(&attributes); err != nil {
			return err
		}
	}
	return nil
}

// readAttribute reads one
//
//	Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }
func (p *requestParts) readAttribute(attributes *cryptobyte.String) error {
	var attribute, values cryptobyte.String
	var id encodedOID
	if !attributes.ReadASN1(&attribute, asn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&id) ||
		!attribute.ReadASN1(&values, asn1.SET) || !attribute.Empty() {
		return errors.New("an attribute is not an object identifier and a SET")
	}
	switch {
	case id.Equal(oidChallengePassword):
		p.challenges = append(p.challenges, values)
	case id.Equal(oidExtensionRequest) && p.extensions != nil:
		return errors.New("two extensionRequest attributes")
	case id.Equal(oidExtensionRequest):
		return p.readExtensions(values)
	}
	return nil
}

// readExtensions reads the values of an extensionRequest (RFC 2985 section 5.4.2):
// one Extensions.
func (p *requestParts) readExtensions(values cryptobyte.String) error {
	var list cryptobyte.String
	if !values.ReadASN1(&list, asn1.SEQUENCE) || !values.Empty() || list.Empty() {
		return errors.New("extensionRequest is not one SEQUENCE of extensions")
	}
	var seen map[string]bool
	for !list.Empty() {
		var one cryptobyte.String
		var ext pkix.Extension
		if !list.ReadASN1(&one, asn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&ext.Id) ||
			one.PeekASN1Tag(asn1.BOOLEAN) && !one.ReadASN1Boolean(&ext.Critical) ||
			!one.ReadASN1Bytes(&ext.Value, asn1.OCTET_STRING) || !one.Empty() {
			return errors.New("a requested extension is not an object identifier, a BOOLEAN that may be left out, and an OCTET STRING")
		}
		p.extensions = append(p.extensions, ext)
		if len(p.extensions) == 1 && list.Empty() {
			break // as is the rule
		}
		if seen == nil {
			seen = make(map[string]bool)
		}
		if name := ext.Id.String(); seen[name] {
			return fmt.Errorf("two extensions %s", name)
		} else {
			seen[name] = true
		}
	}
	return nil
}

// A keyForm is how the keys of one scheme begin, in a SubjectPublicKeyInfo.
type keyForm struct {
	scheme *credentials.Scheme
	prefix []byte // to the unused bits of the BIT STRING
	size   int    // of what follows
}

// keyForms are those of uncompressed points (RFC 5480 section 2) and of Ed25519 (RFC
// 8410 section 4).
var keyForms = []keyForm{
	keyFormOf(credentials.ECDSAP256, 65, encodedOID{1, 2, 840, 10045, 2, 1}, encodedOID{1, 2, 840, 10045, 3, 1, 7}),
	keyFormOf(credentials.ECDSAP384, 97, encodedOID{1, 2, 840, 10045, 2, 1}, encodedOID{1, 3, 132, 0, 34}),
	keyFormOf(credentials.ECDSAP521, 133, encodedOID{1, 2, 840, 10045, 2, 1}, encodedOID{1, 3, 132, 0, 35}),
	keyFormOf(credentials.Ed25519, ed25519.PublicKeySize, encodedOID{1, 3, 101, 112}),
}

func keyFormOf(s *credentials.Scheme, size int, algorithm ...encodedOID) keyForm {
	spki := der(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, id := range algorithm {
					b.AddASN1ObjectIdentifier(id)
				}
			})
			b.AddASN1BitString(make([]byte, size))
		})
	})
	return keyForm{s, spki[:len(spki)-size], size}
}

// readKey returns the key in a SubjectPublicKeyInfo of an MLS signature scheme, and
// that as we write it.
func readKey(spki []byte) (pub crypto.PublicKey, own []byte, s *credentials.Scheme, err error) {
	for _, f := range keyForms {
		bits, ok := bytes.CutPrefix(spki, f.prefix)
		if !ok || len(bits) != f.size {
			continue
		}
		own = bytes.Clone(spki)
		bits = own[len(f.prefix):]
		if f.scheme.Curve() == nil {
			return ed25519.PublicKey(bits), own, f.scheme, nil
		}
		key, err := ecdsa.ParseUncompressedPublicKey(f.scheme.Curve(), bits)
		return key, own, f.scheme, err
	}
	if pub, err = x509.ParsePKIXPublicKey(spki); err == nil {
		s, err = credentials.SchemeOf(pub)
	}
	if err == nil {
		own, err = x509.MarshalPKIXPublicKey(pub)
	}
	return pub, own, s, err
}

// checkPossession verifies the signature of the request by the key in it. Any hash of
// SHA-2 will do with any curve, as tools have it.
func (p *requestParts) checkPossession(pub crypto.PublicKey) error {
	var digest []byte
	switch {
	case p.algorithm.Equal(signatureAlgorithms[credentials.ECDSAP256]):
		sum := sha256.Sum256(p.info)
		digest = sum[:]
	case p.algorithm.Equal(signatureAlgorithms[credentials.ECDSAP384]):
		sum := sha512.Sum384(p.info)
		digest = sum[:]
	case p.algorithm.Equal(signatureAlgorithms[credentials.ECDSAP521]):
		sum := sha512.Sum512(p.info)
		digest = sum[:]
	case p.algorithm.Equal(signatureAlgorithms[credentials.Ed25519]) && p.plain:
	default:
		return credentials.Errorf(credentials.CodeAlg, "request", "signed with %v, want ECDSA with SHA-2 or Ed25519", p.algorithm)
	}
	good := false
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		good = digest != nil && ecdsa.VerifyASN1(pub, digest, p.signature)
	case ed25519.PublicKey:
		good = digest == nil && ed25519.Verify(pub, p.info, p.signature)
	}
	if !good {
		return credentials.Errorf(credentials.CodeBindingSignature, "request", "not signed by the key in it")
	}
	return nil
}
