package client

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mls"
)

// maintain settles what is open and renews what is due.
func (c *Client) maintain(ctx context.Context) error {
	if err := c.resumeAll(ctx); err != nil {
		return err
	}
	if err := c.topUpIfLow(ctx); err != nil {
		return err
	}
	if err := c.commitDue(ctx); err != nil {
		return err
	}
	if err := c.expelVoid(ctx, false); err != nil {
		return err
	}
	return c.Renew(ctx, false)
}

// resumeAll settles the rooms in which something is open.
func (c *Client) resumeAll(ctx context.Context) error {
	var open []mimi.URI
	err := c.store.each(ctx, `SELECT uri FROM room WHERE status IN ('creating', 'joining', 'leaving') OR pending = 1
		OR (status = 'member' AND uri IN (SELECT room FROM outbox))`, nil, func(rows *sql.Rows) error {
		var s string
		if err := rows.Scan(&s); err != nil {
			return err
		}
		u, err := mimi.ParseURI(s)
		open = append(open, u)
		return err
	})
	for _, uri := range open {
		r, roomErr := c.Room(ctx, uri)
		if roomErr == nil {
			roomErr = r.Resume(ctx)
		}
		if roomErr != nil && !errors.Is(roomErr, ErrUnknownOutcome) {
			c.log.Warn("a room has something open that could not be settled", "room", uri, "err", roomErr)
		}
		if roomErr != nil && ours(roomErr) {
			err = errors.Join(err, roomErr)
		}
	}
	return err
}

// Resume settles what a crash or a lost answer has left open in the room: its
// creation or joining, a commit, messages. It asks the hub for nothing twice
// that the hub would do twice.
func (r *Room) Resume(ctx context.Context) error {
	again, err := r.resumeCommit(ctx)
	if err != nil {
		return err
	}
	if again {
		if _, err := r.propose(ctx); err != nil {
			return err
		}
	}
	if status, _ := r.Status(); status != RoomMember {
		return nil
	}
	return r.flush(ctx)
}

// resumeCommit reports whether the client wants to leave and has no proposal
// for it any more.
func (r *Room) resumeCommit(ctx context.Context) (again bool, err error) {
	if err := r.lock(ctx); err != nil {
		return false, err
	}
	defer r.mu.Unlock()
	if r.status == RoomCreating || r.status == RoomJoining {
		return false, r.resume(ctx)
	}
	if r.status != RoomMember && r.status != RoomLeaving {
		return false, nil
	}
	if err := r.load(ctx); err != nil {
		return false, err
	}
	if r.group.Pending() != nil {
		if _, _, err := r.settle(ctx); err != nil {
			return false, err
		}
	}
	return r.status == RoomLeaving && !r.ownProposals(), nil
}

// resume asks the hub again for the room that is being created or joined.
func (r *Room) resume(ctx context.Context) error {
	if r.status == RoomCreating {
		return r.askToCreate(ctx)
	}
	return r.askToJoin(ctx)
}

