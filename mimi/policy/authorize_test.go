package policy_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

type expectation struct{ script, want string }

func (k *kit) expectAll(list []expectation) {
	k.t.Helper()
	for _, e := range list {
		k.expect(e.script, e.want)
	}
}

func setHex(id string, v value) string { return id + "=" + hex.EncodeToString(v.Marshal()) }

// claim makes a preauthorisation entry and a credential that meets it.
func claim(name string, target policy.Role) policy.PreAuthRoleEntry {
	return policy.PreAuthRoleEntry{
		Claimset:   []policy.Claim{{CredentialType: 6, ID: []byte("groups"), Value: []byte(name)}},
		TargetRole: target,
	}
}

func preauth(roles *policy.RoleData, entries ...any) *policy.PreAuthData {
	d := new(policy.PreAuthData)
	for i := 0; i < len(entries); i += 2 {
		d.PreauthorizedEntries = append(d.PreauthorizedEntries, claim(entries[i].(string), *roles.Role(mimi.RoleIndex(entries[i+1].(int)))))
	}
	return d
}

func (k *kit) give(name string, groups ...string) {
	text := []byte(`{"groups":[`)
	for i, g := range groups {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, `"`+g+`"`...)
	}
	c, err := policy.NewJWT(6, "https://issuer.example", append(text, `]}`...))
	if err != nil {
		k.t.Fatal(err)
	}
	k.holds[name] = []policy.Credential{c}
}

