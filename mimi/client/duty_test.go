package client_test

import (
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
)

// In each epoch one member is called to commit what waits at once, the others
// after it, and it is not the same one for ever. Here no time goes by, so that
// nobody else does.
func TestOneCommitsAtOnce(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	now := time.Now()
	still := func(c *client.Config) { c.Now = func() time.Time { return now } }
	alice, bob, carol := newPerson(t, h, "alice/phone@a.example", still), newPerson(t, h, "bob/tablet@b.example", still), newPerson(t, h, "carol/pc@b.example", still)
	r := alice.create(clubhouse, bob, carol)
	people := []*person{alice, bob, carol}
	first := make(map[*person]bool)
	var one *person // whose turn it is now
	for range 40 {
		seen := make(map[int]bool)
		for _, p := range people {
			p.sync()
			n := must[int](t)(p.room(clubhouse).Turn(t.Context()))
			if seen[n] || n >= len(people) {
				t.Fatalf("%s has turn %d in epoch %d", p.name, n, h.Room(uri(t, clubhouse)).Epoch())
			}
			if seen[n] = true; n == 0 {
				first[p], one = true, p
			}
		}
		if len(first) == len(people) && one != carol {
			break
		}
		must[*client.Committed](t)(r.Refresh(t.Context()))
	}
	if len(first) != len(people) || one == carol {
		t.Fatalf("%d members of 3 are ever called first", len(first))
	}
	ok(t, h.RemoveClient(t.Context(), uri(t, clubhouse), carol.URI()))
	for _, p := range people {
		p.sync()
		p.sync()
	}
	if n := h.Room(uri(t, clubhouse)).Size(); n != 2 {
		t.Errorf("%d clients are in the room, want 2: nobody has committed at once", n)
	}
	for _, p := range []*person{alice, bob} {
		p.sync()
		p.nothingRefused()
	}
	agree(t, h, clubhouse, alice, bob)
}
