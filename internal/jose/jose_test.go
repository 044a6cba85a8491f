package jose_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

const depth = 8

func TestParseJSON(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{`null`, `null`}, {` true `, `true`}, {"\n\tfalse\r", `false`}, {`""`, `""`}, {`"aä€😀"`, `"aä€😀"`},
		{`"\u0061\u00e4\u20ac\ud83d\ude00"`, `"aä€😀"`}, {`"\"\\\/\b\f\n\r\t\u0000"`, `"\"\\/\u0008\u000c\u000a\u000d\u0009\u0000"`},
		{`0`, `0`}, {`-0`, `-0`}, {`-12.50e+07`, `-12.50e+07`}, {`1E400`, `1E400`}, {`123456789012345678901234567890`, `123456789012345678901234567890`},
		{`[]`, `[]`}, {`[ 1 , "a" , [ ] ]`, `[1,"a",[]]`}, {`{}`, `{}`}, {`{ "b" : 1 , "a" : { } }`, `{"b":1,"a":{}}`},
		{`{"a":1,"A":2,"":3}`, `{"a":1,"A":2,"":3}`}, {`"` + "\u2028\x7f" + `"`, `"` + "\u2028\x7f" + `"`},
		{strings.Repeat("[", depth) + strings.Repeat("]", depth), strings.Repeat("[", depth) + strings.Repeat("]", depth)},
	} {
		v, err := jose.ParseJSON(c.in, depth)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if got := string(jose.AppendJSON(nil, v)); got != c.out {
			t.Errorf("%s becomes %s, want %s", c.in, got, c.out)
		}
	}
}

func TestParseJSONRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing": ``, "white space": "  ", "two values": `1 2`, "comma after": `[1],`, "byte order mark": "\ufeff1",
		"vertical tab": "\v1", "no-break space": "\u00a01", "half a word": `nul`, "longer word": `nullx`, "word in capitals": `True`,
		"open array": `[1`, "open object": `{"a":1`, "comma at the end": `[1,]`, "comma at the end of an object": `{"a":1,}`,
		"comma first": `[,1]`, "no comma": `[1 2]`, "wrong bracket": `[1}`, "name without quotes": `{a:1}`, "no colon": `{"a" 1}`,
		"name a number": `{1:1}`, "single quotes": `'a'`, "comment": `/**/1`,
		"open string": `"a`, "open escape": `"\`, "unknown escape": `"\x"`, "tab in a string": "\"\t\"", "line feed in a string": "\"a\n\"",
		"NUL in a string": "\"\x00\"", "control after an escape": "\"\\n\x01\"",
		"short unicode": `"\u00e"`, "unicode not hexadecimal": `"\u00eg"`, "unicode with sign": `"\u+123"`,
		"lone high surrogate": `"\ud83d"`, "lone low surrogate": `"\ude00"`, "high surrogate and text": `"\ud83dx"`, "two high surrogates": `"\ud83d\ud83d"`,
		"not UTF-8": "\"\xff\"", "not UTF-8 after an escape": "\"\\n\xff\"", "surrogate in UTF-8": "\"\xed\xa0\x80\"", "overlong": "\"\xc0\xaf\"",
		"plus": `+1`, "leading zero": `01`, "minus alone": `-`, "point first": `.5`, "point last": `1.`, "no exponent": `1e`, "sign alone in the exponent": `1e+`,
		"hexadecimal": `0x1`, "NaN": `NaN`, "Infinity": `-Infinity`,
		"name twice": `{"a":1,"a":1}`, "name twice, escaped": `{"a":1,"\u0061":1}`, "name twice below": `[{"b":{"a":1,"a":1}}]`,
		"name twice among many": manyNames(100, 50), "too deep": strings.Repeat("[", depth+1) + strings.Repeat("]", depth+1),
		"far too deep": strings.Repeat(`{"a":`, 1<<20),
	} {
		v, err := jose.ParseJSON(in, depth)
		var syntax *jose.SyntaxError
		if err == nil || !errors.As(err, &syntax) && !errors.Is(err, jose.ErrDepth) {
			t.Errorf("%s: %v, error %v", name, v, err)
		}
		if strings.HasSuffix(name, "too deep") != errors.Is(err, jose.ErrDepth) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// manyNames returns an object of n names and then one of them again.
func manyNames(n, again int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"n%d":1,`, i)
	}
	return "{" + b.String() + fmt.Sprintf(`"n%d":1}`, again)
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`{"a":1,"b":[2]}`, `{"b":[2],"a":1}`, true}, {`1`, `1.0`, true}, {`1e2`, `100`, true}, {`-0`, `0`, true}, {`0.0`, `-0`, true}, {`1`, `2`, false}, {`1`, `"1"`, false},
		{`9007199254740993`, `9007199254740992`, false}, {`[1,2]`, `[2,1]`, false}, {`[1]`, `[1,1]`, false}, {`{"a":1}`, `{"b":1}`, false},
		{`{"a":1}`, `{"a":1,"b":1}`, false}, {`null`, `false`, false}, {`null`, `null`, true}, {`{}`, `[]`, false}, {`"a"`, `["a"]`, false},
	} {
		a, errA := jose.ParseJSON(c.a, depth)
		b, errB := jose.ParseJSON(c.b, depth)
		if errA != nil || errB != nil || jose.Equal(a, b) != c.want || jose.Equal(b, a) != c.want {
			t.Errorf("Equal(%s, %s) is not %v", c.a, c.b, c.want)
		}
	}
}

