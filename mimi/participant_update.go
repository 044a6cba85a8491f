package mimi

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// UpdateParticipants is ParseParticipantListData, Apply and Marshal in one, for
// an encoded list that was parsed when it came: a commit in a room of thousands
// touches a few of them, and what it does not touch is copied as it is. list is
// walked to its end, but its URIs are not judged again.
func UpdateParticipants(list []byte, knownRole func(RoleIndex) bool, updates ...*ParticipantListUpdate) ([]byte, error) {
	w := walk{touched: make(map[uint32]entryAt), added: make(map[string]bool)}
	for _, u := range updates {
		w.look(u)
	}
	if err := w.run(list); err != nil {
		return nil, err
	}
	a := applier{size: w.size, roleOf: func(i uint32) RoleIndex { return w.touched[i].role }, known: knownRole, roles: make(map[uint32]RoleIndex), removed: make(map[uint32]bool)}
	for _, u := range updates {
		if err := a.collect(u); err != nil {
			return nil, err
		}
	}
	if err := w.addable(&a); err != nil {
		return nil, err
	}
	return w.splice(&a), nil
}

// A walk goes over an encoded list and notes what an update is about.
type walk struct {
	body    []byte // the list without its length
	size    int    // participants
	touched map[uint32]entryAt
	added   map[string]bool // users to add; true: in the list
	ends    [256]bool       // last octets of the users to add
}

// An entryAt is where a participant stands in the body, and its role.
type entryAt struct {
	from, to int
	role     RoleIndex
}

// look notes what a walk must find.
func (w *walk) look(u *ParticipantListUpdate) {
	for _, c := range u.ChangedRoleParticipants {
		w.touched[c.UserIndex] = entryAt{}
	}
	for _, i := range u.RemovedIndices {
		w.touched[i] = entryAt{}
	}
	for _, p := range u.AddedParticipants {
		s := p.User.String()
		w.added[s] = false
		if s != "" {
			w.ends[s[len(s)-1]] = true
		}
	}
}

func (w *walk) run(list []byte) error {
	outer := tlsvec.NewReader(list)
	w.body = outer.Vector()
	if err := outer.Done(); err != nil {
		return fmt.Errorf("mimi: ParticipantListData: %w", err)
	}
	for at := 0; at < len(w.body); w.size++ {
		user, end, err := entry(w.body, at)
		if err != nil {
			return fmt.Errorf("mimi: ParticipantListData: participant %d: %w", w.size, err)
		}
		if w.seeks(user) {
			w.added[string(user)] = true
		}
		if len(w.touched) > 0 {
			if _, ok := w.touched[uint32(w.size)]; ok {
				w.touched[uint32(w.size)] = entryAt{at, end, RoleIndex(binary.BigEndian.Uint32(w.body[end-4:]))}
			}
		}
		at = end
	}
	return nil
}

// seeks reports whether a user is one of those to add.
func (w *walk) seeks(user []byte) bool {
	n := len(user)
	if n == 0 || !w.ends[user[n-1]] { // most are told apart so
		return false
	}
	_, ok := w.added[string(user)]
	return ok
}

// entry returns the user of the participant at an offset of the body, and where
// the participant ends.
func entry(body []byte, at int) (user []byte, end int, err error) {
	if n := int(body[at]); n < 64 { // the length is in one octet
		if end = at + 1 + n + 4; end <= len(body) {
			return body[at+1 : at+1+n], end, nil
		}
	}
	r := tlsvec.NewReader(body[at:])
	user = r.Vector()
	r.Uint32()
	return user, at + r.Pos(), r.Err()
}

// addable checks that those to be added are not there, each once.
func (w *walk) addable(a *applier) error {
	for _, p := range a.added {
		if w.added[p.User.String()] { // a user who is removed cannot be added by the same commit
			return invalidUpdate("%s is in the list, or added twice", p.User)
		}
		w.added[p.User.String()] = true
	}
	if w.size-len(a.removed)+len(a.added) > MaxParticipants {
		return invalidUpdate("more than %d participants", MaxParticipants)
	}
	return nil
}

// splice writes the next list.
func (w *walk) splice(a *applier) []byte {
	var tail tlsvec.Builder
	for _, p := range a.added {
		p.append(&tail)
	}
	n := len(w.body) + tail.Len()
	order := make([]uint32, 0, len(w.touched))
	for i := range w.touched {
		order = append(order, i)
		if a.removed[i] {
			n -= w.touched[i].to - w.touched[i].from
		}
	}
	slices.Sort(order)
	out := tlsvec.NewBuilder(n + 4)
	out.Raw(tlsvec.AppendLength(nil, n))
	next := 0
	for _, i := range order {
		e := w.touched[i]
		if a.removed[i] {
			out.Raw(w.body[next:e.from])
		} else { // the role is the last of an entry
			out.Raw(w.body[next : e.to-4])
			out.Raw(binary.BigEndian.AppendUint32(nil, uint32(a.roles[i])))
		}
		next = e.to
	}
	out.Raw(w.body[next:])
	out.Raw(tail.Bytes())
	return out.Bytes()
}
