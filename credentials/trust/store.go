package trust

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Migrations are the tables that a List keeps in Options.DB. It is opened with
// sqldb.Options{Name: "trust", Migrations: trust.Migrations}.
//
//go:embed migrations
var Migrations embed.FS

// OpenDB opens a database for Options.DB: the path of a SQLite file or a
// PostgreSQL URL.
func OpenDB(ctx context.Context, source string) (*sqldb.DB, error) {
	return sqldb.Open(ctx, source, sqldb.Options{Name: "trust", Migrations: Migrations})
}

// A kept is a document as it was fetched.
type kept struct {
	mediaType, etag string
	body            []byte
	fetched         time.Time
	maxAge          time.Duration
}

// A store keeps documents and revocations beyond a restart. Without a database
// it keeps nothing.
type store struct{ db *sqldb.DB }

func (s store) document(ctx context.Context, id string) (*kept, error) {
	if s.db == nil {
		return nil, nil
	}
	var k kept
	var fetched, maxAge int64
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `SELECT media_type, etag, body, fetched, max_age FROM trust_document WHERE id = ?`, id).
			Scan(&k.mediaType, &k.etag, &k.body, &fetched, &maxAge)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	k.fetched, k.maxAge = time.UnixMicro(fetched), time.Duration(maxAge)*time.Microsecond
	return &k, err
}

func (s store) putDocument(ctx context.Context, id string, k *kept) error {
	if s.db == nil {
		return nil
	}
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO trust_document (id, media_type, etag, body, fetched, max_age) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET media_type = excluded.media_type, etag = excluded.etag, body = excluded.body, fetched = excluded.fetched, max_age = excluded.max_age`,
			id, k.mediaType, k.etag, k.body, k.fetched.UnixMicro(), k.maxAge.Microseconds())
		return err
	})
}

// revoke remembers a revocation for good.
func (s store) revoke(ctx context.Context, e *Evidence, detail string, now time.Time) error {
	if s.db == nil {
		return nil
	}
	id, forget := e.id, e.ends.Add(30*24*time.Hour) // a later key binding lives as long as the credential
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM trust_revoked WHERE forget < ?`, now.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO trust_revoked (credential, issuer, detail, learned, forget) VALUES (?, ?, ?, ?, ?) ON CONFLICT (credential) DO NOTHING`,
			id[:], e.Issuer.Name, detail, now.UnixMicro(), forget.UnixMicro())
		return err
	})
}

// revoked returns what is remembered of a revocation, or "".
func (s store) revoked(ctx context.Context, id [sha256.Size]byte) (detail string, err error) {
	if s.db == nil {
		return "", nil
	}
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `SELECT detail FROM trust_revoked WHERE credential = ?`, id[:]).Scan(&detail)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return detail, err
}
