package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// maxTaken is how many events are taken in by one transaction.
const maxTaken = 64

// Sync takes in the events that wait at the provider, settles what a crash or
// a lost answer has left open, and renews what is due.
func (c *Client) Sync(ctx context.Context) error {
	if err := c.poll(ctx, 0); err != nil {
		return err
	}
	return c.maintain(ctx)
}

// poll asks for events once, waiting for the first as long as it takes but not
// longer than wait, and takes in what comes. When it returns, no event that
// was there at the beginning is left.
func (c *Client) poll(ctx context.Context, wait time.Duration) error {
	for {
		n, err := c.pollOnce(ctx, wait)
		if clientapi.CodeCursorGone.Is(err) {
			return c.startOver(ctx)
		}
		if err != nil || n == 0 || wait > 0 {
			return err
		}
	}
}

func (c *Client) pollOnce(ctx context.Context, wait time.Duration) (n int, err error) {
	after, err := c.cursor(ctx)
	if err != nil {
		return 0, err
	}
	q := &clientapi.EventQuery{After: after, Wait: wait}
	err = c.read(ctx, q, func(events []*clientapi.Event) error {
		n += len(events)
		return c.take(ctx, events)
	})
	return n, err
}

// Watch follows the events until ctx ends. It reconnects by itself, and calls
// told, if it is not nil, after events were taken in.
func (c *Client) Watch(ctx context.Context, told func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var committing sync.WaitGroup
	defer committing.Wait()
	committing.Go(func() { c.keepCommitting(ctx) })
	defer cancel()
	pause := firstPause
	for {
		err := c.watchOnce(ctx, told)
		if clientapi.CodeCursorGone.Is(err) {
			err = c.startOver(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			pause = firstPause
			continue
		case !repeatable(err) && !ours(err):
			return err
		}
		c.log.Warn("the event stream broke", "err", err, "pause", pause)
		if wait(ctx, pause) != nil {
			return ctx.Err()
		}
		pause = min(2*pause, maxPause)
	}
}

func (c *Client) watchOnce(ctx context.Context, told func()) error {
	if err := c.maintain(ctx); err != nil {
		return err
	}
	after, err := c.cursor(ctx)
	if err != nil {
		return err
	}
	q := &clientapi.EventQuery{After: after, Wait: clientapi.MaxWait, Follow: true}
	return c.read(ctx, q, func(events []*clientapi.Event) error {
		if err := c.take(ctx, events); err != nil {
			return err
		}
		if told != nil {
			told()
		}
		return nil
	})
}

// read reads the answer to a query and hands events on as they come, those
// that are there already together.
func (c *Client) read(ctx context.Context, q *clientapi.EventQuery, hand func([]*clientapi.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.provider.do(ctx, http.MethodGet, clientapi.PathEvents+"?"+q.Values().Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	incoming := make(chan *clientapi.Event, maxTaken)
	ended := make(chan error, 1)
	go func() { ended <- pump(ctx, clientapi.NewEventReader(resp.Body, q), incoming, cancel) }()
	for first := range incoming {
		if err := hand(gather(first, incoming)); err != nil {
			return err
		}
	}
	return <-ended
}

// pump reads events until the answer ends. A stream that is silent for longer
// than its heartbeats allow is broken.
func pump(ctx context.Context, r *clientapi.EventReader, incoming chan<- *clientapi.Event, cancel func()) error {
	defer close(incoming)
	silence := time.AfterFunc(3*clientapi.Heartbeat, cancel)
	defer silence.Stop()
	for {
		e, err := r.Next()
		silence.Reset(3 * clientapi.Heartbeat)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &LostError{err}
		case e == nil:
			continue
		}
		select {
		case incoming <- e:
		case <-ctx.Done():
			return &LostError{ctx.Err()}
		}
	}
}

func gather(first *clientapi.Event, incoming <-chan *clientapi.Event) []*clientapi.Event {
	list := []*clientapi.Event{first}
	for len(list) < maxTaken {
		select {
		case e, ok := <-incoming:
			if !ok {
				return list
			}
			list = append(list, e)
		default:
			return list
		}
	}
	return list
}

func (c *Client) cursor(ctx context.Context) (uint64, error) {
	var n int64
	err := c.store.one(ctx, `SELECT cursor FROM client`, nil, &n)
	return uint64(n), err
}

// take takes in events, which one transaction stores with the cursor. Events
// behind the cursor were taken in already.
func (c *Client) take(ctx context.Context, events []*clientapi.Event) error {
	c.events.Lock()
	defer c.events.Unlock()
	cursor, err := c.cursor(ctx)
	if err != nil {
		return err
	}
	t := newTaker(c)
	defer t.release()
	unitCtx, u := collect(ctx)
	for _, e := range events {
		if e.Seq <= cursor {
			continue
		}
		if err := t.event(unitCtx, u, e); err != nil {
			t.dropAll()
			return fmt.Errorf("client: event %d: %w", e.Seq, err)
		}
		cursor = e.Seq
	}
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE client SET cursor = max(cursor, ?)`, int64(cursor))
		return err
	})
	if err := c.store.commit(ctx, u); err != nil {
		t.dropAll()
		return err
	}
	return t.after(ctx)
}
