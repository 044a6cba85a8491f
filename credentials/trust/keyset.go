package trust

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

// Bounds of a key set.
const (
	maxKeySet  = 256 << 10
	maxKeys    = 64
	keyDepth   = 8
	typeJWKS   = "application/jwk-set+json"
	typeJSON   = "application/json"
	typeCOSEKS = "application/cose-key-set"
)

var (
	errNotAtHand    = errors.New("it was never fetched")
	errNotRenewable = errors.New("the server says that nothing has changed, and nothing is at hand")
)

// A namedKey is one key of a set.
type namedKey struct {
	kid    []byte // its thumbprint if it has none
	public crypto.PublicKey
	scheme *credentials.Scheme
}

// A keySet is the keys of an issuer. It does not change.
type keySet struct{ keys []namedKey }

// parseJWKS reads a JWK Set (RFC 7517 section 5). Keys of kinds that we do not
// have, or that are not for signatures, are passed over; a private key makes
// all of it worthless.
func parseJWKS(text []byte) (*keySet, error) {
	o, err := jose.ParseObject(string(text), keyDepth)
	if err != nil {
		return nil, fmt.Errorf("not a JWK Set: %w", err)
	}
	list, _ := o.Get("keys")
	return keysFrom(list)
}

// parseKeyFile reads a JWK Set, or one JWK as "privyseal key public" writes it.
func parseKeyFile(text []byte) (*keySet, error) {
	o, err := jose.ParseObject(string(text), keyDepth)
	if err != nil || !o.Has("kty") {
		return parseJWKS(text)
	}
	return keysFrom([]any{o})
}

func keysFrom(list any) (*keySet, error) {
	members, ok := list.([]any)
	if !ok {
		return nil, errors.New(`not a JWK Set: no array "keys"`)
	}
	if len(members) > maxKeys {
		return nil, fmt.Errorf("a JWK Set of %d keys, at most %d are read", len(members), maxKeys)
	}
	s := &keySet{}
	for i, m := range members {
		key, ok := m.(*jose.Object)
		if !ok {
			return nil, fmt.Errorf("key %d is not an object", i)
		}
		if err := s.addJWK(key); err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
	}
	return s, nil
}

func (s *keySet) addJWK(o *jose.Object) error {
	k, err := jose.ParseJWK(o)
	if errors.Is(err, jose.ErrUnsupportedKey) {
		return nil
	}
	if err != nil {
		return err
	}
	scheme, err := credentials.SchemeOf(k.Key)
	if err != nil || !k.Verifies(scheme.AcceptsJOSE) {
		return nil
	}
	key := namedKey{kid: thumbprintKid(k.Key), public: k.Key, scheme: scheme}
	if o.Has("kid") {
		key.kid = []byte(k.Kid)
	}
	s.keys = append(s.keys, key)
	return nil
}

// thumbprintKid is what a key without a kid is called: its JWK thumbprint in
// base64url, as is the custom.
func thumbprintKid(pub crypto.PublicKey) []byte {
	sum, err := credentials.JWKThumbprint(pub)
	if err != nil {
		return nil
	}
	return []byte(jose.EncodeBase64(sum))
}

// parseCOSEKeySet reads a COSE_KeySet (RFC 9052 section 7): an array of
// COSE_Key. It passes over and refuses what parseJWKS does.
func parseCOSEKeySet(b []byte) (*keySet, error) {
	v, err := dcbor.Limits{Size: maxKeySet}.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("not a COSE_KeySet: %w", err)
	}
	list, ok := v.Elements()
	if !ok {
		return nil, fmt.Errorf("not a COSE_KeySet: a %s, want an array", v.Kind())
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("a COSE_KeySet of %d keys, at most %d are read", len(list), maxKeys)
	}
	s := &keySet{}
	for i, m := range list {
		k, err := credentials.COSEKeyFrom(m)
		if credentials.CodeOf(err) == credentials.CodeCnfPrivateKey || m.Kind() != dcbor.Map {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
		if err == nil {
			key := namedKey{kid: k.KeyID, public: k.Public, scheme: k.Scheme}
			if key.kid == nil {
				key.kid = thumbprintKid(k.Public)
			}
			s.keys = append(s.keys, key)
		}
	}
	return s, nil
}

// choose returns the one key that a token can mean: the one with its kid or,
// if it has none, the only one that fits.
func (s *keySet) choose(kid []byte, fits func(*credentials.Scheme) bool) (crypto.PublicKey, error) {
	var found []namedKey
	for _, k := range s.keys {
		if fits(k.scheme) && (kid == nil || bytes.Equal(k.kid, kid)) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 1:
		return found[0].public, nil
	case 0:
		if kid == nil {
			return nil, errors.New("none of the issuer's keys fits the algorithm")
		}
		return nil, fmt.Errorf("none of the issuer's %d keys has the kid %.64q and fits the algorithm", len(s.keys), kid)
	}
	if kid == nil {
		return nil, fmt.Errorf("the token has no kid, and %d of the issuer's keys fit", len(found))
	}
	return nil, fmt.Errorf("%d of the issuer's keys have the kid %.64q", len(found), kid)
}

// publics returns all keys.
func (s *keySet) publics() []crypto.PublicKey {
	out := make([]crypto.PublicKey, len(s.keys))
	for i, k := range s.keys {
		out[i] = k.public
	}
	return out
}

// same reports whether two sets have the same keys under the same names.
func (s *keySet) same(other *keySet) bool {
	return slices.EqualFunc(s.keys, other.keys, func(a, b namedKey) bool {
		return bytes.Equal(a.kid, b.kid) && credentials.SamePublicKey(a.public, b.public)
	})
}

// lifeOfKeys is how long a key set or its metadata is kept.
func lifeOfKeys(value any, fetched time.Time, age time.Duration) reading {
	end := fetched.Add(clampAge(age))
	return reading{value: value, refresh: end, until: end}
}

func (s *keySet) renew(_ reading, fetched time.Time, age time.Duration) reading {
	return lifeOfKeys(s, fetched, age)
}
