package signer

import (
	"context"
	"sync"
	"time"
)

// burstTime is how long the signatures of a burst rely on one look at the key.
const burstTime = 10 * time.Millisecond

// A burst keeps what signatures that were asked for together have read about
// their key.
type burst struct {
	mu   sync.Mutex // guards the rest
	seen *standing
	at   time.Time // when the read of seen began
}

// Burst returns a copy of s for signatures that were asked for together. A
// Signer reads before each signature what may have changed about its key, here
// or in another process: that it was rotated or destroyed, or a device marked
// suspect. The copy does so before the first, and then for whatever begins more
// than 10 ms after the last look, or after a failure.
func (s *Signer) Burst() *Signer {
	c := *s
	c.burst = new(burst)
	return &c
}

// mayUse is Keyring.mayUse, or what it said to another of the burst.
func (s *Signer) mayUse(ctx context.Context) (standing, error) {
	if s.burst == nil {
		return s.ring.mayUse(ctx, s.key, s.v)
	}
	begin := time.Now()
	if seen := s.burst.fresh(begin); seen != nil {
		return *seen, ctx.Err()
	}
	now, err := s.ring.mayUse(ctx, s.key, s.v)
	if err == nil {
		s.burst.keep(&now, begin)
	}
	return now, err
}

func (b *burst) fresh(now time.Time) *standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen == nil || now.Sub(b.at) > burstTime {
		return nil
	}
	return b.seen
}

// keep keeps the newest look; nil for none.
func (b *burst) keep(seen *standing, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !at.Before(b.at) {
		b.seen, b.at = seen, at
	}
}
