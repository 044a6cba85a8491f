package policy_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// cast are the people of the drawn rooms.
var cast = []string{"ann", "bob", "cyd", "dan", "eve", "kim", "anon1"}

// A model is the room as the slow and obvious way keeps it.
type model struct {
	list   *mimi.ParticipantListData
	leaves map[uint32]policy.Client
}

// TestNoSequenceBreaksTheRoom draws rooms and sequences of actions. Whatever is
// accepted, no banned user acts other than on its own clients, every constraint
// holds, the indices agree with a model that has none, and a member with the
// same room comes to the same verdict and the same room.
func TestNoSequenceBreaksTheRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		roles := drawRoles(t)
		base := &policy.BaseRoomPolicy{MultiDevice: rapid.Bool().Draw(t, "multi"), PseudonymsAllowed: rapid.Bool().Draw(t, "pseudonyms"),
			MaxUsers: drawLimit(t, "users", 4), MaxClients: drawLimit(t, "clients", 3)}
		const people = "sue:4 ada:3 bob:2 cyd:2/0 dan:1/0"
		hub := newKit(t, policy.Config{}, people, roles, base, preauth(roles, "staff", 2))
		member := newKit(t, policy.Config{Member: true}, people, roles, base, preauth(roles, "staff", 2))
		m := &model{hub.s.ParticipantList(), map[uint32]policy.Client{0: clientOf("sue", 0), 1: clientOf("ada", 0), 2: clientOf("bob", 0)}}
		for _, k := range []*kit{hub, member} {
			k.give("ann", "staff")
			k.code = policy.JoinCode{Shown: true, Valid: true, Role: 2}
		}
		for range rapid.IntRange(5, 40).Draw(t, "steps") {
			step(t, hub, member, m, roles, base, drawScript(t))
		}
	})
}

// drawLimit draws no limit, or one that begins a little above what there is.
func drawLimit(t *rapid.T, name string, least uint32) *uint32 {
	if n := rapid.Uint32Range(least, least+3).Draw(t, name); n > least {
		return &n
	}
	return nil
}

// drawRoles varies the strict room: an open door, users who add and remove each
// other, a banned role that would allow everything, and constraints.
func drawRoles(t *rapid.T) *policy.RoleData {
	roles := policy.StrictRoles()
	if rapid.Bool().Draw(t, "open") {
		roles.Role(0).Capabilities = append(roles.Role(0).Capabilities, policy.CanOpenJoin)
	}
	if rapid.Bool().Draw(t, "cooperative") {
		roles.Role(2).Capabilities = append(roles.Role(2).Capabilities, policy.CanAddParticipant, policy.CanRemoveParticipant)
	}
	if rapid.Bool().Draw(t, "almighty banned") {
		banned := roles.Role(1)
		banned.Capabilities, banned.AuthorizedRoleChanges = roles.Role(4).Capabilities, roles.Role(4).AuthorizedRoleChanges
		banned.MaximumActiveParticipants = nil
	}
	roles.Role(2).MaximumParticipants = drawLimit(t, "max 2", 2)
	roles.Role(2).MaximumActiveParticipants = drawLimit(t, "max active 2", 1)
	roles.Role(4).MinimumParticipants = 1
	roles.Role(4).MinimumActiveParticipants = rapid.Uint32Range(0, 1).Draw(t, "min active 4")
	return roles
}

// likely are actions that some room allows; chaos are proposals to be mixed.
var (
	likely = []string{
		"ADMIN: +WHO:2 add:WHO", "ADMIN: +WHO:ROLE", "ADMIN: -WHO drop:WHO", "ADMIN: -WHO", "ADMIN: WHO>1 drop:WHO", "ADMIN: WHO>ROLE", "ADMIN: WHO>ROLE drop:WHO",
		"ADMIN: drop:WHO", "ADMIN: drop:WHO#0", "ADMIN: WHO>2; WHO: self", "ADMIN commits; WHO: -WHO drop:WHO",
		"WHO: add:WHO", "WHO: add:WHO drop:WHO#0", "WHO: self", "WHO: -WHO drop:WHO", "+WHO: add:WHO", "WHO: WHO>2",
		"~WHO: init", "~WHO: init drop:WHO", "~WHO: +WHO:2 init", "~WHO: +WHO:ROLE init", "!WHO: drop:ada", "!WHO: -bob drop:bob", "WHO commits; ADMIN: +eve:2",
	}
	chaos = []string{"+WHO:ROLE", "-WHO", "WHO>ROLE", "add:WHO", "drop:WHO", "drop:WHO#0", "self", "+WHO:2 add:WHO", "WHO>1 drop:WHO", "init"}
)

