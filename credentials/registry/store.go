package registry

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/sqldb"
)

//go:embed migrations
var migrations embed.FS

// A Store is the book of an issuer, with its certificates and its status lists,
// in one database. It is safe for concurrent use, also by several processes
// and, on PostgreSQL, several nodes.
type Store struct {
	db     *sqldb.DB
	certs  *certs.SQLStore
	status *statuslist.SQLStore

	mu        sync.Mutex // guards watchers
	watchers  map[int]func([]Change)
	nextWatch int

	// step, in tests, is called between any two writes.
	step func(name string) error
}

// Open opens the book: the path of a SQLite file or a postgres:// URL.
func Open(ctx context.Context, source string) (*Store, error) {
	db, err := sqldb.Open(ctx, source, sqldb.Options{Name: "registry", Migrations: migrations})
	if err != nil {
		return nil, fmt.Errorf("registry of credentials: %w", err)
	}
	s := &Store{db: db, watchers: make(map[int]func([]Change)), step: func(string) error { return nil }}
	if s.certs, err = certs.NewSQLStore(ctx, db); err == nil {
		s.status, err = statuslist.NewSQLStore(ctx, db)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Ping asks whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.db.Ping(ctx) }

// Database returns the database of the book, for what is to change in one
// transaction with it.
func (s *Store) Database() *sqldb.DB { return s.db }

// Certificates returns the certificates in the book, for reading and for
// signing CRLs and OCSP answers.
func (s *Store) Certificates() *certs.SQLStore { return s.certs }

// StatusLists returns the status lists in the book.
func (s *Store) StatusLists() *statuslist.SQLStore { return s.status }

// PutIntent implements certs.Store: it writes down the certificate and its
// record in one commit. The Attachment of the order, if any, is an Attachment.
func (s *Store) PutIntent(ctx context.Context, in certs.Intent) error {
	r, along, err := recordOf(in)
	if err != nil {
		return err
	}
	return s.putCertificate(ctx, r, along, func(tx certs.Tx) error { return tx.PutIntent(ctx, in) })
}

// PutIssued implements certs.Store: it writes down the certificate and its record,
// as issued, in one commit.
func (s *Store) PutIssued(ctx context.Context, in certs.Intent, der []byte, at time.Time) error {
	r, along, err := recordOf(in)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(der)
	r.Issued, r.Digest = at, digest[:]
	return s.putCertificate(ctx, r, along, func(tx certs.Tx) error { return tx.PutIssued(ctx, in, der, at) })
}

// putCertificate writes down the record of a certificate, and what put and along do,
// in one commit.
func (s *Store) putCertificate(ctx context.Context, r *Record, along Along, put func(certs.Tx) error) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		if err := along.run(ctx, tx, r.ID); err != nil {
			return err
		}
		if err := put(certs.In(tx)); err != nil {
			return err
		}
		if err := s.step("intent of the certificate"); err != nil {
			return err
		}
		return insert(ctx, tx, r)
	})
}

// certificateIssued finds the record by the time at which it was written down, which
// it has in common with the certificate. An index of serial numbers would be one more
// page to write for each certificate.
const certificateIssued = `UPDATE credential SET issued = coalesce(issued, ?), digest = ?
	WHERE prepared = (SELECT prepared FROM certificate WHERE issuer = ? AND serial = ?) AND issuer_key = ? AND serial = ?`

// PutCertificate implements certs.Store.
func (s *Store) PutCertificate(ctx context.Context, issuer certs.KeyID, serial *big.Int, der []byte, at time.Time) error {
	digest := sha256.Sum256(der)
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		if err := certs.In(tx).PutCertificate(ctx, issuer, serial, der, at); err != nil {
			return err
		}
		if err := s.step("certificate"); err != nil {
			return err
		}
		return tx.ExecOne(ctx, ErrUnknown, certificateIssued,
			at.UnixMicro(), digest[:], issuer[:], serial.Text(16), issuer.String(), serial.Text(16))
	})
}

// recordOf returns the record of a certificate, and what changes along with it.
func recordOf(in certs.Intent) (r *Record, along Along, err error) {
	a, _ := in.Attachment.(Attachment)
	if a.ID == "" {
		a.ID = NewCertificateID(in.Prepared)
	}
	holder, err := thumbprint(in.Public)
	if err != nil {
		return nil, nil, err
	}
	r = &Record{
		ID: a.ID, Type: X509, Kind: in.Kind, Issuer: a.Issuer, IssuerKey: in.Issuer, Holder: holder, NotBefore: in.NotBefore, NotAfter: in.NotAfter,
		Prepared: in.Prepared, Serial: in.Serial.Text(16), Index: -1, Attestation: a.Attestation, Evidence: a.Evidence, State: Valid,
	}
	if r.Issuer == "" {
		r.Issuer = in.IssuerName
	}
	if in.Kind == certs.KindDevice && len(in.Names) == 2 {
		r.Client, r.User = in.Names[0], in.Names[1]
	} else if len(in.Names) > 0 {
		r.Subject = in.Names[0]
	}
	return r, a.Along, nil
}

