package sdcwt_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

func TestPublishedFilesAreThoseOfTheDraft(t *testing.T) {
	for name, want := range map[string]string{
		"pre08-issuer_cwt":        "310385cde4e3b49755f0ab71217729760dbfa3a45ccfd0326bcfb83c60375a6a",
		"pre08-kbt":               "27883491d8d4247d7bee9868d80f25f9cdd0eeef02b4752afb3599425a69d6a7",
		"pre08-decoy":             "a6a4aa06139a0587bed9123522c65190e2c59e23a9b58a2bee2f98c51cdecdbb",
		"pre08-nested_issuer_cwt": "aa5919e0ad787b5dd73a8f83f46f4ea00719a936ed0cb22ed93f7890855e6690",
		"pre08-nested_kbt":        "206a56a0f170feced7e6bc660c78f29c02d687e93e99b8998f4f013d9358bc46",
		"08-issuer_cwt":           "1d7a2d3fbcc41042cfce7c14c6d8cfb1aca8cbc723d4dc17104774e4ac0aa229",
		"08-kbt":                  "14fbbfce745203e4b0ddf42fa5b567bce04e2ba82eb9396d56b65c89a4dbde2c",
	} {
		if sum := sha256.Sum256(example(t, name)); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s: sha256 %x, want %s", name, sum, want)
		}
	}
}

// Validated claims sets in core deterministic encoding, with -08 sub: made from
// the draft's examples, so they prove agreement with our reading of it.
const (
	basicClaimsSHA256  = "a665b130615ca7a3ad4808705a969504fdbfd3ad2f28ad7c81f253beaf9b8ec9"
	nestedClaimsSHA256 = "9b1d19ac5f6f3aabf9ace3c45f914cf3af6c8bd451236e86dd9bb717bae39c01"
	decoyClaimsSHA256  = "8abecd096596974caa5d5194a129d4eb0374b7eba637975f02906d385fd95248"
)

func claimsSum(c sdcwt.ClaimsSet) string {
	sum := sha256.Sum256(bytes.ReplaceAll(c.CBOR(), []byte("https://device.example"), []byte("https://holder.example")))
	return hex.EncodeToString(sum[:])
}

