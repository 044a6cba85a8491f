package mls

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"testing"
)

func safeAADEntry(items ...ComponentID) ComponentData {
	return ComponentData{ComponentSafeAAD, ComponentsList(items).Bytes()}
}

func TestSafeAAD(t *testing.T) {
	sender := newSigner(t, suites[P256AES128SHA256P256])
	key, err := sigP256.encodePublicKey(sender.Public())
	if err != nil {
		t.Fatal(err)
	}
	r := newExtRoom(t, nil, "bob", "carol")
	alice, bob := r.groups["alice"], r.groups["bob"]
	// Until it is introduced, authenticated_data is free; the commit that
	// introduces it follows the old rule.
	dictionary, _ := alice.Context().Extensions.Find(ExtensionAppDataDictionary)
	senders := &GroupContextExtensions{Extensions{requireAll(), {ExtensionAppDataDictionary, dictionary}, ExternalSendersExtension(ExternalSender{key, BasicCredential([]byte("hub"))})}}
	late, err := alice.Send(r.ctx, []byte("late"), []byte("free text"))
	r.must(err)
	r.step("alice", CommitOptions{AuthenticatedData: []byte("free text"), Proposals: []Proposal{
		senders, UpdateAppData(ComponentSafeAAD, ComponentsList{testAADItem}.Bytes()),
	}})
	r.agree()
	if !alice.UsesSafeAAD() {
		t.Fatal("Safe AAD is not in use")
	}
	if m := mustVerify(t, bob, late).(*ApplicationMessage); string(m.AuthenticatedData()) != "free text" {
		t.Errorf("late message has %q", m.AuthenticatedData())
	}

	aad, err := NewSafeAAD(SafeAADItem{0x40, []byte("forty")}, SafeAADItem{testAADItem, []byte("frank")})
	r.must(err)
	m, err := alice.Send(r.ctx, []byte("x"), aad.Bytes())
	r.must(err)
	got := mustVerify(t, bob, m).(*ApplicationMessage).SafeAAD()
	if item, ok := got.Find(testAADItem); !ok || string(item) != "frank" || len(got) != 2 {
		t.Errorf("bob read %v", got)
	}
	m, err = alice.Send(r.ctx, []byte("x"), nil)
	r.must(err)
	if v := mustVerify(t, bob, m); !bytes.Equal(v.AuthenticatedData(), []byte{0}) {
		t.Errorf("a message without items has %x", v.AuthenticatedData())
	}
	_, err = alice.Send(r.ctx, []byte("x"), []byte("free text"))
	wantRule(t, err, RuleFrameAuthenticatedData)
	_, err = alice.Propose(r.ctx, &Remove{2}, ProposeOptions{AuthenticatedData: []byte{0, 0}})
	wantRule(t, err, RuleFrameAuthenticatedData)
	_, err = alice.Commit(r.ctx, CommitOptions{AuthenticatedData: []byte("free text")})
	wantRule(t, err, RuleFrameAuthenticatedData)

	groupCtx := alice.Context()
	_, err = ProposeExternally(r.ctx, sender, &groupCtx, 0, &Remove{2}, []byte("free text"))
	wantRule(t, err, RuleFrameAuthenticatedData)
	m, err = ProposeExternally(r.ctx, sender, &groupCtx, 0, UpdateAppData(counterID, []byte{3}), nil)
	r.must(err)
	r.share("", m)
	refusedAAD(t, r, sender, &groupCtx)
	r.step("bob", CommitOptions{OmitPath: true})
	r.agree()
	r.wantCount(3)
	r.joinExternally("dave", ExternalJoinOptions{})
}

