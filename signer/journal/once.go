package journal

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// trust is what is known of whether the journal can be written. While it is not
// known, nothing goes to a device that is not durable before.
type trust struct {
	begin time.Time
	last  atomic.Int64 // when a write succeeded last, since begin; 0 if one has failed since

	free   func() (octets uint64, known bool) // on the disk
	looked atomic.Int64                       // when that was asked last
	narrow atomic.Bool                        // what it said
}

const (
	trustFor = 10 * time.Second // after a write
	lookEach = time.Second      // at the disk
	minFree  = 64 << 20         // octets on the disk
)

// wrote tells of a write, and what was written.
func (t *trust) wrote(err error, b *batch) {
	switch {
	case err != nil:
		t.last.Store(0)
	case len(b.reservations)+len(b.entries) > 0:
		t.last.Store(int64(time.Since(t.begin)))
	}
}

// now reports whether a write would succeed, as far as can be known before.
func (t *trust) now() bool {
	now := int64(time.Since(t.begin))
	last := t.last.Load()
	return last != 0 && now-last < int64(trustFor) && t.room(now)
}

// room reports whether the disk, if it is one of this machine, has room.
func (t *trust) room(now int64) bool {
	if was := t.looked.Load(); (was == 0 || now-was >= int64(lookEach)) && t.looked.CompareAndSwap(was, now) {
		octets, known := t.free()
		t.narrow.Store(known && octets < minFree)
	}
	return !t.narrow.Load()
}

// holds are the idempotency keys of reservations of this process that are not
// durable: a second request with one is told to come back.
type holds struct {
	mu  sync.Mutex // guards all
	all map[idemKey]*hold
}

type hold struct {
	key   idemKey
	taken time.Time
}

// take takes a key, or returns nil if another has it.
func (h *holds) take(k idemKey, now time.Time) *hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[k] != nil {
		return nil
	}
	if h.all == nil {
		h.all = make(map[idemKey]*hold)
	}
	h.all[k] = &hold{k, now}
	return h.all[k]
}

func (h *holds) release(one *hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[one.key] == one { // it may have expired, and another have the key
		delete(h.all, one.key)
	}
}

// expire releases what was taken before.
func (h *holds) expire(before time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, one := range h.all {
		if one.taken.Before(before) {
			delete(h.all, k)
		}
	}
}

// used are the idempotency keys that this process used of late, by a hash. Only
// for those the database is asked before the device works: its pages would be
// read anew after each commit. Of an older one, and of another process's, the
// commit finds the answer that was recorded, and the signature is dropped.
type used struct {
	seed maphash.Seed

	mu       sync.Mutex // guards the rest
	now, old map[uint64]struct{}
}

const maxUsed = 1 << 16 // in each of the two

func (u *used) add(k idemKey) {
	h := maphash.Comparable(u.seed, k)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.now == nil || len(u.now) >= maxUsed {
		u.now, u.old = make(map[uint64]struct{}), u.now
	}
	u.now[h] = struct{}{}
}

// has reports whether a key was used; it errs now and then for one that was not.
func (u *used) has(k idemKey) bool {
	h := maphash.Comparable(u.seed, k)
	u.mu.Lock()
	defer u.mu.Unlock()
	_, now := u.now[h]
	_, old := u.old[h]
	return now || old
}

// marks are epochs which the guard's marks have reached for good: on the disk,
// with nothing that could take them back. For a message of such an epoch a
// reservation would write nothing that counts. Marks only go on, whichever node
// brings them, so that what is known here holds however old it is.
type marks struct {
	mu  sync.Mutex // guards all
	all map[[32]byte]Number
}

const maxMarks = 8192 // then they are learned anew

// stand reports whether the guard's marks are where the claims would bring them.
func (m *marks) stand(claims []Claim) bool {
	if len(claims) == 0 {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range claims {
		c := &claims[i]
		at, known := m.all[c.Scope]
		if !known || c.Content != nil {
			return false
		}
		if way := c.Number.Compare(at); way != 0 && !(c.Observe && way > 0) {
			return false
		}
	}
	return true
}

// learn takes the marks from a batch that is on the disk.
func (m *marks) learn(b *batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for scope, k := range b.marks {
		if k.kind != KindEpoch || !k.exists || k.owner != 0 && !b.stays[k.owner] {
			continue
		}
		if len(m.all) >= maxMarks {
			m.all = nil
		}
		if m.all == nil {
			m.all = make(map[[32]byte]Number)
		}
		m.all[scope] = k.number
	}
}
