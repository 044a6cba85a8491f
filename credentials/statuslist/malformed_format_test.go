package statuslist_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

// A rawJWT is a Status List Token whose text can be changed before and after
// it is signed. What both formats can have wrong is in malformedLists.
type rawJWT struct {
	header, payload string
	after           func(string) string
}

func newRawJWT() *rawJWT {
	lst := jose.EncodeBase64(deflate([]byte{0xb9, 0xa3}))
	return &rawJWT{
		header: `{"alg":"ES256","kid":"12","typ":"statuslist+jwt"}`,
		payload: fmt.Sprintf(`{"sub":%q,"iss":"https://example.com","iat":%d,"exp":%d,"ttl":10,"status_list":{"bits":1,"lst":%q}}`,
			exampleURI, exampleNow.Unix(), exampleNow.Unix()+100, lst),
	}
}

func (r *rawJWT) token(t testing.TB) []byte {
	t.Helper()
	s, err := jose.Sign(context.Background(), credentials.ECDSAP256, statusKey, []byte(r.header), []byte(r.payload))
	if err != nil {
		t.Fatal(err)
	}
	if r.after != nil {
		s = r.after(s)
	}
	return []byte(s)
}

// inHeader, inPayload replace text before, and afterwards after the signing.
func inHeader(from, to string) func(*rawJWT) {
	return func(r *rawJWT) { r.header = mustReplace(r.header, from, to) }
}

func inPayload(from, to string) func(*rawJWT) {
	return func(r *rawJWT) { r.payload = mustReplace(r.payload, from, to) }
}

func afterwards(f func(string) string) func(*rawJWT) { return func(r *rawJWT) { r.after = f } }

func mustReplace(s, from, to string) string {
	if !strings.Contains(s, from) {
		panic("no " + from + " in " + s)
	}
	return strings.Replace(s, from, to, 1)
}

// partOf changes one of the three parts of a JWT.
func partOf(n int, f func(string) string) func(*rawJWT) {
	return afterwards(func(s string) string {
		parts := strings.Split(s, ".")
		parts[n] = f(parts[n])
		return strings.Join(parts, ".")
	})
}

const (
	closed  = credentials.CodeStatusUnavailable
	invalid = credentials.CodeStatusInvalid
)

