package mls

import (
	"bytes"
	"context"
	"testing"
)

// A welcomed newcomer: a Welcome to two, and what the first of them holds.
type welcomed struct {
	*room
	client  *Client
	entry   *KeyPackageEntry
	welcome []byte
}

func newWelcomed(t *testing.T) *welcomed {
	t.Helper()
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	w := &welcomed{room: r, client: newTestClient(t, r.suite, "dave", func(c *Config) { c.Storage = NewMemoryStorage() })}
	var err error
	w.entry, err = w.client.NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	p, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{w.entry.KeyPackage}}, RatchetTree: true})
	r.must(err)
	r.must(r.groups["alice"].MergePending(r.ctx))
	w.welcome = p.Welcome
	return w
}

// refuse stages a changed Welcome; the KeyPackage must still be there.
func (w *welcomed) refuse(t *testing.T, rule Rule, opts JoinOptions, change func(*forgedWelcome)) {
	t.Helper()
	welcome := rewelcome(t, w.welcome, w.entry, w.entry, change)
	_, err := w.client.StageWelcome(w.ctx, welcome, nil, opts)
	wantRule(t, err, rule)
	if _, err := w.client.LoadKeyPackage(w.ctx, w.entry.Ref()); err != nil {
		t.Errorf("rule %v: the KeyPackage is gone: %v", rule, err)
	}
}

func TestWelcomeRules(t *testing.T) {
	w := newWelcomed(t)
	alice := w.groups["alice"]
	sign := func(f *forgedWelcome) { w.must(f.info.sign(w.ctx, alice.public.suite, alice.signer)) }
	external := PreSharedKeyID{Type: PSKExternal, ID: []byte("x"), Nonce: random(32)}
	branch := PreSharedKeyID{Type: PSKResumption, Usage: UsageBranch, GroupID: []byte("old"), Nonce: random(32)}
	for _, c := range []struct {
		rule   Rule
		change func(*forgedWelcome)
	}{
		{RuleWelcomeSignature, func(f *forgedWelcome) { f.info.Signature = random(64) }},
		{RuleWelcomeSignature, func(f *forgedWelcome) { f.info.Signer = 1; sign(f) }},
		{RuleWelcomeSignature, func(f *forgedWelcome) { f.info.Signer = 99; sign(f) }},
		{RuleWelcomeSignature, func(f *forgedWelcome) { f.info.ConfirmationTag = random(32) }},
		{RuleWelcomeConfirmation, func(f *forgedWelcome) { f.info.ConfirmationTag = random(32); sign(f) }},
		{RuleWelcomeConfirmation, func(f *forgedWelcome) { f.info.GroupContext.Epoch++; sign(f) }},
		{RuleWelcomePathSecret, func(f *forgedWelcome) { f.secrets.pathSecret = random(32) }},
		{RuleWelcomePathSecret, func(f *forgedWelcome) { f.secrets.pathSecret = []byte("short") }},
		{RuleWelcomeSuite, func(f *forgedWelcome) { f.info.GroupContext.CipherSuite = 1; sign(f) }},
		{RuleTreeHash, func(f *forgedWelcome) { f.info.GroupContext.TreeHash = random(32); sign(f) }},
		{RuleCommitPSKAvailable, func(f *forgedWelcome) {
			f.secrets.psks = []PreSharedKeyID{{Type: PSKResumption, Usage: UsageApplication, GroupID: []byte("unknown"), Nonce: random(32)}}
		}},
		{RulePSKNonce, func(f *forgedWelcome) {
			f.secrets.psks = []PreSharedKeyID{{Type: PSKExternal, ID: []byte("x"), Nonce: []byte("short")}}
		}},
		{RuleListSamePSK, func(f *forgedWelcome) { f.secrets.psks = []PreSharedKeyID{external, external} }},
	} {
		w.refuse(t, c.rule, JoinOptions{}, c.change)
	}
	// Two PSKs that each say that this group succeeds another.
	w.refuse(t, RuleWelcomePSKAlone, JoinOptions{Parent: &Group{
		public: &publicState{context: GroupContext{GroupID: []byte("old")}}, resumption: map[uint64][]byte{0: random(32)}, client: w.client,
	}}, func(f *forgedWelcome) {
		again := branch
		again.Nonce = random(32)
		f.secrets.psks = []PreSharedKeyID{branch, again}
	})

	// A Welcome to a KeyPackage whose leaf is not in the tree.
	other, err := w.client.NewKeyPackage(w.ctx, KeyPackageOptions{})
	w.must(err)
	_, err = w.client.StageWelcome(w.ctx, rewelcome(t, w.welcome, w.entry, other, func(*forgedWelcome) {}), nil, JoinOptions{})
	wantRule(t, err, RuleWelcomeOwnLeaf)

	// Suites that disagree.
	plain, err := ParseWelcome(w.welcome)
	w.must(err)
	plain.CipherSuite = X25519AES128SHA256Ed25519
	_, err = w.client.StageWelcome(w.ctx, plain, nil, JoinOptions{})
	wantRule(t, err, RuleWelcomeSuite)
	plain.CipherSuite = w.suite
	foreign := *w.entry
	k := *foreign.KeyPackage
	k.raw, k.CipherSuite = nil, 1
	foreign.KeyPackage = &k
	plain.Secrets[0].NewMember = foreign.Ref()
	_, err = w.client.StageWelcome(w.ctx, plain, []*KeyPackageEntry{&foreign}, JoinOptions{})
	wantRule(t, err, RuleWelcomeSuite)

	// Members whom the application does not believe.
	w.client.cfg.Judge = refuseAll
	w.refuse(t, RuleLeafCredential, JoinOptions{}, func(*forgedWelcome) {})
	w.client.cfg.Judge = nil

	// The good Welcome still works, once.
	if plain, err = ParseWelcome(w.welcome); err != nil {
		t.Fatal(err)
	}
	g, err := w.client.Join(w.ctx, plain, nil, JoinOptions{})
	w.must(err)
	wantBytes(t, "authenticator", g.EpochAuthenticator(), alice.EpochAuthenticator())
	_, err = w.client.Join(w.ctx, plain, []*KeyPackageEntry{w.entry}, JoinOptions{})
	wantRule(t, err, RuleGroupIDUnique)
	_, err = w.client.CreateGroup(w.ctx, g.ID(), GroupOptions{})
	wantRule(t, err, RuleGroupIDUnique)
}

