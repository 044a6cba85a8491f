package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// forget is the step that drops a room that was not entered, and its group. One
// that the client was in before stays, with its messages.
func (r *Room) forget(ctx context.Context, u *unit, why error) {
	u.dropped = append(u.dropped, r.groupID)
	if r.newest > 0 {
		r.setStatus(ctx, u, RoomLeft, "not let in again: "+why.Error())
		r.drop()
		return
	}
	r.status = RoomLeft
	uri := r.uri.String()
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM room WHERE uri = ?`, uri)
		return err
	})
	r.distrust()
}

// checkHub checks that an external sender of the group is the hub of the room.
func (c *Client) checkHub(ctx context.Context, uri mimi.URI, ext mls.Extensions) error {
	senders, err := ext.ExternalSenders()
	if err != nil {
		return err
	}
	for _, s := range senders {
		provider, next := c.verdicts.in(uri).hub(ctx, s)
		if next == nil && provider.Host() == uri.Host() {
			return nil
		}
		err = errors.Join(err, next)
	}
	if err != nil {
		return fmt.Errorf("client: external_senders of %s lists nobody who is believed to be its hub: %w", uri, err)
	}
	return fmt.Errorf("client: external_senders of %s does not list its hub", uri)
}

// takeWelcome enters a room to which another member has added this client.
func (t *taker) takeWelcome(ctx context.Context, u *unit, uri mimi.URI, f *mimi.FanoutMessage) error {
	w, err := mls.ParseWelcome(f.Message.Bytes())
	if err != nil {
		return err
	}
	old, err := t.room(ctx, uri)
	if err != nil {
		return err
	}
	if old != nil && (old.status == RoomMember || old.status == RoomLeaving) {
		return fmt.Errorf("a Welcome to %s, where this client is a member", uri)
	}
	var opts mls.JoinOptions
	if f.RatchetTree != nil {
		opts.RatchetTree = f.RatchetTree.Tree
	}
	staged, err := t.c.engine().StageWelcome(ctx, w, nil, opts)
	if err != nil {
		return err
	}
	r := old
	if r == nil {
		r = t.c.roomAt(uri)
		if err := r.lock(ctx); err != nil {
			return err
		}
		t.rooms[uri] = r
	}
	if err := r.enter(ctx, u, staged, f.Timestamp); err != nil {
		r.distrust()
		return err
	}
	t.welcome = true
	return nil
}

// enter judges a group that a Welcome leads to, and enters it.
func (r *Room) enter(ctx context.Context, u *unit, w *mls.StagedWelcome, accepted uint64) error {
	gc := w.GroupInfo().GroupContext
	if err := r.c.checkHub(ctx, r.uri, gc.Extensions); err != nil {
		return err
	}
	state, err := room.NewState(ctx, policy.Config{Member: true}, gc.Extensions, w.Members(), r.c.verdicts.in(r.uri))
	if err != nil {
		return err
	}
	if err := room.Check(gc.Extensions); err != nil {
		return err
	}
	if err := state.OneLeafEach(); err != nil {
		return err
	}
	if state.Room() != r.uri {
		return fmt.Errorf("client: the Welcome is to the group of %s, and came for %s", state.Room(), r.uri)
	}
	if state.RoleOf(r.c.User()) == mimi.RoleNone {
		return fmt.Errorf("client: %s does not participate in %s", r.c.User(), r.uri)
	}
	g, err := w.Join(ctx)
	if err != nil {
		return err
	}
	r.group, r.state, r.groupID, r.status, r.detail, r.request = g, state, g.ID(), RoomMember, "", nil
	r.since, r.newest = accepted, max(r.newest, accepted)
	r.store(ctx, u)
	if l, err := r.c.keys.leaf(ctx); err != nil || !r.hasLeaf(l) {
		r.c.setMoving(ctx, u) // the KeyPackage was one of an earlier key or credential
	}
	return r.pinAll(ctx, u)
}

func (r *Room) pinAll(ctx context.Context, u *unit) error {
	for m := range r.group.Members() {
		if err := r.c.pin(ctx, u, r.uri, m.Node); err != nil {
			return err
		}
	}
	return nil
}

// JoinOptions say how to join a room without a Welcome.
type JoinOptions struct {
	// Role that the user takes in the room; the one that the room gives if
	// zero. It counts only if the user does not participate yet.
	Role mimi.RoleIndex
	// Code is a join code that a member has passed on.
	Code []byte
}

// Join enters a room by an external commit: with another client of a
// participant, into an open room, by preauthorisation or with a join code.
// Where the client was a member and lost its state, its old leaf goes.
func (c *Client) Join(ctx context.Context, uri mimi.URI, opts JoinOptions) (*Room, error) {
	for try := 1; ; try++ {
		r, err := c.joinOnce(ctx, uri, opts)
		var refused *RefusedError
		if err == nil || !errors.As(err, &refused) || try == maxJoinTries || !overtaken(refused) {
			return r, err
		}
		if err := wait(ctx, jitter(try)); err != nil {
			return nil, err
		}
	}
}

// maxJoinTries bounds how often an external commit is made anew because
// others committed first.
const maxJoinTries = 50

// overtaken reports whether another commit, or a proposal, came first.
func overtaken(e *RefusedError) bool {
	return e.Code == mimi.UpdateWrongEpoch || e.Code == mimi.UpdateNotAllowed && e.Description == mimi.PendingProposals
}

func (c *Client) joinOnce(ctx context.Context, uri mimi.URI, opts JoinOptions) (*Room, error) {
	r := c.roomAt(uri)
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	switch r.status {
	case RoomMember, RoomLeaving:
		return nil, fmt.Errorf("client: it is a member of %s already", uri)
	case RoomJoining:
		return r, r.askToJoin(ctx)
	}
	answer, err := c.groupInfo(ctx, uri, opts.Code)
	if err == nil {
		err = r.step(acting(ctx), func(ctx context.Context, u *unit) error { return r.joinExternally(ctx, u, answer, opts) })
	}
	if err != nil && r.signed != nil { // nobody has seen it
		return nil, errors.Join(err, r.reportRejected(ctx, "not sent"))
	}
	if err != nil {
		return nil, err
	}
	return r, r.askToJoin(ctx)
}

// groupInfo asks the hub for what an external commit needs, and opens it.
func (c *Client) groupInfo(ctx context.Context, uri mimi.URI, code []byte) (*mimi.GroupInfoRatchetTree, error) {
	pause := firstPause
	for try := 1; ; try++ {
		answer, err := c.groupInfoOnce(ctx, uri, code)
		if err == nil || try == maxTries || !repeatable(err) {
			return answer, err
		}
		if wait(ctx, pause) != nil {
			return nil, err
		}
		pause *= 2
	}
}

// groupInfoOnce makes a request of its own: a hub takes no key twice.
func (c *Client) groupInfoOnce(ctx context.Context, uri mimi.URI, code []byte) (*mimi.GroupInfoRatchetTree, error) {
	l, err := c.keys.leaf(ctx)
	if err != nil {
		return nil, err
	}
	key, err := c.hpkeKey()
	if err != nil {
		return nil, err
	}
	q := &mimi.GroupInfoRequest{
		Protocol: mimi.ProtocolMLS10, CipherSuite: c.cfg.CipherSuite, RequestingKey: c.engine().SignatureKey(), RequestingCredential: l.credential,
		GroupInfoPublicKey: key.PublicKey().Bytes(), JoiningCode: code,
	}
	if err := q.Sign(ctx, l.signer); err != nil {
		return nil, err
	}
	body, err := c.provider.once(ctx, http.MethodPost, clientapi.GroupInfoPath(uri), q.Marshal())
	if err != nil {
		return nil, err
	}
	answer, err := mimi.ParseGroupInfoResponse(body)
	if err != nil {
		return nil, err
	}
	switch answer.Status {
	case mimi.GroupInfoNotAuthorized:
		return nil, fmt.Errorf("client: the hub lets nobody of %s into %s by external commit", c.User(), uri)
	case mimi.GroupInfoNoSuchRoom:
		return nil, fmt.Errorf("client: %s: %w at its hub", uri, ErrNoRoom)
	}
	hub, err := c.verdicts.in(uri).hub(ctx, answer.HubSender)
	if err != nil {
		return nil, err
	}
	if hub.Host() != uri.Host() {
		return nil, fmt.Errorf("client: the answer is signed by %s, not by the hub of %s", hub, uri)
	}
	return answer.Open(q, uri, key)
}

// joinExternally makes the external commit and stores it, with the group that
// it leads to, before anybody sees it.
func (r *Room) joinExternally(ctx context.Context, u *unit, a *mimi.GroupInfoRatchetTree, opts JoinOptions) error {
	gc := a.GroupInfo.GroupContext
	if err := room.Check(gc.Extensions); err != nil {
		return err
	}
	if err := r.c.checkHub(ctx, r.uri, gc.Extensions); err != nil {
		return err
	}
	if a.RatchetTree == nil || len(a.RatchetTree.Tree) == 0 {
		return errors.New("client: the hub gave no ratchet tree")
	}
	proposals, err := r.ownEntry(gc.Extensions, opts)
	if err != nil {
		return err
	}
	o := mls.ExternalJoinOptions{
		RatchetTree: a.RatchetTree.Tree, Proposals: proposals, GroupInfo: &mls.GroupInfoOptions{ExternalPub: true},
	}
	if old, ok := r.ownLeaf(ctx, a); ok {
		o.Resync, o.OldLeaf = true, &old
	}
	for _, p := range a.PendingProposals {
		o.Pending = append(o.Pending, p.Proposal.Bytes())
	}
	r.groupID = gc.GroupID
	ctx, signed := noting(ctx)
	j, err := r.c.engine().JoinExternal(ctx, a.GroupInfo, o)
	if signed.digest != nil {
		r.signed = &rejection{signed.digest, gc.Epoch}
	}
	if err != nil {
		return err
	}
	g, err := j.Join(ctx)
	if err != nil {
		return err
	}
	s, err := r.c.stateOf(ctx, r.uri, g)
	if err != nil {
		return err
	}
	if err := s.OneLeafEach(); err != nil {
		return err
	}
	if r.request, err = externalBundle(j); err != nil {
		return err
	}
	r.groupID, r.status, r.since = g.ID(), RoomJoining, uint64(r.c.now().UnixMilli())
	r.store(ctx, u)
	if r.signed != nil {
		r.storeSigned(ctx, u)
	}
	return nil
}

// ownEntry proposes the user for the participant list, if it is not there.
func (r *Room) ownEntry(ext mls.Extensions, opts JoinOptions) ([]mls.Proposal, error) {
	d, err := ext.AppData()
	if err != nil {
		return nil, err
	}
	value, _ := d.Find(mls.ComponentID(policy.ComponentParticipantList))
	list, err := mimi.ParseParticipantListData(value)
	if err != nil {
		return nil, err
	}
	if list.RoleOf(r.c.User()) != mimi.RoleNone {
		return nil, nil
	}
	role := opts.Role
	if role == mimi.RoleNone {
		if role, err = r.c.roleOffered(d); err != nil {
			return nil, err
		}
	}
	update := mimi.ParticipantListUpdate{AddedParticipants: []mimi.UserRolePair{{User: r.c.User(), Role: role}}}
	return []mls.Proposal{mls.UpdateAppData(mls.ComponentID(policy.ComponentParticipantList), update.Marshal())}, nil
}

// roleOffered is the role for which this user is preauthorised, or else the first
// to which the room lets somebody without a role change.
func (c *Client) roleOffered(d mls.AppDataDictionary) (mimi.RoleIndex, error) {
	if value, ok := d.Find(mls.ComponentID(policy.ComponentPreauth)); ok {
		list, err := policy.ParsePreAuthData(value)
		if err != nil {
			return 0, err
		}
		if i := list.Match(c.who().preauthorizes()); i >= 0 {
			return list.PreauthorizedEntries[i].TargetRole.Index, nil
		}
	}
	value, _ := d.Find(mls.ComponentID(policy.ComponentRoles))
	roles, err := policy.ParseRoleData(value)
	if err != nil {
		return 0, err
	}
	if none := roles.Role(mimi.RoleNone); none != nil {
		for _, ch := range none.AuthorizedRoleChanges {
			if ch.From == mimi.RoleNone && len(ch.Targets) > 0 {
				return ch.Targets[0], nil
			}
		}
	}
	return 0, errors.New("client: the room offers no role to those who have none; ask a participant to be added")
}

// ownLeaf returns the leaf of this client that is in the tree already, if there
// is one. Its key and credential may be others than the client has now.
func (r *Room) ownLeaf(ctx context.Context, a *mimi.GroupInfoRatchetTree) (mls.LeafIndex, bool) {
	p, err := mls.NewPublicGroup(ctx, a.GroupInfo, a.RatchetTree, mls.PublicConfig{Components: room.Components(), Judge: r.c.verdicts.judgeMLS})
	if err != nil {
		return 0, false // JoinExternal says what is wrong
	}
	for m := range p.Current().Members() {
		v, err := r.c.verdicts.in(r.uri).of(ctx, m.Node)
		if err == nil && v.Identity.Client == r.c.URI() {
			return m.Leaf, true
		}
	}
	return 0, false
}

func externalBundle(j *mls.ExternalJoin) ([]byte, error) {
	b, err := handshake(j.Message, j.GroupInfo)
	if err != nil {
		return nil, err
	}
	return b.Marshal(), nil
}

// askToJoin asks the hub for the external commit that is stored. It may be
// asked again.
func (r *Room) askToJoin(ctx context.Context) error {
	answer, err := ask(ctx, r.c.provider, http.MethodPost, clientapi.UpdatePath(r.uri), r.request, mimi.ParseUpdateRoomResponse)
	switch {
	case err != nil && unknown(err):
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case err == nil && answer.ResponseCode == mimi.UpdateSuccess:
		return r.step(ctx, func(ctx context.Context, u *unit) error {
			r.setStatus(ctx, u, RoomMember, "")
			r.since, r.signed = answer.AcceptedTimestamp, nil
			r.advance(ctx, u, answer.AcceptedTimestamp)
			r.store(ctx, u)
			r.storeSigned(ctx, u)
			return nil
		})
	case err == nil:
		err = &RefusedError{answer.ResponseCode, answer.ErrorDescription}
	}
	if report := r.reportRejected(ctx, "refused"); report != nil {
		return report // the room is still joining, and asks again
	}
	undo := r.step(ctx, func(ctx context.Context, u *unit) error { r.forget(ctx, u, err); return nil })
	if undo != nil {
		return undo
	}
	return err
}

// Rejoin brings a room back whose events could not be followed.
func (r *Room) Rejoin(ctx context.Context) error {
	if status, _ := r.Status(); status != RoomLost && status != RoomLeft {
		return fmt.Errorf("client: %s is %s; only a room that is lost or left is rejoined", r.uri, status)
	}
	_, err := r.c.Join(ctx, r.uri, JoinOptions{})
	return err
}
