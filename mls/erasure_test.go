package mls

import (
	"bytes"
	"testing"
)

// A shredder remembers secrets that must be gone later.
type shredder struct {
	t       *testing.T
	secrets map[string][]byte
}

func newShredder(t *testing.T) *shredder { return &shredder{t, map[string][]byte{}} }

func (s *shredder) note(name string, secret []byte) {
	s.t.Helper()
	if len(secret) < 12 || bytes.Equal(secret, make([]byte, len(secret))) {
		s.t.Fatalf("%s is no secret: %x", name, secret)
	}
	s.secrets[name] = bytes.Clone(secret)
}

func (s *shredder) notePrivate(name string, k keyPair) {
	s.t.Helper()
	raw, err := k.private.Bytes()
	if err != nil {
		s.t.Fatal(err)
	}
	s.note(name, raw)
}

// present checks that the secrets are in a stored state: else gone would say
// nothing.
func (s *shredder) present(g *Group) {
	s.t.Helper()
	s.look(g, true)
}

// gone checks that no secret is in a stored state, before and after it is
// loaded again.
func (s *shredder) gone(g *Group) {
	s.t.Helper()
	s.look(g, false)
	s.look(reload(s.t, g), false)
}

func (s *shredder) look(g *Group, want bool) {
	s.t.Helper()
	b, err := g.MarshalBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	for name, secret := range s.secrets {
		if bytes.Contains(b, secret) != want {
			s.t.Errorf("%s in the stored state: %v", name, !want)
		}
	}
}

// Section 9.2: a message key, and what it was derived from, is deleted when
// the message was sent or read.
func TestConsumedMessageSecretsAreErased(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol", "dave")
	r.commit("bob", CommitOptions{})
	alice, bob := r.groups["alice"], r.groups["bob"]
	suite := bob.public.suite

	root := newShredder(t)
	root.note("encryption secret", bob.messages.nodes[bob.messages.size.root()])
	root.present(bob)
	m, err := alice.Send(r.ctx, []byte("zero"), nil)
	r.must(err)
	mustVerify(t, bob, m)
	root.gone(bob)
	root.gone(alice)

	for _, c := range []struct {
		reader *Group
		name   string
	}{{bob, "of the receiver"}, {alice, "of the sender"}} {
		ratchet, err := c.reader.messages.ratchet(alice.OwnLeaf(), ContentApplication)
		r.must(err)
		s := newShredder(t)
		s.note("ratchet secret "+c.name, ratchet.secret)
		s.present(c.reader)
		k, err := (&ratchetOf{ratchet, suite}).peek()
		r.must(err)
		s.note("key "+c.name, k.key)
		s.note("nonce "+c.name, k.nonce)
		defer s.gone(c.reader)
	}
	m, err = alice.Send(r.ctx, []byte("one"), nil)
	r.must(err)
	mustVerify(t, bob, m)

	// Two messages are skipped: their keys are kept until they are read.
	late, err := alice.Send(r.ctx, []byte("two"), nil)
	r.must(err)
	last, err := alice.Send(r.ctx, []byte("three"), nil)
	r.must(err)
	mustVerify(t, bob, last)
	ratchet, err := bob.messages.ratchet(alice.OwnLeaf(), ContentApplication)
	r.must(err)
	if len(ratchet.kept) != 1 {
		t.Fatalf("%d keys are kept", len(ratchet.kept))
	}
	s := newShredder(t)
	s.note("skipped key", ratchet.kept[0].key)
	s.note("skipped nonce", ratchet.kept[0].nonce)
	s.present(bob)
	mustVerify(t, bob, late)
	s.gone(bob)
}

// ratchetOf looks at a ratchet's next key without moving it.
type ratchetOf struct {
	*ratchet
	suite *suite
}

func (r *ratchetOf) peek() (keyNonce, error) {
	defer r.abandon()
	k, err := r.find(r.suite, r.next, ratchetLimits{0, 1})
	return keyNonce{bytes.Clone(k.key), bytes.Clone(k.nonce)}, err
}

