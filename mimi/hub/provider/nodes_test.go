package provider_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub/provider"
)

// Two nodes on one PostgreSQL serve one room at once.
func TestTwoNodes(t *testing.T) {
	w := newWorld(t, true, "a.example", "b.example")
	first := w.hubs["a.example"]
	alice := w.person("alice/phone@a.example")
	second := w.start("a.example", first.source, first.keys) // now peers reach the second
	w.hubs["a.example"] = second
	adam, bob := w.person("adam/phone@a.example"), w.person("bob/tablet@b.example")
	alice.create(clubhouse, adam, bob)
	people := []*person{alice, adam, bob}
	var wg sync.WaitGroup
	for _, p := range people {
		wg.Go(func() {
			for i := range 8 {
				if i%4 == 3 {
					if _, err := p.room(clubhouse).Refresh(t.Context()); err != nil {
						t.Errorf("%s: %v", p.name, err)
					}
				}
				if _, err := p.room(clubhouse).Text(t.Context(), fmt.Sprintf("%s-%d", p.User().Segments()[0], i)); err != nil {
					t.Errorf("%s: %v", p.name, err)
				}
			}
		})
	}
	wg.Wait()
	sameOrder(t, people, 24)
	w.check(clubhouse, people...)
	w.hubs["a.example"] = first
	w.check(clubhouse, people...)
}

// A node that has a room in memory takes messages of an epoch that another node
// began, and refuses one that nobody began.
func TestOtherNodesEpoch(t *testing.T) {
	w := newWorld(t, true, "a.example")
	first := w.hubs["a.example"]
	alice := w.person("alice/phone@a.example")
	w.hubs["a.example"] = w.start("a.example", first.source, first.keys)
	adam := w.person("adam/phone@a.example") // at the second
	alice.create(clubhouse, adam)
	adam.until("it is in the room", func() bool { return adam.status(clubhouse) == client.RoomMember })
	for i := range 3 {
		must[*client.Sent](t)(adam.room(clubhouse).Text(t.Context(), fmt.Sprintf("in memory %d", i)))
		now := must[*client.Committed](t)(alice.room(clubhouse).Refresh(t.Context())).Epoch
		adam.until("it has the commit", func() bool { return adam.epoch(clubhouse) == now })
		must[*client.Sent](t)(adam.room(clubhouse).Text(t.Context(), fmt.Sprintf("of the next epoch %d", i)))
	}
	sameOrder(t, []*person{alice, adam}, 6)
}

// sameOrder waits until everybody has so many messages, in one order.
func sameOrder(t *testing.T, people []*person, n int) {
	t.Helper()
	var want string
	for _, p := range people {
		count := 0
		p.until(fmt.Sprintf("it has %d messages", n), func() bool {
			list := must[[]*client.Message](t)(p.room(clubhouse).Messages(t.Context(), noTime))
			count = len(list)
			return count >= n
		})
		got := p.texts(clubhouse)
		if want == "" {
			want = got
		}
		if got != want || count != n {
			t.Errorf("%s has %d messages: %s\nand another: %s", p.name, count, got, want)
		}
	}
}

// Clients that commit at once converge.
func TestCommitsAtOnce(t *testing.T) {
	const clients = 50
	w := newWorld(t, false, "a.example")
	alice := w.person("alice/phone@a.example")
	people := []*person{alice}
	for i := range clients - 1 {
		people = append(people, w.person(fmt.Sprintf("user%d/phone@a.example", i)))
	}
	alice.create(clubhouse, people[1:]...)
	before := w.check(clubhouse).Epoch
	var wg sync.WaitGroup
	for _, p := range people {
		wg.Go(func() {
			if _, err := p.room(clubhouse).Refresh(context.Background()); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		})
	}
	wg.Wait()
	if got := w.check(clubhouse, people...).Epoch; got != before+clients {
		t.Errorf("%d commits brought the room from epoch %d to %d", clients, before, got)
	}
}

// A node fails before or after it stores an update, and starts again: what was
// acknowledged is there, and members and hub agree.
func TestFailuresAroundTheStore(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		n := w.hubs["a.example"]
		random := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		n.SetFault(func(step string) error {
			mu.Lock()
			defer mu.Unlock()
			if random.IntN(3) == 0 {
				return errors.New("the power is out " + step)
			}
			return nil
		})
		acknowledged := 0
		for i := range 6 {
			r := alice.room(clubhouse)
			_, err := r.Refresh(t.Context())
			if err != nil {
				n.Forget() // as a restart does
				ok(t, alice.Sync(t.Context()))
				continue
			}
			acknowledged++
			ok(t, alice.Sync(t.Context()))
			if _, err := bob.room(clubhouse).Text(t.Context(), fmt.Sprint(i)); err != nil {
				ok(t, bob.Sync(t.Context()))
			}
		}
		n.SetFault(nil)
		ok(t, alice.room(clubhouse).Resume(t.Context()))
		if i := w.check(clubhouse, alice, bob); i.Epoch < uint64(acknowledged) {
			t.Errorf("%d commits were acknowledged and the room is in epoch %d", acknowledged, i.Epoch)
		}
	})
}

// A node that was stopped goes on where it was, and a follower that was away
// gets what it missed, in order.
func TestRestart(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		away := w.hubs["b.example"]
		w.net.Name("b.example", "") // nobody reaches it
		for i := range 3 {
			alice.say(clubhouse, fmt.Sprint(i))
		}
		must[*client.Committed](t)(alice.room(clubhouse).Refresh(t.Context()))
		alice.say(clubhouse, "3")
		a := w.hubs["a.example"]
		before := w.check(clubhouse)
		a.stop()
		w.hubs["a.example"] = w.start("a.example", a.source, a.keys)
		after := must[*provider.Inspection](t)(w.hubs["a.example"].Inspect(t.Context(), uri(t, clubhouse)))
		if before.Context != after.Context || before.LastAccepted != after.LastAccepted {
			t.Error("the room is another after a restart")
		}
		w.servePeers(away)
		bob.hears(clubhouse, "0 1 2 3")
		bob.nothingRefused()
	})
}
