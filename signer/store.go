package signer

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // registers the database/sql driver "sqlite"
)

// A KeyStore keeps the records of keys in a SQLite file. It holds no secret
// key, but what it says is trusted: the file must belong to the user alone.
//
// Each method is one atomic step, durable when it returns, and checks the
// state that it starts from, so that two processes may use one file.
type KeyStore struct {
	db       *sql.DB
	now      func() time.Time
	standing *sql.Stmt
}

// maxConnections bounds how many signatures read their key's standing at once.
const maxConnections = 8

// StoreOptions are the rare choices of OpenKeyStore.
type StoreOptions struct {
	Now func() time.Time // nil means time.Now
}

// OpenKeyStore opens the file, or makes it with mode 0600, and brings its
// schema up to date. It refuses a file that others may read or write, one that
// is not a key store, and one of a newer schema (ErrSchema). The directory
// must exist.
func OpenKeyStore(ctx context.Context, path string, opt *StoreOptions) (*KeyStore, error) {
	if err := secureFile(path); err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, fmt.Errorf("key store %s: %w", path, err)
	}
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections) // opening one costs more than a signature
	s := &KeyStore{db: db, now: time.Now}
	if opt != nil && opt.Now != nil {
		s.now = opt.Now
	}
	if err := s.prepare(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("key store %s: %w", path, err)
	}
	return s, nil
}

func (s *KeyStore) prepare(ctx context.Context) (err error) {
	if err := migrate(ctx, s.db); err != nil {
		return err
	}
	s.standing, err = s.db.PrepareContext(ctx, standingQuery)
	return err
}

// dsn asks for a write-ahead log whose every commit is on the disk, and for
// transactions that take the write lock when they begin.
func dsn(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "trusted_schema(0)",
	}}
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String()
}

// secureFile makes the file if it is not there. SQLite gives the files beside
// it the same mode.
func secureFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o and others may use it; run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// Close closes the file.
func (s *KeyStore) Close() error {
	s.standing.Close()
	return s.db.Close()
}

// step runs f in one transaction.
func (s *KeyStore) step(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	return nil
}

// Keys returns every key with all its versions, by id.
func (s *KeyStore) Keys(ctx context.Context) ([]*Key, error) {
	return s.load(ctx, "TRUE")
}

// Key returns one key with all its versions, or ErrNoKey.
func (s *KeyStore) Key(ctx context.Context, id KeyID) (*Key, error) {
	return s.one(ctx, fmt.Sprintf("%q", clip(string(id))), "k.id = ?", string(id))
}

// KeyByKID returns the key that has a version with this JWK thumbprint.
func (s *KeyStore) KeyByKID(ctx context.Context, kid string) (*Key, error) {
	return s.one(ctx, fmt.Sprintf("with kid %q", clip(kid)), "k.id = (SELECT key_id FROM versions WHERE kid = ?)", kid)
}

func (s *KeyStore) one(ctx context.Context, what, where string, args ...any) (*Key, error) {
	keys, err := s.load(ctx, where, args...)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoKey, what)
	}
	return keys[0], nil
}

