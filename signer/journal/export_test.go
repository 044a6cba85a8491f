package journal

import (
	"context"
	"time"

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

// SetFree sets what the disk says, and has it asked again.
func (j *Journal) SetFree(octets uint64) {
	j.trust.free = func() (uint64, bool) { return octets, true }
	j.trust.looked.Store(0)
}

// Age has the last write be so long ago.
func (j *Journal) Age(d time.Duration) { j.trust.last.Add(-int64(d)) }
