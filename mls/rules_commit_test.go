package mls

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// Paths of commits that sections 7.3, 7.5, 7.6, 7.9.2 and 12.4.2 refuse.
func TestPathRules(t *testing.T) {
	for _, suite := range []CipherSuite{X25519AES128SHA256Ed25519, P256AES128SHA256P256} {
		r := newRoom(t, suite, "alice", GroupOptions{}, nil)
		r.add("alice", CommitOptions{}, "bob", "carol", "dave", "erin")
		f, bob := forger{t, r.groups["alice"]}, r.groups["bob"]
		other, err := f.public.suite.kem.GenerateKey()
		r.must(err)
		for _, c := range []struct {
			rule   Rule
			change func(*UpdatePath)
		}{
			{RulePathParentHash, func(p *UpdatePath) { p.LeafNode.ParentHash = random(32); f.signLeaf(p.LeafNode) }},
			{RulePathLength, func(p *UpdatePath) { p.Nodes = p.Nodes[1:] }},
			{RulePathLength, func(p *UpdatePath) { p.Nodes = append(p.Nodes, p.Nodes[0]) }},
			{RulePathCiphertextCount, func(p *UpdatePath) { p.Nodes[0].EncryptedPathSecrets = nil }},
			{RulePathCiphertextCount, func(p *UpdatePath) {
				n := &p.Nodes[0]
				n.EncryptedPathSecrets = append(n.EncryptedPathSecrets, n.EncryptedPathSecrets[0])
			}},
			{RulePathKeysFresh, func(p *UpdatePath) { p.Nodes[0].EncryptionKey = bob.keys.leaf.public; f.refit(p) }},
			{RulePathKeysFresh, func(p *UpdatePath) { p.Nodes[1].EncryptionKey = p.Nodes[0].EncryptionKey; f.refit(p) }},
			{RulePathKeysFresh, func(p *UpdatePath) { p.LeafNode.EncryptionKey = bob.keys.leaf.public; f.refit(p) }},
			{RuleLeafEncryptionKey, func(p *UpdatePath) { p.LeafNode.EncryptionKey = p.Nodes[0].EncryptionKey; f.refit(p) }},
			{RulePathDerivedKey, f.foreignPath},
			{RulePathParentPublicKeys, func(p *UpdatePath) { p.Nodes[0].EncryptionKey = []byte("no key") }},
			{RuleCommitLeafKey, func(p *UpdatePath) { p.LeafNode.EncryptionKey = f.keys.leaf.public; f.refit(p) }},
			{RuleLeafPublicKeys, func(p *UpdatePath) { p.LeafNode.EncryptionKey = []byte("no key"); f.refit(p) }},
			{RuleLeafSource, func(p *UpdatePath) { p.LeafNode.Source = LeafFromUpdate; f.signLeaf(p.LeafNode) }},
			{RuleLeafVersion, func(p *UpdatePath) { p.LeafNode.Capabilities.Versions = nil; f.signLeaf(p.LeafNode) }},
			{RuleLeafSignature, func(p *UpdatePath) { p.LeafNode.EncryptionKey = other.PublicKey().Bytes(); p.LeafNode.raw = nil }},
			{RuleLeafSignatureKey, func(p *UpdatePath) {
				p.LeafNode.SignatureKey = bob.client.public
				forger{t, &Group{public: f.public, keys: f.keys, signer: bob.signer}}.signLeaf(p.LeafNode)
			}},
		} {
			m := f.commit(c.change)
			if c.rule == RuleLeafSignature { // its octets are those that the decoder saw
				m = reparse(t, m)
			}
			unmoved(t, bob, c.rule, func() error { return process(bob, m) })
		}
		r.commit("alice", CommitOptions{})
		r.chat()
	}
}

