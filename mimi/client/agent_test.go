package client_test

import (
	"testing"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
)

// A message that was franked before this client's own commit brought the next
// franking key, and is taken in after it, is franked all the same; also over a
// restart in between.
func TestFrankedBeforeOwnCommit(t *testing.T) {
	for _, restart := range []bool{false, true} {
		h := clienttest.NewHub(t, "a.example", "b.example")
		alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
		r := alice.create(clubhouse, bob)
		old := string(h.Room(uri(t, clubhouse)).FrankingKey())
		h.RotateFranking(t, uri(t, clubhouse))
		alice.sync()
		bob.say(clubhouse, "before") // bob has not heard of the new key, and alice not of this
		must[*client.Committed](t)(r.Refresh(t.Context()))
		if string(h.Room(uri(t, clubhouse)).FrankingKey()) == old {
			t.Fatal("the commit did not bring the new key")
		}
		if restart {
			alice.restart()
		}
		bob.sync()
		bob.say(clubhouse, "after")
		for _, p := range []*person{alice, bob} {
			p.sync()
			p.nothingRefused()
			p.wantTexts(clubhouse, "message:before message:after")
			for _, m := range must[[]*client.Message](t)(p.room(clubhouse).Messages(t.Context(), noTime)) {
				if m.NotFranked != "" {
					t.Errorf("restart %v: %s has %q not franked: %s", restart, p.name, textOf(m.Content), m.NotFranked)
				}
			}
		}
	}
}
