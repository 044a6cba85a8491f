package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
)

var errCrash = errors.New("crash on purpose")

// crashAt makes the nth write fail, before or after it took effect, and all
// that follow: the process is as good as dead.
func crashAt(n int, after bool) (fault func(bool) error, crashed func() bool) {
	var mu sync.Mutex
	writes, dead := 0, false
	return func(now bool) error {
			mu.Lock()
			defer mu.Unlock()
			if !now && !dead {
				writes++
			}
			if dead = dead || writes == n && now == after; dead {
				return errCrash
			}
			return nil
		}, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return dead
		}
}

// A script is what bob does while his process is killed at some write. Each
// part is tried again after the crash if it is not done.
type script struct {
	name string
	run  func(t *testing.T, alice, bob *person) error
}

var scripts = []script{
	{"send", func(t *testing.T, _, bob *person) error {
		_, err := bob.room(clubhouse).Text(t.Context(), "from bob")
		return err
	}},
	{"receive", func(t *testing.T, alice, bob *person) error {
		alice.say(clubhouse, "one")
		alice.say(clubhouse, "two")
		must[any](t)(alice.room(clubhouse).Refresh(t.Context()))
		alice.say(clubhouse, "three")
		return bob.Sync(t.Context())
	}},
	{"commit", func(t *testing.T, _, bob *person) error {
		_, err := bob.room(clubhouse).Refresh(t.Context())
		return err
	}},
	{"rejoin", func(t *testing.T, alice, bob *person) error {
		must[any](t)(alice.room(clubhouse).Kick(t.Context(), bob.User(), bob.URI()))
		if err := bob.Sync(t.Context()); err != nil {
			return err
		}
		_, err := bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{})
		return err
	}},
	{"leave", func(t *testing.T, alice, bob *person) error {
		if _, err := bob.room(clubhouse).Leave(t.Context()); err != nil {
			return err
		}
		alice.sync()
		alice.say(clubhouse, "bye")
		return bob.Sync(t.Context())
	}},
}

// Bob's process dies before or after each of its writes, and is started again.
// Whatever came of the script, nothing that the hub accepted is lost or there
// twice, no generation is used twice, and the members agree.
func TestCrashAtEveryWrite(t *testing.T) {
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			for n := 1; ; n++ {
				for _, after := range []bool{false, true} {
					if !crashRun(t, s, n, after) {
						if n == 1 {
							t.Fatal("the script writes nothing")
						}
						t.Logf("killed at %d writes", n-1)
						return
					}
				}
			}
		})
	}
}

// crashRun reports whether there was an nth write.
func crashRun(t *testing.T, s script, n int, after bool) bool {
	t.Helper()
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
	alice.create(clubhouse, bob)
	fault, crashed := crashAt(n, after)
	bob.SetFault(fault)
	err := s.run(t, alice, bob)
	if !crashed() {
		ok(t, err)
		return false
	}
	bob.Client.Close()
	bob.open()
	bob.sync()
	if r, err := bob.Room(t.Context(), uri(t, clubhouse)); err == nil {
		if status, _ := r.Status(); status == client.RoomMember {
			must[any](t)(r.Text(t.Context(), "after the crash"))
		}
	}
	check(t, fmt.Sprintf("%s, write %d, after %v", s.name, n, after), h, alice, bob)
	return true
}

// check is the checker of the whole state.
func check(t *testing.T, what string, h *clienttest.Hub, people ...*person) {
	t.Helper()
	var present []*person
	for _, p := range people {
		p.sync()
		p.sync()
		p.nothingRefused()
		if n := must[int](t)(p.Waiting()); n > 0 {
			t.Errorf("%s: %d messages wait at %s", what, n, p.name)
		}
		r, err := p.Room(t.Context(), uri(t, clubhouse))
		if err != nil {
			continue
		}
		switch status, detail := r.Status(); status {
		case client.RoomMember:
			present = append(present, p)
		case client.RoomLost:
			t.Errorf("%s: %s has lost the room: %s", what, p.name, detail)
		}
	}
	agree(t, h, clubhouse, present...)
	if len(present) < 2 || strings.HasPrefix(what, "rejoin") { // who was away has not heard all
		return
	}
	want := present[0].texts(clubhouse)
	for _, p := range present[1:] {
		if got := p.texts(clubhouse); got != want {
			t.Errorf("%s: %s has %q, %s has %q", what, present[0].name, want, p.name, got)
		}
	}
	words := strings.Fields(want)
	slices.Sort(words)
	if t.Failed() {
		t.Fatalf("%s failed", what)
	}
}

