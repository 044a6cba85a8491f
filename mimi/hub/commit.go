package hub

import (
	"context"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// commit decides about a commit and what came with it.
func (r *Room) commit(ctx context.Context, from From, u *mimi.HandshakeBundle, joining func(mimi.URI) *Joining) (*Outcome, error) {
	opened, err := r.open(ctx, u.ProposalOrCommit)
	if err != nil {
		return nil, err
	}
	v, ok := opened.(*mls.VerifiedCommit)
	if !ok {
		return nil, fmt.Errorf("%w: it is no commit", ErrMalformed)
	}
	external := v.Sender().Type == mls.SenderNewMemberCommit
	user, err := r.committer(ctx, from, v)
	if err != nil {
		return nil, err
	}
	if r.silenced[user] {
		return nil, refuse("%s is being removed and commits nothing", user)
	}
	if err := r.references(v.Commit()); err != nil {
		return nil, err
	}
	staged, err := r.group.Stage(ctx, v)
	if err != nil {
		return nil, err
	}
	if staged.ReInit() != nil {
		return nil, refuse("%v", errReInit)
	}
	var told *Joining
	if external {
		if told, err = r.told(staged, joining); err != nil {
			return nil, err
		}
	} else if err := r.complete(v, staged); err != nil {
		return nil, err
	}
	effect, err := r.allowed(ctx, staged, told)
	if err != nil {
		return nil, err
	}
	partial, err := r.groupInfo(staged, &u.GroupInfo)
	if err != nil {
		return nil, err
	}
	to, err := r.welcomed(ctx, staged, u.Welcome)
	if err != nil {
		return nil, err
	}
	return r.accept(ctx, u, staged, effect, partial, to)
}

func (r *Room) committer(ctx context.Context, from From, v *mls.VerifiedCommit) (mimi.URI, error) {
	var leaf *mls.LeafNode
	if path := v.Commit().Path; path != nil {
		leaf = path.LeafNode
	}
	user, err := r.sender(ctx, from, v, leaf)
	if err == nil && r.suspended(v.Sender(), leaf) {
		return user, NotHeard(user)
	}
	return user, err
}

// suspended reports whether the sender of a handshake is a member whose
// credential is suspended, or comes anew with the credential of one.
func (r *Room) suspended(s mls.Sender, leaf *mls.LeafNode) bool {
	if s.Type == mls.SenderMember {
		return r.members[s.Index].Suspended
	}
	if leaf == nil {
		return false
	}
	id := idOf(leaf)
	m, ok := r.members[r.byCredential[id]]
	return ok && m.Credential == id && m.Suspended
}

// begun notes what an epoch begins with.
func (r *Room) begun(staged *mls.StagedCommit) {
	clear(r.claims)
	if staged.External() || len(staged.Added()) > 0 || franksAnew(staged) {
		r.newest = staged.Epoch()
	}
}

// franksAnew reports whether a commit changes the franking agent. Who has not
// seen it could not verify the frank of its own message.
func franksAnew(staged *mls.StagedCommit) bool {
	return slices.ContainsFunc(staged.ComponentChanges(), func(c mls.ComponentChange) bool {
		return c.Component == mls.ComponentID(policy.ComponentFrankingAgent)
	})
}

// references lists the references of a commit that are to no pending proposal.
func (r *Room) references(c *mls.Commit) error {
	known := make(map[string]bool)
	for _, p := range r.group.PendingProposals() {
		known[string(p.Ref())] = true
	}
	var unknown [][]byte
	for _, p := range c.Proposals {
		if p.Proposal == nil && !known[string(p.Reference)] {
			unknown = append(unknown, p.Reference)
		}
	}
	if len(unknown) > 0 {
		return invalid(unknown, "the commit refers to %d proposals that are not pending", len(unknown))
	}
	return nil
}

// complete checks that a member's commit covers every pending proposal that it
// can cover: not an Update of the committer itself, nor one of, or a Remove of,
// a leaf that goes in this commit anyway.
func (r *Room) complete(v *mls.VerifiedCommit, staged *mls.StagedCommit) error {
	gone := make(map[mls.LeafIndex]bool)
	for _, m := range staged.Removed() {
		gone[m.Leaf] = true
	}
	for _, p := range r.group.LeftOut(staged) {
		switch q := p.Proposal().(type) {
		case *mls.Update:
			if p.Sender() == v.Sender() || gone[mls.LeafIndex(p.Sender().Index)] {
				continue
			}
		case *mls.Remove:
			if gone[q.Removed] {
				continue
			}
		}
		return refuse(mimi.PendingProposals)
	}
	return nil
}

// told checks that an external commit covers all proposals that its joiner was
// told of, and returns what the joiner was told.
func (r *Room) told(staged *mls.StagedCommit, joining func(mimi.URI) *Joining) (*Joining, error) {
	leaf := staged.Committer().New
	v := r.names_.fresh[idOf(leaf)]
	var told *Joining
	if v != nil && joining != nil {
		told = joining(v.Identity.Client)
	}
	if told == nil || told.Epoch != r.Epoch() {
		told = &Joining{Epoch: r.Epoch(), Refs: refsOf(r.forJoiners())}
	}
	left := make(map[string]bool)
	for _, p := range r.group.LeftOut(staged) {
		left[string(p.Ref())] = true
	}
	for _, ref := range told.Refs {
		if left[string(ref)] {
			return nil, refuse(mimi.PendingProposals)
		}
	}
	return told, nil
}

func refsOf(list []*mls.VerifiedProposal) (refs [][]byte) {
	for _, v := range list {
		refs = append(refs, v.Ref())
	}
	return refs
}

// allowed is the judgement of policy on a staged commit, and of the operational
// policy on its new leaves.
func (r *Room) allowed(ctx context.Context, staged *mls.StagedCommit, told *Joining) (*policy.Effect, error) {
	action, err := room.Action(ctx, staged, r.names_)
	if err != nil {
		return nil, err
	}
	if told != nil {
		action.Code = told.Code
	}
	effect, err := policy.Authorize(r.state, action)
	if err != nil {
		return nil, err
	}
	var came []*mls.LeafNode
	for _, m := range staged.Added() {
		came = append(came, m.Node)
	}
	if leaf := staged.Committer().New; leaf != nil {
		came = append(came, leaf)
	}
	for _, leaf := range came {
		if err := r.meets(leaf); err != nil {
			return nil, err
		}
	}
	for _, u := range staged.Updated() {
		came = append(came, u.New)
	}
	if err := r.names_.within(ctx, effect, came); err != nil {
		return nil, err
	}
	if room.Extends(staged) {
		gc := staged.Context()
		err = r.staysRoom(gc.Extensions)
	}
	return effect, err
}

// staysRoom checks that a group with other extensions is still a room of this hub:
// its members need them to load it, and to join it. The hub stays among the external
// senders, and nobody else is to read SemiPrivateMessages.
func (r *Room) staysRoom(ext mls.Extensions) error {
	if err := room.Check(ext); err != nil {
		return refuse("%v", err)
	}
	if err := r.receivers(ext); err != nil {
		return refuse("%v", err)
	}
	senders, err := ext.ExternalSenders()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(senders, r.ownSender) {
		return refuse("external_senders must keep the hub")
	}
	return nil
}

// groupInfo checks the GroupInfo of the new epoch, for those who join later.
func (r *Room) groupInfo(staged *mls.StagedCommit, o *mimi.GroupInfoOption) (*mls.PartialGroupInfo, error) {
	partial := o.Partial
	if o.Full != nil {
		var err error
		if partial, err = o.Full.Partial(); err != nil {
			return nil, refuse("group info: %v", err)
		}
	}
	if partial == nil {
		return nil, refuse("the commit comes without a GroupInfo")
	}
	info, err := staged.RebuildGroupInfo(partial)
	if err != nil {
		return nil, refuse("group info: %v", err)
	}
	if o.Full != nil && string(info.Bytes()) != string(o.Full.Bytes()) {
		return nil, refuse("the GroupInfo is not of the epoch that the commit begins")
	}
	pub, err := info.Extensions.ExternalPub()
	if err != nil || pub == nil && (r.ops == nil || r.ops.ExternalCommitAllowed) {
		return nil, refuse("the GroupInfo has no external_pub")
	}
	return partial, nil
}

// welcomed pairs the secrets of a Welcome with the clients that are added, one
// to one.
func (r *Room) welcomed(ctx context.Context, staged *mls.StagedCommit, w *mls.Welcome) ([]Addressee, error) {
	var to []Addressee
	for _, p := range staged.Proposals() {
		add, ok := p.Proposal.(*mls.Add)
		if !ok {
			continue
		}
		v, err := r.names_.verdict(ctx, add.KeyPackage.LeafNode)
		if err != nil {
			return nil, err
		}
		to = append(to, Addressee{Ref: add.KeyPackage.Ref(), Client: v.Identity.Client})
	}
	if w == nil {
		if len(to) > 0 {
			return nil, refuse("the commit adds %d clients and has no Welcome for them", len(to))
		}
		return nil, nil
	}
	if len(w.Secrets) != len(to) {
		return nil, refuse("the Welcome is for %d clients and the commit adds %d", len(w.Secrets), len(to))
	}
	for _, a := range to {
		if w.For(a.Ref) == nil {
			return nil, refuse("the Welcome has no secrets for %s", a.Client)
		}
	}
	return to, nil
}

// accept enters the new epoch.
func (r *Room) accept(ctx context.Context, u *mimi.HandshakeBundle, staged *mls.StagedCommit, effect *policy.Effect, partial *mls.PartialGroupInfo, to []Addressee) (*Outcome, error) {
	out := &Outcome{Suite: r.suite(), Before: r.Providers(), Heard: r.heard(effect), External: staged.External(), ByCode: slices.Contains(effect.Rows(), policy.RowJoinCode), Roles: touchesRoles(effect), Departed: effect.Silenced(), Extended: room.Extends(staged)}
	again := r.interrupted(staged)
	epoch := r.Epoch()
	if err := r.group.Merge(staged); err != nil {
		return nil, fmt.Errorf("hub: merging an accepted commit: %w", err)
	}
	if err := r.state.Apply(effect); err != nil {
		return nil, fmt.Errorf("hub: applying an allowed effect: %w", err)
	}
	r.pending, r.silenced = nil, make(map[mimi.URI]bool)
	r.begun(staged)
	r.settle()
	if err := r.recast(ctx, staged, out); err != nil {
		return nil, err
	}
	at := r.nextTimestamp()
	out.Response = &mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateSuccess, AcceptedTimestamp: at}
	commit := mimi.FanoutMessage{Timestamp: at, Message: u.ProposalOrCommit}
	var err error
	if commit.ExternalProposals, err = r.reissue(ctx, again, at, out); err != nil {
		return nil, err
	}
	out.Events = append(out.Events, Event{Kind: EventCommit, Timestamp: at, Epoch: epoch, Fanout: mimi.Fanout{&commit}.Marshal(), Partial: partial.Bytes()})
	if len(to) == 0 {
		return out, nil
	}
	// A Welcome is without the tree, which is the same for all newcomers of the
	// epoch: the caller keeps it once and completes the message as it is delivered.
	out.Events = append(out.Events, Event{Kind: EventWelcome, Timestamp: at, Epoch: epoch, Fanout: mimi.WelcomeWithoutTree(at, u.Welcome), To: to})
	return out, nil
}

