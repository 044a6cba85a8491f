package httpbody

import "sync"

// A Budget bounds the octets of bodies that are in memory at one time: those of
// each sender, and those of all together. It is safe for concurrent use.
type Budget struct {
	all, each int64

	mu   sync.Mutex // guards what follows
	used int64
	by   map[string]int64
}

// NewBudget returns a budget of so many octets for all senders, and for each.
func NewBudget(all, each int64) *Budget {
	return &Budget{all: all, each: each, by: make(map[string]int64)}
}

// Take takes octets for a body of a sender before it is read, or reports that
// there are too few left. release, which may be called once, gives them back when
// the body is not needed any more.
func (b *Budget) Take(sender string, octets int64) (release func(), ok bool) {
	if octets <= 0 {
		return func() {}, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if octets > b.all-b.used || octets > b.each-b.by[sender] {
		return nil, false
	}
	b.used += octets
	b.by[sender] += octets
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.used -= octets
		if b.by[sender] -= octets; b.by[sender] == 0 {
			delete(b.by, sender)
		}
	}, true
}

// Announced returns how many octets to take for a body: as many as its sender
// announces, or the most that is read of it.
func Announced(length, most int64) int64 {
	if length < 0 || length > most {
		return most
	}
	return length
}
