package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/internal/jose"
)

var update = flag.Bool("update", false, "write testdata/sdjwt.json with fresh keys")

const corpusFile = "testdata/sdjwt.json"

// runLines runs sdjwt on files and returns its status and output lines.
func runLines(t *testing.T, files ...string) (int, []string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(append([]string{"sdjwt"}, files...), strings.NewReader(""), &stdout, &stderr)
	if stderr.Len() > 0 {
		t.Logf("stderr: %s", stderr.String())
	}
	return status, strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
}

func TestSDJWTCorpus(t *testing.T) {
	if *update {
		writeCorpus(t)
	}
	status, lines := runLines(t, corpusFile)
	if want := "37 passed, 0 failed, 1 skipped"; status != exitOK || len(lines) != 1 || lines[0] != want {
		t.Errorf("status %d, output\n%s\nwant %s", status, strings.Join(lines, "\n"), want)
	}
}

// With -v every case is told: those that pass too.
func TestSDJWTCorpusTold(t *testing.T) {
	status, lines := runLines(t, "-v", corpusFile)
	if status != exitOK || len(lines) != 37+1+1 {
		t.Fatalf("status %d, %d lines", status, len(lines))
	}
	accepted := 0
	for _, line := range lines[:38] {
		_, verdict, _ := strings.Cut(line, " ")
		switch {
		case verdict == "accept (no error)":
			accepted++
		case !strings.HasPrefix(verdict, "refuse ("):
			t.Errorf("%q", line)
		}
	}
	if accepted == 0 || accepted == 38 {
		t.Errorf("%d cases are accepted", accepted)
	}
	if status, _ := runLines(t, corpusFile, "-v"); status != exitUsage {
		t.Errorf("a flag after a file: status %d", status)
	}
}

// Every verdict of the corpus turned round is a failure of its own line.
func TestSDJWTCorpusTurnedRound(t *testing.T) {
	raw, err := os.ReadFile(corpusFile)
	if err != nil {
		t.Fatal(err)
	}
	turn := strings.NewReplacer(`"expect": "accept"`, `"expect": "refuse"`, `"expect": "refuse"`, `"expect": "accept"`)
	name := filepath.Join(t.TempDir(), "turned.json.gz")
	writeGzip(t, name, turn.Replace(string(raw)))
	status, lines := runLines(t, name)
	if status != exitFailed || len(lines) != 38 || lines[37] != "1 passed, 37 failed, 0 skipped" {
		t.Errorf("status %d, output\n%s", status, strings.Join(lines, "\n"))
	}
	for _, want := range []string{"FAIL issued want=refuse got=accept (no error)", "FAIL expired want=accept got=refuse (expired)"} {
		if !strings.Contains(strings.Join(lines, "\n"), want) {
			t.Errorf("no line %q", want)
		}
	}
}

