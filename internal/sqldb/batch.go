package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"sync"

	"github.com/jackc/pgx/v5/stdlib"
)

// maxBatch is the most writes in one commit; maxLanes the most lanes.
const (
	maxBatch = 256
	maxLanes = 8
)

// A write is one atomic change; done receives its outcome after the commit.
type write struct {
	ctx  context.Context
	f    func(*Tx) error
	done chan error

	mu   sync.Mutex // held while f runs; guards left
	left bool       // the caller has gone
}

// apply runs the change, unless its caller has gone.
func (w *write) apply(tx *Tx) error {
	_, err := w.run(tx)
	return err
}

// errSwallowed says that a statement of a write failed and that the write did not
// say so: PostgreSQL then answers COMMIT by taking all back, without an error.
var errSwallowed = errors.New("sqldb: a statement of the write failed, and the write returned no error")

// run is apply that says whether the change ran.
func (w *write) run(tx *Tx) (ran bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left {
		return false, context.Cause(w.ctx)
	}
	err = w.f(tx)
	if l, ok := tx.on.(*lane); ok && err == nil && l.aborted() {
		err = errSwallowed
	}
	return true, err
}

// leave makes sure that the change runs no more, so that the caller has what it
// shares with it for itself.
func (w *write) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = true
}

// A lane applies writes on one connection, in the order in which they arrive.
type lane struct {
	db         *DB
	conn       *sql.Conn
	statements map[string]*sql.Stmt // of conn
	careful    int                  // so many batches more use savepoints
}

// carefulFor is how many batches use savepoints after one in which a write
// failed. The others do without: a savepoint has SQLite copy each page that is
// changed behind it, and is two round trips more to PostgreSQL.
const carefulFor = 32

func (db *DB) startLanes(ctx context.Context, n int) error {
	switch {
	case db.dialect == SQLite:
		n = 1
	case n <= 0:
		n = 2
	}
	for range min(n, maxLanes) {
		l := &lane{db: db, statements: make(map[string]*sql.Stmt)}
		if err := l.connect(ctx); err != nil {
			return err
		}
		db.lanes.Add(1)
		go l.run()
	}
	return nil
}

// connect takes a new connection. After an error the lane has none, and tries
// again at the next batch.
func (l *lane) connect(ctx context.Context) (err error) {
	l.disconnect()
	l.conn, err = l.db.sql.Conn(ctx)
	if err != nil {
		l.conn = nil
	}
	return err
}

func (l *lane) disconnect() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
		clear(l.statements)
	}
}

// Batch applies one write together with those that wait at the same time, and
// returns when it is durable. A write that fails takes back only itself. If
// ctx ends after the write was taken on, the caller does not learn whether it
// was committed; f does not run then, nor is it begun any more. Since f may be
// run again, it must have no effect but through the Tx, and what it assigns
// outside must be assigned anew in each run.
func (db *DB) Batch(ctx context.Context, f func(*Tx) error) error {
	w := &write{ctx: ctx, f: f, done: make(chan error, 1)}
	select {
	case db.queue <- w:
	case <-db.quit:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		w.leave()
		return ctx.Err()
	}
}

func (l *lane) run() {
	defer l.db.lanes.Done()
	defer l.disconnect()
	for {
		select {
		case first := <-l.db.queue:
			l.settle(l.gather(first))
		case <-l.db.quit:
			return
		}
	}
}

