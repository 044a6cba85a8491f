package sdjwt_test

import (
	"context"
	"crypto"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// The key of RFC 9901 appendix A.5, which verifies every example.
const rfcIssuerJWK = `{"kty":"EC","crv":"P-256","x":"b28d4MwZMjw8-00CG4xfnn9SLMVMM19SlqZpVb_uNtQ","y":"Xv5zWwuoaTgdS6hV43yI6gBwTnjukmFQQnJ_kCxzqk8"}`

// What the examples' KB-JWTs were made for (RFC 9901 section 5.2).
const (
	rfcNonce    = "1234567890"
	rfcAudience = "https://verifier.example.org"
	rfcKBTime   = 1748537243
)

type rfcExamples struct {
	Examples []struct {
		Section   string          `json:"section"`
		Token     string          `json:"token"`
		Processed json.RawMessage `json:"processed"`
	} `json:"examples"`
	Disclosures []struct {
		Section    string `json:"section"`
		Digest     string `json:"digest"`
		Disclosure string `json:"disclosure"`
	} `json:"disclosures"`
	Payloads []struct {
		Section string          `json:"section"`
		Payload json.RawMessage `json:"payload"`
	} `json:"payloads"`
}

func loadRFC(t testing.TB) rfcExamples {
	t.Helper()
	raw, err := os.ReadFile("testdata/rfc9901/examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var all rfcExamples
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Examples) != 11 || len(all.Disclosures) != 87 || len(all.Payloads) != 12 {
		t.Fatalf("%d examples, %d disclosures, %d payloads", len(all.Examples), len(all.Disclosures), len(all.Payloads))
	}
	return all
}

func publicJWK(t testing.TB, jwk string) crypto.PublicKey {
	t.Helper()
	pub, _, err := credentials.ParseJWK([]byte(jwk))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// rfcPolicy accepts the examples at the time of their KB-JWTs.
func rfcPolicy(t testing.TB) sdjwt.Policy {
	return sdjwt.Policy{
		Issuers:   sdjwt.StaticKeys{{Public: publicJWK(t, rfcIssuerJWK)}},
		AnyType:   true,
		Audiences: []string{rfcAudience},
		Now:       func() time.Time { return time.Unix(rfcKBTime, 0) },
	}
}

func newVerifier(t testing.TB, p sdjwt.Policy) *sdjwt.Verifier {
	t.Helper()
	v, err := sdjwt.NewVerifier(p)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func hasKB(token string) bool {
	return strings.Contains(token, "kb_jwt") || token[0] != '{' && !strings.HasSuffix(token, "~")
}

func TestRFC9901Tokens(t *testing.T) {
	for _, e := range loadRFC(t).Examples {
		t.Run(e.Section, func(t *testing.T) {
			p := rfcPolicy(t)
			if !hasKB(e.Token) {
				p.KeyBinding = sdjwt.KeyBindingNotRequired
			}
			p.VC = e.Section == "A.3"
			got, err := newVerifier(t, p).Verify(context.Background(), e.Token, sdjwt.Expect{Nonce: rfcNonce})
			if err != nil {
				t.Fatal(err)
			}
			if e.Processed != nil && !got.Claims.Equal(e.Processed) {
				t.Errorf("claims are\n%s\nwant\n%s", got.Claims.JSON(), e.Processed)
			}
			if hasKB(e.Token) != (got.KeyBinding != nil) {
				t.Errorf("KeyBinding = %v", got.KeyBinding)
			}
		})
	}
}

// The same tokens under the default policy, which knows dc+sd-jwt alone.
func TestRFC9901TypeList(t *testing.T) {
	for _, e := range loadRFC(t).Examples {
		if !hasKB(e.Token) {
			continue
		}
		p := rfcPolicy(t)
		p.AnyType = false
		_, err := newVerifier(t, p).Verify(context.Background(), e.Token, sdjwt.Expect{Nonce: rfcNonce})
		want := credentials.CodeSDJWTTyp
		if e.Section == "A.3" {
			want = ""
		}
		if credentials.CodeOf(err) != want {
			t.Errorf("section %s: %v, want %q", e.Section, err, want)
		}
	}
}

func TestRFC9901Disclosures(t *testing.T) {
	for _, d := range loadRFC(t).Disclosures {
		if got := sdjwt.Digest(sdjwt.DefaultHash, d.Disclosure); got != d.Digest {
			t.Errorf("section %s: digest of %s is %s, want %s", d.Section, d.Disclosure, got, d.Digest)
		}
	}
	// Section 4.2.3 and the three further spellings of section 4.2.1.
	const want = "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"
	if got := sdjwt.Digest("sha-256", "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0"); got != want {
		t.Errorf("digest of section 4.2.3 is %s", got)
	}
	if got := sdjwt.Digest("sha-256", "WyJsa2x4RjVqTVlsR1RQVW92TU5JdkNBIiwgIkZSIl0"); got != "w0I8EKcdCtUPkGCNUrfwVp2xEgNjtoIDlOxc9-PlOhs" {
		t.Errorf("digest of section 4.2.4.2 is %s", got)
	}
	for _, text := range []string{
		"WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0",
		"WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNXHUwMGY2Yml1cyJd",
		"WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsImZhbWlseV9uYW1lIiwiTcO2Yml1cyJd",
		"WwoiXzI2YmM0TFQtYWM2cTJLSTZjQlc1ZXMiLAoiZmFtaWx5X25hbWUiLAoiTcO2Yml1cyIKXQ",
	} {
		claims := verifySigned(t, `{"_sd":["`+sdjwt.Digest("sha-256", text)+`"]}`, text)
		if !claims.Equal([]byte(`{"family_name":"Möbius"}`)) {
			t.Errorf("%s gives %s", text, claims.JSON())
		}
	}
}

// The payloads of section 6 are printed without a signature: they get one here.
func TestRFC9901NestedPayloads(t *testing.T) {
	const address = `{"street_address":"Schulstr. 12","locality":"Schulpforta","region":"Sachsen-Anhalt","country":"DE"}`
	all := loadRFC(t)
	n := 0
	for _, p := range all.Payloads {
		if !strings.HasPrefix(p.Section, "6.") {
			continue
		}
		n++
		var texts []string
		for _, d := range all.Disclosures {
			if d.Section == p.Section && !(n == 3 && strings.HasSuffix(d.Disclosure, "ImNvdW50cnkiLCAiREUiXQ")) {
				texts = append(texts, d.Disclosure)
			}
		}
		got, ok := verifySigned(t, string(p.Payload), texts...).Get("address")
		if !ok || !equalJSON(got, address) {
			t.Errorf("section %s: address is %s", p.Section, got)
		}
	}
	if n != 4 {
		t.Errorf("%d payloads in section 6, want 4", n)
	}
}

// Holder and issuer of the RFC's example choose as in section 5.2, with our
// own code on both sides of the RFC's issued token.
func TestRFC9901HolderSide(t *testing.T) {
	all := loadRFC(t)
	p := rfcPolicy(t)
	v := newVerifier(t, p)
	cred, err := v.Receive(context.Background(), all.Examples[0].Token, nil)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := cred.Present(context.Background(), sdjwt.Presentation{
		Disclose: []sdjwt.Path{{"family_name"}, {"address"}, {"given_name"}, {"nationalities", 0}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.KeyBinding = sdjwt.KeyBindingNotRequired
	got, err := newVerifier(t, p).VerifyToken(context.Background(), shown, sdjwt.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Claims.Equal(all.Examples[1].Processed) {
		t.Errorf("claims are %s", got.Claims.JSON())
	}
}
