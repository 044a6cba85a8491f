package statuslist

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

//go:embed migrations
var migrations embed.FS

// partName is the part of the database that is ours.
const partName = "status"

// An SQLStore is a Store in a database: a SQLite file, or PostgreSQL for
// several nodes.
type SQLStore struct {
	db   *sqldb.DB
	owns bool // Close closes db

	mu   sync.Mutex // guards used and the sets in it
	used map[int64]*usedSet
}

// OpenSQLStore opens a store in a database of its own: the path of a SQLite
// file or a postgres:// URL.
func OpenSQLStore(ctx context.Context, source string) (*SQLStore, error) {
	db, err := sqldb.Open(ctx, source, sqldb.Options{Name: partName, Migrations: migrations})
	if err != nil {
		return nil, fmt.Errorf("status list store: %w", err)
	}
	return &SQLStore{db: db, owns: true, used: make(map[int64]*usedSet)}, nil
}

// NewSQLStore makes its tables in a database that has other things too, and
// that the caller closes.
func NewSQLStore(ctx context.Context, db *sqldb.DB) (*SQLStore, error) {
	if err := db.Migrate(ctx, partName, migrations); err != nil {
		return nil, fmt.Errorf("status list store: %w", err)
	}
	return &SQLStore{db: db, used: make(map[int64]*usedSet)}, nil
}

// Close closes the database if the store has opened it.
func (s *SQLStore) Close() error {
	if !s.owns {
		return nil
	}
	return s.db.Close()
}

// A Tx changes the store inside a transaction of the caller's.
type Tx struct {
	s  *SQLStore
	tx *sqldb.Tx
}

// In returns a Tx within a transaction in the store's database.
func (s *SQLStore) In(tx *sqldb.Tx) Tx { return Tx{s, tx} }

// batch runs f in a transaction that shares its commit with others.
func (s *SQLStore) batch(ctx context.Context, f func(Tx) error) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error { return f(s.In(tx)) })
}

// read runs f on one state of the database.
func (s *SQLStore) read(ctx context.Context, f func(Tx) error) error {
	return s.db.Read(ctx, func(tx *sqldb.Tx) error { return f(s.In(tx)) })
}

type listRow struct {
	id         int64
	bits, size int
	version    int64
}

