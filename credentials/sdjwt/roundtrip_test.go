package sdjwt_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

const person = `{"vct":"urn:example:person","name":"Ada","address":{"street":"1 Way","town":{"name":"Ham","zip":"20095"}},
	"langs":["en","de",["x","y"]],"big":12345678901234567890,"pi":3.14,"none":null,"ok":true,"nested":[{"a":1},{"b":[2,3]}]}`

func issuerOf(key crypto.Signer) *sdjwt.Issuer {
	return &sdjwt.Issuer{Key: key, Name: issuerName, Kid: "k1"}
}

func issue(t testing.TB, i *sdjwt.Issuer, r sdjwt.Request) string {
	t.Helper()
	token, err := i.Issue(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return token.String()
}

// TestRoundTrip goes from issuer over holder to verifier with every pair of
// signature algorithm and hash.
func TestRoundTrip(t *testing.T) {
	keys, holders := keysOfAllSchemes(t), keysOfAllSchemes(t)
	for alg, key := range keys {
		for _, hash := range []string{"sha-256", "sha-384", "sha-512"} {
			t.Run(alg+"/"+hash, func(t *testing.T) {
				i := issuerOf(key)
				i.Hash = hash
				token := issue(t, i, sdjwt.Request{
					Claims: []byte(person),
					Redact: []sdjwt.Path{{"name"}, {"address"}, {"address", "town"}, {"address", "town", "zip"}, {"langs", nil}, {"nested", 1, "b", 0}},
					Decoys: []sdjwt.Decoy{{Count: 3}, {At: sdjwt.Path{"langs"}, Count: 2}},
					Holder: holders[alg].Public(), IssuedAt: now, Expires: now.Add(time.Hour),
				})
				jwxVerifies(t, token, alg, key.Public())
				present(t, token, key.Public(), holders[alg])
			})
		}
	}
}

// jwxVerifies checks the Issuer-signed JWT with an independent implementation.
func jwxVerifies(t *testing.T, token, alg string, pub crypto.PublicKey) {
	t.Helper()
	jwt, _, _ := strings.Cut(token, "~")
	a, ok := jwa.LookupSignatureAlgorithm(alg)
	if !ok {
		t.Fatalf("jwx does not know %s", alg)
	}
	if _, err := jws.Verify([]byte(jwt), jws.WithKey(a, pub)); err != nil {
		t.Errorf("jwx refuses the Issuer-signed JWT: %v", err)
	}
}

func present(t *testing.T, token string, issuer crypto.PublicKey, holder crypto.Signer) {
	t.Helper()
	v := newVerifier(t, boundPolicy(issuer))
	cred, err := v.Receive(context.Background(), token, holder.Public())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := cred.Present(context.Background(), sdjwt.Presentation{
		Disclose: []sdjwt.Path{{"address", "town", "zip"}, {"langs", 2}, {"nested", 1, "b", 1}},
		Key:      holder, Audience: audience, Nonce: nonce, IssuedAt: now, Expires: now.Add(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify(context.Background(), shown.String(), sdjwt.Expect{Nonce: nonce, HolderKey: holder.Public()})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		`["address"]`:        `{"street":"1 Way","town":{"name":"Ham","zip":"20095"}}`,
		`["langs"]`:          `[["x","y"]]`,
		`["nested"]`:         `[{"a":1},{"b":[3]}]`,
		`["big"]`:            `12345678901234567890`,
		`["none"]`:           `null`,
		`["vct"]`:            `"urn:example:person"`,
		`["address","town"]`: `{"name":"Ham","zip":"20095"}`,
	} {
		p, err := sdjwt.ParsePath(path)
		if err != nil {
			t.Fatal(err)
		}
		if value, ok := got.Claims.Get(p...); !ok || !equalJSON(value, want) {
			t.Errorf("%s is %s, want %s", path, value, want)
		}
	}
	if _, ok := got.Claims.Get("name"); ok {
		t.Error("name was disclosed")
	}
	if got.VCT != "urn:example:person" || got.Issuer != issuerName || !got.Expires.Equal(now.Add(time.Hour)) ||
		got.KeyBinding.Audience != audience || !got.KeyBinding.Expires.Equal(now.Add(time.Minute)) {
		t.Errorf("verified %+v, %+v", got, got.KeyBinding)
	}
	inJSON(t, v, shown, got)
}

// inJSON takes the presentation through the JSON serialization.
func inJSON(t *testing.T, v *sdjwt.Verifier, shown *sdjwt.Token, want *sdjwt.Verified) {
	t.Helper()
	text, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	back, err := sdjwt.ParseJSON(text, sdjwt.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if back.String() != shown.String() {
		t.Errorf("JSON serialization gives %s", back)
	}
	for _, text := range []string{string(text), "\n " + string(text)} {
		got, err := v.Verify(context.Background(), text, sdjwt.Expect{Nonce: nonce})
		if err != nil || !got.Claims.Equal(want.Claims.JSON()) {
			t.Errorf("JSON serialization: %v", err)
		}
	}
}

// A credential with only the thumbprint of the holder's key, as an MLS leaf
// may use it.
func TestThumbprint(t *testing.T) {
	key, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384())
	token := issue(t, issuerOf(key), sdjwt.Request{Claims: []byte(`{"vct":"urn:x"}`), Holder: holder.Public(), Thumbprint: true})
	p := boundPolicy(key.Public())
	p.AnyNonce, p.Freshness = true, sdjwt.Unlimited
	v := newVerifier(t, p)
	cred, err := v.Receive(context.Background(), token, holder.Public())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := cred.Present(context.Background(), sdjwt.Presentation{
		Key: holder, Audience: audience, Nonce: sdjwt.NewNonce(), IssuedAt: now.Add(-48 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		leaf crypto.PublicKey
		want credentials.Code
	}{
		{holder.Public(), ""}, {nil, credentials.CodeCnfUnsupported}, {key.Public(), credentials.CodeCnfLeafMismatch},
	} {
		_, err := v.VerifyToken(context.Background(), shown, sdjwt.Expect{HolderKey: c.leaf})
		if credentials.CodeOf(err) != c.want {
			t.Errorf("leaf %T: %v, want %q", c.leaf, err, c.want)
		}
	}
}

// The key that cnf must confirm is a parameter: a credential copied into
// another leaf is refused.
func TestOtherLeaf(t *testing.T) {
	issuer, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	f := newForger(t, issuer, holder)
	v := newVerifier(t, boundPolicy(issuer.Public()))
	for _, c := range []struct {
		leaf crypto.PublicKey
		want credentials.Code
	}{
		{holder.Public(), ""},
		{issuer.Public(), credentials.CodeCnfLeafMismatch},
		{ecKey(t, elliptic.P521()).Public(), credentials.CodeCnfCurve},
		{keysOfAllSchemes(t)["EdDSA"].Public(), credentials.CodeCnfCurve},
		{"no key", credentials.CodeCnfCurve},
	} {
		_, err := v.Verify(context.Background(), f.token(), sdjwt.Expect{Nonce: nonce, HolderKey: c.leaf})
		if credentials.CodeOf(err) != c.want {
			t.Errorf("leaf %T: %v, want %q", c.leaf, err, c.want)
		}
	}
}

// A contextKey signs through SignContext alone, as a device's key does.
type contextKey struct {
	crypto.Signer
	seen context.Context
}

func (k *contextKey) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.seen = ctx
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return k.Signer.Sign(nil, digest, opts)
}

func TestSignContext(t *testing.T) {
	type mark struct{}
	ctx := context.WithValue(context.Background(), mark{}, true)
	for alg, key := range keysOfAllSchemes(t) {
		k := &contextKey{Signer: key}
		token, err := issuerOf(k).Issue(ctx, sdjwt.Request{Claims: []byte(`{"vct":"urn:x"}`)})
		if err != nil || k.seen.Value(mark{}) == nil {
			t.Fatalf("%s: %v, context %v", alg, err, k.seen)
		}
		p := boundPolicy(key.Public())
		p.KeyBinding = sdjwt.KeyBindingNotRequired
		if _, err := newVerifier(t, p).VerifyToken(ctx, token, sdjwt.Expect{}); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err := issuerOf(ecKey(t, elliptic.P256())).Issue(ended, sdjwt.Request{Claims: []byte(`{"vct":"urn:x"}`)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	claims := []byte(`{"vct":"urn:x","sub":"s","a":{"b":[1]},"aud":["x"],"status":{"status_list":{}}}`)
	for name, c := range map[string]struct {
		issuer sdjwt.Issuer
		req    sdjwt.Request
	}{
		"no key":                    {sdjwt.Issuer{}, sdjwt.Request{Claims: claims}},
		"a curve without algorithm": {sdjwt.Issuer{Key: ecKey(t, elliptic.P224())}, sdjwt.Request{Claims: claims}},
		"unknown hash":              {sdjwt.Issuer{Key: key, Hash: "sha-1"}, sdjwt.Request{Claims: claims}},
		"no JSON":                   {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte("x")}},
		"no object":                 {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte("[]")}},
		"a claim twice":             {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte(`{"vct":"urn:x","a":1,"a":2}`)}},
		"no vct":                    {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte(`{}`)}},
		"claim _sd":                 {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte(`{"vct":"urn:x","_sd":[]}`)}},
		"claim _sd_alg":             {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte(`{"vct":"urn:x","a":[{"_sd_alg":1}]}`)}},
		"claim dots":                {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte(`{"vct":"urn:x","a":{"...":1}}`)}},
		"claim _sd in what is redacted": {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte(`{"vct":"urn:x","a":{"_sd":1}}`),
			Redact: []sdjwt.Path{{"a"}}}},
		"iss twice":            {sdjwt.Issuer{Key: key, Name: "i"}, sdjwt.Request{Claims: []byte(`{"vct":"urn:x","iss":"j"}`)}},
		"exp before iat":       {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, IssuedAt: now, Expires: now}},
		"exp before nbf":       {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, NotBefore: now, Expires: now.Add(-1)}},
		"exp not finite":       {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte(`{"vct":"urn:x","exp":1e999}`)}},
		"private key in cnf":   {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: []byte(`{"vct":"urn:x","cnf":{"jwk":{"kty":"EC","d":"AA"}}}`)}},
		"redact nothing":       {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{}}}},
		"redact what is not":   {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"z"}}}},
		"redact past the end":  {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"a", "b", 1}}}},
		"redact below a value": {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"a", "b", 0, "c"}}}},
		"path of a float":      {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"a", 1.5}}}},
		"redact vct":           {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"vct"}}}},
		"redact sub":           {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"sub"}}}},
		"redact aud":           {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"aud"}}}},
		"redact in status":     {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"status", "status_list"}}}},
		"decoys in status":     {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Decoys: []sdjwt.Decoy{{At: sdjwt.Path{"status"}, Count: 1}}}},
		"decoys in a value":    {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Decoys: []sdjwt.Decoy{{At: sdjwt.Path{"sub"}, Count: 1}}}},
		"fewer than no decoys": {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Decoys: []sdjwt.Decoy{{Count: -1}}}},
		"may redact exp":       {sdjwt.Issuer{Key: key, MayRedact: []string{"exp"}}, sdjwt.Request{Claims: claims}},
		"too many":             {sdjwt.Issuer{Key: key, Limits: sdjwt.Limits{Disclosures: 1}}, sdjwt.Request{Claims: claims, Redact: []sdjwt.Path{{"a"}, {"a", "b"}}}},
		"too long":             {sdjwt.Issuer{Key: key, Limits: sdjwt.Limits{Octets: 100}}, sdjwt.Request{Claims: claims}},
		"holder's RSA key":     {sdjwt.Issuer{Key: key}, sdjwt.Request{Claims: claims, Holder: "no key"}},
	} {
		if token, err := c.issuer.Issue(context.Background(), c.req); err == nil {
			t.Errorf("%s: issued %s", name, token)
		}
	}
}

