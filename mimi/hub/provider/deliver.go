package provider

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
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
		for range s.cfg.Workers {
			wg.Go(func() { s.deliverAll(ctx) })
		}
	}
	wg.Go(func() { s.tidy(ctx) })
	wg.Go(func() { s.followParents(ctx) })
	wg.Wait()
	return nil
}

func (s *Service) tidy(ctx context.Context) {
	for {
		if err := s.Purge(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("old events could not be deleted", "err", err)
		}
		// What a node that died has not come to.
		if list, err := s.dependants(ctx, `hub = ''`); err == nil {
			s.orphans.add(list...)
		}
		select {
		case <-time.After(time.Hour):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) deliverAll(ctx context.Context) {
	for ctx.Err() == nil {
		did, err := s.deliverNext(ctx)
		if ctx.Err() == nil {
			s.delivering.note(s.cfg.Log, "delivery to other providers", err)
		}
		if did && err == nil {
			s.passOn()
			continue
		}
		select {
		case <-s.work:
		case <-time.After(s.cfg.Poll):
		case <-ctx.Done():
		}
	}
}

// passOn wakes another worker: there may be more than one thing to do.
func (s *Service) passOn() {
	select {
	case s.work <- struct{}{}:
	default:
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
}

func (s *Service) deliverNext(ctx context.Context) (bool, error) {
	d, err := s.lease(ctx)
	if d == nil || err != nil {
		return false, err
	}
	if err := s.collect(ctx, d); err != nil {
		return true, errors.Join(err, s.settleDelivery(ctx, d, err))
	}
	if len(d.body) > 0 {
		_, err = s.cfg.Peers.Do(ctx, d.provider, peer.Notify, d.uri, d.body)
		s.reached(ctx, d, err)
	}
	if err == nil {
		err = s.step("after a delivery")
	}
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx) // give the lease back
	}
	return true, s.settleDelivery(ctx, d, err)
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

// lease takes a follower for which something is due. Others pass it over until
// it is given back, or the lease is over because its node has died.
func (s *Service) lease(ctx context.Context) (*delivery, error) {
	var d *delivery
	now := s.nowMS()
	err := s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		d = new(delivery)
		if _, err := advance(ctx, tx, 0); err != nil { // the counter first, like everybody
			return err
		}
		err := tx.QueryRow(ctx, `SELECT f.room, r.uri, f.provider, f.sent, f.until_seq, f.attempts FROM follower f JOIN room r ON r.id = f.room
			WHERE f.due <= ? AND f.lease < ? ORDER BY f.due LIMIT 1`+skipLocked(tx), now, now).Scan(&d.room, &d.uri, &d.provider, &d.sent, &d.until, &d.attempts)
		if errors.Is(err, sql.ErrNoRows) {
			d = nil
			return nil
		}
		if err != nil {
			return err
		}
		d.lease = now + lease.Milliseconds()
		_, err = tx.Exec(ctx, `UPDATE follower SET lease = ?, holder = ? WHERE room = ? AND provider = ?`, d.lease, s.cfg.NodeID, d.room, d.provider)
		return err
	})
	return d, err
}

func skipLocked(tx *sqldb.Tx) string {
	if words := tx.SkipLocked(); words != "" {
		return " FOR UPDATE OF f SKIP LOCKED"
	}
	return ""
}

// collect reads the next events for the follower.
func (s *Service) collect(ctx context.Context, d *delivery) error {
	return s.db.Read(ctx, func(tx *sqldb.Tx) error {
		d.body, d.last, d.more = nil, d.sent, false
		rows, err := tx.Query(ctx, `SELECT seq, kind, body, providers, deaf FROM event WHERE room = ? AND seq > ? ORDER BY seq LIMIT ?`, d.room, d.sent, batchEvents)
		if err != nil {
			return err
		}
		defer rows.Close()
		n := 0
		for rows.Next() {
			var seq, kind int64
			var body []byte
			var providers, deaf string
			if err := rows.Scan(&seq, &kind, &body, &providers, &deaf); err != nil {
				return err
			}
			if n++; d.until.Valid && seq > d.until.Int64 {
				return nil
			}
			if d.wants(hub.EventKind(kind), providers, deaf) {
				if len(d.body) > 0 && len(d.body)+len(body) > batchOctets {
					d.more = true
					return nil
				}
				d.body = append(d.body, body...)
			}
			d.last = seq
		}
		d.more = n == batchEvents
		return rows.Err()
	})
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

// settleDelivery notes how far the follower has come and when it goes on. What
// was stored meanwhile is due at once. A worker that others took for dead, and
// whose lease is over, notes nothing.
func (s *Service) settleDelivery(ctx context.Context, d *delivery, failure error) error {
	now := s.nowMS()
	if failure != nil {
		d.attempts++
		wait, _ := peer.Retry(failure)
		wait = max(wait, peer.Backoff(d.attempts))
		var p *problem.Problem
		if errors.As(failure, &p) && p.Status < 500 && p.Status != http.StatusTooManyRequests {
			wait = max(wait, time.Minute) // it was understood and refused: a person has to look at it
		}
		return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
			ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
			if _, err := advance(ctx, tx, 0); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `UPDATE follower SET lease = 0, holder = '', attempts = ?, due = ? WHERE room = ? AND provider = ? AND lease = ? AND holder = ?`,
				d.attempts, now+wait.Milliseconds(), d.room, d.provider, d.lease, s.cfg.NodeID)
			return err
		})
	}
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		// Whoever stores an event holds the counter: what is not seen below is
		// stored later, and will find the follower waiting.
		if _, err := advance(ctx, tx, 0); err != nil {
			return err
		}
		if d.until.Valid && !d.more && d.last >= d.until.Int64 {
			_, err := tx.Exec(ctx, `DELETE FROM follower WHERE room = ? AND provider = ? AND until_seq IS NOT NULL AND lease = ? AND holder = ?`, d.room, d.provider, d.lease, s.cfg.NodeID)
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE follower SET lease = 0, holder = '', attempts = 0, sent = ?,
			due = CASE WHEN EXISTS (SELECT 1 FROM event e WHERE e.room = follower.room AND e.seq > ?) THEN CAST(? AS BIGINT) ELSE NULL END
			WHERE room = ? AND provider = ? AND lease = ? AND holder = ?`, d.last, d.last, now, d.room, d.provider, d.lease, s.cfg.NodeID)
		return err
	})
}