// list returns the row of a list, which with lock stays as it is until the
// transaction ends.
func (t Tx) list(ctx context.Context, uri string, lock bool) (r listRow, err error) {
	query := `SELECT id, bits, size, version FROM status_list WHERE uri = ?`
	if lock {
		query += t.tx.ForUpdate()
	}
	err = t.tx.QueryRow(ctx, query, uri).Scan(&r.id, &r.bits, &r.size, &r.version)
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
	return s.batch(ctx, func(t Tx) error {
		if _, err := t.tx.Exec(ctx, `INSERT INTO status_list (uri, bits, size) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, uri, bits, size); err != nil {
			return err
		}
		l, err := t.list(ctx, uri, false)
		if err == nil && (l.bits != bits || l.size != size) {
			err = ErrMismatch
		}
		return err
	})
}

// Allocate implements Store.
func (s *SQLStore) Allocate(ctx context.Context, uri string, n int) (indices []int64, err error) {
	err = s.batch(ctx, func(t Tx) error {
		indices, err = t.Allocate(ctx, uri, n)
		return err
	})
	return indices, err
}

// Allocate is that of Store. If the transaction fails, the indices are drawn
// again no earlier than the list runs out.
func (t Tx) Allocate(ctx context.Context, uri string, n int) ([]int64, error) {
	if n < 1 {
		return nil, errors.New("statuslist: allocate at least one index")
	}
	l, err := t.list(ctx, uri, false)
	if err != nil {
		return nil, err
	}
	var indices []int64
	for len(indices) < n {
		drawn, err := t.draw(ctx, l, n-len(indices))
		if err != nil {
			return nil, err
		}
		for _, index := range drawn {
			switch err := t.take(ctx, l, index); {
			case err == nil:
				indices = append(indices, index)
			case !errors.Is(err, errTaken):
				return nil, err
			}
		}
	}
	return indices, nil
}

// errTaken reports that another process had handed out an index first.
var errTaken = errors.New("index was handed out elsewhere")

func (t Tx) take(ctx context.Context, l listRow, index int64) error {
	return t.tx.ExecOne(ctx, errTaken, `INSERT INTO status_entry (list, idx) VALUES (?, ?) ON CONFLICT DO NOTHING`, l.id, index)
}

// draw draws indices that this process has not drawn before. When there are
// none left, it asks the database which are in use: some may have been drawn in
// a transaction that failed.
func (t Tx) draw(ctx context.Context, l listRow, n int) ([]int64, error) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if u := t.s.used[l.id]; u != nil {
		if indices, err := u.draw(n); !errors.Is(err, ErrListFull) {
			return indices, err
		}
	}
	u, err := t.loadUsed(ctx, l)
	if err != nil {
		return nil, err
	}
	t.s.used[l.id] = u
	return u.draw(n)
}

// A usedSet has a bit for every index that was handed out.
type usedSet struct {
	words []uint64
	free  int64
}

func (t Tx) loadUsed(ctx context.Context, l listRow) (*usedSet, error) {
	u := &usedSet{words: make([]uint64, (l.size+63)/64), free: int64(l.size)}
	for i := int64(l.size); i < int64(len(u.words))*64; i++ {
		u.words[i/64] |= 1 << (i % 64)
	}
	rows, err := t.tx.Query(ctx, `SELECT idx FROM status_entry WHERE list = ?`, l.id)
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
	return s.batch(ctx, func(t Tx) error { return t.SetStatus(ctx, uri, index, to) })
}

// SetStatus is that of Store.
func (t Tx) SetStatus(ctx context.Context, uri string, index int64, to Status) error {
	l, err := t.list(ctx, uri, true)
	if err != nil {
		return err
	}
	if int(to) >= 1<<l.bits {
		return fmt.Errorf("%w: %s, %d bits", ErrTooWide, to, l.bits)
	}
	from, err := t.status(ctx, l.id, index)
	switch {
	case err != nil:
		return err
	case from == to:
		return nil
	case from == Invalid:
		return ErrFinal
	}
	if _, err := t.tx.Exec(ctx, `UPDATE status_entry SET status = ? WHERE list = ? AND idx = ?`, int64(to), l.id, index); err != nil {
		return err
	}
	_, err = t.tx.Exec(ctx, `UPDATE status_list SET version = version + 1 WHERE id = ?`, l.id)
	return err
}

func (t Tx) status(ctx context.Context, list, index int64) (s Status, err error) {
	err = t.tx.QueryRow(ctx, `SELECT status FROM status_entry WHERE list = ? AND idx = ?`, list, index).Scan(&s)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotInUse
	}
	return s, err
}

// Status implements Store.
func (s *SQLStore) Status(ctx context.Context, uri string, index int64) (status Status, err error) {
	err = s.read(ctx, func(t Tx) error {
		l, err := t.list(ctx, uri, false)
		if err == nil {
			status, err = t.status(ctx, l.id, index)
		}
		return err
	})
	return status, err
}

// Load implements Store.
func (s *SQLStore) Load(ctx context.Context, uri string) (snapshot *Snapshot, err error) {
	err = s.read(ctx, func(t Tx) error {
		snapshot, err = t.load(ctx, uri)
		return err
	})
	return snapshot, err
}

func (t Tx) load(ctx context.Context, uri string) (*Snapshot, error) {
	l, err := t.list(ctx, uri, false)
	if err != nil {
		return nil, err
	}
	list, err := NewList(l.bits, l.size)
	if err != nil {
		return nil, err
	}
	rows, err := t.tx.Query(ctx, `SELECT idx, status FROM status_entry WHERE list = ? AND status <> 0`, l.id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var i int64
		var to Status
		if err := errors.Join(rows.Scan(&i, &to), list.Set(i, to)); err != nil {
			return nil, err
		}
	}
	return &Snapshot{l.version, list}, rows.Err()
}

// Publish implements Store.
func (s *SQLStore) Publish(ctx context.Context, uri string, p *Publication, history bool) error {
	return s.batch(ctx, func(t Tx) error {
		l, err := t.list(ctx, uri, true)
		if err != nil {
			return err
		}
		if err := t.goesOn(ctx, l.id, p); err != nil {
			return err
		}
		if !history {
			if _, err := t.tx.Exec(ctx, `DELETE FROM status_publication WHERE list = ?`, l.id); err != nil {
				return err
			}
		}
		_, err = t.tx.Exec(ctx, `INSERT INTO status_publication (list, version, iat, exp, jwt, cwt) VALUES (?, ?, ?, ?, ?, ?)`,
			l.id, p.Version, p.IssuedAt.Unix(), p.Expires.Unix(), p.JWT, p.CWT)
		return err
	})
}

// goesOn wants a publication to go back neither in content nor in time. One that
// says more than what was issued after it is not superseded: it has to be signed
// again, by a clock that is right.
func (t Tx) goesOn(ctx context.Context, list int64, p *Publication) error {
	var superseded, later bool
	err := t.tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM status_publication WHERE list = ? AND (version > ? OR version = ? AND iat > ?)),
		EXISTS (SELECT 1 FROM status_publication WHERE list = ? AND iat > ?)`,
		list, p.Version, p.Version, p.IssuedAt.Unix(), list, p.IssuedAt.Unix()).Scan(&superseded, &later)
	switch {
	case err != nil:
		return err
	case superseded:
		return ErrSuperseded
	case later:
		return ErrClock
	}
	return nil
}

// Published implements Store.
func (s *SQLStore) Published(ctx context.Context, uri string, at time.Time) (p *Publication, err error) {
	err = s.read(ctx, func(t Tx) error {
		p, err = t.published(ctx, uri, at)
		return err
	})
	return p, err
}

func (t Tx) published(ctx context.Context, uri string, at time.Time) (*Publication, error) {
	l, err := t.list(ctx, uri, false)
	if err != nil {
		return nil, err
	}
	query, args := `SELECT version, iat, exp, jwt, cwt FROM status_publication WHERE list = ?`, []any{l.id}
	if !at.IsZero() {
		query, args = query+` AND iat <= ? AND exp > ?`, append(args, at.Unix(), at.Unix())
	}
	var p Publication
	var iat, exp int64
	err = t.tx.QueryRow(ctx, query+` ORDER BY iat DESC, version DESC, id DESC LIMIT 1`, args...).Scan(&p.Version, &iat, &exp, &p.JWT, &p.CWT)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoHistory
	}
	p.IssuedAt, p.Expires = time.Unix(iat, 0), time.Unix(exp, 0)
	return &p, err
}

// Lists implements Store.
func (s *SQLStore) Lists(ctx context.Context) (uris []string, err error) {
	err = s.read(ctx, func(t Tx) error {
		uris = nil
		rows, err := t.tx.Query(ctx, `SELECT uri FROM status_list ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var uri string
			if err := rows.Scan(&uri); err != nil {
				return err
			}
			uris = append(uris, uri)
		}
		return rows.Err()
	})
	return uris, err
}
