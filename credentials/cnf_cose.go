package credentials

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"math/big"

	"github.com/privyseal/privyseal/internal/dcbor"
)

// Labels and values of a COSE_Key (RFC 9052 section 7, RFC 9053 section 7).
const (
	coseKeyKty    = 1
	coseKeyKid    = 2
	coseKeyAlg    = 3
	coseKeyOps    = 4
	coseKeyCrv    = -1
	coseKeyX      = -2
	coseKeyY      = -3
	coseKeyD      = -4
	coseKtyOKP    = 1
	coseKtyEC2    = 2
	coseOpVerify  = 2
	cwtCnfKey     = 1 // COSE_Key, RFC 8747
	cwtCnfKeyHash = 5 // ckt, RFC 9679
)

// A COSEKey is a public key in COSE.
type COSEKey struct {
	Public crypto.PublicKey
	Scheme *Scheme
	Alg    int64  // 0 when the key names none
	KeyID  []byte // nil when the key has none
}

// ParseCOSEKey parses the CBOR of a COSE_Key that can verify signatures of a
// known Scheme. A key with a private member is refused.
func ParseCOSEKey(b []byte) (*COSEKey, error) {
	v, err := dcbor.Decode(b)
	if err != nil {
		return nil, Errorf(CodeMalformed, "COSE_Key", "%w", err)
	}
	return COSEKeyFrom(v)
}

// COSEKeyFrom is ParseCOSEKey for an item that is already decoded.
func COSEKeyFrom(v dcbor.Value) (*COSEKey, error) {
	const where = "COSE_Key"
	if v.Kind() != dcbor.Map {
		return nil, Errorf(CodeCnfUnsupported, where, "%s, want a map", v.Kind())
	}
	if v.GetInt(coseKeyD).Exists() {
		return nil, Errorf(CodeCnfPrivateKey, where, "carries the private member -4")
	}
	scheme := coseKeyScheme(v)
	if scheme == nil {
		return nil, Errorf(CodeCnfCurve, where, "key type and curve of no supported scheme")
	}
	if err := coseKeyMayVerify(v, scheme); err != nil {
		return nil, err
	}
	pub, err := coseKeyPoint(v, scheme)
	if err != nil {
		return nil, Errorf(CodeCnfCurve, where, "%w", err)
	}
	alg, _ := v.GetInt(coseKeyAlg).Int()
	kid, _ := v.GetInt(coseKeyKid).Bytes()
	return &COSEKey{Public: pub, Scheme: scheme, Alg: alg, KeyID: kid}, nil
}

func coseKeyScheme(v dcbor.Value) *Scheme {
	kty, _ := v.GetInt(coseKeyKty).Int()
	crv, _ := v.GetInt(coseKeyCrv).Int()
	for _, s := range allSchemes {
		if crv == s.COSECrv && kty == s.coseKty() {
			return s
		}
	}
	return nil
}

func (s *Scheme) coseKty() int64 {
	if s.curve == nil {
		return coseKtyOKP
	}
	return coseKtyEC2
}

// coseKeyMayVerify checks the members that limit what a key is for.
func coseKeyMayVerify(v dcbor.Value, scheme *Scheme) error {
	if alg := v.GetInt(coseKeyAlg); alg.Exists() {
		if n, ok := alg.Int(); !ok || !scheme.AcceptsCOSE(n) {
			return Errorf(CodeCnfCurve, "COSE_Key", "alg %v does not fit a %s key", alg, scheme)
		}
	}
	if kid := v.GetInt(coseKeyKid); kid.Exists() && kid.Kind() != dcbor.Bytes {
		return Errorf(CodeCnfUnsupported, "COSE_Key", "kid is a %s, want a byte string", kid.Kind())
	}
	ops := v.GetInt(coseKeyOps)
	if !ops.Exists() {
		return nil
	}
	list, _ := ops.Elements()
	for _, op := range list {
		if op.IsInt(coseOpVerify) {
			return nil
		}
	}
	return Errorf(CodeCnfUnsupported, "COSE_Key", "key_ops does not allow verification")
}