func writeGzip(t *testing.T, name, text string) {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSDJWTExamplesOfRFC9901 puts the RFC's own tokens through the tool.
func TestSDJWTExamplesOfRFC9901(t *testing.T) {
	raw, err := os.ReadFile("../../credentials/sdjwt/testdata/rfc9901/examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var rfc struct {
		Examples []struct {
			Section, Token string
			Processed      json.RawMessage
		}
	}
	if err := json.Unmarshal(raw, &rfc); err != nil {
		t.Fatal(err)
	}
	file := corpus{Defaults: object{
		"issuer_jwk": json.RawMessage(`{"kty":"EC","crv":"P-256","x":"b28d4MwZMjw8-00CG4xfnn9SLMVMM19SlqZpVb_uNtQ","y":"Xv5zWwuoaTgdS6hV43yI6gBwTnjukmFQQnJ_kCxzqk8"}`),
		"now":        1748537243, "nonce": "1234567890", "aud": "https://verifier.example.org", "expect": "accept",
	}}
	for i, e := range rfc.Examples {
		c := object{"id": fmt.Sprintf("%s/%d", e.Section, i), "token": e.Token, "require_kb": !strings.HasSuffix(e.Token, "~") && !strings.HasSuffix(e.Token, "}") || strings.Contains(e.Token, "kb_jwt")}
		if e.Processed != nil {
			c["claims"] = e.Processed
		}
		if e.Section == "A.3" {
			c["vc"] = true
		}
		file.Cases = append(file.Cases, c)
	}
	status, lines := runLines(t, file.write(t, filepath.Join(t.TempDir(), "rfc.json")))
	if status != exitOK || lines[0] != "11 passed, 0 failed, 0 skipped" {
		t.Errorf("status %d\n%s", status, strings.Join(lines, "\n"))
	}
}

func TestSDJWTUsage(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"no file":         {nil, exitUsage},
		"a flag":          {[]string{"-x"}, exitUsage},
		"missing file":    {[]string{filepath.Join(dir, "none.json")}, exitFailed},
		"no case":         {[]string{file("empty.json", `{"cases":[]}`)}, exitFailed},
		"no JSON":         {[]string{file("bad.json", `cases`)}, exitFailed},
		"no gzip":         {[]string{file("bad.json.gz", `{}`)}, exitFailed},
		"no key":          {[]string{file("nokey.json", `{"cases":[{"id":"a","expect":"accept","token":"~"}]}`)}, exitFailed},
		"unknown key":     {[]string{file("unknown.json", `{"cases":[{"id":"a","expect":"refuse","token":"~","issuer_jwk":"k"}]}`)}, exitFailed},
		"strange verdict": {[]string{file("verdict.json", `{"cases":[{"id":"a","expect":"maybe"}]}`)}, exitFailed},
		"good":            {[]string{corpusFile}, exitOK},
	} {
		if status, lines := runLines(t, c.args...); status != c.want {
			t.Errorf("%s: status %d, want %d; %q", name, status, c.want, lines)
		}
	}
	var stdout, stderr bytes.Buffer
	corpus, err := os.Open(corpusFile)
	if err != nil {
		t.Fatal(err)
	}
	defer corpus.Close()
	if status := run([]string{"sdjwt", "-"}, corpus, &stdout, &stderr); status != exitOK {
		t.Errorf("on standard input: status %d: %s%s", status, &stdout, &stderr)
	}
	if run(nil, nil, nil, &stderr) != exitUsage || run([]string{"nothing"}, nil, nil, &stderr) != exitUsage {
		t.Error("bad subcommands are not bad usage")
	}
}

// TestHelp asks every subcommand what it takes, which is no bad usage.
func TestHelp(t *testing.T) {
	for name := range subcommands {
		var stdout, stderr bytes.Buffer
		if status := run([]string{name, "--help"}, nil, &stdout, &stderr); status != exitOK || !strings.HasPrefix(stdout.String(), "usage: conformance "+name) {
			t.Errorf("%s: status %d, %q", name, status, &stdout)
		}
	}
	var stdout bytes.Buffer
	if status := run([]string{"--help"}, nil, &stdout, nil); status != exitOK || !strings.HasPrefix(stdout.String(), "usage: ") {
		t.Errorf("status %d, %q", status, &stdout)
	}
}

type object map[string]any

type corpus struct {
	Format   string   `json:"format,omitempty"`
	Note     string   `json:"note,omitempty"`
	Defaults object   `json:"defaults"`
	Keys     object   `json:"keys,omitempty"`
	Cases    []object `json:"cases"`
}