// drawScript draws an action in the language of the kit.
func drawScript(t *rapid.T) string {
	who := rapid.SampledFrom(append(slices.Clone(cast), "sue", "ada"))
	fill := func(template string) string {
		return strings.NewReplacer("ADMIN", rapid.SampledFrom([]string{"sue", "sue", "sue", "ada", "bob", "eve"}).Draw(t, "admin"),
			"WHO", who.Draw(t, "who"), "ROLE", fmt.Sprint(rapid.IntRange(0, 6).Draw(t, "role"))).Replace(template)
	}
	if rapid.IntRange(0, 4).Draw(t, "chaos") > 0 {
		return fill(rapid.SampledFrom(likely).Draw(t, "action"))
	}
	script := fill(rapid.SampledFrom([]string{"ADMIN:", "WHO:", "~WHO:", "+WHO:"}).Draw(t, "actor"))
	for range rapid.IntRange(1, 3).Draw(t, "proposals") {
		script += " " + fill(rapid.SampledFrom(chaos).Draw(t, "proposal"))
	}
	return script
}

func step(t *rapid.T, hub, member *kit, m *model, roles *policy.RoleData, base *policy.BaseRoomPolicy, script string) {
	hub.clients++
	member.clients = hub.clients
	action := hub.action(script)
	effect, err := policy.Authorize(hub.s, action)
	same, memberErr := policy.Authorize(member.s, action)
	if (err == nil) != (memberErr == nil) {
		t.Fatalf("%s: hub %v, member %v", script, err, memberErr)
	}
	if err != nil {
		return
	}
	checkActors(t, hub, action, effect)
	before := counts(m, roles)
	m.apply(t, roles, action)
	if err := hub.s.Apply(effect); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	if err := member.s.Apply(same); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	checkModel(t, hub.s, m)
	checkModel(t, member.s, m)
	checkRoom(t, m, before, roles, base, script)
}

// checkActors checks that the banned, and those who do not participate and did
// not join, do nothing to others.
func checkActors(t *rapid.T, k *kit, a policy.Action, e *policy.Effect) {
	for _, p := range proposalsOf(a) {
		user := p.By.User
		if k.s.RoleOf(user) != mimi.RoleBanned {
			continue
		}
		switch r := p.Proposal.(type) {
		case policy.SelfRemove:
		case policy.Remove:
			if c, _ := k.s.Client(r.Leaf); c.User != user {
				t.Fatalf("%s is banned and removed a client of %s", user, c.User)
			}
		default:
			t.Fatalf("%s is banned and was allowed %T by %v", user, r, e.Rows())
		}
	}
	if c, ok := a.(*policy.Commit); ok && k.s.RoleOf(c.Committer.User) == mimi.RoleBanned {
		t.Fatalf("%s is banned and commits", c.Committer.User)
	}
}

func proposalsOf(a policy.Action) []policy.Proposed {
	if c, ok := a.(*policy.Commit); ok {
		return c.Proposals
	}
	return a.(*policy.Bundle).Proposals
}

// apply does what the drafts say, by mimi's own participant list and a scan for
// free leaves.
func (m *model) apply(t *rapid.T, roles *policy.RoleData, a policy.Action) {
	var updates []*mimi.ParticipantListUpdate
	var adds []policy.Client
	for _, p := range proposalsOf(a) {
		switch p := p.Proposal.(type) {
		case policy.AppDataUpdate:
			u, err := mimi.ParseParticipantListUpdate(p.Update)
			if err != nil {
				t.Fatal(err)
			}
			updates = append(updates, u)
		case policy.Remove:
			delete(m.leaves, p.Leaf)
		case policy.Add:
			adds = append(adds, p.Client)
		}
		if _, self := p.Proposal.(policy.SelfRemove); self {
			delete(m.leaves, p.By.Leaf)
		}
	}
	if c, ok := a.(*policy.Commit); ok && c.Committer.Sender == policy.NewMemberCommit {
		adds = append(adds, policy.Client{User: c.Committer.User, URI: c.Committer.Client})
	}
	next, err := m.list.Apply(func(r mimi.RoleIndex) bool { return roles.Role(r) != nil }, updates...)
	if err != nil {
		t.Fatalf("accepted, and invalid for the list: %v", err)
	}
	m.list = next
	for _, c := range adds {
		leaf := uint32(0)
		for _, taken := m.leaves[leaf]; taken; _, taken = m.leaves[leaf] {
			leaf++
		}
		m.leaves[leaf] = c
	}
}

