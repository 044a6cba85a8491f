package journal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// A Reservation is the right to have a device sign one thing once. It must be
// completed, whatever happens.
type Reservation struct {
	j      *Journal
	number int64 // 0 while it is not durable
	intent *prepared
	replay *Outcome
	hold   *hold // of its idempotency key, in this process
	spent  atomic.Bool
}

// Number returns the number of the reservation, from 1. One that is written with
// its outcome has none, and so 0, until it is completed.
func (r *Reservation) Number() int64 { return r.number }

// Replay returns the recorded outcome if the intent repeats one that was
// signed, with the same idempotency key. Nothing is to be signed then, the
// Signature is what the caller gets, and Complete must not be called.
func (r *Reservation) Replay() *Outcome { return r.replay }

// Reserve asks the guard and writes the intent, if it is one of those that are
// durable before the device works (Options.Intents); what it decided is on the
// disk then when it returns nil. Otherwise it looks whether this process used the
// idempotency key, holds it, and the rest is decided by Complete.
// Errors: ErrUsage and *signer.Refusal for a bad intent, *GuardError,
// ErrInFlight, ErrIdempotency, and ErrDown. If ctx ends first, the reservation
// that may have been written meanwhile is closed as NotSigned.
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
	var first, once []*Reserved // durable before the device works, and with their outcomes
	trusted := !j.all && j.trust.now()
	for i := range in {
		r, err := j.reservation(&in[i])
		if err == nil && r.intent.idem.key != "" {
			if r.hold = j.holds.take(r.intent.idem, j.now()); r.hold == nil {
				err = ErrInFlight
			}
		}
		switch {
		case err != nil:
			out[i].Err = err
			continue
		case trusted && j.marks.stand(r.intent.claims):
			once = append(once, &out[i])
		default:
			first = append(first, &out[i])
		}
		out[i].Reservation = r
	}
	j.reserveOnce(ctx, once)
	j.reserveFirst(ctx, first)
	for i := range out {
		if r := &out[i]; r.Err != nil && r.Reservation != nil {
			r.Reservation.release()
			r.Reservation = nil
		}
	}
	return out
}

// reserveFirst makes reservations durable. Then the database holds their
// idempotency keys.
func (j *Journal) reserveFirst(ctx context.Context, all []*Reserved) {
	if len(all) == 0 {
		return
	}
	ops := make([]*op, len(all))
	for i, r := range all {
		ops[i] = newOp(opReserve, r.Reservation.intent)
	}
	err := j.do(ctx, ops...)
	for i, r := range all {
		r.Reservation.use()
		if r.Err = err; err == nil {
			r.Err, r.Reservation.number, r.Reservation.replay = ops[i].err, ops[i].number, ops[i].replay
		}
	}
}

// reserveOnce asks what of reservations that are written with their outcomes can
// be asked before.
func (j *Journal) reserveOnce(ctx context.Context, all []*Reserved) {
	var err error
	switch {
	case len(all) == 0:
		return
	case j.shut.Load():
		err = errClosed
	default:
		err = ctx.Err()
	}
	var keyed []*Reserved
	for _, r := range all {
		if r.Err = err; err == nil && r.Reservation.hold != nil && j.used.has(r.Reservation.intent.idem) {
			keyed = append(keyed, r)
		}
	}
	if len(keyed) > 0 {
		j.lookUp(ctx, keyed)
	}
}

// lookUp looks whether idempotency keys were used.
func (j *Journal) lookUp(ctx context.Context, all []*Reserved) {
	keys := make([]idemKey, len(all))
	for i, r := range all {
		keys[i] = r.Reservation.intent.idem
	}
	if j.db.Dialect() == sqldb.SQLite && ctx.Err() == nil {
		ctx = context.WithoutCancel(ctx) // see sqldb.DB.QueryRow
	}
	var b *batch
	err := j.db.Read(ctx, func(tx *sqldb.Tx) error {
		b = &batch{tx: tx, ctx: ctx}
		return b.loadIdems(keys)
	})
	if err != nil && ctx.Err() == nil {
		err = errors.Join(ErrDown, err)
	}
	for i, r := range all {
		if r.Err = err; err != nil {
			continue
		}
		if row := b.idems[keys[i]]; row.exists {
			if r.Reservation.replay, r.Err = row.repeat(r.Reservation.intent); r.Reservation.replay != nil {
				r.Reservation.release()
			}
		}
	}
}

// use says that the database may know the idempotency key from now on, and lets
// go of it.
func (r *Reservation) use() {
	if r.hold != nil {
		r.j.used.add(r.hold.key)
		r.release()
	}
}

// release lets go of the idempotency key.
func (r *Reservation) release() {
	if r.hold != nil {
		r.j.holds.release(r.hold)
		r.hold = nil
	}
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
// call, or one after Reconcile, answers ErrClosed. Where the reservation is
// written with its outcome, what was written meanwhile may stand against it:
// *RepeatedError, ErrInFlight or ErrIdempotency for its idempotency key, and
// *GuardError.
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
		r := done[at[k]].Reservation
		r.use()
		if errs[at[k]] = err; err == nil {
			errs[at[k]], r.number = o.err, o.number
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
		o.kind = opOnce
	}
	if err := o.setOutcome(out, r.j.now()); err != nil {
		r.spent.Store(false)
		return nil, err
	}
	return o, nil
}
