package statuslist

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// An SQLStore is a Store in an SQLite file.
type SQLStore struct {
	db *sql.DB

	mu   sync.Mutex // guards used, and keeps this process to one allocation at a time
	used map[int64]*usedSet
}

const schema = `
	CREATE TABLE IF NOT EXISTS status_list (
		id      INTEGER PRIMARY KEY,
		uri     TEXT NOT NULL UNIQUE,
		bits    INTEGER NOT NULL,
		size    INTEGER NOT NULL,
		version INTEGER NOT NULL DEFAULT 0
	) STRICT;
	CREATE TABLE IF NOT EXISTS status_entry (
		list   INTEGER NOT NULL REFERENCES status_list (id),
		idx    INTEGER NOT NULL,
		status INTEGER NOT NULL DEFAULT 0,
		PRIMARY KEY (list, idx)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX IF NOT EXISTS status_entry_set ON status_entry (list, idx, status) WHERE status <> 0;
	CREATE TABLE IF NOT EXISTS status_publication (
		list    INTEGER NOT NULL REFERENCES status_list (id),
		version INTEGER NOT NULL,
		iat     INTEGER NOT NULL,
		exp     INTEGER NOT NULL,
		jwt     BLOB NOT NULL,
		cwt     BLOB NOT NULL
	) STRICT;
	CREATE INDEX IF NOT EXISTS status_publication_iat ON status_publication (list, iat);`

// OpenSQLStore opens the store in the file path, creating it if need be.
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
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("status list store %s: %w", path, err), db.Close())
	}
	return &SQLStore{db: db, used: make(map[int64]*usedSet)}, nil
}

// Close closes the file.
func (s *SQLStore) Close() error { return s.db.Close() }

// within runs do in one transaction.
func (s *SQLStore) within(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

type listRow struct {
	id         int64
	bits, size int
	version    int64
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func listOf(ctx context.Context, q queryer, uri string) (r listRow, err error) {
	err = q.QueryRowContext(ctx, `SELECT id, bits, size, version FROM status_list WHERE uri = ?`, uri).Scan(&r.id, &r.bits, &r.size, &r.version)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoList
	}
	return r, err
}

// Create implements Store.
func (s *SQLStore) Create(ctx context.Context, uri string, bits, size int) error {
	if _, err := NewList(bits, size); err != nil {
		return err
	}
	if err := checkURI(uri); err != nil {
		return fmt.Errorf("statuslist: %w", err)
	}
	return s.within(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO status_list (uri, bits, size) VALUES (?, ?, ?)`, uri, bits, size); err != nil {
			return err
		}
		l, err := listOf(ctx, tx, uri)
		if err == nil && (l.bits != bits || l.size != size) {
			err = ErrMismatch
		}
		return err
	})
}

// Allocate implements Store.
func (s *SQLStore) Allocate(ctx context.Context, uri string, n int) ([]int64, error) {
	if n < 1 {
		return nil, errors.New("statuslist: allocate at least one index")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		indices, err := s.allocate(ctx, uri, n)
		if !errors.Is(err, errTaken) {
			return indices, err
		}
	}
}

// errTaken reports that another process had handed out an index first.
var errTaken = errors.New("index was handed out elsewhere")

func (s *SQLStore) allocate(ctx context.Context, uri string, n int) (indices []int64, err error) {
	var l listRow
	err = s.within(ctx, func(tx *sql.Tx) error {
		if l, err = listOf(ctx, tx, uri); err != nil {
			return err
		}
		if s.used[l.id] == nil {
			if s.used[l.id], err = loadUsed(ctx, tx, l); err != nil {
				return err
			}
		}
		if indices, err = s.used[l.id].draw(n); err != nil {
			return err
		}
		for _, index := range indices {
			r, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO status_entry (list, idx) VALUES (?, ?)`, l.id, index)
			if err != nil {
				return err
			}
			if rows, err := r.RowsAffected(); err != nil || rows != 1 {
				return errors.Join(errTaken, err)
			}
		}
		return nil
	})
	if err != nil {
		delete(s.used, l.id) // it no longer says what the file says
		return nil, err
	}
	return indices, nil
}

// A usedSet has a bit for every index that was handed out.
type usedSet struct {
	words []uint64
	free  int64
}

func loadUsed(ctx context.Context, tx *sql.Tx, l listRow) (*usedSet, error) {
	u := &usedSet{words: make([]uint64, (l.size+63)/64), free: int64(l.size)}
	for i := int64(l.size); i < int64(len(u.words))*64; i++ {
		u.words[i/64] |= 1 << (i % 64)
	}
	rows, err := tx.QueryContext(ctx, `SELECT idx FROM status_entry WHERE list = ?`, l.id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var i int64
		if err := rows.Scan(&i); err != nil {
			return nil, err
		}
		u.words[i/64] |= 1 << (i % 64)
		u.free--
	}
	return u, rows.Err()
}

