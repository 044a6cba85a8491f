package journal

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are the rare choices of Open.
type Options struct {
	Node string           // name of this node in the entries; "" for none
	Now  func() time.Time // nil means time.Now

	// Intents says which intents are durable before the device works.
	Intents Intents
}

// Intents says which intents are durable before the device works; the others are
// written with their outcome. There is no signature without an entry either way:
// the entry is durable before Complete returns. See docs/decisions/0032.
type Intents int

const (
	// IntentsGuarded are those for which the guard has something to write: a
	// Commit, a status list, a CRL, a checkpoint, and the first message of a key
	// in an epoch. All are while it is not known that the journal can be
	// written: from a write that failed, or the start, to the next that
	// succeeds, after ten seconds without one, and while the disk is nearly full.
	IntentsGuarded Intents = iota
	// IntentsAll are all: each signature that a device began leaves a trace.
	IntentsAll
)

// A Journal is open for writing. Its methods may be called at the same time.
type Journal struct {
	db   *sqldb.DB
	node string
	now  func() time.Time
	all  bool // IntentsAll

	trust trust // that it can be written
	holds holds // of idempotency keys
	used  used
	marks marks // that nothing takes back

	// batch applies one change and returns when it is durable; tests put
	// faults around it.
	batch func(context.Context, func(*sqldb.Tx) error) error

	changes chan *change
	waiting atomic.Int64  // ops, for their commit
	quit    chan struct{} // closed by Close
	done    chan struct{} // closed when the writer has ended
	shut    atomic.Bool

	runs    int64           // that are full, as far as the writer knows; its own
	full    chan struct{}   // tells the indexer of another
	closing context.Context // ends with Close
	stop    func()          // ends closing
	indexed chan struct{}   // closed when the indexer has ended
}

// Open opens the journal in a SQLite file, which it makes if need be, or in
// the PostgreSQL database of a postgres:// URL; see sqldb.Open for both. Only
// PostgreSQL is for several nodes.
func Open(ctx context.Context, source string, opt *Options) (*Journal, error) {
	j := &Journal{now: time.Now, changes: make(chan *change), quit: make(chan struct{}), done: make(chan struct{}),
		full: make(chan struct{}, 1), indexed: make(chan struct{}), trust: trust{begin: time.Now()}, used: used{seed: maphash.MakeSeed()}}
	j.closing, j.stop = context.WithCancel(context.Background())
	if opt != nil {
		j.node, j.all = opt.Node, opt.Intents == IntentsAll
		if opt.Now != nil {
			j.now = opt.Now
		}
	}
	if len(j.node) > MaxName || !plain(j.node) {
		return nil, fmt.Errorf("%w: the node's name is too long or no text", ErrUsage)
	}
	db, err := sqldb.Open(ctx, source, sqldb.Options{Name: "journal", Migrations: migrations, Lanes: 1, Now: opt.clock()})
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j.db, j.batch, j.trust.free = db, db.Batch, db.Free
	if err := j.found(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("journal: %w", err)
	}
	go j.write()
	go j.index()
	return j, nil
}

// found makes the head of an empty journal.
func (j *Journal) found(ctx context.Context) error {
	return j.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO journal_head (id, reservations, entries, chain, settled)
			VALUES (1, 0, 0, ?, 0) ON CONFLICT (id) DO NOTHING`, firstChain())
		return err
	})
}

func (o *Options) clock() func() time.Time {
	if o == nil {
		return nil
	}
	return o.Now
}

// Close ends after what is being written. Calls after it fail with ErrDown.
func (j *Journal) Close() error {
	if !j.shut.Swap(true) {
		close(j.quit)
		j.stop()
	}
	<-j.done
	<-j.indexed
	return j.db.Close()
}

// Ping asks whether the database answers.
func (j *Journal) Ping(ctx context.Context) error { return j.db.Ping(ctx) }

// Waiting returns how many changes wait for their commit.
func (j *Journal) Waiting() int { return int(j.waiting.Load()) }

// Record writes an entry in one step: a request that was refused (OpRefuse),
// or another event in which no device has a part. The guard is not asked.
func (j *Journal) Record(ctx context.Context, in Intent, errorClass string) error {
	if in.Operation != OpRefuse {
		return fmt.Errorf("%w: %q is not recorded in one step", ErrUsage, in.Operation)
	}
	p, err := in.prepare(j.now(), j.node)
	if err != nil {
		return err
	}
	return j.record(ctx, p, errorClass, nil)
}

func (j *Journal) record(ctx context.Context, p *prepared, class string, rejected *Claim) error {
	o := newOp(opRecord, p)
	o.rejected = rejected
	if err := o.setOutcome(&Outcome{Result: Recorded, ErrorClass: class}, j.now()); err != nil {
		return err
	}
	return j.one(ctx, o)
}

// Reconcile closes, as Unknown, the reservations that were made before a time
// and have no outcome: those of a crash, if the time is further back than any
// deadline. It returns how many it closed. Idempotency keys of reservations that
// are not durable and were given up are free then too.
func (j *Journal) Reconcile(ctx context.Context, before time.Time) (int, error) {
	j.holds.expire(before)
	open, err := j.Unfinished(ctx)
	if err != nil {
		return 0, err
	}
	closed := 0
	for _, u := range open {
		if !u.Time.Before(before) {
			continue
		}
		switch err := j.abandon(ctx, u); {
		case errors.Is(err, ErrClosed):
		case err != nil:
			return closed, err
		default:
			closed++
		}
	}
	return closed, j.settle(ctx)
}

func (j *Journal) abandon(ctx context.Context, u *Unfinished) error {
	o := newOp(opComplete, &prepared{octets: u.Octets, idem: u.idem})
	o.number = u.Number
	if err := o.setOutcome(&Outcome{Result: Unknown, ErrorClass: "interrupted"}, j.now()); err != nil {
		return err
	}
	return j.one(ctx, o)
}

func newSalt() []byte {
	salt := make([]byte, 16)
	rand.Read(salt) // does not fail
	return salt
}
