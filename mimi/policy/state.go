package policy

import (
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/mimi"
)

// Errors of a State.
var (
	ErrState = errors.New("policy: the room is not a consistent one")
	ErrStale = errors.New("policy: the effect is of another state; judge the action again")
)

// MaxLeaves bounds the leaf indices of a group.
const MaxLeaves = 1 << 20

// A Parent is the parent of a parent-dependant room.
type Parent interface {
	Has(user mimi.URI) bool // and is not banned there
	Len() int               // participants, without the banned
}

// A Config says how a State judges. Its zero value is a hub's.
type Config struct {
	// Member makes it the judgement of a client: the hub alone has seen the join
	// code, and a client need not know the parent room.
	Member bool
	// Parent is the parent room's participants. A hub needs it to let anybody
	// into a parent-dependant room.
	Parent Parent
	// Envelope refuses component values that the provider does not accept (the
	// policy envelope of draft-ietf-mimi-arch). It is asked last, must be a pure
	// function, and is for hubs.
	Envelope func(ComponentID, []byte) error
	// HubRemoves lets the room's hub propose to remove clients (row 6) and
	// participants with all their clients (row 3) without a preauthorised role.
	// It must, to remove a device whose credential was revoked and to finish a
	// leave that an external commit has cut in two. All ends of the room must
	// agree.
	HubRemoves bool
	// PendingPreference and SelfRoleChanges let the room have our own
	// components. All ends of the room must agree.
	PendingPreference bool
	SelfRoleChanges   bool
}

// A Room is a room as the GroupContext and the ratchet tree tell it.
type Room struct {
	URI mimi.URI
	// Components is the app_data_dictionary. It has at least participant_list,
	// roles_list and base_room_policy.
	Components map[ComponentID][]byte
	Leaves     []Leaf
}

// A State is a room in one epoch, with the indices that make judging cheap. It
// must not be used by several goroutines while Apply runs.
type State struct {
	config  Config
	room    mimi.URI
	version uint64

	values   map[ComponentID][]byte // without participant_list
	policies policies

	roster roster
	leaves map[uint32]Client
	seats  map[mimi.URI]int // leaves of each client
	free   leafHeap         // holes among the leaves
	next   uint32           // first leaf that was never used
	counts map[mimi.RoleIndex]count
	users  int // participants who are not banned
}

// policies are the decoded values of the components that judging looks at.
type policies struct {
	roles    map[mimi.RoleIndex]*Role
	preauth  *PreAuthData
	base     *BaseRoomPolicy
	ops      *OperationalParameters
	metadata *mimi.RoomMetaData
	links    *JoinLinksData
	history  *HistoryPolicy
	bots     *BotPolicy
	self     *SelfRoleChanges
}

// A count is how many participants have a role, and how many of them have
// clients in the group.
type count struct{ participants, active int }

// NewState returns the state of a room.
func NewState(config Config, room Room) (*State, error) {
	if room.URI.Kind() != mimi.KindRoom {
		return nil, fmt.Errorf("%w: %q is not the URI of a room", ErrState, room.URI)
	}
	s := &State{
		config: config, room: room.URI,
		values: make(map[ComponentID][]byte), leaves: make(map[uint32]Client), seats: make(map[mimi.URI]int), counts: make(map[mimi.RoleIndex]count),
	}
	if err := s.loadComponents(room.Components); err != nil {
		return nil, err
	}
	if err := s.loadList(room.Components[ComponentParticipantList]); err != nil {
		return nil, err
	}
	return s, s.loadLeaves(room.Leaves)
}

func (s *State) loadComponents(values map[ComponentID][]byte) error {
	for _, id := range []ComponentID{ComponentParticipantList, ComponentRoles, ComponentBase} {
		if _, ok := values[id]; !ok {
			return fmt.Errorf("%w: it has no %s", ErrState, id)
		}
	}
	for id, value := range values {
		if id == ComponentParticipantList {
			continue
		}
		v, err := s.parse(id, value)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		s.values[id] = slices.Clone(value)
		s.policies.set(id, v)
	}
	return nil
}

