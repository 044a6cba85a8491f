package sqldb

import (
	"context"
	"database/sql"
)

// runner is what *sql.Tx, *sql.Conn and a lane's statements have in common.
type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// A Tx is a transaction that is under way. It is good until the function that
// it was given to returns, and for one goroutine.
type Tx struct {
	db *DB
	on runner
}

// Exec runs a statement that returns no rows.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return tx.on.ExecContext(ctx, tx.db.rebind(query), args...)
}

// Query runs a statement that returns rows. They must be closed before the
// next statement.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return tx.on.QueryContext(ctx, tx.db.rebind(query), args...)
}

// QueryRow runs a statement that returns at most one row.
func (tx *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return tx.on.QueryRowContext(ctx, tx.db.rebind(query), args...)
}

// ExecOne runs a statement that must change a row, and returns missing if it
// changed none.
func (tx *Tx) ExecOne(ctx context.Context, missing error, query string, args ...any) error {
	res, err := tx.Exec(ctx, query, args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return missing
	}
	return err
}

// Dialect returns the engine.
func (tx *Tx) Dialect() Dialect { return tx.db.dialect }

// ForUpdate ends a SELECT whose rows stay locked until the transaction ends.
// SQLite needs no such words: a writing transaction has the whole file.
func (tx *Tx) ForUpdate() string {
	if tx.db.dialect == PostgreSQL {
		return " FOR UPDATE"
	}
	return ""
}

// SkipLocked is ForUpdate that passes over rows which others have locked, for
// workers that share a queue.
func (tx *Tx) SkipLocked() string {
	if tx.db.dialect == PostgreSQL {
		return " FOR UPDATE SKIP LOCKED"
	}
	return ""
}
