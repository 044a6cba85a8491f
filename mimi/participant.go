package mimi

import (
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A RoleIndex names a role of the room's policy. 0 is "not a participant" and
// 1 is "banned" in every room.
type RoleIndex uint32

// The role indices that every room has.
const (
	RoleNone   RoleIndex = 0
	RoleBanned RoleIndex = 1
)

// MaxParticipants bounds a participant list that we take from outside.
const MaxParticipants = 1 << 17

// A UserRolePair is one participant of a room and its one role.
//
//	struct { opaque user<V>; uint32 role_index; } UserRolePair;
type UserRolePair struct {
	User URI // a user, or a pseudonym
	Role RoleIndex
}

// A UserIndexRolePair gives a participant another role.
//
//	struct { uint32 user_index; uint32 role_index; } UserindexRolePair;
type UserIndexRolePair struct {
	UserIndex uint32 // into the list as it was when the epoch began
	Role      RoleIndex
}

// ParticipantListData is the value of component participant_list (0x0022): who
// participates in the room, whether with clients or without, and who is banned.
//
//	struct { UserRolePair participants<V>; } ParticipantListData;
type ParticipantListData struct {
	Participants []UserRolePair // each user once
}

// A ParticipantListUpdate is the update of component participant_list in an
// AppDataUpdate proposal.
//
//	struct {
//	    UserindexRolePair changedRoleParticipants<V>;
//	    uint32 removedIndices<V>;
//	    UserRolePair addedParticipants<V>;
//	} ParticipantListUpdate;
type ParticipantListUpdate struct {
	ChangedRoleParticipants []UserIndexRolePair
	RemovedIndices          []uint32
	AddedParticipants       []UserRolePair
}

// ErrParticipantUpdate is found in the errors of ParticipantListData.Apply.
var ErrParticipantUpdate = errors.New("mimi: participant list update is invalid")

func (p UserRolePair) append(b *tlsvec.Builder) {
	b.String(p.User.String())
	b.Uint32(uint32(p.Role))
}

func readUserRolePair(r *tlsvec.Reader) (p UserRolePair) {
	p.User = readURI(r, KindUser, KindPseudonym)
	p.Role = RoleIndex(r.Uint32())
	return p
}

// readURI reads an IdentifierUri of one of the kinds.
func readURI(r *tlsvec.Reader, kinds ...Kind) URI {
	u, err := ParseURI(string(r.Vector()))
	if r.Err() != nil {
		return URI{}
	}
	if err != nil {
		r.Fail(err.Error())
		return URI{}
	}
	if len(kinds) > 0 && !slices.Contains(kinds, u.Kind()) {
		r.Fail("URI of a " + u.Kind().String())
		return URI{}
	}
	return u
}

// Marshal returns the list's encoding.
func (l *ParticipantListData) Marshal() []byte {
	b := new(tlsvec.Builder)
	b.Nested(func(b *tlsvec.Builder) {
		for _, p := range l.Participants {
			p.append(b)
		}
	})
	return b.Bytes()
}

// ParseParticipantListData decodes a participant list. A user that stands in it
// twice is refused.
func ParseParticipantListData(data []byte) (*ParticipantListData, error) {
	r := tlsvec.NewReader(data)
	l := new(ParticipantListData)
	seen := make(map[URI]bool)
	r.Each(func(r *tlsvec.Reader) {
		p := readUserRolePair(r)
		if r.Err() != nil {
			return
		}
		if seen[p.User] {
			r.Fail("user is in the list twice")
		}
		if len(l.Participants) >= MaxParticipants {
			r.Fail(fmt.Sprintf("more than %d participants", MaxParticipants))
		}
		seen[p.User] = true
		l.Participants = append(l.Participants, p)
	})
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("mimi: ParticipantListData: %w", err)
	}
	return l, nil
}

// Marshal returns the update's encoding.
func (u *ParticipantListUpdate) Marshal() []byte {
	b := new(tlsvec.Builder)
	b.Nested(func(b *tlsvec.Builder) {
		for _, c := range u.ChangedRoleParticipants {
			b.Uint32(c.UserIndex)
			b.Uint32(uint32(c.Role))
		}
	})
	b.Nested(func(b *tlsvec.Builder) {
		for _, i := range u.RemovedIndices {
			b.Uint32(i)
		}
	})
	b.Nested(func(b *tlsvec.Builder) {
		for _, p := range u.AddedParticipants {
			p.append(b)
		}
	})
	return b.Bytes()
}