func (c corpus) write(t *testing.T, name string) string {
	t.Helper()
	raw, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(raw, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// A maker makes the tokens of our corpus.
type maker struct {
	t              *testing.T
	issuer, holder crypto.Signer
	now            time.Time
	file           corpus
}

func newKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func publicJWK(t *testing.T, key crypto.Signer) json.RawMessage {
	t.Helper()
	jwk, err := credentials.FormatJWK(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return jwk
}

func writeCorpus(t *testing.T) {
	m := &maker{t: t, issuer: newKey(t, elliptic.P256()), holder: newKey(t, elliptic.P256()), now: time.Unix(1_780_000_000, 0)}
	m.file = corpus{
		Format:   "sdjwt",
		Note:     "made by go test ./cmd/conformance -run SDJWTCorpus -update",
		Defaults: object{"issuer_jwk": "issuer", "now": m.now.Unix(), "aud": "https://verifier.example", "nonce": "n1", "a-member-nobody-knows": 1},
		Keys:     object{"issuer": publicJWK(t, m.issuer), "other": object{"jwk": publicJWK(t, newKey(t, elliptic.P256()))}},
	}
	m.plainCases()
	m.boundCases()
	m.vcCases()
	m.file.write(t, corpusFile)
}

func (m *maker) add(id, expect, token string, more object) {
	c := object{"id": id, "expect": expect, "token": token}
	for name, value := range more {
		c[name] = value
	}
	m.file.Cases = append(m.file.Cases, c)
}

// sign signs any payload under any header.
func (m *maker) sign(header, payload string) string {
	m.t.Helper()
	jwt, err := jose.Sign(context.Background(), credentials.ECDSAP256, m.issuer, []byte(header), []byte(payload))
	if err != nil {
		m.t.Fatal(err)
	}
	return jwt
}

const esHeader = `{"alg":"ES256"}`

func (m *maker) plainCases() {
	claims := func(text string) object { return object{"claims": json.RawMessage(text)} }
	m.add("plain", "accept", m.sign(esHeader, `{"a":1}`)+"~", claims(`{"a":1}`))
	m.add("other-typ", "accept", m.sign(`{"alg":"ES256","typ":"example+sd-jwt"}`, `{"a":1}`)+"~", nil)
	m.add("key-inline", "accept", m.sign(esHeader, `{}`)+"~", object{"issuer_jwk": publicJWK(m.t, m.issuer)})
	m.add("decoys", "accept", m.sign(esHeader, `{"_sd":["x"],"l":[1,{"...":"y"}],"_sd_alg":"sha-512"}`)+"~", claims(`{"l":[1]}`))
	m.add("expires-after-now", "accept", m.sign(esHeader, fmt.Sprintf(`{"exp":%d,"nbf":%d}`, m.now.Unix()+1, m.now.Unix()))+"~", nil)
	m.add("expires-now", "refuse", m.sign(esHeader, fmt.Sprintf(`{"exp":%d}`, m.now.Unix()))+"~", nil)
	m.add("expired", "refuse", m.sign(esHeader, `{"exp":1000}`)+"~", nil)
	m.add("no-tilde", "refuse", m.sign(esHeader, `{}`), nil)
	m.add("issued-ahead", "accept", m.sign(esHeader, fmt.Sprintf(`{"iat":%d}`, m.now.Unix()+9))+"~", nil)
	m.add("issued-ahead-policy", "refuse", m.sign(esHeader, fmt.Sprintf(`{"iat":%d}`, m.now.Unix()+999))+"~", object{"level": "policy"})
	m.add("no-key", "refuse", m.sign(esHeader, `{}`)+"~", object{"issuer_jwk": nil})
	parts := strings.Split(m.sign(esHeader, `{"a":1}`), ".")
	m.add("json", "accept", fmt.Sprintf(`{"protected":"%s","payload":"%s","signature":"%s"}`, parts[0], parts[1], parts[2]), claims(`{"a":1}`))
	m.add("json-object", "accept", "", object{"token": object{"protected": parts[0], "payload": parts[1], "signature": parts[2]}, "claims": json.RawMessage(`{"a":1}`)})
	m.add("alg-none", "refuse", m.sign(`{"alg":"none"}`, `{}`)+"~", nil)
	m.add("kb-typ", "refuse", m.sign(`{"alg":"ES256","typ":"kb+jwt"}`, `{}`)+"~", nil)
	m.add("duplicate-claim", "refuse", m.sign(esHeader, `{"a":1,"a":1}`)+"~", nil)
	m.add("digest-twice", "refuse", m.sign(esHeader, `{"_sd":["x","x"]}`)+"~", nil)
	m.add("other-key", "refuse", m.sign(esHeader, `{}`)+"~", object{"issuer_jwk": "other"})
	m.add("unknown-hash", "accept", m.sign(esHeader, `{"_sd_alg":"sha3-256"}`)+"~", object{"optional": true})
	m.add("many-disclosures", "accept", m.many(300), nil)
	m.add("many-disclosures-by-default", "refuse", m.many(300), object{"level": "profile"})
	hidden, digest := disclosure(`["salt","exp",9999999999]`)
	m.add("exp-disclosed", "accept", m.sign(esHeader, `{"_sd":["`+digest+`"]}`)+"~"+hidden+"~", nil)
	m.add("exp-disclosed-should", "refuse", m.sign(esHeader, `{"_sd":["`+digest+`"]}`)+"~"+hidden+"~", object{"level": "should"})
}

// many returns a token with n Disclosures.
func (m *maker) many(n int) string {
	var texts, digests []string
	for i := range n {
		text, digest := disclosure(fmt.Sprintf(`["salt %d","c%d",1]`, i, i))
		texts, digests = append(texts, text), append(digests, digest)
	}
	return m.sign(esHeader, `{"_sd":["`+strings.Join(digests, `","`)+`"]}`) + "~" + strings.Join(texts, "~") + "~"
}

// issued returns a bound SD-JWT VC with two redacted claims.
func (m *maker) issued(typ string) string {
	m.t.Helper()
	i := &sdjwt.Issuer{Key: m.issuer, Name: "https://issuer.example", Type: typ}
	token, err := i.Issue(context.Background(), sdjwt.Request{
		Claims: []byte(`{"vct":"urn:example:vct","given_name":"Ada","address":{"town":"Ham","street":"Way"}}`),
		Redact: []sdjwt.Path{{"given_name"}, {"address", "town"}}, Holder: m.holder.Public(), Expires: m.now.Add(time.Hour),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return token.String()
}

// shown returns a presentation of issued that discloses the town.
func (m *maker) shown(typ, nonce string, at time.Time) string {
	m.t.Helper()
	cred, err := sdjwt.OpenCredential(m.issued(typ), sdjwt.Limits{})
	if err != nil {
		m.t.Fatal(err)
	}
	token, err := cred.Present(context.Background(), sdjwt.Presentation{
		Disclose: []sdjwt.Path{{"address", "town"}}, Key: m.holder, Audience: "https://verifier.example", Nonce: nonce, IssuedAt: at,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return token.String()
}

func (m *maker) boundCases() {
	cnf, err := credentials.JWTConfirmation(m.holder.Public())
	if err != nil {
		m.t.Fatal(err)
	}
	want := json.RawMessage(fmt.Sprintf(`{"iss":"https://issuer.example","vct":"urn:example:vct","exp":%d,"address":{"town":"Ham","street":"Way"},"cnf":%s}`,
		m.now.Add(time.Hour).Unix(), cnf))
	bound := func(more object) object {
		c := object{"require_kb": true}
		for name, value := range more {
			c[name] = value
		}
		return c
	}
	m.add("issued", "accept", m.issued("example+sd-jwt"), nil)
	m.add("bound", "accept", m.shown("example+sd-jwt", "n1", m.now), bound(object{"claims": want}))
	m.add("bound-not-required", "accept", m.shown("example+sd-jwt", "n2", m.now), object{"claims": want, "require_kb": false})
	m.add("bound-not-stated", "refuse", m.shown("example+sd-jwt", "n2", m.now), object{})
	m.add("bound-any-nonce", "accept", m.shown("example+sd-jwt", "n3", m.now), bound(object{"nonce": nil, "aud": nil}))
	m.add("wrong-nonce", "refuse", m.shown("example+sd-jwt", "n2", m.now), bound(nil))
	m.add("wrong-aud", "refuse", m.shown("example+sd-jwt", "n1", m.now), bound(object{"aud": "https://other.example"}))
	m.add("kb-missing", "refuse", m.issued("example+sd-jwt"), bound(nil))
	m.add("kb-299", "accept", m.shown("example+sd-jwt", "n1", m.now.Add(-299*time.Second)), bound(object{"level": "policy"}))
	m.add("kb-301", "refuse", m.shown("example+sd-jwt", "n1", m.now.Add(-301*time.Second)), bound(object{"level": "policy"}))
	m.add("kb-later", "refuse", m.shown("example+sd-jwt", "n1", m.now.Add(301*time.Second)), bound(object{"level": "policy"}))
}

func (m *maker) vcCases() {
	m.add("vc", "accept", m.shown("", "n1", m.now), object{"require_kb": true, "vc": true})
	m.add("vc-other-typ", "refuse", m.shown("vc+sd-jwt", "n1", m.now), object{"require_kb": true, "vc": true})
	hidden, digest := disclosure(`["salt","iat",1]`)
	header := `{"alg":"ES256","typ":"dc+sd-jwt"}`
	m.add("vc-iat-disclosed", "accept", m.sign(header, `{"vct":"urn:x","_sd":["`+digest+`"]}`)+"~"+hidden+"~", object{"vc": true})
	hidden, digest = disclosure(`["salt","cnf",{}]`)
	m.add("vc-cnf-disclosed", "refuse", m.sign(header, `{"vct":"urn:x","_sd":["`+digest+`"]}`)+"~"+hidden+"~", object{"vc": true})
}

// disclosure returns a Disclosure with its SHA-256 digest.
func disclosure(content string) (text, digest string) {
	text = jose.EncodeBase64([]byte(content))
	sum := sha256.Sum256([]byte(text))
	return text, jose.EncodeBase64(sum[:])
}
