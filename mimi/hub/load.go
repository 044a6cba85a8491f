package hub

import (
	"context"
	"fmt"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// Snapshot returns the room's group in its stored form but for its tree. With
// that, the members, which are stored by themselves, and the events after it, it
// makes the room anew.
func (r *Room) Snapshot() []byte { return r.group.Rest() }

// Tree returns the ratchet tree of the epoch, encoded as in the ratchet_tree
// extension.
func (r *Room) Tree() []byte { return r.group.Current().RatchetTree() }

// MarkTree has TreeChanges begin with the present epoch.
func (r *Room) MarkTree() { r.marked = r.group.Current() }

// TreeChanges returns what has changed in the tree since the epoch that was
// marked, for mls.PatchTree; nil if none was.
func (r *Room) TreeChanges() []byte {
	if r.marked == nil {
		return nil
	}
	return r.group.Current().TreeChanges(r.marked)
}

// A Stored is a room as it is stored.
type Stored struct {
	Group  mls.PublicGroupState // Tree and Rest, as of a snapshot
	At     uint64               // newest accepted timestamp at the snapshot
	Events []Event              // since the snapshot, in their order
	// Members and Newest are as of now (Room.Members, Room.Newest).
	Members []Member
	Newest  uint64
	// Marked is the epoch, of the snapshot or later, whose tree was marked last.
	Marked uint64
}

// Load makes a room from what is stored of it. Nothing is judged: what was
// accepted stays so.
func Load(ctx context.Context, cfg *Config, uri mimi.URI, s *Stored) (*Room, error) {
	r := newRoom(cfg, uri)
	r.newest = s.Newest
	group, err := mls.LoadPublicGroup(s.Group, r.publicConfig())
	if err != nil {
		return nil, fmt.Errorf("hub: snapshot of %s: %w", uri, err)
	}
	r.group, r.last = group, s.At
	if own := group.PendingProposals(); len(own) > 0 {
		// A snapshot is taken as an epoch begins: only what the hub proposed again
		// is pending then.
		r.pending = []*bundle{{proposals: own, hub: true, accepted: s.At}}
	}
	events, members := s.Events, s.Members
	if r.Epoch() == s.Marked {
		r.MarkTree()
	}
	for i := range events {
		if err := r.replay(ctx, &events[i]); err != nil {
			return nil, fmt.Errorf("hub: event of %s at %d: %w", uri, events[i].Timestamp, err)
		}
		if r.Epoch() == s.Marked {
			r.MarkTree()
		}
	}
	for _, m := range members {
		r.put(m)
	}
	return r, r.resume(ctx)
}

// Advance takes up events that another node of the hub has accepted, and the
// members that the room has after them.
func (r *Room) Advance(ctx context.Context, last uint64, members []Member, events []Event) error {
	for i := range events {
		if err := r.replay(ctx, &events[i]); err != nil {
			return fmt.Errorf("hub: event of %s at %d: %w", r.uri, events[i].Timestamp, err)
		}
	}
	r.last = max(r.last, last)
	if len(events) == 0 {
		return nil
	}
	clear(r.members)
	clear(r.byCredential)
	clear(r.providers)
	clear(r.silenced)
	for _, m := range members {
		r.put(m)
	}
	return r.resume(ctx)
}

// resume makes the policy state and what the pending bundles mean in it.
func (r *Room) resume(ctx context.Context) error {
	if err := r.newState(ctx, r.names("")); err != nil {
		return err
	}
	for _, b := range r.pending {
		for _, v := range b.proposals {
			for _, user := range r.silencedBy(v.Proposal()) {
				r.silenced[user] = true
			}
		}
	}
	return nil
}

// silencedBy are the users whom a proposal removes from the list or bans. The
// proposal was judged when it was accepted, and what it says of them does not
// depend on what is believed now.
func (r *Room) silencedBy(p mls.Proposal) []mimi.URI {
	update, ok := p.(*mls.AppDataUpdate)
	if !ok || update.Component != mls.ComponentID(policy.ComponentParticipantList) {
		return nil
	}
	users := r.removedBy(update)
	u, err := mimi.ParseParticipantListUpdate(update.Update)
	if err != nil {
		return nil
	}
	list := r.state.ParticipantList().Participants
	for _, c := range u.ChangedRoleParticipants {
		if c.Role == mimi.RoleBanned && int(c.UserIndex) < len(list) {
			users = append(users, list[c.UserIndex].User)
		}
	}
	return users
}

func (r *Room) replay(ctx context.Context, e *Event) error {
	r.last = max(r.last, e.Timestamp)
	if e.Kind != EventProposal && e.Kind != EventCommit {
		return nil
	}
	f, err := mimi.ParseFanout(e.Fanout)
	if err != nil {
		return err
	}
	if e.Kind == EventProposal {
		return r.replayBundle(ctx, append([]*mimi.MLSMessage{f[0].Message}, f[0].MoreProposals...), e.Timestamp)
	}
	if err := r.replayCommit(ctx, f[0].Message, e.Partial); err != nil {
		return err
	}
	if len(f[0].ExternalProposals) == 0 {
		return nil
	}
	return r.replayBundle(ctx, f[0].ExternalProposals, e.Timestamp)
}

func (r *Room) replayBundle(ctx context.Context, list []*mimi.MLSMessage, at uint64) error {
	b := &bundle{accepted: at}
	for _, m := range list {
		parsed, err := mls.ParseMessage(m.Bytes())
		if err != nil {
			return err
		}
		v, _, err := r.group.Process(ctx, parsed)
		if err != nil {
			return err
		}
		b.proposals = append(b.proposals, v)
		b.hub = v.Sender().Type == mls.SenderExternal
	}
	r.pending = append(r.pending, b)
	return nil
}

func (r *Room) replayCommit(ctx context.Context, m *mimi.MLSMessage, partial []byte) error {
	parsed, err := mls.ParseMessage(m.Bytes())
	if err != nil {
		return err
	}
	_, staged, err := r.group.Process(ctx, parsed)
	if err != nil {
		return err
	}
	p, err := mls.ParsePartialGroupInfo(partial)
	if err != nil {
		return err
	}
	if _, err := staged.RebuildGroupInfo(p); err != nil {
		return err
	}
	r.pending = nil
	r.begun(staged)
	return r.group.Merge(staged)
}
