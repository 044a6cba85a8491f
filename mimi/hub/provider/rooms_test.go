package provider_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// refusedFor fails unless an error says what it must.
func refusedFor(t *testing.T, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want an error with %q", err, why)
	}
}

// sanIs is the claim that a certificate names a URI (a uniformResourceIdentifier
// of subjectAltName).
func sanIs(uri string) policy.Claim {
	return policy.Claim{CredentialType: uint16(mls.CredentialX509), ID: []byte{0x55, 0x1d, 0x11}, Value: []byte(uri)}
}

// preauth gives roles to those with the claims.
func preauth(roles *policy.RoleData, entries map[mimi.RoleIndex]policy.Claim) []byte {
	d := new(policy.PreAuthData)
	for i := range roles.Roles {
		if claim, ok := entries[roles.Roles[i].Index]; ok {
			d.PreauthorizedEntries = append(d.PreauthorizedEntries, policy.PreAuthRoleEntry{Claimset: []policy.Claim{claim}, TargetRole: roles.Roles[i]})
		}
	}
	return d.Marshal()
}

// Who is preauthorised joins by itself with the role that its credential gives,
// and changes its own role when the list says another; nobody else may.
func TestPreauthorized(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob, eve := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("eve/tablet@b.example")
		roles := policy.StrictRoles()
		r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{
			Roles: roles, Role: 4, Components: map[policy.ComponentID][]byte{policy.ComponentPreauth: preauth(roles, map[mimi.RoleIndex]policy.Claim{2: sanIs(bob.User().String())})},
		}))
		if _, err := eve.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{Role: 2}); err == nil {
			t.Error("who is not preauthorised joins")
		}
		if _, err := bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{Role: 3}); err == nil {
			t.Error("bob joins with a role for which he is not preauthorised")
		}
		must[*client.Room](t)(bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		bob.say(clubhouse, "in")
		alice.hears(clubhouse, "in")
		_, err := bob.room(clubhouse).SetRole(t.Context(), bob.User(), 3)
		refusedFor(t, err, "row 10")
		// Now the list says that bob is an administrator.
		must[*client.Committed](t)(r.SetComponent(t.Context(), policy.ComponentPreauth, preauth(roles, map[mimi.RoleIndex]policy.Claim{3: sanIs(bob.User().String())})))
		bob.until("it has heard of it", func() bool { return bob.epoch(clubhouse) == alice.epoch(clubhouse) })
		must[*client.Committed](t)(bob.room(clubhouse).SetRole(t.Context(), bob.User(), 3))
		alice.until("bob is an administrator", func() bool { return alice.roleOf(clubhouse, bob.User()) == 3 })
		w.check(clubhouse, alice, bob)
	})
}

func (p *person) roleOf(room string, user mimi.URI) mimi.RoleIndex {
	p.t.Helper()
	for _, q := range must[*client.Info](p.t)(p.room(room).Info(p.t.Context())).Participants {
		if q.User == user {
			return q.Role
		}
	}
	return mimi.RoleNone
}

