package certs

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
)

type (
	encodedOID  = stdasn1.ObjectIdentifier
	encodedBits = stdasn1.BitString
)

// ErrBadSignature says that a device returned a signature that its own public
// key does not verify. Nothing was released; the device should be taken out
// of use until it is understood.
var ErrBadSignature = errors.New("the signing device returned a signature that does not verify; nothing was released, take the device out of use")

// signatureAlgorithms are the AlgorithmIdentifiers of X.509 signatures
// (RFC 5758 section 3.2, RFC 8410 section 3): no parameters in any.
var signatureAlgorithms = map[*credentials.Scheme]stdasn1.ObjectIdentifier{
	credentials.ECDSAP256: {1, 2, 840, 10045, 4, 3, 2},
	credentials.ECDSAP384: {1, 2, 840, 10045, 4, 3, 3},
	credentials.ECDSAP521: {1, 2, 840, 10045, 4, 3, 4},
	credentials.Ed25519:   {1, 3, 101, 112},
}

// signatureAlgorithm returns the AlgorithmIdentifier of scheme in DER.
func signatureAlgorithm(scheme *credentials.Scheme) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(signatureAlgorithms[scheme]) })
	return b.BytesOrPanic()
}

// assemble returns SIGNED { tbs }:
//
//	SEQUENCE { toBeSigned, AlgorithmIdentifier, BIT STRING }
func assemble(tbs, algorithm, sig []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(sig)
	})
	return b.Bytes()
}

// addExtension writes
//
//	Extension ::= SEQUENCE {
//	     extnID OBJECT IDENTIFIER, critical BOOLEAN DEFAULT FALSE,
//	     extnValue OCTET STRING }
func addExtension(b *cryptobyte.Builder, ext pkix.Extension) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(ext.Id)
		if ext.Critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(ext.Value)
	})
}

// addSorted writes the elements of a SET OF in the order of DER.
func addSorted(b *cryptobyte.Builder, elements ...[]byte) {
	slices.SortFunc(elements, bytes.Compare)
	for _, e := range elements {
		b.AddBytes(e)
	}
}

// A KeyID is the SHA-256 of a SubjectPublicKeyInfo. It names an issuer in the
// Store and pins an anchor.
type KeyID [sha256.Size]byte

// String returns lower-case hexadecimal.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes lower-case hexadecimal.
func (id KeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads hexadecimal.
func (id *KeyID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("a key id has %d hexadecimal digits, want %d", len(text), 2*len(id))
	}
	_, err := hex.Decode(id[:], text)
	return err
}

// KeyIDOf returns the KeyID of a public key.
func KeyIDOf(pub crypto.PublicKey) (KeyID, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return KeyID{}, err
	}
	return sha256.Sum256(spki), nil
}

// keyBits returns the content of the BIT STRING in a SubjectPublicKeyInfo.
func keyBits(spki cryptobyte.String) ([]byte, error) {
	var seq cryptobyte.String
	var bits []byte
	if !spki.ReadASN1(&seq, asn1.SEQUENCE) || !seq.SkipASN1(asn1.SEQUENCE) || !seq.ReadASN1BitStringAsBytes(&bits) {
		return nil, errors.New("not a SubjectPublicKeyInfo")
	}
	return bits, nil
}

// subjectKeyID returns the subject key identifier of a key: the left 160 bits
// of the SHA-256 of the BIT STRING (RFC 7093 section 2, method 1).
func subjectKeyID(pub crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	return subjectKeyIDOf(spki)
}

// subjectKeyIDOf is subjectKeyID of the key in a SubjectPublicKeyInfo.
func subjectKeyIDOf(spki []byte) ([]byte, error) {
	bits, err := keyBits(spki)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(bits)
	return sum[:20], nil
}
