package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
)

func newSigner(t testing.TB, s *suite) crypto.Signer {
	t.Helper()
	if s.sig.curve == nil {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k, err := ecdsa.GenerateKey(s.sig.curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newTestClient(t testing.TB, c CipherSuite, name string, with func(*Config)) *Client {
	t.Helper()
	cfg := Config{CipherSuite: c, Signer: newSigner(t, suites[c]), Credential: BasicCredential([]byte(name)),
		PSK: func(_ context.Context, id []byte) ([]byte, error) { return append([]byte("psk of "), id...), nil }}
	if with != nil {
		with(&cfg)
	}
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// A room is a group with all its members in one test. Every step ends in
// check: all members agree on the epoch.
type room struct {
	t      testing.TB
	ctx    context.Context
	suite  CipherSuite
	groups map[string]*Group
}

func newRoom(t testing.TB, c CipherSuite, creator string, opts GroupOptions, with func(*Config)) *room {
	t.Helper()
	r := &room{t, context.Background(), c, map[string]*Group{}}
	g, err := newTestClient(t, c, creator, with).CreateGroup(r.ctx, nil, opts)
	r.must(err)
	r.groups[creator] = g
	return r
}

func (r *room) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) keyPackage(name string, with func(*Config)) *KeyPackageEntry {
	r.t.Helper()
	e, err := newTestClient(r.t, r.suite, name, with).NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	return e
}

// deliver gives a handshake message to everybody but its sender.
func (r *room) deliver(from string, message []byte) {
	r.t.Helper()
	for name, g := range r.groups {
		if name == from {
			continue
		}
		switch v := mustVerify(r.t, g, message).(type) {
		case *VerifiedProposal:
			r.must(g.Keep(v))
		case *VerifiedCommit:
			staged, err := g.Stage(r.ctx, v)
			if err != nil {
				r.t.Fatalf("%s: %v", name, err)
			}
			r.must(g.Merge(r.ctx, staged))
			if !g.Active() && g.removed {
				delete(r.groups, name)
			}
		}
	}
}

// commit commits for one member, delivers and merges.
func (r *room) commit(from string, opts CommitOptions) *PendingCommit {
	r.t.Helper()
	g := r.groups[from]
	p, err := g.Commit(r.ctx, opts)
	r.must(err)
	r.deliver(from, p.Message)
	r.must(g.MergePending(r.ctx))
	if len(p.Staged.Added()) == 0 {
		r.check()
	}
	return p
}

// add brings new members in.
func (r *room) add(from string, opts CommitOptions, names ...string) {
	r.t.Helper()
	clients := map[string]*Client{}
	entries := map[string]*KeyPackageEntry{}
	for _, name := range names {
		clients[name] = newTestClient(r.t, r.suite, name, nil)
		e, err := clients[name].NewKeyPackage(r.ctx, KeyPackageOptions{})
		r.must(err)
		entries[name] = e
		opts.Proposals = append(opts.Proposals, &Add{e.KeyPackage})
	}
	opts.RatchetTree = true
	p := r.commit(from, opts)
	for _, name := range names {
		w, err := ParseWelcome(p.Welcome)
		r.must(err)
		g, err := clients[name].Join(r.ctx, w, []*KeyPackageEntry{entries[name]}, JoinOptions{})
		if err != nil {
			r.t.Fatalf("%s joins: %v", name, err)
		}
		r.groups[name] = g
	}
	r.check()
}

// check compares everybody's view and sends a message from each member.
func (r *room) check() {
	r.t.Helper()
	var first *Group
	for name, g := range r.groups {
		if first == nil {
			first = g
		}
		if !bytes.Equal(g.EpochAuthenticator(), first.EpochAuthenticator()) || g.Epoch() != first.Epoch() {
			r.t.Fatalf("%s is in another epoch", name)
		}
		if g.Size() != len(r.groups) {
			r.t.Fatalf("%s sees %d members of %d", name, g.Size(), len(r.groups))
		}
	}
}

func (r *room) chat() {
	r.t.Helper()
	for from, g := range r.groups {
		m, err := g.Send(r.ctx, []byte("hello from "+from), []byte("aad"))
		r.must(err)
		for to, other := range r.groups {
			if to == from {
				continue
			}
			v := mustVerify(r.t, other, m).(*ApplicationMessage)
			if string(v.Data()) != "hello from "+from || string(v.AuthenticatedData()) != "aad" {
				r.t.Fatalf("%s read %q from %s", to, v.Data(), from)
			}
		}
	}
}

func (r *room) reloadAll() {
	r.t.Helper()
	for name, g := range r.groups {
		r.groups[name] = reload(r.t, g)
	}
}

func TestGroupStory(t *testing.T) {
	for _, c := range CipherSuites() {
		t.Run(fmt.Sprintf("suite %d", c), func(t *testing.T) { groupStory(t, c) })
	}
}

func groupStory(t *testing.T, c CipherSuite) {
	r := newRoom(t, c, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	r.add("bob", CommitOptions{WireFormat: WirePublicMessage}, "carol", "dave", "erin")
	r.chat()
	r.add("carol", CommitOptions{OmitPath: true}, "frank")
	r.chat()
	r.reloadAll()

	m, err := r.groups["dave"].ProposeUpdate(r.ctx, nil, ProposeOptions{})
	r.must(err)
	r.deliver("dave", m)
	r.groups["dave"] = reload(t, r.groups["dave"])
	m, err = r.groups["erin"].Propose(r.ctx, &Remove{r.groups["bob"].OwnLeaf()}, ProposeOptions{WireFormat: WirePublicMessage})
	r.must(err)
	r.deliver("erin", m)
	if _, err := r.groups["alice"].Send(r.ctx, nil, nil); !errors.Is(err, ErrProposals) {
		t.Fatalf("sending with proposals pending: %v", err)
	}
	r.commit("alice", CommitOptions{})
	if r.groups["bob"] != nil {
		t.Fatal("bob was not removed")
	}
	r.chat()

	r.commit("frank", CommitOptions{Proposals: []Proposal{r.groups["frank"].ExternalPSK([]byte("x")), r.groups["frank"].ResumptionPSK(r.groups["frank"].Epoch() - 1)}, OmitPath: true})
	r.commit("carol", CommitOptions{})
	r.commit("dave", CommitOptions{Proposals: []Proposal{&GroupContextExtensions{Extensions{RequiredCapabilities{Credentials: []CredentialType{CredentialBasic}}.Extension()}}}})
	r.chat()
	r.reloadAll()
	r.chat()

	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	r.must(err)
	grace := newTestClient(t, c, "grace", nil)
	j, err := grace.JoinExternal(r.ctx, gi, ExternalJoinOptions{PSKs: []*PreSharedKey{r.groups["alice"].ExternalPSK([]byte("y"))}})
	r.must(err)
	r.deliver("", j.Message)
	r.groups["grace"], err = j.Join(r.ctx)
	r.must(err)
	r.check()
	r.chat()

	gi, err = r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	r.must(err)
	delete(r.groups, "grace")
	j, err = grace.JoinExternal(r.ctx, gi, ExternalJoinOptions{Resync: true})
	r.must(err)
	r.deliver("", j.Message)
	r.groups["grace"], err = j.Join(r.ctx)
	r.must(err)
	r.check()
	r.chat()
}

func TestPendingCommit(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	alice, bob := r.groups["alice"], r.groups["bob"]

	_, err := alice.Commit(r.ctx, CommitOptions{})
	r.must(err)
	if _, err := alice.Commit(r.ctx, CommitOptions{}); !errors.Is(err, ErrPendingCommit) {
		t.Fatalf("second commit: %v", err)
	}
	r.must(alice.DiscardPending(r.ctx))
	r.check()
	r.chat()

	// A commit that was made before a restart is merged after it.
	p, err := alice.Commit(r.ctx, CommitOptions{})
	r.must(err)
	r.groups["alice"] = reload(t, alice)
	r.deliver("alice", p.Message)
	r.must(r.groups["alice"].MergePending(r.ctx))
	r.check()

	// Two commits for one epoch: the one that is accepted wins everywhere.
	alice = r.groups["alice"]
	_, err = alice.Commit(r.ctx, CommitOptions{})
	r.must(err)
	r.commit("bob", CommitOptions{})
	if alice.Pending() != nil {
		t.Fatal("the commit that lost is still pending")
	}
	if err := bob.MergePending(r.ctx); !errors.Is(err, ErrNoPending) {
		t.Fatalf("merging nothing: %v", err)
	}
	r.chat()
}

func TestLateAndReorderedMessages(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	alice, bob := r.groups["alice"], r.groups["bob"]
	var sent [][]byte
	for i := range 10 {
		m, err := alice.Send(r.ctx, []byte{byte(i)}, nil)
		r.must(err)
		sent = append(sent, m)
	}
	for _, i := range []int{3, 1, 9, 0} {
		if d := mustVerify(t, bob, sent[i]).(*ApplicationMessage).Data(); d[0] != byte(i) {
			t.Fatalf("read %d", d)
		}
	}
	m, err := ParseMessage(sent[3])
	r.must(err)
	if _, err := bob.Verify(m); !errors.Is(err, ErrConsumed) {
		t.Fatalf("replay: %v", err)
	}
	// A damaged copy must not cost the original its key.
	damaged, err := ParseMessage(sent[5])
	r.must(err)
	damaged.PrivateMessage.Ciphertext[len(damaged.PrivateMessage.Ciphertext)-1] ^= 1
	if _, err := bob.Verify(damaged); !errors.Is(err, ErrDecrypt) {
		t.Fatalf("damaged: %v", err)
	}
	mustVerify(t, bob, sent[5])
	r.commit("bob", CommitOptions{})
	r.groups["bob"] = reload(t, bob)
	mustVerify(t, r.groups["bob"], sent[7])
	r.commit("alice", CommitOptions{})
	r.commit("alice", CommitOptions{})
	if m, err = ParseMessage(sent[8]); err != nil {
		t.Fatal(err)
	}
	if _, err := r.groups["bob"].Verify(m); !errors.Is(err, ErrWrongEpoch) {
		t.Fatalf("message of an epoch that is forgotten: %v", err)
	}
}

// Whatever instant a client dies at, a generation is used once.
func TestCrashSkipsGenerations(t *testing.T) {
	st := NewMemoryStorage()
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, func(c *Config) { c.Storage, c.Limits.GenerationBlock = st, 4 })
	r.add("alice", CommitOptions{}, "bob")
	seen := map[uint32]bool{}
	for range 10 {
		alice := r.groups["alice"]
		for range 3 {
			m, err := alice.Send(r.ctx, []byte("x"), nil)
			r.must(err)
			g := mustVerify(t, r.groups["bob"], m).(*ApplicationMessage).Generation
			if seen[g] {
				t.Fatalf("generation %d twice", g)
			}
			seen[g] = true
		}
		var err error
		r.groups["alice"], err = alice.client.LoadGroup(r.ctx, alice.ID())
		r.must(err)
	}
}

// brokenSigner is a device that fails when it is told to.
type brokenSigner struct {
	crypto.Signer
	failAt, calls int
}

var errDevice = errors.New("device is gone")

func (b *brokenSigner) SignContext(_ context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if b.calls++; b.calls == b.failAt {
		return nil, errDevice
	}
	return b.Sign(rand.Reader, digest, opts)
}

func TestFailedSignatureLeavesGroup(t *testing.T) {
	dev := &brokenSigner{Signer: newSigner(t, suites[P256AES128SHA256P256])}
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, func(c *Config) { c.Signer = dev })
	r.add("alice", CommitOptions{}, "bob")
	alice := r.groups["alice"]
	before, err := alice.MarshalBinary()
	r.must(err)
	e := r.keyPackage("carol", nil)
	for fail := 1; fail <= 3; fail++ { // leaf, message, GroupInfo
		dev.calls, dev.failAt = 0, fail
		_, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, WireFormat: WirePublicMessage})
		var sign *SignError
		if !errors.As(err, &sign) || !errors.Is(err, errDevice) {
			t.Fatalf("signature %d: %v", fail, err)
		}
		after, err := alice.MarshalBinary()
		r.must(err)
		if !bytes.Equal(before, after) {
			t.Fatalf("signature %d: the group changed", fail)
		}
	}
	dev.calls, dev.failAt = 0, 1
	if _, err := alice.Send(r.ctx, []byte("x"), nil); !errors.Is(err, errDevice) {
		t.Fatal(err)
	}
	r.commit("alice", CommitOptions{})
	r.chat()
}

