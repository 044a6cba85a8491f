package signer

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

// sharedReads has those who want the same thing at the same time read it once.
// A value that is handed out was read after it was asked for: whoever comes
// while a read is under way gets the result of the next one. So nobody sees
// less than with a read of its own. The zero value works.
type sharedReads[K comparable, V any] struct {
	start func(func()) // has a read done; on a new goroutine if nil, so that who asked can leave

	mu  sync.Mutex // guards all
	all map[K]*reading[V]
}

// A reading is what is going on for one key.
type reading[V any] struct {
	next *read[V] // has not begun; may be joined
	last *read[V] // the newest that has begun
}

type read[V any] struct {
	done  chan struct{} // closed when the rest is set
	value V
	err   error
}

// read returns what f reads, after it was called, for this caller or another.
// f must not depend on the caller: its context may end for one and not for the
// others.
func (s *sharedReads[K, V]) read(ctx context.Context, key K, f func() (V, error)) (V, error) {
	if err := ctx.Err(); err != nil {
		var none V
		return none, err
	}
	r, first, before := s.join(key)
	if first {
		do := func() { s.do(key, r, before, f) }
		if s.start != nil {
			s.start(do)
		} else {
			go do()
		}
	}
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// do reads after the read before has ended; until then others join.
func (s *sharedReads[K, V]) do(key K, r, before *read[V], f func() (V, error)) {
	if before != nil {
		<-before.done
	}
	runtime.Gosched() // those who are about to ask join too
	s.begin(key, r)
	defer s.end(key, r)
	r.err = errNotRead
	r.value, r.err = f()
}

// errNotRead is seen where a read ends without a result.
var errNotRead = errors.New("the read came to nothing")

// join returns the read that has not begun yet, made if there is none. The
// first has it done, after the one before.
func (s *sharedReads[K, V]) join(key K) (r *read[V], first bool, before *read[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.all[key]
	if now == nil {
		if s.all == nil {
			s.all = make(map[K]*reading[V])
		}
		now = &reading[V]{}
		s.all[key] = now
	}
	if now.next != nil {
		return now.next, false, nil
	}
	now.next = &read[V]{done: make(chan struct{})}
	return now.next, true, now.last
}

// begin closes a read to those who come from now on.
func (s *sharedReads[K, V]) begin(key K, r *read[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.all[key]
	now.next, now.last = nil, r
}

func (s *sharedReads[K, V]) end(key K, r *read[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(r.done)
	if now := s.all[key]; now.next == nil && now.last == r {
		delete(s.all, key)
	}
}
