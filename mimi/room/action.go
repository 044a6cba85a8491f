package room

import (
	"context"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// Action turns a staged commit into what policy.Authorize judges. before are
// the GroupContext extensions of the epoch that it ends.
func Action(ctx context.Context, staged *mls.StagedCommit, who Identities) (*policy.Commit, error) {
	before, _ := staged.Extensions()
	a := &actors{ctx: ctx, who: who, ext: before, leaf: staged.Before}
	for _, p := range staged.Proposals() {
		a.note(p.Sender, p.Proposal)
	}
	c := new(policy.Commit)
	var err error
	if staged.External() {
		c.Committer, err = a.joiner(staged.Committer().New)
	} else {
		c.Committer = policy.Actor{Sender: policy.Member, Leaf: staged.Sender().Index}
		c.Path, err = a.path(staged.Committer())
	}
	if err != nil {
		return nil, err
	}
	for _, p := range staged.Proposals() {
		by := c.Committer
		if p.ByReference || by.Sender == policy.Member {
			if by, err = a.actor(p.Sender, p.Proposal); err != nil {
				return nil, err
			}
		}
		q, err := a.proposal(p.Proposal)
		if err != nil {
			return nil, err
		}
		c.Proposals = append(c.Proposals, policy.Proposed{By: by, Proposal: q})
	}
	return c, nil
}

// Extends reports whether a commit has a GroupContextExtensions proposal.
func Extends(staged *mls.StagedCommit) bool {
	return slices.ContainsFunc(staged.Proposals(), func(p mls.StagedProposal) bool {
		_, ok := p.Proposal.(*mls.GroupContextExtensions)
		return ok
	})
}

// Bundle turns bare proposals into what policy.Authorize judges as one
// intent. ext are the extensions of the GroupContext, and leaf returns a leaf of
// the group.
func Bundle(ctx context.Context, ext mls.Extensions, leaf func(mls.LeafIndex) *mls.LeafNode, proposals []*mls.VerifiedProposal, who Identities) (*policy.Bundle, error) {
	a := &actors{ctx: ctx, who: who, ext: ext, leaf: leaf}
	for _, v := range proposals {
		a.note(v.Sender(), v.Proposal())
	}
	b := new(policy.Bundle)
	for _, v := range proposals {
		by, err := a.actor(v.Sender(), v.Proposal())
		if err != nil {
			return nil, err
		}
		p, err := a.proposal(v.Proposal())
		if err != nil {
			return nil, err
		}
		b.Proposals = append(b.Proposals, policy.Proposed{By: by, Proposal: p})
	}
	return b, nil
}

// actors finds out who acts.
type actors struct {
	ctx context.Context
	who Identities
	ext mls.Extensions
	// leaf returns a leaf of the group as the epoch began.
	leaf func(mls.LeafIndex) *mls.LeafNode
	// listers are the members who change the participant list.
	listers map[uint32]bool
	// known are the members and external senders that were found out.
	known map[mls.Sender]policy.Actor
}

func (a *actors) note(s mls.Sender, p mls.Proposal) {
	u, ok := p.(*mls.AppDataUpdate)
	if !ok || s.Type != mls.SenderMember || u.Component != mls.ComponentID(policy.ComponentParticipantList) {
		return
	}
	if a.listers == nil {
		a.listers = make(map[uint32]bool)
	}
	a.listers[s.Index] = true
}

// member is a member who proposes. Its credentials count only where it gives
// itself a role for which it is preauthorised (row 10), so that they are asked
// for only if it changes the participant list of a room that has a preauth_list.
func (a *actors) member(s mls.Sender) (policy.Actor, error) {
	actor := policy.Actor{Sender: policy.Member, Leaf: s.Index}
	if !a.listers[s.Index] {
		return actor, nil
	}
	d, err := a.ext.AppData()
	if err != nil {
		return actor, err
	}
	if _, ok := d.Find(mls.ComponentID(policy.ComponentPreauth)); !ok {
		return actor, nil
	}
	if leaf := a.leaf(mls.LeafIndex(s.Index)); leaf != nil {
		actor.Credentials, err = a.who.Credentials(a.ctx, leaf)
	}
	return actor, err
}

func (a *actors) joiner(leaf *mls.LeafNode) (policy.Actor, error) {
	id, err := a.who.Leaf(a.ctx, leaf)
	return policy.Actor{Sender: policy.NewMemberCommit, User: id.User, Client: id.URI, Credentials: id.Credentials}, err
}

// path is the client of a committer's next leaf, if its credential or key
// changes.
func (a *actors) path(r mls.Replaced) (policy.Client, error) {
	if r.New == nil || r.Old != nil && r.New.Credential.Equal(&r.Old.Credential) {
		return policy.Client{}, nil
	}
	id, err := a.who.Leaf(a.ctx, r.New)
	return id.Client, err
}

func (a *actors) actor(s mls.Sender, p mls.Proposal) (policy.Actor, error) {
	switch s.Type {
	case mls.SenderMember:
		return a.once(s, a.member)
	case mls.SenderExternal:
		return a.once(s, a.external)
	case mls.SenderNewMemberProposal:
		add, ok := p.(*mls.Add)
		if !ok {
			return policy.Actor{}, fmt.Errorf("room: a new member proposes type 0x%04x", uint16(p.ProposalType()))
		}
		id, err := a.who.Leaf(a.ctx, add.KeyPackage.LeafNode)
		return policy.Actor{Sender: policy.NewMemberProposal, User: id.User, Client: id.URI, Credentials: id.Credentials}, err
	}
	return policy.Actor{}, fmt.Errorf("room: a proposal of sender type %d", s.Type)
}

// once finds out a sender once, however much it proposes: package policy takes
// the same credentials for one party.
func (a *actors) once(s mls.Sender, find func(mls.Sender) (policy.Actor, error)) (policy.Actor, error) {
	if actor, ok := a.known[s]; ok {
		return actor, nil
	}
	actor, err := find(s)
	if err == nil {
		if a.known == nil {
			a.known = make(map[mls.Sender]policy.Actor)
		}
		a.known[s] = actor
	}
	return actor, err
}

func (a *actors) external(s mls.Sender) (policy.Actor, error) {
	senders, err := a.ext.ExternalSenders()
	if err != nil {
		return policy.Actor{}, err
	}
	if int64(s.Index) >= int64(len(senders)) {
		return policy.Actor{}, fmt.Errorf("room: external sender %d of %d", s.Index, len(senders))
	}
	who, err := a.who.ExternalSender(a.ctx, senders[s.Index])
	return policy.Actor{Sender: policy.External, User: who.URI, Credentials: who.Credentials}, err
}

func (a *actors) proposal(p mls.Proposal) (policy.Proposal, error) {
	switch p := p.(type) {
	case *mls.Add:
		id, err := a.who.Leaf(a.ctx, p.KeyPackage.LeafNode)
		return policy.Add{Client: id.Client}, err
	case *mls.Update:
		id, err := a.who.Leaf(a.ctx, p.LeafNode)
		return policy.Update{Client: id.Client}, err
	case *mls.Remove:
		return policy.Remove{Leaf: uint32(p.Removed)}, nil
	case *mls.SelfRemove:
		return policy.SelfRemove{}, nil
	case *mls.PreSharedKey:
		return policy.PreSharedKey{}, nil
	case *mls.ReInit:
		return policy.ReInit{}, nil
	case *mls.ExternalInit:
		return policy.ExternalInit{}, nil
	case *mls.GroupContextExtensions:
		return policy.GroupContextExtensions{}, nil
	case *mls.AppDataUpdate:
		return policy.AppDataUpdate{Component: policy.ComponentID(p.Component), Update: p.Update, Remove: p.Op == mls.AppDataRemove}, nil
	case *mls.AppEphemeral:
		return policy.AppEphemeral{Component: policy.ComponentID(p.Component)}, nil
	}
	return policy.Unknown{Type: uint16(p.ProposalType())}, nil
}
