package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

func TestBaseLimits(t *testing.T) {
	roles := policy.CooperativeRoles()
	for name, c := range map[string]struct {
		base         policy.BaseRoomPolicy
		script, want string
	}{
		"clients full":         {policy.BaseRoomPolicy{MultiDevice: true, MaxClients: ptr[uint32](3)}, "ann: add:ann", "Z max-clients"},
		"one in, one out":      {policy.BaseRoomPolicy{MultiDevice: true, MaxClients: ptr[uint32](3)}, "ann: add:ann drop:ann#0", "ok 2 5"},
		"room for one more":    {policy.BaseRoomPolicy{MultiDevice: true, MaxClients: ptr[uint32](4)}, "ann: add:ann", "ok 2"},
		"users full":           {policy.BaseRoomPolicy{MultiDevice: true, MaxUsers: ptr[uint32](3)}, "ann: +eve:2", "Z max-users"},
		"the banned are none":  {policy.BaseRoomPolicy{MultiDevice: true, MaxUsers: ptr[uint32](3)}, "ada: +eve:1", "ok 1"},
		"unban into full":      {policy.BaseRoomPolicy{MultiDevice: true, MaxUsers: ptr[uint32](3)}, "ada: dan>2", "Z max-users"},
		"already over":         {policy.BaseRoomPolicy{MultiDevice: true, MaxUsers: ptr[uint32](1)}, "ann: -bob drop:bob", "ok 3"},
		"single device":        {policy.BaseRoomPolicy{}, "ann: add:ann", "Z multi-device"},
		"device exchanged":     {policy.BaseRoomPolicy{}, "ann: add:ann drop:ann#0", "ok 2 5"},
		"resync":               {policy.BaseRoomPolicy{}, "~ann#0: init drop:ann", "ok 2"},
		"fixed: no additions":  {policy.BaseRoomPolicy{FixedMembership: true, MultiDevice: true}, "ada: +eve:2", "Z fixed-membership"},
		"fixed: no removals":   {policy.BaseRoomPolicy{FixedMembership: true, MultiDevice: true}, "ada: -bob drop:bob", "Z fixed-membership"},
		"fixed: nobody leaves": {policy.BaseRoomPolicy{FixedMembership: true, MultiDevice: true}, "ann: -ann self", "Z fixed-membership"},
		"fixed: own clients":   {policy.BaseRoomPolicy{FixedMembership: true, MultiDevice: true}, "ann: self", "ok 5"},
		"fixed: more clients":  {policy.BaseRoomPolicy{FixedMembership: true, MultiDevice: true}, "ann: add:ann", "ok 2"},
		"no pseudonyms":        {policy.BaseRoomPolicy{MultiDevice: true}, "ann: +anon1:2", "Z pseudonym"},
		"pseudonyms":           {policy.BaseRoomPolicy{MultiDevice: true, PseudonymsAllowed: true}, "ann: +anon1:2 add:anon1", "ok 1"},
	} {
		t.Run(name, func(t *testing.T) {
			newKit(t, policy.Config{}, "ann:2 bob:2 ada:3 dan:1/0", roles, &c.base).expect(c.script, c.want)
		})
	}
}

