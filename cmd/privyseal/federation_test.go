package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// A federation is two providers that are served whole, each with its keys in a
// token, and clients with keys in a third that are run by the command line.
type federation struct {
	t     *testing.T
	ca    *identitytest.CA
	hosts map[string]*edgesTest
	home  *wiring // of the clients
	trust string

	jwts, cwts *identitytest.TokenIssuer
}

// The rooms and users of stories.
const (
	clubA = "mimi://a.example/r/club"
	alice = "mimi://a.example/u/alice"
	bob   = "mimi://b.example/u/bob"
)

func newFederation(t *testing.T) *federation {
	t.Helper()
	return newFederationWith(t, nil)
}

// newFederationWith is newFederation with further issuers, which may be one of
// the providers itself: they are asked for before anything is served.
func newFederationWith(t *testing.T, more func(hosts map[string]*wiring, dir string) []identitytest.Issuer) *federation {
	t.Helper()
	f := &federation{
		t: t, ca: identitytest.NewCA(t, "devices", time.Now), hosts: make(map[string]*edgesTest),
		home: wireTest(t, initOptions{softHSM: true, tpm: tpmtest.Start(t, swtpm.Config{}).Address()}),
		jwts: identitytest.NewTokenIssuer(t, "https://jwts.example", time.Now), cwts: identitytest.NewTokenIssuer(t, "https://cwts.example", time.Now),
	}
	dir := t.TempDir()
	hosts := map[string]*wiring{"a.example": wireTest(t, initOptions{softHSM: true}), "b.example": wireTest(t, initOptions{softHSM: true})}
	issuers := []identitytest.Issuer{f.ca.Entry(t, dir, "devices", "a.example", "b.example"),
		f.jwts.Entry(t, dir, "jwts", "sd_jwt", "a.example"), f.cwts.Entry(t, dir, "cwts", "sd_cwt", "a.example")}
	if more != nil {
		issuers = append(issuers, more(hosts, dir)...)
	}
	f.trust = identitytest.WriteConfig(t, dir, nil, issuers...)
	network := peertest.New(t)
	for _, host := range []string{"a.example", "b.example"} {
		e := &edgesTest{providerTest: newProviderOf(t, hosts[host], "softhsm", host, f.ca, f.trust), net: network}
		e.open(t)
		if host == "a.example" {
			e.signing(t)
		}
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

// phonesPolicy lets leaf keys sign what MLS and the key bindings of their own
// tokens take.
const phonesPolicy = `{
  "version": 1,
  "rules": [
    {"id": "mls", "effect": "allow", "when": "key.purpose == 'mls-leaf' && request.shape == 'mls'"},
    {"id": "jwt", "effect": "allow", "when": "key.purpose == 'mls-leaf' && request.shape == 'jws' && jws.typ == 'kb+jwt'"},
    {"id": "cwt", "effect": "allow", "when": "key.purpose == 'mls-leaf' && request.shape == 'cose-sign1'"},
    {"id": "callers-ca", "effect": "allow", "when": "key.purpose == 'x509-ca'"}
  ]
}`

// signing has a provider's process run a signing service too.
func (e *edgesTest) signing(t *testing.T) {
	t.Helper()
	if _, err := e.ring.Create(t.Context(), signer.NewKey{ID: "caller-ca", Purpose: signer.PurposeX509CA, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(e.config.dir, "policy.json")
	if err := os.WriteFile(policy, []byte(phonesPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	e.config.Serve.Listeners["api"] = &ListenerSection{Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web"}
	e.config.Serve.Signer = &SignerSection{Listener: "api", CallerCA: "caller-ca", Policy: policy}
}

// register makes a key in the token, has it certified and registers a client of
// a user with it.
func (f *federation) register(name, host string) {
	f.t.Helper()
	public := f.key(name, signer.PurposeMLSLeaf, "softhsm")
	f.run(0, append(f.registration(name, host), "--key", name, "--credential", f.credential(typeX509, name, host, public))...)
}

// key makes a key in one of the devices of the clients.
func (f *federation) key(name string, purpose signer.Purpose, device string) crypto.PublicKey {
	f.t.Helper()
	f.run(0, "key", "create", name, "--purpose", string(purpose), "--device", device)
	return f.public(name)
}

// credential issues a credential of a kind for the phone of a user, and returns
// the file.
func (f *federation) credential(kind, name, host string, public crypto.PublicKey) string {
	f.t.Helper()
	client, user := "mimi://"+host+"/d/"+name+"/phone", "mimi://"+host+"/u/"+name
	switch kind {
	case typeSDJWT:
		return f.write(name+".sd-jwt", []byte(f.jwts.IssueSDJWT(f.t, public, client, user)))
	case typeSDCWT:
		return f.write(name+".sd-cwt", []byte(base64.RawURLEncoding.EncodeToString(f.cwts.IssueSDCWT(f.t, public, client, user))))
	}
	return f.write(name+".pem", pemOf(f.ca.Issue(f.t, public, identitytest.Day, client, user).Raw))
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
	}{{"consent", (*federation).testConsent}, {"rooms", (*federation).testRooms}, {"directory", (*federation).testDirectory}, {"assets", (*federation).testAssets}, {"watch", (*federation).testWatch}, {"credentials", (*federation).testCredentials}} {
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

// testRooms has alice make a room whose handshakes only members and the hub read,
// and bob of another provider enter it by himself. His provider may propose
// changes, as long as somebody of it is in the room.
func (f *federation) testRooms(t *testing.T) {
	const team, board = "mimi://a.example/r/team", "mimi://a.example/r/board"
	b := f.hosts["b.example"]
	sender := filepath.Join(b.config.dir, b.config.Serve.Provider.Keys[0].SenderCertificate)
	says(t, f.client(0, "alice", "room", "create", "--help"), "--semi-private", "--preauthorize", "--sender", "--parent", "moderated", "mimi://a.example/u/alice")
	for _, wrong := range []struct{ flag, value, why string }{
		{"--preauthorize", "ordinary_user", "is not of the form ROLE=WHO"},
		{"--preauthorize", "king=" + bob, "there is no role"},
		{"--preauthorize", "banned=" + bob, "gives role 1"},
		{"--preauthorize", "ordinary_user=" + clubA, "names neither a user nor a provider"},
		{"--preauthorize", "ordinary_user=x509:2.5.4.x=Acme", "is no OID"},
		{"--preauthorize", "ordinary_user=jwt:a=b", "is none of"},
		{"--roles", "kingdom", "is one of cooperative"},
		{"--role", "king", "there is no role"},
		{"--parent", "club", "is not of the form"},
	} {
		says(t, f.client(1, "alice", "room", "create", team, wrong.flag, wrong.value), wrong.why)
	}
	says(t, f.client(3, "alice", "room", "create", team, "--sender", f.trust), "--sender", "malformed in PEM")
	f.client(0, "alice", "room", "create", team, "--name", "Team", "--subject", "plans", "--roles", "strict", "--semi-private", "--max-users", "5",
		"--preauthorize", "policy_enforcer=mimi://b.example", "--preauthorize", "ordinary_user=sd-jwt:department=sales", "--preauthorize", "ordinary_user="+bob,
		"--sender", sender)
	says(t, f.client(0, "bob", "join", team), "status      member", "subject     plans", "handshakes  members and the hub read them", "may propose mimi://a.example, mimi://b.example")
	f.client(0, "bob", "send", team, "I came by myself")
	says(t, f.client(0, "alice", "recv", team), bob+"  issued by devices  message", "I came by myself")
	says(t, f.client(0, "bob", "room", "senders", team), "proposals   are taken from those below", "sender 0    mimi://a.example, the hub  x509  key ", "sender 1    mimi://b.example  x509  key ")
	f.client(0, "bob", "leave", team)
	f.listed("alice", team, "mimi://a.example")
	if out := f.client(0, "alice", "room", "senders", team, "--json"); strings.Contains(out, "mimi://b.example") || !strings.Contains(out, `"hub": true`) {
		t.Errorf("after the last of b.example has left:\n%s", out)
	}
	says(t, f.client(0, "alice", "room", "list"), team+"  member  epoch ", "1 participants  Team", clubA+"  member")
	says(t, f.client(0, "bob", "room", "list", "--json"), `"status": "left"`, `"room": "`+team+`"`)
	says(t, f.client(0, "bob", "room", "senders", team), "status      left")
	f.alone("alice", func() {
		for _, args := range [][]string{{"room", "senders", team}, {"room", "show", team}, {"members", team}, {"room", "list"}} {
			says(t, f.client(0, "alice", args...), "the provider does not answer", team[:len("mimi://a.example")])
		}
		f.client(exitRemote, "alice", "recv", team)
	})
	f.client(0, "bob", "join", team)
	f.listed("alice", team, "mimi://a.example, mimi://b.example")

	// Of a room that depends on another only people of that are in.
	says(t, f.client(3, "alice", "room", "create", board, "--parent", "mimi://a.example/r/nowhere"), "parent room")
	f.client(0, "alice", "room", "create", board, "--parent", clubA, "--one-device")
	says(t, f.client(0, "alice", "room", "show", board), "parent      "+clubA)
	says(t, f.client(3, "alice", "add", board, bob), "parent") // it would have all of the club

	// Once it is fixed, nobody comes or goes.
	f.client(0, "alice", "room", "fix", team)
	says(t, f.client(0, "alice", "room", "show", team, "--json"), `"fixed_membership": true`)
	says(t, f.client(3, "alice", "remove", team, bob), "fixed-membership")
}

// alone runs a function while a client's provider does not answer.
func (f *federation) alone(name string, do func()) {
	f.t.Helper()
	path := filepath.Join(clientsDir(f.home.config), name, clientRecordFile)
	record := must(os.ReadFile(path))
	away := bytes.ReplaceAll(record, []byte("https://"+f.hosts["a.example"].addr["clients"]), []byte("https://127.0.0.1:1"))
	if bytes.Equal(away, record) {
		f.t.Fatalf("%s does not name the provider", path)
	}
	if err := os.WriteFile(path, away, 0o600); err != nil {
		f.t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(path, record, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}()
	do()
}

// listed has a client take in, and commit, what others propose until these
// providers may propose changes.
func (f *federation) listed(name, room, want string) {
	f.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		f.client(0, name, "send", room, "what waits is committed with a message")
		if out := f.client(0, name, "room", "show", room); strings.Contains(out, "may propose "+want+"\n") {
			return
		} else if time.Now().After(end) {
			f.t.Fatalf("want %s in:\n%s", want, out)
		}
	}
}

// testDirectory has alice search for users of another provider, who go from its
// directory when they say so, and with their last client.
func (f *federation) testDirectory(t *testing.T) {
	const ben = "mimi://b.example/u/ben"
	f.register("ben", "b.example")
	find := func(want string, flags ...string) {
		t.Helper()
		says(t, f.client(0, "alice", append([]string{"find", "b.example"}, flags...)...), want)
	}
	find("nobody is found", "--nick", "ben")
	f.client(0, "ben", "profile", "--uri", "--name", "Benedict", "--email", "ben@mail.example")
	find(ben, "--nick", "ben")
	find(ben, "--uri", ben)
	find(ben+`  `, "--name", "benED")
	find(`name: "Benedict"`, "--email", "ben@mail.example", "--name", "dict")
	find("nobody is found", "--email", "ben@mail.example", "--name", "bob")
	says(t, f.client(1, "alice", "find", "b.example", "--name", "be"), "does not search for that")
	says(t, f.client(1, "alice", "find", "b.example"), "say what to search for")
	f.client(0, "ben", "profile", "--email", "ben@mail.example", "--hide")
	find("nobody is found", "--nick", "ben")
	find(ben+"  \n", "--email", "ben@mail.example")
	// With one of two clients nothing goes, with the last the profile does.
	tablet := "mimi://b.example/d/ben/tablet"
	public := f.key("ben-tablet", signer.PurposeMLSLeaf, "softhsm")
	file := f.write("ben-tablet.pem", pemOf(f.ca.Issue(t, public, identitytest.Day, tablet, ben).Raw))
	f.run(0, append(f.registration("ben-tablet", "b.example"), "--key", "ben-tablet", "--credential", file)...)
	says(t, f.client(0, "ben-tablet", "unregister"), "forgotten   "+tablet)
	find(ben, "--email", "ben@mail.example")
	f.client(0, "ben", "unregister")
	find("nobody is found", "--email", "ben@mail.example")
	says(t, f.client(2, "ben", "profile"), "not-registered")
	// It is known again, with nothing of before in the directory.
	f.run(0, append(f.registration("ben", "b.example"), "--key", "ben", "--credential", filepath.Join(f.home.config.dir, "ben.pem"))...)
	says(t, f.client(0, "ben", "profile"), "the directory tells nobody of us")
	f.client(0, "alice", "room", "create", "mimi://a.example/r/busy")
	says(t, f.client(3, "alice", "unregister"), "the client is in rooms", "mimi://a.example/r/busy (member)")
}

// testWatch has bob watch while alice writes, asks and attaches a file, which is
// fetched and kept.
func (f *federation) testWatch(t *testing.T) {
	picture := bytes.Repeat([]byte("picture "), 1000)
	path, dir := f.write("dog.png", picture), t.TempDir()
	says(t, f.client(1, "bob", "watch", "--fetch", path), "is no folder")
	says(t, f.client(1, "bob", "watch", "--fetch", dir, "--by", "air"), "--by is proxy or ohttp")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs syncBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--config", filepath.Join(f.home.config.dir, "privyseal.json"), "client", "--client", "bob", "watch", "--fetch", dir, "--by", "ohttp", "--fetch-within", "1ms"},
			streams{in: strings.NewReader(""), out: &out, err: &errs})
	}()
	prints := func(want string, does func()) {
		t.Helper()
		for end := time.Now().Add(60 * time.Second); !strings.Contains(out.String(), want); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("watch does not print %q:\n%s%s", want, out.String(), errs.String())
			}
			if does != nil {
				does()
			}
		}
	}
	// What was there before it watches is not shown: alice says it until it is.
	prints("are you there", func() { f.client(0, "alice", "send", clubA, "are you there"); time.Sleep(200 * time.Millisecond) })
	if strings.Contains(out.String(), "cat.png") {
		t.Errorf("watch prints what came before:\n%s", out.String())
	}
	f.client(0, "alice", "consent", "request", bob, "--room", "mimi://a.example/r/watched")
	prints(alice+" asks to add "+bob+" to mimi://a.example/r/watched", nil)
	f.client(0, "alice", "attach", clubA, path, "--description", "a dog")
	prints("asset dog.png, image/png, 8016 octets  a dog", nil)
	prints("fetched     ", nil)
	stop()
	if status := <-ended; status != 0 {
		t.Errorf("watch ends with status %d:\n%s", status, errs.String())
	}
	files := must(os.ReadDir(dir))
	if len(files) != 1 || !strings.HasSuffix(files[0].Name(), "-dog.png") {
		t.Fatalf("fetched %v", files)
	}
	if got, err := os.ReadFile(filepath.Join(dir, files[0].Name())); err != nil || !bytes.Equal(got, picture) {
		t.Errorf("fetched %d octets, %v", len(got), err)
	}
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
	// The name under which an asset is kept unasked is not the sender's to choose.
	dir := t.TempDir()
	var id content.MessageID
	if s, err := keepAsset(dir, id, &client.Attachment{Filename: "../../.bash_rc\x1b"}); err != nil || s.File != filepath.Join(dir, "0000000000000000-.._.._.bash_rc_") {
		t.Errorf("kept as %+v, %v", s, err)
	}
	// bob's provider does not fetch from there, and says so.
	says(t, f.client(3, "bob", "fetch", clubA, sent.ID, "--out", out("none.png"), "--by", "proxy"), "asset-host")
}

// testCredentials registers clients with credentials of every kind in every mode
// of custody, which then talk in one room.
func (f *federation) testCredentials(t *testing.T) {
	const room = "mimi://a.example/r/kinds"
	f.client(0, "alice", "room", "create", room, "--semi-private") // which keys sign in other framing
	remote := f.remote("remote-jwt", "remote-cwt", "remote-x509")
	for _, c := range []struct{ name, mode, device, kind, issuer string }{
		{"jwt", "device", "softhsm", typeSDJWT, "jwts"},
		{"cwt", "device", "softhsm", typeSDCWT, "cwts"},
		{"tpm", "device", "tpm", typeX509, "devices"},
		{"bound-x509", "bound", "softhsm", typeX509, "devices"},
		{"bound-jwt", "bound", "softhsm", typeSDJWT, "jwts"},
		{"bound-cwt", "bound", "tpm", typeSDCWT, "cwts"},
		{"remote-jwt", "remote", "", typeSDJWT, "jwts"},
		{"remote-cwt", "remote", "", typeSDCWT, "cwts"},
		{"remote-x509", "remote", "", typeX509, "devices"},
	} {
		var public crypto.PublicKey
		args := []string{"--key", c.name, "--mode", c.mode}
		shown := c.kind
		switch c.mode {
		case "remote":
			public = remote.public(c.name)
			args = append(args, "--identity", remote.identity, "--signer", remote.url)
		case "bound":
			public, shown = f.key(c.name, signer.PurposeCredentialConfirmation, c.device), "multi"
		default:
			public = f.key(c.name, signer.PurposeMLSLeaf, c.device)
		}
		args = append(f.registration(c.name, "a.example"), append(args, "--credential", f.credential(c.kind, c.name, "a.example", public))...)
		says(t, f.run(0, args...), "identity    issued by "+c.issuer, "credential  "+shown+", valid until ", "mode        "+c.mode)
		f.client(0, "alice", "add", room, "mimi://a.example/u/"+c.name)
		f.client(0, c.name, "send", room, "I am "+c.name)
		says(t, f.client(0, "alice", "recv", room), "mimi://a.example/u/"+c.name+"  issued by "+c.issuer+"  message", "I am "+c.name)
		f.client(0, c.name, "policy", room, "--subject", "the room of "+c.name)
		says(t, f.client(0, "alice", "room", "show", room), "subject     the room of "+c.name, "handshakes  members and the hub read them")
	}

	// A credential for another key, or that is none, is refused.
	other := f.credential(typeSDJWT, "other", "a.example", f.key("other", signer.PurposeMLSLeaf, "softhsm"))
	again := func(want int, name string, more ...string) string {
		return f.run(want, append(f.registration(name, "a.example"), more...)...)
	}
	says(t, again(3, "wrong", "--key", "cwt", "--credential", other), "cnf")
	says(t, again(3, "wrong", "--key", "cwt", "--credential", f.trust), "it is neither a chain of certificates in PEM, an SD-JWT nor an SD-CWT")
	says(t, again(1, "cwt", "--key", "other", "--credential", other), "client cwt has key cwt in mode device")
	says(t, again(1, "wrong", "--key", "other", "--credential", other, "--leaf-lifetime", "1h"), "--leaf-lifetime is for --mode bound")

	// A new credential comes into every room, once; so does a leaf key that is due.
	at := f.epoch("alice", room)
	again(0, "jwt", "--key", "jwt", "--credential", f.credential(typeSDJWT, "jwt", "a.example", f.public("jwt")))
	again(0, "bound-jwt", "--key", "bound-jwt", "--mode", "bound", "--leaf-lifetime", "75h", "--credential", filepath.Join(f.home.config.dir, "bound-jwt.sd-jwt"))
	var before struct {
		Leaf string `json:"leaf_key_until"`
	}
	after := before
	parse := func(text string, v any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		f.client(0, "jwt", "send", room, "with the next credential")
		parse(f.client(0, "bound-jwt", "status", "--json"), &after)
		f.client(0, "bound-jwt", "send", room, "with the next leaf key")
	}
	if until := must(time.Parse(time.RFC3339, after.Leaf)); time.Until(until) < 48*time.Hour {
		t.Errorf("the leaf key ends at %v, want in 75 hours", until)
	}
	if now := f.epoch("alice", room); now != at+2 {
		t.Errorf("the room went from epoch %d to %d, want two more", at, now)
	}
	says(t, f.client(0, "alice", "recv", room), "with the next credential", "with the next leaf key")
	says(t, f.client(0, "alice", "members", room), "mimi://a.example/d/bound-jwt/phone  issued by jwts  key")
}

func (f *federation) epoch(name, room string) uint64 {
	f.t.Helper()
	var info struct{ Epoch uint64 }
	if err := json.Unmarshal([]byte(f.client(0, name, "room", "show", room, "--json")), &info); err != nil {
		f.t.Fatal(err)
	}
	return info.Epoch
}

// public is the public key of one of the clients' keys.
func (f *federation) public(name string) crypto.PublicKey {
	f.t.Helper()
	block, _ := pem.Decode([]byte(f.run(0, "key", "public", name)))
	if block == nil {
		f.t.Fatalf("key %s has no public key", name)
	}
	return must(x509.ParsePKIXPublicKey(block.Bytes))
}

// A remoteCaller is a caller at the signing service of a.example.
type remoteCaller struct {
	f             *federation
	identity, url string
}

// remote enrols a caller and makes keys for leaves.
func (f *federation) remote(keys ...string) *remoteCaller {
	f.t.Helper()
	e := f.hosts["a.example"]
	r := &remoteCaller{f, filepath.Join(f.home.config.dir, "caller"), "https://" + e.addr["api"]}
	token := filepath.Join(f.home.config.dir, "token")
	var out bytes.Buffer
	config := filepath.Join(e.config.dir, "signing.json")
	if err := os.WriteFile(config, must(json.Marshal(e.config)), 0o600); err != nil {
		f.t.Fatal(err)
	}
	invite := []string{"--config", config, "caller", "invite", "phones", "--tenant", "acme", "--role", "admin", "--grant", "*:sign", "--out", token}
	if status := run(context.Background(), invite, streams{in: strings.NewReader(""), out: &out, err: &out}); status != 0 {
		f.t.Fatalf("caller invite: %s", out.String())
	}
	f.run(0, "remote", "--identity", r.identity, "enroll", "--server", r.url, "--server-ca", f.write("api.pem", []byte(testRoot(f.t, filepath.Join(e.config.dir, "server.pem")))), "--token-file", token)
	for _, k := range keys {
		f.run(0, "remote", "--identity", r.identity, "key", "create", k, "--purpose", "mls-leaf")
	}
	return r
}

func (r *remoteCaller) public(name string) crypto.PublicKey {
	r.f.t.Helper()
	block, _ := pem.Decode([]byte(r.f.run(0, "remote", "--identity", r.identity, "key", "public", name)))
	if block == nil {
		r.f.t.Fatalf("key %s has no public key", name)
	}
	return must(x509.ParsePKIXPublicKey(block.Bytes))
}

// The key binding of a token is made once, and anew when a third of its time is
// left and the token goes on.
func TestKeyBinding(t *testing.T) {
	issuer, key, dir := identitytest.NewTokenIssuer(t, "https://jwts.example", time.Now), identitytest.NewKey(t), t.TempDir()
	issuer.Lifetime = 100 * identitytest.Day
	text := []byte(issuer.IssueSDJWT(t, &key.PublicKey, "mimi://a.example/d/alice/phone", alice))
	r := &clientRecord{Credential: typeSDJWT}
	now := time.Now()
	at := func(days int) string {
		t.Helper()
		c, err := boundToken(t.Context(), dir, r, text, key, now.Add(time.Duration(days)*identitytest.Day))
		if err != nil {
			t.Fatal(err)
		}
		return string(c.Body)
	}
	first := at(0)
	if at(19) != first {
		t.Error("after 19 of 30 days it is another")
	}
	second := at(21)
	if second == first || at(22) != second {
		t.Error("after 21 of 30 days it is the same, or not the same for long")
	}
	last := at(80)
	if last == second || at(95) != last {
		t.Error("the last of the token is made anew, which lengthens nothing")
	}
	r.Audience = "mimi://b.example"
	if at(80) == last {
		t.Error("for another audience it is the same")
	}
	if _, err := boundToken(t.Context(), dir, r, text, identitytest.NewKey(t), now); credentials.CodeOf(err) != credentials.CodeCnfLeafMismatch {
		t.Errorf("by another key: %v", err)
	}
	if _, err := boundToken(t.Context(), dir, r, text, key, now.Add(101*identitytest.Day)); err == nil {
		t.Error("a token that has ended is bound")
	}
}
