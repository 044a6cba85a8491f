package credentials

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/internal/signing"
)

// A Scheme is one signature scheme with its names in the three worlds that
// meet in a MIMI credential: MLS (RFC 9420, numbers of TLS SignatureScheme),
// COSE (RFC 9053, RFC 9864) and JOSE (RFC 7518, RFC 8037, RFC 9864).
type Scheme struct {
	MLS        uint16 // TLS SignatureScheme
	Name       string // of the TLS registry, such as "ecdsa_secp256r1_sha256"
	JOSE       string // the alg that we emit
	JOSEAlso   string // a further alg that we accept, or ""
	COSE       int64  // the fully specified alg that we emit
	COSEAlso   int64  // the deprecated polymorphic alg that we accept
	JWKCrv     string // JWK "crv"
	COSECrv    int64  // COSE_Key crv (-1)
	Hash       crypto.Hash
	curve      elliptic.Curve
	coordinate int // octets of a coordinate, or of the Ed25519 key
}

// The schemes of the MLS cipher suites that we have.
var (
	Ed25519     = &Scheme{MLS: 0x0807, Name: "ed25519", JOSE: "EdDSA", JOSEAlso: "Ed25519", COSE: -19, COSEAlso: -8, JWKCrv: "Ed25519", COSECrv: 6, coordinate: 32}
	ECDSAP256   = &Scheme{MLS: 0x0403, Name: "ecdsa_secp256r1_sha256", JOSE: "ES256", COSE: -9, COSEAlso: -7, JWKCrv: "P-256", COSECrv: 1, Hash: crypto.SHA256, curve: elliptic.P256(), coordinate: 32}
	ECDSAP384   = &Scheme{MLS: 0x0503, Name: "ecdsa_secp384r1_sha384", JOSE: "ES384", COSE: -51, COSEAlso: -35, JWKCrv: "P-384", COSECrv: 2, Hash: crypto.SHA384, curve: elliptic.P384(), coordinate: 48}
	ECDSAP521   = &Scheme{MLS: 0x0603, Name: "ecdsa_secp521r1_sha512", JOSE: "ES512", COSE: -52, COSEAlso: -36, JWKCrv: "P-521", COSECrv: 3, Hash: crypto.SHA512, curve: elliptic.P521(), coordinate: 66}
	allSchemes  = []*Scheme{Ed25519, ECDSAP256, ECDSAP384, ECDSAP521}
	errNoScheme = errors.New("no signature scheme for this kind of key; use P-256, P-384, P-521 or Ed25519")
)

// Schemes returns every Scheme, in the order of the MLS cipher suites that
// first use them.
func Schemes() []*Scheme { return append([]*Scheme(nil), allSchemes...) }

// SchemeByMLS returns the Scheme with the given TLS SignatureScheme number,
// or nil.
func SchemeByMLS(n uint16) *Scheme {
	for _, s := range allSchemes {
		if s.MLS == n {
			return s
		}
	}
	return nil
}

// SchemeOf returns the Scheme in which pub verifies. pub is an
// *ecdsa.PublicKey or an ed25519.PublicKey.
func SchemeOf(pub crypto.PublicKey) (*Scheme, error) {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("Ed25519 public key of %d octets, want %d", len(pub), ed25519.PublicKeySize)
		}
		return Ed25519, nil
	case *ecdsa.PublicKey:
		for _, s := range allSchemes {
			if s.curve != nil && s.curve == pub.Curve {
				return s, nil
			}
		}
	}
	return nil, errNoScheme
}

func (s *Scheme) String() string { return s.Name }

// Curve returns the curve of an ECDSA scheme, or nil for Ed25519.
func (s *Scheme) Curve() elliptic.Curve { return s.curve }

// CoordinateSize returns the octets of one coordinate: 32, 48 or 66 for ECDSA,
// and 32, the size of the whole public key, for Ed25519.
func (s *Scheme) CoordinateSize() int { return s.coordinate }

// AcceptsJOSE reports whether alg names this scheme in JOSE.
func (s *Scheme) AcceptsJOSE(alg string) bool {
	return alg != "" && (alg == s.JOSE || alg == s.JOSEAlso)
}

// AcceptsCOSE reports whether alg names this scheme in COSE.
func (s *Scheme) AcceptsCOSE(alg int64) bool { return alg == s.COSE || alg == s.COSEAlso }

// MLSPublicKey returns pub as an MLS SignaturePublicKey: 32 octets for
// Ed25519, the uncompressed point for ECDSA (RFC 9420 section 5.1.1).
func MLSPublicKey(pub crypto.PublicKey) ([]byte, error) {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		if len(pub) == ed25519.PublicKeySize {
			return bytes.Clone(pub), nil
		}
	case *ecdsa.PublicKey:
		return pub.Bytes()
	}
	return nil, errNoScheme
}

