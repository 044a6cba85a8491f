package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/policy"
	"github.com/privyseal/privyseal/signer/signertest"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// parse compiles one rule of each effect from expressions; "" leaves it out.
func parse(t testing.TB, deny, allow string) *policy.Policy {
	t.Helper()
	var rules []string
	for _, r := range [][2]string{{"deny", deny}, {"allow", allow}} {
		if r[1] != "" {
			rules = append(rules, fmt.Sprintf(`{"id":"the-%s","effect":%q,"when":%q,"message":"because"}`, r[0], r[0], r[1]))
		}
	}
	p, err := policy.Parse([]byte(`{"version":1,"rules":[` + strings.Join(rules, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func describe(t testing.TB, r *signer.Request, err error) *policy.Input {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	in := &policy.Input{Now: now, Caller: policy.Caller{Tenant: "acme", Name: "bot-1", Role: "client"},
		Key: policy.Key{Name: "leaf", Purpose: "mls-leaf", Version: 2, Labels: map[string]string{"env": "prod"}}}
	if err := in.Describe(r); err != nil {
		t.Fatal(err)
	}
	return in
}

func b64(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b)) }

func certificate(t testing.TB) *policy.Input {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(255), Subject: pkix.Name{CommonName: "web"}, NotBefore: now, NotAfter: now.AddDate(0, 1, 0),
		DNSNames: []string{"a.example", "b.example"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	r, err := signer.ParseRequest(c.RawTBSCertificate)
	return describe(t, r, err)
}

// TestFieldsOfEachShape writes one rule per shape that holds, and shows that
// it stops holding when the request differs.
func TestFieldsOfEachShape(t *testing.T) {
	mls := func(label string, content []byte) *policy.Input {
		r, err := signer.MLSRequest(label, content)
		return describe(t, r, err)
	}
	jws := func(payload string) *policy.Input {
		r, err := signer.JWSRequest([]byte(`{"alg":"ES256","typ":"sd-jwt","kid":"k1"}`), []byte(payload))
		return describe(t, r, err)
	}
	cose := func(claims map[int]any) *policy.Input {
		payload, err := cbor.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		r, err := signer.COSERequest([]byte{0xa1, 0x01, 0x26}, nil, payload)
		return describe(t, r, err)
	}
	checkpoint := func(size int) *policy.Input {
		r, err := signer.ParseRequest(fmt.Appendf(nil, "log.example\n%d\n%s\n", size, strings.Repeat("A", 43)+"="))
		return describe(t, r, err)
	}
	for _, c := range []struct {
		name, rule string
		yes, no    *policy.Input
	}{
		{"mls", `request.shape == 'mls' && mls.label == 'FramedContentTBS' && mls.content_type == 'application' && mls.epoch >= 7u && mls.group == b'room' && mls.sender == 'member'`,
			mls("FramedContentTBS", signertest.ApplicationTBS("room", 7, "x")), mls("FramedContentTBS", signertest.CommitTBS("room", 7, "x"))},
		{"credential", `mls.credential_type == 1 && mls.identity == b'alice' && mls.leaf == 'key_package'`,
			mls("KeyPackageTBS", signertest.KeyPackageTBS("alice")), mls("KeyPackageTBS", signertest.KeyPackageTBS("bob"))},
		{"jws", `header.kid == 'k1' && has(claims.exp) && claims.exp < int(now) + 3600 && claims.cnf.n == 1.5 && 'a' in claims.list`,
			jws(fmt.Sprintf(`{"exp":%d,"cnf":{"n":1.5},"list":["a"]}`, now.Unix()+60)), jws(fmt.Sprintf(`{"exp":%d,"cnf":{"n":1.5},"list":["a"]}`, now.Unix()+7200))},
		{"cose", `cose.alg == -7 && header[1] == -7 && claims[1] == 'issuer' && claims[4] > int(now)`,
			cose(map[int]any{1: "issuer", 4: now.Unix() + 5}), cose(map[int]any{1: "other", 4: now.Unix() + 5})},
		{"certificate", `certificate.not_after - certificate.not_before < duration('800h') && certificate.dns_names.all(d, d.endsWith('.example')) && 'serverAuth' in certificate.ext_key_usage && certificate.key_usage == ['digitalSignature'] && !certificate.is_ca && certificate.serial == 'ff' && certificate.key_type == 'P-256'`,
			certificate(t), mls("LeafNodeTBS", signertest.LeafNodeTBS("x"))},
		{"checkpoint", `checkpoint.origin == 'log.example' && checkpoint.size > 10u`, checkpoint(11), checkpoint(10)},
		{"caller and key", `caller.tenant == 'acme' && caller.name.matches('^bot-[0-9]+$') && caller.role == 'client' && key.labels['env'] == 'prod' && key.version == 2 && now.getHours() == 12 && mls.epoch == 7u`,
			mls("GroupInfoTBS", signertest.GroupInfoTBS("room", 7)), mls("GroupInfoTBS", signertest.GroupInfoTBS("room", 8))},
	} {
		p := parse(t, "", c.rule)
		if rule, err := p.Decide(c.yes); err != nil || rule != "the-allow" {
			t.Errorf("%s: %q, %v", c.name, rule, err)
		}
		if _, err := p.Decide(c.no); !errors.As(err, new(*policy.Denial)) {
			t.Errorf("%s: the other request passed: %v", c.name, err)
		}
		// As a deny rule it refuses what it holds for, whatever allows.
		_, err := parse(t, c.rule, "true").Decide(c.yes)
		if d, ok := errors.AsType[*policy.Denial](err); !ok || d.Rule != "the-deny" || d.Message != "because" || len(d.Policy) != 64 {
			t.Errorf("%s as a deny rule: %v", c.name, err)
		}
	}
}

func TestUndecidedIsRefused(t *testing.T) {
	r, err := signer.JWSRequest([]byte(`{"alg":"ES256"}`), []byte(`{"list":`+"["+strings.Repeat("1,", 4999)+"1]}"))
	in := describe(t, r, err)
	for _, expr := range []string{
		`claims.absent == 'x'`,                           // no such key
		`claims.list[9999] == 1`,                         // no such index
		`claims.list.all(a, claims.list.all(b, b == a))`, // too much work
		`int(jws.alg) == 1`,                              // no number
		`claims.list`,                                    // no bool, known only when it runs
	} {
		p, err := policy.Parse(fmt.Appendf(nil, `{"version":1,"rules":[{"id":"r","effect":"deny","when":["false || dyn(%s)"]},{"id":"a","effect":"allow","when":"true"}]}`, expr))
		if err != nil {
			p = parse(t, expr, "true")
		}
		_, err = p.Decide(in)
		if d, ok := errors.AsType[*policy.Denial](err); !ok || d.Err == nil {
			t.Errorf("%s: %v", expr, err)
		}
	}
}

// A rule's work is bounded by what the request holds, not by its text: one that
// may be long is counted while it runs, and ends.
func TestWorkIsBounded(t *testing.T) {
	list := make([]any, 2000)
	for i := range list {
		list[i] = int64(i)
	}
	in := &policy.Input{Now: now, Claims: policy.Map{"list": list}}
	p := parse(t, "claims.list.exists(x, claims.list.exists(y, x + y == -1))", "true")
	_, err := p.Decide(in)
	denial, ok := errors.AsType[*policy.Denial](err)
	if !ok || denial.Err == nil || !strings.Contains(denial.Err.Error(), "cost limit") {
		t.Fatalf("%v", err)
	}
	in.Claims["list"] = list[:10]
	if rule, err := p.Decide(in); err != nil || rule != "the-allow" {
		t.Errorf("a short list: %q, %v", rule, err)
	}
}

func TestParseRefuses(t *testing.T) {
	one := func(id, effect, when string) string {
		return fmt.Sprintf(`{"version":1,"rules":[{"id":%q,"effect":%q,"when":%q}]}`, id, effect, when)
	}
	for name, text := range map[string]string{
		"unknown member":     `{"version":1,"rules":[],"x":1}`,
		"member twice":       `{"version":1,"version":1,"rules":[]}`,
		"version":            `{"version":2,"rules":[]}`,
		"effect":             one("a", "maybe", "true"),
		"id":                 one("A b", "allow", "true"),
		"id twice":           `{"version":1,"rules":[{"id":"a","effect":"deny","when":"true"},{"id":"a","effect":"deny","when":"true"}]}`,
		"no when":            `{"version":1,"rules":[{"id":"a","effect":"deny"}]}`,
		"syntax":             one("a", "allow", "mls.label =="),
		"misspelled field":   one("a", "allow", "mls.lable == 'x'"),
		"unknown variable":   one("a", "allow", "msl.label == 'x'"),
		"type":               one("a", "allow", "mls.label == 1"),
		"no bool":            one("a", "allow", "mls.label"),
		"too long":           one("a", "allow", "'"+strings.Repeat("x", 5000)+"' == 'x'"),
		"too deep":           one("a", "allow", strings.Repeat("[", 100)+strings.Repeat("]", 100)+" == []"),
		"too many nodes":     one("a", "allow", "1"+strings.Repeat("+1", 1200)+" == 1"),
		"regular expression": one("a", "allow", "mls.label.matches('(')"),
	} {
		if _, err := policy.Parse([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestVersionIsTheHashOfTheFile(t *testing.T) {
	a, b := parse(t, "", "true"), parse(t, "", "true")
	c, err := policy.Parse([]byte(`{"version":1, "rules":[]}`))
	if err != nil || a.Version() != b.Version() || a.Version() == c.Version() || len(a.Version()) != 64 {
		t.Errorf("versions %s, %s, %s, %v", a.Version(), b.Version(), c.Version(), err)
	}
	if _, err := c.Decide(&policy.Input{}); err == nil {
		t.Error("a policy without rules allowed something")
	}
	if rule, err := policy.AllowAll().Decide(&policy.Input{}); err != nil || rule != "no-policy" {
		t.Errorf("AllowAll: %q, %v", rule, err)
	}
}

func TestCases(t *testing.T) {
	p := parse(t, "mls.content_type == 'commit'", "caller.tenant == 'acme'")
	r, err := signer.MLSRequest("FramedContentTBS", signertest.CommitTBS("room", 1, ""))
	if err != nil {
		t.Fatal(err)
	}
	file := fmt.Appendf(nil, `{"version":1,"cases":[
		{"name":"fields","input":{"caller":{"tenant":"acme"},"mls":{"content_type":"application"},"claims":{"exp":1}},"expect":"allow","rule":"the-allow"},
		{"name":"octets","input":{"caller":{"tenant":"acme"}},"octets":"%s","expect":"deny","rule":"the-deny"},
		{"name":"no such shape","input":{},"octets":"AAAA","expect":"deny"},
		{"name":"wrong expectation","input":{"caller":{"tenant":"other"}},"expect":"allow"},
		{"name":"wrong rule","input":{"caller":{"tenant":"other"}},"expect":"deny","rule":"the-deny"}
	]}`, b64(r.Octets()))
	cases, err := policy.ParseCases(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, true, false, false} {
		if got := cases[i].Run(p, now); got.Passed != want {
			t.Errorf("%s: %+v", cases[i].Name, got)
		}
	}
	for _, bad := range []string{`{"version":1,"cases":[]}`, `{"version":1,"cases":[{"name":"x","input":{"mls":{"lable":"x"}},"expect":"allow"}]}`, `{"version":1,"cases":[{"name":"x","expect":"perhaps"}]}`} {
		if _, err := policy.ParseCases([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"rules":[{"id":"a","effect":"allow","when":["mls.label == 'x'","key.labels['env'] == 'prod'"]}]}`))
	f.Add([]byte(`{"version":1,"rules":[{"id":"a","effect":"deny","when":"claims.sub.matches('a+')"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := policy.Parse(b)
		if err != nil {
			return
		}
		if _, err := p.Decide(&policy.Input{Now: now}); err != nil && !errors.As(err, new(*policy.Denial)) {
			t.Fatalf("%T: %v", err, err)
		}
	})
}

func FuzzParseCases(f *testing.F) {
	f.Add([]byte(`{"version":1,"cases":[{"name":"a","input":{"mls":{"epoch":1}},"octets":"AAAA","expect":"allow"}]}`))
	p := policy.AllowAll()
	f.Fuzz(func(t *testing.T, b []byte) {
		cases, err := policy.ParseCases(b)
		if err != nil {
			return
		}
		for _, c := range cases {
			c.Run(p, now)
		}
	})
}

func FuzzDescribe(f *testing.F) {
	for _, c := range []struct{ header, payload string }{{`{"alg":"ES256"}`, `{"a":[1,2.5,1e400,{"b":null}]}`}} {
		r, err := signer.JWSRequest([]byte(c.header), []byte(c.payload))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Octets())
	}
	r, err := signer.COSERequest([]byte{0xa1, 0x01, 0x26}, nil, []byte{0xa2, 0x01, 0x61, 0x61, 0x41, 0x01, 0xc1, 0x1a, 0, 0, 0, 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Octets())
	p := parse(f, "claims.exists(c, claims[c] == 'x') || claims.exists(c, claims[c] == 1)", "true")
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := signer.ParseRequest(b)
		if err != nil {
			return
		}
		in := policy.Input{Now: now}
		if in.Describe(r) == nil {
			p.Decide(&in)
		}
	})
}

// BenchmarkDecide is the cost of ten rules that all have to be looked at.
func BenchmarkDecide(b *testing.B) {
	var rules []string
	for i := range 9 {
		rules = append(rules, fmt.Sprintf(`{"id":"d%d","effect":"deny","when":"mls.content_type == 'commit' && mls.epoch < %du && key.labels['env'] == 'test'"}`, i, i))
	}
	rules = append(rules, `{"id":"a","effect":"allow","when":"caller.tenant == 'acme' && key.purpose == 'mls-leaf'"}`)
	p, err := policy.Parse([]byte(`{"version":1,"rules":[` + strings.Join(rules, ",") + `]}`))
	if err != nil {
		b.Fatal(err)
	}
	r, err := signer.MLSRequest("FramedContentTBS", signertest.ApplicationTBS("room", 7, "x"))
	base := describe(b, r, err)
	b.ReportAllocs()
	for b.Loop() {
		in := *base
		if err := in.Describe(r); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Decide(&in); err != nil {
			b.Fatal(err)
		}
	}
}
