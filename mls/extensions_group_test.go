package mls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
)

const (
	counterID   ComponentID = 0x8001 // sums the octets of its updates
	noteID      ComponentID = 0x8002 // ephemeral notes, none of them empty
	strangerID  ComponentID = 0x8003 // nobody knows it
	inertID     ComponentID = 0x8004 // known, takes nothing
	stickyID    ComponentID = 0x8005 // cannot be removed
	testAADItem ComponentID = 0x0020
)

var errCounter = errors.New("an update of zero")

func extComponents() Components {
	return Components{
		counterID: {Update: func(c *ComponentCall) ([]byte, error) {
			sum := byte(0)
			if c.Present {
				sum = c.Old[0]
			}
			for _, in := range c.Inputs {
				if len(in.Data) != 1 || in.Data[0] == 0 {
					return nil, errCounter
				}
				sum += in.Data[0]
			}
			return []byte{sum}, nil
		}},
		noteID: {Ephemeral: func(c *ComponentCall) error {
			if len(c.Inputs) != 1 || len(c.Inputs[0].Data) == 0 {
				return errors.New("empty note")
			}
			return nil
		}},
		inertID:     {},
		testAADItem: {},
		stickyID: {Update: ReplaceData(func([]byte) error { return nil }).Update,
			Remove: func(*ComponentCall) error { return errors.New("stays") }},
	}
}

func extended(c *Config) {
	c.Capabilities = ExtendedCapabilities()
	c.Components = extComponents()
	c.SafeAADItems = ComponentsList{testAADItem}
	c.MediaTypes = MediaTypeList{{Type: "application/mimi-content"}, {Type: "text/plain"}}
	c.WireFormats = []WireFormat{0xF0F0}
	c.ComponentPSK = func(_ context.Context, id ComponentID, key []byte) ([]byte, error) {
		return fmt.Appendf(nil, "psk %d %s", id, key), nil
	}
}

func plainExtended(c *Config) { c.Capabilities = ExtendedCapabilities() }

// requireAll is a required_capabilities extension with the draft's proposals.
func requireAll() Extension {
	return RequiredCapabilities{
		Extensions: []ExtensionType{ExtensionAppDataDictionary},
		Proposals:  []ProposalType{ProposalAppDataUpdate, ProposalAppEphemeral, ProposalSelfRemove},
	}.Extension()
}

// An extRoom is a room whose members know the test components, and a hub that
// follows it.
type extRoom struct {
	*room
	hub *PublicGroup
}

func newExtRoom(t testing.TB, entries []ComponentData, others ...string) *extRoom {
	t.Helper()
	r := &extRoom{room: newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{Extensions: Extensions{
		requireAll(), mustDictionary(t, entries...).Extension(),
	}}, extended)}
	r.join("alice", CommitOptions{}, extended, others...)
	r.follow()
	return r
}

func (r *extRoom) follow() {
	r.t.Helper()
	gi, err := r.groups["alice"].GroupInfo(r.ctx, GroupInfoOptions{RatchetTree: true})
	r.must(err)
	r.hub, err = NewPublicGroup(r.ctx, gi, nil, PublicConfig{Components: extComponents()})
	r.must(err)
}

// join adds members with a configuration.
func (r *extRoom) join(from string, opts CommitOptions, with func(*Config), names ...string) {
	r.t.Helper()
	var entries []*KeyPackageEntry
	var clients []*Client
	for _, name := range names {
		c := newTestClient(r.t, r.suite, name, with)
		e, err := c.NewKeyPackage(r.ctx, KeyPackageOptions{})
		r.must(err)
		clients, entries = append(clients, c), append(entries, e)
		opts.Proposals = append(opts.Proposals, &Add{e.KeyPackage})
	}
	opts.RatchetTree = true
	p := r.step(from, opts)
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	for i, name := range names {
		if r.groups[name], err = clients[i].Join(r.ctx, w, entries[i:i+1], JoinOptions{}); err != nil {
			r.t.Fatalf("%s joins: %v", name, err)
		}
	}
	r.check()
}

