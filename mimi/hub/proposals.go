package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// maxBundle is the most proposals that are one intent.
const maxBundle = 256

// propose takes a bundle of proposals as a whole, or refuses it.
func (r *Room) propose(ctx context.Context, from From, u *mimi.HandshakeBundle) (*Outcome, error) {
	messages := u.Proposals()
	if len(messages) > maxBundle {
		return nil, refuse("%d proposals in one bundle, at most %d", len(messages), maxBundle)
	}
	b := new(bundle)
	for _, m := range messages {
		v, err := r.proposal(ctx, from, m)
		if err != nil {
			return nil, err
		}
		b.proposals = append(b.proposals, v)
	}
	silenced, err := r.admit(ctx, b)
	if err != nil {
		return nil, err
	}
	event := mimi.FanoutMessage{Timestamp: b.accepted, Message: u.ProposalOrCommit, MoreProposals: u.MoreProposals}
	return &Outcome{
		Response: &mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateSuccess, AcceptedTimestamp: b.accepted},
		Events:   []Event{{Kind: EventProposal, Timestamp: b.accepted, Epoch: r.Epoch(), Fanout: mimi.Fanout{&event}.Marshal()}},
		Silenced: silenced,
	}, nil
}

func (r *Room) proposal(ctx context.Context, from From, m *mimi.MLSMessage) (*mls.VerifiedProposal, error) {
	opened, err := r.open(ctx, m)
	if err != nil {
		return nil, err
	}
	v, ok := opened.(*mls.VerifiedProposal)
	if !ok {
		return nil, fmt.Errorf("%w: a bundle of proposals has a commit in it", ErrMalformed)
	}
	user, err := r.sender(ctx, from, v, newLeaf(v))
	if err != nil {
		return nil, err
	}
	if r.silenced[user] && !r.ownRemoval(v, user) {
		return nil, refuse("%s is being removed, and may propose nothing but to remove its own clients", user)
	}
	if r.suspended(v.Sender(), newLeaf(v)) && !r.ownRemoval(v, user) {
		return nil, NotHeard(user)
	}
	return v, r.leafOf(ctx, v)
}

// newLeaf is the leaf of a new_member_proposal.
func newLeaf(v *mls.VerifiedProposal) *mls.LeafNode {
	if add, ok := v.Proposal().(*mls.Add); ok {
		return add.KeyPackage.LeafNode
	}
	return nil
}

func (r *Room) ownRemoval(v *mls.VerifiedProposal, user mimi.URI) bool {
	switch p := v.Proposal().(type) {
	case *mls.SelfRemove:
		return true
	case *mls.Remove:
		return r.members[uint32(p.Removed)].User == user
	}
	return false
}

// leafOf judges the leaf that a proposal brings: its credential, and what the
// room asks of every leaf.
func (r *Room) leafOf(ctx context.Context, v *mls.VerifiedProposal) error {
	var leaf, old *mls.LeafNode
	switch p := v.Proposal().(type) {
	case *mls.Add:
		leaf = p.KeyPackage.LeafNode
	case *mls.Update:
		leaf, old = p.LeafNode, r.group.Current().Member(mls.LeafIndex(v.Sender().Index))
	default:
		return nil
	}
	if err := r.names_.judge(ctx, &mls.Judgement{GroupID: r.GroupID(), Leaf: leaf, Old: old}); err != nil {
		return err
	}
	return r.meets(leaf)
}

// admit keeps the proposals of a bundle, if they are valid, allowed in the
// epoch as it began, and agree with those that were accepted before.
func (r *Room) admit(ctx context.Context, b *bundle) (silenced []mimi.URI, err error) {
	for i, v := range b.proposals {
		if err = r.keep(v); err != nil {
			r.forget(b.proposals[:i])
			return nil, invalid([][]byte{v.Ref()}, "%v", err)
		}
	}
	effect, err := r.authorize(ctx, b)
	if err != nil {
		r.forget(b.proposals)
		return nil, err
	}
	b.accepted = r.nextTimestamp()
	r.pending, r.deaf = append(r.pending, b), nil
	for _, user := range effect.Silenced() {
		if !r.silenced[user] {
			r.silenced[user] = true
			silenced = append(silenced, user)
		}
	}
	return silenced, nil
}

func (r *Room) keep(v *mls.VerifiedProposal) error {
	for _, p := range r.group.PendingProposals() {
		if string(p.Ref()) == string(v.Ref()) {
			return errors.New("the proposal was accepted before")
		}
	}
	if p, ok := v.Proposal().(*mls.GroupContextExtensions); ok {
		if r.extending() {
			return errors.New("other extensions are pending, and a commit can have one such proposal")
		}
		if err := r.staysRoom(p.Extensions); err != nil { // no commit could have it, nor do without it
			return err
		}
	}
	if _, ok := v.Proposal().(*mls.ReInit); ok {
		return errReInit
	}
	if err := r.group.CheckComponents(v); err != nil {
		return err
	}
	return r.group.Keep(v)
}