func reparse(t *testing.T, m *Message) *Message {
	t.Helper()
	again, err := ParseMessage(m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// Commits that sections 12.4 and 12.4.2 refuse.
func TestCommitRules(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	f, bob := forger{t, r.groups["alice"]}, r.groups["bob"]
	plain, err := f.Commit(r.ctx, CommitOptions{WireFormat: WirePublicMessage})
	r.must(err)
	r.must(f.DiscardPending(r.ctx))

	m := f.reframe(plain.Message, func(_ *FramedContent, a *FramedContentAuthData) { a.ConfirmationTag = random(32) })
	unmoved(t, bob, RuleCommitConfirmation, func() error { return process(bob, m) })
	m = f.reframe(plain.Message, func(c *FramedContent, _ *FramedContentAuthData) {
		c.Commit.Proposals = []ProposalOrRef{{Reference: random(32)}}
	})
	unmoved(t, bob, RuleCommitUnknownRef, func() error {
		err := process(bob, m)
		if !errors.Is(err, ErrMissingPropose) {
			t.Errorf("got %v", err)
		}
		return err
	})
	m = f.reframe(plain.Message, func(c *FramedContent, _ *FramedContentAuthData) { c.Commit.Path = nil })
	unmoved(t, bob, RuleCommitPathRequired, func() error { return process(bob, m) })

	psk, err := f.Commit(r.ctx, CommitOptions{Proposals: []Proposal{f.ExternalPSK([]byte("x"))}})
	r.must(err)
	r.must(f.DiscardPending(r.ctx))
	find := bob.client.cfg.PSK
	bob.client.cfg.PSK = func(context.Context, []byte) ([]byte, error) { return nil, ErrUnknownPSK }
	m, err = ParseMessage(psk.Message)
	r.must(err)
	v, err := bob.Verify(m)
	r.must(err)
	unmoved(t, bob, RuleCommitPSKAvailable, func() error { _, err := bob.Stage(r.ctx, v.(*VerifiedCommit)); return err })
	bob.client.cfg.PSK = find

	e := r.keyPackage("dave", nil)
	add, err := f.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, WireFormat: WirePublicMessage})
	r.must(err)
	r.must(f.DiscardPending(r.ctx))
	bob.client.cfg.Judge = refuseAll
	m, err = ParseMessage(add.Message)
	r.must(err)
	unmoved(t, bob, RuleLeafCredential, func() error {
		err := process(bob, m)
		if !errors.Is(err, errRefused) {
			t.Errorf("got %v", err)
		}
		return err
	})
	bob.client.cfg.Judge = nil
	old, err := ParseMessage(plain.Message)
	r.must(err)
	r.commit("carol", CommitOptions{})
	unmoved(t, bob, RuleFrameEpoch, func() error {
		err := process(bob, old)
		if !errors.Is(err, ErrWrongEpoch) {
			t.Errorf("got %v", err)
		}
		return err
	})
	r.chat()
}

// A credential that changes without a Judge to accept that.
func TestCredentialMayNotChange(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, func(c *Config) {
		c.Judge = func(context.Context, *Judgement) error { return nil }
	})
	r.add("alice", CommitOptions{}, "bob")
	other := BasicCredential([]byte("mallory"))
	p, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Leaf: &LeafChange{Credential: &other}})
	r.must(err)
	m, err := ParseMessage(p.Message)
	r.must(err)
	bob := r.groups["bob"]
	v, err := bob.Verify(m)
	r.must(err)
	unmoved(t, bob, RuleLeafCredential, func() error { _, err := bob.Stage(r.ctx, v.(*VerifiedCommit)); return err })
}

