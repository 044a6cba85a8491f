package tpm

import (
	"context"
	"sync"
)

// A quota hands out a fixed number of units, first come first served, to
// callers who wait no longer than their context.
type quota struct {
	mu      sync.Mutex // guards the fields below
	size    int
	used    int
	waiting []*quotaWaiter
}

type quotaWaiter struct {
	n     int
	ready chan struct{} // closed when the units are the waiter's
}

func newQuota(size int) *quota { return &quota{size: size} }

// acquire takes n units, which must not be more than there are.
func (q *quota) acquire(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	if len(q.waiting) == 0 && q.used+n <= q.size {
		q.used += n
		q.mu.Unlock()
		return nil
	}
	w := &quotaWaiter{n: n, ready: make(chan struct{})}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		q.abandon(w)
		return ctx.Err()
	}
}

// abandon takes a waiter out of the line, or gives back what it was granted
// in the same moment.
func (q *quota) abandon(w *quotaWaiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, x := range q.waiting {
		if x == w {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			q.grant()
			return
		}
	}
	q.used -= w.n
	q.grant()
}

func (q *quota) release(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= n
	q.grant()
}

// retire takes n units that were acquired out of what there is, for good.
func (q *quota) retire(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= n
	q.size -= n
}

// grant serves the head of the line as long as there is enough for it. The
// caller holds mu.
func (q *quota) grant() {
	for len(q.waiting) > 0 && q.used+q.waiting[0].n <= q.size {
		w := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.used += w.n
		close(w.ready)
	}
}
