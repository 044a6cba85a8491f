package registry

import (
	"context"
	"database/sql"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// Watch has f called, until stop, with the changes that this process makes,
// right after they are durable and before they are published. f must be quick.
// Those of other processes are in Changes only.
func (s *Store) Watch(f func([]Change)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nextWatch
	s.nextWatch++
	s.watchers[n] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, n)
	}
}

func (s *Store) tell(changes []Change) {
	if len(changes) == 0 {
		return
	}
	s.mu.Lock()
	var all []func([]Change)
	for _, f := range s.watchers {
		all = append(all, f)
	}
	s.mu.Unlock()
	for _, f := range all {
		f(changes)
	}
}

// maxChanges is the most that Changes returns at once.
const maxChanges = 1000

// Changes returns the changes after a number, in order and at most so many: a
// feed that never skips one, also when several processes write. limit 0 means
// 1000.
func (s *Store) Changes(ctx context.Context, after int64, limit int) (changes []Change, err error) {
	return s.readChanges(ctx, `seq > ? ORDER BY seq LIMIT ?`, after, pageSize(limit, maxChanges))
}

// History returns the changes of one credential.
func (s *Store) History(ctx context.Context, id ID) ([]Change, error) {
	return s.readChanges(ctx, `credential = ? ORDER BY seq LIMIT ?`, string(id), maxChanges)
}

func pageSize(n, most int) int {
	if n <= 0 || n > most {
		return most
	}
	return n
}

func (s *Store) readChanges(ctx context.Context, where string, args ...any) (changes []Change, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		changes = nil
		rows, err := tx.Query(ctx, `SELECT seq, credential, state, reason, at, published FROM credential_change WHERE `+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c Change
			var reason, at int64
			var published sql.NullInt64
			if err := rows.Scan(&c.Seq, &c.Credential, &c.State, &reason, &at, &published); err != nil {
				return err
			}
			c.Reason, c.At = reasonOf(c.State, certs.Reason(reason)), time.UnixMicro(at).UTC()
			if published.Valid {
				c.Published = time.UnixMicro(published.Int64).UTC()
			}
			changes = append(changes, c)
		}
		return rows.Err()
	})
	return changes, err
}

// due returns the number of the last change of each place that is not
// published, and when the first of them was made.
func (s *Store) due(ctx context.Context) (due map[string]dueChanges, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		due = make(map[string]dueChanges)
		rows, err := tx.Query(ctx, `SELECT place, max(seq), min(at), count(*) FROM credential_change WHERE published IS NULL GROUP BY place`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var place string
			var d dueChanges
			var at int64
			if err := rows.Scan(&place, &d.last, &at, &d.count); err != nil {
				return err
			}
			d.since = time.UnixMicro(at)
			due[place] = d
		}
		return rows.Err()
	})
	return due, err
}

type dueChanges struct {
	last  int64
	since time.Time
	count int
}

// markPublished notes that a place says all changes up to a number.
func (s *Store) markPublished(ctx context.Context, place string, last int64) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE credential_change SET published = ? WHERE place = ? AND seq <= ? AND published IS NULL`,
			s.db.Now().UnixMicro(), place, last)
		return err
	})
}