// Lists whose fault is seen only when they are applied to the tree.
func TestAppliedListRules(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	alice, bob := r.groups["alice"], r.groups["bob"]
	client := newTestClient(t, r.suite, "dave", nil)
	e, err := client.NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	again, err := bob.client.NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	twin := resign(t, e, client, func(_ *KeyPackage, l *LeafNode) { l.EncryptionKey = bob.keys.leaf.public })
	strange := resign(t, e, client, func(_ *KeyPackage, l *LeafNode) {
		l.Credential.Type = 0xF0CD
		l.Capabilities.Credentials = append(l.Capabilities.Credentials, 0xF0CD)
	})
	narrow := resign(t, e, client, func(_ *KeyPackage, l *LeafNode) {
		l.Credential, l.Capabilities.Credentials = X509Credential([][]byte{[]byte("der")}), []CredentialType{CredentialX509}
	})
	custom := &GroupContextExtensions{Extensions{{0xF00D, nil}}}
	double := &GroupContextExtensions{Extensions{{0xF00D, nil}, {0xF00D, nil}}}
	malformed := &GroupContextExtensions{Extensions{{ExtensionRequiredCapabilities, []byte{9}}}}
	for _, c := range []struct {
		rule Rule
		list []Proposal
	}{
		{RuleListMemberAdded, []Proposal{&Add{again.KeyPackage}}},
		{RuleLeafEncryptionKey, []Proposal{&Add{twin}}},
		{RuleLeafCredentialCommon, []Proposal{&Add{strange}}},
		{RuleLeafCredentialCommon, []Proposal{&Add{narrow}}},
		{RuleLeafGroupExtensions, []Proposal{custom, &Add{e.KeyPackage}}},
		{RuleExtensionsUnique, []Proposal{double}},
	} {
		unmoved(t, alice, c.rule, func() error { _, err := alice.Commit(r.ctx, CommitOptions{Proposals: c.list}); return err })
		unmoved(t, bob, c.rule, func() error {
			_, _, err := bob.public.follow(byValue(c.list, memberSender(0)), memberSender(0), nil, bob.listRules(bob.client.receiving()))
			return err
		})
	}
	var parse *ParseError
	if _, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{malformed}}); !errors.As(err, &parse) {
		t.Errorf("malformed required_capabilities: %v", err)
	}
	// A member who leaves in the same commit does not stand in the way.
	p, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Remove{bob.OwnLeaf()}, &Add{again.KeyPackage}}})
	r.must(err)
	if len(p.Staged.Added()) != 1 {
		t.Error("bob was not added again")
	}
}

// An Update must change the encryption key.
func TestUpdateRules(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	alice, f := r.groups["alice"], forger{t, r.groups["bob"]}
	leaf, _, err := f.successor(f.public.tree.leaf(f.keys.index), nil, LeafFromUpdate, f.keys.leaf.public)
	r.must(err)
	f.signLeaf(leaf)
	m := f.propose(&Update{leaf})
	unmoved(t, alice, RuleLeafUpdateKey, func() error { return process(alice, m) })
	blank := []proposalItem{{proposal: &Update{leaf}, sender: memberSender(7), ref: []byte("r")}}
	_, err = alice.public.apply(blank, memberSender(0), listRules{})
	wantRule(t, err, RuleUpdateSender)
}

// The decoder refuses an extension that comes twice, and says which rule.
func TestExtensionTwiceRefused(t *testing.T) {
	list := Extensions{{0xF00D, []byte("a")}, {0xF00E, nil}, {0xF00D, nil}}
	var again Extensions
	err := decode("Extensions", encode(list), &again)
	var parse *ParseError
	if !errors.As(err, &parse) || !bytes.Contains([]byte(err.Error()), []byte(RuleExtensionsUnique.String())) {
		t.Errorf("got %v", err)
	}
	c := newTestClient(t, P256AES128SHA256P256, "alice", nil)
	_, err = c.CreateGroup(context.Background(), nil, GroupOptions{Extensions: list})
	wantRule(t, err, RuleExtensionsUnique)
	caps := DefaultCapabilities()
	caps.Extensions = []ExtensionType{0xF00D, 0xF00E}
	_, err = c.NewKeyPackage(context.Background(), KeyPackageOptions{Extensions: list, Capabilities: &caps})
	wantRule(t, err, RuleExtensionsUnique)
	_, err = c.NewKeyPackage(context.Background(), KeyPackageOptions{LeafExtensions: list, Capabilities: &caps})
	wantRule(t, err, RuleExtensionsUnique)
}