// refusedAAD sends what only a sender with faults of its own would send, in
// each wire format.
func refusedAAD(t *testing.T, r *extRoom, sender crypto.Signer, groupCtx *GroupContext) {
	t.Helper()
	bare := *groupCtx
	bare.Extensions = nil // the sender does not know about Safe AAD
	m, err := ProposeExternally(r.ctx, sender, &bare, 0, &Remove{2}, []byte("free text"))
	r.must(err)
	parsed, err := ParseMessage(m)
	r.must(err)
	_, err = r.groups["bob"].Verify(parsed)
	wantRule(t, err, RuleFrameAuthenticatedData)
	_, err = r.hub.Verify(r.ctx, parsed)
	wantRule(t, err, RuleFrameAuthenticatedData)

	g := r.groups["alice"]
	a := &AuthenticatedContent{WireFormat: WirePrivateMessage, Content: FramedContent{
		GroupID: g.ID(), Epoch: g.Epoch(), Sender: memberSender(0), ContentType: ContentApplication, AuthenticatedData: []byte("free text"),
	}}
	a.Content.setBody()
	r.must(a.sign(r.ctx, g.public.suite, g.signer, g.public.raw))
	m, err = g.protect(r.ctx, a)
	r.must(err)
	parsed, err = ParseMessage(m)
	r.must(err)
	_, err = r.groups["bob"].Verify(parsed)
	wantRule(t, err, RuleFrameAuthenticatedData)
}

// joinExternally lets a newcomer in by an external commit, from alice's
// GroupInfo and the hub's pending proposals.
func (r *extRoom) joinExternally(name string, opts ExternalJoinOptions) *ExternalJoin {
	r.t.Helper()
	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	r.must(err)
	c := newTestClient(r.t, r.suite, name, extended)
	j, err := c.JoinExternal(r.ctx, gi, opts)
	r.must(err)
	r.share("", j.Message)
	r.groups[name], err = j.Join(r.ctx)
	r.must(err)
	r.agree()
	return j
}

func TestExternalCommitWithComponents(t *testing.T) {
	r := newExtRoom(t, []ComponentData{safeAADEntry()}, "bob", "carol", "dave")
	var pending [][]byte
	for from, p := range map[string]Proposal{
		"bob": &SelfRemove{}, "carol": UpdateAppData(counterID, []byte{2}), "dave": &AppEphemeral{noteID, []byte("hi")},
	} {
		m, err := r.groups[from].Propose(r.ctx, p, ProposeOptions{WireFormat: WirePublicMessage})
		r.must(err)
		r.share(from, m)
		pending = append(pending, m)
	}
	// An Add waits too; external commits cannot refer to it.
	e := r.keyPackage("zoe", extended)
	m, err := r.groups["carol"].Propose(r.ctx, &Add{e.KeyPackage}, ProposeOptions{WireFormat: WirePublicMessage})
	r.must(err)
	r.share("carol", m)
	j := r.joinExternally("erin", ExternalJoinOptions{
		Pending: append(pending, m), Proposals: []Proposal{UpdateAppData(counterID, []byte{5}), &AppEphemeral{noteID, []byte("ho")}},
	})
	r.wantCount(7)
	if r.groups["bob"] != nil {
		t.Error("bob is still a member")
	}
	m2, err := ParseMessage(j.Message)
	r.must(err)
	refs := 0
	for _, p := range m2.PublicMessage.Content.Commit.Proposals {
		if p.Proposal == nil {
			refs++
		}
	}
	if refs != 3 {
		t.Errorf("the external commit has %d references, want 3", refs)
	}
	for _, g := range r.groups {
		_, err := g.Send(r.ctx, []byte("x"), nil)
		r.must(err)
	}
}