// deviceKey hides a private key behind the interface that devices have.
type deviceKey struct {
	key  *ecdh.PrivateKey
	used *int
}

func (d deviceKey) PublicKey() *ecdh.PublicKey { return d.key.PublicKey() }
func (d deviceKey) Curve() ecdh.Curve          { return d.key.Curve() }
func (d deviceKey) ECDH(p *ecdh.PublicKey) ([]byte, error) {
	*d.used++
	return d.key.ECDH(p)
}

func TestDeviceInitKey(t *testing.T) {
	raw, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	device, err := hpke.NewDHKEMPrivateKey(deviceKey{raw, &used})
	if err != nil {
		t.Fatal(err)
	}
	raw2, _ := ecdh.P256().GenerateKey(rand.Reader)
	leafKey, err := hpke.NewDHKEMPrivateKey(deviceKey{raw2, &used})
	if err != nil {
		t.Fatal(err)
	}
	find := func(_ context.Context, public []byte) (hpke.PrivateKey, error) {
		for _, k := range []hpke.PrivateKey{device, leafKey} {
			if bytes.Equal(k.PublicKey().Bytes(), public) {
				return k, nil
			}
		}
		return nil, errors.New("no such key")
	}
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	st := NewMemoryStorage()
	bob := newTestClient(t, r.suite, "bob", func(c *Config) { c.Storage, c.PrivateKey = st, find })
	e, err := bob.NewKeyPackage(r.ctx, KeyPackageOptions{InitKey: device, LeafKey: leafKey})
	r.must(err)
	p, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true})
	r.must(err)
	r.must(r.groups["alice"].MergePending(r.ctx))
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	if r.groups["bob"], err = bob.Join(r.ctx, w, nil, JoinOptions{}); err != nil {
		t.Fatal(err)
	}
	if used != 1 {
		t.Errorf("the device was asked %d times", used)
	}
	if _, err := st.ReadKeyPackage(r.ctx, e.Ref()); !errors.Is(err, ErrNotFound) {
		t.Error("the KeyPackage is still stored")
	}
	r.groups["bob"], err = bob.LoadGroup(r.ctx, r.groups["bob"].ID())
	r.must(err)
	r.commit("alice", CommitOptions{})
	r.commit("bob", CommitOptions{})
	r.chat()
}

