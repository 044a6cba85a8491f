package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// An interrupted bundle is what has to be proposed again after a commit that
// could not, or did not, have it.
type interrupted struct {
	leaves []Member   // to be removed, if they are still there
	users  []mimi.URI // to be removed from the list with all their clients
}

// interrupted collects what an external commit cuts off: the hub's own
// proposals, and leaves whose other half is done. A member whose proposals are
// cut off proposes them again by itself.
func (r *Room) interrupted(staged *mls.StagedCommit) *interrupted {
	left := make(map[string]bool)
	for _, v := range r.group.LeftOut(staged) {
		left[string(v.Ref())] = true
	}
	if len(left) == 0 {
		return nil
	}
	again := new(interrupted)
	for _, b := range r.pending {
		if b.hub || b.leaving(left) {
			r.collect(again, b, left)
		}
	}
	return again
}

// leaving reports whether a bundle is a leave of which the SelfRemove is
// committed and the rest is not.
func (b *bundle) leaving(left map[string]bool) bool {
	begun, rest := false, false
	for _, v := range b.proposals {
		if _, self := v.Proposal().(*mls.SelfRemove); self && !left[string(v.Ref())] {
			begun = true
		}
		rest = rest || left[string(v.Ref())]
	}
	return begun && rest
}

func (r *Room) collect(again *interrupted, b *bundle, left map[string]bool) {
	for _, v := range b.proposals {
		if !left[string(v.Ref())] {
			continue
		}
		switch p := v.Proposal().(type) {
		case *mls.Remove:
			if m, ok := r.members[uint32(p.Removed)]; ok {
				again.leaves = append(again.leaves, m)
			}
		case *mls.AppDataUpdate:
			again.users = append(again.users, r.removedBy(p)...)
		}
	}
}

// removedBy are the users that an update of the participant list removes.
func (r *Room) removedBy(p *mls.AppDataUpdate) (users []mimi.URI) {
	if p.Component != mls.ComponentID(policy.ComponentParticipantList) {
		return nil
	}
	u, err := mimi.ParseParticipantListUpdate(p.Update)
	if err != nil {
		return nil
	}
	list := r.state.ParticipantList().Participants
	for _, i := range u.RemovedIndices {
		if int(i) < len(list) {
			users = append(users, list[i].User)
		}
	}
	return users
}

// reissue proposes again, in the new epoch, what was interrupted. The messages
// are stapled to the commit.
func (r *Room) reissue(ctx context.Context, again *interrupted, at uint64, out *Outcome) ([]*mimi.MLSMessage, error) {
	if again == nil {
		return nil, nil
	}
	var proposals []mls.Proposal
	for _, m := range again.leaves {
		if now, ok := r.members[m.Leaf]; ok && now.Client == m.Client && now.Credential == m.Credential {
			proposals = append(proposals, &mls.Remove{Removed: mls.LeafIndex(m.Leaf)})
		}
	}
	var update mimi.ParticipantListUpdate
	for _, user := range again.users {
		if i, ok := r.state.Index(user); ok && !slices.Contains(update.RemovedIndices, i) {
			update.RemovedIndices = append(update.RemovedIndices, i)
		}
	}
	if len(update.RemovedIndices) > 0 {
		proposals = append(proposals, mls.UpdateAppData(mls.ComponentID(policy.ComponentParticipantList), update.Marshal()))
	}
	if len(proposals) == 0 {
		return nil, nil
	}
	b, messages, err := r.proposeOwn(ctx, proposals, at)
	if err != nil {
		return nil, err
	}
	out.Silenced = append(out.Silenced, b...)
	return messages, nil
}

// proposeOwn makes proposals of the hub, which are one bundle, and returns who
// is silenced by them.
func (r *Room) proposeOwn(ctx context.Context, proposals []mls.Proposal, at uint64) ([]mimi.URI, []*mimi.MLSMessage, error) {
	key := r.cfg.SenderKey(r.suite())
	if key == nil {
		return nil, nil, fmt.Errorf("hub: no key to propose with in cipher suite 0x%04x", uint16(r.suite()))
	}
	var messages []*mimi.MLSMessage
	before := r.group.PendingProposals()
	for _, p := range proposals {
		raw, err := r.group.Propose(ctx, key.Signer, p, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("hub: proposing: %w", err)
		}
		m, err := mimi.ParseMLSMessage(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("hub: our own proposal: %w", err)
		}
		messages = append(messages, m)
	}
	b := &bundle{proposals: r.group.PendingProposals()[len(before):], hub: true, accepted: at}
	effect, err := r.judgeProposals(ctx, b.proposals)
	if err != nil {
		r.forget(b.proposals)
		return nil, nil, fmt.Errorf("hub: the room does not allow our own proposals: %w", err)
	}
	r.pending, r.deaf = append(r.pending, b), nil
	var silenced []mimi.URI
	for _, user := range effect.Silenced() {
		if !r.silenced[user] {
			r.silenced[user] = true
			silenced = append(silenced, user)
		}
	}
	return silenced, messages, nil
}