// heard are the users who were silenced by what was pending, and whom the
// commit leaves in the room.
func (r *Room) heard(effect *policy.Effect) (list []mimi.URI) {
	gone := effect.Silenced()
	for user := range r.silenced {
		if !slices.Contains(gone, user) {
			list = append(list, user)
		}
	}
	return list
}

// recast brings the members up to date. The tree says where the leaves are.
func (r *Room) recast(ctx context.Context, staged *mls.StagedCommit, out *Outcome) error {
	for _, m := range staged.Removed() {
		if old, ok := r.drop(uint32(m.Leaf)); ok {
			out.Went = append(out.Went, old)
		}
	}
	now := staged.Added()
	for _, u := range staged.Updated() {
		now = append(now, mls.Member{Leaf: u.Leaf, Node: u.New})
	}
	if c := staged.Committer(); c.New != nil {
		now = append(now, mls.Member{Leaf: c.Leaf, Node: c.New})
	}
	for _, m := range now {
		if err := r.seat(ctx, m, out); err != nil {
			return err
		}
	}
	return nil
}

// seat puts a client on a leaf, if it or its credential was not there.
func (r *Room) seat(ctx context.Context, m mls.Member, out *Outcome) error {
	id := idOf(m.Node)
	old, was := r.members[uint32(m.Leaf)]
	if was && old.Credential == id {
		return nil
	}
	v, err := r.names_.verdict(ctx, m.Node)
	if err != nil {
		return fmt.Errorf("hub: a leaf that was judged: %w", err)
	}
	if was {
		r.drop(uint32(m.Leaf))
		out.Went = append(out.Went, old)
	}
	next := memberOf(uint32(m.Leaf), id, v)
	r.put(next)
	out.Came, out.Leaves = append(out.Came, next), append(out.Leaves, m.Node)
	return nil
}

func touchesRoles(e *policy.Effect) bool {
	if _, ok := e.Value(policy.ComponentRoles); ok {
		return true
	}
	for _, row := range e.Rows() {
		switch row {
		case policy.RowRole, policy.RowOwnRole, policy.RowBan, policy.RowUnban:
			return true
		}
	}
	return false
}
