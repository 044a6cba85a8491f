package sdjwt_test

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// claims and times: row 9, and the rules of SD-JWT VC.
var hostileClaims = []hostile{
	{"expired", credentials.CodeExpired, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", fmt.Sprint(now.Unix()-121)) }},
	{"expires now with exact clocks", credentials.CodeExpired, func(f *forger, p *sdjwt.Policy) {
		p.Skew = sdjwt.Exactly
		f.payload.set("exp", fmt.Sprint(now.Unix()))
	}},
	{"exp negative", credentials.CodeExpired, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "-1") }},
	{"exp zero", credentials.CodeExpired, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "0") }},
	{"exp negative and huge", credentials.CodeExpired, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "-1e300") }},
	{"exp not finite", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "1e400") }},
	{"exp not finite below", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "-1e400") }},
	{"exp is a string", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", `"1999999999"`) }},
	{"exp is null", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "null") }},
	{"exp is true", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "true") }},
	{"exp is a list", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "[1999999999]") }},
	{"nbf later", credentials.CodeNotYetValid, func(f *forger, _ *sdjwt.Policy) { f.payload.add("nbf", fmt.Sprint(now.Unix()+121)) }},
	{"nbf huge", credentials.CodeNotYetValid, func(f *forger, _ *sdjwt.Policy) { f.payload.add("nbf", "9223372036854775808") }},
	{"nbf a string", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("nbf", `"1"`) }},
	{"iat later", credentials.CodeIssuedInFuture, func(f *forger, _ *sdjwt.Policy) { f.payload.set("iat", fmt.Sprint(now.Unix()+121)) }},
	{"iat an object", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("iat", "{}") }},
	{"required exp missing", credentials.CodeClaimMissing, func(f *forger, p *sdjwt.Policy) {
		p.Required = []string{"exp"}
		f.payload.del("exp")
	}},
	{"required claim withheld", credentials.CodeClaimMissing, func(f *forger, p *sdjwt.Policy) {
		p.Required = []string{"given_name"}
		f.disclosures = nil
	}},
	{"sub a number", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("sub", "42") }},
	{"jti a number", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("jti", "42") }},
	{"aud of others", credentials.CodeAudience, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aud", `"https://other.example"`) }},
	{"aud of others, listed", credentials.CodeAudience, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aud", `["a","b"]`) }},
	{"aud empty list", credentials.CodeAudience, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aud", `[]`) }},
	{"aud a number", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aud", `1`) }},
	{"aud with our entry withheld", credentials.CodeAudience, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aud", `["a",{"...":"x"}]`) }},
	{"no vct", credentials.CodeClaimMissing, func(f *forger, _ *sdjwt.Policy) { f.payload.del("vct") }},
	{"vct empty", credentials.CodeClaimMissing, func(f *forger, _ *sdjwt.Policy) { f.payload.set("vct", `""`) }},
	{"vct a list", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.set("vct", `["urn:example:vct"]`) }},
	{"vct not wanted", credentials.CodePolicy, func(_ *forger, p *sdjwt.Policy) { p.VCTs = []string{"urn:example:other"} }},
	{"vct#integrity a number", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("vct#integrity", "1") }},
	{"aka_vcts empty", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aka_vcts", "[]") }},
	{"aka_vcts a string", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aka_vcts", `"urn:x"`) }},
	{"aka_vcts of numbers", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aka_vcts", `[1]`) }},
	{"aka_vcts with the vct", credentials.CodeClaimsConflict, func(f *forger, _ *sdjwt.Policy) { f.payload.add("aka_vcts", `["urn:example:vct"]`) }},
	{"status a string", credentials.CodeClaimType, func(f *forger, _ *sdjwt.Policy) { f.payload.add("status", `"ok"`) }},
	{"status that nobody checks", credentials.CodePolicy, func(f *forger, _ *sdjwt.Policy) {
		f.payload.add("status", `{"status_list":{"idx":1,"uri":"https://s.example"}}`)
	}},
	{"revoked", credentials.CodeRevoked, func(f *forger, p *sdjwt.Policy) {
		f.payload.add("status", `{"status_list":{"idx":1,"uri":"https://s.example"}}`)
		p.Status = func(_ context.Context, ref sdjwt.StatusReference) error {
			if ref.Issuer != issuerName || string(ref.Status) != `{"status_list":{"idx":1,"uri":"https://s.example"}}` {
				return fmt.Errorf("status of %q is %s", ref.Issuer, ref.Status)
			}
			return credentials.Errorf(credentials.CodeRevoked, "status", "revoked")
		}
	}},
}

const otherJWK = `{"kty":"EC","crv":"P-256","x":"TCAER19Zvu3OHF4j4W4vfSVoHIP1ILilDls7vCeGemc","y":"ZxjiWWbZMQGHVWKVQ4hbSIirsVfuecCE6t4jT9F2HZQ"}`

func cnf(value string) func(*forger, *sdjwt.Policy) {
	return func(f *forger, _ *sdjwt.Policy) { f.payload.set("cnf", value) }
}

// key binding: rows 10 to 12.
var hostileBinding = []hostile{
	{"no cnf", credentials.CodeClaimMissing, func(f *forger, _ *sdjwt.Policy) { f.payload.del("cnf") }},
	{"cnf null", credentials.CodeCnfUnsupported, cnf("null")},
	{"cnf a string", credentials.CodeCnfUnsupported, cnf(`"key"`)},
	{"cnf empty", credentials.CodeCnfUnsupported, cnf(`{}`)},
	{"cnf kid", credentials.CodeCnfUnsupported, cnf(`{"kid":"holder"}`)},
	{"cnf jku", credentials.CodeCnfUnsupported, cnf(`{"jku":"https://holder.example/jwks"}`)},
	{"cnf x5t#S256", credentials.CodeCnfUnsupported, cnf(`{"x5t#S256":"AAAA"}`)},
	{"cnf ckt", credentials.CodeCnfUnsupported, cnf(`{"ckt":"g0PXPN_LgfLHzRGl8xe-jrNOSAfsjJzrKCSVz_3wN-A"}`)},
	{"cnf with two methods", credentials.CodeCnfUnsupported, cnf(`{"jwk":` + otherJWK + `,"jkt":"WRQ2RbY5RYJCIxfDQL9agl9fFSCYVu4Xocqb6zerc1M"}`)},
	{"cnf with a kid beside the key", credentials.CodeCnfUnsupported, cnf(`{"jwk":` + otherJWK + `,"kid":"holder"}`)},
	{"cnf with two keys, loosely", credentials.CodeCnfUnsupported, func(f *forger, p *sdjwt.Policy) {
		p.LooseCnf = true
		f.payload.set("cnf", `{"jwk":`+otherJWK+`,"jku":"https://holder.example/jwks"}`)
	}},
	{"jkt whose key nobody knows", credentials.CodeCnfUnsupported, cnf(`{"jkt":"WRQ2RbY5RYJCIxfDQL9agl9fFSCYVu4Xocqb6zerc1M"}`)},
	{"jkt too short", credentials.CodeCnfUnsupported, cnf(`{"jkt":"AAAA"}`)},
	{"jwk a string", credentials.CodeCnfUnsupported, cnf(`{"jwk":"key"}`)},
	{"jwk with d", credentials.CodeCnfPrivateKey, cnf(`{"jwk":` + strings.Replace(otherJWK, "{", `{"d":"AAAA",`, 1) + `}`)},
	{"jwk symmetric", credentials.CodeCnfPrivateKey, cnf(`{"jwk":{"kty":"oct","k":"AAAA"}}`)},
	{"jwk with d where nobody needs it", credentials.CodeCnfPrivateKey, func(f *forger, p *sdjwt.Policy) {
		p.KeyBinding = sdjwt.KeyBindingNotRequired
		f.payload.set("cnf", `{"jwk":`+strings.Replace(otherJWK, "{", `{"d":"AAAA",`, 1)+`}`)
	}},
	{"jwk RSA", credentials.CodeCnfCurve, cnf(`{"jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"}}`)},
	{"jwk secp256k1", credentials.CodeCnfCurve, cnf(`{"jwk":` + strings.Replace(otherJWK, "P-256", "secp256k1", 1) + `}`)},
	{"jwk of another curve", credentials.CodeCnfCurve, cnf(`{"jwk":` + strings.Replace(otherJWK, "P-256", "P-384", 1) + `}`)},
	{"jwk off the curve", credentials.CodeCnfCurve, cnf(`{"jwk":` + strings.Replace(otherJWK, `"Zxji`, `"Zxjj`, 1) + `}`)},
	{"jwk without y", credentials.CodeCnfCurve, cnf(`{"jwk":{"kty":"EC","crv":"P-256","x":"TCAER19Zvu3OHF4j4W4vfSVoHIP1ILilDls7vCeGemc"}}`)},
	{"jwk with a short coordinate", credentials.CodeCnfCurve, cnf(`{"jwk":` + strings.Replace(otherJWK, `"TCAER19Z`, `"ER19Z`, 1) + `}`)},
	{"jwk of the point at zero", credentials.CodeCnfCurve, cnf(`{"jwk":{"kty":"EC","crv":"P-256","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}}`)},
	{"jwk for encryption", credentials.CodeCnfCurve, cnf(`{"jwk":` + strings.Replace(otherJWK, "{", `{"use":"enc",`, 1) + `}`)},
	{"jwk that may only sign", credentials.CodeCnfCurve, cnf(`{"jwk":` + strings.Replace(otherJWK, "{", `{"key_ops":["sign"],`, 1) + `}`)},
	{"jwk for another alg", credentials.CodeCnfCurve, cnf(`{"jwk":` + strings.Replace(otherJWK, "{", `{"alg":"ES384",`, 1) + `}`)},
	{"KB-JWT for another key", credentials.CodeKBTSignature, cnf(`{"jwk":` + otherJWK + `}`)},

	{"KB-JWT by another key", credentials.CodeKBTSignature, func(f *forger, _ *sdjwt.Policy) { f.holder = ecKey(f.t, elliptic.P256()) }},
	{"KB-JWT by the issuer", credentials.CodeKBTSignature, func(f *forger, _ *sdjwt.Policy) { f.holder = f.issuer }},
	{"KB-JWT of two parts", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.edit = func(s string) string { return s[:strings.LastIndexByte(s, '.')] }
	}},
	{"KB-JWT is a Disclosure", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) {
		f.noKB, f.edit = true, func(s string) string { return s + f.disclosures[0] }
	}},
	{"KB-JWT malformed though not required", credentials.CodeMalformed, func(f *forger, p *sdjwt.Policy) {
		p.KeyBinding = sdjwt.KeyBindingNotRequired
		f.noKB, f.edit = true, func(s string) string { return s + "garbage" }
	}},
	{"KB-JWT with trailing bits", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.edit = looser }},
	{"KB-JWT alg none", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.kbHeader.set("alg", `"none"`) }},
	{"KB-JWT alg HS256", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.kbHeader.set("alg", `"HS256"`) }},
	{"KB-JWT alg of another curve", credentials.CodeAlg, func(f *forger, _ *sdjwt.Policy) { f.kbHeader.set("alg", `"ES512"`) }},
	{"KB-JWT crit", credentials.CodeCrit, func(f *forger, _ *sdjwt.Policy) { f.kbHeader.add("crit", `["x"]`) }},
	{"KB-JWT typ JWT", credentials.CodeKBTTyp, func(f *forger, _ *sdjwt.Policy) { f.kbHeader.set("typ", `"JWT"`) }},
	{"KB-JWT typ missing", credentials.CodeKBTTyp, func(f *forger, _ *sdjwt.Policy) { f.kbHeader.del("typ") }},
	{"KB-JWT typ with its prefix", credentials.CodeKBTTyp, func(f *forger, _ *sdjwt.Policy) { f.kbHeader.set("typ", `"application/kb+jwt"`) }},
	{"KB-JWT claim twice", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.kb.add("nonce", `"`+nonce+`"`) }},
	{"KB-JWT is an array", credentials.CodeMalformed, func(f *forger, _ *sdjwt.Policy) { f.kbText = "[]" }},
	{"KB-JWT without iat", credentials.CodeKBTTime, func(f *forger, _ *sdjwt.Policy) { f.kb.del("iat") }},
	{"KB-JWT iat a string", credentials.CodeKBTTime, func(f *forger, _ *sdjwt.Policy) { f.kb.set("iat", `"1"`) }},
	{"KB-JWT iat not finite", credentials.CodeKBTTime, func(f *forger, _ *sdjwt.Policy) { f.kb.set("iat", "1e999") }},
	{"KB-JWT iat negative", credentials.CodeKBTTime, func(f *forger, _ *sdjwt.Policy) { f.kb.set("iat", "-1") }},
	{"KB-JWT too old", credentials.CodeKBTTime, func(f *forger, _ *sdjwt.Policy) { f.kb.set("iat", fmt.Sprint(now.Unix()-301)) }},
	{"KB-JWT of the future", credentials.CodeKBTTime, func(f *forger, _ *sdjwt.Policy) { f.kb.set("iat", fmt.Sprint(now.Unix()+121)) }},
	{"KB-JWT expired", credentials.CodeKBTTime, func(f *forger, _ *sdjwt.Policy) { f.kb.add("exp", fmt.Sprint(now.Unix()-200)) }},
	{"KB-JWT nbf later", credentials.CodeKBTTime, func(f *forger, _ *sdjwt.Policy) { f.kb.add("nbf", fmt.Sprint(now.Unix()+200)) }},
	{"KB-JWT without nonce", credentials.CodeNonce, func(f *forger, _ *sdjwt.Policy) { f.kb.del("nonce") }},
	{"KB-JWT nonce a number", credentials.CodeNonce, func(f *forger, _ *sdjwt.Policy) { f.kb.set("nonce", "1") }},
	{"KB-JWT other nonce", credentials.CodeNonce, func(f *forger, _ *sdjwt.Policy) { f.kb.set("nonce", `"other"`) }},
	{"KB-JWT nonce empty", credentials.CodeNonce, func(f *forger, _ *sdjwt.Policy) { f.kb.set("nonce", `""`) }},
	{"KB-JWT without aud", credentials.CodeAudience, func(f *forger, _ *sdjwt.Policy) { f.kb.del("aud") }},
	{"KB-JWT other aud", credentials.CodeAudience, func(f *forger, _ *sdjwt.Policy) { f.kb.set("aud", `"https://other.example"`) }},
	{"KB-JWT aud a list", credentials.CodeAudience, func(f *forger, _ *sdjwt.Policy) { f.kb.set("aud", `["`+audience+`"]`) }},
	{"KB-JWT aud a list, any accepted", credentials.CodeAudience, func(f *forger, p *sdjwt.Policy) {
		p.AnyAudience = true
		f.kb.set("aud", `["`+audience+`"]`)
	}},
	{"KB-JWT without sd_hash", credentials.CodeSDHash, func(f *forger, _ *sdjwt.Policy) { f.kbText = f.kb.String() }},
	{"KB-JWT sd_hash a number", credentials.CodeSDHash, func(f *forger, _ *sdjwt.Policy) { f.kb.add("sd_hash", "1") }},
	{"KB-JWT sd_hash of nothing", credentials.CodeSDHash, func(f *forger, _ *sdjwt.Policy) { f.kb.add("sd_hash", `"`+sdjwt.Digest("sha-256", "")+`"`) }},
	{"KB-JWT sd_hash with padding", credentials.CodeSDHash, func(f *forger, _ *sdjwt.Policy) {
		before := sign(f.t, f.issuer, f.header.String(), f.payload.String())
		f.kb.add("sd_hash", `"`+sdjwt.Digest("sha-256", before+"~")+`="`)
	}},
	{"Disclosure taken away after signing", credentials.CodeSDHash, func(f *forger, _ *sdjwt.Policy) {
		f.edit = func(s string) string { return strings.Replace(s, f.disclosures[0]+"~", "", 1) }
	}},
	{"Disclosures in another order than signed", credentials.CodeSDHash, func(f *forger, _ *sdjwt.Policy) {
		f.redact("b", "1")
		a, b := f.disclosures[0], f.disclosures[1]
		f.edit = func(s string) string { return strings.Replace(s, a+"~"+b, b+"~"+a, 1) }
	}},
	{"sd_hash by the default hash instead of _sd_alg", credentials.CodeSDHash, func(f *forger, _ *sdjwt.Policy) {
		f.sd, f.disclosures, f.hash = nil, nil, "sha-256"
		f.payload.add("_sd_alg", `"sha-512"`)
	}},
}

