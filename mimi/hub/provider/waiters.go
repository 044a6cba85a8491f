package provider

import (
	"sync"

	"github.com/privyseal/privyseal/mimi"
)

// waiters are the requests for events that are open on this node.
type waiters struct {
	mu      sync.Mutex // guards what follows
	rooms   map[int64]map[*waiter]bool
	clients map[mimi.URI]map[*waiter]bool
}

// A waiter is one of them. ready has an element when there may be news.
type waiter struct {
	who   mimi.URI
	rooms []int64
	ready chan struct{}
}

// wait registers a client that hears some rooms. It must be registered before
// it reads what there is, so that nothing falls between.
func (w *waiters) wait(who mimi.URI, rooms []int64) *waiter {
	n := &waiter{who: who, rooms: rooms, ready: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rooms == nil {
		w.rooms, w.clients = make(map[int64]map[*waiter]bool), make(map[mimi.URI]map[*waiter]bool)
	}
	join(w.clients, who, n)
	for _, r := range rooms {
		join(w.rooms, r, n)
	}
	return n
}

func join[K comparable](m map[K]map[*waiter]bool, k K, n *waiter) {
	if m[k] == nil {
		m[k] = make(map[*waiter]bool)
	}
	m[k][n] = true
}

func leave[K comparable](m map[K]map[*waiter]bool, k K, n *waiter) {
	delete(m[k], n)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

func (w *waiters) done(n *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	leave(w.clients, n.who, n)
	for _, r := range n.rooms {
		leave(w.rooms, r, n)
	}
}

func (w *waiters) room(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.rooms[id] {
		n.poke()
	}
}

func (w *waiters) client(u mimi.URI) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.clients[u] {
		n.poke()
	}
}

func (n *waiter) poke() {
	select {
	case n.ready <- struct{}{}:
	default:
	}
}

// announce tells the waiting clients and the workers of this node that a room
// has something new.
func (s *Service) announce(room int64) {
	s.wake.room(room)
	select {
	case s.work <- struct{}{}:
	default:
	}
}
