package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
	"github.com/privyseal/privyseal/signer"
)

// A federation is two providers that are served whole, each with its keys in a
// token, and clients with keys in a third that are run by the command line.
type federation struct {
	t     *testing.T
	ca    *identitytest.CA
	hosts map[string]*edgesTest
	home  *wiring // of the clients
	trust string
}

// The rooms and users of stories.
const (
	clubA = "mimi://a.example/r/club"
	alice = "mimi://a.example/u/alice"
	bob   = "mimi://b.example/u/bob"
)

func newFederation(t *testing.T) *federation {
	t.Helper()
	f := &federation{t: t, ca: identitytest.NewCA(t, "devices", time.Now), hosts: make(map[string]*edgesTest), home: wireTest(t, initOptions{softHSM: true})}
	dir := t.TempDir()
	f.trust = identitytest.WriteConfig(t, dir, nil, f.ca.Entry(t, dir, "devices", "a.example", "b.example"))
	network := peertest.New(t)
	for _, host := range []string{"a.example", "b.example"} {
		e := &edgesTest{providerTest: newProviderOf(t, wireTest(t, initOptions{softHSM: true}), "softhsm", host, f.ca, f.trust), net: network}
		e.open(t)
		e.served = serveTest(t, e.wiring)
		network.Name(host, e.addr["peers"])
		f.hosts[host] = e
	}
	for _, e := range f.hosts {
		e.eventually("ready", func() bool { code, _ := e.page("/health/ready"); return code == http.StatusOK })
	}
	f.write("privyseal.json", must(json.Marshal(f.home.config)))
	return f
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (f *federation) write(name string, text []byte) string {
	f.t.Helper()
	path := filepath.Join(f.home.config.dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// try runs a subcommand and returns its status and what it wrote to its streams.
func (f *federation) try(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	args = append([]string{"--config", filepath.Join(f.home.config.dir, "privyseal.json")}, args...)
	status = run(context.Background(), args, streams{in: strings.NewReader(""), out: &out, err: &errs})
	return status, out.String(), errs.String()
}

// run runs a subcommand, which must end with a status. Output and errors are
// returned together.
func (f *federation) run(want int, args ...string) string {
	f.t.Helper()
	status, out, errs := f.try(args...)
	if status != want {
		f.t.Fatalf("%v: status %d, want %d\n%s%s", args, status, want, out, errs)
	}
	return out + errs
}

// client runs a subcommand of client, as alice or bob.
func (f *federation) client(want int, name string, args ...string) string {
	f.t.Helper()
	return f.run(want, append([]string{"client", "--client", name}, args...)...)
}

// until runs a subcommand of a client until it prints something.
func (f *federation) until(name, want string, args ...string) string {
	f.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, out, errs := f.try(append([]string{"client", "--client", name}, args...)...)
		if strings.Contains(out, want) {
			return out
		}
		if time.Now().After(end) {
			f.t.Fatalf("%s %v does not print %q:\n%s%s", name, args, want, out, errs)
		}
	}
}

// says fails unless a text has all the parts.
func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in:\n%s", p, text)
		}
	}
}

// register makes a key in the token, has it certified and registers a client of
// a user with it.
func (f *federation) register(name, host string) {
	f.t.Helper()
	key, err := f.home.ring.Create(f.t.Context(), signer.NewKey{ID: signer.KeyID(name), Purpose: signer.PurposeMLSLeaf, Device: "softhsm"})
	if err != nil {
		f.t.Fatal(err)
	}
	s, err := f.home.ring.Signer(f.t.Context(), key.ID, key.Purpose)
	if err != nil {
		f.t.Fatal(err)
	}
	leaf := f.ca.Issue(f.t, s.Public(), identitytest.Day, "mimi://"+host+"/d/"+name+"/phone", "mimi://"+host+"/u/"+name)
	f.run(0, append(f.registration(name, host), "--key", name, "--credential", f.write(name+".pem", pemOf(leaf.Raw)))...)
}

