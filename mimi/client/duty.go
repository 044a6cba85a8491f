package client

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/privyseal/privyseal/mimi"
)

// A proposal that waits takes effect when a member commits it: the hub's to
// remove a device that was revoked, somebody's to leave. In each epoch a few
// members, others each time, are called to do so: the first at once, the next an
// eighth of Config.CommitAfter later, and so on. Each other member that is there
// commits after a delay drawn at random, unless somebody was faster. So it happens
// at once where the first is there, and within seconds also in a room where nobody
// speaks.
const (
	commitAfter = 2 * time.Second
	called      = 3
	dutyTick    = 250 * time.Millisecond
)

// dutyDelay is how long this client waits before it commits what waits.
func (r *Room) dutyDelay() time.Duration {
	most := r.c.cfg.CommitAfter
	if n := r.turn(); n < called {
		return most / 8 * time.Duration(n)
	}
	return most*called/8 + rand.N(most-most*called/8+1)
}

// turn is how many members are called before this one in the epoch, by an order
// that all members find.
func (r *Room) turn() int {
	h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(r.group.ID()), r.group.Epoch()))
	own, n := 0, 0
	for m := range r.group.Members() {
		if m.Leaf == r.group.OwnLeaf() {
			own = n
		}
		n++
	}
	first := int(binary.BigEndian.Uint64(h[:]) % uint64(n))
	return (own - first + n) % n
}

// A duty has the rooms in which proposals wait, and when this client commits
// them.
type duty struct {
	wake chan struct{} // has a value when something is due at once

	mu  sync.Mutex // guards due
	due map[mimi.URI]time.Time
}

// add notes that a proposal waits in a room, to be committed after a while. An
// earlier time stays.
func (d *duty) add(room mimi.URI, now time.Time, after time.Duration) {
	if after == 0 {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.due == nil {
		d.due = make(map[mimi.URI]time.Time)
	}
	if _, waits := d.due[room]; !waits {
		d.due[room] = now.Add(after)
	}
}

// take returns the rooms whose time has come, and forgets them.
func (d *duty) take(now time.Time) (rooms []mimi.URI) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for room, at := range d.due {
		if !now.Before(at) {
			rooms = append(rooms, room)
			delete(d.due, room)
		}
	}
	return rooms
}

// commitDue commits what waits in the rooms whose time has come. What the hub
// or the room's policy refuses is somebody else's to commit; it is tried again
// when the next proposal comes.
func (c *Client) commitDue(ctx context.Context) error {
	for _, uri := range c.duty.take(c.now()) {
		r, err := c.Room(ctx, uri)
		if err == nil {
			err = r.commitDuty(ctx)
		}
		switch {
		case err == nil:
		case ours(err):
			c.duty.add(uri, c.now(), c.cfg.CommitAfter)
			return err
		default:
			c.log.Info("proposals that wait are left to others", "room", uri, "err", err)
		}
	}
	return nil
}

// commitDuty is commitPending in a room that this client is not leaving.
func (r *Room) commitDuty(ctx context.Context) error {
	if status, _ := r.Status(); status != RoomMember {
		return nil
	}
	return r.commitPending(ctx)
}

// pause waits for a tick, or for what is due at once.
func (d *duty) pause(ctx context.Context) error {
	t := time.NewTimer(dutyTick)
	defer t.Stop()
	select {
	case <-t.C:
	case <-d.wake:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// keepCommitting does its duty until ctx ends, and removes whom the hub should
// have removed.
func (c *Client) keepCommitting(ctx context.Context) {
	for c.duty.pause(ctx) == nil {
		if err := c.commitDue(ctx); err != nil && !errors.Is(err, context.Canceled) {
			c.log.Warn("proposals that wait could not be committed", "err", err)
		}
		if err := c.expelVoid(ctx, true); err != nil && !errors.Is(err, context.Canceled) {
			c.log.Warn("members whose credentials are void could not be looked for", "err", err)
		}
	}
}