// Begin writes down a token before it is signed, and gives it an index on its
// status list, in one commit.
func (s *Store) Begin(ctx context.Context, d Draft) (*Record, error) {
	holder, err := thumbprint(d.Holder)
	if err != nil {
		return nil, err
	}
	key, err := certs.KeyIDOf(d.IssuerKey)
	if err != nil {
		return nil, err
	}
	r := &Record{
		ID: NewID(), Type: d.Type, Kind: certs.KindDevice, Issuer: d.Issuer, IssuerKey: key, Client: d.Names.Client.String(), User: d.Names.User.String(),
		Holder: holder, NotBefore: d.NotBefore.UTC().Truncate(time.Second), NotAfter: d.NotAfter.UTC().Truncate(time.Second), Prepared: s.db.Now(),
		List: d.List, Index: -1, Attestation: d.Attestation, Evidence: d.Evidence, State: Valid,
	}
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		if err := d.Along.run(ctx, tx, r.ID); err != nil {
			return err
		}
		if d.List != "" {
			indices, err := s.status.In(tx).Allocate(ctx, d.List, 1)
			if err != nil {
				return err
			}
			r.Index = indices[0]
		}
		if err := s.step("index of the token"); err != nil {
			return err
		}
		return insert(ctx, tx, r)
	})
	if err != nil {
		return nil, err
	}
	r.Level = r.Attestation.String()
	return r, nil
}

// Finish notes that a token was signed, before it is handed out. It fails with
// ErrRevoked if the record was revoked meanwhile: the token must not be given
// to anyone then.
func (s *Store) Finish(ctx context.Context, id ID, token []byte) error {
	digest := sha256.Sum256(token)
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		r, err := record(ctx, tx, id, true)
		if err != nil {
			return err
		}
		if r.State == Revoked {
			return ErrRevoked
		}
		return tx.ExecOne(ctx, ErrUnknown, `UPDATE credential SET issued = ?, digest = ? WHERE id = ? AND issued IS NULL`,
			s.db.Now().UnixMicro(), digest[:], string(id))
	})
}

func thumbprint(pub any) (string, error) {
	sum, err := credentials.JWKThumbprint(pub)
	if err != nil {
		return "", fmt.Errorf("registry: the holder's key: %w", err)
	}
	return base64URL(sum), nil
}

const columns = `id, type, kind, issuer, issuer_key, client, user_uri, subject, holder, not_before, not_after, prepared, issued,
	serial, list, idx, attestation, digest, state, reason, changed`

func insert(ctx context.Context, tx *sqldb.Tx, r *Record) error {
	var issued any // NULL before it is
	if !r.Issued.IsZero() {
		issued = r.Issued.UnixMicro()
	}
	_, err := tx.Exec(ctx, `INSERT INTO credential (id, type, kind, issuer, issuer_key, client, user_uri, subject, holder, not_before, not_after, prepared,
		issued, serial, list, idx, attestation, evidence, digest, state, reason, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)`,
		string(r.ID), string(r.Type), string(r.Kind), r.Issuer, r.IssuerKey.String(), r.Client, r.User, r.Subject, r.Holder,
		r.NotBefore.Unix(), r.NotAfter.Unix(), r.Prepared.UnixMicro(), issued, r.Serial, r.List, r.Index, int64(r.Attestation), r.Evidence, []byte(r.Digest), string(r.State))
	return err
}

// record returns one record, with lock until the transaction ends.
func record(ctx context.Context, tx *sqldb.Tx, id ID, lock bool) (*Record, error) {
	query := `SELECT ` + columns + ` FROM credential WHERE id = ?`
	if lock {
		query += tx.ForUpdate()
	}
	r, err := scan(tx.QueryRow(ctx, query, string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	return r, err
}

func scan(row interface{ Scan(...any) error }) (*Record, error) {
	var r Record
	var key string
	var notBefore, notAfter, prepared, reason, changed int64
	var issued sql.NullInt64
	var digest []byte
	err := row.Scan(&r.ID, &r.Type, &r.Kind, &r.Issuer, &key, &r.Client, &r.User, &r.Subject, &r.Holder, &notBefore, &notAfter, &prepared, &issued,
		&r.Serial, &r.List, &r.Index, &r.Attestation, &digest, &r.State, &reason, &changed)
	if err != nil {
		return nil, err
	}
	if r.IssuerKey.UnmarshalText([]byte(key)) != nil {
		return nil, fmt.Errorf("registry: the row of credential %s is damaged", r.ID)
	}
	r.Digest, r.Level = digest, r.Attestation.String()
	r.NotBefore, r.NotAfter, r.Prepared = time.Unix(notBefore, 0).UTC(), time.Unix(notAfter, 0).UTC(), time.UnixMicro(prepared).UTC()
	if issued.Valid {
		r.Issued = time.UnixMicro(issued.Int64).UTC()
	}
	if changed > 0 {
		r.Changed = time.UnixMicro(changed).UTC()
	}
	if r.State != Valid {
		r.Reason = certs.Reason(reason).String()
	}
	return &r, nil
}

// Get returns one record, or ErrUnknown.
func (s *Store) Get(ctx context.Context, id ID) (r *Record, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		r, err = record(ctx, tx, id, false)
		return err
	})
	return r, err
}

// Evidence returns what the attestation level of a credential rests on, or nil.
func (s *Store) Evidence(ctx context.Context, id ID) (evidence []byte, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		err := tx.QueryRow(ctx, `SELECT evidence FROM credential WHERE id = ?`, string(id)).Scan(&evidence)
		if errors.Is(err, sql.ErrNoRows) {
			err = ErrUnknown
		}
		return err
	})
	return evidence, err
}
