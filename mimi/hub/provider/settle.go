package provider

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/peer"
)

// settleAll notes what became of deliveries, those that end at one time
// together, and frees their places, until done is closed. It goes on when the
// node is being stopped, to give the leases back.
func (s *Service) settleAll(done <-chan *delivery, places <-chan struct{}) {
	for d := range done {
		list := []*delivery{d}
		for gathering := true; gathering; {
			select {
			case d, ok := <-done:
				if gathering = ok; ok {
					list = append(list, d)
				}
			default:
				gathering = false
			}
		}
		more, err := s.settleDeliveries(context.Background(), list)
		if err != nil { // the leases end by themselves
			s.delivering.note(s.cfg.Log, "delivery to other providers", err)
		}
		for range list {
			<-places
		}
		if more {
			s.passOn()
		}
	}
}

// passOn has the node look again for what is due.
func (s *Service) passOn() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// settleDeliveries notes how far the followers have come and when they go on,
// and reports whether something is due again.
func (s *Service) settleDeliveries(ctx context.Context, list []*delivery) (more bool, err error) {
	now := s.nowMS()
	for _, d := range list {
		if d.err != nil {
			d.attempts++
		}
	}
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		// Whoever stores an event holds the counter: what is not seen below is
		// stored later, and will find the follower waiting.
		more = false
		if _, err := advance(ctx, tx, 0); err != nil {
			return err
		}
		for _, d := range list {
			due, err := s.settleDelivery(ctx, tx, d, now)
			if err != nil {
				return err
			}
			more = more || due
		}
		return nil
	})
	return more, err
}

// settleDelivery settles one. What was stored meanwhile is due at once. A node
// that others took for dead, and whose lease is over, notes nothing.
func (s *Service) settleDelivery(ctx context.Context, tx *sqldb.Tx, d *delivery, now int64) (more bool, err error) {
	switch {
	case d.err != nil:
		_, err := tx.Exec(ctx, `UPDATE follower SET lease = 0, holder = '', attempts = ?, due = ? WHERE room = ? AND provider = ? AND lease = ? AND holder = ?`,
			d.attempts, now+d.pause().Milliseconds(), d.room, d.provider, d.lease, s.cfg.NodeID)
		return false, err
	case d.until.Valid && !d.more && d.last >= d.until.Int64:
		_, err := tx.Exec(ctx, `DELETE FROM follower WHERE room = ? AND provider = ? AND until_seq IS NOT NULL AND lease = ? AND holder = ?`, d.room, d.provider, d.lease, s.cfg.NodeID)
		return false, err
	}
	var due sql.NullInt64
	err = tx.QueryRow(ctx, `UPDATE follower SET lease = 0, holder = '', attempts = 0, sent = ?,
		due = CASE WHEN EXISTS (SELECT 1 FROM event e WHERE e.room = follower.room AND e.seq > ?) THEN CAST(? AS BIGINT) ELSE NULL END
		WHERE room = ? AND provider = ? AND lease = ? AND holder = ? RETURNING due`, d.last, d.last, now, d.room, d.provider, d.lease, s.cfg.NodeID).Scan(&due)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return due.Valid, err
}

// pause is how long a delivery that failed waits until it is tried again.
func (d *delivery) pause() time.Duration {
	wait, _ := peer.Retry(d.err)
	wait = max(wait, peer.Backoff(d.attempts))
	var p *problem.Problem
	if errors.As(d.err, &p) && p.Status < 500 && p.Status != http.StatusTooManyRequests {
		wait = max(wait, time.Minute) // it was understood and refused: a person has to look at it
	}
	return wait
}