func checkModel(t *rapid.T, s *policy.State, m *model) {
	if !bytes.Equal(s.ParticipantList().Marshal(), m.list.Marshal()) {
		t.Fatalf("list is\n%v, want\n%v", s.ParticipantList(), m.list)
	}
	for i, p := range m.list.Participants {
		if at, ok := s.Index(p.User); !ok || int(at) != i || s.RoleOf(p.User) != p.Role {
			t.Fatalf("%s is at %d with role %d, want %d with %d", p.User, at, s.RoleOf(p.User), i, p.Role)
		}
	}
	for leaf, c := range m.leaves {
		if got, ok := s.Client(leaf); !ok || got != c || !slices.Contains(s.LeavesOf(c.User), leaf) {
			t.Fatalf("leaf %d is %v, want %v", leaf, got, c)
		}
	}
	for role, c := range counts(m, nil) {
		if p, active := s.Counts(role); p != c[0] || active != c[1] {
			t.Fatalf("role %d has %d, %d active, want %v", role, p, active, c)
		}
	}
}

// counts returns participants and active participants by role.
func counts(m *model, roles *policy.RoleData) map[mimi.RoleIndex][2]int {
	active := make(map[mimi.URI]bool)
	for _, c := range m.leaves {
		active[c.User] = true
	}
	n := make(map[mimi.RoleIndex][2]int)
	if roles != nil {
		for _, r := range roles.Roles {
			n[r.Index] = [2]int{}
		}
	}
	for _, p := range m.list.Participants {
		c := n[p.Role]
		c[0]++
		if active[p.User] {
			c[1]++
		}
		n[p.Role] = c
	}
	return n
}

// checkRoom checks the constraints on the model. No maximum is ever passed, since
// no drawn room begins above one; a minimum is kept once it was met.
func checkRoom(t *rapid.T, m *model, before map[mimi.RoleIndex][2]int, roles *policy.RoleData, base *policy.BaseRoomPolicy, script string) {
	now := counts(m, roles)
	for _, index := range slices.Sorted(maps.Keys(now)) {
		r, c := roles.Role(index), now[index]
		for i, most := range []*uint32{r.MaximumParticipants, r.MaximumActiveParticipants} {
			if most != nil && c[i] > int(*most) {
				t.Fatalf("%s: role %d has %v", script, index, c)
			}
		}
		for i, least := range []uint32{r.MinimumParticipants, r.MinimumActiveParticipants} {
			if c[i] < before[index][i] && c[i] < int(least) {
				t.Fatalf("%s: role %d fell from %v to %v", script, index, before[index], c)
			}
		}
	}
	checkBase(t, m, base, script)
}

func checkBase(t *rapid.T, m *model, base *policy.BaseRoomPolicy, script string) {
	perUser, users := make(map[mimi.URI]int), 0
	for leaf, c := range m.leaves {
		perUser[c.User]++
		if role := m.list.RoleOf(c.User); role <= mimi.RoleBanned {
			t.Fatalf("%s: leaf %d is of %s, who has role %d", script, leaf, c.User, role)
		}
		if !base.MultiDevice && perUser[c.User] > 1 {
			t.Fatalf("%s: %s has several clients", script, c.User)
		}
	}
	for _, p := range m.list.Participants {
		if p.Role != mimi.RoleBanned {
			users++
		}
		if p.User.Kind() == mimi.KindPseudonym && !base.PseudonymsAllowed {
			t.Fatalf("%s: %s participates", script, p.User)
		}
	}
	if base.MaxUsers != nil && users > int(*base.MaxUsers) || base.MaxClients != nil && len(m.leaves) > int(*base.MaxClients) {
		t.Fatalf("%s: %d users, %d clients", script, users, len(m.leaves))
	}
}

// TestLongLists keeps a list in which many come and go, so that the roster is
// rebuilt on the way.
func TestLongLists(t *testing.T) {
	k := newKit(t, policy.Config{}, "sue:4", policy.CooperativeRoles())
	want := []string{"sue"}
	for i := range 600 {
		name := fmt.Sprintf("u%d", i)
		k.apply("sue: +" + name + ":2")
		want = append(want, name)
		if i%4 != 0 {
			gone := 1 + (i*7)%(len(want)-1)
			k.apply("sue: -" + want[gone])
			want = slices.Delete(want, gone, gone+1)
		}
	}
	for i, name := range want {
		if at, ok := k.s.Index(uri(name)); !ok || int(at) != i {
			t.Fatalf("%s is at %d, %v, want %d", name, at, ok, i)
		}
	}
	for i := len(want) - 1; i > 0; i-- {
		k.apply("sue: -" + want[i])
	}
	if k.s.Participants() != 1 {
		t.Errorf("%d participants are left", k.s.Participants())
	}
}
