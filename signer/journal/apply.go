package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// A batch applies ops in one transaction that has the head locked, so that
// batches of several nodes follow one another. It reads what it needs in few
// statements, decides in memory and writes in few statements.
type batch struct {
	tx   *sqldb.Tx
	ctx  context.Context
	now  time.Time
	head head

	marks map[[sha256.Size]byte]*mark
	idems map[idemKey]*idemRow
	ended map[int64]bool // of the reservations to complete, those that have an entry
	stays map[int64]bool // reservations of this batch whose marks nothing takes back any more

	reservations, entries [][]any // rows to insert
}

type head struct {
	reservations, entries int64
	chain                 []byte
}

// applyBatch decides on every op and sets its err. It returns what it came to,
// and a failure of the database, which undoes all of it. It may be run again.
func applyBatch(ctx context.Context, tx *sqldb.Tx, now time.Time, ops []*op) (*batch, error) {
	b := &batch{tx: tx, ctx: ctx, now: now, stays: make(map[int64]bool)}
	for _, o := range ops {
		o.err, o.replay = nil, nil
		if o.kind != opComplete {
			o.number = 0
		}
	}
	if err := b.load(ops); err != nil {
		return nil, err
	}
	// What ends comes first: a mark that is taken back may let another in.
	for _, o := range ops {
		if o.kind == opComplete {
			b.complete(o)
		}
	}
	for _, o := range ops {
		if err := b.begin(o); err != nil {
			return nil, err
		}
	}
	return b, b.store()
}

// begin decides on a reserve or record.
func (b *batch) begin(o *op) error {
	switch {
	case o.kind == opReserve:
		o.err = b.reserve(o)
	case o.kind == opOnce:
		o.err = b.once(o)
	case o.kind == opRecord && o.rejected != nil:
		busy, err := b.mayStillSign(o.rejected)
		if err != nil {
			return err
		}
		if o.err = b.reject(o.rejected, busy); o.err == nil {
			b.record(o)
		}
	case o.kind == opRecord:
		b.record(o)
	}
	return nil
}

// reserve asks idempotency and the guard, and then takes a number.
func (b *batch) reserve(o *op) error {
	row := b.idems[o.intent.idem]
	if row != nil && row.exists {
		again, err := row.repeat(o.intent)
		if err != nil || again != nil {
			o.replay, o.number = again, row.reservation
			return err
		}
	}
	if err := b.admit(o.intent.claims); err != nil {
		return err
	}
	b.assign(o)
	if row != nil {
		row.begin(o.intent, o.number)
	}
	return nil
}

// once does the whole of a reservation that was not durable while the device
// worked. Where idempotency or the guard would not let it in, because of what
// was written meanwhile, its signature is not released: the entry says that it
// was made, and for the guard and for idempotency it is as if it had not been.
func (b *batch) once(o *op) error {
	row := b.idems[o.intent.idem]
	why := row.admit(o.intent)
	if why == nil && o.outcome.Result != NotSigned {
		why = b.admit(o.intent.claims)
	}
	if why != nil && o.outcome.Result == Signed {
		if err := b.drop(o); err != nil {
			return err
		}
		return why
	}
	b.stays[b.record(o)] = true
	if row != nil && why == nil {
		row.begin(o.intent, o.number)
		row.end(o.number, o.outcome)
	}
	return nil
}

// drop writes the entry of a signature that is not released.
func (b *batch) drop(o *op) error {
	made := *o.outcome
	made.Result, made.ErrorClass = Unknown, classDropped
	octets, hash, err := made.encode(b.now, newSalt())
	if err != nil {
		return err
	}
	dropped := *o
	dropped.encoded, dropped.sigHash, dropped.outcome = octets, hash, &Outcome{Result: Unknown}
	b.record(&dropped)
	return nil
}

// record writes the whole of an op, and returns its number.
func (b *batch) record(o *op) int64 {
	b.assign(o)
	b.finish(o)
	return o.number
}

// admit brings every mark forward, or none.
func (b *batch) admit(claims []Claim) error {
	next := b.head.reservations + 1
	for i := range claims {
		trial := *b.marks[claims[i].Scope]
		if err := trial.admit(&claims[i], next); err != nil {
			return err
		}
	}
	for i := range claims {
		b.marks[claims[i].Scope].admit(&claims[i], next)
	}
	return nil
}

func (b *batch) assign(o *op) {
	b.head.reservations++
	o.number = b.head.reservations
	b.reservations = append(b.reservations, []any{o.number, o.intent.octets})
}

func (b *batch) complete(o *op) {
	if b.ended[o.number] {
		o.err = ErrClosed
		return
	}
	b.ended[o.number] = true
	if o.outcome.Result == NotSigned {
		for _, c := range o.intent.claims {
			b.marks[c.Scope].takeBack(o.number)
		}
	} else {
		b.stays[o.number] = true
	}
	if row := b.idems[o.intent.idem]; row != nil {
		row.end(o.number, o.outcome)
	}
	b.finish(o)
}

// finish takes a place in the order of entries.
func (b *batch) finish(o *op) {
	b.head.chain = nextChain(b.head.chain, commitmentOf(o.number, o.intent.octets, o.encoded))
	var answer []byte
	if o.intent.idem.key != "" {
		answer = o.outcome.Signature
	}
	b.entries = append(b.entries, []any{b.head.entries, o.number, null(o.sigHash), o.encoded, b.head.chain, null(answer)})
	b.head.entries++
}

// reject forgets the Commit that was rejected.
func (b *batch) reject(c *Claim, busy bool) error {
	if busy {
		return fmt.Errorf("%w: the Commit may still be signed", ErrInFlight)
	}
	return b.marks[c.Scope].reject(c.Number, c.Content)
}

// mayStillSign reports whether a reservation without an outcome is for this
// Commit: from before this batch, or of it.
func (b *batch) mayStillSign(c *Claim) (bool, error) {
	want := claimRecords([]Claim{*c})[0]
	open, err := unfinished(b.ctx, b.tx)
	if err != nil {
		return false, err
	}
	for _, u := range open {
		if !b.ended[u.Number] && u.claims(want) {
			return true, nil
		}
	}
	for _, row := range b.reservations {
		if !b.ended[row[0].(int64)] && bytes.Contains(row[1].([]byte), []byte(want.Content)) {
			return true, nil
		}
	}
	return false, nil
}