func (c *Client) topUpIfLow(ctx context.Context) error {
	c.mu.Lock()
	low := c.low
	c.mu.Unlock()
	if !low {
		return nil
	}
	if _, err := c.KeyPackages(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.low = false
	c.mu.Unlock()
	return nil
}

// Leave has the user leave the room with all clients. It takes effect when
// another member commits it; until then the room is leaving and nothing can be
// sent.
func (r *Room) Leave(ctx context.Context) (RoomStatus, error) {
	for try := 1; ; try++ {
		again, err := r.propose(ctx)
		if err != nil || !again || try == maxJoinTries {
			status, _ := r.Status()
			return status, err
		}
		if err := wait(ctx, jitter(try)); err != nil {
			return "", err
		}
		if err := r.c.poll(ctx, 0); err != nil {
			return "", err
		}
	}
}

// propose proposes to leave. It reports whether a new epoch was faster.
func (r *Room) propose(ctx context.Context) (again bool, err error) {
	if err := r.lock(ctx); err != nil {
		return false, err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return false, err
	}
	if r.group.Size() == 1 {
		return false, r.abandon(ctx)
	}
	var body []byte
	if err := r.step(ctx, func(ctx context.Context, u *unit) (err error) { body, err = r.leaveBundle(ctx, u); return err }); err != nil {
		return false, err
	}
	answer, err := ask(ctx, r.c.provider, http.MethodPost, clientapi.UpdatePath(r.uri), body, mimi.ParseUpdateRoomResponse)
	switch {
	case err != nil && unknown(err):
		return false, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case err == nil && answer.ResponseCode == mimi.UpdateSuccess:
		return false, nil
	case err == nil && answer.ResponseCode == mimi.UpdateWrongEpoch:
		return true, r.stay(ctx, "")
	case err == nil:
		err = &RefusedError{answer.ResponseCode, answer.ErrorDescription}
	}
	return false, errors.Join(err, r.stay(ctx, err.Error()))
}

// leaveBundle proposes, as one intent, to take the user off the list and all of
// its clients out of the group.
func (r *Room) leaveBundle(ctx context.Context, u *unit) ([]byte, error) {
	i, err := r.index(r.c.User())
	if err != nil {
		return nil, err
	}
	list := []mls.Proposal{participants(mimi.ParticipantListUpdate{RemovedIndices: []uint32{i}})}
	for _, l := range r.leavesOf(ctx, anyClient, r.c.User()) {
		if l != r.group.OwnLeaf() {
			list = append(list, &mls.Remove{Removed: l})
		}
	}
	list = append(list, &mls.SelfRemove{})
	b := new(mimi.HandshakeBundle)
	for _, p := range list {
		raw, err := r.group.Propose(ctx, p, mls.ProposeOptions{WireFormat: mls.WirePublicMessage})
		if err != nil {
			return nil, err
		}
		m, err := mimi.ParseMLSMessage(raw)
		if err != nil {
			return nil, err
		}
		if b.ProposalOrCommit == nil {
			b.ProposalOrCommit = m
		} else {
			b.MoreProposals = append(b.MoreProposals, m)
		}
	}
	r.setStatus(ctx, u, RoomLeaving, "")
	return b.Marshal(), nil
}

// ownProposals reports whether a proposal of this client waits.
func (r *Room) ownProposals() bool {
	for _, p := range r.group.PendingProposals() {
		if s := p.Sender(); s.Type == mls.SenderMember && s.Index == uint32(r.group.OwnLeaf()) {
			return true
		}
	}
	return false
}

// stay takes the proposals of this client back, which the hub has not accepted.
func (r *Room) stay(ctx context.Context, detail string) error {
	return r.step(ctx, func(ctx context.Context, u *unit) error {
		kept := r.group.PendingProposals()
		r.group.ClearProposals()
		for _, p := range kept {
			if s := p.Sender(); s.Type == mls.SenderMember && s.Index == uint32(r.group.OwnLeaf()) {
				continue
			}
			if err := r.group.Keep(p); err != nil {
				return err
			}
		}
		r.setStatus(ctx, u, RoomMember, detail)
		return r.group.Save(ctx)
	})
}

// abandon leaves a room that has nobody else in it.
func (r *Room) abandon(ctx context.Context) error {
	if _, err := r.c.provider.call(ctx, http.MethodDelete, clientapi.SubscriptionPath(r.uri), nil); err != nil {
		return err
	}
	return r.step(ctx, func(ctx context.Context, u *unit) error {
		u.dropped = append(u.dropped, r.groupID)
		r.setStatus(ctx, u, RoomLeft, "nobody else was in it")
		r.drop()
		return nil
	})
}

// Destroy has the hub end the room for everybody.
func (r *Room) Destroy(ctx context.Context) error {
	_, err := r.c.provider.call(ctx, http.MethodDelete, clientapi.RoomPath(r.uri), nil)
	return err
}
