package trust_test

import (
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

// An ordinary token of an identity provider that knows nothing of selective
// disclosure: a CWT or JWT with a cnf, to which the holder adds a key binding.
type plain struct {
	t      *testing.T
	i      *issuer
	holder crypto.Signer
	typ    any // "none" leaves it out
	claims map[any]any
	// after changes the signed token, before the key binding.
	after func([]byte) []byte
}

func newPlainCWT(t *testing.T, i *issuer, holder crypto.Signer) *plain {
	t.Helper()
	cnf, err := credentials.CWTConfirmation(holder.Public())
	must(t, err)
	now := i.ck.now().Unix()
	return &plain{t: t, i: i, holder: holder, typ: "none", claims: map[any]any{
		1: i.iss, 2: client, 4: now + 3600, 6: now, 7: []byte("0123456789abcdef"), 8: dcbor.Verbatim(cnf), "mimi_user": user,
	}}
}

// cwt is the CWT alone.
func (p *plain) cwt() []byte {
	p.t.Helper()
	var pairs []dcbor.Value
	for k, v := range p.claims {
		key, err := dcbor.FromNative(k)
		must(p.t, err)
		value, ok := v.(dcbor.Value)
		if !ok {
			value, err = dcbor.FromNative(v)
			must(p.t, err)
		}
		pairs = append(pairs, key, value)
	}
	header := []dcbor.Value{dcbor.NewInt(cose.HeaderKid), dcbor.NewBytes([]byte(p.i.kid))}
	if p.typ != "none" {
		typ, err := dcbor.FromNative(p.typ)
		must(p.t, err)
		header = append(header, dcbor.NewInt(cose.HeaderTyp), typ)
	}
	out, err := cose.Sign(p.t.Context(), p.i.key, dcbor.NewMap(header...), dcbor.NewMap(), dcbor.Encode(dcbor.NewMap(pairs...)))
	must(p.t, err)
	if p.after != nil {
		out = p.after(out)
	}
	return out
}

// kbt is a KBT around whatever stands in the place of the SD-CWT.
func (p *plain) kbt(inner []byte) []byte {
	p.t.Helper()
	header := dcbor.NewMap(dcbor.NewInt(cose.HeaderTyp), dcbor.NewInt(294), dcbor.NewInt(cose.HeaderKCWT), dcbor.Verbatim(inner))
	payload, err := dcbor.FromNative(map[any]any{3: room, 6: p.i.ck.now().Unix()})
	must(p.t, err)
	out, err := cose.Sign(p.t.Context(), p.holder, header, dcbor.NewMap(), dcbor.Encode(payload))
	must(p.t, err)
	return out
}

// TestPlainCWT has an ordinary CWT in the place of the SD-CWT.
func TestPlainCWT(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	i := newIssuer(t, ck, "https://idp.example")
	dir := t.TempDir()
	writeFile(t, dir, "idp.jwks", jwks(t, i))
	e := func(change func(object)) *trust.List {
		o := entry("sd_cwt", i.iss, object{"source": "jwks_file", "file": dir + "/idp.jwks"})
		change(o)
		return openList(t, ck, config(nil, o))
	}
	strict := e(func(object) {})
	open := e(func(o object) { o["accept_plain_cwt"] = true })
	listed := e(func(o object) { o["accept_plain_cwt"], o["typ"] = true, []any{"application/acme+sd-cwt"} })
	other := newKey(t)
	otherCnf, err := credentials.CWTConfirmation(other.Public())
	must(t, err)
	ckt, err := credentials.CWTThumbprintConfirmation(holder.Public())
	must(t, err)
	for _, c := range []struct {
		name string
		list *trust.List
		want credentials.Code
		do   func(p *plain)
	}{
		{"no typ", open, "", func(*plain) {}},
		{"application/cwt", open, "", func(p *plain) { p.typ = "application/cwt" }},
		{"content format 61", open, "", func(p *plain) { p.typ = 61 }},
		{"typ of an SD-CWT", open, "", func(p *plain) { p.typ = 293 }},
		{"thumbprint of the key", open, "", func(p *plain) { p.claims[8] = dcbor.Verbatim(ckt) }},
		{"no typ, beside a listed one", listed, "", func(*plain) {}},
		{"the listed typ", listed, "", func(p *plain) { p.typ = "application/acme+sd-cwt" }},
		{"no typ where none is admitted", strict, credentials.CodeSDCWTTyp, func(*plain) {}},
		{"application/cwt where none is admitted", strict, credentials.CodeSDCWTTyp, func(p *plain) { p.typ = "application/cwt" }},
		{"content format 61 where none is admitted", strict, credentials.CodeSDCWTTyp, func(p *plain) { p.typ = 61 }},
		{"typ of an SD-CWT where another is listed", listed, credentials.CodeSDCWTTyp, func(p *plain) { p.typ = 293 }},
		{"typ of a KBT", open, credentials.CodeSDCWTTyp, func(p *plain) { p.typ = 294 }},
		{"typ of a status list", open, credentials.CodeSDCWTTyp, func(p *plain) { p.typ = "application/statuslist+cwt" }},
		{"typ in capitals", open, credentials.CodeSDCWTTyp, func(p *plain) { p.typ = "application/CWT" }},
		{"typ without application", open, credentials.CodeSDCWTTyp, func(p *plain) { p.typ = "cwt" }},
		{"typ of octets", open, credentials.CodeSDCWTTyp, func(p *plain) { p.typ = []byte("application/cwt") }},
		{"no cnf", open, credentials.CodeClaimMissing, func(p *plain) { delete(p.claims, 8) }},
		{"cnf of a kid", open, credentials.CodeCnfUnsupported, func(p *plain) { p.claims[8] = map[any]any{3: []byte("k")} }},
		{"cnf of another key", open, credentials.CodeCnfLeafMismatch, func(p *plain) { p.claims[8] = dcbor.Verbatim(otherCnf) }},
		{"cnf text", open, credentials.CodeClaimType, func(p *plain) { p.claims[8] = "key" }},
		{"no iss", open, credentials.CodeIssuerUnknown, func(p *plain) { delete(p.claims, 1) }},
		{"iss of another", open, credentials.CodeIssuerUnknown, func(p *plain) { p.claims[1] = "https://other.example" }},
		{"iss a number", open, credentials.CodeClaimType, func(p *plain) { p.claims[1] = 5 }},
		{"no exp", open, credentials.CodeClaimMissing, func(p *plain) { delete(p.claims, 4) }},
		{"no cti", open, credentials.CodeClaimMissing, func(p *plain) { delete(p.claims, 7) }},
		{"no sub", open, credentials.CodeClaimMissing, func(p *plain) { delete(p.claims, 2) }},
		{"exp before iat", open, credentials.CodeTimeOrder, func(p *plain) { p.claims[4] = ck.now().Unix() - 5 }},
		{"signed by the holder", open, credentials.CodeIssuerSignature, func(p *plain) { p.i = &issuer{t: t, key: newKey(t), kid: i.kid, iss: i.iss, ck: ck} }},
		{"kid of another key", open, credentials.CodeIssuerKey, func(p *plain) { p.i = &issuer{t: t, key: i.key, kid: "k2", iss: i.iss, ck: ck} }},
		{"key binding by another", open, credentials.CodeCnfLeafMismatch, func(p *plain) { p.holder = newKey(t) }},
		{"tag 61 around it", open, credentials.CodeKCWTMissing, func(p *plain) { p.after = func(b []byte) []byte { return append([]byte{0xd8, 61}, b...) } }},
		{"without its tag", open, credentials.CodeKCWTMissing, func(p *plain) { p.after = func(b []byte) []byte { return b[1:] } }},
		{"a MAC", open, credentials.CodeKCWTMissing, func(p *plain) { p.after = func(b []byte) []byte { b[0] = 0xd1; return b } }},
		{"in a byte string", open, credentials.CodeKCWTMissing, func(p *plain) { p.after = dcbor.WrapBytes }},
		{"changed", open, credentials.CodeIssuerSignature, func(p *plain) { p.after = func(b []byte) []byte { b[len(b)-1] ^= 1; return b } }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlainCWT(t, i, holder)
			c.do(p)
			got, err := check(t, c.list, p.kbt(p.cwt()), holder)
			if c.name == "key binding by another" { // cnf and leaf agree; the signature is another's
				wantCode(t, c.name, err, credentials.CodeKBTSignature)
				return
			}
			wantCode(t, c.name, err, c.want)
			if err == nil {
				if name, _ := got.SDCWT.Claims.Text("mimi_user"); name != user {
					t.Errorf("the user is %q", name)
				}
			}
		})
	}
	// Without a key binding it is a bearer token, and nobody's.
	_, err = check(t, open, newPlainCWT(t, i, holder).cwt(), holder)
	wantCode(t, "bearer", err, credentials.CodeKCWTMissing)
	// The holder's side makes the same.
	held, err := sdcwt.ParseCredential(newPlainCWT(t, i, holder).cwt())
	must(t, err)
	made, err := mlscred.SDCWT(t.Context(), held, mlscred.Binding{Key: holder, Audience: room, Now: ck.now}, sdcwt.All)
	must(t, err)
	_, err = check(t, open, made, holder)
	must(t, err)
}

