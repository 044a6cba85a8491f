package policy

import (
	"github.com/privyseal/privyseal/mimi"
)

// A roster is a participant list that finds a user by name and by index, and
// loses one from the middle, without touching the others: removed entries keep
// their slot until the next rebuild, and a Fenwick tree counts the live ones.
type roster struct {
	slots []slot
	tree  []int // Fenwick tree over slots; tree[0] is not used
	at    map[mimi.URI]int
}

type slot struct {
	pair   mimi.UserRolePair
	leaves []uint32 // of the user's clients
	live   bool
}

func newRoster(pairs []mimi.UserRolePair) roster {
	r := roster{tree: make([]int, 1, len(pairs)+1), at: make(map[mimi.URI]int, len(pairs))}
	for _, p := range pairs {
		r.add(p)
	}
	return r
}

// size returns the number of participants.
func (r *roster) size() int { return len(r.at) }

// find returns the entry of a user, or nil.
func (r *roster) find(user mimi.URI) *slot {
	if i, ok := r.at[user]; ok {
		return &r.slots[i]
	}
	return nil
}

// nth returns the entry at an index of the list, or nil.
func (r *roster) nth(index uint32) *slot {
	if int64(index) >= int64(r.size()) {
		return nil
	}
	rest, pos := int(index)+1, 0
	for step := highBit(len(r.slots)); step > 0; step >>= 1 {
		if next := pos + step; next <= len(r.slots) && r.tree[next] < rest {
			pos, rest = next, rest-r.tree[next]
		}
	}
	return &r.slots[pos]
}

// index returns the position of a user in the list.
func (r *roster) index(user mimi.URI) (uint32, bool) {
	i, ok := r.at[user]
	if !ok {
		return 0, false
	}
	n := 0
	for ; i > 0; i -= i & -i {
		n += r.tree[i]
	}
	return uint32(n), true
}

// add appends a user who is not in the list.
func (r *roster) add(p mimi.UserRolePair) {
	r.at[p.User] = len(r.slots)
	r.slots = append(r.slots, slot{pair: p, live: true})
	n := len(r.slots)
	sum := 1
	for child := n - 1; child > n-(n&-n); child -= child & -child {
		sum += r.tree[child]
	}
	r.tree = append(r.tree, sum)
}

// remove takes a user who is in the list out of it.
func (r *roster) remove(user mimi.URI) {
	i := r.at[user]
	delete(r.at, user)
	r.slots[i] = slot{}
	for n := i + 1; n < len(r.tree); n += n & -n {
		r.tree[n]--
	}
	if dead := len(r.slots) - r.size(); dead > r.size()+64 {
		r.rebuild()
	}
}

func (r *roster) rebuild() {
	old := r.slots
	*r = newRoster(nil)
	for _, s := range old {
		if s.live {
			r.add(s.pair)
			r.slots[len(r.slots)-1].leaves = s.leaves
		}
	}
}

// pairs returns the list.
func (r *roster) pairs() []mimi.UserRolePair {
	list := make([]mimi.UserRolePair, 0, r.size())
	for i := range r.slots {
		if r.slots[i].live {
			list = append(list, r.slots[i].pair)
		}
	}
	return list
}

// highBit returns the largest power of two that is at most n, or 0.
func highBit(n int) int {
	bit := 0
	for b := 1; b <= n; b <<= 1 {
		bit = b
	}
	return bit
}
