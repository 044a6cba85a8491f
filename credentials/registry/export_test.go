package registry

import (
	"context"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// SetStep has f called between any two writes.
func (s *Store) SetStep(f func(name string) error) { s.step = f }

// PlanOfIssued returns how SQLite finds the record of a certificate that was
// issued.
func (s *Store) PlanOfIssued(ctx context.Context) (plan string, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		var id, parent, unused int
		return tx.QueryRow(ctx, `EXPLAIN QUERY PLAN `+certificateIssued, 1, []byte{1}, []byte{2}, "1a", "key", "1a").Scan(&id, &parent, &unused, &plan)
	})
	return plan, err
}
