package policy

import (
	"maps"
	"slices"

	"github.com/privyseal/privyseal/mimi"
)

// An Effect is what an allowed action would do to the State that judged it.
type Effect struct {
	state   *State
	version uint64

	rows  []Row
	entry int // preauthorisation entry by which the joiner joins, or -1

	roles    []mimi.UserRolePair // changed, with the new role
	removed  []mimi.URI
	added    []mimi.UserRolePair
	dropped  []uint32 // leaves
	updated  []Leaf
	joined   []Client // in the order in which they get leaves
	values   map[ComponentID][]byte
	gone     []ComponentID
	policies policies // of the room as it would be
}

// Rows returns the rows by which the action was allowed, each once, in the order
// in which they were met.
func (e *Effect) Rows() []Row { return slices.Clone(e.rows) }

// Entry returns the index of the preauthorisation entry by which the joiner
// joins or the participant gets its own role, or false.
func (e *Effect) Entry() (int, bool) { return e.entry, e.entry >= 0 }

// Silenced returns the users who are removed or banned. A hub stops their
// clients at once, even before the proposals are committed.
func (e *Effect) Silenced() []mimi.URI {
	users := slices.Clone(e.removed)
	for _, p := range e.roles {
		if p.Role == mimi.RoleBanned {
			users = append(users, p.User)
		}
	}
	return users
}

// Roles returns who gets which role: the users who come onto the list, and the
// participants whose role changes.
func (e *Effect) Roles() []mimi.UserRolePair { return slices.Concat(e.roles, e.added) }

// Value returns the new value of a component other than the participant list,
// and whether the action changes it. The value of a component that is removed is
// nil.
func (e *Effect) Value(id ComponentID) ([]byte, bool) {
	v, ok := e.values[id]
	return slices.Clone(v), ok || slices.Contains(e.gone, id)
}

// Components returns the components other than the participant list that the
// action changes, in ascending order.
func (e *Effect) Components() []ComponentID {
	ids := append(slices.Collect(maps.Keys(e.values)), e.gone...)
	slices.Sort(ids)
	return ids
}

func (e *Effect) met(row Row) {
	if !slices.Contains(e.rows, row) {
		e.rows = append(e.rows, row)
	}
}

// Apply carries the effect of a commit out. It fails with ErrStale, and does
// nothing, unless Authorize made the effect from this State and nothing was
// applied since. Its cost does not grow with the room, apart from what a longer
// list costs in logarithm.
func (s *State) Apply(e *Effect) error {
	if e == nil || e.state != s || e.version != s.version {
		return ErrStale
	}
	s.version++
	for _, leaf := range e.dropped {
		s.dropLeaf(leaf)
	}
	for _, l := range e.updated {
		s.seat(s.leaves[l.Index].URI, -1)
		s.leaves[l.Index] = l.Client
		s.seat(l.URI, 1)
	}
	s.applyList(e)
	for _, c := range e.joined {
		s.addLeaf(Leaf{s.takeLeaf(), c})
	}
	s.policies = e.policies
	maps.Copy(s.values, e.values)
	for _, id := range e.gone {
		delete(s.values, id)
	}
	return nil
}

func (s *State) applyList(e *Effect) {
	for _, p := range e.roles {
		entry := s.roster.find(p.User)
		active := min(len(entry.leaves), 1)
		s.recount(entry.pair.Role, -1, -active)
		s.recount(p.Role, 1, active)
		entry.pair.Role = p.Role
	}
	for _, user := range e.removed {
		s.recount(s.roster.find(user).pair.Role, -1, 0)
		s.roster.remove(user)
	}
	for _, p := range e.added {
		s.roster.add(p)
		s.recount(p.Role, 1, 0)
	}
}
