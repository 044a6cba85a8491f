package credentials

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/privyseal/privyseal/internal/jose"
)

// The confirmation methods of a JWT that we support.
const (
	jwtCnfKey     = "jwk" // RFC 7800 section 3.2
	jwtCnfKeyHash = "jkt" // RFC 9449 section 6
)

// jwtCnfMethods are the members of a JWT's cnf that each stand for one key.
var jwtCnfMethods = []string{jwtCnfKey, jwtCnfKeyHash, "jwe", "jku", "x5t#S256"}

// maxCnfDepth bounds what is nested in a cnf claim that stands alone.
const maxCnfDepth = 8

// A JWTCnf is a parsed cnf claim of a JWT: exactly one of Key and Thumbprint
// is set.
type JWTCnf struct {
	Key        crypto.PublicKey
	Scheme     *Scheme // of Key
	Thumbprint []byte  // jkt
}

// ParseJWTCnf parses the JSON of a cnf claim. Exactly one supported method must
// be in it, and nothing else: there is no unknown method to skip.
func ParseJWTCnf(b []byte) (*JWTCnf, error) {
	o, err := jose.ParseObject(string(b), maxCnfDepth)
	if err != nil {
		return nil, Errorf(CodeMalformed, "cnf", "%w", err)
	}
	return JWTCnfFrom(o)
}

// JWTCnfFrom is ParseJWTCnf for a value that is already parsed.
func JWTCnfFrom(cnf any) (*JWTCnf, error) {
	return jwtCnfFrom(cnf, func(string) bool { return true })
}

// JWTCnfRFC7800 is JWTCnfFrom by the weaker rule of RFC 7800 section 3.1:
// beside the one key there may be members that stand for none, such as kid.
func JWTCnfRFC7800(cnf any) (*JWTCnf, error) {
	return jwtCnfFrom(cnf, func(name string) bool { return slices.Contains(jwtCnfMethods, name) })
}

func jwtCnfFrom(cnf any, counts func(member string) bool) (*JWTCnf, error) {
	o, ok := cnf.(*jose.Object)
	if !ok {
		return nil, Errorf(CodeCnfUnsupported, "cnf", "not an object")
	}
	n := 0
	for _, m := range o.Members {
		if counts(m.Name) {
			n++
		}
	}
	if n != 1 {
		return nil, Errorf(CodeCnfUnsupported, "cnf", "%d confirmation methods, want exactly one", n)
	}
	if key, there := o.Get(jwtCnfKey); there {
		return jwtCnfOfKey(key)
	}
	if hash, there := o.Get(jwtCnfKeyHash); there {
		return jwtCnfOfHash(hash)
	}
	return nil, Errorf(CodeCnfUnsupported, "cnf", "neither jwk nor jkt")
}

func jwtCnfOfKey(value any) (*JWTCnf, error) {
	const where = "cnf.jwk"
	o, ok := value.(*jose.Object)
	if !ok {
		return nil, Errorf(CodeCnfUnsupported, where, "not an object")
	}
	k, err := jose.ParseJWK(o)
	if errors.Is(err, jose.ErrPrivateKey) {
		return nil, Errorf(CodeCnfPrivateKey, where, "%w", err)
	}
	if err != nil {
		return nil, Errorf(CodeCnfCurve, where, "%w", err)
	}
	s, err := SchemeOf(k.Key)
	if err != nil {
		return nil, Errorf(CodeCnfCurve, where, "%w", err)
	}
	if !k.Verifies(s.AcceptsJOSE) {
		return nil, Errorf(CodeCnfCurve, where, "alg, use or key_ops do not allow verification with %s", s)
	}
	return &JWTCnf{Key: k.Key, Scheme: s}, nil
}

func jwtCnfOfHash(value any) (*JWTCnf, error) {
	s, ok := value.(string)
	hash, err := jose.DecodeBase64(s)
	if !ok || err != nil || len(hash) != sha256.Size {
		return nil, Errorf(CodeCnfUnsupported, "cnf.jkt", "not the base64url of a SHA-256 thumbprint")
	}
	return &JWTCnf{Thumbprint: hash}, nil
}

// Match checks that the confirmation is for mlsKey, an MLS signature key of
// scheme s. A thumbprint is recomputed from mlsKey.
func (c *JWTCnf) Match(mlsKey []byte, s *Scheme) error {
	leaf, err := s.ParseMLSPublicKey(mlsKey)
	if err != nil {
		return Errorf(CodeCnfLeafMismatch, "cnf", "the MLS key is no key of %s: %w", s, err)
	}
	if c.Key != nil && c.Scheme != s {
		return Errorf(CodeCnfCurve, "cnf", "a %s key, the leaf has %s", c.Scheme, s)
	}
	return c.MatchKey(leaf)
}

// MatchKey checks that the confirmation is for pub.
func (c *JWTCnf) MatchKey(pub crypto.PublicKey) error {
	if c.Key != nil {
		if !SamePublicKey(c.Key, pub) {
			return Errorf(CodeCnfLeafMismatch, "cnf", "another key than the holder's")
		}
		return nil
	}
	sum, err := jose.Thumbprint(pub)
	if err != nil {
		return Errorf(CodeCnfCurve, "cnf", "%w", err)
	}
	if !bytes.Equal(sum, c.Thumbprint) {
		return Errorf(CodeCnfLeafMismatch, "cnf", "thumbprint of another key than the holder's")
	}
	return nil
}

// MatchJWTCnf is MatchCnf for a cnf claim in JSON: it checks that the claim
// confirms the MLS signature key mlsKey of scheme s, and nothing else.
func MatchJWTCnf(cnf, mlsKey []byte, s *Scheme) error {
	c, err := ParseJWTCnf(cnf)
	if err != nil {
		return err
	}
	return c.Match(mlsKey, s)
}

// JWKThumbprint returns the SHA-256 thumbprint of pub (RFC 7638), which is what
// a jkt confirmation has in base64url.
func JWKThumbprint(pub crypto.PublicKey) ([]byte, error) { return jose.Thumbprint(pub) }

// FormatJWK returns pub as a JWK with the required members alone.
func FormatJWK(pub crypto.PublicKey) ([]byte, error) {
	o, err := jose.FormatJWK(pub)
	if err != nil {
		return nil, err
	}
	return jose.AppendJSON(nil, o), nil
}

// ParseJWK parses the JSON of a JWK that can verify signatures of a known
// Scheme. A key with private members is refused.
func ParseJWK(b []byte) (crypto.PublicKey, *Scheme, error) {
	o, err := jose.ParseObject(string(b), maxCnfDepth)
	if err != nil {
		return nil, nil, Errorf(CodeMalformed, "JWK", "%w", err)
	}
	c, err := jwtCnfOfKey(o)
	if err != nil {
		return nil, nil, err
	}
	return c.Key, c.Scheme, nil
}

// JWTConfirmation returns the cnf claim with the whole key pub, in JSON.
func JWTConfirmation(pub crypto.PublicKey) ([]byte, error) {
	jwk, err := jose.FormatJWK(pub)
	if err != nil {
		return nil, err
	}
	return jose.AppendJSON(nil, new(jose.Object).Add(jwtCnfKey, jwk)), nil
}

// JWTThumbprintConfirmation returns the cnf claim with the thumbprint of pub.
func JWTThumbprintConfirmation(pub crypto.PublicKey) ([]byte, error) {
	hash, err := jose.Thumbprint(pub)
	if err != nil {
		return nil, err
	}
	cnf := new(jose.Object).Add(jwtCnfKeyHash, jose.EncodeBase64(hash))
	return jose.AppendJSON(nil, cnf), nil
}
