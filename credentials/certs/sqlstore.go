package certs

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

//go:embed migrations
var migrations embed.FS

// partName is the part of the database that is ours.
const partName = "certs"

// A SQLStore keeps what an Issuer does in a database: intents, certificates,
// revocations and CRL numbers. Writes that wait at the same time share one
// commit, so that the rate of issuing is not bound to one flush per
// certificate. It is safe for concurrent use, also by several processes and,
// on PostgreSQL, several nodes.
type SQLStore struct {
	db   *sqldb.DB
	owns bool // Close closes db
}

// OpenSQLStore opens a store in a database of its own: the path of a SQLite
// file or a postgres:// URL.
func OpenSQLStore(ctx context.Context, source string) (*SQLStore, error) {
	db, err := sqldb.Open(ctx, source, sqldb.Options{Name: partName, Migrations: migrations})
	if err != nil {
		return nil, fmt.Errorf("certificate store: %w", err)
	}
	return &SQLStore{db: db, owns: true}, nil
}

// NewSQLStore makes its tables in a database that has other things too, and
// that the caller closes.
func NewSQLStore(ctx context.Context, db *sqldb.DB) (*SQLStore, error) {
	if err := db.Migrate(ctx, partName, migrations); err != nil {
		return nil, fmt.Errorf("certificate store: %w", err)
	}
	return &SQLStore{db: db}, nil
}

// Close closes the database if the store has opened it.
func (s *SQLStore) Close() error {
	if !s.owns {
		return nil
	}
	return s.db.Close()
}

// A Tx changes the store inside a transaction of the caller's.
type Tx struct{ tx *sqldb.Tx }

// In returns a Tx within a transaction in a database that has the tables of a
// SQLStore.
func In(tx *sqldb.Tx) Tx { return Tx{tx} }

// batch runs f in a transaction that shares its commit with others.
func (s *SQLStore) batch(ctx context.Context, f func(Tx) error) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error { return f(Tx{tx}) })
}

// PutIntent implements Store.
func (s *SQLStore) PutIntent(ctx context.Context, in Intent) error {
	return s.batch(ctx, func(t Tx) error { return t.PutIntent(ctx, in) })
}

// PutIntent is that of Store.
func (t Tx) PutIntent(ctx context.Context, in Intent) error { return t.put(ctx, in, nil, nil) }

// PutIssued implements Store.
func (s *SQLStore) PutIssued(ctx context.Context, in Intent, der []byte, at time.Time) error {
	return s.batch(ctx, func(t Tx) error { return t.PutIssued(ctx, in, der, at) })
}

// PutIssued is that of Store.
func (t Tx) PutIssued(ctx context.Context, in Intent, der []byte, at time.Time) error {
	return t.put(ctx, in, der, at.UnixMicro())
}

// put stores an intent, and the certificate with the time of it unless they are nil.
func (t Tx) put(ctx context.Context, in Intent, der, issued any) error {
	names, err := json.Marshal(in.Names)
	if err != nil {
		return err
	}
	return t.tx.ExecOne(ctx, ErrSerialTaken, `INSERT INTO certificate (issuer, serial, kind, names, key, tbs, not_before, not_after, prepared, der, issued)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		in.Issuer[:], serialText(in.Serial), string(in.Kind), string(names), in.Key[:], in.TBS[:], in.NotBefore.Unix(), in.NotAfter.Unix(), in.Prepared.UnixMicro(), der, issued)
}

// PutCertificate implements Store.
func (s *SQLStore) PutCertificate(ctx context.Context, issuer KeyID, serial *big.Int, der []byte, at time.Time) error {
	return s.batch(ctx, func(t Tx) error { return t.PutCertificate(ctx, issuer, serial, der, at) })
}

// PutCertificate is that of Store.
func (t Tx) PutCertificate(ctx context.Context, issuer KeyID, serial *big.Int, der []byte, at time.Time) error {
	err := t.tx.ExecOne(ctx, ErrNoIntent, `UPDATE certificate SET der = ?, issued = ? WHERE issuer = ? AND serial = ? AND der IS NULL`,
		der, at.UnixMicro(), issuer[:], serialText(serial))
	if !errors.Is(err, ErrNoIntent) {
		return err
	}
	var same bool
	switch err := t.tx.QueryRow(ctx, `SELECT der = ? FROM certificate WHERE issuer = ? AND serial = ?`, der, issuer[:], serialText(serial)).Scan(&same); {
	case errors.Is(err, sql.ErrNoRows):
		return ErrNoIntent
	case err == nil && !same:
		return ErrSerialTaken
	default:
		return err
	}
}

const recordColumns = `issuer, serial, kind, names, key, tbs, not_before, not_after, prepared, der, issued, revoked, reason`

// Record returns the record of one certificate or intent, or ErrNoIntent.
func (s *SQLStore) Record(ctx context.Context, issuer KeyID, serial *big.Int) (r *Record, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		r, err = Tx{tx}.Record(ctx, issuer, serial)
		return err
	})
	return r, err
}

// Record returns the record of one certificate or intent, or ErrNoIntent.
func (t Tx) Record(ctx context.Context, issuer KeyID, serial *big.Int) (*Record, error) {
	row := t.tx.QueryRow(ctx, `SELECT `+recordColumns+` FROM certificate WHERE issuer = ? AND serial = ?`, issuer[:], serialText(serial))
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

func (s *SQLStore) each(ctx context.Context, query string, yield func(*Record) error) error {
	return s.db.Read(ctx, func(tx *sqldb.Tx) error {
		rows, err := tx.Query(ctx, query)
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
	})
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