// Who was removed may be added again: the client is not in that group now.
func TestRejoinAfterRemoval(t *testing.T) {
	w := newWelcomed(t)
	alice := w.groups["alice"]
	join := func(welcome []byte, e *KeyPackageEntry) *Group {
		t.Helper()
		parsed, err := ParseWelcome(welcome)
		w.must(err)
		g, err := w.client.Join(w.ctx, parsed, []*KeyPackageEntry{e}, JoinOptions{})
		w.must(err)
		return g
	}
	dave := join(w.welcome, w.entry)
	p, err := alice.Commit(w.ctx, CommitOptions{Proposals: []Proposal{&Remove{dave.OwnLeaf()}}})
	w.must(err)
	w.must(alice.MergePending(w.ctx))
	staged, err := dave.Stage(w.ctx, mustVerify(t, dave, p.Message).(*VerifiedCommit))
	w.must(err)
	w.must(dave.Merge(w.ctx, staged))
	e, err := w.client.NewKeyPackage(w.ctx, KeyPackageOptions{})
	w.must(err)
	p, err = alice.Commit(w.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true})
	w.must(err)
	w.must(alice.MergePending(w.ctx))
	dave = join(p.Welcome, e)
	wantBytes(t, "authenticator", dave.EpochAuthenticator(), alice.EpochAuthenticator())
}

// A joiner must support every extension of the GroupContext.
func TestJoinerSupportsExtensions(t *testing.T) {
	caps := DefaultCapabilities()
	caps.Extensions = []ExtensionType{0xF00D}
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{Extensions: Extensions{{0xF00D, []byte("x")}}},
		func(c *Config) { c.Capabilities = caps })
	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	r.must(err)
	_, err = newTestClient(t, r.suite, "bob", nil).JoinExternal(r.ctx, gi, ExternalJoinOptions{})
	wantRule(t, err, RuleWelcomeExtensions)
	e := r.keyPackage("bob", nil)
	unmoved(t, r.groups["alice"], RuleLeafGroupExtensions, func() error {
		_, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}})
		return err
	})
	unmoved(t, r.groups["alice"], RuleLeafGroupExtensions, func() error {
		_, err := r.groups["alice"].Propose(r.ctx, &Add{e.KeyPackage}, ProposeOptions{WireFormat: WirePublicMessage})
		return err
	})
}

