package sdjwt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// A hostile case spoils a good token, or the policy, in one way.
type hostile struct {
	name  string
	code  credentials.Code
	spoil func(f *forger, p *sdjwt.Policy)
}

// part replaces the i-th dot-separated part of the Issuer-signed JWT.
func part(i int, with func(string) string) func(string) string {
	return func(token string) string {
		jwt, rest, _ := strings.Cut(token, "~")
		parts := strings.Split(jwt, ".")
		parts[i] = with(parts[i])
		return strings.Join(parts, ".") + "~" + rest
	}
}

// looser returns s with its last character changed in the bits that carry
// nothing: a second spelling of the same octets.
func looser(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(s)%4 == 0 {
		panic("no spare bits")
	}
	last := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + string(alphabet[last|1])
}

func nested(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }

func lists(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// form: rows 1 and 2.
var hostileForm = []hostile{
	{"empty", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = func(string) string { return "" } }},
	{"no tilde", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.edit = func(s string) string { jwt, _, _ := strings.Cut(s, "~"); return jwt }
	}},
	{"only a tilde", credentials.CodeKBMissing, func(f *forger, _ *sdjwt.Policy) { f.edit = func(string) string { return "~" } }},
	{"only tildes", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = func(string) string { return "~~~" } }},
	{"no KB-JWT", credentials.CodeKBMissing, func(f *forger, _ *sdjwt.Policy) { f.noKB = true }},
	{"last tilde missing", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.noKB, f.edit = true, func(s string) string { return strings.TrimSuffix(s, "~") }
	}},
	{"empty Disclosure", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.edit = func(s string) string { return strings.Replace(s, "~", "~~", 1) }
	}},
	{"leading tilde", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = func(s string) string { return "~" + s } }},
	{"too long", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.payload.add("fill", `"`+strings.Repeat("x", 64<<10)+`"`)
	}},
	{"too many Disclosures", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		for i := range 256 {
			f.redact(fmt.Sprintf("c%d", i), "1")
		}
	}},
	{"Disclosures beyond a small limit", credentials.CodeMalformed, func(f *forger, p *sdjwt.Policy) {
		p.Limits.Disclosures = 1
		f.redact("b", "1")
	}},
	{"JWT of two parts", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.edit = func(s string) string { return strings.Replace(s, ".", "", 1) }
	}},
	{"JWT of four parts", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.edit = func(s string) string { return "AA." + s }
	}},
	{"empty header", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = part(0, func(string) string { return "" }) }},
	{"empty payload", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = part(1, func(string) string { return "" }) }},
	{"empty signature", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = part(2, func(string) string { return "" }) }},
	{"padding on the signature", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = part(2, func(s string) string { return s + "==" }) }},
	{"padding on the payload", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = part(1, func(s string) string { return s + "=" }) }},
	{"trailing bits in the signature", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = part(2, looser) }},
	{"plus sign of plain base64", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = part(2, func(s string) string { return "+" + s[1:] }) }},
	{"slash of plain base64", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = part(2, func(s string) string { return "/" + s[1:] }) }},
	{"line feed in the payload", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.edit = part(1, func(s string) string { return s[:8] + "\n" + s[8:] })
	}},
	{"carriage return in the signature", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.edit = part(2, func(s string) string { return s[:8] + "\r" + s[8:] })
	}},
	{"white space around", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = func(s string) string { return " " + s } }},
	{"line feed at the end", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = func(s string) string { return s + "\n" } }},
	{"NUL at the end", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = func(s string) string { return s + "\x00" } }},

	{"header is no JSON", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.headerText = `{"alg":` }},
	{"header is an array", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.headerText = `["alg","ES256"]` }},
	{"header with data after it", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.headerText = f.header.String() + "{}" }},
	{"header with alg twice", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.header.add("alg", `"ES256"`) }},
	{"header with escaped alg twice", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.headerText = `{"alg":"ES256","\u0061lg":"none","typ":"dc+sd-jwt"}`
	}},
	{"header too deep", credentials.CodeDepth, func(f *forger, _ *sdjwt.Policy) { f.header.add("x", nested(16)) }},
	{"header not UTF-8", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.header.add("x", "\"\xff\"") }},
	{"alg is a number", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", "256") }},
	{"kid is a number", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.header.set("kid", "1") }},
	{"typ is null", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.header.set("typ", "null") }},
	{"no alg", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.del("alg") }},
	{"alg none", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `"none"`) }},
	{"alg None", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `"None"`) }},
	{"alg HS256", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `"HS256"`) }},
	{"alg RS256", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `"RS256"`) }},
	{"alg ES256K", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `"ES256K"`) }},
	{"alg in lower case", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `"es256"`) }},
	{"alg empty", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `""`) }},
	{"alg of another curve", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `"ES384"`) }},
	{"alg of another kind of key", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.header.set("alg", `"EdDSA"`) }},
	{"alg that the policy leaves out", credentials.CodeAlg, func(_ *forger, p *sdjwt.Policy) { p.Algorithms = []string{"EdDSA"} }},
	{"alg in the name of another case", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) {
		f.header.del("alg")
		f.header.add("Alg", `"ES256"`)
	}},
	{"crit unknown", credentials.CodeCrit, func(f *forger, _ *sdjwt.Policy) {
		f.header.add("crit", `["exp"]`)
		f.header.add("exp", "1")
	}},
	{"crit b64", credentials.CodeCrit, func(f *forger, _ *sdjwt.Policy) {
		f.header.add("crit", `["b64"]`)
		f.header.add("b64", "false")
	}},
	{"crit empty", credentials.CodeCrit, func(f *forger, _ *sdjwt.Policy) { f.header.add("crit", `[]`) }},
	{"crit of a known name", credentials.CodeCrit, func(f *forger, _ *sdjwt.Policy) { f.header.add("crit", `["alg"]`) }},
	{"crit is a string", credentials.CodeCrit, func(f *forger, _ *sdjwt.Policy) { f.header.add("crit", `"x"`) }},
	{"typ missing", credentials.CodeSDJWTTyp, func(f *forger, _ *sdjwt.Policy) { f.header.del("typ") }},
	{"typ of the old draft", credentials.CodeSDJWTTyp, func(f *forger, _ *sdjwt.Policy) { f.header.set("typ", `"vc+sd-jwt"`) }},
	{"typ JWT", credentials.CodeSDJWTTyp, func(f *forger, _ *sdjwt.Policy) { f.header.set("typ", `"JWT"`) }},
	{"typ of a KB-JWT", credentials.CodeSDJWTTyp, func(f *forger, _ *sdjwt.Policy) { f.header.set("typ", `"kb+jwt"`) }},
	{"typ of a KB-JWT where any is accepted", credentials.CodeSDJWTTyp, func(f *forger, p *sdjwt.Policy) {
		p.VC, p.AnyType = false, true
		f.header.set("typ", `"application/KB+JWT"`)
	}},
	{"typ in another case", credentials.CodeSDJWTTyp, func(f *forger, _ *sdjwt.Policy) { f.header.set("typ", `"DC+SD-JWT"`) }},
}