// Sections 7.5 and 9.2: path secrets, replaced private keys, and the secrets
// that lead into an epoch are deleted when the epoch begins.
func TestCommitSecretsAreErased(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol", "dave")
	r.commit("alice", CommitOptions{})
	alice, bob := r.groups["alice"], r.groups["bob"]

	before := newShredder(t)
	before.notePrivate("replaced leaf key", alice.keys.leaf)
	before.note("init secret", alice.secrets.init)
	for x, pair := range alice.keys.parents {
		before.notePrivate("replaced key of node "+string(rune('0'+x)), pair)
	}
	before.note("membership key", alice.secrets.membershipKey)
	before.note("exporter secret", alice.secrets.exporter)
	before.note("external secret", alice.secrets.external)
	before.present(alice)

	p, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{alice.ExternalPSK([]byte("x"))}})
	r.must(err)
	pending := newShredder(t)
	pending.note("first path secret", p.firstSecret)
	pending.note("psk_secret", p.pskSecret)
	pending.present(alice)
	chain := pathSecretChain{alice.public.suite, bytes.Clone(p.firstSecret)}
	for _, name := range []string{"second path secret", "third path secret"} {
		_, err := chain.next()
		r.must(err)
		pending.note(name, chain.secret)
	}
	pending.note("joiner secret", p.Staged.secrets.joiner)
	pending.note("welcome secret", p.Staged.secrets.welcome)
	r.deliver("alice", p.Message)
	r.must(alice.MergePending(r.ctx))
	if alice.secrets.joiner != nil || alice.secrets.welcome != nil || bob.secrets.joiner != nil || bob.secrets.encryption != nil {
		t.Error("secrets that were used up are still in memory")
	}
	for _, g := range r.groups {
		before.gone(g)
		pending.gone(g)
	}
	r.chat()
}

// A commit that is discarded takes its secrets with it, an Update that was
// committed or lost its private key.
func TestDroppedSecretsAreErased(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	alice := r.groups["alice"]
	p, err := alice.Commit(r.ctx, CommitOptions{})
	r.must(err)
	s := newShredder(t)
	s.note("first path secret", p.firstSecret)
	s.notePrivate("new leaf key", p.leaf)
	s.present(alice)
	r.must(alice.DiscardPending(r.ctx))
	s.gone(alice)

	_, err = alice.ProposeUpdate(r.ctx, nil, ProposeOptions{})
	r.must(err)
	s = newShredder(t)
	for _, u := range alice.ownUpdates {
		s.notePrivate("key of an Update", u.pair)
	}
	s.present(alice)
	r.commit("bob", CommitOptions{}) // without the Update, which bob never saw
	s.gone(alice)
}

// The private init key is nowhere once the group is joined, and the private
// keys of a member who is removed are nowhere either.
func TestJoinAndLeaveEraseKeys(t *testing.T) {
	w := newWelcomed(t)
	st := w.client.cfg.Storage.(*MemoryStorage)
	s := newShredder(t)
	s.notePrivate("init key", w.entry.init)
	stored := func() []byte {
		var all []byte
		for _, g := range st.groups {
			all = append(append(all, g.Tree...), g.Secret...)
		}
		for _, k := range st.keyPackages {
			all = append(all, k...)
		}
		return all
	}
	if !bytes.Contains(stored(), s.secrets["init key"]) {
		t.Fatal("the init key was not stored")
	}
	welcome, err := ParseWelcome(w.welcome)
	w.must(err)
	dave, err := w.client.Join(w.ctx, welcome, nil, JoinOptions{})
	w.must(err)
	if bytes.Contains(stored(), s.secrets["init key"]) {
		t.Error("the init key is still stored")
	}
	s.gone(dave)

	s = newShredder(t)
	s.notePrivate("leaf key", dave.keys.leaf)
	for _, secret := range dave.secrets.secretList() {
		s.note("epoch secret", *secret)
		s.secrets[string(*secret)] = bytes.Clone(*secret)
	}
	s.present(dave)
	alice := w.groups["alice"]
	p, err := alice.Commit(w.ctx, CommitOptions{Proposals: []Proposal{&Remove{dave.OwnLeaf()}}})
	w.must(err)
	staged, err := dave.Stage(w.ctx, mustVerify(t, dave, p.Message).(*VerifiedCommit))
	w.must(err)
	w.must(dave.Merge(w.ctx, staged))
	s.gone(dave)
	for name, secret := range s.secrets {
		if bytes.Contains(stored(), secret) {
			t.Errorf("%x is still stored", name)
		}
	}
}