// The expectations of the cooperative room: two ordinary users, two admins, two
// super admins and one who is banned.
func TestCooperativeRoom(t *testing.T) {
	roles := policy.CooperativeRoles()
	k := newKit(t, policy.Config{}, "ann:2 bob:2/2 cyd:2/0 ada:3 bea:3 sue:4 sid:4 dan:1/0", roles, preauth(roles, "enforcers", 5))
	k.give("watch", "enforcers")
	k.expectAll([]expectation{
		// Users.
		{"ann: -bob drop:bob", "ok 3"},
		{"ann: -cyd", "ok 3"},
		{"ann: -ada drop:ada", "3 role-change"},
		{"ann: -bob drop:bob#0", "3 clients-remain"},
		{"ann: +eve:2", "ok 1"},
		{"ann: +eve:2 add:eve add:eve", "ok 1"},
		{"ann: +eve:3", "1 role-change"},
		{"ann: +eve:1", "1 role-change"},
		{"ann: add:eve", "14 unclassified"},
		{"ann: add:bob", "14 unclassified"},
		{"ann: add:ann", "ok 2"},
		{"ann: drop:ann", "ok 5"},
		{"bob: drop:bob#1", "ok 5"},
		{"bob: self", "ok 5"},
		{"bob: -bob self drop:bob#1", "ok 4"},
		{"bob: -bob self", "4 clients-remain"},
		{"ann: drop:bob", "6 capability"},
		{"ann: bob>3", "8 capability"},
		{"ann: ann>3", "10 capability"},
		{"ann: bob>1 drop:bob", "7 capability"},
		// A user removed by several hands: bob's own client and the rest by ann.
		{"ann: -bob drop:bob#1; bob: self", "ok 3 5"},
		// Admins.
		{"ada: ann>1 drop:ann", "ok 7"},
		{"ada: bob>1 drop:bob#0", "7 clients-remain"},
		{"ada: bea>1 drop:bea", "ok 7"},
		{"ada: +eve:1", "ok 1"},
		{"ada: +eve:1 add:eve", "Z max-active"},
		{"ada: dan>2", "ok 9"},
		{"ada: dan>2 add:dan", "9 clients-added"},
		{"ada: -dan", "ok 3"},
		{"ada: -sue drop:sue", "3 role-change"},
		{"ada: sue>1 drop:sue", "7 role-change"},
		{"ada: sue>2", "8 role-change"},
		{"ada: drop:sue", "ok 6"},
		{"ada: ann>3", "ok 8"},
		{"ada: ann>3 drop:ann", "ok 8 6"},
		{"ada: ann>4", "8 role-change"},
		{"ada: ann>3 add:ann", "14 unclassified"},
		{"ada: ada>4", "10 capability"},
		{"sue: ada>2", "ok 8"},
		{"sue: ada>2 bea>2", "Z min-participants"},
		// The enforcer, which is no participant, and others who are none.
		{"!watch: -ann drop:ann", "ok 3"},
		{"!watch: -dan", "ok 3"},
		{"!watch: dan>2", "9 role-change"},
		{"!watch: ann>1 drop:ann", "ok 7"},
		{"!watch: +eve:1", "1 capability"},
		{"!watch: drop:ann", "6 capability"},
		{"!watch: reinit", "ok 12"},
		{"!watch: psk", "12 capability"},
		{"!other: -ann drop:ann", "B no-role"},
		{"!hub: -ann drop:ann", "3 no-role"},
		{"!hub: gce", "ok 12"},
		// Nobody lets strangers and the banned in.
		{"~eve: +eve:2 init", "J3 capability"},
		{"~eve: init", "2 participant"},
		{"~dan: init", "B inert-role"},
		{"~dan: dan>2", "B inert-role"},
		{"+eve: add:eve", "14 participant"},
		{"+dan: add:dan", "B inert-role"},
		// Clients of one's own from outside.
		{"~cyd: init", "ok 2"},
		{"~ann: init drop:ann", "2 own-leaf"},
		{"~ann#0: init drop:ann", "ok 2"},
		{"~ann: init drop:bob", "2 own-leaf"},
		{"~ada: init drop:bob", "2 own-leaf"}, // an external commit kicks nobody, whoever makes it
		{"+ann: add:ann", "ok 2"},
		{"+ann: add:bob", "2 own-leaf"},
		// Nonsense.
		{"ann: custom", "14 unclassified"},
		{"ann: +bob:2", "C list-update"},
		{"ann: -eve", "C list-update"},
		{"ann: bob>9", "C list-update"},
		{"ada: bob>2", "C list-update"},
		{"ada: bob>0 drop:bob", "C list-update"},
		{"ada: +eve:9", "C list-update"},
		{"ada: +eve:0", "C list-update"},
		{"ann: 0x0022=000000", "C list-update"},
		{"ann: 0x0022=00", "C list-update"},
		{"ann: 0x0022=remove", "11 needed"},
		{"eve: +kim:2", "A leaf"},
		{"ann: drop:bob drop:bob", "C leaf"},
		{"!watch: self", "C sender"},
		{"ann: init", "12 sender"},
		{"ann: +eve:2; ada: +eve:3", "Z user-twice"},
		{"ada: ann>3; bea: -ann drop:ann", "Z user-twice"},
	})
}

func TestStrictRoom(t *testing.T) {
	roles := policy.StrictRoles()
	k := newKit(t, policy.Config{}, "ann:2 ada:3 sue:4", roles, preauth(roles, "admins", 3, "staff", 2, "guests", 5))
	k.give("eve", "staff")
	k.give("kim", "staff", "admins")
	k.give("gus", "guests")
	k.give("ann", "admins")
	k.expectAll([]expectation{
		{"ann: +eve:2", "1 capability"},
		{"ann: -ada drop:ada", "3 capability"},
		{"~eve: +eve:2 init", "ok J1"},
		{"~eve: +eve:3 init", "J1 preauth"},
		{"~kim: +kim:2 init", "J1 preauth"}, // the first entry that matches gives 3
		{"~kim: +kim:3 init", "ok J1"},
		{"~gus: +gus:5 init", "J1 capability"}, // role 5 has no canJoinIfPreauthorized
		{"~joe: +joe:2 init", "J3 capability"},
		{"ann: ann>3", "ok 10"},
		{"ann: ann>4", "10 preauth"},
		{"ada: ada>2", "10 preauth"},
		{"ann: ann>3 drop:ann", "ok 10 5"},
		{"~ann: ann>3 init", "ok 10 2"},
	})
	k.code = policy.JoinCode{Shown: true, Valid: true, Role: 2}
	k.expectAll([]expectation{
		{"~joe: +joe:2 init", "ok J2"},
		{"~joe: +joe:3 init", "J2 join-code"},
		{"~eve: +eve:2 init", "ok J1"},
		{"~kim: +kim:2 init", "ok J2"},
	})
	k.code.Role = 3
	k.expect("~joe: +joe:3 init", "J2 role-change") // role 0 has only (0,[2])
	k.code = policy.JoinCode{Shown: true, Role: 2}
	k.expect("~joe: +joe:2 init", "J2 join-code")
}

