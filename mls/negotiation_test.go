package mls

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"
)

// What a client of the draft puts into its leaves and KeyPackages.
func TestAdvertisement(t *testing.T) {
	c := newTestClient(t, P256AES128SHA256P256, "alice", extended)
	e, err := c.NewKeyPackage(t.Context(), KeyPackageOptions{LastResort: true})
	if err != nil {
		t.Fatal(err)
	}
	k := e.KeyPackage
	if err := k.Validate(LeafPolicy{Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	has, err := k.LeafNode.Extensions.readNeeds(ExtensionSupportedWireFormats)
	if err != nil {
		t.Fatal(err)
	}
	want := ComponentsList{ComponentAppComponents, ComponentSafeAAD, ComponentContentMediaTypes, ComponentAppAck, testAADItem, counterID, noteID, inertID, stickyID}
	if id, lacks := want.sorted().missing(has.components); lacks {
		t.Errorf("app_components lacks 0x%04x", uint16(id))
	}
	if len(has.components) != len(want)+1 || !slices.ContainsFunc(has.components, ComponentID.isGREASE) {
		t.Errorf("app_components is %v, without a GREASE value", has.components)
	}
	if len(has.safeAAD) != 2 || len(has.media) != 2 || !slices.Equal(has.wire, []WireFormat{0xF0F0}) {
		t.Errorf("lists are %+v", has)
	}
	if !k.LastResort() {
		t.Error("the KeyPackage is not marked as a last resort")
	}
	for _, ext := range []Extensions{k.Extensions, k.LeafNode.Extensions} {
		d, err := ext.AppData()
		if err != nil || !slices.ContainsFunc(d, func(e ComponentData) bool { return e.ID.isGREASE() }) {
			t.Errorf("dictionary %v has no GREASE entry, %v", d, err)
		}
	}
	plain := newTestClient(t, P256AES128SHA256P256, "bob", func(c *Config) { extended(c); c.NoGREASE = true })
	leaf := plain.newLeaf(LeafFromKeyPackage, nil)
	d, err := leaf.Extensions.AppData()
	if err != nil || slices.ContainsFunc(d, func(e ComponentData) bool { return e.ID.isGREASE() }) {
		t.Errorf("GREASE against NoGREASE in %v, %v", d, err)
	}
	if again := plain.advertise(leaf.Extensions, &leaf.Capabilities); !again.equal(leaf.Extensions) {
		t.Error("advertising twice changes a leaf")
	}
	if old := newTestClient(t, P256AES128SHA256P256, "carol", nil).newLeaf(LeafFromKeyPackage, nil); len(old.Extensions) != 0 {
		t.Errorf("a client of RFC 9420 has leaf extensions %v", old.Extensions)
	}
}

// GREASE is in a GroupInfo and never in the GroupContext.
func TestGREASEComponents(t *testing.T) {
	r := newExtRoom(t, []ComponentData{safeAADEntry(testAADItem)}, "bob")
	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true})
	r.must(err)
	d, err := gi.Extensions.AppData()
	if err != nil || len(d) != 1 || !d[0].ID.isGREASE() {
		t.Errorf("GroupInfo has the dictionary %v, %v", d, err)
	}
	d, err = gi.GroupContext.Extensions.AppData()
	if err != nil || slices.ContainsFunc(d, func(e ComponentData) bool { return e.ID.isGREASE() }) {
		t.Errorf("GroupContext has the dictionary %v, %v", d, err)
	}
	for _, bad := range []uint16{0x8A8A, 0xEAEA} {
		if ComponentID(bad).isGREASE() {
			t.Errorf("0x%04x is a private component", bad)
		}
	}
}

func TestRequiredLists(t *testing.T) {
	media := MediaTypeList{{Type: "text/plain"}}
	for name, c := range map[string]struct {
		rule  Rule
		entry ComponentData
		other Extension
	}{
		"component":   {rule: RuleLeafComponents, entry: ComponentData{ComponentAppComponents, ComponentsList{counterID}.Bytes()}},
		"Safe AAD":    {rule: RuleLeafSafeAAD, entry: safeAADEntry(testAADItem)},
		"media type":  {rule: RuleLeafMediaTypes, entry: ComponentData{ComponentContentMediaTypes, media.Bytes()}},
		"wire format": {rule: RuleLeafWireFormats, other: WireFormatsExtension(ExtensionRequiredWireFormats, 0xF0F0)},
	} {
		t.Run(name, func(t *testing.T) {
			var ext Extensions
			if c.other.Type != 0 {
				ext = Extensions{c.other}
			} else {
				ext = Extensions{mustDictionary(t, c.entry).Extension()}
			}
			requiredList(t, c.rule, ext)
		})
	}
}