func TestIssueSubAndAud(t *testing.T) {
	i := issuerOf(ecKey(t, elliptic.P256()))
	i.MayRedact = []string{"sub", "iat"}
	token := issue(t, i, sdjwt.Request{
		Claims: []byte(`{"vct":"urn:x","sub":"s","aud":["a","b"],"iat":1}`),
		Redact: []sdjwt.Path{{"sub"}, {"iat"}, {"aud", 1}},
	})
	cred, err := sdjwt.OpenCredential(token, sdjwt.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got := cred.Disclosable(); len(got) != 3 {
		t.Errorf("disclosable %v", got)
	}
}

// The order of digests says nothing about the order of claims, and no salt is
// used twice.
func TestDigestsAreSortedAndSaltsFresh(t *testing.T) {
	i := issuerOf(ecKey(t, elliptic.P256()))
	salts := make(map[string]bool)
	for range 20 {
		token := issue(t, i, sdjwt.Request{
			Claims: []byte(`{"vct":"urn:x","a":1,"b":1,"c":1,"d":[1,1]}`),
			Redact: []sdjwt.Path{{"a"}, {"b"}, {"c"}, {"d", nil}}, Decoys: []sdjwt.Decoy{{Count: 4}},
		})
		parsed, err := sdjwt.Parse(token, sdjwt.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		var payload struct {
			SD []string `json:"_sd"`
		}
		decodePart(t, parsed.IssuerJWT(), 1, &payload)
		if len(payload.SD) != 7 || !slices.IsSorted(payload.SD) {
			t.Errorf("_sd is %v", payload.SD)
		}
		for _, d := range parsed.Disclosures() {
			var content []any
			decodeText(t, d, &content)
			salt := content[0].(string)
			if len(salt) != 22 || salts[salt] {
				t.Errorf("salt %q", salt)
			}
			salts[salt] = true
		}
	}
	if len(salts) != 100 {
		t.Errorf("%d salts, want 100", len(salts))
	}
}

func TestReceiveRefuses(t *testing.T) {
	key, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	v := newVerifier(t, boundPolicy(key.Public()))
	f := newForger(t, key, holder)
	if _, err := v.Receive(context.Background(), f.token(), nil); credentials.CodeOf(err) != credentials.CodeMalformed {
		t.Errorf("with a KB-JWT: %v", err)
	}
	f.noKB = true
	good := f.token()
	if _, err := v.Receive(context.Background(), good, holder.Public()); err != nil {
		t.Errorf("good: %v", err)
	}
	if _, err := v.Receive(context.Background(), good, key.Public()); credentials.CodeOf(err) != credentials.CodeCnfLeafMismatch {
		t.Errorf("for another key: %v", err)
	}
	f.disclose(`["s","z",1]`)
	if _, err := v.Receive(context.Background(), f.token(), nil); credentials.CodeOf(err) != credentials.CodeDisclosureUnmatched {
		t.Errorf("with a Disclosure too many: %v", err)
	}
}

func TestPresentRefuses(t *testing.T) {
	key, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	f := newForger(t, key, holder)
	f.noKB = true
	cred, err := sdjwt.OpenCredential(f.token(), sdjwt.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if cred.String() != mustParse(t, cred.String()).String() {
		t.Error("credential changes when it is stored")
	}
	for name, p := range map[string]sdjwt.Presentation{
		"unknown claim": {Disclose: []sdjwt.Path{{"z"}}},
		"another key":   {Key: key, Audience: "a", Nonce: "n"},
		"no audience":   {Key: holder, Nonce: "n"},
		"no nonce":      {Key: holder, Audience: "a"},
	} {
		if shown, err := cred.Present(context.Background(), p); err == nil {
			t.Errorf("%s: %s", name, shown)
		}
	}
	all, err := cred.Present(context.Background(), sdjwt.Presentation{DiscloseAll: true})
	if err != nil || all.String() != cred.String() {
		t.Errorf("all of it: %v", err)
	}
}

func mustParse(t *testing.T, token string) *sdjwt.Token {
	t.Helper()
	parsed, err := sdjwt.Parse(token, sdjwt.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestParsePath(t *testing.T) {
	for _, text := range []string{`["a"]`, `["a",0,null,"b\"c"]`} {
		p, err := sdjwt.ParsePath(text)
		if err != nil || p.String() != text {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{``, `a`, `{}`, `[]`, `[1.5]`, `[-1]`, `[true]`, `[["a"]]`, `["a"`, `[99999999999]`} {
		if p, err := sdjwt.ParsePath(text); err == nil {
			t.Errorf("%s is read as %v", text, p)
		}
	}
}

func TestParseJSONRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                       `{}`,
		"array":                       `[]`,
		"no signature":                `{"payload":"a","protected":"b"}`,
		"dot in a part":               `{"payload":"a.b","protected":"b","signature":"c"}`,
		"tilde in a part":             `{"payload":"a~b","protected":"b","signature":"c"}`,
		"number":                      `{"payload":1,"protected":"b","signature":"c"}`,
		"payload twice":               `{"payload":"a","payload":"a","protected":"b","signature":"c"}`,
		"both forms":                  `{"payload":"a","protected":"b","signature":"c","signatures":[]}`,
		"no signatures":               `{"payload":"a","signatures":[]}`,
		"signature a string":          `{"payload":"a","signatures":["c"]}`,
		"header a string":             `{"payload":"a","protected":"b","signature":"c","header":"h"}`,
		"disclosures":                 `{"payload":"a","protected":"b","signature":"c","header":{"disclosures":"d"}}`,
		"disclosure":                  `{"payload":"a","protected":"b","signature":"c","header":{"disclosures":[1]}}`,
		"tilde in disclosure":         `{"payload":"a","protected":"b","signature":"c","header":{"disclosures":["d~e"]}}`,
		"kb_jwt":                      `{"payload":"a","protected":"b","signature":"c","header":{"kb_jwt":1}}`,
		"alg in both headers":         `{"payload":"a","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"c","header":{"alg":"none"}}`,
		"disclosures in both headers": `{"payload":"a","protected":"eyJkaXNjbG9zdXJlcyI6W119","signature":"c","header":{"disclosures":[]}}`,
		"crit that nobody signed":     `{"payload":"a","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"c","header":{"crit":["x"],"x":1}}`,
		"general, alg in both":        `{"payload":"a","signatures":[{"protected":"eyJhbGciOiJFUzI1NiJ9","signature":"c","header":{"alg":"ES256"}}]}`,
		"kb_jwt in the second": `{"payload":"a","signatures":[{"protected":"b","signature":"c"},
			{"protected":"b","signature":"c","header":{"kb_jwt":"x"}}]}`,
	} {
		if token, err := sdjwt.ParseJSON([]byte(text), sdjwt.Limits{}); credentials.CodeOf(err) != credentials.CodeMalformed {
			t.Errorf("%s: %v, %v", name, token, err)
		}
	}
}

// Tokens of one Issuer that are made at the same time, and after one that was
// refused half-way, have nothing of each other.
func TestIssueAtTheSameTime(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	issuer := issuerOf(key)
	issue := func(who int) error {
		for n := range 30 {
			claims := fmt.Appendf(nil, `{"vct":"urn:example:person"`)
			var req sdjwt.Request
			for i := range 1 + (who*7+n)%20 {
				claims = fmt.Appendf(claims, `,"claim_%d":["%d of token %d of %d",%d]`, i, i, n, who, i)
				req.Redact = append(req.Redact, sdjwt.Path{fmt.Sprintf("claim_%d", i)}, sdjwt.Path{fmt.Sprintf("claim_%d", i), 0})
			}
			req.Claims = append(claims, '}')
			if n%5 == 4 {
				req.Redact = append(req.Redact, sdjwt.Path{"missing"})
				if _, err := issuer.Issue(t.Context(), req); err == nil {
					return errors.New("a claim that is missing was redacted")
				}
				continue
			}
			token, err := issuer.Issue(t.Context(), req)
			if err != nil {
				return err
			}
			c, err := sdjwt.OpenCredential(token.String(), sdjwt.Limits{})
			if err != nil {
				return err
			}
			want := append([]byte(`{"iss":"`+issuer.Name+`",`), req.Claims[1:]...)
			if !c.Claims().Equal(want) || len(c.Disclosable()) != len(req.Redact) {
				return fmt.Errorf("claims %s, want %s", c.Claims().JSON(), want)
			}
		}
		return nil
	}
	var all sync.WaitGroup
	for who := range 4 {
		all.Go(func() {
			if err := issue(who); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
