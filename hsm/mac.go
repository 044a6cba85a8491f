package hsm

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// A MACKey is an HMAC-SHA256 key on a token.
type MACKey struct {
	_     [0]func() // no ==
	token *Token
	info  *KeyInfo
}

// Info describes the key, with the attributes the module claims for it.
func (k *MACKey) Info() KeyInfo { return *k.info }

// URI names the key and its token.
func (k *MACKey) URI() URI { return k.token.KeyURI(*k.info) }

func (k *MACKey) String() string {
	return fmt.Sprintf("%s key %s", k.info.Type, k.info.Fingerprint)
}

// MAC computes the 32 bytes of HMAC-SHA256 over data.
func (k *MACKey) MAC(ctx context.Context, data []byte) ([]byte, error) {
	if len(data) > maxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMessageLength, len(data), maxMessage)
	}
	out, err := k.token.backend.operate(ctx, opMAC, k.info, data)
	if err != nil {
		return nil, err
	}
	if len(out) != sha256.Size {
		return nil, fmt.Errorf("hsm: key %s: %w: an HMAC-SHA256 of %d bytes", k.info.name(), ErrBadOutput, len(out))
	}
	return out, nil
}

// Verify reports whether mac is the key's MAC over data, in constant time.
func (k *MACKey) Verify(ctx context.Context, data, mac []byte) (bool, error) {
	want, err := k.MAC(ctx, data)
	if err != nil {
		return false, err
	}
	return hmac.Equal(want, mac), nil
}
