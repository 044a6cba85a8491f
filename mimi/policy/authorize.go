package policy

import (
	"fmt"

	"github.com/privyseal/privyseal/mimi"
)

// Authorize judges an action in a state, which it does not change. It returns
// what the action would do, or a *Refusal.
//
// Roles and policies are those at the start of the epoch; the constraints of the
// room are those of the room as it would be afterwards.
func Authorize(s *State, a Action) (*Effect, error) {
	j := newJudge(s)
	if refusal := j.action(a); refusal != nil {
		return nil, refusal
	}
	return j.effect, nil
}

func newJudge(s *State) *judge {
	return &judge{
		s: s, effect: &Effect{state: s, version: s.version, entry: -1, policies: s.policies},
		matches: make(map[partyKey]int), groups: make(map[groupKey]*group), tallies: make(map[mimi.URI]*tally), dropped: make(map[uint32]bool),
	}
}

// A judge works on one action.
type judge struct {
	s      *State
	effect *Effect

	code      JoinCode
	committer *party

	matches map[partyKey]int // preauthorisation entries, or -1
	order   []*group         // in the order of their first proposal
	groups  map[groupKey]*group
	touched []*tally // in the order of their first proposal
	tallies map[mimi.URI]*tally
	dropped map[uint32]bool
	deltas  map[mimi.RoleIndex]count // of the roles whose counts may change
	updates []update                 // of components other than the participant list
	links   []*JoinLinksUpdate
	others  []other
}

// A party is an actor with its effective role.
type party struct {
	Actor
	user        mimi.URI
	role        *Role // nil without one
	participant bool
	hub         bool
}

// A partyKey tells parties apart whose credentials may differ: the leaves of one
// user, and the external senders of one provider.
type partyKey struct {
	sender     Sender
	leaf       uint32
	user       mimi.URI
	credential *Credential // the first
}

func (p *party) key() partyKey {
	k := partyKey{sender: p.Sender, leaf: p.Leaf, user: p.user}
	if len(p.Credentials) > 0 {
		k.credential = &p.Credentials[0]
	}
	return k
}

// A group is everything that one actor does to one user. A user that acts
// through a member and by an external commit is two actors, and so are two
// external senders of one user with different roles.
type group struct {
	by       *party
	tally    *tally
	change   *change
	adds     []Client
	removals []uint32
	joins    bool // the external commit's own leaf is among adds
	proposes bool // a KeyPackage that proposes itself is among adds
}

type groupKey struct {
	by     mimi.URI
	sender Sender
	role   *Role
	user   mimi.URI
}

// A change is what happens to a user in the participant list, and who proposes
// it.
type change struct {
	by       *party
	from, to mimi.RoleIndex
}

// A tally is what all actors together do to one user.
type tally struct {
	user          mimi.URI
	entry         *slot // nil for one who does not participate
	change        *change
	leaves, after int // of the user's clients, before and after
}

// An update is a component update and who stands for it.
type update struct {
	by *party
	AppDataUpdate
}

// An other is a proposal that concerns no user.
type other struct {
	by *party
	Proposal
}

func (j *judge) action(a Action) *Refusal {
	switch a := a.(type) {
	case *Commit:
		return j.commit(a)
	case *Bundle:
		return j.proposals(a.Proposals)
	case *Message:
		return j.message(a)
	case *Delivery:
		return j.delivery(a)
	case *Deed:
		return j.deed(a)
	}
	return &Refusal{Row: RowOther, Check: CheckUnclassified, Detail: "the action is none that is known"}
}

func (j *judge) commit(c *Commit) *Refusal {
	by, refusal := j.party(c.Committer)
	if refusal != nil {
		return refusal
	}
	j.committer, j.code = by, c.Code
	switch c.Committer.Sender {
	case Member:
		if by.role == nil || by.role.inert() {
			return j.inert(by)
		}
		if refusal := j.path(by, c.Path); refusal != nil {
			return refusal
		}
	case NewMemberCommit:
		if by.participant && by.role.inert() {
			return j.inert(by)
		}
		g := j.group(by, by.user)
		g.adds, g.joins = append(g.adds, Client{by.user, by.Client}), true
		g.tally.after++
	default:
		return by.refuse(RowMLS, CheckSender, by.user, "only members and joiners commit")
	}
	return j.proposals(c.Proposals)
}

