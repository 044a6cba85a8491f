package client_test

import (
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/content"
)

var noTime time.Time

// Alice makes a room and adds Bob and Cathy; they talk, and each survives a
// restart at any point.
func TestConversation(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example", "c.example")
	alice, bob, cathy := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example"), newPerson(t, h, "cathy/laptop@c.example")
	alice.create(clubhouse, bob, cathy)
	first := alice.say(clubhouse, "hello")
	bob.sync()
	bob.restart()
	must[any](t)(bob.room(clubhouse).Reply(t.Context(), first.ID, "hi"))
	cathy.sync()
	must[any](t)(cathy.room(clubhouse).React(t.Context(), first.ID, "♥"))
	alice.restart()
	alice.sync()
	must[any](t)(alice.room(clubhouse).Edit(t.Context(), first.ID, "hello all"))
	second := alice.say(clubhouse, "oops")
	must[any](t)(alice.room(clubhouse).Delete(t.Context(), second.ID))
	const want = "message:hello reply:hi reaction:♥ edit:hello all message:oops delete:"
	for _, p := range []*person{alice, bob, cathy} {
		p.sync()
		p.restart()
		p.wantTexts(clubhouse, want)
		p.nothingRefused()
		tl := must[*content.Timeline](t)(p.room(clubhouse).Timeline(t.Context()))
		e := tl.Entry(first.ID)
		if e == nil || !e.Edited() || len(e.Reactions) != 1 || textOf(e.Current().Message) != "hello all" {
			t.Errorf("%s: the timeline has %+v", p.name, e)
		}
		if e := tl.Entry(second.ID); e == nil || !e.Deleted() {
			t.Errorf("%s: the second message is not deleted", p.name)
		}
	}
	for _, m := range must[[]*client.Message](t)(bob.room(clubhouse).Messages(t.Context(), noTime)) {
		if m.NotFranked != "" || m.Quarantine != "" || m.Issuer == "" {
			t.Errorf("message of %s: franked %q, quarantine %q, issuer %q", m.Sender, m.NotFranked, m.Quarantine, m.Issuer)
		}
	}
	agree(t, h, clubhouse, alice, bob, cathy)
}

func TestMembership(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example", "c.example")
	alice, bob, cathy := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example"), newPerson(t, h, "cathy/laptop@c.example")
	r := alice.create(clubhouse, bob, cathy)
	must[any](t)(r.Remove(t.Context(), bob.User()))
	bob.sync()
	bob.wantStatus(clubhouse, client.RoomLeft)
	must[any](t)(r.Ban(t.Context(), cathy.User()))
	cathy.sync()
	cathy.wantStatus(clubhouse, client.RoomLeft)
	if _, err := cathy.Join(t.Context(), r.URI(), client.JoinOptions{}); err == nil {
		t.Error("a banned user joins again")
	}
	must[any](t)(r.Add(t.Context(), bob.User(), client.AddOptions{}))
	bob.sync()
	bob.wantStatus(clubhouse, client.RoomMember)
	alice.say(clubhouse, "welcome back")
	bob.sync()
	bob.wantTexts(clubhouse, "message:welcome back")
	must[any](t)(r.SetRole(t.Context(), bob.User(), 3))
	must[any](t)(r.SetMetadata(t.Context(), rename))
	bob.sync()
	i := must[*client.Info](t)(bob.room(clubhouse).Info(t.Context()))
	if i.Metadata.RoomName != "Renamed" {
		t.Errorf("the room is named %q", i.Metadata.RoomName)
	}
	must[any](t)(bob.room(clubhouse).SetRole(t.Context(), cathy.User(), 2)) // unbanned
	alice.sync()
	agree(t, h, clubhouse, alice, bob)
}

// A user's second device joins by an external commit.
func TestSecondDevice(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
	alice.create(clubhouse, bob)
	laptop := newPerson(t, h, "bob/laptop@b.example")
	must[any](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
	laptop.restart()
	alice.sync()
	alice.say(clubhouse, "to both")
	laptop.say(clubhouse, "from the laptop")
	for _, p := range []*person{alice, bob, laptop} {
		p.sync()
		p.wantTexts(clubhouse, "message:to both message:from the laptop")
		p.nothingRefused()
	}
	must[any](t)(alice.room(clubhouse).Kick(t.Context(), bob.User(), laptop.URI()))
	laptop.sync()
	laptop.wantStatus(clubhouse, client.RoomLeft)
	bob.sync()
	agree(t, h, clubhouse, alice, bob)
}

func TestLeave(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob, laptop := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example"), newPerson(t, h, "bob/laptop@b.example")
	alice.create(clubhouse, bob) // with both of his clients
	laptop.sync()
	if s := must[client.RoomStatus](t)(bob.room(clubhouse).Leave(t.Context())); s != client.RoomLeaving {
		t.Errorf("bob is %s, want leaving", s)
	}
	if _, err := bob.room(clubhouse).Text(t.Context(), "still here"); err == nil {
		t.Error("a leaving client sends")
	}
	bob.restart()
	alice.sync()
	alice.say(clubhouse, "bye") // commits what waits first
	bob.sync()
	laptop.sync()
	bob.wantStatus(clubhouse, client.RoomLeft)
	laptop.wantStatus(clubhouse, client.RoomLeft)
	agree(t, h, clubhouse, alice)
}

// A client that commits over and over, in one go or after restarts, and does not
// ask for events, still reads what the others sent meanwhile.
func TestCommitsWithoutSync(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
	alice.create(clubhouse, bob)
	for _, round := range []struct {
		text  string
		after func()
	}{{"in one go", func() {}}, {"after restarts", alice.restart}} {
		bob.sync()
		bob.say(clubhouse, round.text)
		for range client.PastEpochs + 2 {
			must[any](t)(alice.room(clubhouse).Refresh(t.Context()))
			round.after()
		}
	}
	alice.sync()
	alice.nothingRefused()
	alice.wantTexts(clubhouse, "message:in one go message:after restarts")
	bob.sync()
	agree(t, h, clubhouse, alice, bob)
}

func TestJoinCode(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), strictRoom()))
	if _, err := bob.Join(t.Context(), r.URI(), client.JoinOptions{}); err == nil {
		t.Error("bob joins without a code")
	}
	code, err := r.JoinCode(t.Context(), 2, 3600, 1)
	ok(t, err)
	must[any](t)(bob.Join(t.Context(), r.URI(), client.JoinOptions{Role: 2, Code: code.Code}))
	bob.say(clubhouse, "got in")
	alice.sync()
	alice.wantTexts(clubhouse, "message:got in")
	agree(t, h, clubhouse, alice, bob)
}