// parse decodes a component's value. Components that this package does not know
// are kept as they are.
func (s *State) parse(id ComponentID, value []byte) (any, error) {
	if _, ok := privateComponents[id]; ok && !s.enabled(id) {
		return nil, nil
	}
	v, err := ParseComponent(id, value)
	if err != nil && !s.knows(id) {
		return nil, nil
	}
	return v, err
}

func (s *State) enabled(id ComponentID) bool {
	return id == ComponentPendingPreference && s.config.PendingPreference || id == ComponentSelfRoleChanges && s.config.SelfRoleChanges
}

func (s *State) knows(id ComponentID) bool {
	_, ordinary := components[id]
	_, of := special[id]
	return ordinary || of || s.enabled(id)
}

// set puts a decoded value, or nil for one that is removed.
func (p *policies) set(id ComponentID, v any) {
	switch id {
	case ComponentRoles:
		p.roles = make(map[mimi.RoleIndex]*Role)
		data := v.(*RoleData)
		for i := range data.Roles {
			p.roles[data.Roles[i].Index] = &data.Roles[i]
		}
	case ComponentBase:
		p.base = v.(*BaseRoomPolicy)
	case ComponentPreauth:
		p.preauth, _ = v.(*PreAuthData)
	case ComponentOperational:
		p.ops, _ = v.(*OperationalParameters)
	case ComponentRoomMetadata:
		p.metadata, _ = v.(*mimi.RoomMetaData)
	case ComponentJoinLinks:
		p.links, _ = v.(*JoinLinksData)
	case ComponentHistory:
		p.history, _ = v.(*HistoryPolicy)
	case ComponentBots:
		p.bots, _ = v.(*BotPolicy)
	case ComponentSelfRoleChanges:
		p.self, _ = v.(*SelfRoleChanges)
	}
}

// externalCommits and externalProposals say what mls_operational_policy allows.
// A room without that component allows both, which MIMI is built on.
func (p *policies) externalCommits() bool   { return p.ops == nil || p.ops.ExternalCommitAllowed }
func (p *policies) externalProposals() bool { return p.ops == nil || p.ops.ExternalProposalAllowed }

