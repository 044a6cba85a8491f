package sdjwt_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/internal/jose"
)

// now is the clock of the tests.
var now = time.Unix(1_780_000_000, 0)

const (
	issuerName = "https://issuer.example"
	audience   = "https://verifier.example"
	nonce      = "n-0S6_WzA2Mj"
)

// ecKey returns a fresh key on the curve.
func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keysOfAllSchemes returns one key of each scheme by the scheme's name.
func keysOfAllSchemes(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{
		"ES256": ecKey(t, elliptic.P256()), "ES384": ecKey(t, elliptic.P384()),
		"ES512": ecKey(t, elliptic.P521()), "EdDSA": ed,
	}
}

// sign returns a JWS over payload.
func sign(t testing.TB, key crypto.Signer, header, payload string) string {
	t.Helper()
	s, err := credentials.SchemeOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := jose.Sign(context.Background(), s, key, []byte(header), []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return jwt
}

// verifySigned signs a payload, adds the disclosures, and returns the claims
// that a verifier without key binding gets.
func verifySigned(t testing.TB, payload string, disclosures ...string) sdjwt.Claims {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	token := sign(t, key, `{"alg":"ES256"}`, payload) + "~"
	for _, d := range disclosures {
		token += d + "~"
	}
	p := plainPolicy(key.Public())
	got, err := newVerifier(t, p).Verify(context.Background(), token, sdjwt.Expect{})
	if err != nil {
		t.Fatalf("%s: %v", payload, err)
	}
	return got.Claims
}

// plainPolicy is RFC 9901 alone, without key binding.
func plainPolicy(issuer crypto.PublicKey) sdjwt.Policy {
	return sdjwt.Policy{
		Issuers: sdjwt.StaticKeys{{Public: issuer}}, AnyType: true, Permanent: []string{},
		KeyBinding: sdjwt.KeyBindingNotRequired, Now: func() time.Time { return now },
	}
}

// boundPolicy is the default policy for one issuer.
func boundPolicy(issuer crypto.PublicKey) sdjwt.Policy {
	return sdjwt.Policy{
		Issuers:   sdjwt.IssuerTable{issuerName: sdjwt.StaticKeys{{Kid: "k1", Public: issuer}}},
		VC:        true,
		Audiences: []string{audience},
		Now:       func() time.Time { return now },
	}
}

func equalJSON(got []byte, want string) bool {
	a, errA := jose.ParseJSON(string(got), 1<<10)
	b, errB := jose.ParseJSON(want, 1<<10)
	return errA == nil && errB == nil && jose.Equal(a, b)
}

// decodeText decodes base64url JSON.
func decodeText(t testing.TB, text string, to any) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		t.Fatal(err)
	}
}

// decodePart decodes one part of a JWT.
func decodePart(t testing.TB, jwt string, i int, to any) {
	t.Helper()
	decodeText(t, strings.Split(jwt, ".")[i], to)
}

func rawURL(s string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(s) }
