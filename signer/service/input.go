package service

import (
	"crypto"
	"fmt"
	"hash/crc32"

	_ "crypto/sha256" // the hashes of bare digests
	_ "crypto/sha512"

	"github.com/privyseal/privyseal/signer"
)

// Limits of one request, in octets.
const (
	MaxInput       = 1 << 20  // of a typed request
	MaxCRL         = 16 << 20 // of one that is built by the caller: a CRL may be long
	MaxMACInput    = 64 << 10
	MaxIdempotency = 128
	MaxBatch       = 256
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum returns the CRC32C (Castagnoli) of the parts, one after the other.
func Checksum(parts ...[]byte) uint32 {
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum
}

// An Input is what is to be signed, as a caller gives it.
type Input struct {
	kind  kind
	label string // of MLS, name of the hash of a digest
	parts [][]byte
}

type kind uint8

const (
	kindMLS kind = iota + 1
	kindJWS
	kindCOSE
	kindOctets
	kindDigest
)

// MLS is SignContent of RFC 9420 section 5.1.2; label has no "MLS 1.0 ".
func MLS(label, content []byte) Input {
	return Input{kind: kindMLS, parts: [][]byte{label, content}}
}

// JWS is a compact JWS with two JSON objects.
func JWS(header, payload []byte) Input { return Input{kind: kindJWS, parts: [][]byte{header, payload}} }

// COSE is a COSE_Sign1.
func COSE(protected, externalAAD, payload []byte) Input {
	return Input{kind: kindCOSE, parts: [][]byte{protected, externalAAD, payload}}
}

// Octets are the to-be-signed octets of any shape.
func Octets(b []byte) Input { return Input{kind: kindOctets, parts: [][]byte{b}} }

// Digest is a bare digest; hash is "SHA-256", "SHA-384" or "SHA-512".
func Digest(hash string, digest []byte) Input {
	return Input{kind: kindDigest, label: hash, parts: [][]byte{digest}}
}

// raw reports whether nobody can look into the input.
func (in *Input) raw() bool { return in.kind == kindDigest }

// natural reports whether the standard of the input wants r || s.
func (in *Input) natural() SignatureFormat {
	if in.kind == kindJWS || in.kind == kindCOSE {
		return FormatRaw
	}
	return FormatDER
}

func (in *Input) size() (n int) {
	for _, p := range in.parts {
		n += len(p)
	}
	return n
}

// check refuses an input by its size and checksum.
func (in *Input) check(sum *uint32) error {
	if in.kind == 0 {
		return fmt.Errorf("%w: the request has no input", signer.ErrUsage)
	}
	most := MaxInput
	if in.kind == kindOctets {
		most = MaxCRL
	}
	if n := in.size(); n > most {
		return fmt.Errorf("%w: an input of %d octets is more than %d", signer.ErrUsage, n, most)
	}
	if sum != nil && Checksum(in.parts...) != *sum {
		return ErrChecksum
	}
	return nil
}

var hashes = map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}

// parse returns the request that the input stands for.
func (in *Input) parse() (*signer.Request, error) {
	p := in.parts
	switch in.kind {
	case kindMLS:
		return signer.MLSRequest(string(p[0]), p[1])
	case kindJWS:
		return signer.JWSRequest(p[0], p[1])
	case kindCOSE:
		return signer.COSERequest(p[0], p[1], p[2])
	case kindOctets:
		return signer.ParseRequest(p[0])
	}
	h, ok := hashes[in.label]
	if !ok {
		return nil, fmt.Errorf("%w: hash %q; use SHA-256, SHA-384 or SHA-512", signer.ErrUsage, clip(in.label))
	}
	return signer.DigestRequest(h, p[0])
}

// clip bounds text from outside that is quoted in an error.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
