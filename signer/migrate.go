package signer

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// migrations are numbered files. A released file never changes; a change of
// the schema is a new file.
//
//go:embed migrations/*.sql
var migrations embed.FS

// storePart is the key store's name among the parts of a database.
const storePart = "keys"

// applicationID marks the SQLite files of the first release: "PVSL". Their
// schema number was in user_version, and was 1.
const (
	applicationID = 0x5056534c
	firstSchema   = 1
	// adoptedVersion is what the first release finds in user_version of a file
	// that has moved on, and refuses.
	adoptedVersion = 1000
)

// adopt takes over a file of the first release, which counted its schema in the
// file's header: it writes down for sqldb that the first migration was made. It
// refuses the file of another program, and leaves every other file alone.
func adopt(ctx context.Context, path string) error {
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(10000)", "trusted_schema(0)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return adoptIn(ctx, tx)
}

func adoptIn(ctx context.Context, tx *sql.Tx) error {
	var id, version, tables, counted int
	err := tx.QueryRowContext(ctx, `SELECT a.application_id, u.user_version, (SELECT count(*) FROM sqlite_schema),
		(SELECT count(*) FROM sqlite_schema WHERE name = 'schema_migration')
		FROM pragma_application_id a, pragma_user_version u`).Scan(&id, &version, &tables, &counted)
	switch {
	case err != nil:
		return err
	case counted > 0 || tables == 0:
		return nil
	case id != applicationID:
		return fmt.Errorf("%w: the file is a database of another program", ErrSchema)
	case version != firstSchema:
		return fmt.Errorf("%w: the file has schema %d, which no release wrote", ErrSchema, version)
	}
	_, err = tx.ExecContext(ctx, fmt.Sprintf(`CREATE TABLE schema_migration (
			part TEXT NOT NULL, version INTEGER NOT NULL, applied INTEGER NOT NULL, PRIMARY KEY (part, version)) STRICT;
		INSERT INTO schema_migration (part, version, applied) VALUES ('%s', %d, CAST(strftime('%%s') AS INTEGER) * 1000000);
		PRAGMA user_version = %d`, storePart, firstSchema, adoptedVersion))
	if err != nil {
		return err
	}
	return tx.Commit()
}
