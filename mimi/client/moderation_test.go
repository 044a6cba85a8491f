package client_test

import (
	"slices"
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

// Topics are changed by who may: one's own with canEditOwnTopic, others' with
// canEditOtherTopic, which leaves what they say.
func TestRetopic(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob, carol := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example"), newPerson(t, h, "carol/pc@b.example")
	roles := policy.CooperativeRoles()
	moderator := roles.Role(3)
	moderator.MinimumParticipants = 0
	moderator.Capabilities = slices.DeleteFunc(moderator.Capabilities, func(c policy.Capability) bool { return c == policy.CanDeleteOtherMessage })
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{Roles: roles}))
	must[any](t)(r.Add(t.Context(), bob.User(), client.AddOptions{Role: 3}))
	must[any](t)(r.Add(t.Context(), carol.User(), client.AddOptions{Role: 2}))
	bob.sync()
	carol.sync()
	tea := must[*client.Sent](t)(carol.room(clubhouse).Send(t.Context(), &content.Message{TopicID: []byte("drinks"), Body: content.NestedPart{
		Disposition: content.Render, Content: &content.SinglePart{ContentType: "text/plain;charset=utf-8", Content: []byte("tea?")}}}))
	plain := must[*client.Sent](t)(bob.room(clubhouse).Text(t.Context(), "cake?"))
	check := func(when, topic, text string) {
		t.Helper()
		for _, p := range []*person{alice, bob, carol} {
			p.sync()
			p.nothingRefused()
			e := must[*content.Timeline](t)(p.room(clubhouse).Timeline(t.Context())).Entry(tea.ID)
			if e == nil || string(e.TopicID()) != topic || textOf(e.Current().Message) != text {
				t.Errorf("%s: %s has %q under %q", when, p.name, textOf(e.Current().Message), e.TopicID())
			}
		}
	}
	check("sent", "drinks", "tea?")
	must[any](t)(carol.room(clubhouse).Retopic(t.Context(), tea.ID, []byte("food")))
	check("moved by its sender", "food", "tea?")
	must[any](t)(bob.room(clubhouse).Retopic(t.Context(), tea.ID, []byte("meetings")))
	check("moved by a moderator", "meetings", "tea?")
	if _, err := carol.room(clubhouse).Retopic(t.Context(), plain.ID, []byte("meetings")); err == nil {
		t.Error("a participant gives another's message a topic")
	}
	must[any](t)(carol.room(clubhouse).Edit(t.Context(), tea.ID, "tea at four?"))
	check("edited by its sender", "meetings", "tea at four?")
	if _, err := bob.room(clubhouse).Edit(t.Context(), tea.ID, "no tea"); err == nil {
		t.Error("who may change topics has edited what another says")
	}
	check("at the end", "meetings", "tea at four?")
}
