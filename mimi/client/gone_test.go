package client_test

import (
	"testing"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
)

// Bob was away for longer than his provider keeps events. He rejoins his room,
// has what he had, misses what was dropped, and takes part again.
func TestAwayForTooLong(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
	r := alice.create(clubhouse, bob)
	alice.say(clubhouse, "before")
	bob.sync()
	alice.say(clubhouse, "dropped")
	must[any](t)(r.Refresh(t.Context()))
	h.DropEvents()
	bob.sync()
	bob.wantStatus(clubhouse, client.RoomMember)
	alice.sync()
	alice.say(clubhouse, "after")
	bob.sync()
	bob.say(clubhouse, "back")
	bob.wantTexts(clubhouse, "message:before message:after message:back")
	alice.sync()
	alice.nothingRefused()
	agree(t, h, clubhouse, alice, bob)
}
