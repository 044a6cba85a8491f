package access

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

//go:embed migrations/*.sql
var migrations embed.FS

// A Store keeps callers, invitations and the serial numbers of certificates.
// Its methods may be called at the same time, also by several nodes.
type Store struct {
	db    *sqldb.DB
	known cache
}

// Options are the rare choices of Open.
type Options struct {
	Now func() time.Time // nil means time.Now
}

// Open opens the store in a SQLite file or in the PostgreSQL database of a
// postgres:// URL; see sqldb.Open.
func Open(ctx context.Context, source string, opt *Options) (*Store, error) {
	var now func() time.Time
	if opt != nil {
		now = opt.Now
	}
	db, err := sqldb.Open(ctx, source, sqldb.Options{Name: "access", Migrations: migrations, Lanes: 1, Now: now})
	if err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	return &Store{db: db}, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Ping asks whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.db.Ping(ctx) }

const callerColumns = `c.tenant, c.name, c.role, c.grants, c.state, c.reason, c.created_at, c.not_after`

func scanCaller(row interface{ Scan(...any) error }) (*Caller, error) {
	var c Caller
	var grants string
	var created int64
	var notAfter sql.NullInt64
	if err := row.Scan(&c.Tenant, &c.Name, &c.Role, &grants, &c.State, &c.Reason, &created, &notAfter); err != nil {
		return nil, err
	}
	c.Created = time.UnixMicro(created).UTC()
	if notAfter.Valid {
		c.NotAfter = time.UnixMicro(notAfter.Int64).UTC()
	}
	return &c, json.Unmarshal([]byte(grants), &c.Grants)
}

// Callers returns the callers of a tenant by name; of all tenants if it is "".
func (s *Store) Callers(ctx context.Context, tenant string) ([]*Caller, error) {
	var out []*Caller
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		out = nil
		rows, err := tx.Query(ctx, `SELECT `+callerColumns+` FROM access_caller c WHERE c.tenant = ? OR ? = '' ORDER BY c.tenant, c.name`, tenant, tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			c, err := scanCaller(rows)
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return rows.Err()
	})
	return out, storeError(err)
}

// Caller returns one caller, or ErrNoCaller.
func (s *Store) Caller(ctx context.Context, tenant, name string) (c *Caller, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		c, err = loadCaller(ctx, tx, tenant, name, "")
		return err
	})
	return c, storeError(err)
}

func loadCaller(ctx context.Context, tx *sqldb.Tx, tenant, name, lock string) (*Caller, error) {
	c, err := scanCaller(tx.QueryRow(ctx, `SELECT `+callerColumns+` FROM access_caller c WHERE c.tenant = ? AND c.name = ?`+lock, tenant, name))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: %q in tenant %s", ErrNoCaller, clip(name), clip(tenant))
	}
	return c, err
}

// Revoke ends a caller's access: its certificates and invitations are worth
// nothing from now on, on other nodes within two seconds.
func (s *Store) Revoke(ctx context.Context, tenant, name, reason string) (c *Caller, err error) {
	if len(reason) > 512 {
		return nil, fmt.Errorf("%w: a reason has up to 512 octets", ErrUsage)
	}
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if c, err = loadCaller(ctx, tx, tenant, name, tx.ForUpdate()); err != nil {
			return err
		}
		c.State, c.Reason = Revoked, reason
		for _, q := range []string{
			`UPDATE access_certificate SET revoked = 1 WHERE tenant = ? AND name = ?`,
			`DELETE FROM access_invitation WHERE tenant = ? AND name = ?`,
		} {
			if _, err := tx.Exec(ctx, q, tenant, name); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `UPDATE access_caller SET state = 'revoked', reason = ? WHERE tenant = ? AND name = ?`, reason, tenant, name)
		return err
	})
	s.known.clear()
	if err != nil {
		return nil, storeError(err)
	}
	return c, nil
}

// SetGrants replaces the grants of a caller.
func (s *Store) SetGrants(ctx context.Context, tenant, name string, grants []Grant) error {
	c := Caller{Tenant: tenant, Name: name, Role: Client, Grants: grants}
	if err := c.check(); err != nil {
		return err
	}
	text, err := json.Marshal(nonNil(grants))
	if err != nil {
		return err
	}
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		return tx.ExecOne(ctx, fmt.Errorf("%w: %q in tenant %s", ErrNoCaller, clip(name), tenant),
			`UPDATE access_caller SET grants = ? WHERE tenant = ? AND name = ?`, string(text), tenant, name)
	})
	s.known.clear()
	return storeError(err)
}

func nonNil(g []Grant) []Grant {
	if g == nil {
		return []Grant{}
	}
	return g
}

// A StoreError says that the database failed; nothing was wrong with what was
// asked.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return "access: the database failed: " + e.Err.Error() }

func (e *StoreError) Unwrap() error { return e.Err }

func storeError(err error) error {
	for _, known := range []error{nil, ErrUsage, ErrUnknown, ErrExists, ErrNoCaller, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return err
		}
	}
	return &StoreError{err}
}
