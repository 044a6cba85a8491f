package tpm

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestQuota(t *testing.T) {
	q := newQuota(3)
	ctx, cancel := context.WithCancel(t.Context())
	if err := errors.Join(q.acquire(ctx, 2), q.acquire(ctx, 1)); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error)
	go func() { refused <- q.acquire(ctx, 3) }()
	waitFor(q, 1)
	granted := make(chan error)
	go func() { granted <- q.acquire(t.Context(), 1) }()
	waitFor(q, 2)
	q.release(1) // not enough for the first in line, so the second waits too
	select {
	case <-granted:
		t.Fatal("the line was jumped")
	default:
	}
	cancel()
	if err := <-refused; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := <-granted; err != nil {
		t.Errorf("next in line: %v", err)
	}
	q.release(2)
	q.release(1)
	if q.used != 0 || len(q.waiting) != 0 {
		t.Errorf("%d in use, %d waiting", q.used, len(q.waiting))
	}
	if err := q.acquire(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

func waitFor(q *quota, waiting int) {
	for {
		q.mu.Lock()
		n := len(q.waiting)
		q.mu.Unlock()
		if n == waiting {
			return
		}
	}
}

// TestQuotaNeverExceeded has many callers take and give back, some of them
// giving up.
func TestQuotaNeverExceeded(t *testing.T) {
	q := newQuota(3)
	var mu sync.Mutex
	var used int
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		if used += n; used > 3 {
			t.Error("more units in use than there are")
		}
	}
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			for n := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if n%3 == 0 {
					go cancel()
				}
				units := 1 + (i+n)%3
				if q.acquire(ctx, units) == nil {
					count(units)
					count(-units)
					q.release(units)
				}
				cancel()
			}
		})
	}
	group.Wait()
	if q.used != 0 || len(q.waiting) != 0 {
		t.Errorf("%d in use, %d waiting", q.used, len(q.waiting))
	}
}
