package sdjwt

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Why MemoryNonces refuses a nonce.
var (
	ErrNonceUsed  = errors.New("the nonce was used before")
	ErrNoncesFull = errors.New("too many nonces are remembered; try again when some have expired")
)

// MemoryNonces is a NonceGuard for one process: it remembers the nonces that
// were used, and refuses them until they are too old to matter. The zero value
// works.
type MemoryNonces struct {
	Max int              // how many are remembered at most; default 100,000
	Now func() time.Time // default time.Now

	mu    sync.Mutex // guards used and swept
	used  map[string]time.Time
	swept time.Time
}

// sweepEvery is how often expired nonces are looked for.
const sweepEvery = 10 * time.Second

// Use implements NonceGuard. When Max nonces are remembered it refuses new
// ones rather than forget one that could be replayed.
func (m *MemoryNonces) Use(_ context.Context, nonce string, until time.Time) error {
	now := time.Now
	if m.Now != nil {
		now = m.Now
	}
	limit := m.Max
	if limit == 0 {
		limit = 100_000
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used == nil {
		m.used = make(map[string]time.Time)
	}
	if _, again := m.used[nonce]; again {
		return ErrNonceUsed
	}
	if t := now(); len(m.used) >= limit || t.Sub(m.swept) > sweepEvery {
		m.sweep(t)
	}
	if len(m.used) >= limit {
		return ErrNoncesFull
	}
	m.used[nonce] = until
	return nil
}

func (m *MemoryNonces) sweep(now time.Time) {
	m.swept = now
	for nonce, until := range m.used {
		if !until.IsZero() && until.Before(now) {
			delete(m.used, nonce)
		}
	}
}