func (j *judge) proposals(list []Proposed) *Refusal {
	if refusal := j.expand(list); refusal != nil {
		return refusal
	}
	j.joined(list)
	for _, g := range j.order {
		if refusal := j.judgeGroup(g); refusal != nil {
			return refusal
		}
	}
	if refusal := j.judgeUpdates(); refusal != nil {
		return refusal
	}
	for i := range j.others {
		if refusal := j.judgeOther(&j.others[i]); refusal != nil {
			return refusal
		}
	}
	return j.room()
}

// party attributes an action to a user and finds its effective role: that of the
// participant list, or else that of the first preauthorisation entry that an
// external sender matches.
func (j *judge) party(a Actor) (*party, *Refusal) {
	p := &party{Actor: a, user: a.User}
	switch a.Sender {
	case Member:
		c, ok := j.s.leaves[a.Leaf]
		if !ok {
			return nil, &Refusal{Row: RowAttribute, Check: CheckLeaf, Detail: fmt.Sprintf("leaf %d is not in the group", a.Leaf)}
		}
		p.user, p.Client = c.User, c.URI
	case External, NewMemberProposal, NewMemberCommit:
		if a.User.IsZero() {
			return nil, &Refusal{Row: RowAttribute, Check: CheckSender, Detail: "the sender has no identity"}
		}
	default:
		return nil, &Refusal{Row: RowAttribute, Check: CheckSender, Detail: "the sender type is unknown"}
	}
	if entry := j.s.roster.find(p.user); entry != nil {
		p.participant, p.role = true, j.s.policies.roles[entry.pair.Role]
	}
	if a.Sender == External {
		return p, j.external(p)
	}
	return p, nil
}

func (j *judge) external(p *party) *Refusal {
	p.hub = p.user == j.s.room.Provider()
	if !j.s.policies.externalProposals() {
		return p.refuse(RowActor, CheckExternalProposal, p.user, "the room takes no external proposals")
	}
	if p.participant {
		return nil
	}
	if i := j.match(p); i >= 0 {
		p.role = j.s.policies.roles[j.s.policies.preauth.PreauthorizedEntries[i].TargetRole.Index]
	}
	if p.role == nil && !p.hub {
		return p.refuse(RowActor, CheckNoRole, p.user, "the external sender is preauthorised for no role")
	}
	return nil
}

// match returns the first preauthorisation entry that the party matches, or -1.
// It looks once for each party, however many proposals the party makes.
func (j *judge) match(p *party) int {
	if j.s.policies.preauth == nil {
		return -1
	}
	key := p.key()
	i, known := j.matches[key]
	if !known {
		i = j.s.policies.preauth.Match(p.Credentials)
		j.matches[key] = i
	}
	return i
}

func (j *judge) inert(p *party) *Refusal {
	if p.role == nil {
		return p.refuse(RowActor, CheckNoRole, p.user, "")
	}
	r := p.refuse(RowActor, CheckInert, p.user, fmt.Sprintf("role %d may only remove its own clients", p.role.Index))
	r.Role = p.role.Index
	return r
}

func (p *party) refuse(row Row, check Check, user mimi.URI, detail string) *Refusal {
	return &Refusal{Row: row, Check: check, Actor: p.user, User: user, Detail: detail}
}

// needs refuses a party whose role lacks a capability.
func (p *party) needs(row Row, c Capability, user mimi.URI) *Refusal {
	if p.role != nil && p.role.Has(c) {
		return nil
	}
	check, detail := CheckCapability, ""
	if p.role == nil {
		check, detail = CheckNoRole, "the actor has no role in the room"
	}
	r := p.refuse(row, check, user, detail)
	r.Capability = c
	return r
}

// mayChange refuses a party whose role has no such transition.
func (p *party) mayChange(row Row, from, to mimi.RoleIndex, user mimi.URI) *Refusal {
	if p.role != nil && p.role.MayChange(from, to) {
		return nil
	}
	r := p.refuse(row, CheckRoleChange, user, fmt.Sprintf("no change from role %d to role %d", from, to))
	r.Role = to
	return r
}
