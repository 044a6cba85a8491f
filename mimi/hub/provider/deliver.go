package provider

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/peer"
)

// Bounds of one delivery.
const (
	batchEvents = 64
	batchOctets = 1 << 20
	lease       = 45 * time.Second // after which another worker takes over from one that hangs
)

// Run delivers events to the providers that follow our rooms, and tidies up,
// until ctx ends. Several nodes may run at once.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	if s.cfg.Peers != nil {
		if err := s.reclaim(ctx); err != nil { // then the leases end by themselves
			s.beating.note(s.cfg.Log, "nodes of the provider", err)
		}
		wg.Go(func() { s.beat(ctx) })
		wg.Go(func() { s.deliverAll(ctx) })
	}
	wg.Go(func() { s.tidy(ctx) })
	wg.Go(func() { s.followParents(ctx) })
	wg.Go(func() { s.followSenders(ctx) })
	wg.Wait()
	return nil
}

func (s *Service) tidy(ctx context.Context) {
	for {
		if err := s.Purge(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("old events could not be deleted", "err", err)
		}
		if err := s.refrank(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("the new franking key could not be proposed to all rooms; it is tried again", "err", err)
		}
		// What a node that died has not come to.
		if list, err := s.dependants(ctx, `hub = ''`); err == nil {
			s.orphans.add(list...)
		}
		if list, err := s.delisted(ctx); err == nil {
			s.listing.add(list...)
		}
		select {
		case <-time.After(time.Hour):
		case <-s.tend:
		case <-ctx.Done():
			return
		}
	}
}

// deliverAll takes on followers for which something is due, as many at a time as
// there is room for, and delivers to all of them at once. A slow one keeps its
// own place and holds up nobody else.
func (s *Service) deliverAll(ctx context.Context) {
	places := make(chan struct{}, s.cfg.Workers)
	done := make(chan *delivery, s.cfg.Workers)
	var under, settling sync.WaitGroup
	settling.Go(func() { s.settleAll(done, places) })
	defer settling.Wait()
	defer close(done)
	defer under.Wait()
	for ctx.Err() == nil {
		n := take(ctx, places)
		list, err := s.takeOn(ctx, n)
		if ctx.Err() == nil {
			s.delivering.note(s.cfg.Log, "delivery to other providers", err)
		}
		for range n - len(list) {
			<-places
		}
		for _, d := range list {
			under.Go(func() { s.deliver(ctx, d); done <- d })
		}
		if len(list) == n && n > 0 {
			continue // there may be more
		}
		select {
		case <-s.work:
		case <-time.After(s.cfg.Poll):
		case <-ctx.Done():
		}
	}
}

// take takes the places that are free, at least one, and returns how many; none
// when ctx has ended.
func take(ctx context.Context, places chan struct{}) (n int) {
	select {
	case places <- struct{}{}:
		n++
	case <-ctx.Done():
		return 0
	}
	for {
		select {
		case places <- struct{}{}:
			n++
		default:
			return n
		}
	}
}

// takeOn returns deliveries that this node has taken on, with what they bring.
func (s *Service) takeOn(ctx context.Context, most int) ([]*delivery, error) {
	if due, err := s.due(ctx); !due || err != nil || most == 0 {
		return nil, err
	}
	list, err := s.lease(ctx, most)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if err := s.collect(ctx, list); err != nil {
		for _, d := range list {
			d.err = err
		}
	}
	return list, nil
}

// deliver brings one follower what there is for it.
func (s *Service) deliver(ctx context.Context, d *delivery) {
	if d.err != nil {
		return
	}
	if len(d.body) > 0 {
		_, d.err = s.cfg.Peers.Do(ctx, d.provider, peer.Notify, d.uri, d.body)
		s.reached(ctx, d, d.err)
	}
	if d.err == nil {
		d.err = s.step("after a delivery")
	}
}

// A delivery is events for one follower of one room. One is under way at a
// time.
type delivery struct {
	room     int64
	uri      string
	provider string
	sent     int64
	until    sql.NullInt64
	attempts int
	lease    int64 // what marks it as this worker's

	body []byte
	last int64 // seq of the last event that is dealt with
	more bool
	full bool // takes no further events
	err  error
}

// reached logs when a follower is away, and when it is back.
func (s *Service) reached(ctx context.Context, d *delivery, err error) {
	switch {
	case err != nil && d.attempts == 0 && ctx.Err() == nil:
		s.cfg.Log.Warn("a follower takes no delivery; it is tried again", "provider", d.provider, "room", d.uri, "err", err)
	case err == nil && d.attempts > 0:
		s.cfg.Log.Info("a follower takes deliveries again", "provider", d.provider, "room", d.uri, "failed", d.attempts)
	}
}

