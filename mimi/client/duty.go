package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/privyseal/privyseal/mimi"
)

// A proposal that waits takes effect when a member commits it: the hub's to
// remove a device that was revoked, somebody's to leave. Each member that is
// there commits after a delay drawn at random, unless another was faster, so
// that it happens within seconds also in a room where nobody speaks.
const (
	dutyDelay = 2 * time.Second
	dutyTick  = 250 * time.Millisecond
)

// A duty has the rooms in which proposals wait, and when this client commits
// them.
type duty struct {
	mu  sync.Mutex // guards due
	due map[mimi.URI]time.Time
}

// add notes that a proposal waits in a room. An earlier time stays.
func (d *duty) add(room mimi.URI, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.due == nil {
		d.due = make(map[mimi.URI]time.Time)
	}
	if _, waits := d.due[room]; !waits {
		d.due[room] = now.Add(rand.N(dutyDelay))
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
			c.duty.add(uri, c.now())
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

// keepCommitting does its duty until ctx ends, and removes whom the hub should
// have removed.
func (c *Client) keepCommitting(ctx context.Context) {
	for wait(ctx, dutyTick) == nil {
		if err := c.commitDue(ctx); err != nil && !errors.Is(err, context.Canceled) {
			c.log.Warn("proposals that wait could not be committed", "err", err)
		}
		if err := c.expelVoid(ctx, true); err != nil && !errors.Is(err, context.Canceled) {
			c.log.Warn("members whose credentials are void could not be looked for", "err", err)
		}
	}
}
