package provider_test

import (
	"slices"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/policy"
)

// check compares a room with what its store makes of it, and with what its
// members know.
func (w *world) check(room string, people ...*person) *provider.Inspection {
	w.t.Helper()
	u := uri(w.t, room)
	n := w.hubs[u.Host()]
	live := must[*provider.Inspection](w.t)(n.Inspect(w.t.Context(), u))
	n.Forget()
	stored := must[*provider.Inspection](w.t)(n.Inspect(w.t.Context(), u))
	if live.Context != stored.Context || live.Pending != stored.Pending || live.LastAccepted != stored.LastAccepted {
		w.t.Errorf("%s in memory: epoch %d, %d pending, %d; in the store: epoch %d, %d pending, %d",
			room, live.Epoch, live.Pending, live.LastAccepted, stored.Epoch, stored.Pending, stored.LastAccepted)
	}
	if !slices.Equal(live.Members, stored.Members) || !slices.Equal(live.Participants, stored.Participants) || len(live.Silenced) != len(stored.Silenced) {
		w.t.Errorf("%s: members, participants or the silenced differ in memory and in the store", room)
	}
	var authenticator string
	for _, p := range people {
		p.until("it is in the hub's epoch", func() bool { return p.epoch(room) == live.Epoch })
		p.nothingRefused()
		i := must[*client.Info](w.t)(p.room(room).Info(w.t.Context()))
		if authenticator == "" {
			authenticator = string(i.Authenticator)
		}
		clients := 0
		for _, q := range i.Participants {
			clients += len(q.Clients)
		}
		if i.Context != live.Context {
			w.t.Errorf("%s: %s has another GroupContext (tree hash, components, transcript) than the hub", room, p.name)
		}
		if string(i.Authenticator) != authenticator || clients != len(live.Members) || len(i.Participants) != len(live.Participants) {
			w.t.Errorf("%s: %s sees %d clients of %d users, the hub %d of %d; or it has another authenticator",
				room, p.name, clients, len(i.Participants), len(live.Members), len(live.Participants))
		}
	}
	return live
}

// A second device joins by itself, and so does a stranger with a code.
func TestExternalJoins(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		laptop, watch := w.person("alice/laptop@a.example"), w.person("bob/watch@b.example")
		must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		must[*client.Room](t)(watch.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		watch.say(clubhouse, "hello")
		for _, p := range []*person{alice, bob, laptop} {
			p.hears(clubhouse, "hello")
		}
		w.check(clubhouse, alice, bob, laptop, watch)
		eve := w.person("eve/phone@b.example")
		if _, err := eve.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil {
			t.Error("a stranger joins a closed room")
		}
	})
}

func withRole(t *testing.T, roles *policy.RoleData, index mimi.RoleIndex, add ...policy.Capability) *policy.RoleData {
	t.Helper()
	for i := range roles.Roles {
		if roles.Roles[i].Index == index {
			roles.Roles[i].Capabilities = append(roles.Roles[i].Capabilities, add...)
			slices.Sort(roles.Roles[i].Capabilities)
			return roles
		}
	}
	t.Fatalf("no role %d", index)
	return nil
}

func TestJoinCode(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice := w.person("alice/phone@a.example")
	roles := policy.CooperativeRoles()
	roles.Roles = append([]policy.Role{{Index: 0, Name: "outsider", Capabilities: []policy.Capability{policy.CanUseJoinCode},
		AuthorizedRoleChanges: []policy.SingleSourceRoleChangeTargets{{From: 0, Targets: []mimi.RoleIndex{2}}}}}, slices.DeleteFunc(roles.Roles, func(r policy.Role) bool { return r.Index == 0 })...)
	owner := &roles.Roles[len(roles.Roles)-1]
	last := owner.Index
	owner.MinimumParticipants = 0
	owner.AuthorizedRoleChanges = append(owner.AuthorizedRoleChanges, policy.SingleSourceRoleChangeTargets{From: last, Targets: []mimi.RoleIndex{0}})
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{Roles: withRole(t, roles, last, policy.CanCreateJoinCode, policy.CanRemoveSelf), Role: last}))
	code, err := r.JoinCode(t.Context(), 2, 3600, 1)
	ok(t, err)
	bob, eve := w.person("bob/tablet@b.example"), w.person("eve/tablet@b.example")
	if _, err := eve.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{Role: 2, Code: []byte("guessed")}); err == nil {
		t.Error("a guessed code lets somebody in")
	}
	must[*client.Room](t)(bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{Role: 2, Code: code.Code}))
	if _, err := eve.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{Role: 2, Code: code.Code}); err == nil {
		t.Error("a code that is used up lets somebody in")
	}
	w.check(clubhouse, alice, bob)
	must[client.RoomStatus](t)(r.Leave(t.Context()))
	_, err = r.JoinCode(t.Context(), 2, 3600, 1)
	refusedFor(t, err, "is being removed")
}

