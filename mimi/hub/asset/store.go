package asset

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/internal/httpbody"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/policy"
)

//go:embed migrations
var migrations embed.FS

// StoreConfig is how a Store behaves.
type StoreConfig struct {
	Dir      string        // for the files; made with mode 0700
	BaseURL  string        // under which Download is served, such as https://assets.a.example/assets/
	MaxSize  int64         // octets of one asset; 0 means 100 MiB
	Quota    int64         // octets of one user; 0 means 1 GiB
	MaxCount int           // assets of one user; 0 means 10,000
	Lifetime time.Duration // the longest, and the usual one; 0 means 90 days
	// Policy returns the asset policy of a room in which the user is, nil if
	// it has none, or a problem.
	Policy func(ctx context.Context, user, room mimi.URI) (*policy.AssetPolicy, error)
}

func (c *StoreConfig) defaults() {
	if c.MaxSize <= 0 {
		c.MaxSize = 100 << 20
	}
	if c.Quota <= 0 {
		c.Quota = 1 << 30
	}
	if c.MaxCount <= 0 {
		c.MaxCount = 10_000
	}
	if c.Lifetime <= 0 {
		c.Lifetime = 90 * 24 * time.Hour
	}
}

// A Store keeps assets.
type Store struct {
	db     *sqldb.DB
	cfg    StoreConfig
	coming *httpbody.Budget // octets of uploads that are under way
}

// Uploads that may be under way, in assets of the largest size: of all users, and
// of each.
const (
	maxComing     = 64
	maxUserComing = 4
)

// OpenStore opens a store on a folder and a database; see sqldb.Open for the
// source. Nodes that share the database share the folder.
func OpenStore(ctx context.Context, source string, cfg StoreConfig, opt sqldb.Options) (*Store, error) {
	cfg.defaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("asset: %w", err)
	}
	opt.Name, opt.Migrations = "asset", migrations
	db, err := sqldb.Open(ctx, source, opt)
	if err != nil {
		return nil, fmt.Errorf("asset: %w", err)
	}
	return &Store{db, cfg, httpbody.NewBudget(maxComing*cfg.MaxSize, maxUserComing*cfg.MaxSize)}, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// nameLength is that of the base64url form of a SHA-256.
const nameLength = 43

// path returns where an asset is, or false for what is no name.
func (s *Store) path(name string) (string, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(name)
	if err != nil || len(b) != sha256.Size || len(name) != nameLength {
		return "", false
	}
	return filepath.Join(s.cfg.Dir, name), true
}

// Limit returns the most octets of an upload, or a problem if the room allows
// none such.
func (s *Store) limit(ctx context.Context, user mimi.URI, q *clientapi.AssetQuery) (int64, error) {
	if q.Room.IsZero() || s.cfg.Policy == nil {
		return s.cfg.MaxSize, nil
	}
	p, err := s.cfg.Policy(ctx, user, q.Room)
	if err != nil || p == nil {
		return s.cfg.MaxSize, err
	}
	if q.Type != "" && !p.AllowsMediaType(policy.MediaType{Type: q.Type}) {
		return 0, problem.New(http.StatusForbidden, "media-type", "the room does not allow assets of type %q", q.Type)
	}
	most := p.MaxAny() // whoever fetches it knows the type
	if q.Type != "" {
		most = p.MaxSize(q.Type)
	}
	return min(int64(min(most, uint64(s.cfg.MaxSize)))+sealing, s.cfg.MaxSize), nil
}

// sealing is by how much encryption lengthens an asset (an AEAD's tag), since
// the policy may mean the plaintext.
const sealing = 16

