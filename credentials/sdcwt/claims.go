package sdcwt

import (
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/dcbor"
)

// Claims is a claims set among native Go values: integers, floats, strings,
// []byte, bool, nil, []any, map[any]any and what Redact and Decoy return.
type Claims = map[any]any

// Redact marks a map key (an integer or a string) or an array element to be
// redacted: the To Be Redacted tag, 58.
func Redact(keyOrElement any) any {
	return dcbor.Tagged{Number: tagToBeRedacted, Content: keyOrElement}
}

// Decoy asks for a decoy digest: an array element, or a map key whose value is
// nil. n is positive and may be used once in a claims set: the To Be Decoy tag,
// 62.
func Decoy(n uint64) any { return dcbor.Tagged{Number: tagToBeDecoy, Content: n} }

// EncodeClaims returns claims in core deterministic CBOR.
func EncodeClaims(claims Claims) ([]byte, error) {
	v, err := dcbor.FromNative(claims)
	if err != nil {
		return nil, fmt.Errorf("sdcwt: claims set: %w", err)
	}
	return dcbor.Encode(v), nil
}

// CBOR returns item, which must be one CBOR item, as a value for Claims.
func CBOR(item []byte) (any, error) { return dcbor.Decode(item) }

// A ClaimsSet is a validated disclosed claims set: a plain CWT claims set.
type ClaimsSet struct{ v dcbor.Value }

// CBOR returns the claims set in core deterministic encoding.
func (c ClaimsSet) CBOR() []byte { return dcbor.Encode(c.v) }

// String returns the claims set in diagnostic notation.
func (c ClaimsSet) String() string { return c.v.String() }

// Native returns the claims set among native Go values.
func (c ClaimsSet) Native() Claims { m, _ := c.v.Native().(map[any]any); return m }

// Len returns the number of claims.
func (c ClaimsSet) Len() int { return c.v.Size() }

// lookup returns the value of key, an integer or a string.
func (c ClaimsSet) lookup(key any) dcbor.Value {
	k, err := dcbor.FromNative(key)
	if err != nil {
		return dcbor.Value{}
	}
	return c.v.Get(k)
}

// Has reports whether the claim is there.
func (c ClaimsSet) Has(key any) bool { return c.lookup(key).Exists() }

// Get returns a claim among native Go values, and whether it is there.
func (c ClaimsSet) Get(key any) (any, bool) {
	v := c.lookup(key)
	if !v.Exists() {
		return nil, false
	}
	return v.Native(), true
}

// Text returns a claim that is a text string.
func (c ClaimsSet) Text(key any) (string, bool) { return c.lookup(key).Text() }

// Date returns a NumericDate cut to seconds, or the zero time if the claim is
// missing or no number.
func (c ClaimsSet) Date(key any) time.Time {
	v, _ := c.Get(key)
	switch n := v.(type) {
	case int64:
		return time.Unix(n, 0)
	case uint64:
		return time.Unix(int64(n), 0)
	case float64:
		return time.Unix(int64(n), 0)
	}
	return time.Time{}
}

// Raw returns a claim in core deterministic CBOR, or nil.
func (c ClaimsSet) Raw(key any) []byte {
	v := c.lookup(key)
	if !v.Exists() {
		return nil
	}
	return dcbor.Encode(v)
}
