package provider

import (
	"context"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// missed is how many beats a node misses that has died, or cannot reach the
// database.
const missed = 5

// reclaim takes back what this node was delivering when it ended: nobody else
// delivers under its name. With SQLite there is no other node at all.
func (s *Service) reclaim(ctx context.Context) error {
	where, args := `holder = ?`, []any{s.cfg.NodeID}
	if s.db.Dialect() == sqldb.SQLite {
		where, args = `true`, nil
	}
	return s.release(ctx, where, args...)
}

// quit takes this node off the list, so that nobody takes it for dead.
func (s *Service) quit(ctx context.Context) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(context.WithoutCancel(ctx), `DELETE FROM node WHERE id = ?`, s.cfg.NodeID)
		return err
	})
}

// release ends the leases of nodes.
func (s *Service) release(ctx context.Context, where string, args ...any) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		if _, err := advance(ctx, tx, 0); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE follower SET lease = 0, holder = '' WHERE lease > 0 AND `+where, args...)
		return err
	})
}

// A watch is when this node last saw others beat, by its own clock: clocks of
// nodes need not agree.
type watch struct {
	beats map[string]int64
	seen  map[string]time.Time
}

// beat shows that this node lives, and ends the leases of those that do not,
// until ctx ends. A provider on SQLite is one process.
func (s *Service) beat(ctx context.Context) {
	if s.db.Dialect() == sqldb.SQLite {
		return
	}
	w := &watch{make(map[string]int64), make(map[string]time.Time)}
	for ctx.Err() == nil {
		dead, err := s.beatOnce(ctx, w)
		for _, id := range dead {
			if err == nil {
				err = s.bury(ctx, id)
			}
		}
		if ctx.Err() == nil {
			s.beating.note(s.cfg.Log, "nodes of the provider", err)
		}
		select {
		case <-time.After(s.cfg.Beat):
		case <-ctx.Done():
		}
	}
	if err := s.quit(context.WithoutCancel(ctx)); err != nil {
		s.beating.note(s.cfg.Log, "nodes of the provider", err)
	}
}

// beatOnce counts this node's beat and returns the nodes whose beat has stopped.
func (s *Service) beatOnce(ctx context.Context, w *watch) (dead []string, err error) {
	beats := make(map[string]int64)
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		clear(beats)
		_, err := tx.Exec(ctx, `INSERT INTO node (id, beat) VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET beat = node.beat + 1`, s.cfg.NodeID)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT id, beat FROM node WHERE id <> ?`, s.cfg.NodeID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			var n int64
			if err := rows.Scan(&id, &n); err != nil {
				return err
			}
			beats[id] = n
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return w.stopped(beats, time.Now(), missed*s.cfg.Beat), nil
}

// stopped compares the beats of nodes with those seen before.
func (w *watch) stopped(beats map[string]int64, now time.Time, after time.Duration) (dead []string) {
	for id, n := range beats {
		if old, known := w.beats[id]; !known || old != n {
			w.beats[id], w.seen[id] = n, now
			continue
		}
		if now.Sub(w.seen[id]) >= after {
			dead = append(dead, id)
		}
	}
	for id := range w.beats {
		if _, there := beats[id]; !there {
			delete(w.beats, id)
			delete(w.seen, id)
		}
	}
	return dead
}

// bury takes over what a dead node was delivering. If it lives after all, it is
// there again with its next beat, and its deliveries count for nothing.
func (s *Service) bury(ctx context.Context, id string) error {
	s.cfg.Log.Warn("a node of the provider has died; its deliveries are taken over", "node", id)
	if err := s.release(ctx, `holder = ?`, id); err != nil {
		return err
	}
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(context.WithoutCancel(ctx), `DELETE FROM node WHERE id = ?`, id)
		return err
	})
}
