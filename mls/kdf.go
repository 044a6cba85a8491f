package mls

import (
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"sync"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// HKDF-Expand is what MLS does most: five times for a message, a dozen times
// for an epoch. Here it keeps its hash states, so that a call allocates its
// result and nothing else.

// A kdf computes HKDF-Expand (RFC 5869, section 2.3). It holds traces of
// secrets until it is used again.
type kdf struct {
	inner, outer hash.Hash
	pad          []byte // of the hash's block size
	sum          []byte
	info         []byte
}

// newKDFs makes the store of a hash's kdfs.
func newKDFs(newHash func() hash.Hash) *sync.Pool {
	return &sync.Pool{New: func() any {
		k := &kdf{inner: newHash(), outer: newHash(), info: make([]byte, 0, 128)}
		k.pad = make([]byte, k.inner.BlockSize())
		k.sum = make([]byte, 0, k.inner.Size())
		return k
	}}
}

// The stores of the suites' hashes.
var (
	kdfsSHA256 = newKDFs(sha256.New)
	kdfsSHA384 = newKDFs(sha512.New384)
	kdfsSHA512 = newKDFs(sha512.New)
)

// expandWithLabel fills out as ExpandWithLabel says (section 8).
func (k *kdf) expandWithLabel(secret []byte, label string, context, out []byte) {
	k.info = append(k.info[:0], byte(len(out)>>8), byte(len(out)))
	k.info = tlsvec.AppendLength(k.info, len(labelPrefix)+len(label))
	k.info = append(append(k.info, labelPrefix...), label...)
	k.info = tlsvec.AppendLength(k.info, len(context))
	k.info = append(k.info, context...)
	previous := k.sum[:0]
	for i := byte(1); len(out) > 0; i++ {
		k.key(secret)
		k.inner.Write(previous)
		k.inner.Write(k.info)
		k.pad[0] = i
		k.inner.Write(k.pad[:1])
		previous = k.mac()
		out = out[copy(out, previous):]
	}
	clear(k.sum[:cap(k.sum)])
	clear(k.pad)
	k.inner.Reset()
	k.outer.Reset()
}

// key begins an HMAC (RFC 2104).
func (k *kdf) key(secret []byte) {
	k.inner.Reset()
	if len(secret) > len(k.pad) {
		k.inner.Write(secret)
		secret = k.inner.Sum(nil)
		k.inner.Reset()
	}
	clear(k.pad)
	copy(k.pad, secret)
	k.mask(0x36)
	k.inner.Write(k.pad)
	k.mask(0x36 ^ 0x5c)
	k.outer.Reset()
	k.outer.Write(k.pad)
}

func (k *kdf) mask(b byte) {
	for i := range k.pad {
		k.pad[i] ^= b
	}
}

// mac ends it.
func (k *kdf) mac() []byte {
	k.outer.Write(k.inner.Sum(k.sum[:0]))
	return k.outer.Sum(k.sum[:0])
}
