package certs

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// errClosed is returned by writes after Close.
var errClosed = errors.New("certificate store is closed")

// maxBatch is the most writes in one commit.
const maxBatch = 256

// execer is what a write may do inside its transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// A write is one atomic change; done receives its outcome after the commit.
type write struct {
	apply func(context.Context, execer) error
	done  chan error
}

// A writer applies writes on one connection, in the order in which they
// arrive. Those that wait while a commit is being flushed share the next one,
// so that the rate of issuing is not bound to one flush per certificate.
type writer struct {
	conn  *sql.Conn
	queue chan write
	quit  chan struct{} // closed by close
	idle  chan struct{} // closed when run has returned
	once  sync.Once
}

func newWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn, queue: make(chan write), quit: make(chan struct{}), idle: make(chan struct{})}
	go w.run()
	return w, nil
}

// do applies one write and returns when it is durable. If ctx ends after the
// write was taken on, its outcome is unknown to the caller.
func (w *writer) do(ctx context.Context, apply func(context.Context, execer) error) error {
	wr := write{apply: apply, done: make(chan error, 1)}
	select {
	case w.queue <- wr:
	case <-w.quit:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-wr.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *writer) close() (err error) {
	w.once.Do(func() {
		close(w.quit)
		<-w.idle
		err = w.conn.Close()
	})
	return err
}

func (w *writer) run() {
	defer close(w.idle)
	for {
		select {
		case first := <-w.queue:
			w.commit(w.gather(first))
		case <-w.quit:
			return
		}
	}
}

// gather returns first and the writes that are waiting now.
func (w *writer) gather(first write) []write {
	batch := []write{first}
	for len(batch) < maxBatch {
		select {
		case wr := <-w.queue:
			batch = append(batch, wr)
		default:
			return batch
		}
	}
	return batch
}

// commit applies a batch in one transaction. A write that fails takes back
// only itself; a commit that fails fails all.
func (w *writer) commit(batch []write) {
	ctx := context.Background() // a batch belongs to no single caller
	outcomes := make([]error, len(batch))
	err := w.transaction(ctx, func() error {
		for i, wr := range batch {
			if err := w.savepoint(ctx, wr, &outcomes[i]); err != nil {
				return err
			}
		}
		return nil
	})
	for i, wr := range batch {
		if err != nil {
			outcomes[i] = err
		}
		wr.done <- outcomes[i]
	}
}

func (w *writer) transaction(ctx context.Context, body func() error) error {
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := body()
	if err == nil {
		_, err = w.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, undo := w.conn.ExecContext(ctx, "ROLLBACK")
		return errors.Join(err, undo)
	}
	return nil
}

// savepoint applies one write of a batch and sets its outcome. It returns an
// error only when the transaction itself is lost.
func (w *writer) savepoint(ctx context.Context, wr write, outcome *error) error {
	if _, err := w.conn.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return err
	}
	if *outcome = wr.apply(ctx, w.conn); *outcome != nil {
		if _, err := w.conn.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
			return err
		}
	}
	_, err := w.conn.ExecContext(ctx, "RELEASE one")
	return err
}
