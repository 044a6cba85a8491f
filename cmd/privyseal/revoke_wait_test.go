package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/signer"
)

// at runs a subcommand with the configuration of a provider, beside its serve.
func (f *federation) at(host string, args ...string) (status int, stdout, stderr string) {
	f.t.Helper()
	var out, errs bytes.Buffer
	status = run(context.Background(), append([]string{"--config", filepath.Join(f.hosts[host].config.dir, configName)}, args...), streams{strings.NewReader(""), &out, &errs})
	return status, out.String(), errs.String()
}

func (f *federation) mustAt(host string, args ...string) string {
	f.t.Helper()
	status, out, errs := f.at(host, args...)
	if status != exitOK {
		f.t.Fatalf("%s %v: status %d\n%s%s", host, args, status, out, errs)
	}
	return out
}

// TestRevokeWaitsAcrossProviders revokes a credential of b.example, whose client
// is in a room at b.example and in one at a.example. The command ends when the
// client is in neither any more, and names the epoch of each.
func TestRevokeWaitsAcrossProviders(t *testing.T) {
	const den, bea, phone = "mimi://b.example/r/den", "mimi://b.example/u/bea", "mimi://b.example/d/bea/phone"
	crls := t.TempDir()
	f := newFederationWith(t, func(hosts map[string]*wiring, dir string) []identitytest.Issuer {
		b := hosts["b.example"]
		for _, o := range []caOptions{{key: "root"}, {key: "issuing", issuer: "root", hosts: []string{"b.example"}}} {
			must(b.ring.Create(t.Context(), signer.NewKey{ID: signer.KeyID(o.key), Purpose: signer.PurposeX509CA, Device: "softhsm"}))
			chain := must(b.createCA(t.Context(), &o))
			if o.issuer == "" {
				if err := os.WriteFile(filepath.Join(dir, "root-b.pem"), pemOf(chain[0].Raw), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		b.config.Issuer = &IssuerSection{CAs: map[string]*CASection{"issuing": {Key: "issuing"}}}
		return []identitytest.Issuer{{
			"name": "issuer-b", "type": "x509", "roles": []string{"client"}, "keys": map[string]any{"source": "anchors", "file": "root-b.pem"},
			"grants":     []any{map[string]any{"host": "b.example", "paths": []string{"d/*/*", "u/*"}}},
			"revocation": map[string]any{"mode": "hard", "methods": []string{"crl"}, "crl": []string{filepath.Join(crls, "root.crl"), filepath.Join(crls, "issuing.crl")}},
		}}
	})
	b := f.hosts["b.example"]
	if err := writeConfig(filepath.Join(b.config.dir, configName+".new"), b.config); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(b.config.dir, configName+".new"), filepath.Join(b.config.dir, configName)); err != nil {
		t.Fatal(err)
	}
	publish := func() {
		for _, ca := range []string{"root", "issuing"} {
			f.mustAt("b.example", "ca", "crl", ca, "--out", filepath.Join(crls, ca+".crl"))
		}
	}
	publish()

	f.register("alice", "a.example")
	f.register("bob", "b.example")
	f.key("bea", signer.PurposeMLSLeaf, "softhsm")
	names := []string{"--client", phone, "--user", bea}
	csr, credential := filepath.Join(crls, "bea.csr"), filepath.Join(crls, "bea.pem")
	f.run(0, append([]string{"credential", "request", "--holder", "bea", "--nonce", "0011223344556677", "--out", csr}, names...)...)
	f.mustAt("b.example", append([]string{"credential", "issue", "--type", "x509", "--issuer-key", "issuing", "--request", csr, "--nonce", "0011223344556677", "--out", credential}, names...)...)
	f.run(0, append(f.registration("bea", "b.example"), "--key", "bea", "--credential", credential)...)

	f.client(0, "bob", "room", "create", den, "--name", "Den")
	f.client(0, "bob", "add", den, bea)
	f.client(0, "bea", "consent", "grant", alice)
	f.client(0, "alice", "room", "create", clubA, "--name", "Club")
	f.until("alice", alice+" may add "+bea, "consent", "list")
	f.client(0, "alice", "add", clubA, bea)
	for _, room := range []string{den, clubA} {
		f.until("bea", "status      member", "room", "show", room)
	}

	// Nobody commits, so that it is still there when the time is over.
	status, out, errs := f.at("b.example", "credential", "revoke", "--client", phone, "--reason", "keyCompromise", "--wait=1s")
	if status != exitRefused {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	says(t, out, "revoked, keyCompromise", "\npublished\n", phone+"  is still in "+den+"\n", phone+"  is still in "+clubA+"\n")
	says(t, errs, "still in 2 rooms")

	// The hubs hear of it, and members commit what they propose.
	publish()
	for _, e := range f.hosts {
		if err := e.daemon.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	type ended struct {
		status    int
		out, errs string
	}
	done := make(chan ended, 1)
	go func() {
		status, out, errs := f.at("b.example", "credential", "revoke", "--client", phone, "--reason", "keyCompromise", "--wait=3m")
		done <- ended{status, out, errs}
	}()
	var got ended
	for waiting := true; waiting; {
		select {
		case got = <-done:
			waiting = false
		case <-time.After(200 * time.Millisecond):
			f.try("client", "--client", "bob", "send", den, "what waits is committed with a message")
			f.try("client", "--client", "alice", "send", clubA, "what waits is committed with a message")
		}
	}
	if got.status != exitOK {
		t.Fatalf("status %d: %s%s", got.status, got.out, got.errs)
	}
	says(t, got.out, "nothing to change\n", phone+"  gone from "+den+" in epoch ", phone+"  gone from "+clubA+" in epoch ")
	f.documented(t, out+got.out)

	// What is over is said at once, by each form.
	var view struct {
		Changes []any
		Rooms   []roomLeft
	}
	text := f.mustAt("b.example", "--json", "credential", "revoke", "--client", phone, "--wait")
	if err := json.Unmarshal([]byte(text), &view); err != nil || len(view.Changes) != 0 || len(view.Rooms) != 2 {
		t.Fatalf("%v: %s", err, text)
	}
	for _, r := range view.Rooms {
		if !r.Gone || r.Epoch == 0 || r.At.IsZero() || r.Client != phone || r.Unknown {
			t.Errorf("%+v", r)
		}
	}
	says(t, f.client(0, "alice", "members", clubA), alice)
	if out := f.client(0, "alice", "members", clubA); strings.Contains(out, phone) {
		t.Errorf("bea's client is in the room:\n%s", out)
	}
}

// documented fails unless docs/operating.md shows every line of an output, but
// for what differs from case to case.
func (f *federation) documented(t *testing.T, out string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	same := func(s string) string {
		for _, v := range []struct{ pattern, with string }{
			{`\d{4}-\d\d-\d\dT[0-9:.]+Z`, "TIME"}, {`epoch \d+`, "epoch N"}, {`mimi://\S+`, "URI"}, {`\b[0-9a-f]{32}\b`, "ID"},
		} {
			s = regexp.MustCompile(v.pattern).ReplaceAllString(s, v.with)
		}
		return s
	}
	docs := same(string(text))
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(same(line)); !strings.Contains(docs, line) {
			t.Errorf("docs/operating.md does not show %q", line)
		}
	}
}