// issuer and payload: rows 3 and 4.
var hostileIssuer = []hostile{
	{"unknown iss", credentials.CodeIssuerUnknown, func(f *forger, _ *sdjwt.Policy) { f.payload.set("iss", `"https://other.example"`) }},
	{"iss with a slash more", credentials.CodeIssuerUnknown, func(f *forger, _ *sdjwt.Policy) { f.payload.set("iss", `"`+issuerName+`/"`) }},
	{"iss in another case", credentials.CodeIssuerUnknown, func(f *forger, _ *sdjwt.Policy) { f.payload.set("iss", `"https://ISSUER.example"`) }},
	{"no iss", credentials.CodeIssuerUnknown, func(f *forger, _ *sdjwt.Policy) { f.payload.del("iss") }},
	{"iss is a list", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("iss", `["`+issuerName+`"]`) }},
	{"unknown kid", credentials.CodeIssuerKey, func(f *forger, _ *sdjwt.Policy) { f.header.set("kid", `"k2"`) }},
	{"no kid among two keys", credentials.CodeIssuerKey, func(f *forger, p *sdjwt.Policy) {
		f.header.del("kid")
		keys := sdjwt.StaticKeys{{Kid: "a", Public: f.issuer.Public()}, {Kid: "b", Public: f.holder.Public()}}
		p.Issuers = sdjwt.IssuerTable{issuerName: keys}
	}},
	{"x5c is empty", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.header.add("x5c", `[]`) }},
	{"x5c is base64url", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.header.add("x5c", `["-_-_"]`) }},
	{"x5c has nine certificates", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.header.add("x5c", `["AAAA"`+strings.Repeat(`,"AAAA"`, 8)+`]`)
	}},
	{"signed by another key", credentials.CodeIssuerSignature, func(f *forger, _ *sdjwt.Policy) { f.issuer = ecKey(f.t, elliptic.P256()) }},
	{"signed by the holder", credentials.CodeIssuerSignature, func(f *forger, _ *sdjwt.Policy) { f.issuer = f.holder }},
	{"signature of zeros", credentials.CodeIssuerSignature, func(f *forger, _ *sdjwt.Policy) {
		f.edit = part(2, func(string) string { return strings.Repeat("A", 86) })
	}},
	{"signature in DER", credentials.CodeIssuerSignature, func(f *forger, _ *sdjwt.Policy) {
		key := f.issuer.(*ecdsa.PrivateKey)
		f.edit = func(s string) string {
			i := strings.LastIndexByte(s[:strings.IndexByte(s, '~')], '.')
			der, err := credentials.ECDSAP256.Sign(nil, key, []byte(s[:i]))
			if err != nil {
				f.t.Fatal(err)
			}
			return part(2, func(string) string { return b64(string(der)) })(s)
		}
	}},
	{"signature too short", credentials.CodeIssuerSignature, func(f *forger, _ *sdjwt.Policy) { f.edit = part(2, func(s string) string { return s[:84] }) }},
	{"signature too long", credentials.CodeIssuerSignature, func(f *forger, _ *sdjwt.Policy) { f.edit = part(2, func(s string) string { return s[:84] + "AAAA" }) }},
	{"payload changed after signing", credentials.CodeIssuerSignature, func(f *forger, _ *sdjwt.Policy) {
		f.edit = part(1, func(string) string { return b64(f.payload.String()) })
	}},
	{"payload is no JSON", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payloadText = "hello" }},
	{"payload is an array", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payloadText = "[]" }},
	{"payload is null", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payloadText = "null" }},
	{"payload with data after it", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payloadText = f.payload.String() + "1" }},
	{"payload with a byte order mark", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payloadText = "\ufeff" + f.payload.String() }},
	{"claim twice", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payload.add("exp", "9999999999") }},
	{"claim twice deep below", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `[{"b":{"c":1,"c":1}}]`) }},
	{"claim twice among many", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		for i := range 100 {
			f.payload.add(fmt.Sprintf("c%d", i), "1")
		}
		f.payload.add("c50", "1")
	}},
	{"depth 17 of objects", credentials.CodeDepth, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", nested(16)) }},
	{"depth 17 of arrays", credentials.CodeDepth, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", lists(16)) }},
	{"depth of thousands", credentials.CodeDepth, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", lists(10_000)) }},
	{"lone surrogate", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `"\ud800"`) }},
	{"surrogates in the wrong order", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `"\udc00\ud800"`) }},
	{"payload not UTF-8", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", "\"\xc3\x28\"") }},
	{"leading zero of a number", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", "01") }},
	{"NaN", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "NaN") }},
	{"Infinity", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "Infinity") }},
	{"_sd_alg unknown", credentials.CodeSDAlg, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd_alg", `"sha-1"`) }},
	{"_sd_alg truncated hash", credentials.CodeSDAlg, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd_alg", `"sha-256-64"`) }},
	{"_sd_alg in the other spelling", credentials.CodeSDAlg, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd_alg", `"SHA-256"`) }},
	{"_sd_alg empty", credentials.CodeSDAlg, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd_alg", `""`) }},
	{"_sd_alg not a string", credentials.CodeSDAlg, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd_alg", "256") }},
	{"_sd_alg below the top", credentials.CodeSDAlg, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `{"_sd_alg":"sha-256"}`) }},
	{"_sd_alg below a claim without name", credentials.CodeSDAlg, func(f *forger, _ *sdjwt.Policy) { f.payload.add("", `{"_sd_alg":"sha-256"}`) }},
	{"_sd_alg below the top in a Disclosure", credentials.CodeSDAlg, func(f *forger, _ *sdjwt.Policy) {
		f.redact("a", `{"_sd_alg":"sha-256"}`)
	}},
}

// disclosures: rows 5 to 8.
var hostileDisclosures = []hostile{
	{"_sd is a string", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd", `"`+f.sd[0]+`"`); f.sd = nil }},
	{"_sd is an object", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd", `{}`); f.sd = nil }},
	{"_sd has a number", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd", `["`+f.sd[0]+`",1]`); f.sd = nil }},
	{"_sd has null", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `{"_sd":[null]}`) }},
	{"_sd in a VC without digests", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) {
		f.sd, f.disclosures = nil, nil
		f.payload.add("_sd", "[]")
	}},
	{"dots with a number", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `[{"...":1}]`) }},
	{"dots with a neighbour", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `[{"...":"x","b":1}]`) }},
	{"dots outside an array", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `{"...":"x"}`) }},
	{"dots at the top", credentials.CodeHashShape, func(f *forger, _ *sdjwt.Policy) { f.payload.add("...", `"x"`) }},
	{"digest twice in one _sd", credentials.CodeHashDuplicate, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.sd[0]) }},
	{"decoy twice", credentials.CodeHashDuplicate, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, "decoy", "decoy") }},
	{"digest twice in two objects", credentials.CodeHashDuplicate, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `{"_sd":["`+f.sd[0]+`"]}`) }},
	{"decoy in _sd and in an array", credentials.CodeHashDuplicate, func(f *forger, _ *sdjwt.Policy) {
		f.sd = append(f.sd, "decoy")
		f.payload.add("a", `[{"...":"decoy"}]`)
	}},
	{"decoy twice in an array", credentials.CodeHashDuplicate, func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `[{"...":"x"},{"...":"x"}]`) }},
	{"digest again inside a Disclosure", credentials.CodeHashDuplicate, func(f *forger, _ *sdjwt.Policy) { f.redact("a", `{"_sd":["`+f.sd[0]+`"]}`) }},
	{"Disclosure sent twice", credentials.CodeDisclosureDuplicate, func(f *forger, _ *sdjwt.Policy) { f.disclosures = append(f.disclosures, f.disclosures[0]) }},
	{"Disclosure not base64url", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.disclosures = append(f.disclosures, "not!base64") }},
	{"Disclosure with padding", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.disclosures[0] += "=" }},
	{"Disclosure with trailing bits", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		text := b64(`["s","a",10]`) // 12 octets leave no spare bits, 13 do
		if len(text)%4 == 0 {
			text = b64(`["s","a",100]`)
		}
		f.disclosures = append(f.disclosures, looser(text))
		f.sd = append(f.sd, sdjwt.Digest(f.hash, looser(text)))
	}},
	{"Disclosure is no JSON", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose("hello")) }},
	{"Disclosure with a claim twice", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.redact("a", `{"b":1,"b":2}`) }},
	{"Disclosure too deep", credentials.CodeDepth, func(f *forger, _ *sdjwt.Policy) { f.redact("a", nested(16)) }},
	{"Disclosures too deep together", credentials.CodeDepth, func(f *forger, _ *sdjwt.Policy) {
		inner := f.disclose(`["s","x",` + nested(8) + `]`)
		f.redact("a", strings.Repeat(`{"b":`, 9)+`{"_sd":["`+inner+`"]}`+strings.Repeat("}", 9))
	}},
	{"Disclosure is an object", credentials.CodeDisclosureShape, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose(`{"a":1}`)) }},
	{"Disclosure of one", credentials.CodeDisclosureShape, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose(`["s"]`)) }},
	{"Disclosure of four", credentials.CodeDisclosureShape, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose(`["s","a",1,2]`)) }},
	{"Disclosure of an element in _sd", credentials.CodeDisclosureShape, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose(`["s",1]`)) }},
	{"Disclosure of a property in an array", credentials.CodeDisclosureShape, func(f *forger, _ *sdjwt.Policy) {
		f.payload.add("a", `[{"...":"`+f.disclose(`["s","n",1]`)+`"}]`)
	}},
	{"salt is a number", credentials.CodeDisclosureShape, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose(`[1,"a",1]`)) }},
	{"salt of an element is null", credentials.CodeDisclosureShape, func(f *forger, _ *sdjwt.Policy) {
		f.payload.add("a", `[{"...":"`+f.disclose(`[null,1]`)+`"}]`)
	}},
	{"name is a number", credentials.CodeDisclosureShape, func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose(`["s",1,1]`)) }},
	{"name _sd", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.redact("_sd", `[]`) }},
	{"name dots", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.redact("...", `"x"`) }},
	{"name _sd_alg", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.redact("_sd_alg", `"sha-512"`) }},
	{"name _sd below the top", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) {
		f.payload.add("a", `{"_sd":["`+f.disclose(`["s","_sd",["x"]]`)+`"]}`)
	}},
	{"name is there already", credentials.CodeDisclosureKeyCollision, func(f *forger, _ *sdjwt.Policy) { f.payload.add("given_name", `"Eve"`) }},
	{"name twice among Disclosures", credentials.CodeDisclosureKeyCollision, func(f *forger, _ *sdjwt.Policy) { f.redact("given_name", `"Eve"`) }},
	{"name is there already below the top", credentials.CodeDisclosureKeyCollision, func(f *forger, _ *sdjwt.Policy) {
		f.payload.add("a", `{"b":1,"_sd":["`+f.disclose(`["s","b",2]`)+`"]}`)
	}},
	{"Disclosure that nothing refers to", credentials.CodeDisclosureUnmatched, func(f *forger, _ *sdjwt.Policy) { f.disclose(`["s","a",1]`) }},
	{"Disclosure without the one it stands in", credentials.CodeDisclosureUnmatched, func(f *forger, _ *sdjwt.Policy) {
		inner := f.disclose(`["s","x",1]`)
		f.redact("a", `{"_sd":["`+inner+`"]}`)
		f.disclosures = f.disclosures[:len(f.disclosures)-1]
	}},
	{"Disclosure spelt otherwise than signed", credentials.CodeDisclosureUnmatched, func(f *forger, _ *sdjwt.Policy) {
		f.disclosures[0] = b64(`["salt-of-128-bits-0", "given_name", "Ada"]`)
	}},
	{"digest in hexadecimal", credentials.CodeDisclosureUnmatched, func(f *forger, _ *sdjwt.Policy) { f.sd = []string{strings.Repeat("ab", 32)} }},
	{"digests of another hash", credentials.CodeDisclosureUnmatched, func(f *forger, _ *sdjwt.Policy) { f.payload.add("_sd_alg", `"sha-512"`) }},
	{"disclosed iss", credentials.CodeIssuerUnknown, func(f *forger, _ *sdjwt.Policy) { f.payload.del("iss"); f.redact("iss", `"`+issuerName+`"`) }},
	{"disclosed aud", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.redact("aud", `"`+audience+`"`) }},
	{"disclosed exp", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.payload.del("exp"); f.redact("exp", "9999999999") }},
	{"disclosed nbf", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.redact("nbf", "1") }},
	{"disclosed iat", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.payload.del("iat"); f.redact("iat", "1") }},
	{"disclosed cnf", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) {
		f.payload.del("cnf")
		f.redact("cnf", `{"jwk":{}}`)
	}},
	{"disclosed status", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.redact("status", `{}`) }},
	{"disclosed vct", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.payload.del("vct"); f.redact("vct", `"urn:x"`) }},
	{"disclosed vct#integrity", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.redact("vct#integrity", `"sha256-x"`) }},
	{"disclosed aka_vcts", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) { f.redact("aka_vcts", `["urn:x"]`) }},
	{"disclosed element of aka_vcts", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) {
		f.payload.add("aka_vcts", `["urn:y",{"...":"`+f.disclose(`["s","urn:x"]`)+`"}]`)
	}},
	{"disclosed member of cnf", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) {
		f.payload.set("cnf", `{"_sd":["`+f.disclose(`["s","jwk",{}]`)+`"]}`)
	}},
	{"disclosed deep inside cnf", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) {
		f.payload.set("cnf", `{"jwk":{"kty":"EC","_sd":["`+f.disclose(`["s","crv","P-256"]`)+`"]}}`)
	}},
	{"disclosed member of status", credentials.CodeDisclosureForbiddenKey, func(f *forger, _ *sdjwt.Policy) {
		f.payload.add("status", `{"_sd":["`+f.disclose(`["s","status_list",{}]`)+`"]}`)
	}},
}

func TestHostile(t *testing.T) {
	issuer, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	n := 0
	for _, group := range [][]hostile{hostileForm, hostileIssuer, hostileDisclosures, hostileClaims, hostileBinding} {
		for _, c := range group {
			n++
			t.Run(c.name, func(t *testing.T) {
				f, p := newForger(t, issuer, holder), boundPolicy(issuer.Public())
				c.spoil(f, &p)
				_, err := newVerifier(t, p).Verify(context.Background(), f.token(), sdjwt.Expect{Nonce: nonce})
				if got := credentials.CodeOf(err); got != c.code {
					t.Errorf("error %v, want code %q", err, c.code)
				}
			})
		}
	}
	if n < 150 {
		t.Errorf("only %d cases", n)
	}
}