// A plainJWT is the same of a JWT.
type plainJWT struct {
	header, claims object
	key            crypto.Signer
	bearer         bool
	tail           string // after the JWT, before the key binding
}

func (p *plainJWT) token(t *testing.T, i *issuer, holder crypto.Signer) []byte {
	t.Helper()
	text := func(o object) []byte {
		b, err := json.Marshal(o)
		must(t, err)
		return b
	}
	jwt, err := jose.Sign(t.Context(), credentials.ECDSAP256, p.key, text(p.header), text(p.claims))
	must(t, err)
	before := jwt + "~" + p.tail
	if p.bearer {
		return []byte(before)
	}
	kb := object{"iat": i.ck.now().Unix(), "aud": room, "nonce": "n-0123456789", "sd_hash": digest(before)}
	binding, err := jose.Sign(t.Context(), credentials.ECDSAP256, holder, []byte(`{"alg":"ES256","typ":"kb+jwt"}`), text(kb))
	must(t, err)
	return []byte(before + binding)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return jose.EncodeBase64(sum[:])
}

// TestPlainJWT has JWTs of other types than that of an SD-JWT VC.
func TestPlainJWT(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	i := newIssuer(t, ck, "https://idp.example")
	dir := t.TempDir()
	writeFile(t, dir, "idp.jwks", jwks(t, i))
	types := func(typ ...any) *trust.List {
		o := entry("sd_jwt", i.iss, object{"source": "jwks_file", "file": dir + "/idp.jwks"})
		if typ != nil {
			o["typ"] = typ
		}
		return openList(t, ck, config(nil, o))
	}
	vc, jwt, none, both := types(), types("JWT"), types(""), types("at+jwt", "dc+sd-jwt")
	jwkOf := func(k crypto.PublicKey) (jwk object) {
		text, err := credentials.FormatJWK(k)
		must(t, err)
		must(t, json.Unmarshal(text, &jwk))
		return jwk
	}
	for _, c := range []struct {
		name string
		list *trust.List
		typ  any
		want credentials.Code
		do   func(p *plainJWT)
	}{
		{"JWT", jwt, "JWT", "", nil},
		{"no typ", none, nil, "", nil},
		{"at+jwt", both, "at+jwt", "", nil},
		{"dc+sd-jwt with a vct", both, "dc+sd-jwt", "", func(p *plainJWT) { p.claims["vct"] = "https://vct.example/1" }},
		{"thumbprint of the key", jwt, "JWT", "", func(p *plainJWT) {
			sum, err := credentials.JWKThumbprint(holder.Public())
			must(t, err)
			p.claims["cnf"] = object{"jkt": jose.EncodeBase64(sum)}
		}},
		{"dc+sd-jwt without a vct", both, "dc+sd-jwt", credentials.CodeClaimMissing, nil},
		{"JWT where only VCs are admitted", vc, "JWT", credentials.CodeSDJWTTyp, nil},
		{"no typ where only VCs are admitted", vc, nil, credentials.CodeSDJWTTyp, nil},
		{"no typ where JWT is", jwt, nil, credentials.CodeSDJWTTyp, nil},
		{"JWT where none is", none, "JWT", credentials.CodeSDJWTTyp, nil},
		{"empty typ where JWT is", jwt, "", credentials.CodeSDJWTTyp, nil},
		{"VC where JWT is", jwt, "dc+sd-jwt", credentials.CodeSDJWTTyp, nil},
		{"JWT in lower case", jwt, "jwt", credentials.CodeSDJWTTyp, nil},
		{"JWT as a media type", jwt, "application/jwt", credentials.CodeSDJWTTyp, nil},
		{"old typ of VCs", both, "vc+sd-jwt", credentials.CodeSDJWTTyp, nil},
		{"KB-JWT", none, "kb+jwt", credentials.CodeSDJWTTyp, nil},
		{"proof of an enrolment", jwt, "openid4vci-proof+jwt", credentials.CodeSDJWTTyp, nil},
		{"status list", jwt, "statuslist+jwt", credentials.CodeSDJWTTyp, nil},
		{"typ a number", jwt, 5, credentials.CodeMalformed, nil},
		{"bearer", jwt, "JWT", credentials.CodeKBMissing, func(p *plainJWT) { p.bearer = true }},
		{"no cnf", jwt, "JWT", credentials.CodeClaimMissing, func(p *plainJWT) { delete(p.claims, "cnf") }},
		{"cnf text", jwt, "JWT", credentials.CodeCnfUnsupported, func(p *plainJWT) { p.claims["cnf"] = "key" }},
		{"cnf of a kid", jwt, "JWT", credentials.CodeCnfUnsupported, func(p *plainJWT) { p.claims["cnf"] = object{"kid": "k"} }},
		{"cnf of a URL", jwt, "JWT", credentials.CodeCnfUnsupported, func(p *plainJWT) { p.claims["cnf"] = object{"jku": "https://idp.example/k", "kid": "k"} }},
		{"cnf of a certificate", jwt, "JWT", credentials.CodeCnfUnsupported, func(p *plainJWT) { p.claims["cnf"] = object{"x5t#S256": "AA"} }},
		{"cnf of two keys", jwt, "JWT", credentials.CodeCnfUnsupported, func(p *plainJWT) {
			p.claims["cnf"] = object{"jwk": jwkOf(holder.Public()), "jkt": "AA"}
		}},
		{"cnf of another key", jwt, "JWT", credentials.CodeCnfLeafMismatch, func(p *plainJWT) { p.claims["cnf"] = object{"jwk": jwkOf(newKey(t).Public())} }},
		{"private key in cnf", jwt, "JWT", credentials.CodeCnfPrivateKey, func(p *plainJWT) {
			jwk := jwkOf(holder.Public())
			jwk["d"] = strings.Repeat("A", 43)
			p.claims["cnf"] = object{"jwk": jwk}
		}},
		{"no exp", jwt, "JWT", credentials.CodeClaimMissing, func(p *plainJWT) { delete(p.claims, "exp") }},
		{"no iss", jwt, "JWT", credentials.CodeIssuerUnknown, func(p *plainJWT) { delete(p.claims, "iss") }},
		{"iss of another", jwt, "JWT", credentials.CodeIssuerUnknown, func(p *plainJWT) { p.claims["iss"] = "https://other.example" }},
		{"signed by another", jwt, "JWT", credentials.CodeIssuerSignature, func(p *plainJWT) { p.key = newKey(t) }},
		{"alg none", jwt, "JWT", credentials.CodeAlg, func(p *plainJWT) { p.header["alg"] = "none" }},
		{"alg a MAC", jwt, "JWT", credentials.CodeAlg, func(p *plainJWT) { p.header["alg"] = "HS256" }},
		{"kid of another key", jwt, "JWT", credentials.CodeIssuerKey, func(p *plainJWT) { p.header["kid"] = "k2" }},
		{"crit", jwt, "JWT", credentials.CodeCrit, func(p *plainJWT) { p.header["crit"] = []string{"exp"} }},
		{"disclosure without a digest", jwt, "JWT", credentials.CodeDisclosureUnmatched, func(p *plainJWT) { p.tail = "WyJzIiwiYSIsMV0~" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := ck.now().Unix()
			p := &plainJWT{
				header: object{"alg": "ES256", "kid": i.kid},
				claims: object{"iss": i.iss, "sub": client, "mimi_user": user, "iat": now, "exp": now + 3600, "cnf": object{"jwk": jwkOf(holder.Public())}},
				key:    i.key,
			}
			if c.typ != nil {
				p.header["typ"] = c.typ
			}
			if c.do != nil {
				c.do(p)
			}
			got, err := check(t, c.list, p.token(t, i, holder), holder)
			wantCode(t, c.name, err, c.want)
			if err == nil && got.SDJWT.KeyBinding == nil {
				t.Error("without key binding")
			}
		})
	}
	// What would let a key binding, a proof or a list pass for a credential.
	for _, typ := range []string{"kb+jwt", "application/kb+jwt", "KB+JWT", "statuslist+jwt", "openid4vci-proof+jwt"} {
		o := entry("sd_jwt", i.iss, object{"source": "jwks_file", "file": dir + "/idp.jwks"})
		o["typ"] = []string{typ}
		if _, err := trust.Open(write(t, t.TempDir(), config(nil, o)), trust.Options{}); err == nil {
			t.Errorf("typ %q is for credentials", typ)
		}
	}
}