// gather returns first, the writes that are waiting, and what those bring who
// are about to run: a flush costs more than letting them go first.
func (l *lane) gather(first *write) []*write {
	batch := []*write{first}
	for yielded := false; len(batch) < maxBatch; {
		select {
		case w := <-l.db.queue:
			batch, yielded = append(batch, w), false
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

// settle commits a batch and tells each write its outcome. A batch that the
// engine ended is run again write by write, so that one does not fail for
// another's deadlock.
func (l *lane) settle(batch []*write) {
	outcomes := make([]error, len(batch))
	err := l.commit(batch, outcomes)
	if errors.Is(err, errSpoiled) { // once more, each behind a savepoint
		l.careful = carefulFor
		err = l.commit(batch, outcomes)
	}
	if err != nil && l.lost(err) {
		err = l.commit(batch, outcomes)
	}
	for i, w := range batch {
		switch {
		case err == nil:
			w.done <- outcomes[i]
		case again(err):
			w.done <- l.db.transact(w.ctx, nil, w.apply)
		default:
			w.done <- err
		}
	}
}

// lost takes a new connection if the lane's own is gone, and reports whether
// the batch may be tried on it: only if the engine cannot have committed it.
func (l *lane) lost(err error) bool {
	if l.conn != nil && l.conn.PingContext(context.Background()) == nil {
		return false
	}
	reconnected := l.connect(context.Background()) == nil
	var unknown *commitError
	return reconnected && !errors.As(err, &unknown)
}

// A commitError says that the commit itself failed, so that its outcome is not
// known.
type commitError struct{ error }

func (e *commitError) Unwrap() error { return e.error }

func (l *lane) commit(batch []*write, outcomes []error) error {
	ctx := context.Background() // a batch belongs to no single caller
	if l.conn == nil {
		if err := l.connect(ctx); err != nil {
			return err
		}
	}
	begin := "BEGIN"
	if l.db.dialect == SQLite {
		begin = "BEGIN IMMEDIATE"
	}
	if _, err := l.ExecContext(ctx, begin); err != nil {
		return err
	}
	err := l.applyAll(ctx, batch, outcomes)
	if err == nil {
		if _, err = l.ExecContext(ctx, "COMMIT"); err == nil {
			return nil
		}
		err = &commitError{err}
	}
	_, undo := l.ExecContext(ctx, "ROLLBACK")
	return errors.Join(err, undo)
}

// errSpoiled says that one of several writes without savepoints failed, so that
// the transaction has what it did.
var errSpoiled = errors.New("sqldb: a write of a batch failed")

// applyAll applies the writes. A write alone needs no savepoint: the whole
// transaction is its own.
func (l *lane) applyAll(ctx context.Context, batch []*write, outcomes []error) error {
	tx := &Tx{db: l.db, on: l}
	if len(batch) == 1 {
		outcomes[0] = batch[0].apply(tx)
		return outcomes[0]
	}
	if l.careful == 0 {
		return l.applyTrusting(tx, batch, outcomes)
	}
	l.careful--
	for i, w := range batch {
		if err := l.savepoint(ctx, tx, w, &outcomes[i]); err != nil {
			return err
		}
	}
	return nil
}

// applyTrusting applies the writes without savepoints, and sets the outcomes of
// those that do not run.
func (l *lane) applyTrusting(tx *Tx, batch []*write, outcomes []error) error {
	for i, w := range batch {
		ran, err := w.run(tx)
		switch {
		case again(err):
			return err
		case ran && err != nil:
			return errSpoiled
		}
		outcomes[i] = err
	}
	return nil
}

// savepoint applies one write of a batch and sets its outcome. It returns an
// error only when the transaction itself is lost.
func (l *lane) savepoint(ctx context.Context, tx *Tx, w *write, outcome *error) error {
	if _, err := l.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return err
	}
	if *outcome = w.apply(tx); *outcome != nil {
		if again(*outcome) {
			return *outcome
		}
		if _, err := l.ExecContext(ctx, "ROLLBACK TO SAVEPOINT one"); err != nil {
			return err
		}
	}
	_, err := l.ExecContext(ctx, "RELEASE SAVEPOINT one")
	return err
}

// aborted reports whether the transaction can only be taken back. It asks the
// connection and not the server. In SQLite a statement that fails undoes itself
// alone.
func (l *lane) aborted() (yes bool) {
	if l.db.dialect != PostgreSQL || l.conn == nil {
		return false
	}
	err := l.conn.Raw(func(driver any) error {
		if c, ok := driver.(*stdlib.Conn); ok {
			yes = c.Conn().PgConn().TxStatus() == 'E'
		}
		return nil
	})
	return yes || err != nil
}

// prepared returns the lane's own prepared statement. SQLite would parse the
// text anew each time; pgx keeps statements by itself.
func (l *lane) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := l.statements[query]; ok {
		return s, nil
	}
	s, err := l.conn.PrepareContext(ctx, query)
	if err == nil {
		l.statements[query] = s
	}
	return s, err
}

// The statements of a batch do not end with the context of one caller: that
// would take the connection, and with it the writes of the others.
func (l *lane) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	ctx = context.WithoutCancel(ctx)
	if l.db.dialect == PostgreSQL {
		return l.conn.ExecContext(ctx, query, args...)
	}
	s, err := l.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

func (l *lane) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	ctx = context.WithoutCancel(ctx)
	if l.db.dialect == PostgreSQL {
		return l.conn.QueryContext(ctx, query, args...)
	}
	s, err := l.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

func (l *lane) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	ctx = context.WithoutCancel(ctx)
	if l.db.dialect == PostgreSQL {
		return l.conn.QueryRowContext(ctx, query, args...)
	}
	s, err := l.prepared(ctx, query)
	if err != nil {
		return l.conn.QueryRowContext(ctx, query, args...) // returns the same error
	}
	return s.QueryRowContext(ctx, args...)
}