// An answer that is lost after the hub accepted the request is asked for
// again, or comes as an event.
func TestLostAnswers(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	f := clienttest.NewFaults(1)
	alice := newPerson(t, h, "alice/phone@a.example", wrapped(f))
	bob := newPerson(t, h, "bob/tablet@b.example")
	alice.create(clubhouse, bob)
	posts := func(r *http.Request) bool { return r.Method == http.MethodPost }
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	f.LoseAnswers(posts)
	if _, err := alice.room(clubhouse).Text(ctx, "accepted all the same"); !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("sending: %v", err)
	}
	f.LoseAnswers(nil)
	bob.sync()
	bob.wantTexts(clubhouse, "message:accepted all the same")
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	f.LoseAnswers(posts)
	if _, err := alice.room(clubhouse).Refresh(ctx); !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("committing: %v", err)
	}
	f.LoseAnswers(nil)
	alice.restart()
	check(t, "lost answers", h, alice, bob)
	alice.wantTexts(clubhouse, "message:accepted all the same")
}

// Requests and answers are lost, late and doubled while everybody talks and
// commits: whatever is acknowledged reaches all, once and in one order.
func TestUnreliableNetwork(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example", "c.example")
	var people []*person
	for i, name := range []string{"alice/phone@a.example", "bob/tablet@b.example", "cathy/laptop@c.example"} {
		f := clienttest.NewFaults(uint64(i))
		p := newPerson(t, h, name, wrapped(f))
		f.Drop, f.Answer, f.Twice, f.Delay = 0.1, 0.1, 0.1, 3*time.Millisecond
		people = append(people, p)
	}
	people[0].createPatiently(clubhouse, people[1:]...)
	acknowledged := make(map[string]bool)
	var mu sync.Mutex // guards acknowledged
	var wg sync.WaitGroup
	for _, p := range people {
		wg.Go(func() {
			for i := range 15 {
				if i%5 == 4 {
					p.retry(func() error { _, err := p.room(clubhouse).Refresh(t.Context()); return err })
				}
				text := fmt.Sprintf("%s-%d", p.name, i)
				p.retry(func() error { return p.Sync(t.Context()) })
				if _, err := p.room(clubhouse).Text(t.Context(), text); err == nil {
					mu.Lock()
					acknowledged[text] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	for range 3 {
		for _, p := range people {
			p.retry(func() error { return p.Sync(t.Context()) })
		}
	}
	texts := people[0].texts(clubhouse)
	for text := range acknowledged {
		if n := strings.Count(texts+" ", ":"+text+" "); n != 1 {
			t.Errorf("%s is there %d times", text, n)
		}
	}
	for _, p := range people {
		p.wantTexts(clubhouse, texts)
		p.wantStatus(clubhouse, client.RoomMember)
	}
	agree(t, h, clubhouse, people...)
}

func (p *person) retry(f func() error) {
	var err error
	for range 50 {
		if err = f(); err == nil {
			return
		}
	}
	p.t.Errorf("%s: %v", p.name, err)
}

func (p *person) createPatiently(room string, others ...*person) {
	p.t.Helper()
	p.retry(func() error {
		_, err := p.CreateRoom(p.t.Context(), uri(p.t, room), client.RoomOptions{})
		if errors.Is(err, client.ErrUnknownOutcome) {
			return p.Sync(p.t.Context())
		}
		return err
	})
	for _, o := range others {
		p.retry(func() error {
			_, err := p.room(room).Add(p.t.Context(), o.User(), client.AddOptions{})
			if errors.Is(err, client.ErrUnknownOutcome) {
				return p.Sync(p.t.Context())
			}
			return err
		})
		p.t.Helper()
		o.retry(func() error { return o.Sync(o.t.Context()) })
	}
}
