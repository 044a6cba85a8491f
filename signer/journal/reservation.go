package journal

import (
	"context"
	"fmt"
	"sync/atomic"
)

// A Reservation is the right to have a device sign one thing once. It must be
// completed, whatever happens.
type Reservation struct {
	j      *Journal
	number int64
	intent *prepared
	replay *Outcome
	spent  atomic.Bool
}

// Number returns the number of the reservation, from 1; 0 while it has none
// because of Options.OneFlush.
func (r *Reservation) Number() int64 { return r.number }

// Replay returns the recorded outcome if the intent repeats one that was
// signed, with the same idempotency key. Nothing is to be signed then, the
// Signature is what the caller gets, and Complete must not be called.
func (r *Reservation) Replay() *Outcome { return r.replay }

// Reserve asks the guard and writes the intent. What it decided is on the disk
// when it returns nil. Errors: ErrUsage and *signer.Refusal for a bad intent,
// *GuardError, ErrInFlight, ErrIdempotency, and ErrDown. If ctx ends first, the
// reservation that may have been written meanwhile is closed as NotSigned.
func (j *Journal) Reserve(ctx context.Context, in Intent) (*Reservation, error) {
	r := j.ReserveAll(ctx, []Intent{in})[0]
	return r.Reservation, r.Err
}

// Reserved is what ReserveAll says of one intent: one of its members is set.
type Reserved struct {
	Reservation *Reservation
	Err         error
}

// ReserveAll is Reserve for several intents, in their order and in one commit.
// Each is let in or refused for itself.
func (j *Journal) ReserveAll(ctx context.Context, in []Intent) []Reserved {
	out := make([]Reserved, len(in))
	ops := make([]*op, 0, len(in))
	at := make([]int, 0, len(in)) // of each op, in out
	for i := range in {
		r, err := j.reservation(&in[i])
		if err != nil {
			out[i].Err = err
			continue
		}
		out[i].Reservation = r
		if j.lazy && len(r.intent.claims) == 0 && r.intent.idem.key == "" {
			continue // written with its outcome
		}
		ops, at = append(ops, newOp(opReserve, r.intent)), append(at, i)
	}
	var err error
	if len(ops) > 0 {
		err = j.do(ctx, ops...)
	}
	for k, o := range ops {
		r := &out[at[k]]
		if err == nil && o.err == nil {
			r.Reservation.number, r.Reservation.replay = o.number, o.replay
			continue
		}
		if r.Reservation, r.Err = nil, err; err == nil {
			r.Err = o.err
		}
	}
	return out
}

// reservation checks an intent and encodes it.
func (j *Journal) reservation(in *Intent) (*Reservation, error) {
	if op := in.operation(); op == OpRefuse || op == OpReject {
		return nil, fmt.Errorf("%w: %q takes no reservation", ErrUsage, op)
	}
	p, err := in.prepare(j.now(), j.node)
	if err != nil {
		return nil, err
	}
	return &Reservation{j: j, intent: p}, nil
}

// Complete writes what became of the reservation. The outcome is on the disk
// when it returns nil; otherwise the signature must not be released. A second
// call, or one after Reconcile, answers ErrClosed.
func (r *Reservation) Complete(ctx context.Context, out Outcome) error {
	return r.j.CompleteAll(ctx, []Completion{{r, out}})[0]
}

// A Completion is a reservation with what became of it.
type Completion struct {
	Reservation *Reservation
	Outcome     Outcome
}

// CompleteAll is Complete for several reservations of this journal, in their
// order and in one commit. It returns an error, or nil, for each.
func (j *Journal) CompleteAll(ctx context.Context, done []Completion) []error {
	errs := make([]error, len(done))
	ops := make([]*op, 0, len(done))
	at := make([]int, 0, len(done)) // of each op, in errs
	for i := range done {
		o, err := done[i].Reservation.complete(&done[i].Outcome)
		if err != nil {
			errs[i] = err
			continue
		}
		ops, at = append(ops, o), append(at, i)
	}
	var err error
	if len(ops) > 0 {
		err = j.do(ctx, ops...)
	}
	for k, o := range ops {
		if errs[at[k]] = err; err == nil {
			errs[at[k]] = o.err
		}
	}
	return errs
}

// complete returns the op of the outcome, once.
func (r *Reservation) complete(out *Outcome) (*op, error) {
	if r.replay != nil || r.spent.Swap(true) {
		return nil, ErrClosed
	}
	o := newOp(opComplete, r.intent)
	if o.number = r.number; o.number == 0 {
		o.kind = opRecord
	}
	if err := o.setOutcome(out, r.j.now()); err != nil {
		r.spent.Store(false)
		return nil, err
	}
	return o, nil
}