// Put keeps an asset of a user and returns what names it. It is on disk then.
func (s *Store) Put(ctx context.Context, user mimi.URI, q *clientapi.AssetQuery, body io.Reader) (*clientapi.Asset, error) {
	most, err := s.limit(ctx, user, q)
	if err != nil {
		return nil, err
	}
	f, err := durable.Create(s.cfg.Dir, 0o600)
	if err != nil {
		return nil, fmt.Errorf("asset: %w", err)
	}
	defer f.Abort()
	name, size, err := receive(f, body, most)
	if err != nil {
		return nil, err
	}
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		_, _, _, err := s.balance(ctx, tx, user, name, size, "")
		return err
	})
	if err != nil {
		return nil, problemOr(err) // and nothing of what was beyond the quota stays
	}
	path, _ := s.path(name)
	if err := f.Commit(path); err != nil {
		return nil, fmt.Errorf("asset: %w", err)
	}
	expires, err := s.record(ctx, user, name, size, q.Lifetime)
	if err != nil {
		return nil, err // Sweep removes the file, if nobody else has it
	}
	if _, err := os.Stat(path); err != nil { // Sweep found it without a record
		return nil, problem.New(http.StatusServiceUnavailable, "unavailable", "the asset was being removed; upload it again").After(time.Second)
	}
	return &clientapi.Asset{URL: s.cfg.BaseURL + name, Size: uint64(size), Expires: uint64(expires.UnixMilli())}, nil
}

// receive writes a body of at most so many octets and returns its name.
func receive(w io.Writer, body io.Reader, most int64) (name string, size int64, err error) {
	hash := sha256.New()
	into := &diskWriter{w: io.MultiWriter(w, hash)}
	size, err = io.Copy(into, io.LimitReader(body, most+1))
	switch {
	case into.err != nil:
		return "", 0, fmt.Errorf("asset: %w", into.err)
	case err != nil:
		return "", 0, problem.New(http.StatusBadRequest, "body", "the asset did not arrive whole")
	case size > most:
		return "", 0, problem.New(http.StatusRequestEntityTooLarge, "too-large", "the asset has more than %d octets", most)
	case size == 0:
		return "", 0, problem.New(http.StatusBadRequest, "malformed", "the asset is empty")
	}
	return base64.RawURLEncoding.EncodeToString(hash.Sum(nil)), size, nil
}

// A diskWriter tells a failure to write from one to read.
type diskWriter struct {
	w   io.Writer
	err error
}

func (d *diskWriter) Write(b []byte) (n int, err error) {
	n, err = d.w.Write(b)
	d.err = err
	return n, err
}

// record enters an asset under its owner's quota.
func (s *Store) record(ctx context.Context, user mimi.URI, name string, size int64, lifetime time.Duration) (expires time.Time, err error) {
	if lifetime <= 0 || lifetime > s.cfg.Lifetime {
		lifetime = s.cfg.Lifetime
	}
	now := s.db.Now()
	expires = now.Add(lifetime)
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		if err := s.charge(ctx, tx, user, name, size); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO asset (name, owner, size, created, expires) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (name, owner) DO UPDATE SET expires = excluded.expires`, name, user.String(), size, now.UnixMicro(), expires.UnixMicro())
		return err
	})
	return expires, problemOr(err)
}

// problemOr leaves problems as they are and names the package in other errors.
func problemOr(err error) error {
	if p := (*problem.Problem)(nil); err != nil && !errors.As(err, &p) {
		return fmt.Errorf("asset: %w", err)
	}
	return err
}

// balance returns what the owner has, and whether this asset is among it. It refuses
// one that is not and does not fit. lock is what a query adds to lock the row.
func (s *Store) balance(ctx context.Context, tx *sqldb.Tx, user mimi.URI, name string, size int64, lock string) (used int64, count int, has bool, err error) {
	err = tx.QueryRow(ctx, `SELECT size, count FROM asset_owner WHERE owner = ?`+lock, user.String()).Scan(&used, &count)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	var n int
	if err == nil {
		err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM asset WHERE name = ? AND owner = ?`, name, user.String()).Scan(&n)
	}
	if err == nil && n == 0 && (used+size > s.cfg.Quota || count >= s.cfg.MaxCount) {
		err = problem.New(http.StatusForbidden, "quota", "the user has %d assets of %d octets, and this one is over the quota", count, used)
	}
	return used, count, n > 0, err
}

// charge counts an asset that the owner does not have yet.
func (s *Store) charge(ctx context.Context, tx *sqldb.Tx, user mimi.URI, name string, size int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO asset_owner (owner, size, count) VALUES (?, 0, 0) ON CONFLICT (owner) DO NOTHING`, user.String())
	if err != nil {
		return err
	}
	used, count, has, err := s.balance(ctx, tx, user, name, size, tx.ForUpdate())
	if err != nil || has {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE asset_owner SET size = ?, count = ? WHERE owner = ?`, used+size, count+1, user.String())
	return err
}
