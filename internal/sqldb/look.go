package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"sync"
)

// A Rower runs a reading statement that returns at most one row.
type Rower interface {
	QueryRow(ctx context.Context, query string, args ...any) *sql.Row
}

// Look has f look something up: a few short reading statements, of few texts.
// Look-ups that wait at the same time run one after the other in one reading
// transaction, which on SQLite costs as much as they do: after each commit a
// connection reads its pages anew. What f sees is not older than the call. f may run
// on another's goroutine; its context does not end there. On PostgreSQL, and for one
// alone, it is QueryRow.
func (db *DB) Look(ctx context.Context, f func(context.Context, Rower) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if db.dialect == PostgreSQL {
		return f(ctx, db)
	}
	alone := context.WithoutCancel(ctx) // one that ends would take the transaction of all with it
	l := &look{f: func(r Rower) error { return f(alone, r) }, err: errNotLooked, turn: make(chan bool, 1)}
	if !db.looks.join(l) && !<-l.turn {
		return l.err
	}
	runtime.Gosched() // those who are about to ask join
	batch := db.looks.take()
	defer db.looks.pass(batch, l)
	db.lookAll(batch)
	return l.err
}

// lookAll runs look-ups, in one transaction if they are more than one.
func (db *DB) lookAll(all []*look) {
	if len(all) == 1 {
		all[0].err = all[0].f(db)
		return
	}
	err := db.Read(context.Background(), func(tx *Tx) error { // it belongs to no single caller
		for _, l := range all {
			l.err = l.f(tx)
		}
		return nil
	})
	if err != nil {
		for _, l := range all {
			l.err = errors.Join(err, l.err)
		}
	}
}

// errNotLooked is seen where who looked for all ended before.
var errNotLooked = errors.New("sqldb: the look-up came to nothing")

// A look is a look-up that waits.
type look struct {
	f    func(Rower) error
	err  error
	turn chan bool // false: it is done; true: its caller is to do all that wait
}

// looks are the look-ups that wait, and whether one of the callers is at work.
type looks struct {
	mu      sync.Mutex // guards what follows
	waiting []*look
	led     bool
}

// join adds a look-up, and reports whether its caller is to do what waits.
func (s *looks) join(l *look) (lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, l)
	lead, s.led = !s.led, true
	return lead
}

func (s *looks) take() []*look {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.waiting
	s.waiting = nil
	return batch
}

// pass tells those of a batch that it is done, but for the one who did it, and has
// one of those who came meanwhile go on.
func (s *looks) pass(batch []*look, by *look) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.led = len(s.waiting) > 0; s.led {
		s.waiting[0].turn <- true
	}
	for _, l := range batch {
		if l != by {
			l.turn <- false
		}
	}
}