func TestNewSignerAndCredential(t *testing.T) {
	judge := func(context.Context, *Judgement) error { return nil }
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, func(c *Config) { c.Judge = judge })
	r.add("alice", CommitOptions{}, "bob")
	next := newSigner(t, suites[r.suite])
	credential := BasicCredential([]byte("alice, renewed"))
	r.groups["bob"].client.cfg.Judge = judge
	r.commit("alice", CommitOptions{Leaf: &LeafChange{Signer: next, Credential: &credential}})
	r.chat()
	r.commit("alice", CommitOptions{})
	m, err := r.groups["bob"].ProposeUpdate(r.ctx, &LeafChange{Signer: newSigner(t, suites[r.suite])}, ProposeOptions{})
	r.must(err)
	r.deliver("bob", m)
	r.commit("alice", CommitOptions{})
	r.chat()
}

func TestExternalProposals(t *testing.T) {
	sender := newSigner(t, suites[P256AES128SHA256P256])
	key, err := sigP256.encodePublicKey(sender.Public())
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{Extensions: Extensions{
		ExternalSendersExtension(ExternalSender{key, BasicCredential([]byte("hub"))}),
	}}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	groupCtx := r.groups["alice"].Context()
	m, err := ProposeExternally(r.ctx, sender, &groupCtx, 0, &Remove{r.groups["carol"].OwnLeaf()}, nil)
	r.must(err)
	r.deliver("", m)

	dave := newTestClient(t, r.suite, "dave", nil)
	e, err := dave.NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	m, err = dave.ProposeJoin(r.ctx, &groupCtx, e, nil)
	r.must(err)
	r.deliver("", m)

	p, err := r.groups["bob"].Commit(r.ctx, CommitOptions{RatchetTree: true})
	r.must(err)
	r.deliver("bob", p.Message)
	r.must(r.groups["bob"].MergePending(r.ctx))
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	r.groups["dave"], err = dave.Join(r.ctx, w, []*KeyPackageEntry{e}, JoinOptions{})
	r.must(err)
	if r.groups["carol"] != nil {
		t.Fatal("carol was not removed")
	}
	r.check()
	r.chat()
}

