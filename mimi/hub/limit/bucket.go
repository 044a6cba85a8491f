package limit

import (
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// A Rate is how many calls pass: PerSecond in the long run, and Burst at once.
// The zero Rate lets everything pass.
type Rate struct {
	PerSecond float64
	Burst     float64
}

const (
	maxKeys = 1 << 16 // that have a bucket of their own
	shared  = 1 << 8  // buckets for the keys beyond
	looks   = 8       // buckets that are looked at for one to reuse
)

// Buckets are token buckets by key.
//
// A bucket that has filled up says nothing and makes room for another key. If
// an attacker with many keys leaves no such bucket, further keys share a few:
// they are slowed down together, and nobody's spent bucket is forgotten.
type Buckets struct {
	rate Rate
	now  func() time.Time
	seed maphash.Seed

	mu     sync.Mutex // guards what follows
	own    map[string]*bucket
	common [shared]bucket
}

// A bucket holds tokens as of a time. The zero bucket is full.
type bucket struct {
	spent float64 // tokens that are missing
	at    time.Time
}

// NewBuckets returns buckets of one rate. now is nil for time.Now.
func NewBuckets(rate Rate, now func() time.Time) *Buckets {
	if now == nil {
		now = time.Now
	}
	return &Buckets{rate: rate, now: now, seed: maphash.MakeSeed(), own: make(map[string]*bucket)}
}

// Take takes one token for a key, or returns the time until there is one.
func (b *Buckets) Take(key string) (wait time.Duration, ok bool) {
	if b.rate.PerSecond <= 0 {
		return 0, true
	}
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.of(key, now)
	b.refill(t, now)
	if missing := t.spent + 1 - b.rate.Burst; missing > 0 {
		return time.Duration(math.Ceil(missing / b.rate.PerSecond * float64(time.Second))), false
	}
	t.spent++
	return 0, true
}

func (b *Buckets) refill(t *bucket, now time.Time) {
	if elapsed := now.Sub(t.at); elapsed > 0 {
		t.spent = max(0, t.spent-elapsed.Seconds()*b.rate.PerSecond)
		t.at = now
	}
}

func (b *Buckets) of(key string, now time.Time) *bucket {
	if t, ok := b.own[key]; ok {
		return t
	}
	if len(b.own) < maxKeys || b.evict(now) {
		t := &bucket{at: now}
		b.own[key] = t
		return t
	}
	return &b.common[maphash.String(b.seed, key)%shared]
}

// evict drops one bucket that is full. Maps are ranged over in random order, so
// that each call looks at others.
func (b *Buckets) evict(now time.Time) bool {
	seen := 0
	for key, t := range b.own {
		if b.refill(t, now); t.spent == 0 {
			delete(b.own, key)
			return true
		}
		if seen++; seen == looks {
			break
		}
	}
	return false
}
