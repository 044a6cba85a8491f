package sdcwt

import (
	"crypto/sha256"
	"crypto/sha512"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A Hash is the algorithm of redacted claim hashes, by its number in the COSE
// Algorithms registry. The zero Hash stands for SHA-256 and is not written.
type Hash int64

// The hashes that are issued and accepted.
const (
	SHA256     Hash = -16
	SHA512_256 Hash = -17
	SHA384     Hash = -43
	SHA512     Hash = -44
)

// size returns the octets of a digest, or 0 if h is not supported.
func (h Hash) size() int {
	switch h {
	case SHA256, SHA512_256:
		return 32
	case SHA384:
		return 48
	case SHA512:
		return 64
	}
	return 0
}

// appendSum appends the hash of a disclosure: of the byte string item as it
// stands in sd_claims, head included.
func (h Hash) appendSum(dst, item []byte) []byte {
	switch h {
	case SHA512_256:
		d := sha512.Sum512_256(item)
		return append(dst, d[:]...)
	case SHA384:
		d := sha512.Sum384(item)
		return append(dst, d[:]...)
	case SHA512:
		d := sha512.Sum512(item)
		return append(dst, d[:]...)
	}
	d := sha256.Sum256(item)
	return append(dst, d[:]...)
}

// hashFrom reads the sd_alg header.
func hashFrom(v dcbor.Value) (Hash, error) {
	if !v.Exists() {
		return SHA256, nil
	}
	n, ok := v.Int()
	if h := Hash(n); ok && h.size() != 0 {
		return h, nil
	}
	return 0, credentials.Errorf(credentials.CodeSDAlg, "SD-CWT header", "sd_alg is %v, want -16, -17, -43 or -44", v)
}
