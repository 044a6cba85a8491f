package signer

import (
	"context"
	"sync"
	"time"
)

// burstTime is how long the signatures of a burst rely on one look at the key.
const burstTime = 10 * time.Millisecond

// A burst keeps what uses of a key that were asked for together have read about it.
type burst struct {
	mu   sync.Mutex // guards the rest
	seen *standing
	at   time.Time // when the read of seen began
}

// Burst returns a copy of s for signatures that were asked for together, or that
// follow each other without end. A Signer reads before each signature what may have
// changed about its key, here or in another process: that it was rotated or
// destroyed, or a device marked suspect. The copy does so before the first, and then
// for whatever begins more than 10 ms after the last look, or after a failure.
func (s *Signer) Burst() *Signer {
	c := *s
	c.burst = new(burst)
	return &c
}

// Burst returns a copy of m for MACs that were asked for together, or that follow
// each other without end; see [Signer.Burst].
func (m *MAC) Burst() *MAC {
	c := *m
	c.burst = new(burst)
	return &c
}

// mayUse is Keyring.mayUse, or what it said to another of the burst. Without a burst
// everybody looks.
func (b *burst) mayUse(ctx context.Context, ring *Keyring, key *Key, v *Version) (standing, error) {
	if b == nil {
		return ring.mayUse(ctx, key, v)
	}
	begin := time.Now()
	if seen := b.fresh(begin); seen != nil {
		return *seen, ctx.Err()
	}
	now, err := ring.mayUse(ctx, key, v)
	if err == nil {
		b.keep(&now, begin)
	}
	return now, err
}

// Look has the bursts of several keys look at their keys at once, in one read. A
// key that it does not find fit for use, and all if the read fails, are looked at
// before they are used, which says why.
func (k *Keyring) Look(ctx context.Context, bursts []*Signer) {
	var ids []KeyID
	for _, s := range bursts {
		if s.burst != nil {
			ids = append(ids, s.key.ID)
		}
	}
	begin := time.Now()
	all, err := k.store.standingsOf(ctx, ids)
	if err != nil {
		return
	}
	for _, s := range bursts {
		now, known := all[versionRef{s.key.ID, s.v.Number}]
		if s.burst != nil && known && mayBeUsed(now) {
			s.burst.keep(&now, begin)
		}
	}
}

// failed has the next one look anew.
func (b *burst) failed() {
	if b != nil {
		b.keep(nil, time.Now())
	}
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
