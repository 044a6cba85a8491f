package sqldb

import (
	"context"
	"database/sql"
)

// QueryRow runs one reading statement outside of a transaction, for look-ups on
// a hot path. The statement stays prepared; query must be one of few texts. On
// SQLite, where a look-up waits for no writer, ctx is asked before it alone: to watch
// it the driver and package sql would start a goroutine each, which cost more.
func (db *DB) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	if db.dialect == PostgreSQL { // pgx keeps statements by itself
		return db.sql.QueryRowContext(ctx, db.rebind(query), args...)
	}
	if ctx.Err() == nil {
		ctx = context.WithoutCancel(ctx)
	}
	s, err := db.prepared(ctx, query)
	if err != nil { // the row says why
		return db.sql.QueryRowContext(ctx, query, args...)
	}
	return s.QueryRowContext(ctx, args...)
}

func (db *DB) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := db.rows.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.sql.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if other, ok := db.rows.LoadOrStore(query, s); ok {
		s.Close()
		return other.(*sql.Stmt), nil
	}
	return s, nil
}
