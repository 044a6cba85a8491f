package journal

import (
	"context"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// SetFault puts a function around every write: what it returns before is a
// write that did not take place, what it returns after is one that did, and
// whose answer was lost. Set it while nothing is written.
func (j *Journal) SetFault(fault func(before bool) error) {
	j.batch = func(ctx context.Context, f func(*sqldb.Tx) error) error {
		if err := fault(true); err != nil {
			return err
		}
		if err := j.db.Batch(ctx, f); err != nil {
			return err
		}
		return fault(false)
	}
}

// RunSize is how many entries have their signatures sorted together.
const RunSize = runSize

// Runs returns how many runs are sorted.
func (j *Journal) Runs(ctx context.Context) (n int64, err error) {
	err = j.db.Read(ctx, func(tx *sqldb.Tx) error {
		n, err = sortedRuns(ctx, tx, 255)
		return err
	})
	return n, err
}

// Exec changes the database behind the journal's back.
func (j *Journal) Exec(ctx context.Context, statement string, args ...any) error {
	return j.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}
