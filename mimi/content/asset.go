package content

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"net/url"

	"golang.org/x/crypto/chacha20poly1305"
)

// AEAD algorithms of the IANA registry that assets may use.
const (
	AEADNone             = 0
	AEADAES128GCM        = 1 // the one that every client has
	AEADAES256GCM        = 2
	AEADChaCha20Poly1305 = 29
)

// Hash algorithms of the Named Information registry that assets may use.
const (
	HashSHA256 = hashSHA256
	HashSHA384 = 7
	HashSHA512 = 8
)

// Reasons for which an asset is refused.
var (
	ErrAssetAlgorithm = errors.New("asset uses an algorithm that this client does not have")
	ErrAssetHash      = errors.New("asset is not the one that the sender meant: its hash differs")
	ErrAssetSize      = errors.New("asset is not of the size that the sender gave")
	ErrAssetKey       = errors.New("asset does not open with the key that the sender gave")
	ErrAssetURL       = errors.New("asset is not at an https URL")
)

// SealAsset encrypts an asset with a fresh key under AES-128-GCM. It returns
// the octets to upload and a part that lacks only the URL, and that carries the
// SHA-256 hash and the size of those octets.
func SealAsset(asset []byte, contentType string) (upload []byte, part *ExternalPart, err error) {
	part = &ExternalPart{
		ContentType: contentType,
		EncAlg:      AEADAES128GCM,
		Key:         make([]byte, 16),
		Nonce:       make([]byte, 12),
		HashAlg:     HashSHA256,
	}
	rand.Read(part.Key)
	rand.Read(part.Nonce)
	aead, err := newAEAD(part.EncAlg, part.Key)
	if err != nil {
		return nil, nil, err
	}
	upload = aead.Seal(nil, part.Nonce, asset, nil)
	sum := sha256.Sum256(upload)
	part.ContentHash = sum[:]
	part.Size = uint64(len(upload))
	return upload, part, nil
}

// Open checks what was fetched from the URL against the part and decrypts it.
// The hash is of the octets fetched; a size that counts the plaintext is
// tolerated, since the draft does not say which is meant.
func (c *ExternalPart) Open(fetched []byte) ([]byte, error) {
	if err := c.checkHash(fetched); err != nil {
		return nil, err
	}
	if c.EncAlg == AEADNone {
		if c.Size != 0 && c.Size != uint64(len(fetched)) {
			return nil, ErrAssetSize
		}
		return fetched, nil
	}
	aead, err := newAEAD(c.EncAlg, c.Key)
	if err != nil {
		return nil, err
	}
	if c.Size != 0 && c.Size != uint64(len(fetched)) && c.Size+uint64(aead.Overhead()) != uint64(len(fetched)) {
		return nil, ErrAssetSize
	}
	if len(c.Nonce) != aead.NonceSize() {
		return nil, fmt.Errorf("%w: nonce of %d octets", ErrAssetKey, len(c.Nonce))
	}
	asset, err := aead.Open(nil, c.Nonce, fetched, c.AAD)
	if err != nil {
		return nil, ErrAssetKey
	}
	return asset, nil
}

// checkHash compares the hash, if the sender gave one. Encrypted content needs
// none, since the AEAD authenticates it.
func (c *ExternalPart) checkHash(fetched []byte) error {
	if len(c.ContentHash) == 0 {
		return nil
	}
	var h hash.Hash
	switch c.HashAlg {
	case HashSHA256:
		h = sha256.New()
	case HashSHA384:
		h = sha512.New384()
	case HashSHA512:
		h = sha512.New()
	default:
		return fmt.Errorf("%w: hash %d", ErrAssetAlgorithm, c.HashAlg)
	}
	h.Write(fetched)
	if !bytes.Equal(h.Sum(nil), c.ContentHash) {
		return ErrAssetHash
	}
	return nil
}

// FetchURL returns the URL to fetch the asset from. It must be an absolute
// https URL with a host and without user information.
func (c *ExternalPart) FetchURL() (*url.URL, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, ErrAssetURL
	}
	return u, nil
}

func newAEAD(alg uint16, key []byte) (cipher.AEAD, error) {
	size, known := map[uint16]int{AEADAES128GCM: 16, AEADAES256GCM: 32, AEADChaCha20Poly1305: 32}[alg]
	if !known {
		return nil, fmt.Errorf("%w: AEAD %d", ErrAssetAlgorithm, alg)
	}
	if len(key) != size {
		return nil, fmt.Errorf("%w: key of %d octets, want %d", ErrAssetKey, len(key), size)
	}
	if alg == AEADChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