// step commits as a PublicMessage that the hub sees too.
func (r *extRoom) step(from string, opts CommitOptions) *PendingCommit {
	r.t.Helper()
	opts.WireFormat = WirePublicMessage
	p, err := r.groups[from].Commit(r.ctx, opts)
	r.must(err)
	r.share(from, p.Message)
	r.must(r.groups[from].MergePending(r.ctx))
	return p
}

// share delivers a message to the members and the hub.
func (r *extRoom) share(from string, message []byte) {
	r.t.Helper()
	r.deliver(from, message)
	if r.hub == nil {
		return
	}
	m, err := ParseMessage(message)
	r.must(err)
	v, err := r.hub.Verify(r.ctx, m)
	r.must(err)
	switch v := v.(type) {
	case *VerifiedProposal:
		r.must(r.hub.Keep(v))
	case *VerifiedCommit:
		st, err := r.hub.Stage(r.ctx, v)
		r.must(err)
		r.must(r.hub.Merge(st))
	}
}

func (r *extRoom) propose(from string, p Proposal) {
	r.t.Helper()
	m, err := r.groups[from].Propose(r.ctx, p, ProposeOptions{WireFormat: WirePublicMessage})
	r.must(err)
	r.share(from, m)
}

// agree checks that members and hub are in one epoch with one dictionary.
func (r *extRoom) agree() {
	r.t.Helper()
	r.check()
	for name, g := range r.groups {
		a, b := g.Context(), r.hub.Current().context
		if !bytes.Equal(encode(&a), encode(&b)) {
			r.t.Fatalf("the hub has another GroupContext than %s", name)
		}
	}
}

func (r *extRoom) data(id ComponentID) ([]byte, bool) {
	r.t.Helper()
	d, err := r.groups["alice"].Context().Extensions.AppData()
	r.must(err)
	return d.Find(id)
}

func (r *extRoom) wantCount(want byte) {
	r.t.Helper()
	if got, ok := r.data(counterID); !ok || len(got) != 1 || got[0] != want {
		r.t.Fatalf("the counter is %v, want %d", got, want)
	}
}

func TestAppDataUpdate(t *testing.T) {
	r := newExtRoom(t, nil, "bob", "carol")
	r.propose("bob", UpdateAppData(counterID, []byte{2}))
	r.propose("carol", &AppEphemeral{noteID, []byte("by reference")})
	p := r.step("alice", CommitOptions{OmitPath: true, Proposals: []Proposal{
		UpdateAppData(counterID, []byte{3}), &AppEphemeral{noteID, []byte("by value")},
	}})
	if p.Staged.content.Content.Commit.Path != nil {
		t.Error("a path where none is needed")
	}
	r.agree()
	r.wantCount(5)
	checkStagedComponents(t, p.Staged)

	r.step("bob", CommitOptions{Proposals: []Proposal{UpdateAppData(counterID, []byte{1})}}) // with a path
	r.agree()
	r.wantCount(6)
	r.step("carol", CommitOptions{OmitPath: true, Proposals: []Proposal{RemoveAppData(counterID)}})
	r.agree()
	if _, ok := r.data(counterID); ok {
		t.Error("the component was not removed")
	}
	if _, ok := r.groups["alice"].Context().Extensions.Find(ExtensionAppDataDictionary); !ok {
		t.Error("the emptied dictionary was dropped")
	}
	r.chat()
	r.reloadAll()
	r.chat()
}

func checkStagedComponents(t *testing.T, s *StagedCommit) {
	t.Helper()
	changes, notes := s.ComponentChanges(), s.Ephemerals()
	if len(changes) != 1 || !changes[0].Added || changes[0].Removed || !bytes.Equal(changes[0].New, []byte{5}) || len(changes[0].Inputs) != 2 {
		t.Errorf("component changes are %+v", changes)
	}
	if in := changes[0].Inputs[0]; in.Sender != memberSender(1) || !in.ByReference || in.Data[0] != 2 {
		t.Errorf("first input is %+v", in)
	}
	if len(notes) != 2 || string(notes[0].Data) != "by reference" || string(notes[1].Data) != "by value" {
		t.Errorf("ephemerals are %+v", notes)
	}
}