// requiredList checks that a GroupContext's list is enforced when a group is
// created, joined, when a member is added and when the list appears.
func requiredList(t *testing.T, rule Rule, ext Extensions) {
	r := &extRoom{room: newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{Extensions: ext}, extended)}
	r.join("alice", CommitOptions{}, extended, "bob")
	e := r.keyPackage("carol", plainExtended)
	_, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}})
	wantRule(t, err, rule)
	_, err = r.groups["alice"].Propose(r.ctx, &Add{e.KeyPackage}, ProposeOptions{})
	wantRule(t, err, rule)
	_, err = newTestClient(t, r.suite, "dave", plainExtended).CreateGroup(r.ctx, nil, GroupOptions{Extensions: ext})
	wantRule(t, err, rule)
	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	r.must(err)
	_, err = newTestClient(t, r.suite, "erin", plainExtended).JoinExternal(r.ctx, gi, ExternalJoinOptions{})
	wantRule(t, err, rule)
	_, err = r.groups["bob"].Commit(r.ctx, CommitOptions{Leaf: &LeafChange{Extensions: Extensions{{ExtensionApplicationID, nil}}, Capabilities: new(DefaultCapabilities())}})
	if err == nil {
		t.Error("a member gave up what the group requires")
	}

	// The list appears in a group with a member that does not meet it, by each
	// of the two proposals that can bring it.
	q := &extRoom{room: newRoom(t, r.suite, "alice", GroupOptions{}, extended)}
	q.join("alice", CommitOptions{}, plainExtended, "bob")
	_, err = q.groups["alice"].Commit(q.ctx, CommitOptions{Proposals: []Proposal{&GroupContextExtensions{ext}}})
	wantRule(t, err, rule)
	if d, _ := ext.AppData(); len(d) == 1 {
		_, err = q.groups["alice"].Commit(q.ctx, CommitOptions{OmitPath: true, Proposals: []Proposal{UpdateAppData(d[0].ID, d[0].Data)}})
		wantRule(t, err, rule)
	}
	// It is met once that member is gone in the same commit, and the newcomer
	// is judged by the new list.
	q.commit("alice", CommitOptions{Proposals: []Proposal{&Remove{1}, &GroupContextExtensions{ext}}})
	_, err = q.groups["alice"].Commit(q.ctx, CommitOptions{Proposals: []Proposal{&Add{q.keyPackage("carol", plainExtended).KeyPackage}}})
	wantRule(t, err, rule)
	q.join("alice", CommitOptions{Proposals: []Proposal{&GroupContextExtensions{}}}, plainExtended, "dave")

	// A GroupInfo of such a group is refused if a leaf does not meet it.
	p := q.groups["alice"].public
	_, err = validateTree(p.tree, &GroupContext{TreeHash: p.tree.hash(), GroupID: p.context.GroupID, Extensions: ext}, leafRules{})
	wantRule(t, err, rule)
}

func TestMalformedExtensions(t *testing.T) {
	alice := newTestClient(t, P256AES128SHA256P256, "alice", extended)
	list := func(id ComponentID) Extension { return mustDictionary(t, ComponentData{id, []byte{9}}).Extension() }
	bad := Extension{ExtensionAppDataDictionary, []byte{9}}
	for _, c := range []struct {
		rule Rule
		ext  Extension
	}{
		{RuleDictionary, bad},
		{RuleComponentValue, list(ComponentAppComponents)},
		{RuleComponentValue, list(ComponentSafeAAD)},
		{RuleComponentValue, list(ComponentContentMediaTypes)},
		{RuleComponentValue, Extension{ExtensionRequiredWireFormats, []byte{9}}},
	} {
		_, err := alice.CreateGroup(t.Context(), nil, GroupOptions{Extensions: Extensions{c.ext}})
		wantRule(t, err, c.rule)
	}
	_, err := alice.NewKeyPackage(t.Context(), KeyPackageOptions{LeafExtensions: Extensions{bad}})
	wantRule(t, err, RuleDictionary)
	_, err = alice.NewKeyPackage(t.Context(), KeyPackageOptions{Extensions: Extensions{bad}})
	wantRule(t, err, RuleDictionary)
	_, err = alice.NewKeyPackage(t.Context(), KeyPackageOptions{LeafExtensions: Extensions{list(ComponentContentMediaTypes)}})
	wantRule(t, err, RuleComponentValue)
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true, ExternalPub: true, Extensions: Extensions{bad}})
	r.must(err)
	_, err = alice.JoinExternal(r.ctx, gi, ExternalJoinOptions{})
	wantRule(t, err, RuleDictionary)
}

