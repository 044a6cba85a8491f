package sdcwt

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// An AEAD is an algorithm of encrypted disclosures, by its number in the IANA
// AEAD registry. The zero AEAD stands for AEAD_AES_128_GCM and is not written.
// Numbers that are allowed but not listed here stay unread.
type AEAD uint16

// The algorithms in which disclosures are encrypted and decrypted.
const (
	AES128GCM        AEAD = 1
	AES256GCM        AEAD = 2
	ChaCha20Poly1305 AEAD = 29
)

// weakAEADs have tags under 16 octets, which section 16.9 forbids.
var weakAEADs = []AEAD{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18, 19, 21, 22, 24, 25, 27, 28}

const (
	aeadTagSize   = 16
	aeadNonceSize = 12 // N_MIN of every algorithm above
)

// new returns the cipher for key, or an error if the algorithm is not one of
// ours or the key has another size than it wants.
func (a AEAD) new(key []byte) (cipher.AEAD, error) {
	want := map[AEAD]int{0: 16, AES128GCM: 16, AES256GCM: 32, ChaCha20Poly1305: 32}[a]
	if want == 0 || len(key) != want {
		return nil, fmt.Errorf("AEAD %d with a key of %d octets, want %d", a, len(key), want)
	}
	if a == ChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (a AEAD) supported() bool {
	return a == 0 || a == AES128GCM || a == AES256GCM || a == ChaCha20Poly1305
}

// aeadFrom reads the sd_aead header.
func aeadFrom(v dcbor.Value) (AEAD, error) {
	if !v.Exists() {
		return AES128GCM, nil
	}
	n, ok := v.Uint()
	if !ok || n > 1<<16-1 || slices.Contains(weakAEADs, AEAD(n)) {
		return 0, credentials.Errorf(credentials.CodeAlg, "SD-CWT header", "sd_aead is %v, want an AEAD with a tag of at least %d octets", v, aeadTagSize)
	}
	return AEAD(n), nil
}

// encrypted is one member of sd_aead_encrypted_claims:
//
//	[ nonce bstr, ciphertext bstr, tag bstr, ? key context (uint / tstr / bstr) ]
type encrypted struct {
	nonce, ciphertext, tag []byte
	context                any // uint64, string, []byte or nil
}

func readEncrypted(v dcbor.Value, where string) ([]encrypted, error) {
	if !v.Exists() {
		return nil, nil
	}
	members, ok := v.Elements()
	if !ok || len(members) == 0 {
		return nil, credentials.Errorf(credentials.CodeSDClaimsEmpty, where, "sd_aead_encrypted_claims is no array with at least one member")
	}
	list := make([]encrypted, len(members))
	for i, m := range members {
		if list[i], ok = encryptedFrom(m); !ok {
			return nil, credentials.Errorf(credentials.CodeSDClaimsEmpty, where, "an encrypted disclosure is no [nonce, ciphertext, tag, ? key context]")
		}
	}
	return list, nil
}

func encryptedFrom(v dcbor.Value) (e encrypted, ok bool) {
	parts, ok := v.Elements()
	if !ok || len(parts) < encryptedMembersMin || len(parts) > encryptedMembersMax {
		return e, false
	}
	for i, to := range []*[]byte{&e.nonce, &e.ciphertext, &e.tag} {
		if *to, ok = parts[i].Bytes(); !ok {
			return e, false
		}
	}
	if len(parts) == encryptedMembersMin {
		return e, true
	}
	switch c := parts[encryptedMembersMin]; c.Kind() {
	case dcbor.Uint:
		e.context, _ = c.Uint()
	case dcbor.Text:
		e.context, _ = c.Text()
	case dcbor.Bytes:
		e.context, _ = c.Bytes()
	default:
		return e, false
	}
	return e, true
}

// A DecryptionKeys finds the key of an encrypted disclosure by its key context
// (a uint64, a string, a []byte or nil) and its tag. ok is false when there is
// none, which is not an error: the disclosure is for somebody else.
type DecryptionKeys func(ctx context.Context, keyContext any, tag []byte) (key []byte, ok bool)

// decrypt returns the disclosures for which there is a key.
func (t *token) decrypt(ctx context.Context, keys DecryptionKeys) ([]dcbor.Value, error) {
	if keys == nil || !t.aead.supported() {
		return nil, nil
	}
	var members []dcbor.Value
	for _, e := range t.encrypted {
		key, ok := keys(ctx, e.context, e.tag)
		if !ok {
			continue
		}
		member, err := e.open(t.aead, key)
		if err != nil {
			return nil, err
		}
		members = append(members, member)
	}
	return members, nil
}

func (e *encrypted) open(a AEAD, key []byte) (dcbor.Value, error) {
	refuse := func(err error) (dcbor.Value, error) {
		return dcbor.Value{}, credentials.Errorf(credentials.CodeDisclosureDecrypt, "encrypted disclosure", "%w", err)
	}
	c, err := a.new(key)
	if err != nil {
		return refuse(err)
	}
	if len(e.nonce) != c.NonceSize() || len(e.tag) != c.Overhead() {
		return refuse(fmt.Errorf("nonce of %d and tag of %d octets, want %d and %d", len(e.nonce), len(e.tag), c.NonceSize(), c.Overhead()))
	}
	item, err := c.Open(nil, e.nonce, slices.Concat(e.ciphertext, e.tag), nil)
	if err != nil {
		return refuse(err)
	}
	member, err := dcbor.Decode(item)
	if err != nil || member.Kind() != dcbor.Bytes {
		return dcbor.Value{}, credentials.Errorf(credentials.CodeDisclosureShape, "encrypted disclosure", "the plaintext is no byte string item")
	}
	return member, nil
}

// A DisclosureKey encrypts one disclosure.
type DisclosureKey struct {
	Key     []byte
	Context any // a uint64, a string, a COSE Key Thumbprint as []byte, or nil
}

// seal encrypts the complete byte string item of a disclosure.
func (k *DisclosureKey) seal(rand io.Reader, a AEAD, item []byte) (dcbor.Value, error) {
	c, err := a.new(k.Key)
	if err != nil {
		return dcbor.Value{}, fmt.Errorf("sdcwt: %w", err)
	}
	nonce := make([]byte, aeadNonceSize)
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return dcbor.Value{}, err
	}
	sealed := c.Seal(nil, nonce, item, nil)
	at := len(sealed) - aeadTagSize
	parts := []dcbor.Value{dcbor.NewBytes(nonce), dcbor.NewBytes(sealed[:at]), dcbor.NewBytes(sealed[at:])}
	switch c := k.Context.(type) {
	case nil:
	case uint64:
		parts = append(parts, dcbor.NewUint(c))
	case string:
		parts = append(parts, dcbor.NewText(c))
	case []byte:
		parts = append(parts, dcbor.NewBytes(c))
	default:
		return dcbor.Value{}, fmt.Errorf("sdcwt: a %T is no key context", c)
	}
	return dcbor.NewArray(parts...), nil
}
