package sqldb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// ErrSchema is returned for a database that a newer release has written.
var ErrSchema = errors.New("the database has a newer schema than this release knows; use the release that wrote it")

var partName = regexp.MustCompile(`^[a-z_]{1,32}$`)

// migrate brings the part's schema to the newest migration.
func (db *DB) migrate(ctx context.Context, opt Options) error {
	if !partName.MatchString(opt.Name) {
		return fmt.Errorf("sqldb: %q is no name for a part", opt.Name)
	}
	steps, err := db.loadMigrations(opt.Migrations)
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		have, err := db.version(ctx, tx, opt.Name)
		if err != nil {
			return err
		}
		if have > len(steps) {
			return fmt.Errorf("%w: %s has %d, we know %d", ErrSchema, opt.Name, have, len(steps))
		}
		for n := have; n < len(steps); n++ {
			if _, err := tx.on.ExecContext(ctx, steps[n]); err != nil {
				return fmt.Errorf("migration %d of %s: %w", n+1, opt.Name, err)
			}
			_, err := tx.Exec(ctx, `INSERT INTO schema_migration (part, version, applied) VALUES (?, ?, ?)`, opt.Name, n+1, db.Now().UnixMicro())
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// migrationLock keeps two nodes from migrating one PostgreSQL at once.
const migrationLock = 0x5056534c

func (db *DB) version(ctx context.Context, tx *Tx, part string) (version int, err error) {
	if db.dialect == PostgreSQL {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(?)`, migrationLock); err != nil {
			return 0, err
		}
	}
	_, err = tx.on.ExecContext(ctx, db.dialect.ddl(`CREATE TABLE IF NOT EXISTS schema_migration (
		part TEXT NOT NULL, version INTEGER NOT NULL, applied INTEGER NOT NULL, PRIMARY KEY (part, version)) STRICT;`))
	if err != nil {
		return 0, err
	}
	err = tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM schema_migration WHERE part = ?`, part).Scan(&version)
	return version, err
}

// loadMigrations returns the statements for the engine in order, and fails on
// a gap.
func (db *DB) loadMigrations(files fs.FS) ([]string, error) {
	if files == nil {
		return nil, errors.New("sqldb: no migrations are given")
	}
	names, err := fs.Glob(files, "*/*.sql") // sorted
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("sqldb: no migrations are built in: %w", err)
	}
	foreign := ".postgres.sql"
	if db.dialect == PostgreSQL {
		foreign = ".sqlite.sql"
	}
	var steps []string
	for _, name := range names {
		if strings.HasSuffix(name, foreign) {
			continue
		}
		number, _, _ := strings.Cut(path.Base(name), "_")
		if n, err := strconv.Atoi(number); err != nil || n != len(steps)+1 {
			return nil, fmt.Errorf("sqldb: migration %s is out of order, want number %d", name, len(steps)+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, db.dialect.ddl(string(text)))
	}
	return steps, nil
}

// Migrate brings a further part's schema, which shares the database, to its
// newest migration. Name and files are as in Options.
func (db *DB) Migrate(ctx context.Context, name string, files fs.FS) error {
	if err := db.migrate(ctx, Options{Name: name, Migrations: files}); err != nil {
		return fmt.Errorf("database %s: %w", db.where, err)
	}
	return nil
}
