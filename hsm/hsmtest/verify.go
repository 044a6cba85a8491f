package hsmtest

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"github.com/privyseal/privyseal/hsm"
)

// Digest hashes a message with the hash that goes with the key's type. Ed25519
// signs messages, so they are returned as they are.
func Digest(k hsm.KeyType, msg []byte) ([]byte, crypto.Hash) {
	var hash crypto.Hash
	switch k {
	case hsm.P256:
		hash = crypto.SHA256
	case hsm.P384:
		hash = crypto.SHA384
	case hsm.P521:
		hash = crypto.SHA512
	default:
		return msg, crypto.Hash(0)
	}
	h := hash.New()
	h.Write(msg)
	return h.Sum(nil), hash
}

// Verifies reports whether sig is the key's signature of a message, by the
// standard library.
func Verifies(pub crypto.PublicKey, k hsm.KeyType, msg, sig []byte) bool {
	digest, _ := Digest(k, msg)
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(pub, msg, sig)
	}
	return false
}

// signs signs a message through crypto.Signer and verifies the result.
func signs(t testing.TB, key *hsm.Key, msg []byte) {
	t.Helper()
	if err := trySign(key, msg); err != nil {
		t.Fatalf("%s: %v", key, err)
	}
}

// trySign is signs with the error returned; a signature that does not verify
// is one.
func trySign(key *hsm.Key, msg []byte) error {
	digest, hash := Digest(key.Info().Type, msg)
	sig, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return err
	}
	if !Verifies(key.Public(), key.Info().Type, msg, sig) {
		return errWrongSignature
	}
	return nil
}

type wrongSignature struct{}

func (wrongSignature) Error() string { return "a signature left the driver that does not verify" }

var errWrongSignature error = wrongSignature{}

// peer makes a software key on the curve and returns it.
func peer(t testing.TB, c ecdh.Curve) *ecdh.PrivateKey {
	t.Helper()
	k, err := c.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
