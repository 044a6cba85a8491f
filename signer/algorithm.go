package signer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/credentials"
)

// An Algorithm says what a key is mathematically and what it can do.
type Algorithm string

// The algorithms.
const (
	P256       Algorithm = "P-256"       // ECDSA with SHA-256: ES256, ecdsa_secp256r1_sha256
	P384       Algorithm = "P-384"       // ECDSA with SHA-384
	P521       Algorithm = "P-521"       // ECDSA with SHA-512
	Ed25519    Algorithm = "Ed25519"     // RFC 8032
	ECDHP256   Algorithm = "ECDH-P-256"  // key agreement, for DHKEM(P-256, HKDF-SHA256)
	X25519     Algorithm = "X25519"      // key agreement, for DHKEM(X25519, HKDF-SHA256)
	HMACSHA256 Algorithm = "HMAC-SHA256" // RFC 2104
)

// A Use is what a device does with a key.
type Use string

// The uses.
const (
	UseSign  Use = "sign"
	UseAgree Use = "agree"
	UseMAC   Use = "mac"
)

// Algorithms returns every Algorithm.
func Algorithms() []Algorithm {
	return []Algorithm{P256, P384, P521, Ed25519, ECDHP256, X25519, HMACSHA256}
}

// ParseAlgorithm returns the Algorithm of that name; case does not matter.
func ParseAlgorithm(s string) (Algorithm, error) {
	var names []string
	for _, a := range Algorithms() {
		if strings.EqualFold(s, string(a)) {
			return a, nil
		}
		names = append(names, string(a))
	}
	return "", fmt.Errorf("%w: there is no algorithm %q; use one of %s", ErrUsage, clip(s), strings.Join(names, ", "))
}

// Use returns what a key of this algorithm can do.
func (a Algorithm) Use() Use {
	switch a {
	case ECDHP256, X25519:
		return UseAgree
	case HMACSHA256:
		return UseMAC
	}
	return UseSign
}

// Scheme returns the signature scheme of a signing algorithm, or nil.
func (a Algorithm) Scheme() *credentials.Scheme {
	switch a {
	case P256:
		return credentials.ECDSAP256
	case P384:
		return credentials.ECDSAP384
	case P521:
		return credentials.ECDSAP521
	case Ed25519:
		return credentials.Ed25519
	}
	return nil
}

// checkSuits refuses a purpose that the algorithm cannot serve.
func (a Algorithm) checkSuits(p Purpose) error {
	if !slices.Contains(Algorithms(), a) {
		return fmt.Errorf("%w: there is no algorithm %q", ErrUsage, clip(string(a)))
	}
	if a.Use() != p.Use() {
		return fmt.Errorf("%w: purpose %s needs a key that can %s; %s can only %s",
			ErrUsage, p, p.Use(), a, a.Use())
	}
	return nil
}