// ParseParticipantListUpdate decodes an update. What it means for a list is
// judged by Apply.
func ParseParticipantListUpdate(data []byte) (*ParticipantListUpdate, error) {
	r := tlsvec.NewReader(data)
	u := new(ParticipantListUpdate)
	r.Each(func(r *tlsvec.Reader) {
		u.ChangedRoleParticipants = append(u.ChangedRoleParticipants, UserIndexRolePair{r.Uint32(), RoleIndex(r.Uint32())})
	})
	r.Each(func(r *tlsvec.Reader) { u.RemovedIndices = append(u.RemovedIndices, r.Uint32()) })
	r.Each(func(r *tlsvec.Reader) { u.AddedParticipants = append(u.AddedParticipants, readUserRolePair(r)) })
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("mimi: ParticipantListUpdate: %w", err)
	}
	return u, nil
}

// Apply returns the list after the updates of one commit, in commit order.
// Indices mean the list as it was: all role changes are applied, then all
// removals, then all additions. knownRole reports whether the room's policy
// has a role.
//
// An update is invalid if it is empty, names an index that is not in the list,
// touches a user whom this or another update of the commit touches, changes a
// role to what it was, gives a role that is 0 or unknown, or adds a user who is
// in the list.
func (l *ParticipantListData) Apply(knownRole func(RoleIndex) bool, updates ...*ParticipantListUpdate) (*ParticipantListData, error) {
	a := applier{list: l, size: len(l.Participants), roleOf: func(i uint32) RoleIndex { return l.Participants[i].Role }, known: knownRole, roles: make(map[uint32]RoleIndex), removed: make(map[uint32]bool)}
	for _, u := range updates {
		if err := a.collect(u); err != nil {
			return nil, err
		}
	}
	return a.result()
}

type applier struct {
	list    *ParticipantListData // for result
	size    int                  // of the list
	roleOf  func(i uint32) RoleIndex
	known   func(RoleIndex) bool
	roles   map[uint32]RoleIndex
	removed map[uint32]bool
	added   []UserRolePair
}

func invalidUpdate(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrParticipantUpdate}, args...)...)
}

func (a *applier) collect(u *ParticipantListUpdate) error {
	if len(u.ChangedRoleParticipants)+len(u.RemovedIndices)+len(u.AddedParticipants) == 0 {
		return invalidUpdate("it is empty")
	}
	for _, c := range u.ChangedRoleParticipants {
		if err := a.touch(c.UserIndex); err != nil {
			return err
		}
		if err := a.checkRole(c.Role); err != nil {
			return err
		}
		if a.roleOf(c.UserIndex) == c.Role {
			return invalidUpdate("participant %d has role %d already", c.UserIndex, c.Role)
		}
		a.roles[c.UserIndex] = c.Role
	}
	for _, i := range u.RemovedIndices {
		if err := a.touch(i); err != nil {
			return err
		}
		a.removed[i] = true
	}
	for _, p := range u.AddedParticipants {
		if err := a.checkRole(p.Role); err != nil {
			return err
		}
		a.added = append(a.added, p)
	}
	return nil
}

func (a *applier) touch(i uint32) error {
	if int64(i) >= int64(a.size) {
		return invalidUpdate("participant %d is not in the list of %d", i, a.size)
	}
	if _, changed := a.roles[i]; changed || a.removed[i] {
		return invalidUpdate("participant %d is touched twice", i)
	}
	return nil
}

func (a *applier) checkRole(r RoleIndex) error {
	if r == RoleNone || !a.known(r) {
		return invalidUpdate("role %d cannot be given", r)
	}
	return nil
}

func (a *applier) result() (*ParticipantListData, error) {
	next := &ParticipantListData{Participants: make([]UserRolePair, 0, len(a.list.Participants)+len(a.added))}
	present := make(map[URI]bool, cap(next.Participants))
	for i, p := range a.list.Participants {
		present[p.User] = true // a user who is removed cannot be added by the same commit
		if a.removed[uint32(i)] {
			continue
		}
		if role, ok := a.roles[uint32(i)]; ok {
			p.Role = role
		}
		next.Participants = append(next.Participants, p)
	}
	for _, p := range a.added {
		if present[p.User] {
			return nil, invalidUpdate("%s is in the list, or added twice", p.User)
		}
		present[p.User] = true
		next.Participants = append(next.Participants, p)
	}
	if len(next.Participants) > MaxParticipants {
		return nil, invalidUpdate("more than %d participants", MaxParticipants)
	}
	return next, nil
}

// Index returns the position of a user, or false.
func (l *ParticipantListData) Index(user URI) (uint32, bool) {
	i := slices.IndexFunc(l.Participants, func(p UserRolePair) bool { return p.User == user })
	return uint32(max(i, 0)), i >= 0
}

// RoleOf returns the role of a user, which is RoleNone for one who does not
// participate.
func (l *ParticipantListData) RoleOf(user URI) RoleIndex {
	if i, ok := l.Index(user); ok {
		return l.Participants[i].Role
	}
	return RoleNone
}
