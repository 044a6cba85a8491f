package client_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
)

// Fifty clients commit at once. Each of them gets its commit in, after those
// of others.
func TestFiftyCommitAtOnce(t *testing.T) {
	const clients = 50
	h := clienttest.NewHub(t, "a.example")
	first := newPerson(t, h, "user/0@a.example")
	people := []*person{first}
	for i := 1; i < clients; i++ {
		people = append(people, newPerson(t, h, fmt.Sprintf("user/%d@a.example", i), func(c *client.Config) { c.KeyPackages = 1 }))
	}
	r := first.create(clubhouse)
	must[any](t)(r.AddOwnClients(t.Context()))
	for _, p := range people {
		p.sync()
	}
	start := h.Room(r.URI()).Epoch()
	begin := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex // guards tries
	tries := 0
	for _, p := range people {
		wg.Go(func() {
			c, err := p.room(clubhouse).Refresh(t.Context())
			if err != nil {
				t.Errorf("%s: %v", p.name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			tries += c.Tries
		})
	}
	wg.Wait()
	t.Logf("%d commits with %d tries in %v", clients, tries, time.Since(begin).Round(time.Millisecond))
	if now := h.Room(r.URI()).Epoch(); now != start+clients {
		t.Errorf("the room is in epoch %d, want %d", now, start+clients)
	}
	for _, p := range people {
		p.sync()
		p.nothingRefused()
	}
	agree(t, h, clubhouse, people...)
}