func TestPendingProposalsOfNewcomerVerified(t *testing.T) {
	r := newExtRoom(t, nil, "bob")
	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	r.must(err)
	good, err := r.groups["bob"].ProposeSelfRemove(r.ctx, nil)
	r.must(err)
	parsed, err := ParseMessage(good)
	r.must(err)
	parsed.PublicMessage.Auth.Signature[8] ^= 1
	private, err := r.groups["alice"].Propose(r.ctx, UpdateAppData(counterID, []byte{1}), ProposeOptions{})
	r.must(err)
	c := newTestClient(t, r.suite, "erin", extended)
	// What no component here knows is left out.
	update, err := r.groups["bob"].Propose(r.ctx, UpdateAppData(counterID, []byte{1}), ProposeOptions{WireFormat: WirePublicMessage})
	r.must(err)
	c.cfg.Components = nil
	_, err = c.JoinExternal(r.ctx, gi, ExternalJoinOptions{Pending: [][]byte{update, good}})
	r.must(err)
	_, err = c.JoinExternal(r.ctx, gi, ExternalJoinOptions{Pending: [][]byte{parsed.Bytes()}})
	wantRule(t, err, RuleFrameSignature)
	_, err = c.JoinExternal(r.ctx, gi, ExternalJoinOptions{Pending: [][]byte{private}})
	wantRule(t, err, RuleExternalByValue)
	_, err = c.JoinExternal(r.ctx, gi, ExternalJoinOptions{Proposals: []Proposal{&SelfRemove{}}})
	wantRule(t, err, RuleExternalList)
}

func TestSafeExport(t *testing.T) {
	st := NewMemoryStorage()
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, func(c *Config) { c.Storage = st })
	r.add("alice", CommitOptions{}, "bob")
	alice, bob := r.groups["alice"], r.groups["bob"]
	var secrets [2][]byte
	for i, g := range []*Group{alice, bob} {
		var err error
		secrets[i], err = g.SafeExport(r.ctx, 0x0022)
		r.must(err)
		if _, err := g.SafeExport(r.ctx, 0x0022); !errors.Is(err, ErrExported) {
			t.Errorf("second export: %v", err)
		}
	}
	if !bytes.Equal(secrets[0], secrets[1]) || len(secrets[0]) != 32 {
		t.Fatal("members export different secrets")
	}
	// Nothing of it is left in stored state, and the others still are.
	loaded, err := alice.client.LoadGroup(r.ctx, alice.ID())
	r.must(err)
	if _, err := loaded.SafeExport(r.ctx, 0x0022); !errors.Is(err, ErrExported) {
		t.Errorf("export after a restart: %v", err)
	}
	r.groups["bob"] = reload(t, bob)
	bob = r.groups["bob"]
	if _, err := bob.SafeExport(r.ctx, 0x0022); !errors.Is(err, ErrExported) {
		t.Errorf("export after a reload: %v", err)
	}
	a, err := loaded.SafeExport(r.ctx, 0x0023)
	r.must(err)
	b, err := bob.SafeExport(r.ctx, 0x0023)
	r.must(err)
	if !bytes.Equal(a, b) || bytes.Equal(a, secrets[0]) {
		t.Error("the next component's secret is wrong")
	}
	raw, err := st.ReadGroup(r.ctx, alice.ID())
	r.must(err)
	if bytes.Contains(raw.Secret, a) || bytes.Contains(raw.Secret, secrets[0]) {
		t.Error("stored state holds an exported secret")
	}
	r.commit("bob", CommitOptions{})
	if c, err := bob.SafeExport(r.ctx, 0x0022); err != nil || bytes.Equal(c, secrets[0]) {
		t.Errorf("export in the next epoch: %v", err)
	}
}

// failingStorage refuses to write when it is told to.
type failingStorage struct {
	*MemoryStorage
	fail bool
}

var errDisk = errors.New("disk is full")

func (f *failingStorage) Write(ctx context.Context, b *Batch) error {
	if f.fail {
		return errDisk
	}
	return f.MemoryStorage.Write(ctx, b)
}

// A secret is given out only when its consumption is stored.
func TestSafeExportNeedsStorage(t *testing.T) {
	st := &failingStorage{MemoryStorage: NewMemoryStorage()}
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, func(c *Config) { c.Storage = st })
	st.fail = true
	if _, err := r.groups["alice"].SafeExport(r.ctx, 7); !errors.Is(err, errDisk) {
		t.Fatalf("full disk: %v", err)
	}
	st.fail = false
	if _, err := r.groups["alice"].SafeExport(r.ctx, 7); err != nil {
		t.Fatalf("after the disk was emptied: %v", err)
	}
}

