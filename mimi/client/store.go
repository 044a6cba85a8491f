package client

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mls"
)

//go:embed migrations
var migrations embed.FS

// A store is the state of one client in one SQLite file. It is the mls.Storage
// of the client's groups and KeyPackages.
type store struct {
	db   *sqldb.DB
	seal *sealer
	// fault, in tests, is called before and after each write.
	fault func(after bool) error
}

func openStore(ctx context.Context, path string, now func() time.Time) (*store, error) {
	db, err := sqldb.Open(ctx, path, sqldb.Options{Name: "client", Migrations: migrations, MaxConns: 4, Now: now})
	if err != nil {
		return nil, err
	}
	return &store{db: db}, nil
}

func (s *store) close() error { return s.db.Close() }

// write runs one transaction. Deleted rows are overwritten, not only unlinked,
// since they held keys.
func (s *store) write(ctx context.Context, f func(*sqldb.Tx) error) error {
	if s.fault != nil {
		if err := s.fault(false); err != nil {
			return err
		}
	}
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(ctx, `PRAGMA secure_delete = ON`); err != nil {
			return err
		}
		return f(tx)
	})
	if err == nil && s.fault != nil {
		return s.fault(true)
	}
	return stateError(err)
}

// A unit collects what one step changes, to be written at once.
type unit struct {
	groups  map[string]mls.GroupState
	packs   []mls.KeyPackageState
	used    [][]byte // KeyPackages to delete
	dropped [][]byte // groups to delete
	steps   []func(*sqldb.Tx) error
}

type unitKey struct{}

// collect returns a context with which mls writes into the unit.
func collect(ctx context.Context) (context.Context, *unit) {
	u := &unit{groups: make(map[string]mls.GroupState)}
	return context.WithValue(ctx, unitKey{}, u), u
}

func (u *unit) add(step func(*sqldb.Tx) error) { u.steps = append(u.steps, step) }

func (u *unit) empty() bool {
	return len(u.groups)+len(u.packs)+len(u.used)+len(u.dropped)+len(u.steps) == 0
}

// take takes a batch in. A later state of a group replaces the earlier one.
func (u *unit) take(b *mls.Batch) {
	for _, g := range b.Groups {
		if g.Tree == nil {
			g.Tree = u.groups[string(g.ID)].Tree
		}
		u.groups[string(g.ID)] = g
		u.dropped = slices.DeleteFunc(u.dropped, func(id []byte) bool { return bytes.Equal(id, g.ID) })
	}
	u.packs = append(u.packs, b.KeyPackages...)
	u.used = append(u.used, b.DeleteKeyPackages...)
	for _, id := range b.DeleteGroups {
		delete(u.groups, string(id))
		u.dropped = append(u.dropped, id)
	}
}

// commit writes the unit in one transaction.
func (s *store) commit(ctx context.Context, u *unit) error {
	if u.empty() {
		return nil
	}
	return s.write(ctx, func(tx *sqldb.Tx) error { return s.apply(ctx, tx, u) })
}

func (s *store) apply(ctx context.Context, tx *sqldb.Tx, u *unit) error {
	for _, g := range u.groups {
		if err := s.putGroup(ctx, tx, g); err != nil {
			return err
		}
	}
	for _, k := range u.packs {
		if err := s.putKeyPackage(ctx, tx, k); err != nil {
			return err
		}
	}
	for _, ref := range u.used {
		if _, err := tx.Exec(ctx, `DELETE FROM key_package WHERE ref = ?`, ref); err != nil {
			return err
		}
	}
	for _, id := range u.dropped {
		if _, err := tx.Exec(ctx, `DELETE FROM mls_group WHERE id = ?`, id); err != nil {
			return err
		}
	}
	for _, step := range u.steps {
		if err := step(tx); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) putGroup(ctx context.Context, tx *sqldb.Tx, g mls.GroupState) error {
	secret := s.seal.seal("group", g.ID, g.Secret)
	if g.Tree == nil {
		return tx.ExecOne(ctx, fmt.Errorf("client: group %x: %w", g.ID, mls.ErrNotFound),
			`UPDATE mls_group SET epoch = ?, secret = ? WHERE id = ?`, int64(g.Epoch), secret, g.ID)
	}
	_, err := tx.Exec(ctx, `INSERT INTO mls_group (id, epoch, tree, secret) VALUES (?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, tree = excluded.tree, secret = excluded.secret`, g.ID, int64(g.Epoch), g.Tree, secret)
	return err
}

func (s *store) putKeyPackage(ctx context.Context, tx *sqldb.Tx, k mls.KeyPackageState) error {
	_, err := tx.Exec(ctx, `INSERT INTO key_package (ref, state, not_after, last_resort) VALUES (?, ?, 0, 0)
		ON CONFLICT (ref) DO UPDATE SET state = excluded.state`, k.Ref, s.seal.seal("key-package", k.Ref, k.State))
	return err
}

// Write implements mls.Storage.
func (s *store) Write(ctx context.Context, b *mls.Batch) error {
	if u, ok := ctx.Value(unitKey{}).(*unit); ok {
		u.take(b)
		return nil
	}
	u := &unit{groups: make(map[string]mls.GroupState)}
	u.take(b)
	return s.commit(ctx, u)
}

// ReadGroup implements mls.Storage.
func (s *store) ReadGroup(ctx context.Context, id []byte) (*mls.GroupState, error) {
	var newer mls.GroupState // what the unit is about to write
	if u, ok := ctx.Value(unitKey{}).(*unit); ok {
		if newer, ok = u.groups[string(id)]; ok && newer.Tree != nil {
			return &newer, nil
		}
		if slices.ContainsFunc(u.dropped, func(gone []byte) bool { return bytes.Equal(gone, id) }) {
			return nil, mls.ErrNotFound
		}
	}
	g := &mls.GroupState{ID: bytes.Clone(id)}
	var epoch int64
	var sealed []byte
	err := s.one(ctx, `SELECT epoch, tree, secret FROM mls_group WHERE id = ?`, []any{id}, &epoch, &g.Tree, &sealed)
	if err != nil {
		return nil, err
	}
	if newer.Secret != nil {
		newer.Tree = g.Tree
		return &newer, nil
	}
	g.Epoch = uint64(epoch)
	g.Secret, err = s.seal.open("group", id, sealed)
	return g, err
}

// ReadKeyPackage implements mls.Storage.
func (s *store) ReadKeyPackage(ctx context.Context, ref []byte) ([]byte, error) {
	if u, ok := ctx.Value(unitKey{}).(*unit); ok && slices.ContainsFunc(u.used, func(r []byte) bool { return bytes.Equal(r, ref) }) {
		return nil, mls.ErrNotFound
	}
	var sealed []byte
	if err := s.one(ctx, `SELECT state FROM key_package WHERE ref = ?`, []any{ref}, &sealed); err != nil {
		return nil, err
	}
	return s.seal.open("key-package", ref, sealed)
}

// one reads one row; none is mls.ErrNotFound.
func (s *store) one(ctx context.Context, query string, args []any, into ...any) error {
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error { return tx.QueryRow(ctx, query, args...).Scan(into...) })
	if errors.Is(err, sql.ErrNoRows) {
		return mls.ErrNotFound
	}
	return stateError(err)
}

// each reads rows, calling scan for each.
func (s *store) each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	return stateError(s.db.Read(ctx, func(tx *sqldb.Tx) error {
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}))
}