// draw takes n indices, each uniformly from those that are free.
func (u *usedSet) draw(n int) ([]int64, error) {
	if int64(n) > u.free {
		return nil, ErrListFull
	}
	indices := make([]int64, n)
	for k := range indices {
		r, err := rand.Int(rand.Reader, big.NewInt(u.free))
		if err != nil {
			return nil, err
		}
		indices[k] = u.take(r.Int64())
	}
	return indices, nil
}

// take marks the free index of the given rank as used.
func (u *usedSet) take(rank int64) int64 {
	for w, word := range u.words {
		if zeros := int64(bits.OnesCount64(^word)); rank >= zeros {
			rank -= zeros
			continue
		}
		free := ^word
		for ; rank > 0; rank-- {
			free &= free - 1
		}
		bit := bits.TrailingZeros64(free)
		u.words[w] |= 1 << bit
		u.free--
		return int64(w)*64 + int64(bit)
	}
	panic("statuslist: rank beyond the free indices")
}

// SetStatus implements Store.
func (s *SQLStore) SetStatus(ctx context.Context, uri string, index int64, to Status) error {
	return s.within(ctx, func(tx *sql.Tx) error {
		l, err := listOf(ctx, tx, uri)
		if err != nil {
			return err
		}
		if int(to) >= 1<<l.bits {
			return fmt.Errorf("statuslist: %s does not fit %d bits", to, l.bits)
		}
		from, err := statusOf(ctx, tx, l.id, index)
		switch {
		case err != nil:
			return err
		case from == to:
			return nil
		case from == Invalid:
			return ErrFinal
		}
		if _, err := tx.ExecContext(ctx, `UPDATE status_entry SET status = ? WHERE list = ? AND idx = ?`, to, l.id, index); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE status_list SET version = version + 1 WHERE id = ?`, l.id)
		return err
	})
}

func statusOf(ctx context.Context, q queryer, list, index int64) (s Status, err error) {
	err = q.QueryRowContext(ctx, `SELECT status FROM status_entry WHERE list = ? AND idx = ?`, list, index).Scan(&s)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotInUse
	}
	return s, err
}

// Status implements Store.
func (s *SQLStore) Status(ctx context.Context, uri string, index int64) (Status, error) {
	l, err := listOf(ctx, s.db, uri)
	if err != nil {
		return 0, err
	}
	return statusOf(ctx, s.db, l.id, index)
}

// Load implements Store.
func (s *SQLStore) Load(ctx context.Context, uri string) (snapshot *Snapshot, err error) {
	err = s.within(ctx, func(tx *sql.Tx) error {
		l, err := listOf(ctx, tx, uri)
		if err != nil {
			return err
		}
		list, err := NewList(l.bits, l.size)
		if err != nil {
			return err
		}
		snapshot = &Snapshot{l.version, list}
		rows, err := tx.QueryContext(ctx, `SELECT idx, status FROM status_entry WHERE list = ? AND status <> 0`, l.id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var i int64
			var to Status
			if err := errors.Join(rows.Scan(&i, &to), list.Set(i, to)); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	return snapshot, err
}

// Publish implements Store.
func (s *SQLStore) Publish(ctx context.Context, uri string, p *Publication, history bool) error {
	return s.within(ctx, func(tx *sql.Tx) error {
		l, err := listOf(ctx, tx, uri)
		if err != nil {
			return err
		}
		var newer bool
		err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM status_publication WHERE list = ? AND (version > ? OR iat > ?))`,
			l.id, p.Version, p.IssuedAt.Unix()).Scan(&newer)
		if err != nil {
			return err
		}
		if newer {
			return ErrSuperseded
		}
		if !history {
			if _, err := tx.ExecContext(ctx, `DELETE FROM status_publication WHERE list = ?`, l.id); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO status_publication (list, version, iat, exp, jwt, cwt) VALUES (?, ?, ?, ?, ?, ?)`,
			l.id, p.Version, p.IssuedAt.Unix(), p.Expires.Unix(), p.JWT, p.CWT)
		return err
	})
}

// Published implements Store.
func (s *SQLStore) Published(ctx context.Context, uri string, at time.Time) (*Publication, error) {
	l, err := listOf(ctx, s.db, uri)
	if err != nil {
		return nil, err
	}
	query, args := `SELECT version, iat, exp, jwt, cwt FROM status_publication WHERE list = ?`, []any{l.id}
	if !at.IsZero() {
		query, args = query+` AND iat <= ? AND exp > ?`, append(args, at.Unix(), at.Unix())
	}
	var p Publication
	var iat, exp int64
	err = s.db.QueryRowContext(ctx, query+` ORDER BY iat DESC, version DESC, rowid DESC LIMIT 1`, args...).Scan(&p.Version, &iat, &exp, &p.JWT, &p.CWT)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoHistory
	}
	p.IssuedAt, p.Expires = time.Unix(iat, 0), time.Unix(exp, 0)
	return &p, err
}

// Lists implements Store.
func (s *SQLStore) Lists(ctx context.Context) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT uri FROM status_list ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var uris []string
	for rows.Next() {
		var uri string
		if err := rows.Scan(&uri); err != nil {
			return nil, err
		}
		uris = append(uris, uri)
	}
	return uris, rows.Err()
}
