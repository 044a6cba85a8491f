package ohttp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	labelRequest  = "message/bhttp request"
	labelResponse = "message/bhttp response"
	headerSize    = 7
)

// aeadSizes has Nk and Nn.
var aeadSizes = map[uint16][2]int{1: {16, 12}, 2: {32, 12}, 3: {32, 12}}

var hashes = map[uint16]func() hash.Hash{1: sha256.New, 2: sha512.New384, 3: sha512.New}

// header is what stands before enc, and is part of info.
func header(id uint8, kem uint16, s Suite) []byte {
	b := binary.BigEndian.AppendUint16([]byte{id}, kem)
	b = binary.BigEndian.AppendUint16(b, s.KDF)
	return binary.BigEndian.AppendUint16(b, s.AEAD)
}

func info(header []byte) []byte { return append([]byte(labelRequest+"\x00"), header...) }

// An exporter is either end of an HPKE context.
type exporter interface {
	Export(context string, length int) ([]byte, error)
}

// A Context opens or seals the response to one request.
type Context struct {
	suite  Suite
	enc    []byte
	secret []byte
}

func newContext(s Suite, enc []byte, e exporter) (*Context, error) {
	secret, err := e.Export(labelResponse, s.entropy())
	if err != nil {
		return nil, fmt.Errorf("ohttp: %w", err)
	}
	return &Context{s, enc, secret}, nil
}

// entropy is max(Nn, Nk).
func (s Suite) entropy() int { return max(aeadSizes[s.AEAD][0], aeadSizes[s.AEAD][1]) }

// SealRequest encapsulates a request for a gateway (section 4.3).
func SealRequest(c *KeyConfig, request []byte) (sealed []byte, ctx *Context, err error) {
	suite := c.Suites[0]
	kdf, err := hpke.NewKDF(suite.KDF)
	if err != nil {
		return nil, nil, err
	}
	aead, err := hpke.NewAEAD(suite.AEAD)
	if err != nil {
		return nil, nil, err
	}
	hdr := header(c.ID, c.KEM, suite)
	enc, sender, err := hpke.NewSender(c.Key, kdf, aead, info(hdr))
	if err != nil {
		return nil, nil, fmt.Errorf("ohttp: %w", err)
	}
	ct, err := sender.Seal(nil, request)
	if err != nil {
		return nil, nil, fmt.Errorf("ohttp: %w", err)
	}
	if ctx, err = newContext(suite, enc, sender); err != nil {
		return nil, nil, err
	}
	return append(append(hdr, enc...), ct...), ctx, nil
}

// A PrivateKey is a key of a gateway, with what it offers for it.
type PrivateKey struct {
	Config *KeyConfig
	Key    hpke.PrivateKey
}

// OpenRequest opens a request with the key that it names. An error is ErrKey,
// ErrMalformed or ErrOpen.
func OpenRequest(find func(id uint8) *PrivateKey, sealed []byte) (request []byte, ctx *Context, err error) {
	if len(sealed) < headerSize {
		return nil, nil, fmt.Errorf("%w: %d octets", ErrMalformed, len(sealed))
	}
	id, kem := sealed[0], binary.BigEndian.Uint16(sealed[1:])
	suite := Suite{binary.BigEndian.Uint16(sealed[3:]), binary.BigEndian.Uint16(sealed[5:])}
	key := find(id)
	if key == nil || key.Config.KEM != kem || !key.Config.offers(suite) {
		return nil, nil, ErrKey
	}
	size := publicKeySizes[kem] // Nenc is Npk in every DHKEM
	if len(sealed) < headerSize+size {
		return nil, nil, fmt.Errorf("%w: %d octets", ErrMalformed, len(sealed))
	}
	enc, ct := sealed[headerSize:headerSize+size], sealed[headerSize+size:]
	kdf, err := hpke.NewKDF(suite.KDF)
	if err != nil {
		return nil, nil, ErrKey
	}
	aead, err := hpke.NewAEAD(suite.AEAD)
	if err != nil {
		return nil, nil, ErrKey
	}
	recipient, err := hpke.NewRecipient(enc, key.Key, kdf, aead, info(sealed[:headerSize]))
	if err != nil {
		return nil, nil, ErrOpen
	}
	if request, err = recipient.Open(nil, ct); err != nil {
		return nil, nil, ErrOpen
	}
	ctx, err = newContext(suite, enc, recipient)
	return request, ctx, err
}

func (c *KeyConfig) offers(s Suite) bool {
	for _, o := range c.Suites {
		if o == s {
			return true
		}
	}
	return false
}

// responseAEAD derives the key and the nonce of a response (section 4.4): plain
// HKDF, without the labels of HPKE.
func (c *Context) responseAEAD(responseNonce []byte) (aead cipher.AEAD, nonce []byte, err error) {
	h, sizes := hashes[c.suite.KDF], aeadSizes[c.suite.AEAD]
	prk, err := hkdf.Extract(h, c.secret, append(append([]byte{}, c.enc...), responseNonce...))
	if err != nil {
		return nil, nil, err
	}
	key, err := hkdf.Expand(h, prk, "key", sizes[0])
	if err != nil {
		return nil, nil, err
	}
	if nonce, err = hkdf.Expand(h, prk, "nonce", sizes[1]); err != nil {
		return nil, nil, err
	}
	if c.suite.AEAD == 3 {
		aead, err = chacha20poly1305.New(key)
		return aead, nonce, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	aead, err = cipher.NewGCM(block)
	return aead, nonce, err
}

// SealResponse encapsulates the response to the context's request.
func (c *Context) SealResponse(response []byte) ([]byte, error) {
	nonce := make([]byte, c.suite.entropy())
	rand.Read(nonce)
	return c.sealResponse(nonce, response)
}

func (c *Context) sealResponse(responseNonce, response []byte) ([]byte, error) {
	aead, nonce, err := c.responseAEAD(responseNonce)
	if err != nil {
		return nil, fmt.Errorf("ohttp: %w", err)
	}
	return aead.Seal(responseNonce, nonce, response, nil), nil
}

// OpenResponse opens the response to the context's request.
func (c *Context) OpenResponse(sealed []byte) ([]byte, error) {
	n := c.suite.entropy()
	if len(sealed) < n {
		return nil, fmt.Errorf("%w: response of %d octets", ErrMalformed, len(sealed))
	}
	aead, nonce, err := c.responseAEAD(sealed[:n])
	if err != nil {
		return nil, fmt.Errorf("ohttp: %w", err)
	}
	response, err := aead.Open(nil, nonce, sealed[n:], nil)
	if err != nil {
		return nil, ErrOpen
	}
	return response, nil
}
