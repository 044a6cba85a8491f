package client_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
)

// failOnce makes the next write fail, before or after it took effect.
func failOnce(after bool) func(bool) error {
	var failed atomic.Bool
	return func(now bool) error {
		if now == after && failed.CompareAndSwap(false, true) {
			return errCrash
		}
		return nil
	}
}

// Bob holds on to a Room while his client drops what it has in memory: a write
// of a list of events fails, and he was away for too long. There is one Room for
// each room, so that his goes on from the stored state and never writes an old
// epoch over it.
func TestRoomsAreHeldOnTo(t *testing.T) {
	for name, upset := range map[string]func(t *testing.T, h *clienttest.Hub, alice, bob *person){
		"a write fails": func(t *testing.T, h *clienttest.Hub, alice, bob *person) {
			bob.SetFault(failOnce(false))
		},
		"a write fails after it took effect": func(t *testing.T, h *clienttest.Hub, alice, bob *person) {
			bob.SetFault(failOnce(true))
		},
		"events are dropped": func(t *testing.T, h *clienttest.Hub, alice, bob *person) {
			alice.say(clubhouse, "dropped")
			h.DropEvents()
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := clienttest.NewHub(t, "a.example", "b.example")
			alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
			alice.create(clubhouse, bob)
			held := bob.room(clubhouse)
			must[*client.Sent](t)(held.Text(t.Context(), "one"))
			alice.sync()
			must[any](t)(alice.room(clubhouse).Refresh(t.Context()))
			upset(t, h, alice, bob)
			if err := bob.Sync(t.Context()); err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			must[*client.Info](t)(held.Info(t.Context()))
			bob.sync()
			alice.sync()
			must[any](t)(alice.room(clubhouse).Refresh(t.Context()))
			bob.sync()
			must[*client.Sent](t)(held.Text(t.Context(), "two"))
			must[any](t)(held.Refresh(t.Context()))
			bob.restart()
			bob.say(clubhouse, "three")
			bob.wantTexts(clubhouse, "message:one message:two message:three")
			alice.sync()
			alice.nothingRefused()
			agree(t, h, clubhouse, alice, bob)
		})
	}
}

// A Room whose making failed is none, and can be made again.
func TestRoomThatWasNotStored(t *testing.T) {
	h := clienttest.NewHub(t, "a.example")
	alice := newPerson(t, h, "alice/phone@a.example")
	alice.SetFault(failOnce(false))
	if _, err := alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{}); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	alice.wantStatus(clubhouse, "")
	alice.create(clubhouse)
	alice.say(clubhouse, "hello")
	alice.wantStatus(clubhouse, client.RoomMember)
}