func TestReInitAndBranch(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")

	succeed := func(old *room, from string, names []string, make func(*Client, []*KeyPackage) (*Group, *PendingCommit, error)) *room {
		next := &room{t, old.ctx, old.suite, map[string]*Group{}}
		entries := map[string]*KeyPackageEntry{}
		var kps []*KeyPackage
		for _, n := range names {
			e, err := old.groups[n].client.NewKeyPackage(old.ctx, KeyPackageOptions{})
			old.must(err)
			entries[n], kps = e, append(kps, e.KeyPackage)
		}
		g, p, err := make(old.groups[from].client, kps)
		old.must(err)
		next.groups[from] = g
		w, err := ParseWelcome(p.Welcome)
		old.must(err)
		for _, n := range names {
			if _, err := old.groups[n].client.Join(old.ctx, w, []*KeyPackageEntry{entries[n]}, JoinOptions{}); err == nil {
				t.Fatal("joined without knowing the old group")
			}
			next.groups[n], err = old.groups[n].client.Join(old.ctx, w, []*KeyPackageEntry{entries[n]}, JoinOptions{Parent: old.groups[n]})
			old.must(err)
		}
		next.check()
		next.chat()
		return next
	}
	succeed(r, "bob", []string{"carol"}, func(c *Client, kps []*KeyPackage) (*Group, *PendingCommit, error) {
		return c.Branch(r.ctx, r.groups["bob"], nil, nil, kps, CommitOptions{RatchetTree: true})
	})
	r.commit("alice", CommitOptions{Proposals: []Proposal{&ReInit{[]byte("next"), MLS10, r.suite, nil}}})
	if _, err := r.groups["bob"].Send(r.ctx, nil, nil); !errors.Is(err, ErrReInitialized) {
		t.Fatalf("sending after ReInit: %v", err)
	}
	r.reloadAll()
	succeed(r, "carol", []string{"alice", "bob"}, func(c *Client, kps []*KeyPackage) (*Group, *PendingCommit, error) {
		return c.ReInitTo(r.ctx, r.groups["carol"], kps, CommitOptions{RatchetTree: true})
	})
}

// Unknown credentials and proposals of the private range pass unchanged.
func TestCustomTypes(t *testing.T) {
	caps := DefaultCapabilities()
	caps.Proposals = []ProposalType{0xF0AB}
	caps.Credentials = append(caps.Credentials, 0xF0CD)
	with := func(c *Config) {
		c.Capabilities = caps
		c.Credential = Credential{0xF0CD, append([]byte("opaque "), c.Credential.Body...)}
	}
	r := newRoom(t, X25519ChaCha20SHA256Ed25519, "alice", GroupOptions{}, with)
	e, err := newTestClient(t, r.suite, "bob", with).NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	_, err = r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}, &CustomProposal{0xF0AB, []byte("data")}}})
	r.must(err)
	r.must(r.groups["alice"].MergePending(r.ctx))
	if c := r.groups["alice"].Member(1).Credential; c.Type != 0xF0CD || string(c.Body) != "opaque bob" {
		t.Fatalf("credential came back as %v", c)
	}
}
