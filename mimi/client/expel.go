package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// A member whose credential is void for good is removed by the hub, which sees
// the revocation as this client does. If it does not in time, because it learns
// of it later or does not want to, a member removes the client itself, where the
// room's policy gives its role the right to kick. Until then nothing is sent to
// the room (ErrQuarantined).
const (
	expelAfter = 5 * time.Minute
	expelLooks = 5 // looks at all rooms in that time
)

// doubts are the members that should be removed.
type doubts struct {
	mu     sync.Mutex // guards what follows
	looked time.Time
	due    map[doubt]time.Time // when this client removes them
}

// A doubt is a leaf with a void credential in a room.
type doubt struct {
	room mimi.URI
	leaf [sha256.Size]byte // its verdictKey
}

// look reports whether it is time to look again.
func (d *doubts) look(now time.Time, every time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.looked) < every {
		return false
	}
	d.looked = now
	return true
}

// note notes the void leaves of a room, forgets those that are so no more, and
// returns those whose time has come. Members draw their times at random, so that
// one of them is first.
func (d *doubts) note(room mimi.URI, leaves [][sha256.Size]byte, now time.Time, after time.Duration) (due [][sha256.Size]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.due == nil {
		d.due = make(map[doubt]time.Time)
	}
	for k := range d.due {
		if k.room == room && !slices.Contains(leaves, k.leaf) {
			delete(d.due, k)
		}
	}
	for _, leaf := range leaves {
		k := doubt{room, leaf}
		at, known := d.due[k]
		if !known {
			d.due[k] = now.Add(after + rand.N(after/2+1))
		} else if !now.Before(at) {
			due = append(due, leaf)
			d.due[k] = now.Add(after) // the next try, if this one fails
		}
	}
	return due
}

// expelVoid looks for members with void credentials, in all rooms or in those
// that are in memory, and removes those whom the hub has not.
func (c *Client) expelVoid(ctx context.Context, everywhere bool) error {
	after := c.cfg.ExpelAfter
	if !c.doubts.look(c.now(), after/expelLooks) {
		return nil
	}
	rooms, err := c.roomsToLookAt(ctx, everywhere)
	if err != nil {
		return err
	}
	for _, r := range rooms {
		void, err := r.void(ctx, everywhere)
		if err == nil {
			if due := c.doubts.note(r.uri, void, c.now(), after); len(due) > 0 {
				err = r.expel(ctx, due)
			}
		}
		var refusal *policy.Refusal
		switch {
		case err == nil:
		case errors.As(err, &refusal):
			c.log.Info("a member with a void credential is left to the hub", "room", r.uri, "err", err)
		case ours(err):
			return err
		default:
			c.log.Warn("a member with a void credential could not be removed", "room", r.uri, "err", err)
		}
	}
	return nil
}

func (c *Client) roomsToLookAt(ctx context.Context, everywhere bool) ([]*Room, error) {
	if everywhere {
		return c.Rooms(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	rooms := make([]*Room, 0, len(c.rooms))
	for _, r := range c.rooms {
		rooms = append(rooms, r)
	}
	return rooms, nil
}

// void lists the leaves of others whose credentials are void, by their
// verdictKeys; none if the room is not in memory and is not to be loaded.
func (r *Room) void(ctx context.Context, load bool) (list [][sha256.Size]byte, err error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	if r.status != RoomMember || r.group == nil && !load {
		return nil, nil
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	for m := range r.group.Members() {
		v, err := r.c.verdicts.in(r.uri).of(ctx, m.Node)
		if err != nil {
			return nil, err
		}
		if v.ForGood && m.Leaf != r.group.OwnLeaf() {
			list = append(list, verdictKey(r.uri, m.Node))
		}
	}
	return list, nil
}

// expel commits the removal of leaves, which must still be there with the same
// credential. Those whose removal is proposed already go with the commit.
func (r *Room) expel(ctx context.Context, keys [][sha256.Size]byte) error {
	_, err := r.commit(ctx, func(context.Context) (*intent, error) {
		do := new(intent)
		waits := false
		for m := range r.group.Members() {
			switch {
			case m.Leaf == r.group.OwnLeaf() || !slices.Contains(keys, verdictKey(r.uri, m.Node)):
			case r.removalWaits(m.Leaf):
				waits = true
			default:
				do.proposals = append(do.proposals, &mls.Remove{Removed: m.Leaf})
			}
		}
		if len(do.proposals) == 0 && !waits {
			return nil, nil
		}
		return do, nil
	})
	return err
}

// removalWaits reports whether the removal of a leaf is proposed.
func (r *Room) removalWaits(leaf mls.LeafIndex) bool {
	return slices.ContainsFunc(r.group.PendingProposals(), func(p *mls.VerifiedProposal) bool {
		remove, ok := p.Proposal().(*mls.Remove)
		return ok && remove.Removed == leaf
	})
}
