package certs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// A SQLStore keeps what an Issuer does in one SQLite file: intents,
// certificates, revocations and CRL numbers. Every write is on disk before it
// is acknowledged (WAL, synchronous=FULL); writes that wait at the same time
// share one commit. It is safe for concurrent use, also by several processes.
type SQLStore struct {
	db     *sql.DB
	writer *writer
}

// migrations bring the schema from version i to i+1. They are never edited,
// only added to.
var migrations = []string{
	`CREATE TABLE certificate (
		issuer     BLOB NOT NULL,    -- SHA-256 of the issuer's SubjectPublicKeyInfo
		serial     TEXT NOT NULL,    -- lower-case hexadecimal
		kind       TEXT NOT NULL,
		names      TEXT NOT NULL,    -- JSON array
		key        BLOB NOT NULL,    -- SHA-256 of the certified SubjectPublicKeyInfo
		tbs        BLOB NOT NULL,    -- SHA-256 of the TBSCertificate
		not_before INTEGER NOT NULL, -- seconds
		not_after  INTEGER NOT NULL,
		prepared   INTEGER NOT NULL, -- microseconds, as all other times
		der        BLOB,             -- NULL while unfinished
		issued     INTEGER,
		revoked    INTEGER,
		reason     INTEGER,
		changed    INTEGER NOT NULL DEFAULT 0, -- full CRLs of the issuer when the revocation last changed
		PRIMARY KEY (issuer, serial)
	) STRICT;
	CREATE INDEX certificate_revoked ON certificate (issuer, changed) WHERE revoked IS NOT NULL OR changed > 0;
	CREATE INDEX certificate_unfinished ON certificate (issuer) WHERE der IS NULL;
	CREATE TABLE crl (
		issuer      BLOB NOT NULL,
		number      INTEGER NOT NULL,
		base        INTEGER,          -- NULL for a full CRL
		this_update INTEGER NOT NULL,
		next_update INTEGER NOT NULL,
		der         BLOB,             -- NULL while unfinished
		PRIMARY KEY (issuer, number)
	) STRICT;`,
}

// OpenSQLStore opens the store in the file path, creating or migrating it.
func OpenSQLStore(ctx context.Context, path string) (*SQLStore, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: "_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("certificate store %s: %w", path, err), db.Close())
	}
	w, err := newWriter(ctx, db)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("certificate store %s: %w", path, err), db.Close())
	}
	return &SQLStore{db: db, writer: w}, nil
}

// Close waits for the writes that have begun and closes the file.
func (s *SQLStore) Close() error { return errors.Join(s.writer.close(), s.db.Close()) }

func migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS certs_migration (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT`); err != nil {
		return err
	}
	var version int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM certs_migration`).Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("schema version %d is newer than this program knows (%d); use the newer program", version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
			return fmt.Errorf("migration %d: %w", version+1, err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO certs_migration VALUES (?, ?)`, version+1, time.Now().UnixMicro()); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// PutIntent implements Store.
func (s *SQLStore) PutIntent(ctx context.Context, in Intent) error {
	names, err := json.Marshal(in.Names)
	if err != nil {
		return err
	}
	return s.writer.do(ctx, func(ctx context.Context, tx execer) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO certificate (issuer, serial, kind, names, key, tbs, not_before, not_after, prepared)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			in.Issuer[:], serialText(in.Serial), string(in.Kind), string(names), in.Key[:], in.TBS[:], in.NotBefore.Unix(), in.NotAfter.Unix(), in.Prepared.UnixMicro())
		return oneRow(res, err, ErrSerialTaken)
	})
}

// PutCertificate implements Store.
func (s *SQLStore) PutCertificate(ctx context.Context, issuer KeyID, serial *big.Int, der []byte, at time.Time) error {
	return s.writer.do(ctx, func(ctx context.Context, tx execer) error {
		res, err := tx.ExecContext(ctx, `UPDATE certificate SET der = ?, issued = ? WHERE issuer = ? AND serial = ? AND der IS NULL`,
			der, at.UnixMicro(), issuer[:], serialText(serial))
		if err = oneRow(res, err, ErrNoIntent); !errors.Is(err, ErrNoIntent) {
			return err
		}
		var same bool
		switch err := tx.QueryRowContext(ctx, `SELECT der = ? FROM certificate WHERE issuer = ? AND serial = ?`, der, issuer[:], serialText(serial)).Scan(&same); {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNoIntent
		case err == nil && !same:
			return ErrSerialTaken
		default:
			return err
		}
	})
}

// oneRow returns none if a statement changed no row.
func oneRow(res sql.Result, err, none error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return none
}

const recordColumns = `issuer, serial, kind, names, key, tbs, not_before, not_after, prepared, der, issued, revoked, reason`

// Record returns the record of one certificate or intent, or ErrNoIntent.
func (s *SQLStore) Record(ctx context.Context, issuer KeyID, serial *big.Int) (*Record, error) {
	row := s.db.QueryRowContext(ctx, `SELECT `+recordColumns+` FROM certificate WHERE issuer = ? AND serial = ?`, issuer[:], serialText(serial))
	r, err := scanRecord(row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoIntent
	}
	return r, err
}

// Records calls yield with every record in the order of preparation, until it
// returns an error.
func (s *SQLStore) Records(ctx context.Context, yield func(*Record) error) error {
	return s.each(ctx, `SELECT `+recordColumns+` FROM certificate ORDER BY prepared, serial`, yield)
}

// Unfinished calls yield with every intent that has no certificate: what was
// signed, or may have been, when the process or the store failed.
func (s *SQLStore) Unfinished(ctx context.Context, yield func(*Record) error) error {
	return s.each(ctx, `SELECT `+recordColumns+` FROM certificate WHERE der IS NULL ORDER BY prepared, serial`, yield)
}

func (s *SQLStore) each(ctx context.Context, query string, yield func(*Record) error, args ...any) error {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			return err
		}
		if err := yield(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

func scanRecord(row interface{ Scan(...any) error }) (*Record, error) {
	var r Record
	var issuer, key, tbs []byte
	var serial, names string
	var notBefore, notAfter, prepared int64
	var issued, revoked, reason sql.NullInt64
	if err := row.Scan(&issuer, &serial, &r.Kind, &names, &key, &tbs, &notBefore, &notAfter, &prepared, &r.Certificate, &issued, &revoked, &reason); err != nil {
		return nil, err
	}
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok || copy(r.Issuer[:], issuer) != len(r.Issuer) || copy(r.Key[:], key) != len(r.Key) || copy(r.TBS[:], tbs) != len(r.TBS) {
		return nil, fmt.Errorf("certificate store: the row of serial %q is damaged", serial)
	}
	r.Serial = n
	r.NotBefore, r.NotAfter, r.Prepared = time.Unix(notBefore, 0).UTC(), time.Unix(notAfter, 0).UTC(), time.UnixMicro(prepared).UTC()
	if issued.Valid {
		r.Issued = time.UnixMicro(issued.Int64).UTC()
	}
	if revoked.Valid {
		r.Revocation = &Revocation{At: time.UnixMicro(revoked.Int64).UTC(), Reason: Reason(reason.Int64)}
	}
	return &r, json.Unmarshal([]byte(names), &r.Names)
}
