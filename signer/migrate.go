package signer

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// migrations are numbered files. A released file never changes; a change of
// the schema is a new file.
//
//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks a SQLite file as ours: "PVSL".
const applicationID = 0x5056534c

// migrate brings the schema to the newest migration. It refuses a file that
// is not ours, or that a newer release has written.
func migrate(ctx context.Context, db *sql.DB) error {
	steps, err := loadMigrations()
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	have, err := checkSchema(ctx, tx, len(steps))
	if err != nil {
		return err
	}
	for n := have; n < len(steps); n++ {
		if _, err := tx.ExecContext(ctx, steps[n]); err != nil {
			return fmt.Errorf("migration %d: %w", n+1, err)
		}
	}
	mark := fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(steps))
	if _, err := tx.ExecContext(ctx, mark); err != nil {
		return err
	}
	return tx.Commit()
}

// checkSchema returns how many migrations the file has had.
func checkSchema(ctx context.Context, tx *sql.Tx, newest int) (int, error) {
	var id, version, tables int
	err := tx.QueryRowContext(ctx, `SELECT a.application_id, u.user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id a, pragma_user_version u`).Scan(&id, &version, &tables)
	switch {
	case err != nil:
		return 0, err
	case id == 0 && version == 0 && tables == 0:
		return 0, nil
	case id != applicationID:
		return 0, fmt.Errorf("%w: the file is a database of another program", ErrSchema)
	case version > newest:
		return 0, fmt.Errorf("%w: the file has schema %d and this release knows up to %d; use the newer release that wrote it", ErrSchema, version, newest)
	}
	return version, nil
}

// loadMigrations returns the statements in order, and fails on a gap.
func loadMigrations() ([]string, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql") // sorted
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("no migrations are built in: %w", err)
	}
	var steps []string
	for i, name := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		if n, err := strconv.Atoi(number); err != nil || n != i+1 {
			return nil, fmt.Errorf("migration %s is out of order, want number %d", name, i+1)
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, string(text))
	}
	return steps, nil
}
