package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// Why ParseJWK refuses a key.
var (
	ErrPrivateKey     = errors.New("the JWK has private or secret members; only a public key belongs here")
	ErrUnsupportedKey = errors.New("the JWK is not of a supported kind; use EC with P-256, P-384 or P-521, or OKP with Ed25519")
	ErrBadKey         = errors.New("the JWK is not a public key")
)

// privateMembers are the members of RFC 7518 section 6 and RFC 8037 section 2
// that only private and secret keys have.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// A JWK is a public key with what its JSON Web Key says about its use.
//
//	{"kty":"EC","crv":"P-256","x":b64u,"y":b64u}     RFC 7518 section 6.2
//	{"kty":"OKP","crv":"Ed25519","x":b64u}           RFC 8037 section 2
type JWK struct {
	Key    crypto.PublicKey // *ecdsa.PublicKey or ed25519.PublicKey
	Kid    string
	Alg    string   // "", or the only algorithm to use with the key
	Use    string   // "", or "sig" or "enc"
	KeyOps []string // nil, or the only operations
}

// jwkCurves are the curves of kty EC with the octets of a coordinate.
var jwkCurves = []struct {
	crv   string
	curve elliptic.Curve
	size  int
}{
	{"P-256", elliptic.P256(), 32},
	{"P-384", elliptic.P384(), 48},
	{"P-521", elliptic.P521(), 66},
}

// ParseJWK reads a public key. Members that it does not know are ignored (RFC
// 7517 section 4), but those of private keys are refused.
func ParseJWK(o *Object) (*JWK, error) {
	if slices.ContainsFunc(privateMembers, o.Has) {
		return nil, ErrPrivateKey
	}
	t := texts{o: o}
	kty, crv := t.get("kty"), t.get("crv")
	k := &JWK{Kid: t.get("kid"), Alg: t.get("alg"), Use: t.get("use"), KeyOps: t.list("key_ops")}
	if t.err != nil {
		return nil, t.err
	}
	var err error
	switch kty {
	case "EC":
		k.Key, err = parseEC(o, crv)
	case "OKP":
		k.Key, err = parseOKP(o, crv)
	default:
		err = fmt.Errorf("%w: kty %q", ErrUnsupportedKey, kty)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// texts reads optional members that must be strings, and keeps the first error.
type texts struct {
	o   *Object
	err error
}

func (t *texts) get(name string) string {
	s, _, ok := t.o.Text(name)
	if !ok {
		t.err = fmt.Errorf("%w: %q is not a string", ErrBadKey, name)
	}
	return s
}

func (t *texts) list(name string) []string {
	v, there := t.o.Get(name)
	if !there {
		return nil
	}
	elements, ok := v.([]any)
	list := make([]string, len(elements))
	for i, e := range elements {
		var isText bool
		list[i], isText = e.(string)
		ok = ok && isText
	}
	if !ok {
		t.err = fmt.Errorf("%w: %q is not an array of strings", ErrBadKey, name)
	}
	return list
}

func parseEC(o *Object, crv string) (crypto.PublicKey, error) {
	for _, c := range jwkCurves {
		if c.crv != crv {
			continue
		}
		x, err := coordinate(o, "x", c.size)
		if err != nil {
			return nil, err
		}
		y, err := coordinate(o, "y", c.size)
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.ParseUncompressedPublicKey(c.curve, slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, fmt.Errorf("%w: no point of %s", ErrBadKey, crv)
		}
		return key, nil
	}
	return nil, fmt.Errorf("%w: crv %q", ErrUnsupportedKey, crv)
}

func parseOKP(o *Object, crv string) (crypto.PublicKey, error) {
	if crv != "Ed25519" {
		return nil, fmt.Errorf("%w: crv %q", ErrUnsupportedKey, crv)
	}
	if o.Has("y") {
		return nil, fmt.Errorf("%w: an OKP key has no y", ErrBadKey)
	}
	x, err := coordinate(o, "x", ed25519.PublicKeySize)
	return ed25519.PublicKey(x), err
}

// coordinate reads a member of exactly size octets; leading zeros stay (RFC
// 7518 section 6.2.1.2).
func coordinate(o *Object, name string, size int) ([]byte, error) {
	s, there, ok := o.Text(name)
	if !there || !ok {
		return nil, fmt.Errorf("%w: no string %q", ErrBadKey, name)
	}
	b, err := DecodeBase64(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not canonical base64url", ErrBadKey, name)
	}
	if len(b) != size {
		return nil, fmt.Errorf("%w: %q has %d octets, want %d", ErrBadKey, name, len(b), size)
	}
	return b, nil
}

// Verifies reports whether what the JWK says about its use lets it verify
// signatures of an algorithm that accepts reports as good.
func (k *JWK) Verifies(accepts func(alg string) bool) bool {
	return (k.Use == "" || k.Use == "sig") &&
		(k.KeyOps == nil || slices.Contains(k.KeyOps, "verify")) &&
		(k.Alg == "" || accepts(k.Alg))
}

// FormatJWK returns pub as a JWK that has only the required members, in the
// order of RFC 7638 section 3.
func FormatJWK(pub crypto.PublicKey) (*Object, error) {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		if len(pub) == ed25519.PublicKeySize {
			return NewObject(Member{"crv", "Ed25519"}, Member{"kty", "OKP"}, Member{"x", EncodeBase64(pub)}), nil
		}
	case *ecdsa.PublicKey:
		return formatEC(pub)
	}
	return nil, ErrUnsupportedKey
}

func formatEC(pub *ecdsa.PublicKey) (*Object, error) {
	for _, c := range jwkCurves {
		if c.curve != pub.Curve {
			continue
		}
		point, err := pub.Bytes()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
		}
		x, y := point[1:1+c.size], point[1+c.size:]
		return NewObject(Member{"crv", c.crv}, Member{"kty", "EC"},
			Member{"x", EncodeBase64(x)}, Member{"y", EncodeBase64(y)}), nil
	}
	return nil, ErrUnsupportedKey
}

// Thumbprint returns the SHA-256 JWK thumbprint of pub (RFC 7638), which in
// base64url is the value of "jkt" (RFC 9449 section 6).
func Thumbprint(pub crypto.PublicKey) ([]byte, error) {
	o, err := FormatJWK(pub)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(AppendJSON(nil, o))
	return sum[:], nil
}