// A member has not seen the code and takes the hub's word for it, but for
// nothing else.
func TestMemberTakesTheHubsWordForCodes(t *testing.T) {
	k := newKit(t, policy.Config{Member: true}, "ann:2 ada:3", policy.StrictRoles())
	k.expectAll([]expectation{{"~joe: +joe:2 init", "ok J2"}, {"~joe: +joe:3 init", "J3 capability"}})
	k.code.Shown = true
	k.expect("~joe: +joe:3 init", "J2 role-change")
}

func TestModeratedRoom(t *testing.T) {
	k := newKit(t, policy.Config{}, "gil:2 ann:3 sam:4 max:5 mia:5 sue:6", policy.ModeratedRoles())
	k.code = policy.JoinCode{Shown: true, Valid: true, Role: 2}
	k.expectAll([]expectation{
		{"~joe: +joe:2 init", "ok J2"},
		{"gil: drop:gil", "5 capability"}, // guests leave, or stay
		{"gil: add:gil", "2 capability"},
		{"~gil: init", "2 capability"},
		{"gil: -gil self", "ok 4"},
		{"max: gil>4", "ok 8"},
		{"max: gil>6", "8 role-change"},
		{"max: mia>2", "ok 8"},
		{"max: +eve:3 add:eve", "ok 1"},
		{"sam: gil>4", "8 capability"},
		{"sue: mia>6", "ok 8"},
	})
	for user, want := range map[string]string{"gil": "13 capability", "ann": "13 capability", "sam": "ok 13", "sue": "ok 13", "joe": "13 participant"} {
		if got := verdictOf(policy.Authorize(k.s, &policy.Message{Sender: uri(user)})); got != want {
			t.Errorf("%s sends: %s, want %s", user, got, want)
		}
	}
}

func TestMultiOrganizationRoom(t *testing.T) {
	roles := policy.MultiOrganizationRoles()
	k := newKit(t, policy.Config{}, "ann:2 bob:3 cal:4 ada:5 ben:6 bea:6 cid:7 sue:8 dan:1/0", roles, preauth(roles, "enforcers", 9))
	k.give("watch", "enforcers")
	k.expectAll([]expectation{
		{"ben: bob>1 drop:bob", "ok 7"},
		{"ben: dan>3", "9 role-change"}, // canChangeUserRole would do, but there is no entry from 1
		{"ben: cal>1 drop:cal", "7 role-change"},
		{"ben: bea>3", "ok 8"},
		{"ben: ben>3", "10 capability"},
		{"cid: -cid self", "Z min-participants"},
		{"sue: cid>4", "Z min-participants"},
		{"cid: drop:cid", "Z min-active"},
		{"sue: +eve:6 +eli:6", "Z max-participants"},
		{"sue: +eve:6", "ok 1"},
		{"sue: dan>2", "ok 9"},
		{"sue: -sue self", "Z min-participants"},
		{"!watch: -bob drop:bob", "ok 3"},
		{"!watch: -ann drop:ann", "3 role-change"}, // as in the draft: 2 is missing
	})
}

