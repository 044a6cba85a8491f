package hsm

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// maxMessage bounds what is sent to a token in one call.
const maxMessage = 1 << 20

// A Key is a signing key on a token. ECDSA signatures are DER, Ed25519
// signatures are the 64 bytes of RFC 8032.
type Key struct {
	_      [0]func() // no ==
	token  *Token
	info   *KeyInfo
	public crypto.PublicKey
}

var (
	_ crypto.Signer        = (*Key)(nil)
	_ crypto.MessageSigner = (*Key)(nil)
)

func newKey(t *Token, info *KeyInfo) (*Key, error) {
	public, err := curveOf(info.Type).publicKey(info.Public)
	if err != nil {
		return nil, err
	}
	return &Key{token: t, info: info, public: public}, nil
}

// Info describes the key, with the attributes the module claims for it.
func (k *Key) Info() KeyInfo { return *k.info }

// URI names the key and its token.
func (k *Key) URI() URI { return k.token.KeyURI(*k.info) }

func (k *Key) String() string { return fmt.Sprintf("%s key %s", k.info.Type, k.info.Fingerprint) }

// Public is an *ecdsa.PublicKey or an ed25519.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign is SignContext without a deadline. The random source is not used.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// SignMessage is SignMessageContext without a deadline.
func (k *Key) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignMessageContext(context.Background(), msg, opts)
}

// SignContext signs a digest with ECDSA, or a message with Ed25519. The digest
// must have the length of opts.HashFunc(), or, where opts is nil or names no
// hash, of SHA-256, SHA-384 or SHA-512: tokens do not look.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.info.Type == Ed25519 {
		return k.signEd25519(ctx, digest, opts)
	}
	if err := checkDigest(digest, opts); err != nil {
		return nil, err
	}
	return k.signECDSA(ctx, digest)
}

// SignMessageContext signs a message, hashing it first for ECDSA: with
// opts.HashFunc(), or with the hash that belongs to the curve.
func (k *Key) SignMessageContext(ctx context.Context, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.info.Type == Ed25519 {
		return k.signEd25519(ctx, msg, opts)
	}
	hash := k.info.Type.hash()
	if opts != nil && opts.HashFunc() != 0 {
		hash = opts.HashFunc()
	}
	if !hash.Available() {
		return nil, fmt.Errorf("%w: hash %s is not linked into this program", ErrUnsupported, hash)
	}
	h := hash.New()
	h.Write(msg)
	digest := h.Sum(nil)
	if err := checkDigest(digest, hash); err != nil {
		return nil, err
	}
	return k.signECDSA(ctx, digest)
}

// hash is the hash that RFC 7518 section 3.4 pairs with the curve.
func (t KeyType) hash() crypto.Hash {
	switch t {
	case P384:
		return crypto.SHA384
	case P521:
		return crypto.SHA512
	}
	return crypto.SHA256
}

// checkDigest refuses what is not a digest of a known, strong hash.
func checkDigest(digest []byte, opts crypto.SignerOpts) error {
	if opts != nil && opts.HashFunc() != 0 {
		if h := opts.HashFunc(); h.Size() != len(digest) || h.Size() < 32 {
			return fmt.Errorf("%w: %d bytes for %s", ErrDigestLength, len(digest), h)
		}
		return nil
	}
	switch len(digest) {
	case 32, 48, 64:
		return nil
	}
	return fmt.Errorf("%w: %d bytes belong to none of SHA-256, SHA-384 and SHA-512", ErrDigestLength, len(digest))
}

func (k *Key) signECDSA(ctx context.Context, digest []byte) ([]byte, error) {
	size := curveOf(k.info.Type).size
	if len(digest) > size {
		digest = digest[:size] // FIPS 186-5 section 6.4.1 step 2: the leftmost bits
	}
	raw, err := k.token.backend.operate(ctx, opSign, k.info, digest)
	if err != nil {
		return nil, err
	}
	sig, err := derSignature(raw, size)
	if err != nil {
		return nil, k.badOutput(err)
	}
	return sig, nil
}

func (k *Key) signEd25519(ctx context.Context, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts != nil && opts.HashFunc() != 0 {
		return nil, fmt.Errorf("%w: Ed25519ph; sign the message and pass crypto.Hash(0)", ErrUnsupported)
	}
	if o, ok := opts.(*ed25519.Options); ok && o != nil && o.Context != "" {
		return nil, fmt.Errorf("%w: Ed25519ctx", ErrUnsupported)
	}
	if len(msg) > maxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMessageLength, len(msg), maxMessage)
	}
	sig, err := k.token.backend.operate(ctx, opSign, k.info, msg)
	if err != nil {
		return nil, err
	}
	if len(sig) != ed25519.SignatureSize {
		return nil, k.badOutput(fmt.Errorf("an Ed25519 signature of %d bytes", len(sig)))
	}
	return sig, nil
}

func (k *Key) badOutput(err error) error {
	return fmt.Errorf("hsm: token %q, key %s: %w: %w", k.token.uri.Token, k.info.name(), ErrBadOutput, err)
}

// derSignature turns r and s side by side into the DER Ecdsa-Sig-Value of
// RFC 3279 section 2.2.3.
func derSignature(raw []byte, size int) ([]byte, error) {
	if len(raw) != 2*size {
		return nil, fmt.Errorf("an ECDSA signature of %d bytes, not %d", len(raw), 2*size)
	}
	r, s := minimal(raw[:size]), minimal(raw[size:])
	if len(r) == 0 || len(s) == 0 {
		return nil, errors.New("an ECDSA signature with a zero in it")
	}
	n := derIntegerLength(r) + derIntegerLength(s)
	out := make([]byte, 0, n+3)
	out = append(out, 0x30)
	if n >= 0x80 {
		out = append(out, 0x81)
	}
	out = append(out, byte(n))
	return appendDERInteger(appendDERInteger(out, r), s), nil
}

// minimal strips leading zeros.
func minimal(p []byte) []byte {
	for len(p) > 0 && p[0] == 0 {
		p = p[1:]
	}
	return p
}

func derIntegerLength(p []byte) int { return 2 + len(p) + signPad(p) }

// signPad is 1 when an INTEGER needs a zero byte to stay positive.
func signPad(p []byte) int { return 1 - min(1, bits.LeadingZeros8(p[0])) }

func appendDERInteger(out, p []byte) []byte {
	out = append(out, 0x02, byte(len(p)+signPad(p)))
	if signPad(p) == 1 {
		out = append(out, 0)
	}
	return append(out, p...)
}
