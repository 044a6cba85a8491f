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
