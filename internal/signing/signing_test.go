package signing_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	_ "crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/privyseal/privyseal/internal/signing"
)

// Keys that count how they are asked.
type (
	plain   struct{ asked *string }
	message struct{ plain }
	digest  struct{ plain }
	whole   struct{ message }
)

func (plain) Public() crypto.PublicKey { return nil }

func (k plain) Sign(_ io.Reader, d []byte, _ crypto.SignerOpts) ([]byte, error) {
	*k.asked = "Sign"
	return d, nil
}

func (k message) SignMessage(_ io.Reader, m []byte, _ crypto.SignerOpts) ([]byte, error) {
	*k.asked = "SignMessage"
	return m, nil
}

func (k digest) SignContext(_ context.Context, d []byte, _ crypto.SignerOpts) ([]byte, error) {
	*k.asked = "SignContext"
	return d, nil
}

func (k whole) SignMessageContext(_ context.Context, m []byte, _ crypto.SignerOpts) ([]byte, error) {
	*k.asked = "SignMessageContext"
	return m, nil
}

func (k whole) SignContext(context.Context, []byte, crypto.SignerOpts) ([]byte, error) {
	*k.asked = "SignContext"
	return nil, nil
}

func TestTheBestWayIsTaken(t *testing.T) {
	var asked string
	p := plain{&asked}
	for _, c := range []struct {
		key  crypto.Signer
		want string
		size int // octets that the key was handed
	}{
		{p, "Sign", 32},
		{message{p}, "SignMessage", 5},
		{digest{p}, "SignContext", 32},
		{whole{message{p}}, "SignMessageContext", 5},
	} {
		got, err := signing.Message(context.Background(), c.key, []byte("hello"), crypto.SHA256)
		if err != nil || asked != c.want || len(got) != c.size {
			t.Errorf("%T was asked through %s with %d octets (%v), want %s with %d", c.key, asked, len(got), err, c.want, c.size)
		}
	}
}

func TestRealKeys(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signing.Message(context.Background(), ec, []byte("m"), crypto.SHA256)
	h := crypto.SHA256.New()
	h.Write([]byte("m"))
	if err != nil || !ecdsa.VerifyASN1(&ec.PublicKey, h.Sum(nil), sig) {
		t.Errorf("ECDSA: %v", err)
	}
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := signing.Message(context.Background(), ed, []byte("m"), 0); err != nil || !ed25519.Verify(pub, []byte("m"), sig) {
		t.Errorf("Ed25519: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := signing.Message(ctx, ed, []byte("m"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
	if _, err := signing.Message(context.Background(), ec, []byte("m"), crypto.MD4); err == nil {
		t.Error("a hash that is not there was used")
	}
}

// A reader signs what it has read.
type reader struct{ plain }

type readMessage []byte

func (m readMessage) Octets() []byte { return m }
func (m readMessage) Parsed() any    { return string(m) }

func (reader) Read(msg []byte) (signing.Read, error) { return readMessage(msg), nil }

func (reader) SignRead(_ context.Context, r signing.Read) ([]byte, bool, error) {
	return append([]byte("of "), r.Octets()...), true, nil
}

// What was read is signed, and no other message.
func TestOnlyRead(t *testing.T) {
	var asked string
	k := reader{plain{&asked}}
	read, err := k.Read([]byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	only := signing.OnlyRead(k, read)
	if sig, verified, err := signing.Verified(t.Context(), only, []byte("m"), crypto.SHA256); string(sig) != "of m" || !verified || err != nil {
		t.Errorf("%q, verified: %t, %v", sig, verified, err)
	}
	if sig, _, err := signing.Verified(t.Context(), only, []byte("n"), crypto.SHA256); err == nil {
		t.Errorf("another message was signed: %q", sig)
	}
	if asked != "" {
		t.Errorf("the key was asked by %s", asked)
	}
}