// due reports whether something is, without a write.
func (s *Service) due(ctx context.Context) (due bool, err error) {
	now := s.nowMS()
	var n int
	err = s.db.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM follower WHERE due <= ? AND lease < ? LIMIT 1) AS f`, now, now).Scan(&n)
	return n > 0, err
}

// lease takes followers for which something is due. Others pass them over until
// they are given back, or the lease is over because its node has died.
func (s *Service) lease(ctx context.Context, most int) (list []*delivery, err error) {
	now := s.nowMS()
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx)              // a query that is broken off takes the batch of all with it
		if _, err := advance(ctx, tx, 0); err != nil { // the counter first, like everybody
			return err
		}
		var err error
		if list, err = leasable(ctx, tx, now, most); err != nil || len(list) == 0 {
			return err
		}
		until := now + lease.Milliseconds()
		args := []any{until, s.cfg.NodeID}
		for _, d := range list {
			d.lease = until
			args = append(args, d.room, d.provider)
		}
		_, err = tx.Exec(ctx, `UPDATE follower SET lease = ?, holder = ? WHERE (room, provider) IN (VALUES (CAST(? AS BIGINT), ?)`+
			strings.Repeat(`, (CAST(? AS BIGINT), ?)`, len(list)-1)+`)`, args...)
		return err
	})
	return list, err
}

// leasable returns followers for which something is due, the longest first.
func leasable(ctx context.Context, tx *sqldb.Tx, now int64, most int) (list []*delivery, err error) {
	rows, err := tx.Query(ctx, `SELECT f.room, r.uri, f.provider, f.sent, f.until_seq, f.attempts FROM follower f JOIN room r ON r.id = f.room
		WHERE f.due <= ? AND f.lease < ? ORDER BY f.due LIMIT ?`+skipLocked(tx), now, now, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		d := new(delivery)
		if err := rows.Scan(&d.room, &d.uri, &d.provider, &d.sent, &d.until, &d.attempts); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

func skipLocked(tx *sqldb.Tx) string {
	if words := tx.SkipLocked(); words != "" {
		return " FOR UPDATE OF f SKIP LOCKED"
	}
	return ""
}

// collect reads the next events for the followers. Those who stand at the same
// place of a room are served by one reading.
func (s *Service) collect(ctx context.Context, list []*delivery) error {
	type place struct{ room, sent int64 }
	at := make(map[place][]*delivery)
	for _, d := range list {
		p := place{d.room, d.sent}
		at[p] = append(at[p], d)
	}
	return s.db.Read(ctx, func(tx *sqldb.Tx) error {
		for p, group := range at {
			if err := collectAt(ctx, tx, p.room, p.sent, group); err != nil {
				return err
			}
		}
		return nil
	})
}

func collectAt(ctx context.Context, tx *sqldb.Tx, room, sent int64, group []*delivery) error {
	for _, d := range group {
		d.body, d.last, d.more, d.full = nil, sent, false, false
	}
	list, more, err := nextEvents(ctx, tx, room, sent)
	if err != nil {
		return err
	}
	for i := range list {
		e := &list[i]
		if e.tree != 0 && slices.ContainsFunc(group, func(d *delivery) bool { return !d.full && d.wants(e.kind, e.providers, e.deaf) }) {
			if e.body, err = completed(ctx, tx, room, e.tree, e.body); err != nil {
				return err
			}
		}
		for _, d := range group {
			d.add(e.seq, e.kind, e.body, e.providers, e.deaf)
		}
		e.body = nil
	}
	for _, d := range group {
		d.more = d.more || more && !d.full
	}
	return nil
}

// A dueEvent is an event that followers may want.
type dueEvent struct {
	seq             int64
	kind            hub.EventKind
	body            []byte
	tree            int64
	providers, deaf string
}

// nextEvents reads events of a room after a number, no more than a delivery
// takes, and reports whether there may be more.
func nextEvents(ctx context.Context, tx *sqldb.Tx, room, after int64) (list []dueEvent, more bool, err error) {
	rows, err := tx.Query(ctx, `SELECT seq, kind, body, tree, providers, deaf FROM event WHERE room = ? AND seq > ? ORDER BY seq LIMIT ?`, room, after, batchEvents)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	size := 0
	for size < batchOctets && rows.Next() {
		var e dueEvent
		if err := rows.Scan(&e.seq, &e.kind, &e.body, &e.tree, &e.providers, &e.deaf); err != nil {
			return nil, false, err
		}
		size += len(e.body)
		list = append(list, e)
	}
	return list, len(list) == batchEvents || size >= batchOctets, rows.Err()
}

// add takes an event along, if it is for the follower and there is room for it.
func (d *delivery) add(seq int64, kind hub.EventKind, body []byte, providers, deaf string) {
	if d.full {
		return
	}
	if d.until.Valid && seq > d.until.Int64 {
		d.full = true
		return
	}
	if d.wants(kind, providers, deaf) {
		if len(d.body) > 0 && len(d.body)+len(body) > batchOctets {
			d.full, d.more = true, true
			return
		}
		d.body = append(d.body, body...)
	}
	d.last = seq
}

// wants reports whether an event is for the follower.
func (d *delivery) wants(kind hub.EventKind, providers, deaf string) bool {
	switch kind {
	case hub.EventMessage:
		return !inHosts(deaf, d.provider)
	case hub.EventProposal, hub.EventCommit:
		return true
	case hub.EventWelcome:
		return inHosts(providers, d.provider)
	}
	return false
}
