package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/signer"
)

// What an operator relies on without thinking of it: that a result that could not
// be written is no success, that words of others do not steer the terminal, that
// what is good once is not spent in vain, that a flag that does nothing is refused.

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestAResultThatIsNotWrittenIsAnError(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--json", "version"}} {
		if got := run(t.Context(), args, streams{strings.NewReader(""), full{}, io.Discard}); got == exitOK {
			t.Errorf("%q on a full disk ends with %d", args, got)
		}
	}
}

func TestWordsOfOthersDoNotSteerTheTerminal(t *testing.T) {
	var out, errs strings.Builder
	a := &app{streams: streams{strings.NewReader(""), &out, &errs}}
	const evil = "guest\x1b[2J\x9b1m\u009b31m\u202Eedoc\r\x07"
	a.fail(fmt.Errorf("the hub refused: %s", evil))
	if err := a.print(nil, func(w io.Writer) { fmt.Fprintf(w, "role\t%s\n", evil) }); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"stderr": errs.String(), "stdout": out.String()} {
		if strings.ContainsAny(text, "\x1b\r\x07\u009b\u202e") || !strings.Contains(text, "guest[2J") || !strings.HasSuffix(text, "\n") {
			t.Errorf("%s: %q", name, text)
		}
	}
}

// emptyHome makes a state without devices and returns the configuration's path.
func emptyHome(t *testing.T) (path string, config *Config) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "home", configName)
	config, err := initState(t.Context(), path, initOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return path, config
}

// A code is not made where it cannot be written down.
func TestCodesAreNotLost(t *testing.T) {
	path, config := emptyHome(t)
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := there + "-link"
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	invite := func(out string, more ...string) (int, string, string) {
		return call(t, path, append([]string{"credential", "invite", "--type", "x509", "--client", "mimi://a.example/d/alice/1", "--user", "mimi://a.example/u/alice", "--out", out}, more...)...)
	}
	for _, out := range []string{there, link, filepath.Join(t.TempDir(), "no", "folder"), there + "/x"} {
		if status, _, stderr := invite(out); status != exitLocal {
			t.Errorf("--out %s: status %d, %s", out, status, stderr)
		}
		if _, err := os.Stat(filepath.Join(config.stateDir(), "issuer.db")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("--out %s: an invitation was made that nobody has: %v", out, err)
		}
	}
	fresh := filepath.Join(t.TempDir(), "code")
	status, out, stderr := invite(fresh, "--json")
	var view struct{ File, Code, Expires_At string }
	if err := json.Unmarshal([]byte(out), &view); status != exitOK || err != nil || view.File != fresh || view.Code != "" || view.Expires_At == "" {
		t.Errorf("status %d, %s %s (%v)", status, out, stderr, err)
	}
	code, err := os.ReadFile(fresh)
	if info, statErr := os.Stat(fresh); err != nil || statErr != nil || info.Mode().Perm() != 0o600 || len(strings.TrimSpace(string(code))) < 16 {
		t.Errorf("the file has %d octets, %v %v", len(code), err, statErr)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(there), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A mistyped name of a file is not a signature that "was not made here".
func TestSignaturesAndNamesOfFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sig")
	if err := os.WriteFile(file, make([]byte, 64), 0o600); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, mostSignature+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]int{
		file: 64, strings.Repeat("ab", 32): 32, strings.Repeat("ab", 64): 64, strings.Repeat("A", 86): 64, strings.Repeat("A", 43) + "=": 32, "3006020101020102": 8, "MAYCAQECAQI": 8,
		"sigfile1": 0, "deadbeef": 0, "": 0, filepath.Dir(file): 0, big: 0, file + "x": 0, "300602010102010200": 0, strings.Repeat("ab", 33): 0, strings.Repeat("a/", 500): 0,
	} {
		if b, err := readSignature(arg); len(b) != want || (err == nil) != (want > 0) {
			t.Errorf("%.40q: %d octets, %v", arg, len(b), err)
		}
	}
}

