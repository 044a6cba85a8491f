package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The files below testdata/state are what releases wrote and what every later
// one must read; see the README there. Only a new version of the state, in a
// folder of its own, is a reason to write files again.
var updateStateVectors = flag.Bool("update-mls-state-vectors", false, "write testdata/state/v1 again")

var stateSuites = []CipherSuite{X25519AES128SHA256Ed25519, P256AES128SHA256P256}

// stateSigner is the software key of a member in the stored states: its
// private key is the hash of this text.
func stateSigner(t testing.TB, c CipherSuite, name string) crypto.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte("state vectors, signature key of " + name))
	if c == X25519AES128SHA256Ed25519 {
		return ed25519.NewKeyFromSeed(seed[:])
	}
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// stateClient lives at the time when the files were written.
func stateClient(t testing.TB, c CipherSuite, name string) *Client {
	t.Helper()
	client, err := NewClient(Config{
		CipherSuite: c, Signer: stateSigner(t, c, name), Credential: BasicCredential([]byte(name)),
		Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func statePath(c CipherSuite, name string) string {
	return filepath.Join("testdata", "state", "v1", fmt.Sprintf("suite%d", c), name+".bin")
}

// A stateRoom is a room whose members have the fixed keys.
type stateRoom struct{ *room }

func newStateRoom(t testing.TB, c CipherSuite) *stateRoom {
	return &stateRoom{&room{t, context.Background(), c, map[string]*Group{}}}
}

func (r *stateRoom) create(name string) {
	r.t.Helper()
	var err error
	r.groups[name], err = stateClient(r.t, r.suite, name).CreateGroup(r.ctx, []byte("state vectors"), GroupOptions{})
	r.must(err)
}

func (r *stateRoom) invite(from, name string, e *KeyPackageEntry) {
	r.t.Helper()
	p := r.commit(from, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true})
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	r.groups[name], err = stateClient(r.t, r.suite, name).Join(r.ctx, w, []*KeyPackageEntry{e}, JoinOptions{})
	r.must(err)
	r.check()
}

func (r *stateRoom) entry(name string) *KeyPackageEntry {
	r.t.Helper()
	e, err := stateClient(r.t, r.suite, name).NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	return e
}

func (r *stateRoom) write(name string, b []byte) {
	r.t.Helper()
	path := statePath(r.suite, name)
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	r.must(os.WriteFile(path, b, 0o644))
}

func (r *stateRoom) read(name string) []byte {
	r.t.Helper()
	b, err := os.ReadFile(statePath(r.suite, name))
	r.must(err)
	return b
}

func (r *stateRoom) save(situation string, names ...string) {
	r.t.Helper()
	for _, name := range names {
		b, err := r.groups[name].MarshalBinary()
		r.must(err)
		r.write(situation+"-"+name, b)
	}
}

func (r *stateRoom) load(situation string, names ...string) {
	r.t.Helper()
	clear(r.groups)
	for _, name := range names {
		g, err := stateClient(r.t, r.suite, name).UnmarshalGroup(r.ctx, r.read(situation+"-"+name))
		if err != nil {
			r.t.Fatalf("%s of %s: %v", situation, name, err)
		}
		r.groups[name] = g
	}
}

// want checks what a loaded group says of itself.
func (r *stateRoom) want(name string, epoch uint64, active bool, members ...string) {
	r.t.Helper()
	g := r.groups[name]
	var got []string
	for m := range g.Members() {
		got = append(got, string(m.Node.Credential.Identity()))
	}
	if g.Epoch() != epoch || g.Active() != active || fmt.Sprint(got) != fmt.Sprint(members) || string(g.ID()) != "state vectors" {
		r.t.Errorf("%s is in epoch %d, active %v, with %v; want %d, %v, %v", name, g.Epoch(), g.Active(), got, epoch, active, members)
	}
}

// writeStates makes the situations one after the other, in one group.
func writeStates(t *testing.T, c CipherSuite) {
	r := newStateRoom(t, c)
	r.create("alice")
	r.save("fresh", "alice")
	e := r.entry("bob")
	b, err := e.MarshalBinary()
	r.must(err)
	r.write("keypackage-bob", b)

	r.invite("alice", "bob", e)
	var sent [][]byte
	for i := range 5 {
		m, err := r.groups["alice"].Send(r.ctx, []byte{byte(i)}, []byte("aad"))
		r.must(err)
		sent = append(sent, m)
	}
	mustVerify(t, r.groups["bob"], sent[1])
	mustVerify(t, r.groups["bob"], sent[3])
	for _, i := range []int{0, 2, 3} {
		r.write(fmt.Sprintf("skipped-message%d", i), sent[i])
	}
	r.save("skipped", "alice", "bob")

	_, err = r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{r.groups["alice"].ResumptionPSK(1)}})
	r.must(err)
	r.save("pending", "alice", "bob")
	r.must(r.groups["alice"].DiscardPending(r.ctx))

	r.invite("bob", "carol", r.entry("carol"))
	m, err := r.groups["alice"].ProposeUpdate(r.ctx, nil, ProposeOptions{})
	r.must(err)
	r.deliver("alice", m)
	m, err = r.groups["bob"].Propose(r.ctx, &Remove{r.groups["carol"].OwnLeaf()}, ProposeOptions{WireFormat: WirePublicMessage})
	r.must(err)
	r.deliver("bob", m)
	r.save("proposals", "alice", "bob", "carol")

	carol := r.groups["carol"]
	r.commit("bob", CommitOptions{})
	r.groups["carol"] = carol
	r.save("removed", "carol")
	delete(r.groups, "carol")

	r.commit("bob", CommitOptions{Proposals: []Proposal{&ReInit{[]byte("next"), MLS10, c, nil}}})
	r.save("closed", "alice", "bob")
}