// Without a capability of role 9's entry from 1, canChangeUserRole alone is not
// enough; here ben has it but for the entry.
func TestUnbanByRoleChange(t *testing.T) {
	roles := policy.CooperativeRoles()
	admin := roles.Role(3)
	admin.Capabilities = slices.DeleteFunc(admin.Capabilities, func(c policy.Capability) bool { return c == policy.CanUnBan || c == policy.CanBan })
	k := newKit(t, policy.Config{}, "ann:2 ada:3 dan:1/0", roles)
	k.expectAll([]expectation{
		{"ada: dan>2", "ok 9"},
		{"ada: ann>1 drop:ann", "ok 6 8"}, // a ban as a change of role and a kick
		{"ada: ann>1", "8 clients-remain"},
	})
	admin.Capabilities = slices.DeleteFunc(admin.Capabilities, func(c policy.Capability) bool { return c == policy.CanKick })
	k = newKit(t, policy.Config{}, "ann:2 cyd:2/0 ada:3 dan:1/0", roles)
	k.expectAll([]expectation{{"ada: ann>1 drop:ann", "7 capability"}, {"ada: cyd>1", "ok 8"}})
}

func openRoom() *policy.RoleData {
	roles := policy.CooperativeRoles()
	*roles.Role(0) = policy.Role{Index: 0, Name: "no_role", Capabilities: []policy.Capability{policy.CanOpenJoin},
		AuthorizedRoleChanges: []policy.SingleSourceRoleChangeTargets{{From: 0, Targets: []mimi.RoleIndex{2}}}}
	return roles
}

func TestOpenRoom(t *testing.T) {
	k := newKit(t, policy.Config{}, "ada:3", openRoom())
	k.expectAll([]expectation{{"~eve: +eve:2 init", "ok J3"}, {"~eve: +eve:3 init", "J3 role-change"}, {"~eve: +eve:2 +kim:2 init", "1 no-role"}})
	closed := &policy.OperationalParameters{ExternalProposalAllowed: true}
	k = newKit(t, policy.Config{}, "ada:3", openRoom(), closed)
	k.expectAll([]expectation{{"~eve: +eve:2 init", "J3 external-commit"}, {"~ada: init", "2 external-commit"}, {"+ada: add:ada", "ok 2"}})
	closed = &policy.OperationalParameters{ExternalCommitAllowed: true}
	k = newKit(t, policy.Config{}, "ada:3", openRoom(), closed)
	k.expectAll([]expectation{{"~eve: +eve:2 init", "ok J3"}, {"+ada: add:ada", "2 external-proposal"}, {"!hub: gce", "B external-proposal"}})
}

func TestCommitters(t *testing.T) {
	roles := policy.CooperativeRoles()
	roles.Roles = append(roles.Roles, policy.Role{Index: 6, Name: "mute"})
	k := newKit(t, policy.Config{}, "ann:2/2 bob:2 ada:3 mut:6", roles)
	k.expectAll([]expectation{
		{"ann commits", "ok 12"},
		{"mut commits", "B inert-role"},
		{"mut: self", "ok 5"},
		{"mut: ack", "B inert-role"},
		{"ann commits; ada: bob>1 drop:bob", "ok 12 7"}, // only the proposer answers
		{"ann commits; ann: drop:ann#0", "12 own-removal"},
		{"ann commits; ann#1: self", "ok 12 5"},
		{"ann commits; ann: -ann self drop:ann#1", "12 own-removal"},
		{"!hub commits", "12 sender"},
		{"ann commits; ann: update:ann", "ok 12"},
		{"ann commits; ann: update:bob", "12 own-leaf"},
		{"ada: drop:bob; bob: update:bob", "C leaf"},
		{"ann: ack", "ok 12"},
		{"ann: retract", "12 capability"},
		{"ada: retract", "ok 12"},
		{"ann: gce", "12 capability"},
	})
	moved := &policy.Commit{Committer: k.actor("ann"), Path: clientOf("bob", 5)}
	if got := verdictOf(policy.Authorize(k.s, moved)); got != "12 own-leaf" {
		t.Errorf("a path with another user's credential: %s", got)
	}
}

