package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/signer"
)

// TestClientRemote has a client whose signature and init keys are in a SoftHSM
// token behind a served signing service register, make a room and talk, by the
// command line alone.
func TestClientRemote(t *testing.T) {
	w := wireTest(t, initOptions{softHSM: true})
	for id, p := range map[signer.KeyID]signer.Purpose{"web": signer.PurposeTLS, "caller-ca": signer.PurposeX509CA} {
		if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: p, Device: "softhsm"}); err != nil {
			t.Fatal(err)
		}
	}
	dir := w.config.dir
	file := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, text []byte) string {
		t.Helper()
		if err := os.WriteFile(file(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file(name)
	}
	certify(t, w, "web", file("server.pem"))
	w.config.Serve = &ServeConfig{Operator: "operator", Listeners: map[string]*ListenerSection{
		"operator": {Address: "127.0.0.1:0", Plain: true},
		"api":      {Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web"},
	}, Signer: &SignerSection{Listener: "api", CallerCA: "caller-ca", Policy: write("policy.json", []byte(demoPolicy))}}
	config, err := json.Marshal(w.config)
	if err != nil {
		t.Fatal(err)
	}
	configFile := write("privyseal.json", config)
	roots := write("roots.pem", []byte(testRoot(t, file("server.pem"))))
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
	url, identity := "https://"+s.addr["api"], file("cathy")
	call(0, "caller", "invite", "cathy", "--tenant", "acme", "--role", "admin", "--grant", "watch:sign", "--grant", "init-*:agree", "--out", file("token"))
	call(0, "remote", "--identity", identity, "enroll", "--server", url, "--server-ca", roots, "--token-file", file("token"))
	call(0, "remote", "--identity", identity, "key", "create", "watch", "--purpose", "mls-leaf")
	call(0, "remote", "--identity", identity, "key", "create", "web", "--purpose", "tls")
	spki, _ := pem.Decode([]byte(call(0, "remote", "--identity", identity, "key", "public", "watch")))
	public, err := x509.ParsePKIXPublicKey(spki.Bytes)
	if err != nil {
		t.Fatal(err)
	}

	ca := identitytest.NewCA(t, "CA", nil)
	trustDir := t.TempDir()
	trustFile := identitytest.WriteConfig(t, trustDir, nil, ca.Entry(t, trustDir, "ca", "c.example"))
	_, evaluator := identitytest.Open(t, trustFile, nil)
	h := clienttest.NewHubOf(t, "c.example", ca, evaluator)
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	leaf := ca.Issue(t, public, identitytest.Day, "mimi://c.example/d/cathy/watch", "mimi://c.example/u/cathy")
	register := []string{"client", "register", "cathy", "--provider", h.URL, "--provider-ca", write("provider.pem", block(h.ServerCertificate())),
		"--credential", write("cathy.pem", block(leaf.Raw)), "--trust", trustFile, "--identity", identity, "--signer", url}
	call(1, append(register, "--key", "watch")...) // --signer is for mode remote
	call(3, append(register, "--key", "web", "--mode", "remote")...)
	if out := call(0, append(register, "--key", "watch", "--mode", "remote")...); !strings.Contains(out, "mode        remote") {
		t.Errorf("registered as:\n%s", out)
	}
	const room = "mimi://c.example/r/club"
	call(0, "client", "room", "create", room, "--name", "Club")
	call(0, "client", "send", room, "from the appliance")
	if out := call(0, "client", "recv", room); !strings.Contains(out, "from the appliance") {
		t.Errorf("received:\n%s", out)
	}
	if out := call(0, "remote", "--identity", identity, "key", "list"); !strings.Contains(out, "init-") {
		t.Errorf("no init key is in the service:\n%s", out)
	}
}
