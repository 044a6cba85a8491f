package sdjwt_test

import (
	"context"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/internal/jose"
)

// drawValue draws a JSON value with at most depth further levels.
func drawValue(t *rapid.T, depth int) any {
	kinds := 5
	if depth > 0 {
		kinds = 7
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return json.Number(fmt.Sprint(rapid.Int64().Draw(t, "int")))
	case 3:
		return json.Number(fmt.Sprint(rapid.Float64().Draw(t, "float")))
	case 4:
		return rapid.String().Draw(t, "text")
	case 5:
		list := make([]any, rapid.IntRange(0, 4).Draw(t, "length"))
		for i := range list {
			list[i] = drawValue(t, depth-1)
		}
		return list
	}
	return drawObject(t, depth-1, "")
}

func drawObject(t *rapid.T, depth int, prefix string) *jose.Object {
	o := new(jose.Object)
	for range rapid.IntRange(0, 4).Draw(t, "members") {
		name := prefix + rapid.String().Draw(t, "name")
		if name == "_sd" || name == "_sd_alg" || name == "..." || o.Has(name) {
			continue
		}
		o.Add(name, drawValue(t, depth))
	}
	return o
}

// allPaths lists the paths of everything below v.
func allPaths(v any, at sdjwt.Path) []sdjwt.Path {
	var all []sdjwt.Path
	below := func(step, v any) {
		p := append(append(sdjwt.Path{}, at...), step)
		all = append(append(all, p), allPaths(v, p)...)
	}
	switch v := v.(type) {
	case *jose.Object:
		for _, m := range v.Members {
			below(m.Name, m.Value)
		}
	case []any:
		for i, e := range v {
			below(i, e)
		}
	}
	return all
}

// visible returns v without what is redacted and not shown.
func visible(v any, at sdjwt.Path, redacted, shown map[string]bool) any {
	hidden := func(step any) (sdjwt.Path, bool) {
		p := append(append(sdjwt.Path{}, at...), step)
		return p, redacted[p.String()] && !shown[p.String()]
	}
	switch v := v.(type) {
	case *jose.Object:
		out := new(jose.Object)
		for _, m := range v.Members {
			if p, no := hidden(m.Name); !no {
				out.Add(m.Name, visible(m.Value, p, redacted, shown))
			}
		}
		return out
	case []any:
		out := []any{}
		for i, e := range v {
			if p, no := hidden(i); !no {
				out = append(out, visible(e, p, redacted, shown))
			}
		}
		return out
	}
	return v
}

// drawDecoys draws decoys for some objects and arrays of the claims.
func drawDecoys(t *rapid.T, claims any) []sdjwt.Decoy {
	decoys := []sdjwt.Decoy{{Count: rapid.IntRange(0, 3).Draw(t, "decoys")}}
	for _, p := range allPaths(claims, nil) {
		if n := rapid.IntRange(0, 8).Draw(t, "decoys"); n < 3 && container(claims, p) {
			decoys = append(decoys, sdjwt.Decoy{At: p, Count: n})
		}
	}
	return decoys
}

func container(v any, p sdjwt.Path) bool {
	for _, step := range p {
		switch at := v.(type) {
		case *jose.Object:
			v, _ = at.Get(step.(string))
		case []any:
			v = at[step.(int)]
		}
	}
	switch v.(type) {
	case *jose.Object, []any:
		return true
	}
	return false
}

// TestSelectiveDisclosure: whatever the claims, what is redacted and what is
// disclosed, the verifier gets exactly the claims that are plain or shown.
func TestSelectiveDisclosure(t *testing.T) {
	key, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	p := boundPolicy(key.Public())
	p.VC, p.Types, p.Limits = false, []string{"test+sd-jwt"}, sdjwt.Limits{Octets: 1 << 22, Disclosures: 1 << 12}
	v := newVerifier(t, p)
	issuer := issuerOf(key)
	issuer.Type, issuer.Limits = "test+sd-jwt", p.Limits
	rapid.Check(t, func(t *rapid.T) {
		claims := drawObject(t, 3, "c")
		issuer.Hash = rapid.SampledFrom([]string{"sha-256", "sha-384", "sha-512"}).Draw(t, "hash")
		redacted, shown := make(map[string]bool), make(map[string]bool)
		req := sdjwt.Request{Claims: jose.AppendJSON(nil, claims), Decoys: drawDecoys(t, claims), Holder: holder.Public()}
		show := sdjwt.Presentation{Key: holder, Audience: audience, Nonce: nonce, IssuedAt: now}
		for _, path := range allPaths(claims, nil) {
			if !rapid.Bool().Draw(t, "redact") {
				continue
			}
			redacted[path.String()] = true
			req.Redact = append(req.Redact, path)
			if rapid.Bool().Draw(t, "disclose") {
				show.Disclose = append(show.Disclose, path)
				for n := range path {
					shown[path[:n+1].String()] = true
				}
			}
		}
		token, err := issuer.Issue(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		cred, err := v.Receive(context.Background(), token.String(), holder.Public())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(cred.Disclosable()); n != len(req.Redact) {
			t.Fatalf("%d disclosable, %d redacted", n, len(req.Redact))
		}
		presented, err := cred.Present(context.Background(), show)
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Verify(context.Background(), presented.String(), sdjwt.Expect{Nonce: nonce})
		if err != nil {
			t.Fatal(err)
		}
		want := visible(claims, nil, redacted, shown).(*jose.Object)
		for _, name := range []string{"iss", "cnf"} {
			value, _ := got.Claims.Get(name)
			plain, err := jose.ParseJSON(string(value), 4)
			if err != nil {
				t.Fatal(err)
			}
			want.Add(name, plain)
		}
		if !got.Claims.Equal(jose.AppendJSON(nil, want)) {
			t.Fatalf("claims %s\nwant %s", got.Claims.JSON(), jose.AppendJSON(nil, want))
		}
	})
}
