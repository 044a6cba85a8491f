package signer

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/internal/workers"
)

// A KeyStore keeps the records of keys in a SQLite file, or in PostgreSQL where
// several nodes share them. It holds no secret key, but what it says is trusted:
// the database must belong to the user alone.
//
// Each method is one atomic step, durable when it returns, and checks the
// state that it starts from, so that several processes may use one store.
type KeyStore struct {
	db        *sqldb.DB
	standings sharedReads[versionRef, standing]
}

// StoreOptions are the rare choices of OpenKeyStore.
type StoreOptions struct {
	Now func() time.Time // nil means time.Now
}

// OpenKeyStore opens the store and brings its schema up to date. source is the
// path of a SQLite file, made with mode 0600 if it is not there, or a URL
// postgres://..., see [sqldb.Open]. It refuses a file that others may read or
// write, one that is not a key store, and a newer schema (ErrSchema). The
// directory must exist.
func OpenKeyStore(ctx context.Context, source string, opt *StoreOptions) (*KeyStore, error) {
	options := sqldb.Options{Name: storePart, Migrations: migrations}
	if opt != nil {
		options.Now = opt.Now
	}
	if !strings.HasPrefix(source, "postgres://") && !strings.HasPrefix(source, "postgresql://") {
		if err := adopt(ctx, source); err != nil {
			return nil, fmt.Errorf("key store %s: %w", source, err)
		}
	}
	db, err := sqldb.Open(ctx, source, options)
	if errors.Is(err, sqldb.ErrSchema) {
		return nil, fmt.Errorf("key store: %w: %w", ErrSchema, err)
	}
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	s := &KeyStore{db: db}
	if db.Dialect() == sqldb.SQLite { // where a read waits for nobody: the first of those who share does it
		s.standings.start = func(read func()) { read() }
	} else {
		s.standings.start = new(workers.Pool).Go
	}
	return s, nil
}

// Close closes the store.
func (s *KeyStore) Close() error { return s.db.Close() }

// step runs f in one transaction.
func (s *KeyStore) step(ctx context.Context, f func(*sqldb.Tx) error) error {
	if err := s.db.Write(ctx, f); err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	return nil
}