func TestPublishedKBT(t *testing.T) {
	for name, want := range map[string]string{"pre08-kbt": basicClaimsSHA256, "08-kbt": basicClaimsSHA256, "pre08-nested_kbt": nestedClaimsSHA256} {
		t.Run(name, func(t *testing.T) {
			v := exampleVerifier()
			v.Nonce = exampleNonce
			got, err := v.Verify(context.Background(), example(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if sum := claimsSum(got.Claims); sum != want {
				t.Errorf("claims %v have sha256 %s, want %s", got.Claims, sum, want)
			}
			if got.KeyBinding.IssuedAt.Unix() != 1725244237 || got.Issuer != exampleIssuer || got.KeyBinding.Audience != exampleAud {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestPublishedIssued(t *testing.T) {
	for name, entries := range map[string]int{
		"pre08-issuer_cwt": 5, "08-issuer_cwt": 5, "pre08-decoy": 4, "08-decoy": 4,
		"pre08-nested_issuer_cwt": 15, "08-nested_issuer_cwt": 15,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := exampleHolder().Accept(context.Background(), example(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(c.Disclosures()); n != entries {
				t.Errorf("%d disclosures, want %d", n, entries)
			}
			if strings.HasSuffix(name, "decoy") && claimsSum(c.Claims()) != decoyClaimsSHA256 {
				t.Errorf("claims %v", c.Claims())
			}
		})
	}
}

// Items and hashes as printed in the draft.
var publishedHashes = map[string]string{
	"58218350bae611067bb823486797da1ebbb52f836b414243442d3132333435361901f5": "af375dc3fba1d082448642c00be7b2f7bb05c9d8fb61cfc230ddfdfb4616a693",
	"5782508de86a012b3043ae6e4457b9e1aaab801a5c5c6b90":                       "1b7fc8ecf4b1290712497d226c04b503b4aa126c603c83b75d2679c3c613f3fd",
	"581c8350ec615c3035d5a4ff2f5ae29ded683c8e62636166726567696f6e":           "0d4b8c6123f287a1698ff2db15764564a976fb742606e8fd00e2140656ba0df3",
	"528150c1069bc056e234d64f58baff8a7b776b":                                 "3f80963a1246b412d6567f2a5ca446fd19a01dd8cfc291bed69e8c575c5abfb8",
	"52815089c41c270dd06cd3517d371c9ddf2bab":                                 "eeec970897a5b9108f24f44751baedabb53a1f3d241ab6b60c9f309f114ecf88",
	"56835052da9de5dc61b33775f9348b991d3d7862636102":                         "2470fb9175b062c347ab3c3a19776d02476112a17cd7cfc9416664bc058c220b",
	"58618350483e4b3c194df6073a9c41ca9f274067":                               "", // only its beginning is printed
}

func TestPublishedHashesAreOfTheWrappedItem(t *testing.T) {
	found := map[string]bool{}
	for _, name := range []string{"08-issuer_cwt", "08-decoy", "08-nested_issuer_cwt"} {
		c, err := sdcwt.ParseCredential(example(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range c.Disclosures() {
			item := hex.EncodeToString(sdcwt.Item(d))
			if want := publishedHashes[item]; want != "" {
				found[item] = true
				if got := hex.EncodeToString(d.Hash()); got != want {
					t.Errorf("%s: hash %s, want %s", item, got, want)
				}
			}
		}
	}
	for item, hash := range publishedHashes {
		if hash != "" && !found[item] {
			t.Errorf("no example has the disclosure %s", item)
		}
	}
	bare := sha256.Sum256(unhex("8350bae611067bb823486797da1ebbb52f836b414243442d3132333435361901f5"))
	if hex.EncodeToString(bare[:]) != "d9df03da474fcb3c65771748e2e0608cf437504ecc24f450aaeacd40dd552b3f" {
		t.Error("the hash that must not match is another")
	}
}

func TestNestedHashesInAllDisclosureOrders(t *testing.T) {
	c, err := exampleHolder().Accept(context.Background(), example(t, "08-nested_issuer_cwt"))
	if err != nil {
		t.Fatal(err)
	}
	chosen := []string{"20d9bb11", "2470fb91", "7257a869", "9d151abe", "af375dc3", "c24c646b", "ca6b8516"} // figure 33
	pick := func(d *sdcwt.Disclosure) bool { return slices.Contains(chosen, hex.EncodeToString(d.Hash()[:4])) }
	token, err := c.Present(context.Background(), holderKey, sdcwt.Presentation{Audience: exampleAud, IssuedAt: exampleNow, Disclose: pick})
	if err != nil {
		t.Fatal(err)
	}
	s, err := cose.DecodeSign1(token, dcbor.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := cose.ParseSign1(s.Protected.GetInt(cose.HeaderKCWT), dcbor.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	members, _ := inner.Unprotected.GetInt(17).Elements()
	if len(members) != len(chosen) {
		t.Fatalf("%d disclosures, want %d", len(members), len(chosen))
	}
	for _, less := range []func(a, b dcbor.Value) int{ // as issued, by hash as in figure 33, and backwards
		nil,
		func(a, b dcbor.Value) int {
			x, y := sha256.Sum256(a.Raw()), sha256.Sum256(b.Raw())
			return bytes.Compare(x[:], y[:])
		},
		func(a, b dcbor.Value) int {
			x, y := sha256.Sum256(a.Raw()), sha256.Sum256(b.Raw())
			return bytes.Compare(y[:], x[:])
		},
	} {
		order := slices.Clone(members)
		if less != nil {
			slices.SortFunc(order, less)
		}
		token := signKBT(t, inner.WithUnprotected(dcbor.NewMap(dcbor.NewInt(17), dcbor.NewArray(order...))), nil)
		got, err := exampleVerifier().Verify(context.Background(), token)
		if err != nil {
			t.Fatal(err)
		}
		if sum := claimsSum(got.Claims); sum != nestedClaimsSHA256 {
			t.Errorf("claims %v have sha256 %s", got.Claims, sum)
		}
	}
}

// signKBT signs a KBT around sdcwt with the example holder's key. change, if not
// nil, may change the members of the payload.
func signKBT(t testing.TB, sdcwtOctets []byte, change func(map[any]any)) []byte {
	t.Helper()
	claims := map[any]any{3: exampleAud, 6: exampleNow.Unix()}
	if change != nil {
		change(claims)
	}
	payload, err := dcbor.FromNative(claims)
	if err != nil {
		t.Fatal(err)
	}
	protected := dcbor.NewMap(dcbor.NewInt(13), dcbor.Verbatim(sdcwtOctets), dcbor.NewInt(16), dcbor.NewInt(294))
	out, err := cose.Sign(context.Background(), holderKey, protected, dcbor.NewMap(), dcbor.Encode(payload))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOrphanIsNotPresented(t *testing.T) {
	c, err := sdcwt.ParseCredential(example(t, "08-nested_issuer_cwt"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Present(context.Background(), holderKey, sdcwt.Presentation{Audience: exampleAud, IssuedAt: exampleNow,
		Disclose: func(d *sdcwt.Disclosure) bool { return d.Parent() != nil }})
	wantCode(t, err, credentials.CodeDisclosureUnmatched)
}

// The encrypted disclosure of section 12.1.
func TestPublishedEncryptedDisclosure(t *testing.T) {
	enc, err := dcbor.FromNative([]any{[]any{unhex("95d0040fe650e5baf51c907c"),
		unhex("563a7d9f0f65d40b751fbc3fcc408e8fe27c375b60a4727b1f1e9572c07992eb5ec5a9"), unhex("9f4d37da32187528416ed7ee95e0625f")}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := cose.DecodeSign1(example(t, "08-issuer_cwt"), dcbor.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	kbt := signKBT(t, s.WithUnprotected(dcbor.NewMap(dcbor.NewInt(171), enc)), nil)
	key := unhex("a061c27a3273721e210d031863ad81b6")
	for _, c := range []struct {
		name    string
		keys    sdcwt.DecryptionKeys
		license any
		code    credentials.Code
	}{
		{"right key", func(context.Context, any, []byte) ([]byte, bool) { return key, true }, "ABCD-123456", ""},
		{"no key", func(context.Context, any, []byte) ([]byte, bool) { return nil, false }, nil, ""},
		{"nobody decrypts", nil, nil, ""},
		{"wrong key", func(context.Context, any, []byte) ([]byte, bool) { return make([]byte, 16), true }, nil, credentials.CodeDisclosureDecrypt},
		{"short key", func(context.Context, any, []byte) ([]byte, bool) { return key[:8], true }, nil, credentials.CodeDisclosureDecrypt},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := exampleVerifier()
			v.Decrypt = c.keys
			got, err := v.Verify(context.Background(), kbt)
			wantCode(t, err, c.code)
			if err != nil {
				return
			}
			if license, _ := got.Claims.Get(501); license != c.license {
				t.Errorf("claim 501 is %v, want %v", license, c.license)
			}
			if (got.Undecrypted == 0) != (c.license != nil) {
				t.Errorf("%d undecrypted", got.Undecrypted)
			}
		})
	}
}