var malformedJWTs = []struct {
	name string
	want credentials.Code
	do   func(*rawJWT)
}{
	{"two parts", closed, afterwards(func(s string) string { return s[:strings.LastIndexByte(s, '.')] })},
	{"four parts", closed, afterwards(func(s string) string { return s + ".AA" })},
	{"five parts, as a JWE", closed, afterwards(func(s string) string { return s + ".AA.AA" })},
	{"header empty", closed, partOf(0, func(string) string { return "" })},
	{"payload empty", closed, partOf(1, func(string) string { return "" })},
	{"signature empty", closed, partOf(2, func(string) string { return "" })},
	{"padding", closed, partOf(2, func(s string) string { return s + "==" })},
	{"plain base64", closed, partOf(2, func(s string) string { return "+" + s[1:] })},
	{"spare bits", closed, partOf(2, func(s string) string { return s[:85] + "_" })},
	{"line feed inside", closed, partOf(1, func(s string) string { return s[:4] + "\n" + s[4:] })},
	{"line feed at the end", closed, afterwards(func(s string) string { return s + "\n" })},
	{"space before", closed, afterwards(func(s string) string { return " " + s })},
	{"an SD-JWT", closed, afterwards(func(s string) string { return s + "~" })},
	{"in quotes", closed, afterwards(func(s string) string { return `"` + s + `"` })},
	{"JSON serialization", closed, afterwards(func(s string) string {
		p := strings.Split(s, ".")
		return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, p[0], p[1], p[2])
	})},
	{"hexadecimal of a CWT", closed, afterwards(func(string) string { return hex.EncodeToString(unhex(exampleCWT)) })},
	{"payload of another token", invalid, partOf(1, func(string) string {
		return jose.EncodeBase64([]byte(strings.Replace(newRawJWT().payload, `"bits":1`, `"bits":2`, 1)))
	})},
	{"header of another token", invalid, partOf(0, func(string) string {
		return jose.EncodeBase64([]byte(`{"alg":"ES256","kid":"13","typ":"statuslist+jwt"}`))
	})},
	{"signature of zeros", invalid, partOf(2, func(string) string { return strings.Repeat("A", 86) })},
	{"signature of 63 octets", invalid, partOf(2, func(s string) string { return jose.EncodeBase64(make([]byte, 63)) })},
	{"signature in DER", invalid, partOf(2, func(string) string { return jose.EncodeBase64(append([]byte{0x30, 68, 2, 32}, make([]byte, 66)...)) })},

	{"header no JSON", closed, func(r *rawJWT) { r.header = "typ" }},
	{"header an array", closed, func(r *rawJWT) { r.header = "[]" }},
	{"header with something after it", closed, func(r *rawJWT) { r.header += " 1" }},
	{"header with typ twice", closed, inHeader(`"kid":"12"`, `"typ":"statuslist+jwt"`)},
	{"header not UTF-8", closed, inHeader(`"12"`, "\"\xff\"")},
	{"alg missing", closed, inHeader(`"alg":"ES256",`, "")},
	{"alg none", closed, inHeader("ES256", "none")},
	{"alg a MAC", closed, inHeader("ES256", "HS256")},
	{"alg of RSA", closed, inHeader("ES256", "PS256")},
	{"alg a number", closed, inHeader(`"ES256"`, "-7")},
	{"alg in lower case", closed, inHeader("ES256", "es256")},
	{"alg of another curve", invalid, inHeader("ES256", "ES384")},
	{"alg of another kind of key", invalid, inHeader("ES256", "EdDSA")},
	{"kid a number", closed, inHeader(`"12"`, "12")},
	{"typ null", closed, inHeader(`"statuslist+jwt"`, "null")},
	{"typ as a media type", closed, inHeader("statuslist+jwt", "application/statuslist+jwt")},
	{"typ in capitals", closed, inHeader("statuslist+jwt", "StatusList+JWT")},
	{"typ of a credential", closed, inHeader("statuslist+jwt", "dc+sd-jwt")},
	{"crit empty", closed, inHeader(`"kid":"12"`, `"crit":[]`)},
	{"crit b64", closed, inHeader(`"kid":"12"`, `"crit":["b64"],"b64":false`)},
	{"x5c no array", closed, inHeader(`"kid":"12"`, `"x5c":"AAAA"`)},
	{"x5c empty", closed, inHeader(`"kid":"12"`, `"x5c":[]`)},
	{"x5c in base64url", closed, inHeader(`"kid":"12"`, `"x5c":["-_-_"]`)},
	{"x5c of nine", closed, inHeader(`"kid":"12"`, `"x5c":["AAAA"`+strings.Repeat(`,"AAAA"`, 8)+`]`)},

	{"payload no JSON", closed, func(r *rawJWT) { r.payload = "list" }},
	{"payload an array", closed, func(r *rawJWT) { r.payload = "[" + r.payload + "]" }},
	{"payload null", closed, func(r *rawJWT) { r.payload = "null" }},
	{"payload with something after it", closed, func(r *rawJWT) { r.payload += "{}" }},
	{"payload with a byte order mark", closed, func(r *rawJWT) { r.payload = "\ufeff" + r.payload }},
	{"payload not UTF-8", closed, inPayload("https://example.com\"", "https://example.com\xff\"")},
	{"payload with a comma at the end", closed, inPayload(`}}`, `},}`)},
	{"payload deeper than any list", closed, inPayload(`{"sub"`, `{"x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`,"sub"`)},
	{"sub twice", closed, inPayload(`"iss":"https://example.com"`, `"sub":"`+exampleURI+`"`)},
	{"sub twice, once escaped", closed, inPayload(`"iss":"https://example.com"`, `"s\u0075b":"https://example.com/2"`)},
	{"sub an array", closed, inPayload(`"`+exampleURI+`"`, `["`+exampleURI+`"]`)},
	{"sub in another case", closed, inPayload(`"sub"`, `"Sub"`)},
	{"sub with an escape that is none", closed, inPayload(`"`+exampleURI, `"\x68ttps`)},
	{"iss a number", closed, inPayload(`"https://example.com"`, "1")},
	{"iat with a leading zero", closed, inPayload(`"iat":1`, `"iat":01`)},
	{"iat infinite", closed, inPayload(`"iat":1700000000`, `"iat":1e999`)},
	{"iat beyond 2^53", closed, inPayload(`"iat":1700000000`, `"iat":-9007199254740994`)},
	{"exp infinite", closed, inPayload(`"exp":1700000100`, `"exp":1e999`)},
	{"ttl null", closed, inPayload(`"ttl":10`, `"ttl":null`)},
	{"ttl of nothing", closed, inPayload(`"ttl":10`, `"ttl":0.0`)},
	{"list twice", closed, inPayload(`"ttl":10`, `"status_list":{"bits":1,"lst":"eNrbuRgAAhcBXQ"}`)},
	{"list with bits twice", closed, inPayload(`"bits":1`, `"bits":1,"bits":2`)},
	{"list with bits in text", closed, inPayload(`"bits":1`, `"bits":"1"`)},
	{"list with lst in plain base64", closed, inPayload(`"lst":"`, `"lst":"+`)},
	{"list with lst padded", closed, inPayload(`"}}`, `="}}`)},
	{"list with lst in an array", closed, inPayload(`"lst":"`, `"lst":["`)},
	{"list with aggregation_uri null", closed, inPayload(`"bits":1`, `"bits":1,"aggregation_uri":null`)},
}

// A rawCWT is the same of a CWT.
type rawCWT struct {
	protected, unprotected map[any]any
	header, payload        []byte // octets instead of the maps
	claims                 map[any]any
	signed                 []byte // instead of the payload, under the signature
	parts                  func(p []dcbor.Value) []dcbor.Value
	tag                    uint64
	after                  func([]byte) []byte
}

func newRawCWT() *rawCWT {
	return &rawCWT{
		protected: map[any]any{1: -9, 16: statuslist.MediaTypeCWT, 4: []byte("12")}, unprotected: map[any]any{},
		claims: map[any]any{2: exampleURI, 6: exampleNow.Unix(), 4: exampleNow.Unix() + 100, 65534: 10,
			65533: map[any]any{"bits": 1, "lst": deflate([]byte{0xb9, 0xa3})}},
		tag: cose.TagSign1,
	}
}

func native(t testing.TB, x any) dcbor.Value {
	t.Helper()
	v, err := dcbor.FromNative(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *rawCWT) token(t testing.TB) []byte {
	t.Helper()
	header, payload := r.header, r.payload
	if header == nil {
		header = dcbor.Encode(native(t, r.protected))
	}
	if payload == nil {
		payload = dcbor.Encode(native(t, r.claims))
	}
	signed := r.signed
	if signed == nil {
		signed = payload
	}
	tbs := dcbor.Encode(dcbor.NewArray(dcbor.NewText("Signature1"), dcbor.NewBytes(header), dcbor.NewBytes(nil), dcbor.NewBytes(signed)))
	sig, err := credentials.ECDSAP256.SignRaw(nil, statusKey, tbs)
	if err != nil {
		t.Fatal(err)
	}
	parts := []dcbor.Value{dcbor.NewBytes(header), native(t, r.unprotected), dcbor.NewBytes(payload), dcbor.NewBytes(sig)}
	if r.parts != nil {
		parts = r.parts(parts)
	}
	out := dcbor.Encode(dcbor.NewTag(r.tag, dcbor.NewArray(parts...)))
	if r.after != nil {
		out = r.after(out)
	}
	return out
}

func protected(label, value any) func(*rawCWT) {
	return func(r *rawCWT) { change(r.protected, map[any]any{label: value}) }
}

func claim(name, value any) func(*rawCWT) {
	return func(r *rawCWT) { change(r.claims, map[any]any{name: value}) }
}

func inList(name, value any) func(*rawCWT) {
	return func(r *rawCWT) { change(r.claims[65533].(map[any]any), map[any]any{name: value}) }
}

func cborAfter(f func([]byte) []byte) func(*rawCWT) { return func(r *rawCWT) { r.after = f } }

func cborParts(f func(p []dcbor.Value) []dcbor.Value) func(*rawCWT) {
	return func(r *rawCWT) { r.parts = f }
}

var malformedCWTs = []struct {
	name string
	want credentials.Code
	do   func(*rawCWT)
}{
	{"without tag", closed, cborAfter(func(b []byte) []byte { return b[1:] })},
	{"tag of COSE_Mac0", closed, func(r *rawCWT) { r.tag = 17 }},
	{"tag of COSE_Sign", closed, func(r *rawCWT) { r.tag = 98 }},
	{"tag 61 around it", closed, cborAfter(func(b []byte) []byte { return append([]byte{0xd8, 61}, b...) })},
	{"tag 18 twice", closed, cborAfter(func(b []byte) []byte { return append([]byte{0xd2}, b...) })},
	{"array of indefinite length", closed, cborAfter(func(b []byte) []byte { return append(append([]byte{0xd2, 0x9f}, b[2:]...), 0xff) })},
	{"array of three", closed, cborParts(func(p []dcbor.Value) []dcbor.Value { return p[:3] })},
	{"array of five", closed, cborParts(func(p []dcbor.Value) []dcbor.Value { return append(p, dcbor.NewNull()) })},
	{"array of none", closed, cborParts(func([]dcbor.Value) []dcbor.Value { return nil })},
	{"wrapped in a byte string", closed, cborAfter(dcbor.WrapBytes)},
	{"two tokens", closed, cborAfter(func(b []byte) []byte { return append(b, b...) })},
	{"break after it", closed, cborAfter(func(b []byte) []byte { return append(b, 0xff) })},
	{"hexadecimal", closed, cborAfter(func(b []byte) []byte { return []byte(hex.EncodeToString(b)) })},
	{"a JWT", closed, cborAfter(func([]byte) []byte { return []byte(exampleJWT) })},
	{"protected header a map", closed, cborParts(func(p []dcbor.Value) []dcbor.Value { p[0] = dcbor.NewMap(); return p })},
	{"protected header empty", closed, func(r *rawCWT) { r.header = []byte{} }},
	{"protected header an array", closed, func(r *rawCWT) { r.header = []byte{0x80} }},
	{"protected header with something after it", closed, func(r *rawCWT) { r.header = unhex("a0a0") }},
	{"protected header with a label twice", closed, func(r *rawCWT) { r.header = unhex("a301280128" + "0441" + "31") }},
	{"protected header of indefinite length", closed, func(r *rawCWT) { r.header = unhex("bf0128ff") }},
	{"unprotected header a byte string", closed, cborParts(func(p []dcbor.Value) []dcbor.Value { p[1] = dcbor.NewBytes(nil); return p })},
	{"payload nil (detached)", closed, cborParts(func(p []dcbor.Value) []dcbor.Value { p[2] = dcbor.NewNull(); return p })},
	{"payload a map", closed, cborParts(func(p []dcbor.Value) []dcbor.Value { p[2] = dcbor.NewMap(); return p })},
	{"signature text", closed, cborParts(func(p []dcbor.Value) []dcbor.Value { p[3] = dcbor.NewText("x"); return p })},
	{"signature empty", invalid, cborParts(func(p []dcbor.Value) []dcbor.Value { p[3] = dcbor.NewBytes(nil); return p })},
	{"signature of zeros", invalid, cborParts(func(p []dcbor.Value) []dcbor.Value { p[3] = dcbor.NewBytes(make([]byte, 64)); return p })},
	{"signature of 65 octets", invalid, cborParts(func(p []dcbor.Value) []dcbor.Value {
		s, _ := p[3].Bytes()
		p[3] = dcbor.NewBytes(append(s, 0))
		return p
	})},
	{"signature in DER", invalid, cborParts(func(p []dcbor.Value) []dcbor.Value {
		p[3] = dcbor.NewBytes(append([]byte{0x30, 68, 2, 32}, make([]byte, 66)...))
		return p
	})},
	{"signature of another payload", invalid, func(r *rawCWT) { r.signed = unhex("a0") }},
	{"alg missing", closed, protected(1, "none")},
	{"alg only unprotected", closed, func(r *rawCWT) { delete(r.protected, 1); r.unprotected[1] = -9 }},
	{"alg in both headers", closed, func(r *rawCWT) { r.unprotected[1] = -9 }},
	{"alg text", closed, protected(1, "ESP256")},
	{"alg a MAC", closed, protected(1, 5)},
	{"alg null", closed, protected(1, nil)},
	{"alg of another curve", invalid, protected(1, -51)},
	{"alg of another kind of key", invalid, protected(1, -19)},
	{"kid text", closed, protected(4, "12")},
	{"kid text, unprotected", closed, func(r *rawCWT) { delete(r.protected, 4); r.unprotected[4] = "12" }},
	{"kid in both headers", closed, func(r *rawCWT) { r.unprotected[4] = []byte("12") }},
	{"typ only unprotected", closed, func(r *rawCWT) { delete(r.protected, 16); r.unprotected[16] = statuslist.MediaTypeCWT }},
	{"typ without application", closed, protected(16, "statuslist+cwt")},
	{"typ in capitals", closed, protected(16, strings.ToUpper(statuslist.MediaTypeCWT))},
	{"typ a number", closed, protected(16, 293)},
	{"typ a byte string", closed, protected(16, []byte(statuslist.MediaTypeCWT))},
	{"crit unprotected", closed, func(r *rawCWT) { r.unprotected[2] = []any{1} }},
	{"crit empty", closed, protected(2, []any{})},
	{"crit of a label that is not there", closed, protected(2, []any{33})},
	{"x5chain an empty array", closed, protected(33, []any{})},
	{"x5chain an array of one", closed, protected(33, []any{[]byte{1}})},
	{"x5chain text", closed, protected(33, "x")},
	{"x5chain of nine", closed, protected(33, []any{[]byte{1}, []byte{2}, []byte{3}, []byte{4}, []byte{5}, []byte{6}, []byte{7}, []byte{8}, []byte{9}})},
	{"claims an array", closed, func(r *rawCWT) { r.payload = []byte{0x80} }},
	{"claims empty", closed, func(r *rawCWT) { r.payload = []byte{0xa0} }},
	{"claims of no octets", closed, func(r *rawCWT) { r.payload = []byte{} }},
	{"claims with something after them", closed, func(r *rawCWT) { r.payload = unhex("a000") }},
	{"claims of indefinite length", closed, func(r *rawCWT) { r.payload = unhex("bf0261 61ff") }},
	{"claims with sub twice", closed, func(r *rawCWT) { r.payload = unhex("a2026161026161") }},
	{"claims with sub twice in two encodings", closed, func(r *rawCWT) { r.payload = unhex("a202616118026161") }},
	{"claims not UTF-8", closed, func(r *rawCWT) { r.payload = unhex("a10261ff") }},
	{"claims with names as in a JWT", closed, func(r *rawCWT) {
		r.claims = map[any]any{"sub": exampleURI, "iat": exampleNow.Unix(), "status_list": r.claims[65533]}
	}},
	{"sub bytes", closed, claim(2, []byte(exampleURI))},
	{"iat tagged", closed, claim(6, dcbor.Tagged{Number: 1, Content: exampleNow.Unix()})},
	{"exp undefined", closed, claim(4, dcbor.NewSimple(23))},
	{"ttl a float", closed, claim(65534, 10.5)},
	{"list as text", closed, claim(65533, "eNrbuRgAAhcBXQ")},
	{"bits a float", closed, inList("bits", 1.0)},
	{"bits of 2^64-1", closed, inList("bits", ^uint64(0))},
	{"bits under a number", closed, func(r *rawCWT) { r.claims[65533] = map[any]any{0: 1, "lst": deflate([]byte{1})} }},
	{"lst in base64url", closed, inList("lst", "eNrbuRgAAhcBXQ")},
	{"aggregation_uri bytes", closed, inList("aggregation_uri", []byte("https://example.com"))},
}

func TestMalformedOfOneFormat(t *testing.T) {
	if j, c := len(malformedLists)+len(malformedJWTs), len(malformedLists)+len(malformedCWTs); j < 100 || c < 100 {
		t.Fatalf("only %d JWTs and %d CWTs", j, c)
	}
	judge := func(f statuslist.Format, token []byte) credentials.Code {
		_, list, err := ourRules().Verify(context.Background(), f, token, exampleURI)
		if err == nil {
			err = list.Judge(1)
		}
		return credentials.CodeOf(err)
	}
	if got := judge(statuslist.JWT, newRawJWT().token(t)); got != "" {
		t.Fatalf("the unchanged JWT: %s", got)
	}
	if got := judge(statuslist.CWT, newRawCWT().token(t)); got != "" {
		t.Fatalf("the unchanged CWT: %s", got)
	}
	for _, c := range malformedJWTs {
		t.Run("jwt/"+c.name, func(t *testing.T) {
			r := newRawJWT()
			c.do(r)
			if got := judge(statuslist.JWT, r.token(t)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	for _, c := range malformedCWTs {
		t.Run("cwt/"+c.name, func(t *testing.T) {
			r := newRawCWT()
			c.do(r)
			if got := judge(statuslist.CWT, r.token(t)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