// mls10 is the only version, so one that differs from the MLSMessage's is one
// that the decoder does not know.
func TestVersionsRefused(t *testing.T) {
	c := newTestClient(t, P256AES128SHA256P256, "alice", nil)
	e, err := c.NewKeyPackage(context.Background(), KeyPackageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{1, 5} { // of the MLSMessage, of the KeyPackage
		raw := e.KeyPackage.Message()
		raw[at] = 2
		_, err := ParseMessage(raw)
		var parse *ParseError
		if !errors.As(err, &parse) {
			t.Errorf("version at octet %d: %v", at, err)
		}
	}
	k := *e.KeyPackage
	k.Version = 2
	wantRule(t, k.Validate(LeafPolicy{}), RuleKeyPackageSuite)
}

// Messages that name a wrong sender or come from outside.
func TestSenderRules(t *testing.T) {
	sender := newSigner(t, suites[P256AES128SHA256P256])
	key, err := sigP256.encodePublicKey(sender.Public())
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{Extensions: Extensions{
		ExternalSendersExtension(ExternalSender{key, BasicCredential([]byte("hub"))}),
	}}, nil)
	r.add("alice", CommitOptions{}, "bob")
	f, bob := forger{t, r.groups["alice"]}, r.groups["bob"]
	s, groupCtx := f.public.suite, f.Context()

	outside := func(from Sender, p Proposal) *Message {
		raw, err := outsideMessage(r.ctx, s, sender, &groupCtx, from, p, nil)
		r.must(err)
		m, err := ParseMessage(raw)
		r.must(err)
		return m
	}
	for _, p := range []Proposal{&Update{f.public.tree.leaf(0)}, &ExternalInit{[]byte("kem")}, &CustomProposal{0xF001, nil}} {
		m := outside(Sender{SenderExternal, 0}, p)
		unmoved(t, bob, RuleFrameExternalProposal, func() error { return process(bob, m) })
	}
	if _, err := ProposeExternally(r.ctx, sender, &groupCtx, 0, &Update{f.public.tree.leaf(0)}, nil); err == nil {
		t.Error("an external sender could send an Update")
	}
	e := r.keyPackage("dave", nil)
	for _, c := range []struct {
		rule Rule
		from Sender
		p    Proposal
	}{
		{RuleFrameSender, Sender{SenderExternal, 1}, &Remove{0}},
		{RuleFrameSender, Sender{Type: SenderNewMemberProposal}, &Remove{0}},
		{RuleFrameSignature, Sender{Type: SenderNewMemberProposal}, &Add{e.KeyPackage}}, // of another's key
		{RuleFrameSender, Sender{Type: SenderNewMemberCommit}, &Add{e.KeyPackage}},
	} {
		m := outside(c.from, c.p)
		unmoved(t, bob, c.rule, func() error { return process(bob, m) })
	}
	a, err := f.sign(r.ctx, WirePrivateMessage, nil, FramedContent{ContentType: ContentApplication, ApplicationData: []byte("x")})
	r.must(err)
	a.Content.Sender = memberSender(1 << 20)
	pm, err := a.seal(s, f.secrets.senderData, keyNonce{make([]byte, s.nk), make([]byte, s.nn)}, 0, NoPadding)
	r.must(err)
	unmoved(t, bob, RuleFrameSenderData, func() error { return process(bob, &Message{PrivateMessage: pm}) })
	r.chat()
}

// External commits that section 12.4.3.2 refuses.
func TestExternalCommitRules(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	alice, bob := r.groups["alice"], r.groups["bob"]
	gi, err := alice.GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true})
	r.must(err)
	grace := newTestClient(t, r.suite, "grace", nil)
	_, err = grace.JoinExternal(r.ctx, gi, ExternalJoinOptions{})
	wantRule(t, err, RuleExternalPub)

	gi, err = alice.GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	r.must(err)
	j, err := grace.JoinExternal(r.ctx, gi, ExternalJoinOptions{})
	r.must(err)
	m, err := ParseMessage(j.Message)
	r.must(err)
	m.PublicMessage.Content.Commit.Path = nil
	unmoved(t, bob, RuleExternalPath, func() error { return process(bob, m) })

	// A newcomer may not push somebody else out.
	eve := newTestClient(t, r.suite, "bob", nil)
	eve.cfg.Judge = func(context.Context, *Judgement) error { return nil }
	j, err = eve.JoinExternal(r.ctx, gi, ExternalJoinOptions{Resync: true})
	r.must(err)
	if m, err = ParseMessage(j.Message); err != nil {
		t.Fatal(err)
	}
	alice.client.cfg.Judge = func(_ context.Context, j *Judgement) error {
		if j.Old == nil || string(j.Old.SignatureKey) != string(bob.client.public) {
			t.Error("the Judge is not shown the leaf that is replaced")
		}
		return errRefused
	}
	unmoved(t, alice, RuleLeafCredential, func() error { return process(alice, m) })
	alice.client.cfg.Judge = nil

	// The group is full for newcomers by external commit, too.
	full := newTestClient(t, r.suite, "frank", nil)
	full.cfg.Limits.MaxMembers = 2
	_, err = full.JoinExternal(r.ctx, gi, ExternalJoinOptions{})
	wantRule(t, err, RuleAddLeafLimit)
	r.chat()
}