func coseKeyPoint(v dcbor.Value, s *Scheme) (crypto.PublicKey, error) {
	x, ok := v.GetInt(coseKeyX).Bytes()
	if !ok {
		return nil, errors.New("x is missing or not a byte string")
	}
	yItem := v.GetInt(coseKeyY)
	if s.curve == nil {
		if yItem.Exists() {
			return nil, errors.New("an OKP key has no y")
		}
		return s.PublicFromPoint(x, nil)
	}
	if odd, ok := yItem.Bool(); ok {
		y, err := s.decompress(x, odd)
		if err != nil {
			return nil, err
		}
		return s.PublicFromPoint(x, y)
	}
	y, ok := yItem.Bytes()
	if !ok {
		return nil, errors.New("y is neither a byte string nor a sign bit")
	}
	return s.PublicFromPoint(x, y)
}

// decompress returns y for x and the sign bit, SEC 1 section 2.3.4.
func (s *Scheme) decompress(x []byte, odd bool) ([]byte, error) {
	p := s.curve.Params().P
	xn := new(big.Int).SetBytes(x)
	if len(x) != s.coordinate || xn.Cmp(p) >= 0 {
		return nil, errors.New("x is not a coordinate of the curve")
	}
	y2 := new(big.Int).Exp(xn, big.NewInt(3), p)
	y2.Sub(y2, new(big.Int).Mul(xn, big.NewInt(3))).Add(y2, s.curve.Params().B).Mod(y2, p)
	y := new(big.Int).ModSqrt(y2, p)
	if y == nil {
		return nil, errors.New("x is on no point of the curve")
	}
	if (y.Bit(0) == 1) != odd {
		y.Sub(p, y)
	}
	if (y.Bit(0) == 1) != odd { // y is 0
		return nil, errors.New("no point has this sign")
	}
	return y.FillBytes(make([]byte, s.coordinate)), nil
}

// FormatCOSEKey returns pub as a COSE_Key with the required members alone, in
// core deterministic encoding: the input of a COSE Key Thumbprint.
func FormatCOSEKey(pub crypto.PublicKey) ([]byte, error) {
	s, err := SchemeOf(pub)
	if err != nil {
		return nil, err
	}
	point, err := MLSPublicKey(pub)
	if err != nil {
		return nil, err
	}
	members := []dcbor.Value{
		dcbor.NewInt(coseKeyKty), dcbor.NewInt(s.coseKty()),
		dcbor.NewInt(coseKeyCrv), dcbor.NewInt(s.COSECrv),
	}
	if s.curve == nil {
		members = append(members, dcbor.NewInt(coseKeyX), dcbor.NewBytes(point))
	} else {
		members = append(members, dcbor.NewInt(coseKeyX), dcbor.NewBytes(point[1:1+s.coordinate]),
			dcbor.NewInt(coseKeyY), dcbor.NewBytes(point[1+s.coordinate:]))
	}
	return dcbor.Encode(dcbor.NewMap(members...)), nil
}

// coseCrvX25519 is a curve that only agrees on keys (RFC 9053 section 7.1).
const coseCrvX25519 = 4

// FormatCOSEAgreementKey is FormatCOSEKey for a key that agrees on secrets, on
// X25519 or P-256 (RFC 9053 sections 6.3 and 7).
func FormatCOSEAgreementKey(pub *ecdh.PublicKey) ([]byte, error) {
	switch pub.Curve() {
	case ecdh.P256():
		point, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), pub.Bytes())
		if err != nil {
			return nil, err
		}
		return FormatCOSEKey(point)
	case ecdh.X25519():
		return dcbor.Encode(dcbor.NewMap(dcbor.NewInt(coseKeyKty), dcbor.NewInt(coseKtyOKP),
			dcbor.NewInt(coseKeyCrv), dcbor.NewInt(coseCrvX25519), dcbor.NewInt(coseKeyX), dcbor.NewBytes(pub.Bytes()))), nil
	}
	return nil, errNoScheme
}

// COSEKeyThumbprint returns the COSE Key Thumbprint of pub with SHA-256, which
// is what a ckt confirmation has (RFC 9679).
func COSEKeyThumbprint(pub crypto.PublicKey) ([]byte, error) {
	key, err := FormatCOSEKey(pub)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(key)
	return sum[:], nil
}

