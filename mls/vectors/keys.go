package vectors

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"fmt"

	"github.com/privyseal/privyseal/mls"
)

// curves are those of the suites' signatures and KEMs, and nil for the suites
// of Curve25519.
var curves = map[mls.CipherSuite]elliptic.Curve{
	mls.P256AES128SHA256P256: elliptic.P256(),
	mls.P384AES256SHA384P384: elliptic.P384(),
	mls.P521AES256SHA512P521: elliptic.P521(),
}

// padScalar restores leading zeros: some vectors give a private key as a
// number.
func padScalar(c mls.CipherSuite, b []byte) []byte {
	curve := curves[c]
	if curve == nil {
		return b
	}
	n := (curve.Params().BitSize + 7) / 8
	return append(make([]byte, max(n-len(b), 0)), b...)
}

// SignatureKey makes a signer of a private key in the form that vectors have:
// a scalar, or an Ed25519 seed that the public key may follow.
func SignatureKey(c mls.CipherSuite, private []byte) (crypto.Signer, error) {
	if curve := curves[c]; curve != nil {
		return ecdsa.ParseRawPrivateKey(curve, padScalar(c, private))
	}
	switch len(private) {
	case ed25519.SeedSize, ed25519.PrivateKeySize:
		return ed25519.NewKeyFromSeed(private[:ed25519.SeedSize]), nil
	}
	return nil, fmt.Errorf("vectors: an Ed25519 private key has 32 octets, not %d", len(private))
}

// HPKEKey makes an HPKE private key of a scalar.
func HPKEKey(c mls.CipherSuite, private []byte) (hpke.PrivateKey, error) {
	kem := c.KEM()
	if kem == nil {
		return nil, fmt.Errorf("%w: cipher suite 0x%04x", mls.ErrUnsupported, uint16(c))
	}
	return kem.NewPrivateKey(padScalar(c, private))
}
