package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// maxPublic bounds an encoded TPMT_PUBLIC.
const maxPublic = 1024

var errPublic = errors.New("not a public area")

// readPublicArea decodes a TPMT_PUBLIC (Part 2, 12.2.4) and computes its Name
// (Part 1, 16). It accepts only what encodes to the same octets again.
func readPublicArea(b []byte) (*tpm2.TPMTPublic, *tpm2.TPM2BName, error) {
	if len(b) > maxPublic {
		return nil, nil, fmt.Errorf("%w: longer than %d octets", errPublic, maxPublic)
	}
	public, err := decodeExact[tpm2.TPMTPublic](b)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errPublic, err)
	}
	if !slices.Contains(nameAlgorithms, public.NameAlg) {
		return nil, nil, fmt.Errorf("%w: name algorithm %#04x", errPublic, uint16(public.NameAlg))
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errPublic, err)
	}
	return public, name, nil
}

var nameAlgorithms = []tpm2.TPMIAlgHash{tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512}

// decodeExact decodes a TPM structure and refuses what does not encode to the
// same octets: go-tpm reads a cut off size as zero and ignores what follows.
func decodeExact[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](b []byte) (v *T, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, fmt.Errorf("cannot be decoded: %v", p)
		}
	}()
	if v, err = tpm2.Unmarshal[T, P](b); err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(*v), b) {
		return nil, errors.New("has octets missing or left over")
	}
	return v, nil
}

// publicKey returns the public key of an ECC public area, on its curve.
func publicKey(public *tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	parms, err := public.Parameters.ECCDetail()
	if err != nil || public.Type != tpm2.TPMAlgECC {
		return nil, errors.New("not an elliptic curve key")
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return nil, err
	}
	curve := curveOf(parms.CurveID)
	if curve == nil {
		return nil, fmt.Errorf("curve %#x is not supported", uint16(parms.CurveID))
	}
	encoded, err := encodePoint(curve, point.X.Buffer, point.Y.Buffer)
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(curve, encoded)
}

func curveOf(id tpm2.TPMECCCurve) elliptic.Curve {
	switch id {
	case tpm2.TPMECCNistP256:
		return elliptic.P256()
	case tpm2.TPMECCNistP384:
		return elliptic.P384()
	}
	return nil
}

// encodePoint writes a point uncompressed, its coordinates padded on the left:
// a TPM may give them without their leading zeros.
func encodePoint(curve elliptic.Curve, x, y []byte) ([]byte, error) {
	size := (curve.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		return nil, errors.New("a coordinate is too long")
	}
	b := make([]byte, 1+2*size)
	b[0] = 4
	copy(b[1+size-len(x):], x)
	copy(b[1+2*size-len(y):], y)
	return b, nil
}

// ecdhPublicKey is the same key for key agreement.
func ecdhPublicKey(k *ecdsa.PublicKey) *ecdh.PublicKey {
	p, err := k.ECDH()
	if err != nil {
		return nil // the point was checked when the key was read
	}
	return p
}

// hashOf returns the hash function of a TPM algorithm identifier, 0 if it is
// not one that we sign with.
func hashOf(alg tpm2.TPMAlgID) crypto.Hash {
	switch alg {
	case tpm2.TPMAlgSHA256:
		return crypto.SHA256
	case tpm2.TPMAlgSHA384:
		return crypto.SHA384
	case tpm2.TPMAlgSHA512:
		return crypto.SHA512
	}
	return 0
}
