package provider

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/hub"
)

// A writer stores the messages of all rooms: what is ready at one time goes
// into one transaction, with one flush.
//
// A flush costs as much for one message as for many. So while others are with
// the device, the writer waits for some of them, until half of those that are
// on their way are ready; but no longer than a quarter of the time that the
// device took for one of them. A message that is on its way alone does not
// wait.
type writer struct {
	s *Service

	mu      sync.Mutex // guards what follows; no queue's lock is taken under it
	running bool
	dirty   []*queue      // those that may have messages to store
	flight  int           // messages that are accepted and not stored
	ready   int           // those of them that are franked
	took    time.Duration // what the device took for the first that is ready
	enough  chan struct{} // has an element when there is nothing to wait for
}

// maxTogether bounds the rooms whose messages share a transaction.
const maxTogether = 64

// maxPace is the longest that a message waits for others; what is shorter than
// minPace is not worth a timer.
const (
	minPace = 200 * time.Microsecond
	maxPace = 10 * time.Millisecond
)

// accepted counts a message that is on its way.
func (w *writer) accepted() {
	w.mu.Lock()
	w.flight++
	w.mu.Unlock()
}

// franked says that a message is ready, after the device took so long for it.
func (w *writer) franked(q *queue, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ready == 0 {
		w.took = took
	}
	w.ready++
	w.look(q)
}

// withdrawn says that a message is not stored, which others may have waited for.
func (w *writer) withdrawn(q *queue) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flight--
	w.look(q)
}

// look has a queue looked at. The caller holds w.mu.
func (w *writer) look(q *queue) {
	if !q.dirty {
		q.dirty, w.dirty = true, append(w.dirty, q)
	}
	if !w.running {
		w.running = true
		go w.run()
	} else if w.full() {
		select {
		case w.enough <- struct{}{}:
		default:
		}
	}
}

func (w *writer) full() bool { return 2*w.ready >= w.flight }

// run stores until nothing is left to.
func (w *writer) run() {
	for {
		w.pace()
		queues := w.take()
		if len(queues) == 0 {
			return
		}
		var lists []*outgoing
		for _, q := range queues {
			if list := q.begin(); list != nil {
				lists = append(lists, list)
			}
		}
		for part := range slices.Chunk(lists, maxTogether) {
			w.s.storeLists(part)
			for _, list := range part {
				w.stored(list)
			}
		}
	}
}

// pace waits while it is worth it.
func (w *writer) pace() {
	w.mu.Lock()
	wait := min(w.took/4, maxPace)
	if w.full() || wait < minPace {
		wait = 0
	}
	w.mu.Unlock()
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-w.enough:
			w.mu.Lock()
			full := w.full() // it may be of the time before
			w.mu.Unlock()
			if full {
				return
			}
		case <-timer.C:
			return
		}
	}
}

// take returns the queues to look at. With none, the writer ends.
func (w *writer) take() []*queue {
	w.mu.Lock()
	defer w.mu.Unlock()
	queues := w.dirty
	for _, q := range queues {
		q.dirty = false
	}
	w.dirty, w.running = nil, len(queues) > 0
	return queues
}

// stored tells those who wait for a list.
func (w *writer) stored(list *outgoing) {
	w.mu.Lock()
	w.flight -= len(list.tickets)
	w.ready -= len(list.tickets)
	w.mu.Unlock()
	if list.queue.end(list) {
		w.mu.Lock()
		w.look(list.queue)
		w.mu.Unlock()
	}
}

// An outgoing list is messages of one room that are stored in their order.
type outgoing struct {
	queue   *queue
	tickets []*ticket
	err     error
}

// apartFor is how many lists of a room are stored by themselves after another
// node was faster in it, so that a room for which nodes compete makes nobody else
// store twice.
const apartFor = 16

// storeLists stores the lists together. If a room has changed meanwhile, or a
// message is there already, each list is stored by itself.
func (s *Service) storeLists(lists []*outgoing) {
	var together []*outgoing
	for _, list := range lists {
		if list.queue.apart > 0 {
			list.queue.apart--
			s.storeList(list)
			continue
		}
		together = append(together, list)
	}
	if len(together) == 0 {
		return
	}
	ctx := context.Background() // the messages belong to several callers
	err := s.db.Batch(ctx, func(tx *sqldb.Tx) error { return s.putMessages(ctx, tx, together) })
	for _, list := range together {
		if len(together) > 1 && (errors.Is(err, hub.ErrStale) || sqldb.IsUnique(err)) {
			s.storeList(list)
			continue
		}
		list.err = err
		s.afterFlush(list)
	}
}

// storeList stores a list by itself.
func (s *Service) storeList(list *outgoing) {
	ctx := context.Background()
	list.err = s.db.Batch(ctx, func(tx *sqldb.Tx) error { return s.putMessages(ctx, tx, []*outgoing{list}) })
	if errors.Is(list.err, hub.ErrStale) {
		list.queue.apart = apartFor
	}
	s.afterFlush(list)
}

// afterFlush stores messages one by one where one of them is there already, and
// makes the outcome known.
func (s *Service) afterFlush(list *outgoing) {
	ctx := context.Background()
	if sqldb.IsUnique(list.err) && len(list.tickets) > 1 {
		each := make(outcomes, len(list.tickets))
		for i := range list.tickets {
			one := []*outgoing{{queue: list.queue, tickets: list.tickets[i : i+1]}}
			each[i] = s.db.Batch(ctx, func(tx *sqldb.Tx) error { return s.putMessages(ctx, tx, one) })
		}
		list.err = each
	}
	if list.err == nil {
		s.announce(list.tickets[0].room)
		return
	}
	s.lost(list.queue.entry, list.err)
}

// putMessages stores messages, those of each room in the order of their
// timestamps.
func (s *Service) putMessages(ctx context.Context, tx *sqldb.Tx, lists []*outgoing) error {
	n := 0
	for _, list := range lists {
		n += len(list.tickets)
	}
	first, err := advance(ctx, tx, n)
	if err != nil {
		return err
	}
	events := make([]numbered, 0, n)
	heads := make([]any, 0, 5*len(lists))
	for _, list := range lists {
		for _, t := range list.tickets {
			events = append(events, numbered{first + int64(len(events)), t.room, &t.event})
		}
		t, last := list.tickets[0], &events[len(events)-1]
		heads = append(heads, t.room, t.version, int64(t.event.Timestamp), int64(last.Timestamp), last.seq)
	}
	if err := putHeads(ctx, tx, len(lists), heads); err != nil {
		return err
	}
	for _, list := range lists {
		if !list.tickets[0].followed {
			continue
		}
		if err := s.wakeFollowers(ctx, tx, list.tickets[0].room); err != nil {
			return err
		}
	}
	return s.putEvents(ctx, tx, events)
}

// putHeads notes the newest messages of n rooms. Each must be as it was when its
// messages were accepted. heads has for each room its id, its version, the first
// and the last timestamp, and the number of the last event.
func putHeads(ctx context.Context, tx *sqldb.Tx, n int, heads []any) error {
	const one = `(CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT))`
	res, err := tx.Exec(ctx, `WITH now (id, version, first_ts, last_ts, head) AS (VALUES `+one+strings.Repeat(", "+one, n-1)+`)
		UPDATE room SET last_ts = now.last_ts, head = now.head FROM now
		WHERE room.id = now.id AND room.version = now.version AND room.last_ts < now.first_ts AND room.closed = 0`, heads...)
	if err != nil {
		return err
	}
	if done, err := res.RowsAffected(); err != nil || done != int64(n) {
		return errors.Join(err, hub.ErrStale)
	}
	return nil
}
