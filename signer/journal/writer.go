package journal

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

type opKind uint8

const (
	opReserve  opKind = iota
	opComplete        // a reservation that has a number
	opOnce            // a reservation and its outcome in one
	opRecord          // an entry of one step, of which the guard is not asked
)

// An op is one change that waits for the next commit.
type op struct {
	kind   opKind
	intent *prepared
	number int64 // of the reservation; assigned but for opComplete

	outcome  *Outcome // but of opReserve
	encoded  []byte
	sigHash  []byte
	rejected *Claim // of a report

	replay *Outcome
	err    error // of this op alone
}

func newOp(kind opKind, p *prepared) *op { return &op{kind: kind, intent: p} }

func (o *op) setOutcome(out *Outcome, now time.Time) (err error) {
	if err := out.check(); err != nil {
		return err
	}
	o.outcome = out
	o.encoded, o.sigHash, err = out.encode(now, newSalt())
	return err
}

// A change is what one caller waits for: ops that go into one commit.
type change struct {
	ops  []*op
	done chan error  // of the commit; each op has its own besides
	gone atomic.Bool // the caller does not wait any more
}

var errClosed = fmt.Errorf("%w: it is closed", ErrDown)

// do hands ops to the writer and waits until they are durable. What it returns
// is a failure of all of them; after nil each has its own.
func (j *Journal) do(ctx context.Context, ops ...*op) error {
	j.waiting.Add(int64(len(ops)))
	defer j.waiting.Add(-int64(len(ops)))
	c := &change{ops: ops, done: make(chan error, 1)}
	select {
	case j.changes <- c:
	case <-j.quit:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		if c.gone.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return <-c.done // it was settled in the same moment
	}
}

// one is do for a single op.
func (j *Journal) one(ctx context.Context, o *op) error {
	if err := j.do(ctx, o); err != nil {
		return err
	}
	return o.err
}

// maxBatch is how many ops are enough for one commit.
const maxBatch = 512

// write commits what waits, again and again: while one commit is being
// flushed, the next one gathers.
func (j *Journal) write() {
	defer close(j.done)
	for {
		select {
		case first := <-j.changes:
			for batch := j.gather(first); len(batch) > 0; {
				batch = j.flush(batch)
			}
		case <-j.quit:
			return
		}
	}
}

// gather collects what waits, and what those bring who are about to run: a
// flush costs more than letting them go first.
func (j *Journal) gather(first *change) []*change {
	batch, ops := []*change{first}, len(first.ops)
	for yielded := false; ops < maxBatch; {
		select {
		case c := <-j.changes:
			batch, ops, yielded = append(batch, c), ops+len(c.ops), false
		default:
			if yielded {
				return batch
			}
			runtime.Gosched()
			yielded = true
		}
	}
	return batch
}

// flush commits a batch and tells every caller. It returns what must be
// written because a caller had gone: the ends of reservations that nobody has.
func (j *Journal) flush(together []*change) (orphans []*change) {
	var ops []*op
	for _, c := range together {
		ops = append(ops, c.ops...)
	}
	ctx := context.Background() // a batch belongs to no single caller
	var b *batch
	err := j.batch(ctx, func(tx *sqldb.Tx) (err error) {
		b, err = applyBatch(ctx, tx, j.now(), ops)
		return err
	})
	if j.trust.wrote(err, b); err != nil {
		err = errors.Join(ErrDown, err)
	} else if j.marks.learn(b); b.head.entries/runSize > j.runs {
		j.runs = b.head.entries / runSize
		select {
		case j.full <- struct{}{}:
		default: // it has been told
		}
	}
	for _, c := range together {
		if c.gone.CompareAndSwap(false, true) {
			c.done <- err
		} else if o := c.orphans(j.now(), err); len(o) > 0 {
			orphans = append(orphans, &change{ops: o, done: make(chan error, 1)})
		}
	}
	return orphans
}

// orphans returns the ops that close the reservations of a caller who has
// gone. They were never handed out, so nothing was signed.
func (c *change) orphans(now time.Time, err error) (closing []*op) {
	for _, o := range c.ops {
		if o.kind != opReserve || err != nil || o.err != nil || o.replay != nil {
			continue
		}
		end := newOp(opComplete, o.intent)
		end.number = o.number
		if err := end.setOutcome(&Outcome{Result: NotSigned, ErrorClass: "canceled"}, now); err == nil {
			closing = append(closing, end)
		}
	}
	return closing
}