// Bans, kicks and leaves take effect at the hub and at every member.
func TestRemovals(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, bob, cathy := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example")
		r := alice.create(clubhouse, bob, cathy)
		must[*client.Committed](t)(r.Ban(t.Context(), bob.User()))
		bob.until("it is out", func() bool { return bob.status(clubhouse) == client.RoomLeft })
		if _, err := bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil {
			t.Error("who is banned joins again")
		}
		w.check(clubhouse, alice, cathy)
		must[client.RoomStatus](t)(cathy.room(clubhouse).Leave(t.Context()))
		alice.until("the leave is committed", func() bool {
			alice.say(clubhouse, "x")
			return w.size(clubhouse) == 1
		})
		cathy.until("it is out", func() bool { return cathy.status(clubhouse) == client.RoomLeft })
		i := w.check(clubhouse, alice)
		if len(i.Participants) != 2 { // bob stays in the list, banned
			t.Errorf("the list is %v", i.Participants)
		}
	})
}

func (w *world) size(room string) int {
	u := uri(w.t, room)
	return len(must[*provider.Inspection](w.t)(w.hubs[u.Host()].Inspect(w.t.Context(), u)).Members)
}

// A leave of a user with two clients is cut in two by an external commit: the
// hub finishes it.
func TestLeaveCutByExternalCommit(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	alice.create(clubhouse, bob)
	watch := w.person("bob/watch@b.example")
	must[*client.Room](t)(watch.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
	bob.until("it sees the watch", func() bool { return bob.epoch(clubhouse) == watch.epoch(clubhouse) })
	must[client.RoomStatus](t)(bob.room(clubhouse).Leave(t.Context()))
	laptop := w.person("alice/laptop@a.example")
	must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
	laptop.until("the leave is finished", func() bool {
		laptop.say(clubhouse, "x")
		return w.size(clubhouse) == 2
	})
	watch.until("it is out", func() bool { return watch.status(clubhouse) == client.RoomLeft })
	i := w.check(clubhouse, alice, laptop)
	if len(i.Participants) != 1 {
		t.Errorf("the list is %v", i.Participants)
	}
}

// A credential that is not believed any more loses its leaves, and the epoch of
// each room in which it was gone is known.
func TestRevocation(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		hub := w.hubs["a.example"]
		ok(t, hub.ExpelClient(t.Context(), bob.URI()))
		ok(t, hub.ExpelClient(t.Context(), bob.URI())) // proposes nothing twice
		if i := must[*provider.Inspection](t)(hub.Inspect(t.Context(), uri(t, clubhouse))); i.Pending != 1 {
			t.Errorf("%d proposals are pending, want 1", i.Pending)
		}
		before := must[[]provider.Gone](t)(hub.ClientWhereabouts(t.Context(), bob.URI()))
		if len(before) != 1 || before[0].Removed {
			t.Errorf("whereabouts before the commit: %+v", before)
		}
		alice.until("the removal is committed", func() bool {
			alice.say(clubhouse, "x")
			return w.size(clubhouse) == 1
		})
		bob.until("it is out", func() bool { return bob.status(clubhouse) == client.RoomLeft })
		after := must[[]provider.Gone](t)(hub.ClientWhereabouts(t.Context(), bob.URI()))
		if len(after) != 1 || !after[0].Removed || after[0].Epoch != alice.epoch(clubhouse) {
			t.Errorf("whereabouts after the commit: %+v, alice is in epoch %d", after, alice.epoch(clubhouse))
		}
	})
}
