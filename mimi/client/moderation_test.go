package client_test

import (
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/policy"
)

// What a moderator has deleted stays deleted when the moderator is none any more,
// and what somebody tried who was none is not done when it becomes one.
func TestModerationOutlivesTheModerator(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob, carol := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example"), newPerson(t, h, "carol/pc@b.example")
	roles := policy.CooperativeRoles()
	member, moderator := roles.Role(2), roles.Role(3)
	moderator.Capabilities = append(moderator.Capabilities, policy.CanDeleteOtherMessage, policy.CanDeleteOtherReaction)
	moderator.MinimumParticipants = 0
	for _, c := range []policy.Capability{policy.CanReactToMessage, policy.CanDeleteOwnReaction} {
		if !member.Has(c) {
			member.Capabilities = append(member.Capabilities, c)
		}
	}
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{Roles: roles}))
	must[any](t)(r.Add(t.Context(), bob.User(), client.AddOptions{Role: 3}))
	must[any](t)(r.Add(t.Context(), carol.User(), client.AddOptions{Role: 2}))
	bob.sync()
	carol.sync()
	rude := must[*client.Sent](t)(carol.room(clubhouse).Text(t.Context(), "rude"))
	fine := must[*client.Sent](t)(carol.room(clubhouse).Text(t.Context(), "fine"))
	thumb := must[*client.Sent](t)(carol.room(clubhouse).React(t.Context(), fine.ID, "rude"))
	bob.sync()
	must[any](t)(bob.room(clubhouse).Delete(t.Context(), rude.ID))
	must[any](t)(bob.room(clubhouse).Delete(t.Context(), thumb.ID))
	check := func(when string) {
		t.Helper()
		for _, p := range []*person{alice, bob, carol} {
			p.sync()
			p.nothingRefused()
			tl := must[*content.Timeline](t)(p.room(clubhouse).Timeline(t.Context()))
			if e := tl.Entry(rude.ID); e == nil || !e.Deleted() {
				t.Errorf("%s: %s has %q back", when, p.name, "rude")
			}
			if e := tl.Entry(fine.ID); e == nil || e.Deleted() || len(e.Reactions) != 0 {
				t.Errorf("%s: %s has %+v", when, p.name, e)
			}
		}
	}
	check("bob is a moderator")
	alice.sync()
	must[any](t)(r.SetRole(t.Context(), bob.User(), mimi.RoleIndex(2)))
	check("bob is none any more")
	must[any](t)(r.Remove(t.Context(), bob.User()))
	alice.restart()
	tl := must[*content.Timeline](t)(alice.room(clubhouse).Timeline(t.Context()))
	if e := tl.Entry(rude.ID); !e.Deleted() {
		t.Error("bob is gone, and what he deleted is back")
	}
}