func (s *KeyStore) load(ctx context.Context, where string, args ...any) ([]*Key, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT k.id, k.purpose, k.algorithm, k.labels, k.unverified, k.created_at,
		v.number, v.state, v.device, v.object_id, v.uri, v.public, v.kid, v.evidence, v.destroying,
		v.created_at, v.activated_at, v.retired_at, v.destroyed_at
		FROM keys k JOIN versions v ON v.key_id = k.id WHERE `+where+` ORDER BY k.id, v.number`, args...)
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	defer rows.Close()
	var keys []*Key
	for rows.Next() {
		k, v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("key store: %w", err)
		}
		if len(keys) == 0 || keys[len(keys)-1].ID != k.ID {
			keys = append(keys, k)
		}
		last := keys[len(keys)-1]
		last.Versions = append(last.Versions, *v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	return keys, nil
}

func scan(rows *sql.Rows) (*Key, *Version, error) {
	var k Key
	var v Version
	var labels, objectID string
	var uri, kid, evidence sql.NullString
	var created, made int64
	var activated, retired, destroyed sql.NullInt64
	err := rows.Scan(&k.ID, &k.Purpose, &k.Algorithm, &labels, &k.Unverified, &created,
		&v.Number, &v.State, &v.Device, &objectID, &uri, &v.Public, &kid, &evidence, &v.Destroying,
		&made, &activated, &retired, &destroyed)
	if err != nil {
		return nil, nil, err
	}
	k.CreatedAt, v.CreatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(made).UTC()
	v.ActivatedAt, v.RetiredAt, v.DestroyedAt = optionalTime(activated), optionalTime(retired), optionalTime(destroyed)
	v.URI, v.KID = uri.String, kid.String
	if v.ObjectID, err = ParseObjectID(objectID); err != nil {
		return nil, nil, err
	}
	if evidence.Valid {
		v.Evidence = new(Evidence)
		err = json.Unmarshal([]byte(evidence.String), v.Evidence)
	}
	return &k, &v, errors.Join(err, json.Unmarshal([]byte(labels), &k.Labels))
}

func optionalTime(t sql.NullInt64) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return time.UnixMicro(t.Int64).UTC()
}

// An Event is one row of the history of a key or device.
type Event struct {
	At      time.Time `json:"at"`
	Key     KeyID     `json:"key,omitempty"`
	Version int       `json:"version,omitempty"`
	Event   string    `json:"event"`
	Detail  string    `json:"detail,omitempty"`
}

// History returns what happened to a key, oldest first.
func (s *KeyStore) History(ctx context.Context, id KeyID) ([]Event, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT at, key_id, version, event, detail FROM history WHERE key_id = ? ORDER BY seq`, string(id))
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	defer rows.Close()
	var events []Event
	for rows.Next() {
		var e Event
		var at int64
		if err := rows.Scan(&at, &e.Key, &e.Version, &e.Event, &e.Detail); err != nil {
			return nil, fmt.Errorf("key store: %w", err)
		}
		e.At = time.UnixMicro(at).UTC()
		events = append(events, e)
	}
	return events, rows.Err()
}

// A Suspect is a device that returned a wrong signature.
type Suspect struct {
	Device string    `json:"device"`
	Key    KeyID     `json:"key"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Suspects returns the devices that are suspect.
func (s *KeyStore) Suspects(ctx context.Context) ([]Suspect, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT device, key_id, reason, since FROM suspects ORDER BY device`)
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	defer rows.Close()
	var out []Suspect
	for rows.Next() {
		var d Suspect
		var since int64
		if err := rows.Scan(&d.Device, &d.Key, &d.Reason, &since); err != nil {
			return nil, fmt.Errorf("key store: %w", err)
		}
		d.Since = time.UnixMicro(since).UTC()
		out = append(out, d)
	}
	return out, rows.Err()
}

// standing is what may have changed, here or in another process, since a
// version was opened.
type standing struct {
	state      State
	destroying bool
	unverified bool
	suspect    bool
}

const standingQuery = `SELECT v.state, v.destroying, k.unverified, EXISTS (SELECT 1 FROM suspects s WHERE s.device = v.device)
	FROM versions v JOIN keys k ON k.id = v.key_id WHERE v.key_id = ? AND v.number = ?`

// standingOf reads what a signature depends on. It is asked before each one.
func (s *KeyStore) standingOf(ctx context.Context, id KeyID, version int) (standing, error) {
	var st standing
	if err := ctx.Err(); err != nil {
		return st, err
	}
	// A read waits for nobody, and watching ctx would cost a goroutine.
	err := s.standing.QueryRowContext(context.WithoutCancel(ctx), string(id), version).Scan(&st.state, &st.destroying, &st.unverified, &st.suspect)
	if errors.Is(err, sql.ErrNoRows) {
		return st, fmt.Errorf("%w: %q version %d", ErrNoKey, clip(string(id)), version)
	}
	if err != nil {
		return st, fmt.Errorf("key store: %w", err)
	}
	return st, nil
}
