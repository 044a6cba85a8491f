package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// TestServeSigner runs the signing service on a SoftHSM token, and uses it
// with the command line as an operator and a caller do.
func TestServeSigner(t *testing.T) {
	w := wireTest(t, initOptions{softHSM: true})
	for id, p := range map[signer.KeyID]signer.Purpose{"web": signer.PurposeTLS, "caller-ca": signer.PurposeX509CA} {
		if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: p, Device: "softhsm"}); err != nil {
			t.Fatal(err)
		}
	}
	dir := w.config.dir
	certify(t, w, "web", filepath.Join(dir, "server.pem"))
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	policyFile := write("policy.json", `{"version":1,"rules":[{"id":"no-room-x","effect":"deny","when":"mls.group == b'x'"},{"id":"all","effect":"allow","when":"true"}]}`)
	w.config.Serve = &ServeConfig{Operator: "operator", Listeners: map[string]*ListenerSection{
		"operator": {Address: "127.0.0.1:0", Plain: true},
		"api":      {Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web"},
	}, Signer: &SignerSection{Listener: "api", CallerCA: "caller-ca", Policy: policyFile}}
	config, err := json.Marshal(w.config)
	if err != nil {
		t.Fatal(err)
	}
	configFile := write("privyseal.json", string(config))
	roots := write("roots.pem", testRoot(t, filepath.Join(dir, "server.pem")))
	s := serveTest(t, w)
	call := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		args = append([]string{"--config", configFile}, args...)
		if got := run(context.Background(), args, streams{in: strings.NewReader(""), out: &out, err: &errs}); got != want {
			t.Fatalf("%v: status %d, want %d\n%s%s", args, got, want, out.String(), errs.String())
		}
		return out.String()
	}
	remote := func(who string, want int, args ...string) string {
		t.Helper()
		return call(want, append([]string{"remote", "--identity", filepath.Join(dir, who)}, args...)...)
	}
	for who, args := range map[string][]string{"op": {"--role", "operator"}, "bot": {"--grant", "leaf:sign", "--grant", "raw:raw"}} {
		call(0, append([]string{"caller", "invite", who, "--tenant", "acme", "--out", filepath.Join(dir, who+".token")}, args...)...)
		remote(who, 0, "enroll", "--server", "https://"+s.addr["api"], "--server-ca", roots, "--token-file", filepath.Join(dir, who+".token"))
	}
	remote("late", 2, "enroll", "--server", "https://"+s.addr["api"], "--server-ca", roots, "--token-file", filepath.Join(dir, "bot.token"))
	remote("op", 0, "key", "create", "leaf", "--purpose", "mls-leaf")
	remote("op", 0, "key", "create", "raw", "--purpose", "raw")
	remote("op", 0, "key", "create", "other", "--purpose", "mls-leaf")
	remote("bot", 3, "key", "create", "mine", "--purpose", "mls-leaf")
	if out := remote("bot", 0, "key", "list"); !strings.Contains(out, "leaf") || strings.Contains(out, "other") {
		t.Errorf("the caller lists:\n%s", out)
	}
	content := write("content", string(signertest.ApplicationTBS("room", 1, "hi")))
	if out := remote("bot", 0, "sign", "leaf", content, "--mls-label", "FramedContentTBS"); len(out) < 90 {
		t.Errorf("the signature is %q", out)
	}
	remote("bot", 3, "sign", "leaf", write("denied", string(signertest.ApplicationTBS("x", 1, "hi"))), "--mls-label", "FramedContentTBS")
	remote("op", 3, "sign", "leaf", content, "--mls-label", "FramedContentTBS")
	checkDigest(t, remote("bot", 0, "key", "public", "raw"), remote("bot", 0, "sign", "raw", content, "--digest"), content)
	if out := call(0, "caller", "list"); strings.Count(out, "active") != 2 {
		t.Errorf("callers:\n%s", out)
	}
	// The CA's next key is known to the listener before its first certificate leaves.
	call(0, "key", "rotate", "caller-ca")
	call(0, "caller", "invite", "new", "--tenant", "acme", "--out", filepath.Join(dir, "new.token"))
	s.eventually("the CA signs with its next key", func() bool {
		args := []string{"remote", "--identity", filepath.Join(dir, "new"), "enroll", "--server", "https://" + s.addr["api"], "--server-ca", roots, "--token-file", filepath.Join(dir, "new.token")}
		return run(context.Background(), args, streams{in: strings.NewReader(""), out: new(bytes.Buffer), err: new(bytes.Buffer)}) == 0
	})
	remote("new", 0, "whoami")
	remote("op", 0, "whoami")
	// Another policy is put to use by a reload; a broken one is not.
	write("policy.json", `{"version":1,"rules":[{"id":"nothing","effect":"deny","when":"mls.lable == ''"}]}`)
	if err := s.daemon.Reload(t.Context()); err == nil {
		t.Error("a broken policy was put to use")
	}
	remote("bot", 0, "sign", "leaf", content, "--mls-label", "FramedContentTBS")
	write("policy.json", `{"version":1,"rules":[]}`)
	if err := s.daemon.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	remote("bot", 3, "sign", "leaf", content, "--mls-label", "FramedContentTBS")
	_, metrics := s.page("/metrics")
	checkSignerMetrics(t, metrics)
	remote("op", 0, "key", "disable", "leaf", "--reason", "test")
	call(0, "caller", "revoke", "bot", "--tenant", "acme", "--reason", "left")
	s.eventually("the revoked caller is refused", func() bool {
		return run(context.Background(), []string{"remote", "--identity", filepath.Join(dir, "bot"), "whoami"}, streams{in: strings.NewReader(""), out: new(bytes.Buffer), err: new(bytes.Buffer)}) == exitRemote
	})
}

// testRoot trusts the server's own certificate, as certify made it.
func testRoot(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func checkDigest(t *testing.T, pub, sig, file string) {
	t.Helper()
	block, _ := pem.Decode([]byte(pub))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	octets, err := base64.StdEncoding.DecodeString(strings.TrimSpace(sig))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(b)
	if !ecdsa.VerifyASN1(key.(*ecdsa.PublicKey), digest[:], octets) {
		t.Error("the signature of the digest does not verify")
	}
}