// ProposeRemoval proposes, as the hub, to remove the leaves for which wanted
// returns true and whose removal is not pending yet: a credential of theirs is
// not believed any more. Without such leaves the outcome has no events.
func (r *Room) ProposeRemoval(ctx context.Context, wanted func(Member) bool) (*Outcome, error) {
	pending := r.going()
	var proposals []mls.Proposal
	for _, m := range r.Members() {
		if wanted(m) && !pending[m.Leaf] {
			proposals = append(proposals, &mls.Remove{Removed: mls.LeafIndex(m.Leaf)})
		}
	}
	if len(proposals) == 0 {
		return new(Outcome), nil
	}
	return r.proposeEvent(ctx, proposals)
}

// Pending reports how many proposals wait to be committed.
func (r *Room) Pending() int { return len(r.group.PendingProposals()) }

// ProposeLeave proposes, as the hub, to take users off the list with all of their
// clients: they may not be in the room any more. Those whose going is pending are
// left out; without others the outcome has no events. Where the room's roles do
// not let a user off the list, as with its last administrator, only the clients
// go.
func (r *Room) ProposeLeave(ctx context.Context, users []mimi.URI) (*Outcome, error) {
	gone := r.going()
	var update mimi.ParticipantListUpdate
	var removes []mls.Proposal
	for _, user := range users {
		i, ok := r.state.Index(user)
		leaves := r.state.LeavesOf(user)
		if !ok || r.silenced[user] || slices.ContainsFunc(leaves, func(l uint32) bool { return gone[l] }) {
			continue
		}
		update.RemovedIndices = append(update.RemovedIndices, i)
		for _, l := range leaves {
			removes = append(removes, &mls.Remove{Removed: mls.LeafIndex(l)})
		}
	}
	if len(update.RemovedIndices) == 0 {
		return new(Outcome), nil
	}
	list := mls.UpdateAppData(mls.ComponentID(policy.ComponentParticipantList), update.Marshal())
	out, err := r.proposeEvent(ctx, append([]mls.Proposal{list}, removes...))
	if refusal := new(policy.Refusal); errors.As(err, &refusal) && len(removes) > 0 {
		out, err = r.proposeEvent(ctx, removes)
	}
	return out, err
}

// going are the leaves whose removal is pending.
func (r *Room) going() map[uint32]bool {
	pending := make(map[uint32]bool)
	for _, v := range r.allPending() {
		switch p := v.Proposal().(type) {
		case *mls.Remove:
			pending[uint32(p.Removed)] = true
		case *mls.SelfRemove:
			pending[v.Sender().Index] = true
		}
	}
	return pending
}

// proposeEvent makes proposals of the hub and the event that tells of them.
func (r *Room) proposeEvent(ctx context.Context, proposals []mls.Proposal) (*Outcome, error) {
	at := r.nextTimestamp()
	silenced, messages, err := r.proposeOwn(ctx, proposals, at)
	if err != nil {
		return nil, err
	}
	event := mimi.FanoutMessage{Timestamp: at, Message: messages[0], MoreProposals: messages[1:]}
	return &Outcome{
		Silenced: silenced,
		Events:   []Event{{Kind: EventProposal, Timestamp: at, Epoch: r.Epoch(), Fanout: mimi.Fanout{&event}.Marshal()}},
	}, nil
}

// Close ends the room. The event tells followers and members so, signed by the
// hub; nothing can come after it.
func (r *Room) Close(ctx context.Context) (*Outcome, error) {
	key := r.cfg.SenderKey(r.suite())
	if key == nil {
		return nil, fmt.Errorf("hub: no key to propose with in cipher suite 0x%04x", uint16(r.suite()))
	}
	raw, err := r.group.Propose(ctx, key.Signer, room.Closing(), nil)
	if err != nil {
		return nil, fmt.Errorf("hub: proposing: %w", err)
	}
	m, err := mimi.ParseMLSMessage(raw)
	if err != nil {
		return nil, fmt.Errorf("hub: our own proposal: %w", err)
	}
	at := r.nextTimestamp()
	f := mimi.FanoutMessage{Timestamp: at, Message: m}
	return &Outcome{Events: []Event{{Kind: EventProposal, Timestamp: at, Epoch: r.Epoch(), Fanout: mimi.Fanout{&f}.Marshal()}}}, nil
}

// ProposeFranking proposes, as the hub, to verify the room's franks with the key
// that new rooms have. Without need the outcome has no events.
func (r *Room) ProposeFranking(ctx context.Context) (*Outcome, error) {
	agent := r.cfg.FrankingAgent(r.suite())
	if agent == nil || bytes.Equal(agent.SignatureKey, r.FrankingKey()) {
		return new(Outcome), nil
	}
	for _, v := range r.allPending() {
		if u, ok := v.Proposal().(*mls.AppDataUpdate); ok && u.Component == mls.ComponentID(policy.ComponentFrankingAgent) {
			return new(Outcome), nil
		}
	}
	return r.proposeEvent(ctx, []mls.Proposal{mls.UpdateAppData(mls.ComponentID(policy.ComponentFrankingAgent), agent.Marshal())})
}