func TestComponentRules(t *testing.T) {
	r := newExtRoom(t, []ComponentData{{stickyID, []byte("x")}}, "bob")
	p, self := r.groups["alice"].public, memberSender(0)
	rules := listRules{components: extComponents()}
	other := mustDictionary(t, ComponentData{counterID, []byte{9}})
	for name, c := range map[string]struct {
		rule Rule
		list []Proposal
	}{
		"unknown component":     {RuleComponentUnknown, []Proposal{UpdateAppData(strangerID, nil)}},
		"unknown ephemeral":     {RuleComponentUnknown, []Proposal{&AppEphemeral{strangerID, nil}}},
		"removal of nothing":    {RuleAppDataAbsent, []Proposal{RemoveAppData(counterID)}},
		"two removals":          {RuleAppDataList, []Proposal{RemoveAppData(stickyID), RemoveAppData(stickyID)}},
		"removal and update":    {RuleAppDataList, []Proposal{RemoveAppData(stickyID), UpdateAppData(stickyID, nil)}},
		"refused update":        {RuleAppDataRefused, []Proposal{UpdateAppData(counterID, []byte{0})}},
		"second one refused":    {RuleAppDataRefused, []Proposal{UpdateAppData(counterID, []byte{1}), UpdateAppData(counterID, []byte{0})}},
		"refused removal":       {RuleAppDataRefused, []Proposal{RemoveAppData(stickyID)}},
		"two replacements":      {RuleAppDataRefused, []Proposal{UpdateAppData(stickyID, nil), UpdateAppData(stickyID, nil)}},
		"no updates taken":      {RuleAppDataRefused, []Proposal{UpdateAppData(inertID, nil)}},
		"no ephemerals taken":   {RuleAppEphemeralRefused, []Proposal{&AppEphemeral{inertID, nil}}},
		"refused ephemeral":     {RuleAppEphemeralRefused, []Proposal{&AppEphemeral{noteID, nil}}},
		"malformed AppAck":      {RuleAppEphemeralRefused, []Proposal{&AppEphemeral{ComponentAppAck, []byte{1}}}},
		"malformed list":        {RuleAppDataRefused, []Proposal{UpdateAppData(ComponentAppComponents, []byte{1})}},
		"GCE changes":           {RuleAppDataGCE, []Proposal{&GroupContextExtensions{Extensions{requireAll(), other.Extension()}}}},
		"GCE drops":             {RuleAppDataGCE, []Proposal{&GroupContextExtensions{}}},
		"GCE malformed":         {RuleDictionary, []Proposal{&GroupContextExtensions{Extensions{{ExtensionAppDataDictionary, []byte{9}}}}}},
		"ReInit and AppDataUp.": {RuleListReInitAlone, []Proposal{&ReInit{Version: MLS10}, UpdateAppData(counterID, []byte{1})}},
		"SelfRemove by value":   {RuleSelfRemoveByRef, []Proposal{&SelfRemove{}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.apply(byValue(c.list, self), self, rules)
			wantRule(t, err, c.rule)
		})
	}
	ack := &AppAck{[]MessageRange{{1, 0, 4}}}
	if _, err := p.apply(byValue([]Proposal{ack.Proposal()}, self), self, rules); err != nil {
		t.Error(err)
	}
	// A GroupContextExtensions proposal that keeps the dictionary may change
	// the rest, together with an AppDataUpdate.
	dictionary, _ := p.context.Extensions.Find(ExtensionAppDataDictionary)
	gce := &GroupContextExtensions{Extensions{{ExtensionAppDataDictionary, dictionary}, requireAll(), ExternalSendersExtension()}}
	r.step("alice", CommitOptions{Proposals: []Proposal{UpdateAppData(counterID, []byte{4}), gce}})
	r.agree()
	r.wantCount(4)
	if ext := r.groups["bob"].Context().Extensions; ext[0].Type != ExtensionAppDataDictionary {
		t.Error("the order of the extensions changed")
	}
}