func TestLastResort(t *testing.T) {
	st := NewMemoryStorage()
	r := &extRoom{room: newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, extended)}
	bob := newTestClient(t, r.suite, "bob", func(c *Config) { extended(c); c.Storage = st })
	e, err := bob.NewKeyPackage(r.ctx, KeyPackageOptions{LastResort: true})
	r.must(err)
	for range 2 { // in two groups
		g, err := r.groups["alice"].client.CreateGroup(r.ctx, nil, GroupOptions{})
		r.must(err)
		p, err := g.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true})
		r.must(err)
		w, err := ParseWelcome(p.Welcome)
		r.must(err)
		_, err = bob.Join(r.ctx, w, nil, JoinOptions{})
		r.must(err)
	}
	c := r.groups["alice"].client
	for name, change := range map[string]func(*KeyPackage, *LeafNode){
		"both marks": func(k *KeyPackage, l *LeafNode) {
			k.Extensions = append(slices.Clone(k.Extensions), Extension{ExtensionLastResort, nil})
			l.Capabilities.Extensions = append(slices.Clone(l.Capabilities.Extensions), ExtensionLastResort)
		},
		"mark with data": func(k *KeyPackage, _ *LeafNode) {
			k.Extensions = Extensions{mustDictionary(t, ComponentData{ComponentLastResort, []byte{1}}).Extension()}
		},
	} {
		k := resign(t, e, bob, change)
		t.Run(name, func(t *testing.T) { wantRule(t, k.Validate(LeafPolicy{}), RuleLastResort) })
	}
	old := resign(t, e, c, func(k *KeyPackage, l *LeafNode) {
		k.Extensions = Extensions{{ExtensionLastResort, nil}}
		l.Capabilities.Extensions = []ExtensionType{ExtensionLastResort, ExtensionAppDataDictionary, ExtensionSupportedWireFormats}
		l.SignatureKey = c.public
	})
	if err := old.Validate(LeafPolicy{}); err != nil || !old.LastResort() {
		t.Errorf("the mark of earlier drafts: %v", err)
	}
}

func TestApplicationFraming(t *testing.T) {
	media := MediaTypeList{{Type: "application/mimi-content"}, {Type: "text/plain"}}
	r := newExtRoom(t, []ComponentData{{ComponentContentMediaTypes, media.Bytes()}}, "bob")
	alice, bob := r.groups["alice"], r.groups["bob"]
	for _, c := range []struct {
		send, want string
		size       int
	}{
		{"application/mimi-content", "application/mimi-content", 5},
		{"text/plain", "text/plain", 15},
		{"", "application/mimi-content", 5},
	} {
		f := &ApplicationFraming{MediaType{Type: c.send}, []byte{1, 2}}
		m, err := alice.SendContent(r.ctx, f, nil)
		r.must(err)
		got := mustVerify(t, bob, m).(*ApplicationMessage)
		if got.Content().MediaType.Type != c.want || !bytes.Equal(got.Content().Content, f.Content) || len(got.Data()) != c.size {
			t.Errorf("%q arrives as %+v, %x", c.send, got.Content(), got.Data())
		}
	}
	_, err := alice.Send(r.ctx, []byte("bare"), nil)
	wantRule(t, err, RuleApplicationFraming)
	late, err := alice.SendContent(r.ctx, &ApplicationFraming{Content: []byte("late")}, nil)
	r.must(err)
	unframed(t, r)

	// The epoch of a message decides, not the present one.
	r.step("bob", CommitOptions{OmitPath: true, Proposals: []Proposal{RemoveAppData(ComponentContentMediaTypes)}})
	if m := mustVerify(t, bob, late).(*ApplicationMessage); m.Content() == nil || m.Content().MediaType.Type != media[0].Type {
		t.Errorf("late message is %+v", m.Content())
	}
	m, err := alice.Send(r.ctx, []byte("bare"), nil)
	r.must(err)
	if got := mustVerify(t, bob, m).(*ApplicationMessage); got.Content() != nil || string(got.Data()) != "bare" {
		t.Errorf("bare message is %+v", got.Content())
	}
	if _, err := alice.SendContent(r.ctx, &ApplicationFraming{}, nil); !errors.Is(err, errNoFraming) {
		t.Errorf("framed content where nobody frames: %v", err)
	}
}

// unframed sends what a faulty peer would.
func unframed(t *testing.T, r *extRoom) {
	t.Helper()
	g := r.groups["alice"]
	a, err := g.sign(r.ctx, WirePrivateMessage, nil, FramedContent{ContentType: ContentApplication, ApplicationData: []byte("bare")})
	r.must(err)
	raw, err := g.protect(r.ctx, a)
	r.must(err)
	m, err := ParseMessage(raw)
	r.must(err)
	_, err = r.groups["bob"].Verify(m)
	wantRule(t, err, RuleApplicationFraming)
}

// Numbers of other drafts can be set for a whole program.
func TestOverriddenCodePoints(t *testing.T) {
	defer func(p ProposalType, e ExtensionType) { ProposalSelfRemove, ExtensionAppDataDictionary = p, e }(ProposalSelfRemove, ExtensionAppDataDictionary)
	ProposalSelfRemove, ExtensionAppDataDictionary = 0xF003, 0xF0AD
	r := newExtRoom(t, nil, "bob", "carol")
	if b := MarshalProposal(&SelfRemove{}); !bytes.Equal(b, []byte{0xF0, 0x03}) {
		t.Errorf("SelfRemove is %x", b)
	}
	r.propose("bob", &SelfRemove{})
	r.step("alice", CommitOptions{Proposals: []Proposal{UpdateAppData(counterID, []byte{1})}})
	r.agree()
	r.wantCount(1)
	if r.groups["bob"] != nil {
		t.Error("bob is still a member")
	}
}
