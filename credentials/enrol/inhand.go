package enrol

import (
	"sync"
	"time"
)

// codesInHand are the codes that enrolments of this process use. A code is spent
// in the commit that has its credential, which for a certificate is after the
// signature. So that a code makes the process sign once, it is in one enrolment's
// hand from before it is looked up until it is spent.
type codesInHand struct {
	mu    sync.Mutex
	until map[string]time.Time // by hash; zero while the enrolment is under way
}

// take reports whether nobody has the code. Who took it gives it back, or keeps it.
func (c *codesInHand) take(hash string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.until[hash]; taken {
		return false
	}
	if c.until == nil {
		c.until = make(map[string]time.Time)
	}
	c.until[hash] = time.Time{}
	return true
}

// giveBack lets others have the code, unless it is kept.
func (c *codesInHand) giveBack(hash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until[hash].IsZero() {
		delete(c.until, hash)
	}
}

// keep lets nobody have the code any more: it has made the device sign, and whether
// it is spent is not known. No code is good for longer than MaxCodeLifetime.
func (c *codesInHand) keep(hash string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, until := range c.until { // few: each is a commit that failed
		if !until.IsZero() && now.After(until) {
			delete(c.until, other)
		}
	}
	c.until[hash] = now.Add(MaxCodeLifetime)
}
