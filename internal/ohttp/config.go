// Package ohttp is the encapsulation of Oblivious HTTP (RFC 9458): key
// configurations, and requests and responses sealed with HPKE between a client
// and a gateway, past a relay that sees neither.
//
// It carries octets; that these are Binary HTTP is its caller's business. Each
// request has an HPKE context of its own.
package ohttp

import (
	"crypto/hpke"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Media types (sections 3.2 and 4).
const (
	MediaTypeKeys     = "application/ohttp-keys"
	MediaTypeRequest  = "message/ohttp-req"
	MediaTypeResponse = "message/ohttp-res"
)

// Problems that a gateway reports before it can encapsulate (section 5.3).
const ProblemKey = "https://iana.org/assignments/http-problem-types#ohttp-key"

// Errors of requests and responses.
var (
	ErrMalformed = errors.New("ohttp: malformed message")
	ErrKey       = errors.New("ohttp: the request is for a key or an algorithm that the gateway does not have")
	ErrOpen      = errors.New("ohttp: the message does not open")
)

const (
	maxKeys   = 16
	maxSuites = 64
)

// A Suite is what is used beside the KEM.
type Suite struct {
	KDF, AEAD uint16
}

// usable reports whether we have both algorithms.
func (s Suite) usable() bool {
	_, kdfErr := hpke.NewKDF(s.KDF)
	return kdfErr == nil && aeadSizes[s.AEAD] != [2]int{} && hashes[s.KDF] != nil
}

// A KeyConfig is a public key of a gateway.
//
//	HPKE Symmetric Algorithms { HPKE KDF ID (16), HPKE AEAD ID (16) }
//	Key Config {
//	  Key Identifier (8),
//	  HPKE KEM ID (16),
//	  HPKE Public Key (Npk * 8),
//	  HPKE Symmetric Algorithms Length (16) = 4..65532,
//	  HPKE Symmetric Algorithms (32) ...,
//	}
type KeyConfig struct {
	ID     uint8
	KEM    uint16
	Key    hpke.PublicKey
	Suites []Suite
}

// publicKeySizes has Npk of the KEMs of RFC 9180 that we have.
var publicKeySizes = map[uint16]int{0x0010: 65, 0x0011: 97, 0x0012: 133, 0x0020: 32}

func (c *KeyConfig) marshal() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddUint8(c.ID)
	b.AddUint16(c.KEM)
	b.AddBytes(c.Key.Bytes())
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, s := range c.Suites {
			b.AddUint16(s.KDF)
			b.AddUint16(s.AEAD)
		}
	})
	return b.BytesOrPanic()
}

// MarshalKeys returns the encoding of a list of configurations, the preferred
// one first: each with its length before it.
func MarshalKeys(configs []*KeyConfig) []byte {
	b := cryptobyte.NewBuilder(nil)
	for _, c := range configs {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c.marshal()) })
	}
	return b.BytesOrPanic()
}

// ParseKeys decodes a list and returns the configurations that we can use, in
// their order. One of algorithms that we do not have is passed over.
func ParseKeys(b []byte) (configs []*KeyConfig, err error) {
	s := cryptobyte.String(b)
	for n := 0; !s.Empty(); n++ {
		var one cryptobyte.String
		if n == maxKeys || !s.ReadUint16LengthPrefixed(&one) {
			return nil, fmt.Errorf("%w: list of keys", ErrMalformed)
		}
		c, err := parseConfig(one)
		if err != nil {
			return nil, err
		}
		if c != nil {
			configs = append(configs, c)
		}
	}
	if len(configs) == 0 {
		return nil, fmt.Errorf("%w: no key that we can use", ErrKey)
	}
	return configs, nil
}

// parseConfig returns nil for a configuration that we cannot use.
func parseConfig(s cryptobyte.String) (*KeyConfig, error) {
	c := new(KeyConfig)
	if !s.ReadUint8(&c.ID) || !s.ReadUint16(&c.KEM) {
		return nil, fmt.Errorf("%w: key configuration", ErrMalformed)
	}
	size, known := publicKeySizes[c.KEM]
	if !known {
		return nil, nil // nor can the rest be read
	}
	var key []byte
	var suites cryptobyte.String
	if !s.ReadBytes(&key, size) || !s.ReadUint16LengthPrefixed(&suites) || !s.Empty() || suites.Empty() || len(suites)%4 != 0 || len(suites) > 4*maxSuites {
		return nil, fmt.Errorf("%w: key configuration", ErrMalformed)
	}
	kem, err := hpke.NewKEM(c.KEM)
	if err != nil {
		return nil, nil
	}
	if c.Key, err = kem.NewPublicKey(key); err != nil {
		return nil, fmt.Errorf("%w: public key", ErrMalformed)
	}
	for !suites.Empty() {
		var one Suite
		suites.ReadUint16(&one.KDF)
		suites.ReadUint16(&one.AEAD)
		if one.usable() {
			c.Suites = append(c.Suites, one)
		}
	}
	if len(c.Suites) == 0 {
		return nil, nil
	}
	return c, nil
}
