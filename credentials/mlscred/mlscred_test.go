package mlscred_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/internal/tlsvec"
)

// rfcToken is the SD-JWT+KB of RFC 9901 section 5.2.
func rfcToken(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile("../sdjwt/testdata/rfc9901/examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Examples []struct{ Section, Token string }
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	for _, e := range all.Examples {
		if sum := sha256.Sum256([]byte(e.Token)); hex.EncodeToString(sum[:]) == "08f2407c5c4975372df120a098b1efbaf5949aee0cc5092bc1d9786a34c0e543" {
			return e.Token
		}
	}
	t.Fatal("the example of section 5.2 is missing")
	return ""
}

// credential frames a body as an MLS Credential, for comparison with sizes and
// hashes that were made from the published tokens.
func credential(kind uint16, body []byte) []byte {
	var b tlsvec.Builder
	b.Uint16(kind)
	if kind == 5 {
		b.Vector(body)
	} else {
		b.Raw(body)
	}
	return b.Bytes()
}

func TestVectors(t *testing.T) {
	token := rfcToken(t)
	kbt, err := os.ReadFile("../sdcwt/testdata/draft-ietf-spice-sd-cwt/08-kbt.cbor")
	if err != nil {
		t.Fatal(err)
	}
	classic, err := mlscred.FormatSDJWT(token, false)
	if err != nil {
		t.Fatal(err)
	}
	compacted, err := mlscred.FormatSDJWT(token, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		got    []byte
		octets int
		prefix string
		sum    string
	}{
		{"sd_cwt", credential(5, kbt), 739, "000542dfd2845902", "ccda12f57a3e61b238d2a244d9d27a39aa823732693c8e7be65c97105d80d907"},
		{"sd_jwt classic", credential(6, classic), 1864, "000600474365794a", "9465a40d74310c8467ff0085f81d1c6edb7953d2f4e2c70ddd37acd3ed726717"},
		{"sd_jwt compacted", credential(6, compacted), 1484, "000601297b22616c", "cb64c8a1bad6306ba81e58e6a4c4f03311c77f38bc08ecd14b7949b29ff616a2"},
	} {
		sum := sha256.Sum256(c.got)
		if len(c.got) != c.octets || hex.EncodeToString(sum[:]) != c.sum || !strings.HasPrefix(hex.EncodeToString(c.got), c.prefix) {
			t.Errorf("%s: %d octets, sha256 %x, begins %x", c.name, len(c.got), sum, c.got[:8])
		}
	}
	for _, body := range [][]byte{classic, compacted} {
		if got, err := mlscred.ParseSDJWT(body); err != nil || got != token {
			t.Errorf("read back as %q, %v", got, err)
		}
	}
}

// Base64url that has a second spelling is not compacted, since it could not be
// written out again.
func TestCompactOnlyIfExact(t *testing.T) {
	token := rfcToken(t)
	dot := strings.IndexByte(token, '.')
	for name, odd := range map[string]string{
		"trailing bits": token[:dot-1] + "1" + token[dot:],
		"padding":       token[:dot] + "=" + token[dot:],
	} {
		body, err := mlscred.FormatSDJWT(odd, true)
		if err != nil || body[0] != 0 {
			t.Fatalf("%s: %x, %v", name, body[:1], err)
		}
		if got, err := mlscred.ParseSDJWT(body); err != nil || got != odd {
			t.Errorf("%s: read back as %q, %v", name, got, err)
		}
	}
}

func vec(parts ...[]byte) []byte {
	var b tlsvec.Builder
	for _, p := range parts {
		b.Vector(p)
	}
	return b.Bytes()
}

// malformed are bodies of sd_jwt that are refused, and why.
func malformedBodies(token string) map[string]struct {
	body []byte
	want credentials.Code
} {
	type c = struct {
		body []byte
		want credentials.Code
	}
	one := func(form byte, b []byte) []byte { return append([]byte{form}, b...) }
	m, kb := credentials.CodeMalformed, credentials.CodeKBMissing
	jwt, _, _ := strings.Cut(token, "~")
	binding := token[strings.LastIndexByte(token, '~')+1:]
	h, p, s := []byte(`{"alg":"ES256"}`), []byte(`{}`), make([]byte, 64)
	classic := func(text string) c { return c{one(0, vec([]byte(text))), m} }
	compact := func(disclosures []byte, binding string) []byte {
		return one(1, slices.Concat(vec(h, p, s), vec(disclosures), vec([]byte(binding))))
	}
	many := slices.Concat(slices.Repeat([][]byte{vec([]byte("[]"))}, 257)...)
	return map[string]c{
		"nothing":                    {nil, m},
		"form 2":                     {one(2, vec([]byte(token))), m},
		"form 255":                   {one(255, vec([]byte(token))), m},
		"form alone":                 {[]byte{0}, m},
		"compacted alone":            {[]byte{1}, m},
		"empty classic":              classic(""),
		"a tilde":                    classic("~"),
		"dots":                       classic(".."),
		"no tilde":                   classic(jwt),
		"two parts":                  classic("a.b~" + binding),
		"four parts":                 classic("a.b.c.d~" + binding),
		"binding of two parts":       classic(jwt + "~a.b"),
		"binding of four parts":      classic(jwt + "~a.b.c.d"),
		"no binding":                 {one(0, vec([]byte(jwt+"~"))), kb},
		"no binding, a disclosure":   {one(0, vec([]byte(jwt+"~WyJh~"))), kb},
		"white space":                classic(" " + token),
		"a line end":                 classic(token + "\n"),
		"a tab inside":               classic(strings.Replace(token, "~", "\t~", 1)),
		"NUL":                        classic(token + "\x00"),
		"UTF-8":                      classic(strings.Replace(token, "~", "~ü~", 1)),
		"DEL":                        classic(token + "\x7f"),
		"invalid UTF-8":              classic(token + "\xff"),
		"octet after":                {append(one(0, vec([]byte(token))), 0), m},
		"length too large":           {one(0, []byte{0x44, 0xff, 'a'}), m},
		"length of eight octets":     {one(0, []byte{0xc0, 0, 0, 0, 0, 0, 0, 1, 'a'}), m},
		"length not the shortest":    {one(0, append([]byte{0x40, 0x01}, 'a')), m},
		"too large":                  {one(0, vec(make([]byte, mlscred.MaxOctets))), m},
		"compacted, no binding":      {compact(vec([]byte("[]")), ""), kb},
		"compacted, binding decoded": {compact(nil, `{"alg":"ES256"}`), m},
		"compacted, 257 disclosures": {compact(many, binding), m},
		"compacted, octet after":     {append(compact(nil, binding), 0), m},
		"compacted, parts missing":   {one(1, vec(h, p)), m},
		"compacted, cut disclosure":  {compact([]byte{5, 'a'}, binding), m},
		"compacted, tilde in it":     {compact(nil, "a.b.c~"), kb},
		"compacted, space in it":     {compact(nil, "a.b. c"), m},
	}
}

func TestMalformed(t *testing.T) {
	token := rfcToken(t)
	for name, c := range malformedBodies(token) {
		if _, err := mlscred.ParseSDJWT(c.body); credentials.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, compact := range []bool{false, true} {
		body, err := mlscred.FormatSDJWT(token, compact)
		if err != nil {
			t.Fatal(err)
		}
		for n := range body {
			if _, err := mlscred.ParseSDJWT(body[:n]); credentials.CodeOf(err) != credentials.CodeMalformed {
				t.Fatalf("the first %d octets: %v", n, err)
			}
		}
	}
	for _, text := range []string{"", "a", "a.b.c", "a.b.c~", "a.b~c.d.e"} {
		if body, err := mlscred.FormatSDJWT(text, true); err == nil {
			t.Errorf("%q became %x", text, body)
		}
	}
	if _, err := mlscred.FormatSDJWT("a.b.c~"+strings.Repeat("x", mlscred.MaxOctets)+"~d.e.f", false); credentials.CodeOf(err) != credentials.CodeMalformed {
		t.Errorf("too large: %v", err)
	}
}

func FuzzParseSDJWT(f *testing.F) {
	token := rfcToken(f)
	for _, compact := range []bool{false, true} {
		body, err := mlscred.FormatSDJWT(token, compact)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	for _, c := range malformedBodies(token) {
		if len(c.body) < 4096 {
			f.Add(c.body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := mlscred.ParseSDJWT(body)
		if err != nil {
			if credentials.CodeOf(err) == "" {
				t.Fatalf("refused without a code: %v", err)
			}
			return
		}
		again, err := mlscred.FormatSDJWT(text, body[0] == 1)
		if err != nil && len(text) < mlscred.MaxOctets/2 {
			t.Fatalf("%q cannot be framed: %v", text, err)
		}
		if err != nil {
			return
		}
		if same, err := mlscred.ParseSDJWT(again); err != nil || same != text {
			t.Fatalf("%q became %q: %v", text, same, err)
		}
	})
}
