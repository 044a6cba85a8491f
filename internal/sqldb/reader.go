package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// maxReaders bounds the readers that are kept, and maxStatements what each
// keeps.
const (
	maxReaders    = 4
	maxStatements = 256
)

// A reader is a connection to SQLite for reading transactions. It keeps its
// statements: SQLite would parse the text anew each time.
type reader struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt
}

// readSQLite begins a deferred transaction, which waits for no writer; the
// driver's own BeginTx would take the write lock.
func (db *DB) readSQLite(ctx context.Context, f func(*Tx) error) (err error) {
	r, err := db.reader(ctx)
	if err != nil {
		return db.closed(err)
	}
	well := false
	defer func() { db.giveBack(r, well) }()
	if _, err := r.ExecContext(ctx, "BEGIN DEFERRED"); err != nil {
		return err
	}
	err = f(&Tx{db: db, on: r})
	_, end := r.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	well = end == nil
	return errors.Join(err, end)
}

// reader returns one that was kept, or a new one.
func (db *DB) reader(ctx context.Context) (*reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case r := <-db.readers:
		return r, nil
	default:
	}
	conn, err := db.sql.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &reader{conn: conn, statements: make(map[string]*sql.Stmt)}, nil
}

// giveBack keeps a reader for the next transaction, if it is well and there is
// room.
func (db *DB) giveBack(r *reader, well bool) {
	if !well { // a transaction may be left on it: it must not be used again
		r.conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	select {
	case <-db.quit:
		well = false
	default:
	}
	if well {
		select {
		case db.readers <- r:
			return
		default:
		}
	}
	r.conn.Close()
}

func (db *DB) closeReaders() {
	for {
		select {
		case r := <-db.readers:
			r.conn.Close()
		default:
			return
		}
	}
}

// prepared returns the statement of a text, or nil where there are too many.
func (r *reader) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := r.statements[query]; ok {
		return s, nil
	}
	if len(r.statements) >= maxStatements {
		return nil, nil
	}
	s, err := r.conn.PrepareContext(ctx, query)
	if err == nil {
		r.statements[query] = s
	}
	return s, err
}

// ExecContext runs a statement that returns no rows.
func (r *reader) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	s, err := r.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return r.conn.ExecContext(ctx, query, args...)
	}
	return s.ExecContext(ctx, args...)
}

// QueryContext runs a statement that returns rows.
func (r *reader) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := r.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return r.conn.QueryContext(ctx, query, args...)
	}
	return s.QueryContext(ctx, args...)
}

// QueryRowContext runs a statement that returns at most one row.
func (r *reader) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := r.prepared(ctx, query)
	if err != nil || s == nil {
		return r.conn.QueryRowContext(ctx, query, args...) // returns the same error
	}
	return s.QueryRowContext(ctx, args...)
}