func TestBase64(t *testing.T) {
	for _, s := range []string{"", "AA", "AAA", "AAAA", "_-8"} {
		b, err := jose.DecodeBase64(s)
		if err != nil || jose.EncodeBase64(b) != s {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"A", "AB", "AAB", "AA==", "AAA=", "+/8", "A A", "AA\n", "A\rA", "AAAAA", "ÄÄ"} {
		if b, err := jose.DecodeBase64(s); err == nil {
			t.Errorf("%q is decoded as %x", s, b)
		}
	}
}

// The thumbprints of specs: RFC 8037 appendix A.3, and the P-256 key that RFC
// 9901 prints as the holder's.
func TestThumbprint(t *testing.T) {
	for _, c := range []struct{ jwk, want string }{
		{`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
		{`{"kty":"OKP","crv":"Ed25519","x":"gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q"}`, "aVBtapLd11SUVKIMGJfPzOEDuN0sXcmzJQNVT-_sKEU"},
	} {
		o, err := jose.ParseObject(c.jwk, depth)
		if err != nil {
			t.Fatal(err)
		}
		k, err := jose.ParseJWK(o)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := jose.Thumbprint(k.Key)
		if err != nil || jose.EncodeBase64(sum) != c.want {
			t.Errorf("thumbprint of %s is %s, want %s (%v)", c.jwk, jose.EncodeBase64(sum), c.want, err)
		}
	}
}

// The ECDSA P-521 key of RFC 7515 appendix A.4.1.
const rfc7515P521 = `{"kty":"EC","crv":"P-521",
	"x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qwQ6Al2S",
	"y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`

func TestParseJWKRefuses(t *testing.T) {
	const p256 = `{"kty":"EC","crv":"P-256","x":"TCAER19Zvu3OHF4j4W4vfSVoHIP1ILilDls7vCeGemc","y":"ZxjiWWbZMQGHVWKVQ4hbSIirsVfuecCE6t4jT9F2HZQ"}`
	edit := func(old, with string) string { return strings.Replace(p256, old, with, 1) }
	for name, c := range map[string]struct {
		jwk  string
		want error
	}{
		"empty":              {`{}`, jose.ErrUnsupportedKey},
		"RSA":                {`{"kty":"RSA","n":"AQAB","e":"AQAB"}`, jose.ErrUnsupportedKey},
		"symmetric":          {`{"kty":"oct","k":"AAAA"}`, jose.ErrPrivateKey},
		"private EC":         {edit("{", `{"d":"AAAA",`), jose.ErrPrivateKey},
		"private by null":    {edit("{", `{"d":null,`), jose.ErrPrivateKey},
		"private RSA prime":  {edit("{", `{"qi":"AAAA",`), jose.ErrPrivateKey},
		"kty a number":       {edit(`"EC"`, "1"), jose.ErrBadKey},
		"kid a number":       {edit("{", `{"kid":1,`), jose.ErrBadKey},
		"key_ops a string":   {edit("{", `{"key_ops":"verify",`), jose.ErrBadKey},
		"secp256k1":          {edit("P-256", "secp256k1"), jose.ErrUnsupportedKey},
		"curve in lowercase": {edit("P-256", "p-256"), jose.ErrUnsupportedKey},
		"wrong curve":        {edit("P-256", "P-384"), jose.ErrBadKey},
		"no x":               {edit(`"x"`, `"z"`), jose.ErrBadKey},
		"x a number":         {edit(`"TCAER19Zvu3OHF4j4W4vfSVoHIP1ILilDls7vCeGemc"`, "1"), jose.ErrBadKey},
		"x with padding":     {edit(`emc"`, `emc="`), jose.ErrBadKey},
		"x too long":         {edit(`"TCAE`, `"AAAATCAE`), jose.ErrBadKey},
		"x trailing bits":    {edit(`emc"`, `emd"`), jose.ErrBadKey},
		"off the curve":      {edit(`"Zxji`, `"Zxjj`), jose.ErrBadKey},
		"X25519":             {`{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, jose.ErrUnsupportedKey},
		"OKP with y":         {`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","y":"AA"}`, jose.ErrBadKey},
		"OKP too short":      {`{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`, jose.ErrBadKey},
		// One octet fewer than the field has (RFC 7518 section 6.2.1.2).
		"P-521 of 65 octets": {strings.Replace(rfc7515P521, `"Aekp`, `"6Sk`, 1), jose.ErrBadKey},
	} {
		o, err := jose.ParseObject(c.jwk, depth)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if k, err := jose.ParseJWK(o); !errors.Is(err, c.want) || k != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func allKeys(t testing.TB) []crypto.Signer {
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

func TestJWKRoundTrip(t *testing.T) {
	for _, key := range allKeys(t) {
		o, err := jose.FormatJWK(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		k, err := jose.ParseJWK(o)
		if err != nil || !credentials.SamePublicKey(k.Key, key.Public()) {
			t.Errorf("%s: %v", jose.AppendJSON(nil, o), err)
		}
	}
	if _, err := jose.FormatJWK("no key"); !errors.Is(err, jose.ErrUnsupportedKey) {
		t.Errorf("FormatJWK of a string: %v", err)
	}
}

// A coordinate with leading zeros keeps them.
func TestJWKLeadingZeros(t *testing.T) {
	for {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] != 0 {
			continue
		}
		o, err := jose.FormatJWK(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		if x, _, _ := o.Text("x"); len(x) != 43 {
			t.Errorf("x of %s has %d characters", hex.EncodeToString(point[1:33]), len(x))
		}
		return
	}
}

func TestSignAndVerify(t *testing.T) {
	for _, key := range allKeys(t) {
		s, err := credentials.SchemeOf(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		token, err := jose.Sign(context.Background(), s, key, []byte(`{"alg":"`+s.JOSE+`","kid":"k"}`), []byte(`{"a":1}`))
		if err != nil {
			t.Fatal(err)
		}
		j, err := jose.ParseCompact(token, depth)
		if err != nil {
			t.Fatal(err)
		}
		if !j.Verify(s, key.Public()) || j.Header.Alg != s.JOSE || j.Header.Kid != "k" || j.Header.HasTyp || j.Payload != `{"a":1}` {
			t.Errorf("%s: read as %+v", s, j)
		}
		j.Signature[0] ^= 1
		if j.Verify(s, key.Public()) {
			t.Errorf("%s: a changed signature verifies", s)
		}
	}
}

// RFC 7515 appendix A.3: ES256.
func TestRFC7515(t *testing.T) {
	const token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ." +
		"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	const jwk = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	j, err := jose.ParseCompact(token, depth)
	if err != nil {
		t.Fatal(err)
	}
	o, err := jose.ParseObject(jwk, depth)
	if err != nil {
		t.Fatal(err)
	}
	k, err := jose.ParseJWK(o)
	if err != nil {
		t.Fatal(err)
	}
	if !j.Verify(credentials.ECDSAP256, k.Key) {
		t.Error("the RFC's signature does not verify")
	}
}

func TestParseCompactRefuses(t *testing.T) {
	const good = "eyJhbGciOiJFUzI1NiJ9.e30.AA"
	if _, err := jose.ParseCompact(good, depth); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if i < len(good)-1 { // AA without its second A is refused like the rest
			if _, err := jose.ParseCompact(good[:i], depth); !errors.Is(err, jose.ErrMalformed) {
				t.Errorf("%q: %v", good[:i], err)
			}
		}
	}
	for _, s := range []string{"...", "..", ".e30.AA", "eyJhbGciOiJFUzI1NiJ9..AA", good + ".AA", good + ".", good + "==", "e30=.e30.AA", "bnVsbA.e30.AA"} {
		if _, err := jose.ParseCompact(s, depth); !errors.Is(err, jose.ErrMalformed) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzParseJSON: what is accepted is JSON to the standard library too, and
// survives being written and read again.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e3,"x\u00e4\ud83d\ude00",null,true,{}]}`, `[]`, `"`, `{"a":1,"a":2}`, manyNames(30, 3), "\xff", `1e999`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := jose.ParseJSON(text, 64)
		if err != nil {
			var syntax *jose.SyntaxError
			if !errors.As(err, &syntax) && !errors.Is(err, jose.ErrDepth) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !json.Valid([]byte(text)) {
			t.Fatalf("%q is no JSON", text)
		}
		out := jose.AppendJSON(nil, v)
		again, err := jose.ParseJSON(string(out), 64)
		if err != nil || !jose.Equal(v, again) || string(jose.AppendJSON(nil, again)) != string(out) {
			t.Fatalf("%q is written as %q: %v", text, out, err)
		}
	})
}

// FuzzParseJWK: an accepted key is written back as the same key.
func FuzzParseJWK(f *testing.F) {
	f.Add(rfc7515P521)
	for _, key := range allKeys(f) {
		o, err := jose.FormatJWK(key.Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(jose.AppendJSON(nil, o)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := jose.ParseObject(text, depth)
		if err != nil {
			return
		}
		k, err := jose.ParseJWK(o)
		if err != nil {
			if !errors.Is(err, jose.ErrBadKey) && !errors.Is(err, jose.ErrUnsupportedKey) && !errors.Is(err, jose.ErrPrivateKey) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		back, err := jose.FormatJWK(k.Key)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range back.Members {
			if v, ok := o.Get(m.Name); !ok || v != m.Value {
				t.Fatalf("%q of %s comes back as %v", m.Name, text, m.Value)
			}
		}
	})
}

// FuzzParseCompact: an accepted JWS is written back octet by octet.
func FuzzParseCompact(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9.e30.AA")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJFUzI1NiIsIng1YyI6WyJBQUFBIl0sImNyaXQiOlsieCJdfQ.e30.AA")
	f.Fuzz(func(t *testing.T, text string) {
		j, err := jose.ParseCompact(text, depth)
		if err != nil {
			if !errors.Is(err, jose.ErrMalformed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		header, _, _ := strings.Cut(text, ".")
		if back := header + "." + jose.EncodeBase64([]byte(j.Payload)) + "." + jose.EncodeBase64(j.Signature); back != text {
			t.Fatalf("%q is written back as %q", text, back)
		}
		if _, err := j.Header.Certificates(); err != nil && !errors.Is(err, jose.ErrMalformed) {
			t.Fatalf("untyped error %v", err)
		}
	})
}