// A client that is kicked stays a participant and may come back; who is banned
// may not, until somebody lifts the ban.
func TestKickAndBan(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	r := alice.create(clubhouse, bob)
	out := func() { bob.until("it is out", func() bool { return bob.status(clubhouse) == client.RoomLeft }) }
	must[*client.Committed](t)(r.Kick(t.Context(), bob.User(), mimi.URI{}))
	out()
	if alice.roleOf(clubhouse, bob.User()) == mimi.RoleNone {
		t.Error("who was kicked is off the list")
	}
	must[*client.Room](t)(bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
	bob.say(clubhouse, "back")
	alice.hears(clubhouse, "back")
	must[*client.Committed](t)(r.Ban(t.Context(), bob.User()))
	out()
	if _, err := bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil {
		t.Error("who is banned joins again")
	}
	must[*client.Committed](t)(r.SetRole(t.Context(), bob.User(), 2))
	must[*client.Room](t)(bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
	w.check(clubhouse, alice, bob)
}

// In a room of fixed membership nobody comes or goes, but clients do; and there
// is one such room for a set of participants.
func TestFixedMembership(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, bob, cathy := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@b.example")
	roles := policy.CooperativeRoles()
	for i := range roles.Roles {
		roles.Roles[i].Capabilities = without(roles.Roles[i].Capabilities, policy.CanAddParticipant)
	}
	// The membership is complete before it is fixed.
	r := alice.create(clubhouse, bob)
	fixed := policy.BaseRoomPolicy{MultiDevice: true, FixedMembership: true}
	_, err := r.SetComponent(t.Context(), policy.ComponentBase, fixed.Marshal())
	refusedFor(t, err, "fixed-membership") // as long as a role may add participants
	roles = withRole(t, roles, 4, policy.CanChangeRoleDefinitions)
	again := uri(t, "mimi://a.example/r/direct")
	d := must[*client.Room](t)(alice.CreateRoom(t.Context(), again, client.RoomOptions{Roles: withRole(t, policy.CooperativeRoles(), 4, policy.CanChangeRoleDefinitions)}))
	must[*client.Committed](t)(d.Add(t.Context(), bob.User(), client.AddOptions{}))
	must[*client.Committed](t)(d.SetComponent(t.Context(), policy.ComponentRoles, roles.Marshal()))
	must[*client.Committed](t)(d.SetComponent(t.Context(), policy.ComponentBase, fixed.Marshal()))
	_, err = d.Add(t.Context(), cathy.User(), client.AddOptions{Role: 2})
	refusedFor(t, err, "policy: refused")
	_, err = d.Remove(t.Context(), bob.User())
	refusedFor(t, err, "fixed-membership")
	laptop := w.person("bob/laptop@b.example")
	must[*client.Room](t)(laptop.Join(t.Context(), again, client.JoinOptions{}))
	bob.until("it is in the room", func() bool { return bob.status(again.String()) == client.RoomMember })
	w.check(again.String(), alice, bob, laptop)
	if _, err := bob.room(again.String()).Leave(t.Context()); err == nil {
		t.Error("a participant leaves a room of fixed membership")
	}
}

// commits takes in what is new, and commits what waits in rooms.
func (p *person) commits(rooms ...string) {
	p.t.Helper()
	ok(p.t, p.Sync(p.t.Context()))
	for _, room := range rooms {
		if p.status(room) == client.RoomMember && must[*client.Info](p.t)(p.room(room).Info(p.t.Context())).Pending > 0 {
			must[*client.Committed](p.t)(p.room(room).Refresh(p.t.Context()))
		}
	}
}

func without(list []policy.Capability, c policy.Capability) (rest []policy.Capability) {
	for _, have := range list {
		if have != c {
			rest = append(rest, have)
		}
	}
	return rest
}

// A room that depends on a parent takes nobody who is not in the parent, and
// whoever goes from the parent goes from it.
func TestParentRoom(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		const side = "mimi://a.example/r/side"
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, bob, cathy, dave := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example"), w.person("dave/phone@a.example")
		parent := alice.create(clubhouse, bob, cathy)
		r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, side), client.RoomOptions{
			Base: &policy.BaseRoomPolicy{MultiDevice: true, ParentDependant: true, ParentRoom: clubhouse},
		}))
		_, err := r.Add(t.Context(), dave.User(), client.AddOptions{})
		refusedFor(t, err, "parent")
		must[*client.Committed](t)(r.Add(t.Context(), bob.User(), client.AddOptions{}))
		bob.until("it is in the side room", func() bool { return bob.status(side) == client.RoomMember })
		_, err = r.Add(t.Context(), cathy.User(), client.AddOptions{})
		refusedFor(t, err, "parent") // all of the parent's would be in it
		must[*client.Committed](t)(parent.Add(t.Context(), dave.User(), client.AddOptions{}))
		must[*client.Committed](t)(r.Add(t.Context(), cathy.User(), client.AddOptions{}))
		cathy.until("it is in the side room", func() bool { return cathy.status(side) == client.RoomMember })
		// Bob is removed from the parent, and Cathy leaves it.
		must[*client.Committed](t)(parent.Remove(t.Context(), bob.User()))
		bob.until("it is out of both", func() bool {
			alice.commits(side)
			return bob.status(clubhouse) == client.RoomLeft && bob.status(side) == client.RoomLeft
		})
		must[client.RoomStatus](t)(cathy.room(clubhouse).Leave(t.Context()))
		cathy.until("it is out of both", func() bool {
			alice.commits(clubhouse, side)
			return cathy.status(clubhouse) == client.RoomLeft && cathy.status(side) == client.RoomLeft
		})
		if i := w.check(side, alice); len(i.Participants) != 1 || len(i.Members) != 1 {
			t.Errorf("the side room has %v with %v", i.Participants, i.Members)
		}
	})
}

// A leave that waits is taken along by an external commit: the SelfRemove and
// the AppDataUpdate that takes the user off the list.
func TestLeaveInExternalCommit(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		must[client.RoomStatus](t)(bob.room(clubhouse).Leave(t.Context()))
		laptop := w.person("alice/laptop@a.example")
		must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		i := w.check(clubhouse, alice, laptop)
		if len(i.Participants) != 1 || len(i.Members) != 2 || i.Pending != 0 {
			t.Errorf("after the external commit: %v with %v, %d pending", i.Participants, i.Members, i.Pending)
		}
		bob.until("it is out", func() bool { return bob.status(clubhouse) == client.RoomLeft })
	})
}