func TestSelfRemove(t *testing.T) {
	r := newExtRoom(t, nil, "bob", "carol", "dave")
	alice, bob := r.groups["alice"], r.groups["bob"]
	_, err := bob.Propose(r.ctx, &SelfRemove{}, ProposeOptions{WireFormat: WirePrivateMessage})
	wantRule(t, err, RuleSelfRemoveFraming)
	r.propose("bob", &SelfRemove{})
	_, err = bob.ProposeSelfRemove(r.ctx, nil)
	wantRule(t, err, RuleSelfRemoveOnce)
	if _, err := alice.Send(r.ctx, []byte("x"), nil); !errors.Is(err, ErrProposals) {
		t.Errorf("sending while a SelfRemove waits: %v", err)
	}
	// A Remove of bob, kept or by value, gives way; so does his Update.
	r.propose("carol", &Remove{bob.OwnLeaf()})
	m, err := bob.ProposeUpdate(r.ctx, nil, ProposeOptions{WireFormat: WirePublicMessage})
	r.must(err)
	r.share("bob", m)
	p := r.step("alice", CommitOptions{Proposals: []Proposal{&Remove{bob.OwnLeaf()}, UpdateAppData(counterID, []byte{1})}})
	if n := len(p.Staged.Proposals()); n != 2 {
		t.Errorf("%d proposals were committed, want 2", n)
	}
	if removed := p.Staged.Removed(); len(removed) != 1 || removed[0].Leaf != bob.OwnLeaf() {
		t.Errorf("removed are %v", removed)
	}
	r.agree()
	if bob.Active() || r.groups["bob"] != nil {
		t.Error("bob is still active")
	}
	if _, err := bob.Send(r.ctx, nil, nil); !errors.Is(err, ErrInactive) {
		t.Errorf("the leaver sends: %v", err)
	}
	// A leaver that is told of another's commit first stays until its own
	// proposal is committed, and does not commit it itself.
	r.propose("carol", &SelfRemove{})
	p = r.step("carol", CommitOptions{})
	if len(p.Staged.Removed()) != 0 {
		t.Error("carol removed herself")
	}
	r.agree()
	r.chat()
}

func TestSelfRemoveRules(t *testing.T) {
	r := newExtRoom(t, nil, "bob", "carol")
	alice := r.groups["alice"]
	p, self, bob := alice.public, memberSender(0), memberSender(1)
	ref := func(from Sender, ref string) proposalItem {
		return proposalItem{proposal: &SelfRemove{}, sender: from, ref: []byte(ref)}
	}
	update := proposalItem{proposal: &Update{p.tree.leaf(1)}, sender: bob, ref: []byte("u")}
	for name, c := range map[string]struct {
		rule  Rule
		items []proposalItem
	}{
		"own":             {RuleSelfRemoveOwn, []proposalItem{ref(self, "a")}},
		"twice":           {RuleListSameLeaf, []proposalItem{ref(bob, "a"), ref(bob, "b")}},
		"beside a Remove": {RuleListSameLeaf, append(byValue([]Proposal{&Remove{1}}, self), ref(bob, "a"))},
		"beside Update":   {RuleListSameLeaf, []proposalItem{update, ref(bob, "a")}},
		"of an outsider":  {RuleSelfRemoveFraming, []proposalItem{ref(Sender{SenderExternal, 1}, "a")}},
		"of a blank leaf": {RuleSelfRemoveFraming, []proposalItem{ref(memberSender(9), "a")}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.apply(c.items, self, listRules{})
			wantRule(t, err, c.rule)
		})
	}
	_, _, err := p.follow([]proposalItem{ref(bob, "a")}, self, nil, listRules{})
	wantRule(t, err, RuleCommitPathRequired)

	// As a PrivateMessage it is refused by its receiver too.
	a := &AuthenticatedContent{WireFormat: WirePrivateMessage, Content: FramedContent{
		GroupID: alice.ID(), Epoch: alice.Epoch(), Sender: self, ContentType: ContentProposal, Proposal: &SelfRemove{},
	}}
	a.Content.setBody()
	r.must(a.sign(r.ctx, p.suite, alice.signer, p.raw))
	raw, err := alice.protect(r.ctx, a)
	r.must(err)
	m, err := ParseMessage(raw)
	r.must(err)
	_, err = r.groups["bob"].Verify(m)
	wantRule(t, err, RuleSelfRemoveFraming)

	ctx := alice.Context()
	_, err = ProposeExternally(r.ctx, alice.signer, &ctx, 0, &SelfRemove{}, nil)
	wantRule(t, err, RuleFrameExternalProposal)

	// In a group with a member that does not support it, it cannot be used.
	q := newRoom(t, r.suite, "alice", GroupOptions{}, plainExtended)
	q.add("alice", CommitOptions{}, "bob")
	_, err = q.groups["alice"].ProposeSelfRemove(q.ctx, nil)
	wantRule(t, err, RuleListUnsupported)
}

