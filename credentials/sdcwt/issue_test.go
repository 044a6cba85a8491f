package sdcwt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

func baseClaims(t testing.TB) sdcwt.Claims {
	return sdcwt.Claims{
		1: exampleIssuer, 2: "https://holder.example", 4: exampleNow.Unix() + 1000, 6: exampleNow.Unix() - 500,
		7: []byte("0123456789abcdef"), 8: cnfOf(t, holderKey.Public()),
	}
}

func exampleIssuerWith(change func(*sdcwt.Issuer)) *sdcwt.Issuer {
	i := &sdcwt.Issuer{Key: issuerKey, KeyID: []byte("https://issuer.example/cose-key3")}
	if change != nil {
		change(i)
	}
	return i
}

func TestIssuePresentVerify(t *testing.T) {
	ctx := context.Background()
	for _, hash := range []sdcwt.Hash{0, sdcwt.SHA256, sdcwt.SHA512_256, sdcwt.SHA384, sdcwt.SHA512} {
		claims := baseClaims(t)
		claims[sdcwt.Redact(501)] = "ABCD-123456"
		claims[sdcwt.Redact("address")] = map[any]any{"country": "us", sdcwt.Redact("region"): "ca", sdcwt.Decoy(1): nil}
		claims[502] = []any{sdcwt.Redact(1549560720), sdcwt.Decoy(2), 1674004740}
		token, err := exampleIssuerWith(func(i *sdcwt.Issuer) { i.Hash, i.Profile = hash, sdcwt.DeviceProfile() }).Issue(ctx, claims)
		if err != nil {
			t.Fatal(err)
		}
		c, err := exampleHolder().Accept(ctx, token)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Disclosures()) != 6 {
			t.Fatalf("%d disclosures", len(c.Disclosures()))
		}
		for _, d := range c.Disclosures() {
			if d.Key() == "region" && (fmt.Sprint(d.Path()) != "[address region]" || d.Parent() == nil || d.Parent().Key() != "address") {
				t.Errorf("region is at %v", d.Path())
			}
			if d.IsElement() && fmt.Sprint(d.Path()) != "[502 0]" {
				t.Errorf("the element is at %v", d.Path())
			}
		}
		kbt, err := c.Present(ctx, holderKey, sdcwt.Presentation{Audience: exampleAud, IssuedAt: exampleNow, Nonce: exampleNonce, Disclose: sdcwt.Keys("address")})
		if err != nil {
			t.Fatal(err)
		}
		v := strictVerifier()
		v.Profile = sdcwt.DeviceProfile()
		got, err := v.Verify(ctx, kbt)
		if err != nil {
			t.Fatal(err)
		}
		if region, _ := got.Claims.Get("address"); fmt.Sprint(region) != "map[country:us region:ca]" || got.Claims.Has(501) || got.Redacted != 4 {
			t.Errorf("hash %d: claims %v, %d closed", hash, got.Claims, got.Redacted)
		}
		if want := max(hash, -16); hash != 0 && got.Hash != hash || hash == 0 && got.Hash != want && got.Hash != sdcwt.SHA256 {
			t.Errorf("hash %d, want %d", got.Hash, hash)
		}
	}
}

func TestIssuerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		want   credentials.Code
		change func(c sdcwt.Claims, i *sdcwt.Issuer)
	}{
		"redacted iss":           {"disclosure-forbidden-key", func(c sdcwt.Claims, _ *sdcwt.Issuer) { delete(c, 1); c[sdcwt.Redact(1)] = exampleIssuer }},
		"redacted status":        {"disclosure-forbidden-key", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[sdcwt.Redact(65535)] = map[any]any{} }},
		"redacted inside status": {"disclosure-forbidden-key", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[65535] = map[any]any{sdcwt.Redact("x"): 1} }},
		"key and redacted key":   {"malformed", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[500] = 1; c[sdcwt.Redact(500)] = 2 }},
		"key and redacted key among many": {"malformed", func(c sdcwt.Claims, _ *sdcwt.Issuer) {
			for n := range 40 {
				c[fmt.Sprint(n)], c[sdcwt.Redact(1000+n)] = n, n
			}
			c[sdcwt.Redact("39")] = 2
		}},
		"simple(59) as a redacted value": {"hash-shape", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[sdcwt.Redact(600)] = simple59 }},
		"no randomness": {"hash-duplicate", func(c sdcwt.Claims, i *sdcwt.Issuer) {
			c[600], i.Rand = []any{sdcwt.Decoy(1), map[any]any{sdcwt.Decoy(2): nil}}, zeros{}
		}},
		"no salts":                {"", func(c sdcwt.Claims, i *sdcwt.Issuer) { c[sdcwt.Decoy(1)], i.Rand = nil, strings.NewReader("short") }},
		"decoy number twice":      {"malformed", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[600] = []any{sdcwt.Decoy(1)}; c[sdcwt.Decoy(1)] = nil }},
		"decoy zero":              {"claims-key", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[sdcwt.Decoy(0)] = nil }},
		"decoy with a value":      {"claim-type", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[sdcwt.Decoy(1)] = 1 }},
		"nested tags on a key":    {"claims-key", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[sdcwt.Redact(sdcwt.Redact(5))] = 1 }},
		"redacted bool key":       {"claims-key", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[sdcwt.Redact(true)] = 1 }},
		"tag 60 before issuance":  {"hash-shape", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[600] = []any{tag(60, h32(1))} }},
		"tag 58 outside an array": {"hash-shape", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[600] = tag(58, 1) }},
		"too deep":                {"depth", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[600] = nest(16, 1) }},
		"too deep, redacted":      {"depth", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[sdcwt.Redact(600)] = nest(16, 1) }},
		"no iss":                  {"claim-missing", func(c sdcwt.Claims, _ *sdcwt.Issuer) { delete(c, 1) }},
		"no sub":                  {"claim-missing", func(c sdcwt.Claims, _ *sdcwt.Issuer) { delete(c, 2) }},
		"no cnf":                  {"claim-missing", func(c sdcwt.Claims, _ *sdcwt.Issuer) { delete(c, 8) }},
		"bad cnf":                 {"cnf-unsupported", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[8] = map[any]any{} }},
		"times":                   {"time-order", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[4] = c[6] }},
		"sd_alg":                  {"sd-alg", func(_ sdcwt.Claims, i *sdcwt.Issuer) { i.Hash = -14 }},
		"sd_aead":                 {"alg", func(_ sdcwt.Claims, i *sdcwt.Issuer) { i.AEAD = 5 }},
		"typ":                     {"sdcwt-typ", func(_ sdcwt.Claims, i *sdcwt.Issuer) { i.Type = "application/cwt" }},
		"profile: no cti":         {"claim-missing", func(c sdcwt.Claims, i *sdcwt.Issuer) { i.Profile = sdcwt.DeviceProfile(); delete(c, 7) }},
		"profile: short cti":      {"claim-type", func(c sdcwt.Claims, i *sdcwt.Issuer) { i.Profile = sdcwt.DeviceProfile(); c[7] = []byte{1} }},
		"profile: redacted sub": {"claim-missing", func(c sdcwt.Claims, i *sdcwt.Issuer) {
			i.Profile = sdcwt.DeviceProfile()
			delete(c, 2)
			c[sdcwt.Redact(2)] = "x"
		}},
		"profile: thumbprint": {"cnf-unsupported", func(c sdcwt.Claims, i *sdcwt.Issuer) {
			i.Profile = sdcwt.DeviceProfile()
			c[8] = map[any]any{5: h32(1)}
		}},
		"profile: vct": {"policy", func(c sdcwt.Claims, i *sdcwt.Issuer) { i.Profile = &sdcwt.Profile{VCT: []any{"a", 7}}; c[11] = "b" }},
		"too many": {"malformed", func(c sdcwt.Claims, i *sdcwt.Issuer) {
			for n := range uint64(257) {
				c[sdcwt.Decoy(n+1)] = nil
			}
		}},
		"Go value without CBOR": {"malformed", func(c sdcwt.Claims, _ *sdcwt.Issuer) { c[600] = struct{}{} }},
	} {
		t.Run(name, func(t *testing.T) {
			claims, i := baseClaims(t), exampleIssuerWith(nil)
			c.change(claims, i)
			_, err := i.Issue(context.Background(), claims)
			wantCode(t, err, c.want)
		})
	}
	_, err := exampleIssuerWith(nil).IssueCBOR(context.Background(), unhex("a2d83a1901f401d83a1901f402"))
	wantCode(t, err, credentials.CodeMalformed)
}