// CWTConfirmation returns the cnf claim with the whole key pub, in CBOR.
func CWTConfirmation(pub crypto.PublicKey) ([]byte, error) {
	key, err := FormatCOSEKey(pub)
	if err != nil {
		return nil, err
	}
	return dcbor.Encode(dcbor.NewMap(dcbor.NewInt(cwtCnfKey), dcbor.Verbatim(key))), nil
}

// CWTThumbprintConfirmation returns the cnf claim with the thumbprint of pub.
func CWTThumbprintConfirmation(pub crypto.PublicKey) ([]byte, error) {
	sum, err := COSEKeyThumbprint(pub)
	if err != nil {
		return nil, err
	}
	return dcbor.Encode(dcbor.NewMap(dcbor.NewInt(cwtCnfKeyHash), dcbor.NewBytes(sum))), nil
}

// A CWTCnf is a parsed cnf claim of a CWT: exactly one of its members is set.
type CWTCnf struct {
	Key        *COSEKey
	Thumbprint []byte // ckt
}

// ParseCWTCnf parses the CBOR of a cnf claim. Exactly one supported method must
// be in it.
func ParseCWTCnf(b []byte) (*CWTCnf, error) {
	v, err := dcbor.Decode(b)
	if err != nil {
		return nil, Errorf(CodeMalformed, "cnf", "%w", err)
	}
	return CWTCnfFrom(v)
}

// CWTCnfFrom is ParseCWTCnf for an item that is already decoded.
func CWTCnfFrom(v dcbor.Value) (*CWTCnf, error) {
	if v.Kind() != dcbor.Map || v.Size() != 1 {
		return nil, Errorf(CodeCnfUnsupported, "cnf", "want a map with exactly one method")
	}
	if key := v.GetInt(cwtCnfKey); key.Exists() {
		parsed, err := COSEKeyFrom(key)
		if err != nil {
			return nil, err
		}
		return &CWTCnf{Key: parsed}, nil
	}
	hash, ok := v.GetInt(cwtCnfKeyHash).Bytes()
	if !ok || len(hash) != sha256.Size {
		return nil, Errorf(CodeCnfUnsupported, "cnf", "neither a COSE_Key (1) nor a SHA-256 ckt (5)")
	}
	return &CWTCnf{Thumbprint: hash}, nil
}

// Match checks that the confirmation is for mlsKey, an MLS signature key of
// scheme s. A thumbprint is recomputed from mlsKey.
func (c *CWTCnf) Match(mlsKey []byte, s *Scheme) error {
	leaf, err := s.ParseMLSPublicKey(mlsKey)
	if err != nil {
		return Errorf(CodeCnfLeafMismatch, "cnf", "the MLS key is no key of %s: %w", s, err)
	}
	if c.Key != nil && c.Key.Scheme != s {
		return Errorf(CodeCnfCurve, "cnf", "a %s key, the leaf has %s", c.Key.Scheme, s)
	}
	return c.MatchKey(leaf)
}

// MatchKey checks that the confirmation is for pub.
func (c *CWTCnf) MatchKey(pub crypto.PublicKey) error {
	if c.Key != nil {
		if !SamePublicKey(c.Key.Public, pub) {
			return Errorf(CodeCnfLeafMismatch, "cnf", "another key than the leaf's")
		}
		return nil
	}
	sum, err := COSEKeyThumbprint(pub)
	if err != nil {
		return Errorf(CodeCnfCurve, "cnf", "%w", err)
	}
	if !bytes.Equal(sum, c.Thumbprint) {
		return Errorf(CodeCnfLeafMismatch, "cnf", "thumbprint of another key than the leaf's")
	}
	return nil
}

// MatchCWTCnf is MatchCnf for a cnf claim in CBOR: it checks that the claim
// confirms the MLS signature key mlsKey of scheme s, and nothing else.
func MatchCWTCnf(cnf, mlsKey []byte, s *Scheme) error {
	c, err := ParseCWTCnf(cnf)
	if err != nil {
		return err
	}
	return c.Match(mlsKey, s)
}
