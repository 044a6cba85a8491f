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
	issue           order
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
		return tx.QueryRow(ctx, `SELECT media_type, etag, body, fetched, max_age, issue FROM trust_document WHERE id = ?`, id).
			Scan(&k.mediaType, &k.etag, &k.body, &fetched, &maxAge, (*[]byte)(&k.issue))
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	k.fetched, k.maxAge = time.UnixMicro(fetched), time.Duration(maxAge)*time.Microsecond
	return &k, err
}

// putDocument stores a document, and reports whether it did: not if a newer one
// is there.
func (s store) putDocument(ctx context.Context, id string, k *kept) (done bool, err error) {
	if s.db == nil {
		return true, nil
	}
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		r, err := tx.Exec(ctx, `INSERT INTO trust_document (id, media_type, etag, body, fetched, max_age, issue) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET media_type = excluded.media_type, etag = excluded.etag, body = excluded.body, fetched = excluded.fetched,
			max_age = excluded.max_age, issue = excluded.issue
			WHERE trust_document.issue IS NULL OR excluded.issue IS NULL OR excluded.issue >= trust_document.issue`,
			id, k.mediaType, k.etag, k.body, k.fetched.UnixMicro(), k.maxAge.Microseconds(), k.issue.value())
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		done = n > 0
		return err
	})
	return done, err
}

// value is that of a column, which is NULL where nothing is known.
func (o order) value() any {
	if o == nil {
		return nil
	}
	return []byte(o)
}

// replaceDocument puts a document in the place of one that is of no use. If
// another is there by now, that stays.
func (s store) replaceDocument(ctx context.Context, id string, old, k *kept) error {
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if old == nil {
			return nil
		}
		_, err := tx.Exec(ctx, `UPDATE trust_document SET media_type = ?, etag = ?, body = ?, fetched = ?, max_age = ?, issue = ? WHERE id = ? AND issue = ?`,
			k.mediaType, k.etag, k.body, k.fetched.UnixMicro(), k.maxAge.Microseconds(), k.issue.value(), id, old.issue.value())
		return err
	})
}

// revoke remembers a revocation for good.
func (s store) revoke(ctx context.Context, e *Evidence, detail string, now time.Time) error {
	if s.db == nil {
		return nil
	}
	id := e.id
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM trust_revoked WHERE forget < ?`, now.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO trust_revoked (credential, issuer, detail, learned, forget) VALUES (?, ?, ?, ?, ?) ON CONFLICT (credential) DO NOTHING`,
			id[:], e.Issuer.Name, detail, now.UnixMicro(), forget(e.ends).UnixMicro())
		return err
	})
}

// revoked returns what is remembered of a revocation, or "".
func (s store) revoked(ctx context.Context, id [sha256.Size]byte) (detail string, err error) {
	if s.db == nil {
		return "", nil
	}
	err = s.db.QueryRow(ctx, `SELECT detail FROM trust_revoked WHERE credential = ?`, id[:]).Scan(&detail)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return detail, err
}