// Flags that would do nothing, or endlessly much, are refused.
func TestFlagsThatDoNothing(t *testing.T) {
	path, config := emptyHome(t)
	file := func(name, text string) string {
		p := filepath.Join(config.stateDir(), name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	trust, token := file("trust.json", `{"version": 1, "issuers": []}`), file("token", "x")
	verify := []string{"credential", "verify", "--type", "sd-jwt", token, "--nonce", "n", "--audience", "https://v.example"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{append(verify, "--trust", trust, "--ignore-status"), "how revocation is learned"},
		{append(verify, "--trust", trust, "--crl", token), "how revocation is learned"},
		{append(verify, "--trust", trust, "--iss", "https://i.example", "--issuer-key", token), "goes without"},
		{[]string{"audit", "monitor", "--state", file("s", ""), "--every", "-1s"}, "negative"},
		{[]string{"credential", "revoke", "--user", "mimi://a.example/u/a", "--wait=-1s"}, "negative"},
		{[]string{"client", "profile", "--hide"}, "--hide goes with"},
		{[]string{"client", "code", "mimi://a.example/r/x", "--role", "x", "--lifetime", "-1h"}, "--lifetime"},
		{[]string{"client", "code", "mimi://a.example/r/x", "--role", "x", "--lifetime", "1193047h"}, "--lifetime"},
		{[]string{"client", "watch", "--for", "-1s"}, "negative"},
		{[]string{"provider", "invite", "mimi://a.example/u/a", "--lifetime", "0s"}, "--lifetime"},
		{[]string{"provider", "nonsense"}, "takes no argument"},
	} {
		if status, out, stderr := call(t, path, c.args...); status != exitLocal || out != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: status %d, %s%s, want %q", c.args, status, out, stderr, c.want)
		}
	}
	// A broken configuration is said to be broken, not asked for other flags.
	if err := os.WriteFile(path, []byte(`{"version": 1, "devices": {}, "trust": 5}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := call(t, path, verify...); status != exitLocal || !strings.Contains(stderr, "trust") || strings.Contains(stderr, "--iss") {
		t.Errorf("status %d: %s", status, stderr)
	}
}

// Every file by which somebody else could decide is looked at.
func TestConfigCheckLooksAtFiles(t *testing.T) {
	path, config := emptyHome(t)
	dir := config.stateDir()
	modes := map[string]os.FileMode{"trust.json": 0o666, "web.pem": 0o644, "web.key": 0o640, "roots.pem": 0o664, "policy.json": 0o600}
	for name, mode := range modes {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	text := `{"version": 1, "devices": {"tpm": {"kind": "tpm", "address": "unix:/run/none"}}, "trust": "trust.json",
		"serve": {"listeners": {"web": {"address": ":1", "certificate": "web.pem", "key": "web.key", "client_ca": "roots.pem"}, "api": {"address": ":2", "certificate": "gone.pem", "key_id": "web"}},
		"signer": {"listener": "api", "caller_ca": "ca", "policy": "policy.json"}}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, stderr := call(t, path, "--json", "config", "check")
	var view struct{ Problems []problem }
	if err := json.Unmarshal([]byte(out), &view); err != nil || status != exitProblem {
		t.Fatalf("status %d, %v: %s%s", status, err, out, stderr)
	}
	got := map[string]string{}
	for _, p := range view.Problems {
		for _, name := range []string{"trust.json", "web.pem", "web.key", "roots.pem", "policy.json", "gone.pem"} {
			if strings.Contains(p.Problem, name) {
				got[name] = p.Code
			}
		}
	}
	want := map[string]string{"trust.json": "file-writable", "web.key": "key-file-open", "roots.pem": "file-writable", "gone.pem": "file-missing"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

// A password in the URL of the database is refused and printed nowhere.
func TestDatabasePasswords(t *testing.T) {
	path, _ := emptyHome(t)
	for _, u := range []string{"postgres://me:sesame@h/db", "postgres://h/db?password=sesame", "postgres://me:sesame@h:x/db", "mysql://me:sesame@h/db"} {
		text := fmt.Sprintf(`{"version": 1, "devices": {}, "database": %q}`, u)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"config", "check"}, {"--json", "config", "check"}, {"key", "list"}} {
			if status, out, stderr := call(t, path, args...); status != exitLocal || strings.Contains(out+stderr, "sesame") || !strings.Contains(stderr, "database") {
				t.Errorf("%s, %q: status %d, %s%s", u, args, status, out, stderr)
			}
		}
	}
}

// One file may hold a maker's roots and what is below them.
func TestEndorsementRootsInOneFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ek.pem"), testCertificate(t), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := loadEKPolicy(&Config{dir: dir, Issuer: &IssuerSection{Attestation: &AttestationSection{EKRoots: "ek.pem", EKIntermediates: "ek.pem"}}})
	if err != nil || p.roots == nil || p.intermediates == nil {
		t.Errorf("%+v, %v", p, err)
	}
	sum := strings.Repeat("ab", 32)
	if listed, err := parseEKList([]byte("# ours\n" + sum + "\tthe one in the rack\n\n" + strings.Repeat("cd", 32) + " another\n")); err != nil || len(listed) != 2 {
		t.Errorf("%d listed, %v", len(listed), err)
	}
}

// Members in arrays are looked at as strictly as others.
func TestConfigArraysAreStrict(t *testing.T) {
	serve := func(provider string) string {
		return `{"version": 1, "devices": {}, "serve": {"listeners": {"c": {"address": ":1", "certificate": "c", "key": "k", "client_auth": "any"}},
			"provider": {"domain": "a.example", "clients": "c", "trust": "t", "mac_key": "m", ` + provider + `}}}`
	}
	const key = `"suite": 2, "sender_key": "s", "sender_certificate": "s.pem", "frank_key": "f", "frank_certificate": "f.pem"`
	if _, err := ParseConfig([]byte(serve(`"keys": [{` + key + `}]`))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ provider, want string }{
		{`"keys": [{` + key + `, "Before": []}]`, `"Before"`},
		{`"keys": [{"Suite": 2}]`, "serve.provider.keys[0]"},
		{`"keys": [null]`, "serve.provider.keys[0]: null"},
		{`"keys": [{` + key + `, "before": [{"frank_key": "g", "frank_certificate": "g.pem", "Until": "x"}]}]`, "keys[0].before[0]"},
		{`"keys": [{` + key + `}, {` + key + `}]`, "there twice"},
		{`"keys": [{` + key + `}], "peer_certificate": "x"`, "peer_key"},
		{`"keys": [{` + key + `}], "peer_roots": "x"`, "peers"},
		{`"keys": [{` + key + `}], "directory": {"providers": ["https://b.example"]}`, "directory.providers[0]"},
	} {
		if _, err := ParseConfig([]byte(serve(c.provider))); !is[*ConfigError](err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.provider, err, c.want)
		}
	}
	_, err := ParseConfig([]byte(`{"version": 1, "devices": {}, "serve": {"listeners": {"a": {"address": ":1", "certificate": "c", "key": "k"}}, "signer": {"listener": "a", "caller_ca": "ca", "devices": ["tokne"]}}}`))
	if err == nil || !strings.Contains(err.Error(), "serve.signer.devices[0]") {
		t.Errorf("a device that is not there: %v", err)
	}
}

// With --json, what ends well is said in JSON.
func TestChangesAreSaidInJSON(t *testing.T) {
	path, config := emptyHome(t)
	store, err := signer.OpenKeyStore(t.Context(), filepath.Join(config.stateDir(), storeName), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.MarkSuspect(t.Context(), "token", "leaf", 1, "wrong"); err != nil {
		t.Fatal(err)
	}
	status, out, stderr := call(t, path, "--json", "token", "trust", "token", "--reason", "new firmware")
	if status != exitOK || !json.Valid([]byte(out)) || stderr != "" {
		t.Errorf("status %d, out %q, err %q", status, out, stderr)
	}
}

// testCertificate is one in PEM.
func testCertificate(t *testing.T) []byte {
	t.Helper()
	der := deviceTLS(t, nil).Certificates[0].Certificate[0]
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
