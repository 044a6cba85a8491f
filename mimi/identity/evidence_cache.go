package identity

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// An evidenceCache keeps proofs by what they were made of. It is bounded, and
// drops any when full: what is lost is work, not truth.
type evidenceCache struct {
	mu   sync.Mutex // guards kept
	most int
	kept map[[sha256.Size]byte]*proof
}

// cacheKey names a verification: all that its result depends on.
func cacheKey(generation uint64, q *Question) [sha256.Size]byte {
	var b tlsvec.Builder
	b.Uint64(generation)
	b.Uint16(uint16(q.Suite))
	b.Uint8(uint8(q.Role))
	b.Optional(q.AnyKey)
	b.Uint16(uint16(q.Credential.Type))
	b.Vector(q.Credential.Body)
	b.Vector(q.SignatureKey)
	b.String(q.Room.String())
	b.String(q.Voucher)
	return sha256.Sum256(b.Bytes())
}

func (c *evidenceCache) get(key [sha256.Size]byte) *proof {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept[key]
}

func (c *evidenceCache) put(key [sha256.Size]byte, p *proof) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = make(map[[sha256.Size]byte]*proof)
	}
	for other := range c.kept {
		if len(c.kept) < c.most {
			break
		}
		delete(c.kept, other)
	}
	c.kept[key] = p
}

// firstSeen remembers since when the revocation of a credential cannot be
// learned.
type firstSeen struct {
	mu    sync.Mutex // guards since
	since map[[sha256.Size]byte]time.Time
}

const maxFirstSeen = 1 << 16

// longer notes that id is without an answer at a time, and reports whether it
// has been so for longer than grace.
func (f *firstSeen) longer(id [sha256.Size]byte, at time.Time, grace time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, known := f.since[id]
	if !known || at.Before(first) { // or the clock was ahead
		if f.since == nil || len(f.since) >= maxFirstSeen {
			f.since = map[[sha256.Size]byte]time.Time{}
		}
		f.since[id], first = at, at
	}
	return at.Sub(first) > grace
}

func (f *firstSeen) forget(id [sha256.Size]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.since, id)
}