func TestStateVectors(t *testing.T) {
	for _, c := range stateSuites {
		t.Run(fmt.Sprintf("suite %d", c), func(t *testing.T) {
			if *updateStateVectors {
				writeStates(t, c)
			}
			readStates(t, newStateRoom(t, c))
		})
	}
}

func readStates(t *testing.T, r *stateRoom) {
	readFresh(t, r)
	readSkipped(t, r)

	r.load("pending", "alice", "bob")
	r.want("alice", 1, true, "alice", "bob")
	alice := r.groups["alice"]
	if alice.Pending() == nil {
		t.Fatal("the commit is not pending")
	}
	r.deliver("alice", alice.Pending().Message)
	r.must(alice.MergePending(r.ctx))
	r.want("bob", 2, true, "alice", "bob")
	r.check()
	r.chat()

	r.load("proposals", "alice", "bob", "carol")
	r.want("carol", 2, true, "alice", "bob", "carol")
	for name, g := range r.groups {
		if n := len(g.PendingProposals()); n != 2 {
			t.Errorf("%s has %d proposals", name, n)
		}
	}
	r.commit("bob", CommitOptions{}) // covers alice's Update, whose key she has stored
	r.want("alice", 3, true, "alice", "bob")
	r.chat()
	r.commit("alice", CommitOptions{})

	r.load("removed", "carol")
	r.want("carol", 3, false, "alice", "bob")
	if _, err := r.groups["carol"].Send(r.ctx, nil, nil); !errors.Is(err, ErrInactive) {
		t.Errorf("carol could send: %v", err)
	}
	readClosed(t, r)
}

// readFresh adds the stored KeyPackage to the stored group of one.
func readFresh(t *testing.T, r *stateRoom) {
	r.load("fresh", "alice")
	r.want("alice", 0, true, "alice")
	raw := r.read("keypackage-bob")
	e, err := stateClient(t, r.suite, "bob").UnmarshalKeyPackage(r.ctx, raw)
	r.must(err)
	if again, err := e.MarshalBinary(); err != nil || !bytes.Equal(again, raw) {
		t.Errorf("the KeyPackage is stored otherwise now: %v", err)
	}
	r.invite("alice", "bob", e)
	r.want("bob", 1, true, "alice", "bob")
	r.chat()
}

// readSkipped reads messages that were on their way when the state was
// written, and none twice.
func readSkipped(t *testing.T, r *stateRoom) {
	r.load("skipped", "alice", "bob")
	r.want("bob", 1, true, "alice", "bob")
	for _, i := range []int{0, 2} {
		m := mustVerify(t, r.groups["bob"], r.read(fmt.Sprintf("skipped-message%d", i))).(*ApplicationMessage)
		if !bytes.Equal(m.Data(), []byte{byte(i)}) || m.Generation != uint32(i) {
			t.Errorf("message %d says %x in generation %d", i, m.Data(), m.Generation)
		}
	}
	m, err := ParseMessage(r.read("skipped-message3"))
	r.must(err)
	if _, err := r.groups["bob"].Verify(m); !errors.Is(err, ErrConsumed) {
		t.Errorf("a message could be read again: %v", err)
	}
	sent, err := r.groups["alice"].Send(r.ctx, nil, nil)
	r.must(err)
	if g := mustVerify(t, r.groups["bob"], sent).(*ApplicationMessage).Generation; g < 5 {
		t.Errorf("generation %d was used again", g)
	}
	r.commit("bob", CommitOptions{})
	r.chat()
}

// readClosed continues in the group that the ReInit asks for.
func readClosed(t *testing.T, r *stateRoom) {
	r.load("closed", "alice", "bob")
	r.want("alice", 4, false, "alice", "bob")
	alice, bob := r.groups["alice"], r.groups["bob"]
	if ri := alice.ReInit(); ri == nil || string(ri.GroupID) != "next" {
		t.Fatalf("the group was closed for %v", ri)
	}
	e := r.entry("alice")
	g, p, err := bob.client.ReInitTo(r.ctx, bob, []*KeyPackage{e.KeyPackage}, CommitOptions{RatchetTree: true})
	r.must(err)
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	next, err := alice.client.Join(r.ctx, w, []*KeyPackageEntry{e}, JoinOptions{Parent: alice})
	r.must(err)
	wantBytes(t, "authenticator", next.EpochAuthenticator(), g.EpochAuthenticator())
}
