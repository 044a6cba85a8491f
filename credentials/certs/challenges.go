package certs

import (
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// Challenges gives out nonces to requesters and takes each back once. They are
// kept in memory: after a restart a requester asks for another one. It is safe
// for concurrent use.
type Challenges struct {
	lifetime time.Duration
	most     int
	now      func() time.Time

	mu   sync.Mutex // guards open
	open map[string]time.Time
}

// NewChallenges returns Challenges that live for the given time; 0 means five
// minutes. At most so many are open at once; 0 means 10,000. now may be nil.
func NewChallenges(lifetime time.Duration, most int, now func() time.Time) *Challenges {
	if lifetime <= 0 {
		lifetime = 5 * time.Minute
	}
	if most <= 0 {
		most = 10_000
	}
	if now == nil {
		now = time.Now
	}
	return &Challenges{lifetime: lifetime, most: most, now: now, open: map[string]time.Time{}}
}

// New returns a fresh nonce, or an error if too many are open.
func (c *Challenges) New() ([]byte, error) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.most {
		c.sweep(now)
	}
	if len(c.open) >= c.most {
		return nil, credentials.Errorf(credentials.CodeNonce, "challenge", "%d challenges are open; try again later", c.most)
	}
	nonce := NewNonce()
	c.open[string(nonce)] = now.Add(c.lifetime)
	return nonce, nil
}

// sweep drops the challenges that have ended. The caller holds mu.
func (c *Challenges) sweep(now time.Time) {
	for nonce, end := range c.open {
		if !now.Before(end) {
			delete(c.open, nonce)
		}
	}
}

// Redeem takes a nonce back. It fails with code nonce if the nonce was not
// given out, has ended, or was redeemed before.
func (c *Challenges) Redeem(nonce []byte) error {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	end, ok := c.open[string(nonce)]
	delete(c.open, string(nonce))
	if !ok || !now.Before(end) {
		return credentials.Errorf(credentials.CodeNonce, "challenge", "not an open challenge; ask for a new one and sign again")
	}
	return nil
}