func TestComponentUpdates(t *testing.T) {
	strict := policy.StrictRoles()
	k := newKit(t, policy.Config{}, "ann:2 ada:3 sue:4 dan:1/0", strict, preauth(strict, "staff", 2))
	named, described, moved := clubhouse(), clubhouse(), clubhouse()
	named.RoomName = "Shed"
	described.RoomDescriptions = []mimi.RichDescription{{Content: []byte("x")}}
	moved.RoomURI = mustURI("mimi://a.example/r/shed")
	base := &policy.BaseRoomPolicy{MultiDevice: true, Discoverable: true}
	links := &policy.JoinLinksUpdate{AddedLinks: []string{"https://a.example/j/1"}}
	k.expectAll([]expectation{
		{"ann: " + setHex("0x0023", named), "11 capability"},
		{"ada: " + setHex("0x0023", named), "ok 11"},
		{"ada: " + setHex("0x0023", described), "ok 11"},
		{"sue: " + setHex("0x0023", moved), "11 immutable"},
		{"sue: " + setHex("0x0023", clubhouse()), "11 no-change"},
		{"sue: 0x0023=00", "11 component"},
		{"sue: 0x0023=remove", "11 needed"},
		{"ada: " + setHex("0x0023", named) + " " + setHex("0x0023", described), "Z component-twice"},
		{"ada: " + setHex("0x0025", strict), "11 capability"},
		{"sue: " + setHex("0x0025", strict), "ok 11"},
		{"sue: 0x0025=remove", "11 needed"},
		{"sue: 0x0025=05", "11 component"},
		{"sue: ann>3 " + setHex("0x0025", strict), "Z roles-with-list"},
		{"sue: " + setHex("0x0025", strict) + "; ada: ann>3", "Z roles-with-list"},
		{"sue: " + setHex("0x0025", &policy.RoleData{Roles: strict.Roles[:4]}), "11 role-in-use"},
		{"sue: " + setHex("0x0026", preauth(strict, "staff", 3)), "ok 11"},
		{"sue: 0x0026=remove", "ok 11"},
		{"sue: -ann drop:ann 0x0026=remove", "ok 3 11"},
		{"sue: ann>3 0x0026=remove", "Z preauth-with-list"},
		{"ada: ann>3; sue: " + setHex("0x0026", preauth(strict, "staff", 3)), "Z preauth-with-list"},
		{"sue: " + setHex("0x0027", base), "ok 11"},
		{"ada: " + setHex("0x0027", base), "11 capability"},
		{"sue: 0x0024=remove", "11 capability"}, // nobody has the reserved 0600
		{"sue: 0x0028=0000", "11 capability"},
		{"ada: " + setHex("0x002a", links), "ok 11"},
		{"ann: " + setHex("0x002a", links), "11 capability"},
		{"ada: " + setHex("0x002a", &policy.JoinLinksUpdate{RemovedIndices: []uint32{0}}), "11 component"},
		{"ada: 0x002a=remove", "11 no-change"},
		{"ada: 0x0021=00", "11 hub-only"},
		{"!hub: 0x0021=00", "ok 11"},
		{"sue: 0x7777=00", "11 unknown"},
		{"sue: 0xF0B1=00", "11 unknown"},
	})
	k.apply("!hub: 0x0021=00")
	k.expect("!hub: 0x0021=00", "11 no-change")
	k.expect("!hub: 0x0021=remove", "11 immutable")
	k.expect("ada: 0x0021=01", "11 hub-only")
	k.expect("!hub: 0x0021=01", "ok 11") // its next key
	k.apply("ada: " + setHex("0x002a", links))
	k.expect("ada: "+setHex("0x002a", links), "11 component") // the link is there
	k.expect("ada: "+setHex("0x002a", &policy.JoinLinksUpdate{RemovedIndices: []uint32{0}}), "ok 11")
	if v, _ := k.s.Value(policy.ComponentJoinLinks); !bytes.Equal(v, (&policy.JoinLinksData{Links: links.AddedLinks}).Marshal()) {
		t.Errorf("join links are %x", v)
	}
}

