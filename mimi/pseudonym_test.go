//go:build mmr

package mimi_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

func gcm(t testing.TB, fill byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(bytes.Repeat([]byte{fill}, 16))
	must(t, err)
	aead, err := cipher.NewGCM(block)
	must(t, err)
	return aead
}

func linked(t testing.TB) (*mimi.PseudonymousCredential, []byte) {
	t.Helper()
	key, public := newKey(t)
	_, leaf := newKey(t)
	p := &mimi.PseudonymousCredential{
		ClientPseudonym:    mustURI(t, "mimi://b.example/d/0b6f/1"),
		UserPseudonym:      mustURI(t, "mimi://b.example/p/0b6f"),
		SignaturePublicKey: leaf,
	}
	must(t, p.Link(t.Context(), 1, key, mls.BasicCredential([]byte(bobClient)), gcm(t, 1)))
	return p, public
}

func TestPseudonymousCredential(t *testing.T) {
	p, public := linked(t)
	b := p.Marshal()
	got, err := mimi.ParsePseudonymousCredential(b)
	must(t, err)
	if !bytes.Equal(got.Marshal(), b) {
		t.Error("encodes to other octets")
	}
	for n := range b {
		if _, err := mimi.ParsePseudonymousCredential(b[:n]); err == nil {
			t.Errorf("the first %d octets were accepted", n)
		}
	}
	if _, err := mimi.ParsePseudonymousCredential(append(b, 0)); err == nil {
		t.Error("a trailing octet was accepted")
	}
	real, check, err := got.OpenLink(gcm(t, 1))
	must(t, err)
	if string(real.Identity()) != bobClient || check(1, public) != nil {
		t.Errorf("link to %q, %v", real.Identity(), check(1, public))
	}
	_, stranger := newKey(t)
	if err := check(1, stranger); !errors.Is(err, mls.ErrBadSignature) {
		t.Errorf("another's credential: %v", err)
	}
	if _, _, err := got.OpenLink(gcm(t, 2)); err == nil {
		t.Error("opened with another key")
	}
	got.UserPseudonym = mustURI(t, "mimi://b.example/p/0b70")
	if _, _, err := got.OpenLink(gcm(t, 1)); err == nil {
		t.Error("a link was moved to another pseudonym")
	}
	got.IdentityLinkCiphertext = []byte{1}
	if _, _, err := got.OpenLink(gcm(t, 1)); err == nil {
		t.Error("a link of one octet was opened")
	}
	got.ClientPseudonym = mustURI(t, "mimi://c.example/d/0b6f/1")
	if _, err := mimi.ParsePseudonymousCredential(got.Marshal()); err == nil {
		t.Error("pseudonyms of two providers were accepted")
	}
}

func FuzzPseudonymousCredential(f *testing.F) {
	p, _ := linked(f)
	f.Add(p.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := mimi.ParsePseudonymousCredential(b); err == nil && !bytes.Equal(p.Marshal(), b) {
			t.Fatal("accepted octets have another encoding")
		}
	})
}
