package policy

import (
	"fmt"

	"github.com/privyseal/privyseal/mimi"
)

// expand sorts proposals by who does what to whom.
func (j *judge) expand(list []Proposed) *Refusal {
	for i := range list {
		by, refusal := j.party(list[i].By)
		if refusal != nil {
			return refusal
		}
		if refusal := j.expandOne(by, list[i].Proposal); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (j *judge) expandOne(by *party, proposal Proposal) *Refusal {
	if by.role != nil && by.role.inert() && !j.ownRemoval(by, proposal) {
		return j.inert(by)
	}
	if by.Sender == NewMemberCommit && !j.isCommitter(by) {
		return by.refuse(RowAttribute, CheckSender, by.user, "only the committer of an external commit is a new member of it")
	}
	switch p := proposal.(type) {
	case Add:
		return j.expandAdd(by, p.Client)
	case Remove:
		return j.expandRemove(by, p.Leaf)
	case SelfRemove:
		if by.Sender != Member {
			return by.refuse(RowClassify, CheckSender, by.user, "only a member removes itself")
		}
		return j.expandRemove(by, by.Leaf)
	case AppDataUpdate:
		if p.Component == ComponentParticipantList {
			return j.expandList(by, p)
		}
		j.updates = append(j.updates, update{by, p})
	default:
		j.others = append(j.others, other{by, proposal})
	}
	return nil
}

func (j *judge) isCommitter(p *party) bool {
	return j.committer != nil && j.committer.Sender == p.Sender && j.committer.user == p.user
}

// ownRemoval reports whether a proposal does nothing but remove a client of its
// proposer.
func (j *judge) ownRemoval(by *party, proposal Proposal) bool {
	switch p := proposal.(type) {
	case SelfRemove:
		return true
	case Remove:
		c, ok := j.s.leaves[p.Leaf]
		return ok && c.User == by.user
	}
	return false
}

func (j *judge) expandAdd(by *party, c Client) *Refusal {
	if by.Sender == NewMemberProposal && c.User != by.user {
		return by.refuse(RowOwnClient, CheckOwnLeaf, c.User, "a KeyPackage proposes only itself")
	}
	g := j.group(by, c.User)
	g.adds = append(g.adds, c)
	g.proposes = g.proposes || by.Sender == NewMemberProposal
	g.tally.after++
	return nil
}

func (j *judge) expandRemove(by *party, leaf uint32) *Refusal {
	c, ok := j.s.leaves[leaf]
	if !ok || j.dropped[leaf] {
		return by.refuse(RowClassify, CheckLeaf, by.user, fmt.Sprintf("leaf %d is not in the group, or removed twice", leaf))
	}
	if j.committer != nil && j.committer.Sender == Member && j.committer.Leaf == leaf {
		return by.refuse(RowMLS, CheckOwnRemoval, c.User, "nobody commits the removal of its own leaf")
	}
	if by.Sender == NewMemberCommit && (c.User != by.user || c.URI != by.Client) {
		return by.refuse(RowOwnClient, CheckOwnLeaf, c.User, fmt.Sprintf("leaf %d is not an old one of the joiner", leaf))
	}
	j.dropped[leaf] = true
	j.effect.dropped = append(j.effect.dropped, leaf)
	g := j.group(by, c.User)
	g.removals = append(g.removals, leaf)
	g.tally.after--
	return nil
}

// expandList takes a participant list update apart. Its indices mean the list as
// it was when the epoch began.
func (j *judge) expandList(by *party, p AppDataUpdate) *Refusal {
	if p.Remove {
		return by.refuse(RowPolicy, CheckNeeded, by.user, "participant_list cannot be removed")
	}
	u, err := mimi.ParseParticipantListUpdate(p.Update)
	if err != nil {
		return by.refuse(RowClassify, CheckListUpdate, by.user, err.Error())
	}
	if len(u.ChangedRoleParticipants)+len(u.RemovedIndices)+len(u.AddedParticipants) == 0 {
		return by.refuse(RowClassify, CheckListUpdate, by.user, "the update is empty")
	}
	for _, c := range u.ChangedRoleParticipants {
		if c.Role == mimi.RoleNone {
			return by.refuse(RowClassify, CheckListUpdate, mimi.URI{}, "role 0 cannot be given; a removal is one by its index")
		}
		if refusal := j.listEntry(by, c.UserIndex, c.Role); refusal != nil {
			return refusal
		}
	}
	for _, i := range u.RemovedIndices {
		if refusal := j.listEntry(by, i, mimi.RoleNone); refusal != nil {
			return refusal
		}
	}
	for _, a := range u.AddedParticipants {
		if refusal := j.listAddition(by, a); refusal != nil {
			return refusal
		}
	}
	return nil
}

// listEntry notes the change of an entry to another role, or its removal.
func (j *judge) listEntry(by *party, index uint32, to mimi.RoleIndex) *Refusal {
	entry := j.s.roster.nth(index)
	if entry == nil {
		return by.refuse(RowClassify, CheckListUpdate, mimi.URI{}, fmt.Sprintf("participant %d is not in the list of %d", index, j.s.roster.size()))
	}
	user, from := entry.pair.User, entry.pair.Role
	if from == to {
		return by.refuse(RowClassify, CheckListUpdate, user, fmt.Sprintf("the user has role %d already", to))
	}
	if to == mimi.RoleNone {
		j.effect.removed = append(j.effect.removed, user)
	} else {
		j.effect.roles = append(j.effect.roles, mimi.UserRolePair{User: user, Role: to})
	}
	return j.noteChange(by, user, change{by, from, to})
}

func (j *judge) listAddition(by *party, a mimi.UserRolePair) *Refusal {
	if j.s.roster.find(a.User) != nil {
		return by.refuse(RowClassify, CheckListUpdate, a.User, "the user is in the list")
	}
	if a.Role == mimi.RoleNone {
		return by.refuse(RowClassify, CheckListUpdate, a.User, "role 0 cannot be given")
	}
	j.effect.added = append(j.effect.added, a)
	return j.noteChange(by, a.User, change{by, mimi.RoleNone, a.Role})
}

func (j *judge) noteChange(by *party, user mimi.URI, c change) *Refusal {
	if c.to != mimi.RoleNone && j.s.policies.roles[c.to] == nil {
		if c.to == mimi.RoleBanned {
			return by.refuse(RowBan, CheckBannedRole, user, "the room has no role 1")
		}
		return by.refuse(RowClassify, CheckListUpdate, user, fmt.Sprintf("role %d is not defined", c.to))
	}
	g := j.group(by, user)
	if g.tally.change != nil {
		return by.refuse(RowRoom, CheckUserTwice, user, "the commit changes the user twice")
	}
	g.change, g.tally.change = &c, &c
	return nil
}

// group returns what an actor does to a user.
func (j *judge) group(by *party, user mimi.URI) *group {
	key := groupKey{by.user, by.Sender, by.role, user}
	g := j.groups[key]
	if g == nil {
		g = &group{by: by, tally: j.tally(user)}
		j.groups[key] = g
		j.order = append(j.order, g)
	}
	return g
}

func (j *judge) tally(user mimi.URI) *tally {
	t := j.tallies[user]
	if t == nil {
		t = &tally{user: user, entry: j.s.roster.find(user)}
		if t.entry != nil {
			t.leaves = len(t.entry.leaves)
			t.after = t.leaves
		}
		j.tallies[user] = t
		j.touched = append(j.touched, t)
	}
	return t
}

// before and now return the user's role before and after.
func (t *tally) before() mimi.RoleIndex {
	if t.entry == nil {
		return mimi.RoleNone
	}
	return t.entry.pair.Role
}

func (t *tally) now() mimi.RoleIndex {
	if t.change != nil {
		return t.change.to
	}
	return t.before()
}

func (g *group) own() bool { return g.by.user == g.tally.user }

// joined notes the leaves that a group adds, in the order of the commit. The
// leaf of an external commit comes last.
func (j *judge) joined(list []Proposed) {
	for _, p := range list {
		if a, ok := p.Proposal.(Add); ok {
			j.effect.joined = append(j.effect.joined, a.Client)
		}
	}
	if c := j.committer; c != nil && c.Sender == NewMemberCommit {
		j.effect.joined = append(j.effect.joined, Client{c.user, c.Client})
	}
}
