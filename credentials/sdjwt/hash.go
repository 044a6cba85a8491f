package sdjwt

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"sort"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// DefaultHash is the hash of a token without _sd_alg (RFC 9901 section 4.1.1).
const DefaultHash = "sha-256"

// A hashAlg is a hash by its name in the IANA "Named Information Hash
// Algorithm" registry.
type hashAlg struct {
	name string
	size int
}

var hashAlgs = map[string]*hashAlg{
	"sha-256": {"sha-256", sha256.Size},
	"sha-384": {"sha-384", sha512.Size384},
	"sha-512": {"sha-512", sha512.Size},
}

// hashNames returns the supported names for messages.
func hashNames() string {
	var names []string
	for name := range hashAlgs {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// digest returns the base64url of the hash of ASCII text as transported (RFC
// 9901 section 4.2.3).
func (h *hashAlg) digest(text []byte) string {
	var out [(sha512.Size*8 + 5) / 6]byte
	return string(h.appendDigest(out[:0], text))
}

// appendDigest appends digest(text).
func (h *hashAlg) appendDigest(b, text []byte) []byte {
	switch h.size {
	case sha256.Size:
		sum := sha256.Sum256(text)
		return base64.RawURLEncoding.AppendEncode(b, sum[:])
	case sha512.Size384:
		sum := sha512.Sum384(text)
		return base64.RawURLEncoding.AppendEncode(b, sum[:])
	}
	sum := sha512.Sum512(text)
	return base64.RawURLEncoding.AppendEncode(b, sum[:])
}

// hashOf returns the hash that a payload names in _sd_alg.
func hashOf(payload *jose.Object) (*hashAlg, error) {
	name, there, ok := payload.Text("_sd_alg")
	if !there {
		name = DefaultHash
	}
	h := hashAlgs[name]
	if !ok || h == nil {
		return nil, credentials.Errorf(credentials.CodeSDAlg, "payload._sd_alg", "not a supported hash; want %s", hashNames())
	}
	return h, nil
}
