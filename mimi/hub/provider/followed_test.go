package provider_test

import (
	"slices"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// whereabouts are those of a client at its own provider.
func (p *person) whereabouts(w *world) []provider.Gone {
	p.t.Helper()
	return must[[]provider.Gone](p.t)(w.hubs[p.URI().Host()].ClientWhereabouts(p.t.Context(), p.URI()))
}

// isKnown waits until a client's provider knows something of where it is.
func (p *person) isKnown(w *world, so func(provider.Gone) bool) provider.Gone {
	p.t.Helper()
	var at provider.Gone
	p.until("its provider knows where it is", func() bool {
		list := p.whereabouts(w)
		i := slices.IndexFunc(list, so)
		if i >= 0 {
			at = list[i]
		}
		return i >= 0
	})
	return at
}

func there(g provider.Gone) bool { return !g.Removed }
func gone(g provider.Gone) bool  { return g.Removed }

// TestFollowerKnowsWhoIsGone has a follower tell in which epoch the leaves of its
// clients came to a room of another hub and were gone: of those that came by a
// Welcome, and of those that joined by themselves.
func TestFollowerKnowsWhoIsGone(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, tablet := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
		r := alice.create(clubhouse, tablet)
		hub := w.hubs["a.example"]
		same := func(p *person, so func(provider.Gone) bool) {
			t.Helper()
			seen := p.isKnown(w, so)
			for _, g := range must[[]provider.Gone](t)(hub.ClientWhereabouts(t.Context(), p.URI())) {
				if g.Removed == seen.Removed && g.Room == seen.Room && g.Client == seen.Client && g.Epoch == seen.Epoch && g.At == seen.At {
					return
				}
			}
			t.Errorf("%s: its provider has %+v, the hub does not", p.name, seen)
		}
		same(tablet, there)
		watch := w.person("bob/watch@b.example")
		must[*client.Room](t)(watch.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		same(watch, there)
		carol := w.person("carol/phone@b.example")
		must[*client.Committed](t)(r.Add(t.Context(), carol.User(), client.AddOptions{}))
		same(carol, there)
		// The hub proposes, a member commits by reference.
		ok(t, hub.ExpelClient(t.Context(), watch.URI()))
		alice.until("the watch is gone", func() bool {
			return len(must[*provider.Inspection](t)(hub.Inspect(t.Context(), uri(t, clubhouse))).Members) == 3
		})
		same(watch, gone)
		same(tablet, there)
		// A new leaf takes the place that has become free.
		laptop := w.person("bob/laptop@b.example")
		must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		same(laptop, there)
		must[*client.Committed](t)(r.Remove(t.Context(), carol.User()))
		same(carol, gone)
		if list := must[[]mimi.URI](t)(w.hubs["b.example"].Unfollowed(t.Context(), tablet.URI())); len(list) != 0 {
			t.Errorf("not known: %v", list)
		}
		// What is known of a client's credential is found by it.
		all := func(*mls.Credential) bool { return true }
		if list := must[[]provider.Gone](t)(w.hubs["b.example"].CredentialWhereabouts(t.Context(), watch.URI(), all)); len(list) != 1 || !list[0].Removed {
			t.Errorf("by credential: %+v", list)
		}
	})
}

// TestFollowerSaysWhatItDoesNotKnow has the only client of a provider join by
// itself, with a code: its provider has seen no tree, until a Welcome comes.
func TestFollowerSaysWhatItDoesNotKnow(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, tablet := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	roles := policy.CooperativeRoles()
	for i := range roles.Roles {
		if roles.Roles[i].Index == 0 {
			roles.Roles[i] = policy.Role{Index: 0, Name: "outsider", Capabilities: []policy.Capability{policy.CanUseJoinCode},
				AuthorizedRoleChanges: []policy.SingleSourceRoleChangeTargets{{From: 0, Targets: []mimi.RoleIndex{2}}}}
		}
	}
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{Roles: withRole(t, roles, 4, policy.CanCreateJoinCode), Role: 4}))
	code, err := r.JoinCode(t.Context(), 2, 3600, 1)
	ok(t, err)
	must[*client.Room](t)(tablet.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{Role: 2, Code: code.Code}))
	tablet.until("it hears the room", func() bool { return tablet.status(clubhouse) == client.RoomMember })
	unknown := func() int {
		return len(must[[]mimi.URI](t)(w.hubs["b.example"].Unfollowed(t.Context(), tablet.URI())))
	}
	if len(tablet.whereabouts(w)) != 0 || unknown() != 1 {
		t.Fatal("its provider knows where it is")
	}
	carol := w.person("carol/phone@b.example")
	must[*client.Committed](t)(r.Add(t.Context(), carol.User(), client.AddOptions{}))
	tablet.isKnown(w, there)
	if unknown() != 0 {
		t.Error("after a Welcome, its provider does not know where it is")
	}
}

// TestFollowerKeepsATreeOnce adds clients of a follower one after the other: each
// Welcome has a whole tree, of which the follower stores what is new, and each
// client gets its own.
func TestFollowerKeepsATreeOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := knownWorld(t, pg, "a.example", "b.example")
		w.mods = append(w.mods, func(cfg *provider.Config) { cfg.Retention = time.Millisecond })
		for _, host := range []string{"a.example", "b.example"} {
			w.hubs[host] = w.start(host, w.source(), newHubKeys(t, w.ca, host))
		}
		b := w.hubs["b.example"]
		alice := w.person("alice/phone@a.example")
		r := alice.create(clubhouse)
		add := func(name string) {
			t.Helper()
			p := w.person(name + "@b.example")
			must[*client.Committed](t)(r.Add(t.Context(), p.User(), client.AddOptions{}))
			p.until("it is in the room", func() bool { return p.status(clubhouse) == client.RoomMember })
		}
		for _, name := range []string{"bob/phone", "carol/phone", "dan/phone"} {
			add(name)
		}
		if whole, all := b.number(t, `SELECT count(*) FROM room_tree WHERE seq = base`), b.number(t, `SELECT count(*) FROM room_tree`); whole != 1 || all != 3 {
			t.Errorf("%d trees for three Welcomes, %d of them whole", all, whole)
		}
		if n := b.number(t, `SELECT count(*) FROM event WHERE kind = 4 AND tree <> 0`); n != 3 {
			t.Errorf("%d of three Welcomes refer to a tree", n)
		}
		time.Sleep(2 * time.Millisecond) // until all is older than it is kept
		ok(t, b.Purge(t.Context()))
		if n := b.number(t, `SELECT count(*) FROM room_tree`); n != 0 {
			t.Errorf("%d trees are there, and no Welcome", n)
		}
		add("erin/phone")
	})
}
