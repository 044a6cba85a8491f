package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A taker takes in a list of events. It keeps the locks of the rooms that it
// has touched until all is stored: what is in memory is ahead of the state, and
// nobody else may store a group before the cursor goes with it.
type taker struct {
	c       *Client
	rooms   map[mimi.URI]*Room
	low     bool // the provider wants KeyPackages
	welcome bool // a KeyPackage was used up
}

func newTaker(c *Client) *taker { return &taker{c: c, rooms: make(map[mimi.URI]*Room)} }

func (t *taker) release() {
	for _, r := range t.rooms {
		r.mu.Unlock()
	}
}

// dropAll has all rooms read from the state again.
func (t *taker) dropAll() {
	for _, r := range t.rooms {
		r.distrust()
	}
}

// after does what is not part of the transaction. Its failures are those of
// the next time.
func (t *taker) after(ctx context.Context) error {
	if t.welcome {
		if err := t.c.keys.sweep(ctx); err != nil {
			t.c.log.Warn("init keys of used KeyPackages are still in the device", "err", err)
		}
	}
	t.c.mu.Lock()
	t.c.low = t.c.low || t.low || t.welcome
	t.c.mu.Unlock()
	return nil
}

// room returns the room of an event with its lock held, or nil if the client
// has no such room.
func (t *taker) room(ctx context.Context, uri mimi.URI) (*Room, error) {
	if r := t.rooms[uri]; r != nil {
		return r, nil
	}
	r, err := t.c.Room(ctx, uri)
	if errors.Is(err, ErrNoRoom) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	t.rooms[uri] = r
	if r.status == RoomJoining || r.status == RoomCreating {
		return r, t.settle(ctx, r)
	}
	return r, nil
}

// settle finds out if this client has come into a room, before an event of it
// is taken in: only those who are in it get events.
func (t *taker) settle(ctx context.Context, r *Room) error {
	err := r.resume(ctx)
	if errors.Is(err, ErrUnknownOutcome) {
		return &StateError{err} // the event is looked at again later
	}
	if err != nil && !ours(err) {
		t.c.log.Warn("a room was not entered", "room", r.uri, "err", err)
		return nil
	}
	return err
}

// event takes in one event. It fails only for reasons of this side; what is
// wrong with an event is recorded.
func (t *taker) event(ctx context.Context, u *unit, e *clientapi.Event) error {
	var err error
	switch e.Kind {
	case clientapi.EventKeyPackagesLow:
		t.low = true
	case clientapi.EventRoomClosed:
		return t.closed(ctx, u, e)
	case clientapi.EventConsent:
		err = t.takeConsent(ctx, u, e)
	case clientapi.EventFanout:
		var f *mimi.FanoutMessage
		if f, err = e.Fanout(); err == nil {
			err = t.fanout(ctx, u, e.Room, f)
		}
	}
	if err == nil || ours(err) {
		return err
	}
	t.c.log.Warn("an event is refused", "seq", e.Seq, "room", e.Room, "err", err)
	t.refuse(ctx, u, e, err)
	return nil
}

// What is kept of events that are refused, which others may send as many of as
// they like.
const (
	maxRefused = 1000 // the newest
	maxReason  = 1024 // octets of a reason
)

// refuse is the step that records what is wrong with an event.
func (t *taker) refuse(ctx context.Context, u *unit, e *clientapi.Event, err error) {
	reason := err.Error()
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO refused (room, seq, at, what, reason) VALUES (?, ?, ?, ?, ?) ON CONFLICT (seq) DO NOTHING`,
			e.Room.String(), int64(e.Seq), int64(e.Time), "event", reason)
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM refused WHERE n <= (SELECT max(n) FROM refused) - ?`, t.c.maxRefused)
		}
		return err
	})
}

func (t *taker) closed(ctx context.Context, u *unit, e *clientapi.Event) error {
	r, err := t.room(ctx, e.Room)
	if err != nil || r == nil {
		return err
	}
	r.setStatus(ctx, u, RoomClosed, "destroyed by its hub")
	r.drop()
	return nil
}