// ParseMLSPublicKey is the inverse of MLSPublicKey. It refuses points that are
// compressed, of the wrong size or not on the curve.
func (s *Scheme) ParseMLSPublicKey(b []byte) (crypto.PublicKey, error) {
	if s.curve == nil {
		if len(b) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("Ed25519 public key of %d octets, want %d", len(b), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(bytes.Clone(b)), nil
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(s.curve, b)
	if err != nil {
		return nil, fmt.Errorf("%s public key: %w", s.Name, err)
	}
	return pub, nil
}

// Sign is SignContext without a deadline. The random source is not used.
func (s *Scheme) Sign(_ io.Reader, key crypto.Signer, message []byte) ([]byte, error) {
	return s.SignContext(context.Background(), key, message)
}

// SignContext signs message with key and returns the signature as MLS and X.509
// want it: DER for ECDSA, 64 octets for Ed25519. A key that takes a context is
// given it, and one that wants whole messages is given the message.
func (s *Scheme) SignContext(ctx context.Context, key crypto.Signer, message []byte) ([]byte, error) {
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	return signing.Message(ctx, key, message, s.Hash)
}

// SignVerified is SignContext that returns no signature which was not verified,
// by the key itself where it does that or here. The error is bad if it does not
// verify.
func (s *Scheme) SignVerified(ctx context.Context, key crypto.Signer, message []byte, bad error) ([]byte, error) {
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	sig, verified, err := signing.Verified(ctx, key, message, s.Hash)
	if err == nil && !verified && !s.Verify(key.Public(), message, sig) {
		return nil, bad
	}
	return sig, err
}

func (s *Scheme) checkKey(key crypto.Signer) error {
	if ks, err := SchemeOf(key.Public()); err != nil {
		return err
	} else if ks != s {
		return fmt.Errorf("key is for %s, signature wanted in %s", ks, s)
	}
	return nil
}

// Verify reports whether sig, in the MLS form, is a signature of message by
// pub. pub must be of this scheme.
func (s *Scheme) Verify(pub crypto.PublicKey, message, sig []byte) bool {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		return s == Ed25519 && len(pub) == ed25519.PublicKeySize && ed25519.Verify(pub, message, sig)
	case *ecdsa.PublicKey:
		if s.curve == nil || pub.Curve != s.curve {
			return false
		}
		h := s.Hash.New()
		h.Write(message)
		return ecdsa.VerifyASN1(pub, h.Sum(nil), sig)
	}
	return false
}

// RawSignature converts a signature from the MLS form to the fixed-length form
// of JOSE and COSE: big-endian r and s, each padded to the coordinate size.
// Ed25519 signatures are returned unchanged.
func (s *Scheme) RawSignature(sig []byte) ([]byte, error) {
	if s.curve == nil {
		if len(sig) != ed25519.SignatureSize {
			return nil, fmt.Errorf("Ed25519 signature of %d octets, want %d", len(sig), ed25519.SignatureSize)
		}
		return sig, nil
	}
	var inner cryptobyte.String
	var r, t []byte // without sign octets; empty or {0} for zero
	in := cryptobyte.String(sig)
	if !in.ReadASN1(&inner, asn1.SEQUENCE) || !in.Empty() ||
		!inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&t) || !inner.Empty() {
		return nil, errors.New("ECDSA signature is not a DER SEQUENCE of two INTEGERs that are not negative")
	}
	r, t = bytes.TrimLeft(r, "\x00"), bytes.TrimLeft(t, "\x00")
	if len(r) == 0 || len(t) == 0 || len(r) > s.coordinate || len(t) > s.coordinate {
		return nil, errors.New("ECDSA signature value is out of range")
	}
	raw := make([]byte, 2*s.coordinate)
	copy(raw[s.coordinate-len(r):], r)
	copy(raw[2*s.coordinate-len(t):], t)
	return raw, nil
}

// VerifyRaw is Verify for a signature in the form of RawSignature. A signature
// of any other length is refused.
func (s *Scheme) VerifyRaw(pub crypto.PublicKey, message, raw []byte) bool {
	if s.curve == nil {
		return s.Verify(pub, message, raw)
	}
	if len(raw) != 2*s.coordinate {
		return false
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[:s.coordinate]))
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[s.coordinate:]))
	})
	der, err := b.Bytes()
	return err == nil && s.Verify(pub, message, der)
}

// SignRaw is Sign with the signature in the form of RawSignature.
func (s *Scheme) SignRaw(_ io.Reader, key crypto.Signer, message []byte) ([]byte, error) {
	return s.SignRawContext(context.Background(), key, message)
}

// SignRawContext is SignContext with the signature in the form of RawSignature.
func (s *Scheme) SignRawContext(ctx context.Context, key crypto.Signer, message []byte) ([]byte, error) {
	sig, err := s.SignContext(ctx, key, message)
	if err != nil {
		return nil, err
	}
	return s.RawSignature(sig)
}

// PublicFromPoint returns the public key with the coordinates x and y, each of
// exactly the coordinate size; for Ed25519, x is the key and y is nil. It
// refuses a point that is not on the curve.
func (s *Scheme) PublicFromPoint(x, y []byte) (crypto.PublicKey, error) {
	if s.curve == nil {
		if y != nil {
			return nil, errors.New("an Ed25519 key has no y coordinate")
		}
		return s.ParseMLSPublicKey(x)
	}
	if len(x) != s.coordinate || len(y) != s.coordinate {
		return nil, fmt.Errorf("coordinates of %d and %d octets, want %d", len(x), len(y), s.coordinate)
	}
	var point [1 + 2*66]byte
	return s.ParseMLSPublicKey(append(append(append(point[:0], 4), x...), y...))
}

// SamePublicKey reports whether a and b are the same key of a known scheme.
func SamePublicKey(a, b crypto.PublicKey) bool {
	x, errA := MLSPublicKey(a)
	y, errB := MLSPublicKey(b)
	sa, _ := SchemeOf(a)
	sb, _ := SchemeOf(b)
	return errA == nil && errB == nil && sa == sb && bytes.Equal(x, y)
}

// ECDHCurve returns the curve of key agreement that goes with the scheme's
// curve, or nil for Ed25519.
func (s *Scheme) ECDHCurve() ecdh.Curve {
	switch s {
	case ECDSAP256:
		return ecdh.P256()
	case ECDSAP384:
		return ecdh.P384()
	case ECDSAP521:
		return ecdh.P521()
	}
	return nil
}