// forgeSuccessor makes a group that claims to succeed another, without the
// checks that an honest client makes.
func forgeSuccessor(t *testing.T, c *Client, old *Group, usage ResumptionUsage, id []byte, ext Extensions, first int, members []*KeyPackageEntry) []byte {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	g, err := c.CreateGroup(ctx, id, GroupOptions{Extensions: ext})
	must(err)
	for range first {
		_, err := g.Commit(ctx, CommitOptions{})
		must(err)
		must(g.MergePending(ctx))
	}
	g.parent = old
	opts := CommitOptions{RatchetTree: true, Proposals: []Proposal{&PreSharedKey{PreSharedKeyID{
		Type: PSKResumption, Usage: usage, GroupID: old.ID(), Epoch: old.Epoch(), Nonce: random(c.suite.nh),
	}}}}
	for _, e := range members {
		opts.Proposals = append(opts.Proposals, &Add{e.KeyPackage})
	}
	b := &commitBuilder{g: g, opts: opts, sender: memberSender(0), init: g.secrets.init, pskUsage: usage}
	p, err := b.build(ctx)
	must(err)
	return p.Welcome
}

func TestSuccessorRules(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	alice, bob := r.groups["alice"], r.groups["bob"]
	entry := func(g *Group) *KeyPackageEntry {
		e, err := g.client.NewKeyPackage(r.ctx, KeyPackageOptions{})
		r.must(err)
		return e
	}
	outsider := r.keyPackage("mallory", nil)
	refuse := func(rule Rule, usage ResumptionUsage, id string, ext Extensions, first int, others ...*KeyPackageEntry) {
		t.Helper()
		e := entry(bob)
		raw := forgeSuccessor(t, alice.client, alice, usage, []byte(id), ext, first, append(others, e))
		w, err := ParseWelcome(raw)
		r.must(err)
		unmoved(t, bob, rule, func() error {
			_, err := bob.client.StageWelcome(r.ctx, w, []*KeyPackageEntry{e}, JoinOptions{Parent: bob})
			return err
		})
	}
	refuse(RuleBranchWelcome, UsageBranch, "sub", nil, 0, outsider)
	refuse(RuleWelcomeEpoch, UsageBranch, "sub", nil, 1)
	refuse(RuleReInitWelcome, UsageReInit, "next", nil, 0, entry(r.groups["carol"])) // there was no ReInit

	ext := Extensions{RequiredCapabilities{Credentials: []CredentialType{CredentialBasic}}.Extension()}
	r.commit("alice", CommitOptions{Proposals: []Proposal{&ReInit{[]byte("next"), MLS10, r.suite, ext}}})
	refuse(RuleReInitWelcome, UsageReInit, "other", ext, 0, entry(r.groups["carol"]))
	refuse(RuleReInitWelcome, UsageReInit, "next", nil, 0, entry(r.groups["carol"]))
	refuse(RuleReInitWelcome, UsageReInit, "next", ext, 0) // carol is missing
	refuse(RuleReInitWelcome, UsageReInit, "next", ext, 0, entry(r.groups["carol"]), outsider)
	refuse(RuleWelcomeEpoch, UsageReInit, "next", ext, 1, entry(r.groups["carol"]))

	e := entry(bob)
	w, err := ParseWelcome(forgeSuccessor(t, alice.client, alice, UsageReInit, []byte("next"), ext, 0, []*KeyPackageEntry{entry(r.groups["carol"]), e}))
	r.must(err)
	g, err := bob.client.Join(r.ctx, w, []*KeyPackageEntry{e}, JoinOptions{Parent: bob})
	r.must(err)
	if !bytes.Equal(g.ID(), []byte("next")) || g.Epoch() != 1 {
		t.Errorf("joined %q, epoch %d", g.ID(), g.Epoch())
	}
}
