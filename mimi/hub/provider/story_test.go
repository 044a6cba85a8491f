package provider_test

import (
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/content"
)

var noTime time.Time

const clubhouse = "mimi://a.example/r/clubhouse"

func textOf(m *content.Message) string {
	if s, ok := m.Body.Content.(*content.SinglePart); ok {
		return string(s.Content)
	}
	return ""
}

// Three providers, messages all ways, and a member who goes.
func TestThreeProviders(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, bob, cathy := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example")
		r := alice.create(clubhouse, bob, cathy)
		alice.say(clubhouse, "one")
		bob.hears(clubhouse, "one")
		bob.say(clubhouse, "two")
		cathy.hears(clubhouse, "one two")
		cathy.say(clubhouse, "three")
		for _, p := range []*person{alice, bob, cathy} {
			p.hears(clubhouse, "one two three")
			p.nothingRefused()
		}
		must[*client.Committed](t)(r.Remove(t.Context(), cathy.User()))
		cathy.until("it is out", func() bool { return cathy.status(clubhouse) == client.RoomLeft })
		alice.say(clubhouse, "four")
		bob.hears(clubhouse, "one two three four")
		if _, err := cathy.room(clubhouse).Text(t.Context(), "five"); err == nil {
			t.Error("who was removed can send")
		}
	})
}
