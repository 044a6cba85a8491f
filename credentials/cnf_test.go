package credentials_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"testing"

	"github.com/privyseal/privyseal/credentials"
)

// The holder of the SD-CWT examples and the Ed25519 key of 32 octets 02, as
// credentials digests print them with their jkt.
const (
	ed25519Holder    = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
	ed25519HolderJKT = "aVBtapLd11SUVKIMGJfPzOEDuN0sXcmzJQNVT-_sKEU"
	p256JWK          = `{"kty":"EC","crv":"P-256","x":"TCAER19Zvu3OHF4j4W4vfSVoHIP1ILilDls7vCeGemc","y":"ZxjiWWbZMQGHVWKVQ4hbSIirsVfuecCE6t4jT9F2HZQ"}`
)

func TestJWKThumbprintPrinted(t *testing.T) {
	key, err := hex.DecodeString(ed25519Holder)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := credentials.JWKThumbprint(ed25519.PublicKey(key))
	if got := base64.RawURLEncoding.EncodeToString(sum); err != nil || got != ed25519HolderJKT {
		t.Errorf("jkt %s, want %s (%v)", got, ed25519HolderJKT, err)
	}
	if err := credentials.MatchJWTCnf([]byte(`{"jkt":"`+ed25519HolderJKT+`"}`), key, credentials.Ed25519); err != nil {
		t.Error(err)
	}
}

func jwtCnfKeys(t *testing.T) []crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := []crypto.Signer{ed}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// Each key's two confirmations match that key and no other.
func TestMatchJWTCnf(t *testing.T) {
	keys := append(jwtCnfKeys(t), jwtCnfKeys(t)...)
	for i, key := range keys {
		full, err := credentials.JWTConfirmation(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		print, err := credentials.JWTThumbprintConfirmation(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		for n, other := range keys {
			s, err := credentials.SchemeOf(other.Public())
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := credentials.MLSPublicKey(other.Public())
			if err != nil {
				t.Fatal(err)
			}
			var wantFull, wantPrint credentials.Code
			switch {
			case n == i:
			case n%4 == i%4:
				wantFull, wantPrint = credentials.CodeCnfLeafMismatch, credentials.CodeCnfLeafMismatch
			default:
				wantFull, wantPrint = credentials.CodeCnfCurve, credentials.CodeCnfLeafMismatch
			}
			if got := credentials.CodeOf(credentials.MatchJWTCnf(full, leaf, s)); got != wantFull {
				t.Errorf("jwk of key %d with leaf %d: %q, want %q", i, n, got, wantFull)
			}
			if got := credentials.CodeOf(credentials.MatchJWTCnf(print, leaf, s)); got != wantPrint {
				t.Errorf("jkt of key %d with leaf %d: %q, want %q", i, n, got, wantPrint)
			}
		}
	}
}

func TestParseJWTCnfRefuses(t *testing.T) {
	for text, want := range map[string]credentials.Code{
		``:                            credentials.CodeMalformed,
		`[]`:                          credentials.CodeMalformed,
		`{"jwk":1,"jwk":1}`:           credentials.CodeMalformed,
		`{}`:                          credentials.CodeCnfUnsupported,
		`{"kid":"a"}`:                 credentials.CodeCnfUnsupported,
		`{"jwk":null}`:                credentials.CodeCnfUnsupported,
		`{"jkt":1}`:                   credentials.CodeCnfUnsupported,
		`{"jkt":""}`:                  credentials.CodeCnfUnsupported,
		`{"JWK":` + p256JWK + `}`:     credentials.CodeCnfUnsupported,
		`{"ckt":"` + "AAAA" + `"}`:    credentials.CodeCnfUnsupported,
		`{"jwk":{"kty":"oct"}}`:       credentials.CodeCnfCurve,
		`{"jwk":{"kty":"X","d":"A"}}`: credentials.CodeCnfPrivateKey,
		`{"jwk":` + p256JWK + `,"jkt":"` + ed25519HolderJKT + `"}`: credentials.CodeCnfUnsupported,
		`{"jwk":` + p256JWK + `,"kid":"a"}`:                        credentials.CodeCnfUnsupported,
		`{"jkt":"` + ed25519HolderJKT + `="}`:                      credentials.CodeCnfUnsupported,
	} {
		if c, err := credentials.ParseJWTCnf([]byte(text)); credentials.CodeOf(err) != want {
			t.Errorf("%s: %v, %v, want %q", text, c, err, want)
		}
	}
}

func TestMatchJWTCnfBadLeaf(t *testing.T) {
	cnf := []byte(`{"jwk":` + p256JWK + `}`)
	for _, leaf := range [][]byte{nil, {4}, make([]byte, 65), make([]byte, 33)} {
		if err := credentials.MatchJWTCnf(cnf, leaf, credentials.ECDSAP256); credentials.CodeOf(err) != credentials.CodeCnfLeafMismatch {
			t.Errorf("leaf of %d octets: %v", len(leaf), err)
		}
	}
}

func TestJWKRoundTrip(t *testing.T) {
	for _, key := range jwtCnfKeys(t) {
		text, err := credentials.FormatJWK(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		pub, s, err := credentials.ParseJWK(text)
		if err != nil || !credentials.SamePublicKey(pub, key.Public()) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, _, err := credentials.ParseJWK([]byte(`{"kty":"EC","d":"A"}`)); credentials.CodeOf(err) != credentials.CodeCnfPrivateKey {
		t.Errorf("private key: %v", err)
	}
}

func FuzzParseJWTCnf(f *testing.F) {
	f.Add(`{"jwk":` + p256JWK + `}`)
	f.Add(`{"jkt":"` + ed25519HolderJKT + `"}`)
	f.Add(`{"jwk":{"kty":"OKP","crv":"Ed25519","x":"gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q","use":"sig","key_ops":["verify"]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := credentials.ParseJWTCnf([]byte(text))
		if err != nil {
			if credentials.CodeOf(err) == "" {
				t.Fatalf("refused without a code: %v", err)
			}
			return
		}
		if (c.Key == nil) == (c.Thumbprint == nil) {
			t.Fatalf("%s gives %+v", text, c)
		}
		if c.Key == nil {
			return
		}
		back, err := credentials.JWTConfirmation(c.Key)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := credentials.ParseJWTCnf(back); err != nil || again.MatchKey(c.Key) != nil {
			t.Fatalf("%s is written back as %s: %v", text, back, err)
		}
	})
}
