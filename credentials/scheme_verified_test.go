package credentials_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/privyseal/privyseal/credentials"
)

// A wrongKey returns signatures of another key, and says what it is told to.
type wrongKey struct {
	*ecdsa.PrivateKey
	verified bool
}

func (k wrongKey) SignVerified(_ context.Context, msg []byte, _ crypto.SignerOpts) ([]byte, bool, error) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, false, err
	}
	sig, err := credentials.ECDSAP256.Sign(nil, other, msg)
	return sig, k.verified, err
}

// TestSignVerified: a signature that its key has not verified is verified, and one
// that it has is not verified again.
func TestSignVerified(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bad := errors.New("bad")
	sign := func(k crypto.Signer) error {
		_, err := credentials.ECDSAP256.SignVerified(t.Context(), k, []byte("m"), bad)
		return err
	}
	if err := sign(key); err != nil {
		t.Errorf("a good key: %v", err)
	}
	if err := sign(wrongKey{key, false}); !errors.Is(err, bad) {
		t.Errorf("a wrong signature that nobody has verified: %v", err)
	}
	if err := sign(wrongKey{key, true}); err != nil {
		t.Errorf("what the key has verified was verified again: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, k := range []crypto.Signer{key, wrongKey{key, true}} {
		if _, err := credentials.ECDSAP256.SignVerified(gone, k, []byte("m"), bad); !errors.Is(err, context.Canceled) {
			t.Errorf("%T signed for a caller who has gone: %v", k, err)
		}
	}
}