// Without required AppDataUpdate a GroupContextExtensions proposal may set the
// dictionary, and requiring it in the same proposal forbids that.
func TestDictionaryByGCE(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, extended)
	x := &extRoom{room: r}
	x.join("alice", CommitOptions{}, extended, "bob")
	d := mustDictionary(t, ComponentData{counterID, []byte{9}})
	_, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&GroupContextExtensions{Extensions{requireAll(), d.Extension()}}}})
	wantRule(t, err, RuleAppDataGCE)
	r.commit("alice", CommitOptions{Proposals: []Proposal{&GroupContextExtensions{Extensions{d.Extension()}}}})
	x.wantCount(9)
	// An AppDataUpdate also creates the dictionary, at the end.
	r.commit("bob", CommitOptions{Proposals: []Proposal{&GroupContextExtensions{Extensions{requireAllButDictionary()}}}})
	r.commit("bob", CommitOptions{OmitPath: true, Proposals: []Proposal{UpdateAppData(counterID, []byte{7})}})
	x.wantCount(7)
	if ext := r.groups["alice"].Context().Extensions; len(ext) != 2 || ext[1].Type != ExtensionAppDataDictionary {
		t.Errorf("extensions are %v", ext)
	}
}

func requireAllButDictionary() Extension {
	return RequiredCapabilities{Proposals: []ProposalType{ProposalAppEphemeral}}.Extension()
}

// One member's proposals that a component refuses do not keep the others from
// committing.
func TestRefusedProposalsAreLeftOut(t *testing.T) {
	r := newExtRoom(t, []ComponentData{{counterID, []byte{1}}}, "bob")
	r.propose("bob", UpdateAppData(counterID, []byte{2}))
	r.propose("bob", UpdateAppData(counterID, []byte{0}))
	r.propose("bob", RemoveAppData(counterID))
	r.propose("bob", UpdateAppData(counterID, []byte{3}))
	p := r.step("alice", CommitOptions{Proposals: []Proposal{UpdateAppData(counterID, []byte{4})}})
	r.agree()
	r.wantCount(10)
	if n := len(p.Staged.Proposals()); n != 3 {
		t.Errorf("%d proposals were committed, want 3", n)
	}
}

// A member or hub without the component's handler refuses the commit.
func TestUnknownComponentRefused(t *testing.T) {
	r := newExtRoom(t, nil, "bob")
	r.groups["bob"].client.cfg.Components = nil
	p, err := r.groups["alice"].Commit(r.ctx, CommitOptions{WireFormat: WirePublicMessage, Proposals: []Proposal{UpdateAppData(counterID, []byte{1})}})
	r.must(err)
	_, err = r.groups["bob"].Stage(r.ctx, mustVerify(t, r.groups["bob"], p.Message).(*VerifiedCommit))
	wantRule(t, err, RuleComponentUnknown)
	r.hub.cfg.Components = nil
	m, err := ParseMessage(p.Message)
	r.must(err)
	v, err := r.hub.Verify(r.ctx, m)
	r.must(err)
	_, err = r.hub.Stage(r.ctx, v.(*VerifiedCommit))
	wantRule(t, err, RuleComponentUnknown)
}

// What a component sees is the state before the commit.
func TestComponentCall(t *testing.T) {
	var seen *ComponentCall
	r := newExtRoom(t, nil, "bob", "carol")
	watch := Components{counterID: {Update: func(c *ComponentCall) ([]byte, error) { seen = c; return []byte{1}, nil }}}
	before := r.groups["alice"].Epoch()
	_, err := r.groups["alice"].public.apply(byValue([]Proposal{&Remove{2}, UpdateAppData(counterID, []byte{1})}, memberSender(0)), memberSender(0), listRules{components: watch})
	r.must(err)
	if seen.Context().Epoch != before || seen.Size() != 3 || seen.Member(2) == nil || seen.Committer != memberSender(0) || len(seen.Proposals) != 2 {
		t.Errorf("the component saw %+v", seen)
	}
	n := 0
	for range seen.Members() {
		n++
	}
	if n != 3 {
		t.Errorf("the component saw %d members", n)
	}
}