func (s *State) loadList(value []byte) error {
	list, err := mimi.ParseParticipantListData(value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	for _, p := range list.Participants {
		if p.Role == mimi.RoleNone || s.policies.roles[p.Role] == nil {
			return fmt.Errorf("%w: %s has role %d, which is not defined", ErrState, p.User, p.Role)
		}
	}
	s.roster = newRoster(list.Participants)
	for _, p := range list.Participants {
		s.recount(p.Role, 1, 0)
	}
	return nil
}

func (s *State) loadLeaves(leaves []Leaf) error {
	for _, l := range leaves {
		if l.Index >= MaxLeaves {
			return fmt.Errorf("%w: leaf %d, want less than %d", ErrState, l.Index, MaxLeaves)
		}
		if _, taken := s.leaves[l.Index]; taken {
			return fmt.Errorf("%w: leaf %d is there twice", ErrState, l.Index)
		}
		if s.roster.find(l.User) == nil {
			return fmt.Errorf("%w: leaf %d is of %s, who does not participate", ErrState, l.Index, l.User)
		}
		s.addLeaf(l)
		s.next = max(s.next, l.Index+1)
	}
	for i := range s.next {
		if _, taken := s.leaves[i]; !taken {
			s.free = append(s.free, i)
		}
	}
	heap.Init(&s.free)
	return nil
}

// recount adds to the counts of a role.
func (s *State) recount(role mimi.RoleIndex, participants, active int) {
	c := s.counts[role]
	s.counts[role] = count{c.participants + participants, c.active + active}
	if role != mimi.RoleBanned {
		s.users += participants
	}
}

func (s *State) addLeaf(l Leaf) {
	e := s.roster.find(l.User)
	if len(e.leaves) == 0 {
		s.recount(e.pair.Role, 0, 1)
	}
	e.leaves = append(e.leaves, l.Index)
	s.leaves[l.Index] = l.Client
	s.seat(l.URI, 1)
}

// seat adds to the number of leaves of a client.
func (s *State) seat(client mimi.URI, n int) {
	if n += s.seats[client]; n > 0 {
		s.seats[client] = n
	} else {
		delete(s.seats, client)
	}
}

func (s *State) dropLeaf(i uint32) {
	e := s.roster.find(s.leaves[i].User)
	e.leaves = slices.DeleteFunc(e.leaves, func(l uint32) bool { return l == i })
	if len(e.leaves) == 0 {
		s.recount(e.pair.Role, 0, -1)
	}
	s.seat(s.leaves[i].URI, -1)
	delete(s.leaves, i)
	heap.Push(&s.free, i)
}

// takeLeaf returns the leftmost leaf that is free (RFC 9420 section 7.7).
func (s *State) takeLeaf() uint32 {
	if len(s.free) > 0 {
		return heap.Pop(&s.free).(uint32)
	}
	s.next++
	return s.next - 1
}

// leafHeap is a container/heap of leaf indices, least first.
type leafHeap []uint32

func (h leafHeap) Len() int           { return len(h) }
func (h leafHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h leafHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *leafHeap) Push(x any)        { *h = append(*h, x.(uint32)) }
func (h *leafHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// Room returns the room's URI.
func (s *State) Room() mimi.URI { return s.room }

// RoleOf returns a user's role, or RoleNone.
func (s *State) RoleOf(user mimi.URI) mimi.RoleIndex {
	if e := s.roster.find(user); e != nil {
		return e.pair.Role
	}
	return mimi.RoleNone
}

// Role returns a role of the room, or nil.
func (s *State) Role(i mimi.RoleIndex) *Role { return s.policies.roles[i] }

// Participants returns the number of participants, the banned among them.
func (s *State) Participants() int { return s.roster.size() }

// Index returns a user's position in the participant list, by which updates
// refer to it.
func (s *State) Index(user mimi.URI) (uint32, bool) { return s.roster.index(user) }

// LeavesOf returns the leaves of a user's clients.
func (s *State) LeavesOf(user mimi.URI) []uint32 {
	if e := s.roster.find(user); e != nil {
		return slices.Clone(e.leaves)
	}
	return nil
}

// Client returns the identity of a leaf.
func (s *State) Client(leaf uint32) (Client, bool) {
	c, ok := s.leaves[leaf]
	return c, ok
}

// OneLeafEach refuses a room in which a client has more than one leaf
// (CheckDuplicate). A State is made of such a room too, so that who is in it can
// still put it right: Authorize only lets no such leaf come.
func (s *State) OneLeafEach() error {
	if len(s.seats) == len(s.leaves) {
		return nil
	}
	for _, client := range slices.SortedFunc(maps.Keys(s.seats), func(a, b mimi.URI) int { return strings.Compare(a.String(), b.String()) }) {
		if refusal := duplicate(client, s.seats[client]); refusal != nil {
			return refusal
		}
	}
	return nil
}

// duplicate refuses that a client has more than one leaf.
func duplicate(client mimi.URI, leaves int) *Refusal {
	if leaves <= 1 || client.IsZero() {
		return nil
	}
	return constraint(CheckDuplicate, 0, "%s would have %d leaves in the group, and a client has one", client, leaves)
}

// Counts returns how many participants have a role, and how many of them have
// clients in the group.
func (s *State) Counts(role mimi.RoleIndex) (participants, active int) {
	c := s.counts[role]
	return c.participants, c.active
}

// ParticipantList returns the participant list.
func (s *State) ParticipantList() *mimi.ParticipantListData {
	return &mimi.ParticipantListData{Participants: s.roster.pairs()}
}

// Value returns the value of a component, as it stands in the
// app_data_dictionary.
func (s *State) Value(id ComponentID) ([]byte, bool) {
	if id == ComponentParticipantList {
		return s.ParticipantList().Marshal(), true
	}
	v, ok := s.values[id]
	return slices.Clone(v), ok
}
