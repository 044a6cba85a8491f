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
	opRecord          // both in one
)

// An op is one change that waits for the next commit.
type op struct {
	kind   opKind
	intent *prepared
	number int64 // of the reservation; assigned for opReserve and opRecord

	outcome  *Outcome // of opComplete and opRecord
	encoded  []byte
	sigHash  []byte
	rejected *Claim // of a report

	replay *Outcome
	err    error // of this op alone
	done   chan error
	gone   atomic.Bool // the caller does not wait any more
}

func newOp(kind opKind, p *prepared) *op {
	return &op{kind: kind, intent: p, done: make(chan error, 1)}
}

func (o *op) setOutcome(out *Outcome, now time.Time) (err error) {
	if err := out.check(); err != nil {
		return err
	}
	o.outcome = out
	o.encoded, o.sigHash, err = out.encode(now, newSalt())
	return err
}

// do hands an op to the writer and waits until it is durable.
func (j *Journal) do(ctx context.Context, o *op) error {
	j.waiting.Add(1)
	defer j.waiting.Add(-1)
	select {
	case j.ops <- o:
	case <-j.quit:
		return fmt.Errorf("%w: it is closed", ErrDown)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		if o.gone.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return <-o.done // it was settled in the same moment
	}
}

// maxBatch is the most ops in one commit.
const maxBatch = 512

// write commits what waits, again and again: while one commit is being
// flushed, the next one gathers.
func (j *Journal) write() {
	defer close(j.done)
	for {
		select {
		case first := <-j.ops:
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
func (j *Journal) gather(first *op) []*op {
	batch := []*op{first}
	for yielded := false; len(batch) < maxBatch; {
		select {
		case o := <-j.ops:
			batch, yielded = append(batch, o), false
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
func (j *Journal) flush(batch []*op) (orphans []*op) {
	ctx := context.Background() // a batch belongs to no single caller
	err := j.batch(ctx, func(tx *sqldb.Tx) error { return applyBatch(ctx, tx, batch) })
	if err != nil {
		err = errors.Join(ErrDown, err)
	}
	for _, o := range batch {
		if !o.gone.CompareAndSwap(false, true) {
			orphans = append(orphans, o.orphan(j.now(), err)...)
			continue
		}
		if err != nil {
			o.done <- err
		} else {
			o.done <- o.err
		}
	}
	return orphans
}

// orphan returns the op that closes a reservation whose caller has gone. It
// was never handed out, so nothing was signed.
func (o *op) orphan(now time.Time, err error) []*op {
	if o.kind != opReserve || err != nil || o.err != nil || o.replay != nil {
		return nil
	}
	c := newOp(opComplete, o.intent)
	c.number = o.number
	if err := c.setOutcome(&Outcome{Result: NotSigned, ErrorClass: "canceled"}, now); err != nil {
		return nil
	}
	return []*op{c}
}
