package hub

import (
	"context"
	"fmt"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// A Told is what a groupInfo request was answered with, for the external commit
// that may follow.
type Told struct {
	Response *mimi.GroupInfoResponse
	Client   mimi.URI // zero if the request was refused
	Joining  *Joining
}

// GroupInfo answers a request for what an external join needs (section 5.6).
// lookup finds out about a join code. A requester that the room would not let in
// learns nothing of it.
func (r *Room) GroupInfo(ctx context.Context, from From, q *mimi.GroupInfoRequest, lookup func(code []byte) policy.JoinCode) (*Told, error) {
	if err := q.Verify(); err != nil {
		return r.notAuthorized(), nil
	}
	question := &Question{
		Suite: q.CipherSuite, Credential: q.RequestingCredential, SignatureKey: q.RequestingKey, Room: r.uri, Voucher: from.Provider,
	}
	v, err := r.cfg.Evaluator.Evaluate(ctx, question)
	if err != nil {
		return r.notAuthorized(), nil
	}
	if !from.speaksFor(v.Identity.Client) {
		return nil, fmt.Errorf("%w: the request is of %s", ErrForeign, v.Identity.Client)
	}
	n := r.names(from.Provider)
	if n.admitted(v.Identity) != nil {
		return r.notAuthorized(), nil
	}
	told := &Joining{Epoch: r.Epoch(), Refs: refsOf(r.forJoiners())}
	if q.JoiningCode != nil {
		told.Code = lookup(q.JoiningCode)
	}
	info := r.group.GroupInfo()
	if info == nil || !r.mayJoin(v, told.Code) {
		return r.notAuthorized(), nil
	}
	return r.answer(ctx, q, info, &Told{Client: v.Identity.Client, Joining: told})
}

func (r *Room) answer(ctx context.Context, q *mimi.GroupInfoRequest, info *mls.GroupInfo, told *Told) (*Told, error) {
	key := r.cfg.SenderKey(q.CipherSuite)
	if key == nil {
		return r.notAuthorized(), nil
	}
	t := &mimi.GroupInfoRatchetTree{GroupInfo: info, RatchetTree: r.group.TreeOption(), PendingProposals: r.pendingFor(told.Joining.Refs)}
	var err error
	told.Response, err = q.Respond(ctx, r.uri, t, key.Sender, key.Signer)
	return told, err
}

func (r *Room) notAuthorized() *Told {
	return &Told{Response: &mimi.GroupInfoResponse{Version: mimi.ProtocolMLS10, RoomID: r.uri, Status: mimi.GroupInfoNotAuthorized}}
}

// mayJoin asks policy whether there is any way in for the requester: as a
// further client, by preauthorisation, by its code, or through the open door.
func (r *Room) mayJoin(v *Verdict, code policy.JoinCode) bool {
	if r.silenced[v.Identity.User] {
		return false
	}
	for _, role := range r.rolesToTry(v, code) {
		if v.Bounded && max(role, r.state.RoleOf(v.Identity.User)) > v.MaxRole {
			continue
		}
		by := policy.Actor{Sender: policy.NewMemberCommit, User: v.Identity.User, Client: v.Identity.Client, Credentials: v.Claims}
		c := &policy.Commit{Committer: by, Code: code, Proposals: []policy.Proposed{{By: by, Proposal: policy.ExternalInit{}}}}
		if m, ok := r.MemberOf(v.Identity.Client); ok {
			c.Proposals = append(c.Proposals, policy.Proposed{By: by, Proposal: policy.Remove{Leaf: m.Leaf}})
		}
		if role != mimi.RoleNone {
			u := mimi.ParticipantListUpdate{AddedParticipants: []mimi.UserRolePair{{User: v.Identity.User, Role: role}}}
			c.Proposals = append(c.Proposals, policy.Proposed{By: by, Proposal: policy.AppDataUpdate{Component: policy.ComponentParticipantList, Update: u.Marshal()}})
		}
		if _, err := policy.Authorize(r.state, c); err == nil {
			return true
		}
	}
	return false
}

// rolesToTry are the roles with which a requester might join; RoleNone for a
// participant, who needs none.
func (r *Room) rolesToTry(v *Verdict, code policy.JoinCode) []mimi.RoleIndex {
	if r.state.RoleOf(v.Identity.User) != mimi.RoleNone {
		return []mimi.RoleIndex{mimi.RoleNone}
	}
	var roles []mimi.RoleIndex
	if code.Valid {
		roles = append(roles, code.Role)
	}
	if p := component(r, policy.ComponentPreauth, policy.ParsePreAuthData); p != nil {
		if i := p.Match(v.Claims); i >= 0 {
			roles = append(roles, p.PreauthorizedEntries[i].TargetRole.Index)
		}
	}
	if door := r.state.Role(mimi.RoleNone); door != nil {
		for _, c := range door.AuthorizedRoleChanges {
			if c.From == mimi.RoleNone {
				roles = append(roles, c.Targets...)
			}
		}
	}
	return roles
}

// forJoiners are the pending proposals that an external commit must refer to:
// SelfRemoves, AppDataUpdates and AppEphemerals in PublicMessages. The
// AppDataUpdates of a bundle that removes clients by Remove are left out, since
// an external commit cannot have the Removes: the hub carries the bundle over to
// the next epoch.
func (r *Room) forJoiners() (list []*mls.VerifiedProposal) {
	for _, b := range r.pending {
		for _, v := range b.proposals {
			if v.Message() != nil && joinable(v.Proposal(), b) {
				list = append(list, v)
			}
		}
	}
	return list
}

func joinable(p mls.Proposal, b *bundle) bool {
	switch p.(type) {
	case *mls.SelfRemove:
		return true
	case *mls.AppDataUpdate, *mls.AppEphemeral:
		return !b.has(mls.ProposalRemove) && !b.has(mls.ProposalAdd)
	}
	return false
}

func (b *bundle) has(t mls.ProposalType) bool {
	for _, v := range b.proposals {
		if v.Proposal().ProposalType() == t {
			return true
		}
	}
	return false
}

// pendingFor are the messages of the proposals with the given references, with
// the times at which they were accepted.
func (r *Room) pendingFor(refs [][]byte) (list []mimi.PendingProposal) {
	wanted := make(map[string]bool)
	for _, ref := range refs {
		wanted[string(ref)] = true
	}
	for _, b := range r.pending {
		for _, v := range b.proposals {
			if !wanted[string(v.Ref())] {
				continue
			}
			if m, err := mimi.ParseMLSMessage(v.Message()); err == nil {
				list = append(list, mimi.PendingProposal{Proposal: m, HubAcceptedTime: b.accepted})
			}
		}
	}
	return list
}