// A pending commit and kept proposals outlive a restart.
func TestComponentsAfterRestart(t *testing.T) {
	r := newExtRoom(t, nil, "bob")
	r.propose("bob", UpdateAppData(counterID, []byte{2}))
	r.propose("bob", &AppEphemeral{noteID, []byte("by reference")})
	r.reloadAll()
	p, err := r.groups["alice"].Commit(r.ctx, CommitOptions{WireFormat: WirePublicMessage, Proposals: []Proposal{
		UpdateAppData(counterID, []byte{3}), &AppEphemeral{noteID, []byte("by value")},
	}})
	r.must(err)
	r.groups["alice"] = reload(t, r.groups["alice"])
	checkStagedComponents(t, r.groups["alice"].Pending().Staged)
	r.share("alice", p.Message)
	r.must(r.groups["alice"].MergePending(r.ctx))
	r.agree()
	r.wantCount(5)
}

// The dictionary cannot appear while a member does not know the extension.
func TestDictionaryNeedsSupport(t *testing.T) {
	r := &extRoom{room: newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, extended)}
	r.join("alice", CommitOptions{}, func(c *Config) {
		plainExtended(c)
		c.Capabilities.Extensions = nil
	}, "bob")
	_, err := r.groups["alice"].Commit(r.ctx, CommitOptions{OmitPath: true, Proposals: []Proposal{UpdateAppData(counterID, []byte{1})}})
	wantRule(t, err, RuleGroupExtensions)
}

// A member whose capabilities lack the proposal blocks it.
func TestAppProposalsNeedSupport(t *testing.T) {
	r := &extRoom{room: newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, extended)}
	r.join("alice", CommitOptions{}, func(c *Config) {
		plainExtended(c)
		c.Capabilities.Proposals = nil
	}, "bob")
	for _, p := range []Proposal{UpdateAppData(counterID, []byte{1}), &AppEphemeral{noteID, []byte("x")}} {
		_, err := r.groups["alice"].Commit(r.ctx, CommitOptions{OmitPath: true, Proposals: []Proposal{p}})
		wantRule(t, err, RuleListUnsupported)
	}
	// Whom the commit removes learns that, whatever else is in it.
	bob := r.groups["bob"]
	r.commit("alice", CommitOptions{Proposals: []Proposal{&Remove{1}, UpdateAppData(counterID, []byte{1}), &AppEphemeral{noteID, []byte("x")}}})
	r.wantCount(1)
	if bob.Active() {
		t.Error("bob does not know that he was removed")
	}
}

// A hub can refuse proposals that members would leave out.
func TestHubChecksComponents(t *testing.T) {
	r := newExtRoom(t, []ComponentData{{counterID, []byte{1}}}, "bob")
	for i, c := range []struct {
		proposal Proposal
		rule     Rule
	}{
		{UpdateAppData(counterID, []byte{2}), 0},
		{UpdateAppData(counterID, []byte{0}), RuleAppDataRefused},
		{RemoveAppData(counterID), RuleAppDataList},
		{&AppEphemeral{noteID, []byte("x")}, 0},
		{&Remove{1}, 0},
	} {
		raw, err := r.groups["alice"].Propose(r.ctx, c.proposal, ProposeOptions{WireFormat: WirePublicMessage})
		r.must(err)
		m, err := ParseMessage(raw)
		r.must(err)
		v, err := r.hub.Verify(r.ctx, m)
		r.must(err)
		err = r.hub.CheckComponents(v.(*VerifiedProposal))
		if c.rule != 0 {
			wantRule(t, err, c.rule)
			continue
		}
		if err != nil {
			t.Errorf("proposal %d: %v", i, err)
		}
		r.must(r.hub.Keep(v.(*VerifiedProposal)))
	}
}