// errReInit refuses a ReInit: the room stays with its group, and a group that is
// reinitialised takes nothing more. Who wants another makes another room.
var errReInit = errors.New("a room is not moved to another group; make another room")

func (r *Room) forget(list []*mls.VerifiedProposal) {
	for _, v := range list {
		r.group.Drop(v)
	}
}

// authorize judges a bundle by itself, with the roles at the start of the
// epoch, and then together with all that is pending: what would conflict with
// it could never be committed beside it.
func (r *Room) authorize(ctx context.Context, b *bundle) (*policy.Effect, error) {
	alone, err := r.judgeProposals(ctx, b.proposals)
	if err != nil {
		return nil, err
	}
	if err := r.names_.within(ctx, alone, leavesOf(b.proposals)); err != nil {
		return nil, err
	}
	if len(r.pending) == 0 {
		return alone, nil
	}
	all := r.allPending()
	if _, err := r.judgeProposals(ctx, append(all, b.proposals...)); err != nil {
		return nil, refuse("it conflicts with what is pending: %v", err)
	}
	return alone, nil
}

// leavesOf are the leaves that proposals bring.
func leavesOf(list []*mls.VerifiedProposal) (leaves []*mls.LeafNode) {
	for _, v := range list {
		switch p := v.Proposal().(type) {
		case *mls.Add:
			leaves = append(leaves, p.KeyPackage.LeafNode)
		case *mls.Update:
			leaves = append(leaves, p.LeafNode)
		}
	}
	return leaves
}

func (r *Room) judgeProposals(ctx context.Context, list []*mls.VerifiedProposal) (*policy.Effect, error) {
	gc := r.group.Current().Context()
	n := r.names_
	if n == nil {
		n = r.names("")
	}
	action, err := room.Bundle(ctx, gc.Extensions, r.group.Current().Member, list, n)
	if err != nil {
		return nil, err
	}
	return policy.Authorize(r.state, action)
}

func (r *Room) allPending() (list []*mls.VerifiedProposal) {
	for _, b := range r.pending {
		list = append(list, b.proposals...)
	}
	return list
}

// meets checks a new leaf against mls_operational_policy: that it supports what
// is mandatory and does not claim what is forbidden.
func (r *Room) meets(leaf *mls.LeafNode) error {
	if r.ops == nil {
		return nil
	}
	must, never := &r.ops.MandatoryCapabilities, &r.ops.ForbiddenCapabilities
	c := &leaf.Capabilities
	checks := []struct {
		name string
		ok   bool
	}{
		{"version", covers(c.Versions, must.Versions, never.Versions, 0)},
		{"cipher suite", covers(c.CipherSuites, must.CipherSuites, never.CipherSuites, 0)},
		{"extension", covers(c.Extensions, must.Extensions, never.Extensions, 5)},
		{"proposal", covers(c.Proposals, must.Proposals, never.Proposals, 7)},
		{"credential", covers(c.Credentials, must.Credentials, never.Credentials, 0)},
		{"component", componentsCover(leaf, mls.ComponentID(policy.ComponentAppComponents), must.ComponentIDs, never.ComponentIDs)},
		{"Safe AAD item", componentsCover(leaf, mls.ComponentID(policy.ComponentSafeAAD), must.SafeAADTypes, never.SafeAADTypes)},
		{"credential type", !slices.Contains(never.Credentials, uint16(leaf.Credential.Type))},
	}
	for _, check := range checks {
		if !check.ok {
			return refuse("the leaf's capabilities do not fit the room's operational policy: %s", check.name)
		}
	}
	return r.lifetime(leaf)
}

// covers reports whether all that must be is there, and nothing that must not.
// Values up to basic are those of RFC 9420 that every client has and none lists.
func covers[T ~uint16](have []T, must, never []uint16, basic uint16) bool {
	for _, v := range must {
		if v > basic && !slices.Contains(have, T(v)) {
			return false
		}
	}
	for _, v := range never {
		if slices.Contains(have, T(v)) {
			return false
		}
	}
	return true
}

func componentsCover(leaf *mls.LeafNode, list mls.ComponentID, must, never []policy.ComponentID) bool {
	if len(must)+len(never) == 0 {
		return true
	}
	d, err := leaf.Extensions.AppData()
	if err != nil {
		return false
	}
	raw, _ := d.Find(list)
	have, err := mls.ParseComponentsList(raw)
	if err != nil {
		return len(must) == 0
	}
	for _, id := range must {
		if !slices.Contains(have, mls.ComponentID(id)) {
			return false
		}
	}
	for _, id := range never {
		if slices.Contains(have, mls.ComponentID(id)) {
			return false
		}
	}
	return true
}

func (r *Room) lifetime(leaf *mls.LeafNode) error {
	if leaf.Source != mls.LeafFromKeyPackage || r.ops.MaxKPLifetime == 0 {
		return nil
	}
	if l := leaf.Lifetime; l.NotAfter-l.NotBefore > r.ops.MaxKPLifetime {
		return refuse("the KeyPackage is valid for %d seconds, and the room allows %d", l.NotAfter-l.NotBefore, r.ops.MaxKPLifetime)
	}
	return nil
}