// registration is the subcommand without key and credential.
func (f *federation) registration(name, host string) []string {
	f.t.Helper()
	e := f.hosts[host]
	return []string{
		"client", "register", name, "--provider", "https://" + e.addr["clients"],
		"--provider-ca", f.write(host+".pem", []byte(testRoot(f.t, filepath.Join(e.config.dir, "server.pem")))),
		"--trust", f.trust, "--software-init-keys",
	}
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestFederation has alice of a.example and bob of b.example use what there is
// beside messages, by the command line, at two providers over mutual TLS.
func TestFederation(t *testing.T) {
	f := newFederation(t)
	f.register("alice", "a.example")
	f.register("bob", "b.example")
	for _, story := range []struct {
		name string
		tell func(*federation, *testing.T)
	}{{"consent", (*federation).testConsent}, {"assets", (*federation).testAssets}} {
		t.Run(story.name, func(t *testing.T) {
			f.t = t
			story.tell(f, t)
		})
	}
}

// testConsent has alice ask bob before she may add him.
func (f *federation) testConsent(t *testing.T) {
	f.client(0, "alice", "room", "create", clubA, "--name", "Club")
	says(t, f.client(3, "alice", "add", clubA, bob), "noConsent", "ask for its consent")
	says(t, f.client(1, "alice", "consent", "request", "bob"), "is not of the form")
	says(t, f.client(1, "alice", "consent", "request", alice), "needs no consent of its own")
	says(t, f.client(0, "alice", "consent", "request", bob, "--room", clubA), "request     "+bob+"  "+clubA)
	says(t, f.client(0, "alice", "consent", "list"), "consent     "+alice+" asks to add "+bob+" to "+clubA)
	f.until("bob", alice+" asks to add "+bob+" to "+clubA, "consent", "list")
	f.client(0, "alice", "consent", "cancel", bob, "--room", clubA)
	f.client(0, "alice", "consent", "request", bob)
	f.until("bob", alice+" asks to add "+bob+" to any room", "consent", "list")
	if out := f.client(0, "bob", "consent", "list"); strings.Contains(out, clubA) {
		t.Errorf("a request that was cancelled is listed:\n%s", out)
	}
	f.client(0, "bob", "consent", "grant", alice)
	f.until("alice", alice+" may add "+bob+" to any room", "consent", "list")
	f.client(0, "alice", "add", clubA, bob)
	f.until("bob", "status      member", "room", "show", clubA)

	// A word about a room goes before that about any.
	f.client(0, "bob", "consent", "revoke", alice, "--room", "mimi://a.example/r/other")
	f.client(0, "alice", "room", "create", "mimi://a.example/r/other")
	says(t, f.client(3, "alice", "add", "mimi://a.example/r/other", bob), "noConsent")
	says(t, f.client(0, "bob", "consent", "list", "--json"), `"state": "granted"`, `"state": "revoked"`, `"room": "mimi://a.example/r/other"`)
}

// testAssets has alice attach a file, and bob fetch it in both ways.
func (f *federation) testAssets(t *testing.T) {
	picture := bytes.Repeat([]byte("picture "), 1000)
	path := f.write("cat.png", picture)
	var sent struct{ ID string }
	if err := json.Unmarshal([]byte(f.client(0, "alice", "attach", clubA, path, "--description", "a cat", "--json")), &sent); err != nil {
		t.Fatal(err)
	}
	says(t, f.until("bob", "asset", "recv", clubA), "asset cat.png, image/png, 8016 octets  a cat")
	out := func(name string) string { return filepath.Join(f.home.config.dir, name) }
	says(t, f.client(1, "bob", "fetch", clubA, sent.ID), "--out is required")
	says(t, f.client(1, "bob", "fetch", clubA, sent.ID, "--out", path), "is there already")
	says(t, f.client(1, "bob", "fetch", clubA, sent.ID, "--out", out("x"), "--by", "air"), "--by is proxy or ohttp")
	says(t, f.client(1, "alice", "attach", clubA, out("none")), "no such file")
	says(t, f.client(0, "bob", "fetch", clubA, sent.ID, "--out", out("got.png"), "--by", "ohttp"), "fetched     "+out("got.png")+", 8000 octets")
	if got, err := os.ReadFile(out("got.png")); err != nil || !bytes.Equal(got, picture) {
		t.Errorf("bob got %d octets, %v", len(got), err)
	}
	// The host of the asset is alice's provider, which fetches it for her.
	if got := f.client(0, "alice", "fetch", clubA, sent.ID, "--out", "-", "--by", "proxy"); got != string(picture) {
		t.Errorf("alice got %d octets", len(got))
	}
	// bob's provider does not fetch from there, and says so.
	says(t, f.client(3, "bob", "fetch", clubA, sent.ID, "--out", out("none.png"), "--by", "proxy"), "asset-host")
}