func (t *taker) fanout(ctx context.Context, u *unit, uri mimi.URI, f *mimi.FanoutMessage) error {
	ctx = inRoom(ctx, uri)
	if f.Message.WireFormat == mls.WireWelcome {
		return t.takeWelcome(ctx, u, uri, f)
	}
	r, err := t.room(ctx, uri)
	if err != nil {
		return err
	}
	if r == nil || r.status != RoomMember && r.status != RoomLeaving {
		return nil // the hub has not heard yet that the client left, or it is yet to join
	}
	if err := r.loadGroup(ctx); err != nil {
		return r.lose(ctx, u, err)
	}
	switch f.Message.ContentType {
	case mls.ContentApplication:
		return r.takeMessage(ctx, u, f)
	case mls.ContentProposal:
		return r.takeProposals(ctx, u, append([]*mimi.MLSMessage{f.Message}, f.MoreProposals...))
	case mls.ContentCommit:
		if err := r.takeCommit(ctx, u, f); err != nil {
			return r.lose(ctx, u, err)
		}
	}
	return nil
}

// lose gives a room up that cannot be followed any more, unless the reason is
// on this side.
func (r *Room) lose(ctx context.Context, u *unit, err error) error {
	if ours(err) {
		return err
	}
	r.setStatus(ctx, u, RoomLost, err.Error())
	r.drop()
	return fmt.Errorf("room %s is lost: %w", r.uri, err)
}

// takeCommit enters the epoch of a commit that the hub ordered.
func (r *Room) takeCommit(ctx context.Context, u *unit, f *mimi.FanoutMessage) error {
	switch m := f.Message; {
	case m.Epoch+1 == r.group.Epoch():
		// This client's own; what the hub proposed anew with it is news.
		return r.takeProposals(ctx, u, f.ExternalProposals)
	case m.Epoch < r.group.Epoch():
		return nil // one that came before
	case m.Epoch > r.group.Epoch():
		return fmt.Errorf("a commit of epoch %d came in epoch %d", m.Epoch, r.group.Epoch())
	case r.isPending(m.Bytes()):
		if err := r.mergeInto(ctx, u, r.group.Pending().Staged, f.Timestamp); err != nil {
			return err
		}
	default:
		if err := r.takeOthers(ctx, u, f); err != nil {
			return err
		}
	}
	if r.group == nil {
		return nil // the commit removed this client
	}
	return r.takeProposals(ctx, u, f.ExternalProposals)
}

func (r *Room) takeOthers(ctx context.Context, u *unit, f *mimi.FanoutMessage) error {
	m, err := mls.ParseMessage(f.Message.Bytes())
	if err != nil {
		return err
	}
	v, err := r.group.Verify(m)
	if err != nil {
		return err
	}
	commit, ok := v.(*mls.VerifiedCommit)
	if !ok {
		return errors.New("it is no commit")
	}
	staged, err := r.group.Stage(ctx, commit)
	if err != nil {
		return err
	}
	return r.mergeInto(ctx, u, staged, f.Timestamp)
}

// takeProposals keeps proposals for the commit that will cover them.
func (r *Room) takeProposals(ctx context.Context, u *unit, list []*mimi.MLSMessage) error {
	kept := false
	var refused error
	for _, raw := range list {
		if raw.Epoch != r.group.Epoch() {
			continue // a commit was faster
		}
		switch err := r.takeProposal(ctx, raw); {
		case errors.Is(err, errClosed):
			r.setStatus(ctx, u, RoomClosed, "destroyed by its hub")
			r.drop()
			return nil
		case errors.Is(err, mls.ErrOwnMessage):
		case err != nil:
			refused = err
		default:
			kept = true
		}
	}
	if kept {
		if err := r.group.Save(ctx); err != nil {
			return err
		}
	}
	return refused
}

// errClosed is found when the hub says that the room is no more.
var errClosed = errors.New("the room is closed")

func (r *Room) takeProposal(ctx context.Context, raw *mimi.MLSMessage) error {
	m, err := mls.ParseMessage(raw.Bytes())
	if err != nil {
		return err
	}
	v, err := r.group.Verify(m)
	if err != nil {
		return err
	}
	p, ok := v.(*mls.VerifiedProposal)
	if !ok {
		return errors.New("it is no proposal")
	}
	if room.IsClosing(p.Sender(), p.Proposal()) {
		return r.closedBy(ctx, p.Sender().Index)
	}
	if err := r.group.Keep(p); err != nil {
		return err
	}
	r.c.duty.add(r.uri, r.c.now(), r.dutyDelay())
	return nil
}

// closedBy returns errClosed if an external sender that says so is the room's
// hub.
func (r *Room) closedBy(ctx context.Context, index uint32) error {
	gc := r.group.Context()
	senders, err := gc.Extensions.ExternalSenders()
	if err != nil || int64(index) >= int64(len(senders)) {
		return errors.New("it is of no external sender")
	}
	if _, err := r.c.verdicts.in(r.uri).hub(ctx, senders[index]); err != nil {
		return err
	}
	return errClosed
}