// An external commit cannot have the hub's Remove: the hub proposes it anew,
// stapled to the commit, and a member commits it.
func TestHubProposesAnew(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, bob, cathy := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example")
		alice.create(clubhouse, bob, cathy)
		n := w.hubs["a.example"]
		ok(t, n.ExpelClient(t.Context(), bob.URI()))
		laptop := w.person("cathy/laptop@c.example")
		must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		if i := w.check(clubhouse); i.Pending != 1 {
			t.Errorf("%d proposals are pending after the external commit, want the hub's Remove again", i.Pending)
		}
		for _, p := range []*person{alice, cathy, laptop} { // over notify, and to the joiner
			p.until("it has the proposal", func() bool {
				return must[*client.Info](t)(p.room(clubhouse).Info(t.Context())).Pending == 1
			})
		}
		laptop.say(clubhouse, "x")
		bob.until("it is out", func() bool { return bob.status(clubhouse) == client.RoomLeft })
		w.check(clubhouse, alice, cathy, laptop)
	})
}

// A room that is destroyed ends for its members here and elsewhere, and so does
// one that depends on it. What its hub says is the last that a follower hears.
func TestDestroyedRoom(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		const side = "mimi://a.example/r/side"
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, adam, bob, cathy := w.person("alice/phone@a.example"), w.person("adam/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example")
		r := alice.create(clubhouse, adam, bob, cathy)
		s := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, side), client.RoomOptions{
			Base: &policy.BaseRoomPolicy{MultiDevice: true, ParentDependant: true, ParentRoom: clubhouse},
		}))
		must[*client.Committed](t)(s.Add(t.Context(), bob.User(), client.AddOptions{}))
		bob.until("it is in the side room", func() bool { return bob.status(side) == client.RoomMember })
		if err := adam.room(clubhouse).Destroy(t.Context()); err == nil {
			t.Error("who may not destroys the room")
		}
		w.net.Name("c.example", "") // nobody reaches it
		ok(t, r.Destroy(t.Context()))
		for _, p := range []*person{alice, adam, bob} {
			p.until("the room is closed", func() bool { return p.status(clubhouse) == client.RoomClosed })
			p.nothingRefused()
		}
		bob.until("the side room is closed", func() bool { return bob.status(side) == client.RoomClosed })
		if _, err := bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil {
			t.Error("somebody joins a room that is no more")
		}
		// c.example has not heard of it, and finds out when it asks.
		if _, err := cathy.room(clubhouse).Text(t.Context(), "anybody?"); err == nil {
			t.Error("a message to a room that is no more is accepted")
		}
		cathy.until("the room is closed", func() bool { return cathy.status(clubhouse) == client.RoomClosed })
		if list, err := cathy.Client.Rooms(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("cathy's rooms: %v %v", list, err)
		}
		// What was under way to it comes late, and is no room's.
		w.servePeers(w.hubs["c.example"])
		cathy.nothingRefused()
	})
}

// Messages of the epoch before somebody came are answered with the new epoch:
// the newcomer could not read them. The sender sends again.
func TestNobodyMissesWhatComesAfter(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, adam, bob := w.person("alice/phone@a.example"), w.person("adam/phone@a.example"), w.person("bob/tablet@b.example")
		r := alice.create(clubhouse, adam)
		must[*client.Committed](t)(r.Refresh(t.Context()))
		adam.say(clubhouse, "one") // of the epoch before: nobody came in this one
		must[*client.Committed](t)(r.Add(t.Context(), bob.User(), client.AddOptions{}))
		w.hubs["a.example"].Forget() // what the store knows decides as well
		adam.say(clubhouse, "two")   // Adam has not heard of Bob
		bob.until("it is in the room", func() bool { return bob.status(clubhouse) == client.RoomMember })
		bob.hears(clubhouse, "two")
		bob.nothingRefused()
		alice.hears(clubhouse, "one two")
	})
}

// What mls_operational_policy says, the hub holds everybody to.
func TestOperationalParameters(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, adam, bob := w.person("alice/phone@a.example"), w.person("adam/phone@a.example"), w.person("bob/tablet@b.example")
	lax := func() *policy.OperationalParameters {
		return &policy.OperationalParameters{ExternalCommitAllowed: true, ExternalProposalAllowed: true, AppMessagePolicy: policy.AppMessagePolicy{EpochTolerance: 1}}
	}
	room := func(name string, ops *policy.OperationalParameters) *client.Room {
		return must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/"+name), client.RoomOptions{
			Components: map[policy.ComponentID][]byte{policy.ComponentOperational: ops.Marshal()},
		}))
	}
	strict := lax()
	r := room("mandatory", strict)
	_ = r
	_ = adam
	_ = bob
}

var _ = errors.Is
var _ provider.Config