// The edges that are still accepted.
func TestAccepted(t *testing.T) {
	issuer, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	for _, c := range []hostile{
		{"as it is", "", func(*forger, *sdjwt.Policy) {}},
		{"no Disclosures at all", "", func(f *forger, _ *sdjwt.Policy) { f.sd, f.disclosures = nil, nil }},
		{"everything withheld", "", func(f *forger, _ *sdjwt.Policy) { f.disclosures = nil }},
		{"expired within the skew", "", func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", fmt.Sprint(now.Unix()-119)) }},
		{"exp with a fraction", "", func(f *forger, p *sdjwt.Policy) {
			p.Skew = sdjwt.Exactly
			f.payload.set("exp", fmt.Sprintf("%d.5", now.Unix()))
		}},
		{"exp with an exponent", "", func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "1.9e9") }},
		{"exp beyond 64 bits", "", func(f *forger, _ *sdjwt.Policy) { f.payload.set("exp", "18446744073709551616") }},
		{"nbf now with exact clocks", "", func(f *forger, p *sdjwt.Policy) {
			p.Skew = sdjwt.Exactly
			f.payload.add("nbf", fmt.Sprint(now.Unix()))
		}},
		{"iat negative", "", func(f *forger, _ *sdjwt.Policy) { f.payload.set("iat", "-1") }},
		{"KB-JWT as old as may be", "", func(f *forger, _ *sdjwt.Policy) { f.kb.set("iat", fmt.Sprint(now.Unix()-300)) }},
		{"KB-JWT a little ahead", "", func(f *forger, _ *sdjwt.Policy) { f.kb.set("iat", fmt.Sprint(now.Unix()+119)) }},
		{"KB-JWT of any age", "", func(f *forger, p *sdjwt.Policy) {
			p.Freshness = sdjwt.Unlimited
			f.kb.set("iat", "1")
		}},
		{"KB-JWT with claims and parameters more", "", func(f *forger, _ *sdjwt.Policy) {
			f.kb.add("transaction", `{"a":[1]}`)
			f.kbHeader.add("x", "1")
		}},
		{"KB-JWT not required and by another key", "", func(f *forger, p *sdjwt.Policy) {
			p.KeyBinding = sdjwt.KeyBindingNotRequired
			f.holder = ecKey(f.t, elliptic.P256())
		}},
		{"our name in aud", "", func(f *forger, _ *sdjwt.Policy) { f.payload.add("aud", `["x","`+audience+`"]`) }},
		{"our name in a disclosed entry of aud", "", func(f *forger, _ *sdjwt.Policy) {
			f.payload.add("aud", `["x",{"...":"`+f.disclose(`["s","`+audience+`"]`)+`"}]`)
		}},
		{"reserved names deeper", "", func(f *forger, _ *sdjwt.Policy) {
			f.payload.add("a", `{"_sd":["`+f.disclose(`["s","exp",1]`)+`","`+f.disclose(`["s","cnf",1]`)+`"]}`)
		}},
		{"reserved names below a claim without name", "", func(f *forger, _ *sdjwt.Policy) {
			f.payload.add("", `{"_sd":["`+f.disclose(`["s","exp",1]`)+`"]}`)
		}},
		{"empty salt", "", func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose(`["","a",1]`)) }},
		{"white space in a Disclosure", "", func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, f.disclose("\n[ \"s\" ,\t\"a\",1 ]\r\n")) }},
		{"empty claim name", "", func(f *forger, _ *sdjwt.Policy) { f.redact("", `1`) }},
		{"empty _sd", "", func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", `{"_sd":[]}`) }},
		{"digest of no hash's length", "", func(f *forger, _ *sdjwt.Policy) { f.sd = append(f.sd, "short") }},
		{"depth 16", "", func(f *forger, _ *sdjwt.Policy) { f.payload.add("a", nested(15)); f.payload.add("b", lists(15)) }},
		{"depth 16 with redacted claims at the bottom", "", func(f *forger, _ *sdjwt.Policy) {
			f.payload.add("a", strings.Repeat("[", 15)+`{"...":"`+f.disclose(`["s",1]`)+`"}`+strings.Repeat("]", 15))
			f.payload.add("b", strings.Repeat(`{"c":`, 14)+`{"_sd":["`+f.disclose(`["s","d",1]`)+`"]}`+strings.Repeat("}", 14))
		}},
		{"iat disclosed where the policy allows it", "", func(f *forger, p *sdjwt.Policy) {
			p.Permanent = []string{}
			f.payload.del("iat")
			f.redact("iat", "1")
		}},
		{"jwk with use and alg", "", func(f *forger, _ *sdjwt.Policy) {
			for i := range f.payload {
				if f.payload[i].name == "cnf" {
					f.payload[i].value = strings.Replace(f.payload[i].value, `{"jwk":{`, `{"jwk":{"alg":"ES256","use":"sig","key_ops":["verify"],"kid":"1","ext":true,`, 1)
				}
			}
		}},
		{"kid beside the key, loosely", "", func(f *forger, p *sdjwt.Policy) {
			p.LooseCnf = true
			for i := range f.payload {
				if f.payload[i].name == "cnf" {
					f.payload[i].value = strings.Replace(f.payload[i].value, `{"jwk"`, `{"kid":"1","jwk"`, 1)
				}
			}
		}},
		{"status ignored", "", func(f *forger, p *sdjwt.Policy) {
			p.IgnoreStatus = true
			f.payload.add("status", `{"status_list":{"idx":1,"uri":"https://s.example"}}`)
		}},
		{"aka_vcts", "", func(f *forger, _ *sdjwt.Policy) { f.payload.add("aka_vcts", `["urn:x","urn:y"]`) }},
		{"no kid and one key", "", func(f *forger, _ *sdjwt.Policy) { f.header.del("kid") }},
		{"256 Disclosures", "", func(f *forger, _ *sdjwt.Policy) {
			for i := range 255 {
				f.redact(fmt.Sprintf("c%d", i), "1")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, p := newForger(t, issuer, holder), boundPolicy(issuer.Public())
			c.spoil(f, &p)
			if _, err := newVerifier(t, p).Verify(context.Background(), f.token(), sdjwt.Expect{Nonce: nonce}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestErrorsNameNoSecret(t *testing.T) {
	issuer, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	const secret = "a-value-nobody-may-log"
	for _, spoil := range []func(*forger){
		func(f *forger) { f.redact("given_name", `"`+secret+`"`) },
		func(f *forger) { f.disclose(`["` + secret + `","a","` + secret + `"]`) },
		func(f *forger) { f.redact("x", `{"`+secret+`":1,"`+secret+`":2}`) },
		func(f *forger) { f.sd = append(f.sd, f.disclose(`["`+secret+`","`+secret+`"]`)) },
	} {
		f := newForger(t, issuer, holder)
		spoil(f)
		_, err := newVerifier(t, boundPolicy(issuer.Public())).Verify(context.Background(), f.token(), sdjwt.Expect{Nonce: nonce})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("error is %v", err)
		}
	}
}

func TestPolicyHoles(t *testing.T) {
	good := boundPolicy(ecKey(t, elliptic.P256()).Public())
	for name, spoil := range map[string]func(*sdjwt.Policy){
		"no issuers":        func(p *sdjwt.Policy) { p.Issuers = nil },
		"no audience":       func(p *sdjwt.Policy) { p.Audiences = nil },
		"unknown algorithm": func(p *sdjwt.Policy) { p.Algorithms = []string{"ES256", "none"} },
		"a MAC":             func(p *sdjwt.Policy) { p.Algorithms = []string{"HS256"} },
	} {
		p := good
		spoil(&p)
		if _, err := sdjwt.NewVerifier(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Only a presentation that passed every other check uses its nonce up.
func TestNonceOnce(t *testing.T) {
	issuer, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	p := boundPolicy(issuer.Public())
	clock := now
	guard := &sdjwt.MemoryNonces{Max: 2, Now: func() time.Time { return clock }}
	p.Nonces = guard
	v := newVerifier(t, p)
	verify := func(nonce string, spoil func(*forger)) error {
		f := newForger(t, issuer, holder)
		f.kb.set("nonce", `"`+nonce+`"`)
		spoil(f)
		_, err := v.Verify(context.Background(), f.token(), sdjwt.Expect{})
		return err
	}
	fine := func(*forger) {}
	wrong := func(f *forger) { f.kb.add("sd_hash", `"x"`) }
	for _, step := range []struct {
		nonce string
		spoil func(*forger)
		want  credentials.Code
	}{
		{"a", wrong, credentials.CodeSDHash}, {"a", fine, ""}, {"a", fine, credentials.CodeNonce},
		{"b", fine, ""}, {"c", fine, credentials.CodeNonce},
	} {
		if err := verify(step.nonce, step.spoil); credentials.CodeOf(err) != step.want {
			t.Errorf("nonce %s: %v, want %q", step.nonce, err, step.want)
		}
	}
	if err := verify("d", fine); !errors.Is(err, sdjwt.ErrNoncesFull) {
		t.Errorf("beyond Max: %v", err)
	}
	clock = now.Add(time.Hour) // of the guard alone
	if err := verify("c", fine); err != nil {
		t.Errorf("after the others expired: %v", err)
	}
}

func TestNonceNobodyGave(t *testing.T) {
	issuer, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	f := newForger(t, issuer, holder)
	p := boundPolicy(issuer.Public())
	if _, err := newVerifier(t, p).Verify(context.Background(), f.token(), sdjwt.Expect{}); credentials.CodeOf(err) != credentials.CodeNonce {
		t.Errorf("without any nonce expected: %v", err)
	}
	p.AnyNonce = true
	if _, err := newVerifier(t, p).Verify(context.Background(), f.token(), sdjwt.Expect{}); err != nil {
		t.Errorf("AnyNonce: %v", err)
	}
	f.kb.set("nonce", `"`+strings.Repeat("n", 257)+`"`)
	if _, err := newVerifier(t, p).Verify(context.Background(), f.token(), sdjwt.Expect{}); credentials.CodeOf(err) != credentials.CodeNonce {
		t.Errorf("nonce of 257 octets: %v", err)
	}
}