func TestProfileSeesADisclosedSubject(t *testing.T) {
	m := newMade(t)
	delete(m.payload, 2)
	m.redact(t, "https://holder.example", 2)
	v := strictVerifier()
	v.Profile = &sdcwt.Profile{Clear: []int64{2}}
	_, err := v.Verify(context.Background(), m.token(t))
	wantCode(t, err, credentials.CodeDisclosureForbiddenKey)
}

func TestThumbprintConfirmation(t *testing.T) {
	claims := baseClaims(t)
	cnf, err := credentials.CWTThumbprintConfirmation(holderKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	if claims[8], err = sdcwt.CBOR(cnf); err != nil {
		t.Fatal(err)
	}
	token, err := exampleIssuerWith(nil).Issue(context.Background(), claims)
	if err != nil {
		t.Fatal(err)
	}
	c, err := exampleHolder().Accept(context.Background(), token)
	if err != nil {
		t.Fatal(err)
	}
	kbt, err := c.Present(context.Background(), holderKey, sdcwt.Presentation{Audience: exampleAud, IssuedAt: exampleNow})
	if err != nil {
		t.Fatal(err)
	}
	v := exampleVerifier()
	_, err = v.Verify(context.Background(), kbt)
	wantCode(t, err, credentials.CodeCnfUnsupported)
	v.ConfirmationKey = issuerKey.Public()
	_, err = v.Verify(context.Background(), kbt)
	wantCode(t, err, credentials.CodeCnfLeafMismatch)
	v.ConfirmationKey = holderKey.Public()
	if _, err = v.Verify(context.Background(), kbt); err != nil {
		t.Error(err)
	}
}

func TestEncryptedDisclosures(t *testing.T) {
	ctx := context.Background()
	for aead, size := range map[sdcwt.AEAD]int{0: 16, sdcwt.AES128GCM: 16, sdcwt.AES256GCM: 32, sdcwt.ChaCha20Poly1305: 32} {
		for _, keyContext := range []any{nil, uint64(7), "inner", []byte("thumbprint")} {
			key := bytes.Repeat([]byte{3}, size)
			claims := baseClaims(t)
			claims[sdcwt.Redact(501)] = map[any]any{sdcwt.Redact("in"): 1}
			claims[sdcwt.Redact(502)] = "clear"
			token, err := exampleIssuerWith(func(i *sdcwt.Issuer) { i.AEAD = aead }).Issue(ctx, claims)
			if err != nil {
				t.Fatal(err)
			}
			c, err := exampleHolder().Accept(ctx, token)
			if err != nil {
				t.Fatal(err)
			}
			kbt, err := c.Present(ctx, holderKey, sdcwt.Presentation{Audience: exampleAud, IssuedAt: exampleNow, Disclose: sdcwt.All,
				Encrypt: func(d *sdcwt.Disclosure) *sdcwt.DisclosureKey {
					if d.Path()[0] == int64(501) {
						return &sdcwt.DisclosureKey{Key: key, Context: keyContext}
					}
					return nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			v := exampleVerifier()
			outer, err := v.Verify(ctx, kbt)
			if err != nil || outer.Claims.Has(501) || !outer.Claims.Has(502) || outer.Undecrypted != 2 {
				t.Fatalf("without the key: %+v, %v", outer, err)
			}
			v.Decrypt = func(_ context.Context, got any, _ []byte) ([]byte, bool) {
				return key, fmt.Sprint(got) == fmt.Sprint(keyContext)
			}
			inner, err := v.Verify(ctx, kbt)
			if err != nil || fmt.Sprint(inner.Claims.Native()[int64(501)]) != "map[in:1]" || inner.Undecrypted != 0 {
				t.Fatalf("with the key: %+v, %v", inner, err)
			}
		}
	}
}

// drawClaims draws a value with marks at random places. What verifiers must see
// of it when everything is disclosed comes second.
func drawClaims(t *rapid.T, depth int, decoys *uint64) (marked, plain any) {
	kind := rapid.IntRange(0, 5).Draw(t, "kind")
	if depth == 0 {
		kind = min(kind, 3)
	}
	switch kind {
	case 0:
		n := rapid.Int64().Draw(t, "n")
		return n, n
	case 1:
		s := rapid.StringN(0, 8, 20).Draw(t, "s")
		return s, s
	case 2:
		b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "b")
		return b, b
	case 3:
		b := rapid.Bool().Draw(t, "bool")
		return b, b
	case 4:
		m, p := []any{}, []any{}
		for range rapid.IntRange(0, 4).Draw(t, "elements") {
			e, pe := drawClaims(t, depth-1, decoys)
			switch rapid.IntRange(0, 3).Draw(t, "mark") {
			case 0:
				e = sdcwt.Redact(e)
			case 1:
				*decoys++
				m = append(m, sdcwt.Decoy(*decoys))
			}
			m, p = append(m, e), append(p, pe)
		}
		return m, p
	}
	m, p := map[any]any{}, map[any]any{}
	for range rapid.IntRange(0, 4).Draw(t, "pairs") {
		key := any(rapid.Int64Range(-5, 700).Draw(t, "key"))
		if rapid.Bool().Draw(t, "text key") {
			key = rapid.StringN(0, 5, 20).Draw(t, "key")
		}
		if _, there := p[key]; there {
			continue
		}
		v, pv := drawClaims(t, depth-1, decoys)
		p[key] = pv
		switch rapid.IntRange(0, 3).Draw(t, "mark") {
		case 0:
			m[sdcwt.Redact(key)] = v
		case 1:
			*decoys++
			m[sdcwt.Decoy(*decoys)] = nil
			m[key] = v
		default:
			m[key] = v
		}
	}
	return m, p
}

// Whatever is issued can be opened by its holder, presented whole, in part or
// not at all, and verified; and whole it is what the issuer was given.
func TestIssuePresentVerifyProperty(t *testing.T) {
	ctx := context.Background()
	base := baseClaims(t)
	rapid.Check(t, func(rt *rapid.T) {
		var decoys uint64
		marked, plain := drawClaims(rt, 4, &decoys)
		claims, want := sdcwt.Claims{}, sdcwt.Claims{}
		for k, v := range base {
			claims[k], want[k] = v, v
		}
		claims[sdcwt.Redact("drawn")], want["drawn"] = marked, plain
		token, err := exampleIssuerWith(func(i *sdcwt.Issuer) { i.Key, i.MaxDisclosures = edKey, 1000 }).Issue(ctx, claims)
		if err != nil {
			rt.Fatal(err)
		}
		issuers := &sdcwt.StaticIssuer{Issuer: exampleIssuer, Keys: []sdcwt.StaticKey{{Public: edKey.Public()}}}
		h := exampleHolder()
		h.Issuers, h.MaxDisclosures = issuers, 1000
		c, err := h.Accept(ctx, token)
		if err != nil {
			rt.Fatal(err)
		}
		all, err := sdcwt.EncodeClaims(want)
		if err != nil {
			rt.Fatal(err)
		}
		v := exampleVerifier()
		v.Issuers, v.MaxDisclosures = issuers, 1000
		choices := rapid.SliceOfN(rapid.Bool(), len(c.Disclosures()), len(c.Disclosures())).Draw(rt, "chosen")
		chosen := map[*sdcwt.Disclosure]bool{}
		for i, d := range c.Disclosures() {
			chosen[d] = choices[i]
		}
		some := func(d *sdcwt.Disclosure) bool {
			for ; d != nil; d = d.Parent() {
				if !chosen[d] {
					return false
				}
			}
			return true
		}
		for i, disclose := range []func(*sdcwt.Disclosure) bool{nil, some, sdcwt.All} {
			kbt, err := c.Present(ctx, holderKey, sdcwt.Presentation{Audience: exampleAud, IssuedAt: exampleNow, Disclose: disclose})
			if err != nil {
				rt.Fatal(err)
			}
			got, err := v.Verify(ctx, kbt)
			if err != nil {
				rt.Fatal(err)
			}
			if disclose == nil && got.Claims.Has("drawn") {
				rt.Fatal("what was not disclosed is there")
			}
			if i == 2 && (got.Redacted != int(decoys) || !bytes.Equal(got.Claims.CBOR(), all)) {
				rt.Fatalf("claims %v, want %x", got.Claims, all)
			}
		}
	})
}

func TestPresentRefuses(t *testing.T) {
	ctx := context.Background()
	c, err := exampleHolder().Accept(ctx, example(t, "08-issuer_cwt"))
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		p    sdcwt.Presentation
		want credentials.Code
	}{
		"no audience":         {sdcwt.Presentation{IssuedAt: exampleNow}, "kbt-claims"},
		"neither iat nor id":  {sdcwt.Presentation{Audience: "a"}, "kbt-claims"},
		"exp without iat":     {sdcwt.Presentation{Audience: "a", CWTID: []byte("1"), Expires: exampleNow}, "kbt-claims"},
		"outlives the SD-CWT": {sdcwt.Presentation{Audience: "a", IssuedAt: exampleNow, Expires: exampleNow.Add(30 * 24 * time.Hour)}, "kbt-time"},
		"before the SD-CWT":   {sdcwt.Presentation{Audience: "a", IssuedAt: exampleNow.Add(-time.Hour)}, "kbt-time"},
	} {
		_, err := c.Present(ctx, holderKey, x.p)
		if code := credentials.CodeOf(err); code != x.want {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
	_, err = c.Present(ctx, edKey, sdcwt.Presentation{Audience: "a", IssuedAt: exampleNow})
	wantCode(t, err, credentials.CodeCnfLeafMismatch)
}

// zeros is a random source that is not one.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Tokens of one Issuer that are made at the same time, and after one that was
// refused half-way, have nothing of each other.
func TestIssueAtTheSameTime(t *testing.T) {
	issuer := exampleIssuerWith(func(i *sdcwt.Issuer) { i.Key = edKey })
	verifier := exampleVerifier()
	verifier.Issuers = &sdcwt.StaticIssuer{Issuer: exampleIssuer, Keys: []sdcwt.StaticKey{{Public: edKey.Public()}}}
	base := baseClaims(t)
	issue := func(who int) error {
		for n := range 30 {
			claims, want := maps.Clone(base), maps.Clone(base)
			for i := range 1 + (who*7+n)%20 {
				text := fmt.Sprintf("%d of token %d of %d", i, n, who)
				claims[sdcwt.Redact(1000+i)], want[1000+i] = []any{sdcwt.Redact(text), i}, []any{text, i}
			}
			if n%5 == 4 {
				claims[sdcwt.Redact("bad")] = []any{simple59}
				if _, err := issuer.Issue(t.Context(), claims); err == nil {
					return errors.New("simple(59) was issued")
				}
				continue
			}
			token, err := issuer.Issue(t.Context(), claims)
			if err != nil {
				return err
			}
			got, err := verifier.VerifyIssued(t.Context(), token)
			if err != nil {
				return err
			}
			all, err := sdcwt.EncodeClaims(want)
			if err != nil || !bytes.Equal(got.Claims.CBOR(), all) {
				return fmt.Errorf("claims %v, want %x (%v)", got.Claims, all, err)
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

// Issued tokens are in core deterministic encoding throughout.
func TestIssuedIsDeterministic(t *testing.T) {
	claims := baseClaims(t)
	claims[sdcwt.Redact(501)], claims[sdcwt.Redact("z")], claims[sdcwt.Decoy(1)] = 1, 2, nil
	token, err := exampleIssuerWith(nil).Issue(context.Background(), claims)
	if err != nil {
		t.Fatal(err)
	}
	strict := dcbor.Limits{Deterministic: true}
	s, err := cose.DecodeSign1(token, strict)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := strict.Decode(s.Payload)
	if err != nil {
		t.Fatal(err)
	}
	hashes, _ := payload.Get(simple59).Elements()
	for i := 1; i < len(hashes); i++ {
		if bytes.Compare(hashes[i-1].Raw(), hashes[i].Raw()) >= 0 {
			t.Error("the hashes are not sorted")
		}
	}
	if alg, _ := s.Alg(); alg != -51 || len(hashes) != 3 {
		t.Errorf("alg %d, %d hashes", alg, len(hashes))
	}
}

func TestEveryPrefixIsRefused(t *testing.T) {
	for _, name := range []string{"08-kbt", "pre08-nested_kbt"} {
		token := example(t, name)
		for n := range token {
			if _, err := exampleVerifier().Verify(context.Background(), token[:n]); credentials.CodeOf(err) != credentials.CodeMalformed {
				t.Fatalf("%s cut at %d: %v", name, n, err)
			}
		}
	}
}

// Every single bit of a KBT is covered by a check.
func TestEveryBitCounts(t *testing.T) {
	token := example(t, "08-kbt")
	for i := range token {
		changed := bytes.Clone(token)
		changed[i] ^= 1 << (i % 8)
		if _, err := exampleVerifier().Verify(context.Background(), changed); err == nil || credentials.CodeOf(err) == "" {
			t.Errorf("octet %d changed: %v", i, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, name := range []string{"08-kbt", "pre08-kbt", "pre08-nested_kbt", "08-issuer_cwt", "08-decoy", "08-nested_issuer_cwt"} {
		f.Add(example(f, name))
	}
	f.Add(newMade(f).token(f))
	v := exampleVerifier()
	known := map[string]bool{}
	for _, name := range []string{"08-kbt", "pre08-kbt", "pre08-nested_kbt"} {
		known[string(example(f, name))] = true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := v.Verify(context.Background(), data)
		if err == nil && !known[string(data)] && !bytes.Contains(data, []byte("0123456789abcdef")) {
			t.Fatalf("accepted %x", data)
		}
		if err != nil && credentials.CodeOf(err) == "" {
			t.Fatalf("%T: %v", err, err)
		}
	})
}

// FuzzParseCredential reaches what a signature guards from FuzzVerify.
func FuzzParseCredential(f *testing.F) {
	for _, name := range []string{"08-issuer_cwt", "08-decoy", "08-nested_issuer_cwt", "pre08-issuer_cwt"} {
		f.Add(example(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := sdcwt.ParseCredential(data)
		if err != nil {
			if credentials.CodeOf(err) == "" {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if !bytes.Equal(c.Octets(), data) {
			t.Fatal("other octets")
		}
		if _, err := (dcbor.Limits{Deterministic: true, Size: 1 << 20, Depth: 64}).Decode(c.Claims().CBOR()); err != nil {
			t.Fatalf("claims %v: %v", c.Claims(), err)
		}
	})
}

// FuzzIssue issues claims sets from outside.
func FuzzIssue(f *testing.F) {
	f.Add(unhex("a201617802a1d83a6161f5"))
	f.Add(unhex("a21901f682d83a1a5c5c6b90d83e01d83e02f6"))
	base := baseClaims(f)
	issuer := exampleIssuerWith(nil)
	issuer.Key = edKey
	h := exampleHolder()
	h.Issuers = &sdcwt.StaticIssuer{Issuer: exampleIssuer, Keys: []sdcwt.StaticKey{{Public: edKey.Public()}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := sdcwt.CBOR(data)
		if err != nil {
			return
		}
		claims := sdcwt.Claims{"fuzz": x}
		for k, v := range base {
			claims[k] = v
		}
		token, err := issuer.Issue(context.Background(), claims)
		if err != nil {
			if credentials.CodeOf(err) == "" {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if _, err := h.Accept(context.Background(), token); err != nil {
			t.Fatalf("the holder refuses what was issued: %v", err)
		}
	})
}