// An external resync whose old leaf removes itself refers to that and leaves
// the Remove out.
func TestResyncWithSelfRemove(t *testing.T) {
	r := newExtRoom(t, nil, "bob", "carol")
	bob := r.groups["bob"]
	m, err := bob.ProposeSelfRemove(r.ctx, nil)
	r.must(err)
	r.share("bob", m)
	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	r.must(err)
	j, err := bob.client.JoinExternal(r.ctx, gi, ExternalJoinOptions{Resync: true, Pending: [][]byte{m}})
	r.must(err)
	delete(r.groups, "bob")
	r.share("", j.Message)
	r.groups["bob"], err = j.Join(r.ctx)
	r.must(err)
	r.agree()
	r.chat()
}

func TestApplicationPSK(t *testing.T) {
	r := newExtRoom(t, nil, "bob")
	p := r.step("alice", CommitOptions{OmitPath: true, Proposals: []Proposal{r.groups["alice"].ApplicationPSK(counterID, []byte("id"))}})
	r.agree()
	if psks := p.Staged.PSKs(); len(psks) != 1 || psks[0].Component != counterID {
		t.Errorf("PSKs are %v", psks)
	}
	r.join("bob", CommitOptions{Proposals: []Proposal{r.groups["bob"].ApplicationPSK(counterID, []byte("id"))}}, extended, "carol")
	r.groups["bob"].client.cfg.ComponentPSK = nil
	q, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{r.groups["alice"].ApplicationPSK(counterID, []byte("id"))}})
	r.must(err)
	_, err = r.groups["bob"].Stage(r.ctx, mustVerify(t, r.groups["bob"], q.Message).(*VerifiedCommit))
	wantRule(t, err, RuleCommitPSKAvailable)
	if !errors.Is(err, ErrUnknownPSK) {
		t.Errorf("unknown PSK: %v", err)
	}
}

func TestSafeDecryptInGroup(t *testing.T) {
	r := newExtRoom(t, nil, "bob")
	public, err := r.groups["alice"].ExternalPub()
	r.must(err)
	ct, err := SafeEncryptWithLabel(r.suite, public, counterID, "to all", []byte("ctx"), []byte("secret"))
	r.must(err)
	for _, g := range r.groups {
		if plain, err := g.SafeDecrypt(counterID, "to all", []byte("ctx"), ct); err != nil || string(plain) != "secret" {
			t.Errorf("%q, %v", plain, err)
		}
	}
	sig, err := r.groups["bob"].SafeSign(r.ctx, counterID, "x", []byte("y"))
	r.must(err)
	r.must(SafeVerifyWithLabel(r.suite, r.groups["alice"].Member(1).SignatureKey, counterID, "x", []byte("y"), sig))
}