// A client has one leaf after a commit. What goes in it makes room for what comes,
// whoever proposes which; and a client is the same under another user's name.
func TestOneLeafEach(t *testing.T) {
	open := &policy.BaseRoomPolicy{MultiDevice: true, PseudonymsAllowed: true}
	kit := func(config policy.Config) *kit {
		return newKit(t, config, "ann:2/2 bob:2 ada:3", policy.CooperativeRoles(), open)
	}
	same := func(of string, n int, user string) policy.Proposal {
		return policy.Add{Client: policy.Client{User: uri(user), URI: clientOf(of, n).URI}}
	}
	for _, config := range []policy.Config{{}, {Member: true}, {HubRemoves: true}} {
		k := kit(config)
		k.expectAll([]expectation{
			{"~ann#1: init", "Z identity-duplicate"}, {"~ann#1: init drop:ann#1", "ok 2"}, {"~ann#5: init", "ok 2"},
			{"~ann#1: init drop:ann#0", "2 own-leaf"},
		})
		ann, second := k.actor("ann"), k.actor("ann#1")
		for name, c := range map[string]struct {
			list []policy.Proposal
			want string
		}{
			"added again":               {[]policy.Proposal{same("ann", 1, "ann")}, "Z identity-duplicate"},
			"added twice":               {[]policy.Proposal{same("ann", 7, "ann"), same("ann", 7, "ann")}, "Z identity-duplicate"},
			"removed and added":         {[]policy.Proposal{same("ann", 1, "ann"), policy.Remove{Leaf: second.Leaf}}, "ok 2 5"},
			"removed, and added twice":  {[]policy.Proposal{same("ann", 1, "ann"), policy.Remove{Leaf: second.Leaf}, same("ann", 1, "ann")}, "Z identity-duplicate"},
			"of another user":           {append(k.plainly("ann", "+anon1:2"), same("ann", 1, "anon1")), "Z identity-duplicate"},
			"of two who come":           {append(k.plainly("ann", "+anon1:2 +eve:2"), same("eve", 1, "anon1"), same("eve", 1, "eve")), "Z identity-duplicate"},
			"updated to one's own":      {[]policy.Proposal{policy.Update{Client: clientOf("ann", 0)}}, "ok 12"},
			"updated to another of own": {[]policy.Proposal{policy.Update{Client: clientOf("ann", 1)}}, "Z identity-duplicate"},
			"updated to one that goes":  {[]policy.Proposal{policy.Update{Client: clientOf("ann", 1)}, policy.Remove{Leaf: second.Leaf}}, "ok 5 12"},
		} {
			var list []policy.Proposed
			for _, p := range c.list {
				list = append(list, policy.Proposed{By: ann, Proposal: p})
			}
			if got := verdictOf(policy.Authorize(k.s, &policy.Bundle{Proposals: list})); got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
		leaves := &policy.Commit{Committer: k.actor("ada"), Proposals: []policy.Proposed{
			{By: second, Proposal: policy.SelfRemove{}}, {By: k.actor("+ann#1"), Proposal: same("ann", 1, "ann")},
		}}
		if got := verdictOf(policy.Authorize(k.s, leaves)); got != "ok 12 5 2" {
			t.Errorf("one goes and proposes itself: %s", got)
		}
		path := &policy.Commit{Committer: ann, Path: clientOf("ann", 1)}
		if got := verdictOf(policy.Authorize(k.s, path)); got != "Z identity-duplicate" {
			t.Errorf("a path to another client's name: %s", got)
		}
		// What was carried out counts.
		k.apply("~ann#1: init drop:ann#1")
		k.expectAll([]expectation{{"~ann#1: init", "Z identity-duplicate"}, {"ann: drop:ann#1", "ok 5"}})
		k.apply("ann: drop:ann#1")
		k.expect("~ann#1: init", "ok 2")
		if err := k.s.OneLeafEach(); err != nil {
			t.Error(err)
		}
	}
}

// A room in which a client has two leaves already can be put right, and is none
// to come into.
func TestTwoLeavesOfOneClient(t *testing.T) {
	room := drawRoom("ann:2/2 bob:2", policy.CooperativeRoles())
	room.Leaves[1].URI = room.Leaves[0].URI
	s, err := policy.NewState(policy.Config{}, room)
	if err != nil {
		t.Fatal(err)
	}
	k := &kit{t: t, s: s}
	if got := verdictOf(nil, s.OneLeafEach()); got != "Z identity-duplicate" {
		t.Errorf("the room is %s", got)
	}
	k.expectAll([]expectation{{"bob: +eve:2 add:eve", "ok 1"}, {"~ann#0: init drop:ann#1", "Z identity-duplicate"}, {"ann: drop:ann#1", "ok 5"}})
	k.apply("ann: drop:ann#1")
	if err := s.OneLeafEach(); err != nil {
		t.Error(err)
	}
}

func TestNewBasePolicy(t *testing.T) {
	for name, c := range map[string]struct {
		base policy.BaseRoomPolicy
		want string
	}{
		"fixed with canAddParticipant": {policy.BaseRoomPolicy{MultiDevice: true, FixedMembership: true}, "Z fixed-membership"},
		"single device":                {policy.BaseRoomPolicy{}, "Z multi-device"},
		"fewer clients than there are": {policy.BaseRoomPolicy{MultiDevice: true, MaxClients: ptr[uint32](2)}, "Z max-clients"},
		"fewer users than there are":   {policy.BaseRoomPolicy{MultiDevice: true, MaxUsers: ptr[uint32](1)}, "Z max-users"},
		"just enough":                  {policy.BaseRoomPolicy{MultiDevice: true, MaxUsers: ptr[uint32](2), MaxClients: ptr[uint32](3)}, "ok 11"},
		"dependant":                    {policy.BaseRoomPolicy{MultiDevice: true, ParentDependant: true, ParentRoom: "mimi://a.example/r/p"}, "Z parent"},
	} {
		k := newKit(t, policy.Config{}, "ann:2/2 sue:4", policy.CooperativeRoles())
		if got := k.verdict("sue: " + setHex("0x0027", &c.base)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestPseudonymsEnd has a room stop allowing pseudonyms, which it does not while
// somebody is there under one.
func TestPseudonymsEnd(t *testing.T) {
	real := setHex("0x0027", &policy.BaseRoomPolicy{MultiDevice: true})
	allowed := &policy.BaseRoomPolicy{MultiDevice: true, PseudonymsAllowed: true}
	k := newKit(t, policy.Config{}, "sue:4 anon1:2 anon2:1/0", policy.CooperativeRoles(), allowed)
	k.expect("sue: "+real, "Z pseudonym")
	k.expect("sue: -anon1 drop:anon1 "+real, "ok 3 11")
	k.apply("sue: -anon1 drop:anon1")
	k.apply("sue: " + real)
	k.expect("sue: anon2>2", "Z pseudonym")
}

// parentRoom is a parent by the names of its users.
type parentRoom []string

func (p parentRoom) Has(user mimi.URI) bool {
	return slices.ContainsFunc(p, func(name string) bool { return uri(name) == user })
}
func (p parentRoom) Len() int { return len(p) }

func TestParentDependantRoom(t *testing.T) {
	base := &policy.BaseRoomPolicy{MultiDevice: true, ParentDependant: true, ParentRoom: "mimi://a.example/r/parent"}
	inside := policy.Config{Parent: parentRoom{"ann", "ada", "eve", "kim"}}
	newKit(t, inside, "ann:2 ada:3", policy.CooperativeRoles(), base).expectAll([]expectation{
		{"ann: +eve:2", "ok 1"}, {"ann: +joe:2", "Z parent"}, {"ann: +eve:2 +kim:2", "Z parent"}, {"ada: +joe:1", "ok 1"},
	})
	// Who is banned need not be in the parent room, and does not come back from
	// the ban without it.
	newKit(t, inside, "ada:3 joe:1/0 eve:1/0", policy.CooperativeRoles(), base).expectAll([]expectation{
		{"ada: joe>2", "Z parent"}, {"ada: eve>2", "ok 9"},
	})
	newKit(t, policy.Config{}, "ann:2 ada:3", policy.CooperativeRoles(), base).expect("ann: +eve:2", "Z parent")
	newKit(t, policy.Config{Member: true}, "ann:2 ada:3", policy.CooperativeRoles(), base).expect("ann: +eve:2", "ok 1")
}

func TestRoleConstraints(t *testing.T) {
	roles := policy.CooperativeRoles()
	roles.Role(2).MaximumParticipants, roles.Role(2).MaximumActiveParticipants = ptr[uint32](3), ptr[uint32](2)
	roles.Role(3).MinimumActiveParticipants = 1
	roles.Role(4).MaximumActiveParticipants = ptr[uint32](0)
	k := newKit(t, policy.Config{}, "ann:2 bob:2/0 ada:3 aid:3/0 sue:4/0", roles)
	k.expectAll([]expectation{
		{"ada: +eve:2", "ok 1"},
		{"ada: +eve:2 +kim:2", "Z max-participants"},
		{"ada: +eve:2 add:eve add:eve", "ok 1"},
		{"~bob: init", "ok 2"},
		{"~sue: init", "Z max-active"},
		{"ada: drop:ada", "Z min-active"},
		{"ada: -aid", "ok 3"},
	})
	k.apply("~bob: init")
	k.expect("ada: +eve:2 add:eve", "Z max-active")
	k.expect("ada: +eve:2", "ok 1")
	tight := policy.CooperativeRoles()
	tight.Role(2).MaximumParticipants = ptr[uint32](1)
	root := newKit(t, policy.Config{}, "ann:2 bob:2 sue:4", withCapability(policy.CooperativeRoles(), 4, policy.CanChangeRoleDefinitions))
	root.expect("sue: "+setHex("0x0025", tight), "Z max-participants")
	silent := policy.CooperativeRoles()
	silent.Role(2).MaximumActiveParticipants = ptr[uint32](1)
	root.expect("sue: "+setHex("0x0025", silent), "Z max-active")
	root.expect("sue: drop:bob "+setHex("0x0025", silent), "ok 6 11")
}

func withCapability(roles *policy.RoleData, role mimi.RoleIndex, c policy.Capability) *policy.RoleData {
	roles.Role(role).Capabilities = append(roles.Role(role).Capabilities, c)
	return roles
}

func TestApply(t *testing.T) {
	k := newKit(t, policy.Config{}, "ann:2/2 bob:2 cyd:2/0 ada:3", policy.CooperativeRoles())
	k.apply("ada: -ann drop:ann bob>3 +eve:2 add:eve add:eve")
	if got := k.s.LeavesOf(uri("eve")); !slices.Equal(got, []uint32{0, 1}) {
		t.Errorf("eve's clients are at leaves %v, want the two that ann left", got)
	}
	if k.s.RoleOf(uri("bob")) != 3 || k.s.RoleOf(uri("ann")) != 0 || k.s.Participants() != 4 {
		t.Errorf("list is %v", k.s.ParticipantList())
	}
	if i, ok := k.s.Index(uri("eve")); !ok || i != 3 {
		t.Errorf("eve is at %d", i)
	}
	if n, active := k.s.Counts(3); n != 2 || active != 2 {
		t.Errorf("role 3 has %d, %d active", n, active)
	}
	k.apply("ada commits; bob: update:bob")
	if c, ok := k.s.Client(k.s.LeavesOf(uri("bob"))[0]); !ok || c != clientOf("bob", 7) {
		t.Errorf("bob's client is %v", c)
	}
	k.apply("~cyd: init")
	if got := k.s.LeavesOf(uri("cyd")); !slices.Equal(got, []uint32{4}) {
		t.Errorf("cyd's client is at leaf %v", got)
	}
}

func TestApplyRefusesStaleEffects(t *testing.T) {
	k := newKit(t, policy.Config{}, "ann:2 ada:3", policy.CooperativeRoles())
	first, err := policy.Authorize(k.s, k.action("ann: +eve:2"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := policy.Authorize(k.s, k.action("ann: +kim:2"))
	if err != nil {
		t.Fatal(err)
	}
	other := newKit(t, policy.Config{}, "ann:2 ada:3", policy.CooperativeRoles())
	if err := other.s.Apply(first); !errors.Is(err, policy.ErrStale) {
		t.Errorf("another state: %v", err)
	}
	if err := k.s.Apply(first); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*policy.Effect{first, second, nil} {
		if err := k.s.Apply(e); !errors.Is(err, policy.ErrStale) {
			t.Errorf("stale effect: %v", err)
		}
	}
	if k.s.Participants() != 3 {
		t.Errorf("%d participants", k.s.Participants())
	}
}

func TestEffect(t *testing.T) {
	strict := policy.StrictRoles()
	k := newKit(t, policy.Config{}, "ann:2 bob:2 ada:3 sue:4", strict, preauth(strict, "staff", 2))
	k.give("eve", "staff")
	e, err := policy.Authorize(k.s, k.action("ada: ann>1 drop:ann -bob drop:bob"))
	if err != nil || !slices.Equal(e.Silenced(), []mimi.URI{uri("bob"), uri("ann")}) {
		t.Errorf("silenced %v, %v", e.Silenced(), err)
	}
	if e, err = policy.Authorize(k.s, k.action("~eve: +eve:2 init")); err != nil {
		t.Fatal(err)
	}
	if i, ok := e.Entry(); i != 0 || !ok {
		t.Errorf("joined by entry %d, %v", i, ok)
	}
	if e, err = policy.Authorize(k.s, k.action("sue: 0x0026=remove")); err != nil || !slices.Equal(e.Components(), []policy.ComponentID{policy.ComponentPreauth}) {
		t.Errorf("changes %v, %v", e.Components(), err)
	}
	if v, changed := e.Value(policy.ComponentPreauth); v != nil || !changed {
		t.Errorf("value %x, %v", v, changed)
	}
}

func TestMessagesAndDeeds(t *testing.T) {
	k := newKit(t, policy.Config{}, "ann:2 cyd:2/0 ada:3 sue:4 dan:1/0", policy.CooperativeRoles())
	for name, c := range map[string]struct {
		action policy.Action
		want   string
	}{
		"send":                  {&policy.Message{Sender: uri("ann")}, "ok 13"},
		"send without client":   {&policy.Message{Sender: uri("cyd")}, "13 leaf"},
		"banned":                {&policy.Message{Sender: uri("dan")}, "B inert-role"},
		"stranger":              {&policy.Message{Sender: uri("eve")}, "13 participant"},
		"delete of others":      {&policy.Message{Sender: uri("ann"), Needs: []policy.Capability{policy.CanDeleteOtherMessage}}, "13 capability"},
		"by an admin":           {&policy.Message{Sender: uri("ada"), Needs: []policy.Capability{policy.CanDeleteOtherMessage}}, "ok 13"},
		"receive":               {&policy.Delivery{To: uri("ann")}, "ok 13"},
		"receive, banned":       {&policy.Delivery{To: uri("dan")}, "B inert-role"},
		"destroy":               {&policy.Deed{Actor: k.actor("sue"), Needs: []policy.Capability{policy.CanDestroyRoom}}, "ok 13"},
		"destroy by a user":     {&policy.Deed{Actor: k.actor("ann"), Needs: []policy.Capability{policy.CanDestroyRoom}}, "13 capability"},
		"nothing in particular": {&policy.Deed{Actor: k.actor("ann")}, "14 unclassified"},
		"no action":             {nil, "14 unclassified"},
	} {
		if got := verdictOf(policy.Authorize(k.s, c.action)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestNewStateRefuses(t *testing.T) {
	roles := policy.CooperativeRoles()
	for name, change := range map[string]func(*policy.Room){
		"no roles":             func(r *policy.Room) { delete(r.Components, policy.ComponentRoles) },
		"no list":              func(r *policy.Room) { delete(r.Components, policy.ComponentParticipantList) },
		"no base":              func(r *policy.Room) { delete(r.Components, policy.ComponentBase) },
		"bad roles":            func(r *policy.Room) { r.Components[policy.ComponentRoles] = []byte{5} },
		"a user as the room":   func(r *policy.Room) { r.URI = uri("ann") },
		"leaf twice":           func(r *policy.Room) { r.Leaves = append(r.Leaves, r.Leaves[0]) },
		"leaf of a stranger":   func(r *policy.Room) { r.Leaves[0].Client = clientOf("eve", 0) },
		"leaf beyond the tree": func(r *policy.Room) { r.Leaves[0].Index = policy.MaxLeaves },
		"unknown role": func(r *policy.Room) {
			r.Components[policy.ComponentParticipantList] = (&mimi.ParticipantListData{Participants: []mimi.UserRolePair{{User: uri("ann"), Role: 77}}}).Marshal()
		},
	} {
		room := drawRoom("ann:2 ada:3", roles)
		change(&room)
		if _, err := policy.NewState(policy.Config{}, room); !errors.Is(err, policy.ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A joiner stands for proposals in its own external commit and nowhere else.
func TestJoinersProposeInTheirOwnCommit(t *testing.T) {
	k := newKit(t, policy.Config{}, "ann:2 bob:2 ada:3", openRoom())
	joiner := k.actor("~ann")
	for name, a := range map[string]policy.Action{
		"bare proposals":   &policy.Bundle{Proposals: k.proposals(joiner, "add:ann")},
		"another's commit": &policy.Commit{Committer: k.actor("bob"), Proposals: k.proposals(joiner, "add:ann")},
	} {
		if got := verdictOf(policy.Authorize(k.s, a)); got != "A sender" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// The example roles belong to whoever asked for them.
func TestExamplesAreFresh(t *testing.T) {
	for _, roles := range []func() *policy.RoleData{policy.CooperativeRoles, policy.StrictRoles, policy.ModeratedRoles, policy.MultiOrganizationRoles} {
		want := roles().Marshal()
		for i, mine := 0, roles(); i < len(mine.Roles); i++ {
			if p := mine.Roles[i].MaximumActiveParticipants; p != nil {
				*p = 77
			}
			for j := range mine.Roles[i].Capabilities {
				mine.Roles[i].Capabilities[j] = 0xFFFF
			}
		}
		if !slices.Equal(roles().Marshal(), want) {
			t.Errorf("changing %v changed the example", roles().Roles[2].Name)
		}
	}
}

func TestRefusalSaysWhy(t *testing.T) {
	k := newKit(t, policy.Config{}, "ann:2 ada:3", policy.CooperativeRoles())
	_, err := policy.Authorize(k.s, k.action("ann: drop:ada"))
	want := "policy: refused by row 6, check capability (canKick): mimi://a.example/u/ann acts on mimi://a.example/u/ada"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestPendingProposalPreference(t *testing.T) {
	leaves := []uint32{0, 3, 4, 9}
	wheel := policy.PendingProposalPreference{Strategy: policy.PreferenceWheel, MinimumDelayMS: 100, MaximumDelayMS: 400}
	for epoch, want := range map[uint64]string{0: "[100ms 200ms 300ms 400ms]", 1: "[400ms 100ms 200ms 300ms]", 6: "[300ms 400ms 100ms 200ms]"} {
		var got []fmt.Stringer
		for _, leaf := range leaves {
			delay, commits := wheel.Turn(epoch, leaf, leaves, uri("ann"))
			if !commits {
				t.Errorf("leaf %d never commits", leaf)
			}
			got = append(got, delay)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("epoch %d: %v, want %s", epoch, got, want)
		}
	}
	designated := policy.PendingProposalPreference{Strategy: policy.DesignatedCommitter, MaximumDelayMS: 50, Committers: []mimi.URI{uri("ada"), uri("ann")}}
	if d, ok := designated.Turn(5, 0, leaves, uri("ada")); d != 0 || !ok {
		t.Errorf("first committer: %v %v", d, ok)
	}
	if d, ok := designated.Turn(5, 0, leaves, uri("ann")); d.Milliseconds() != 50 || !ok {
		t.Errorf("second committer: %v %v", d, ok)
	}
	if _, ok := designated.Turn(5, 0, leaves, uri("bob")); ok {
		t.Error("bob is not designated")
	}
}

func TestAssetRules(t *testing.T) {
	p := sampleAssets()
	for _, c := range []struct {
		host, provider string
		want           bool
	}{{"cdn.example", "a.example", true}, {"cdn.example", "b.example", false}, {"evil.example", "a.example", false}, {"cdn.example", "c.example", false}} {
		if p.AllowsHost(c.host, c.provider, "hub.example") != c.want {
			t.Errorf("%s for %s: want %v", c.host, c.provider, c.want)
		}
	}
	p.AssetUploadLocation, p.UploadDomains = policy.UploadHub, []policy.ProviderAssetUploadDomains{{Provider: "hub.example", Destinations: []string{"hub.example"}}}
	if !p.AllowsHost("hub.example", "b.example", "hub.example") || p.AllowsHost("b.example", "b.example", "hub.example") {
		t.Error("uploads to the hub")
	}
	gfm := []policy.Parameter{{Name: "Variant", Value: "GFM-MIMI"}}
	for _, c := range []struct {
		m    policy.MediaType
		want bool
	}{
		{policy.MediaType{Type: "image/PNG", Parameters: gfm}, true},
		{policy.MediaType{Type: "text/markdown", Parameters: gfm}, true},
		{policy.MediaType{Type: "text/markdown"}, false},
		{policy.MediaType{Type: "application/x-msdownload"}, false},
		{policy.MediaType{Type: "video/mp4"}, false},
	} {
		if p.AllowsMediaType(c.m) != c.want {
			t.Errorf("%v: want %v", c.m, c.want)
		}
	}
	if p.DownloadPrivacy.Allows(policy.DownloadDirect) || !p.DownloadPrivacy.Allows(policy.DownloadHubProxy) {
		t.Error("downloads")
	}
}