// read runs f on one state of the store.
func (s *KeyStore) read(ctx context.Context, f func(*sqldb.Tx) error) error {
	if err := s.db.Read(ctx, f); err != nil {
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

func (s *KeyStore) load(ctx context.Context, where string, args ...any) (keys []*Key, err error) {
	err = s.read(ctx, func(tx *sqldb.Tx) error {
		if keys, err = loadKeys(ctx, tx, where, args...); err != nil {
			return err
		}
		return loadReplicas(ctx, tx, keys, where, args...)
	})
	return keys, err
}

func loadKeys(ctx context.Context, tx *sqldb.Tx, where string, args ...any) (keys []*Key, err error) {
	rows, err := tx.Query(ctx, `SELECT k.id, k.purpose, k.algorithm, k.labels, k.unverified, k.created_at,
		v.number, v.state, v.device, v.object_id, v.uri, v.public, v.kid, v.evidence, v.destroying, v.revision,
		v.created_at, v.activated_at, v.retired_at, v.destroyed_at
		FROM keys k JOIN versions v ON v.key_id = k.id WHERE `+where+` ORDER BY k.id, v.number`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		k, v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		if len(keys) == 0 || keys[len(keys)-1].ID != k.ID {
			keys = append(keys, k)
		}
		last := keys[len(keys)-1]
		last.Versions = append(last.Versions, *v)
	}
	return keys, rows.Err()
}

func scan(rows *sql.Rows) (*Key, *Version, error) {
	var k Key
	var v Version
	var labels, objectID string
	var uri, kid, evidence sql.NullString
	var created, made int64
	var activated, retired, destroyed sql.NullInt64
	err := rows.Scan(&k.ID, &k.Purpose, &k.Algorithm, &labels, &k.Unverified, &created,
		&v.Number, &v.State, &v.Device, &objectID, &uri, &v.Public, &kid, &evidence, &v.Destroying, &v.revision,
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
func (s *KeyStore) History(ctx context.Context, id KeyID) (events []Event, err error) {
	err = s.read(ctx, func(tx *sqldb.Tx) error {
		events = nil
		rows, err := tx.Query(ctx, `SELECT at, key_id, version, event, detail FROM history WHERE key_id = ? ORDER BY seq`, string(id))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e Event
			var at int64
			if err := rows.Scan(&at, &e.Key, &e.Version, &e.Event, &e.Detail); err != nil {
				return err
			}
			e.At = time.UnixMicro(at).UTC()
			events = append(events, e)
		}
		return rows.Err()
	})
	return events, err
}

// A Suspect is a device that returned a wrong signature.
type Suspect struct {
	Device string    `json:"device"`
	Key    KeyID     `json:"key"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Suspects returns the devices that are suspect.
func (s *KeyStore) Suspects(ctx context.Context) (out []Suspect, err error) {
	err = s.read(ctx, func(tx *sqldb.Tx) error {
		out = nil
		rows, err := tx.Query(ctx, `SELECT device, key_id, reason, since FROM suspects ORDER BY device`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d Suspect
			var since int64
			if err := rows.Scan(&d.Device, &d.Key, &d.Reason, &since); err != nil {
				return err
			}
			d.Since = time.UnixMicro(since).UTC()
			out = append(out, d)
		}
		return rows.Err()
	})
	return out, err
}

// standing is what may have changed, here or in another process, since a
// version was opened.
type standing struct {
	state      State
	destroying bool
	unverified bool
	revision   int      // of the replicas
	suspects   []string // names of all devices that are suspect
}

// suspect reports whether a device must not be used.
func (s *standing) suspect(device string) bool { return slices.Contains(s.suspects, device) }

const standingQuery = `SELECT v.state, v.destroying, k.unverified, v.revision, (SELECT string_agg(s.device, ' ') FROM suspects s)
	FROM versions v JOIN keys k ON k.id = v.key_id WHERE v.key_id = ? AND v.number = ?`

// standingOf reads what a signature depends on. It is asked before each one;
// those who ask while a read is under way share the next.
func (s *KeyStore) standingOf(ctx context.Context, id KeyID, version int) (standing, error) {
	return s.standings.read(ctx, versionRef{id, version}, func() (standing, error) {
		ctx := context.WithoutCancel(ctx)   // of one of those who share
		if s.db.Dialect() != sqldb.SQLite { // where a read waits for nobody
			limited, cancel := context.WithTimeout(ctx, standingTime)
			defer cancel()
			ctx = limited
		}
		return s.readStanding(ctx, id, version)
	})
}

// mostStandings is how many keys one statement of standingsOf reads at most.
const mostStandings = 16

// standingsOf reads the same of the active versions of several keys.
func (s *KeyStore) standingsOf(ctx context.Context, ids []KeyID) (map[versionRef]standing, error) {
	all := make(map[versionRef]standing, len(ids))
	err := s.read(ctx, func(tx *sqldb.Tx) error {
		for part := range slices.Chunk(ids, mostStandings) {
			if err := scanStandings(ctx, tx, part, all); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

func scanStandings(ctx context.Context, tx *sqldb.Tx, ids []KeyID, into map[versionRef]standing) error {
	size := 1 // a power of two, so that there are few statements
	for size < len(ids) {
		size *= 2
	}
	args := make([]any, size)
	for i := range args {
		args[i] = string(ids[min(i, len(ids)-1)]) // the last one again and again
	}
	rows, err := tx.Query(ctx, `SELECT v.key_id, v.number, v.state, v.destroying, k.unverified, v.revision, (SELECT string_agg(s.device, ' ') FROM suspects s)
		FROM versions v JOIN keys k ON k.id = v.key_id WHERE v.state = 'active' AND v.key_id IN (?`+strings.Repeat(", ?", size-1)+`)`, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var ref versionRef
		var st standing
		var suspects sql.NullString
		if err := rows.Scan(&ref.id, &ref.number, &st.state, &st.destroying, &st.unverified, &st.revision, &suspects); err != nil {
			return err
		}
		st.suspects = strings.Fields(suspects.String)
		into[ref] = st
	}
	return rows.Err()
}

// standingTime bounds a read that several may wait for.
const standingTime = 10 * time.Second

func (s *KeyStore) readStanding(ctx context.Context, id KeyID, version int) (standing, error) {
	var st standing
	var suspects sql.NullString
	err := s.db.QueryRow(ctx, standingQuery, string(id), version).Scan(&st.state, &st.destroying, &st.unverified, &st.revision, &suspects)
	if errors.Is(err, sql.ErrNoRows) {
		return st, fmt.Errorf("%w: %q version %d", ErrNoKey, clip(string(id)), version)
	}
	if err != nil {
		return st, fmt.Errorf("key store: %w", err)
	}
	st.suspects = strings.Fields(suspects.String)
	return st, nil
}