// What refers to a role keeps it from going away.
func TestRoleReferences(t *testing.T) {
	roles := policy.StrictRoles()
	fewer := &policy.RoleData{Roles: roles.Roles[:5]} // without the enforcer, 5
	for name, holder := range map[string]any{
		"preauthorisation": preauth(roles, "x", 5),
		"a bot":            &policy.BotPolicy{AllowedBots: []policy.Bot{{RoleIndex: 5}}},
	} {
		k := newKit(t, policy.Config{}, "sue:4", roles, holder)
		if got := k.verdict("sue: " + setHex("0x0025", fewer)); got != "11 role-in-use" {
			t.Errorf("%s: %s", name, got)
		}
	}
	k := newKit(t, policy.Config{}, "sue:4", roles, &policy.HistoryPolicy{RolesThatCanShare: []mimi.RoleIndex{3}})
	k.expect("sue: "+setHex("0x0025", fewer), "ok 11")
	silent := policy.StrictRoles()
	silent.Role(3).MaximumActiveParticipants = ptr[uint32](0)
	k.expect("sue: "+setHex("0x0025", silent), "11 role-in-use")
}

func TestEnvelope(t *testing.T) {
	refuse := func(id policy.ComponentID, _ []byte) error {
		if id == policy.ComponentBase {
			return errors.New("not here")
		}
		return nil
	}
	set := "sue: " + setHex("0x0027", &policy.BaseRoomPolicy{MultiDevice: true, Discoverable: true})
	newKit(t, policy.Config{Envelope: refuse}, "sue:4", policy.StrictRoles()).expect(set, "11 envelope")
	newKit(t, policy.Config{Envelope: refuse, Member: true}, "sue:4", policy.StrictRoles()).expect(set, "ok 11")
}

func TestSelfRoleChanges(t *testing.T) {
	roles := policy.StrictRoles()
	own := &policy.SelfRoleChanges{Changes: []policy.SingleSourceRoleChangeTargets{{From: 2, Targets: []mimi.RoleIndex{3}}}}
	on := newKit(t, policy.Config{SelfRoleChanges: true}, "ann:2 ada:3 ade:3 sue:4", roles, own)
	on.expectAll([]expectation{
		{"ann: ann>3", "ok 10"}, {"ann: ann>4", "10 preauth"}, {"ada: ada>2", "10 preauth"},
		{"sue: " + setHex("0xF0B1", &policy.SelfRoleChanges{}), "ok 11"}, {"ada: 0xF0B1=remove", "11 capability"}, {"sue: 0xF0B1=remove", "ok 11"},
	})
	off := newKit(t, policy.Config{}, "ann:2 ada:3 sue:4", roles, own)
	off.expectAll([]expectation{{"ann: ann>3", "10 preauth"}, {"sue: 0xF0B1=remove", "11 unknown"}})
}

// TestHubRemoves has the hub remove a client, and a user with all clients, in
// a room that lets it, and nothing else.
func TestHubRemoves(t *testing.T) {
	roles := policy.CooperativeRoles()
	for _, c := range []expectation{
		{"!hub: drop:bob#0", "ok 6"}, {"!hub: -bob drop:bob", "ok 3"}, {"!hub: -bob drop:bob#0", "3 no-role"},
		{"!hub: bob>1 drop:bob", "7 no-role"}, {"!hub: ann>3", "8 no-role"}, {"!hub: +eve:2", "1 no-role"},
	} {
		newKit(t, policy.Config{HubRemoves: true}, "ann:2 bob:2/2 ada:3", roles).expectAll([]expectation{c})
	}
	newKit(t, policy.Config{}, "ann:2 bob:2/2 ada:3", roles).expectAll([]expectation{{"!hub: drop:bob#0", "6 no-role"}})
}
