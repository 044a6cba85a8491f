package sdjwt

import (
	"encoding/json"

	"github.com/privyseal/privyseal/internal/jose"
)

// Claims is a claims set as it comes out of verification: _sd, "..." and
// _sd_alg are gone, and redacted claims are there only if disclosed (the
// "Processed SD-JWT Payload" of RFC 9901 section 7.1). It is read-only.
type Claims struct{ object *jose.Object }

// JSON returns the claims as a JSON object without white space. Members keep
// their order; disclosed ones follow the others of their object.
func (c Claims) JSON() []byte {
	if c.object == nil {
		return []byte("{}")
	}
	return jose.AppendJSON(nil, c.object)
}

// MarshalJSON is JSON.
func (c Claims) MarshalJSON() ([]byte, error) { return c.JSON(), nil }

// Get returns the JSON of the claim at a path without nil steps, and whether
// there is one.
func (c Claims) Get(steps ...any) (json.RawMessage, bool) {
	v, ok := c.value(steps)
	if !ok {
		return nil, false
	}
	return jose.AppendJSON(nil, v), true
}

// Text returns the claim at the path if it is a string.
func (c Claims) Text(steps ...any) (string, bool) {
	v, _ := c.value(steps)
	s, ok := v.(string)
	return s, ok
}

func (c Claims) value(steps Path) (any, bool) {
	if c.object == nil {
		return nil, false
	}
	return lookup(c.object, steps)
}

// Equal reports whether text is JSON of the same claims, whatever the order of
// members.
func (c Claims) Equal(text []byte) bool {
	const depth = 1 << 10 // of a text that the caller vouches for
	v, err := jose.ParseJSON(string(text), depth)
	if err != nil {
		return false
	}
	own := c.object
	if own == nil {
		own = new(jose.Object)
	}
	return jose.Equal(own, v)
}
