package registry

import (
	"context"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// lease takes a place for a holder, for some time, unless another has it. It
// keeps publishers from signing one thing twice; that no number is used twice
// and none goes backwards is kept by the database without it, so that clocks
// which differ do no harm.
func (s *Store) lease(ctx context.Context, place, holder string, d time.Duration) (held bool, err error) {
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		now := s.db.Now()
		result, err := tx.Exec(ctx, `INSERT INTO credential_lease (place, holder, until) VALUES (?, ?, ?)
			ON CONFLICT (place) DO UPDATE SET holder = excluded.holder, until = excluded.until
			WHERE credential_lease.until <= ? OR credential_lease.holder = excluded.holder`,
			place, holder, now.Add(d).UnixMicro(), now.UnixMicro())
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		held = n == 1
		return err
	})
	return held && err == nil, err
}

// release gives a place up.
func (s *Store) release(ctx context.Context, place, holder string) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM credential_lease WHERE place = ? AND holder = ?`, place, holder)
		return err
	})
}
