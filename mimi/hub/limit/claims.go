package limit

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
)

//go:embed migrations
var migrations embed.FS

// Quotas are how many claims of KeyPackages pass in one window. One claim takes
// a KeyPackage of each of the target's clients.
type Quotas struct {
	Window time.Duration // 0 means a day
	Scope  int           // by one requester, of one target, for one room
	Peer   int           // by one peer, of one target
	Target int           // of one target, by anybody
}

// DefaultQuotas leave a room that is in trouble some attempts.
func DefaultQuotas() Quotas {
	return Quotas{Window: 24 * time.Hour, Scope: 20, Peer: 200, Target: 1000}
}

// Claims counts claims of KeyPackages.
type Claims struct {
	db     *sqldb.DB
	quotas Quotas
}

// OpenClaims opens the counters on a database; see sqldb.Open for the source.
func OpenClaims(ctx context.Context, source string, quotas Quotas, opt sqldb.Options) (*Claims, error) {
	opt.Name, opt.Migrations = "limit", migrations
	db, err := sqldb.Open(ctx, source, opt)
	if err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	if quotas.Window <= 0 {
		quotas.Window = 24 * time.Hour
	}
	return &Claims{db, quotas}, nil
}

// Close closes the database.
func (c *Claims) Close() error { return c.db.Close() }

// Take counts one claim of a peer against each of its quotas, durably, or
// refuses it with a problem and counts nothing. It is for before KeyPackages
// are reserved: a claim that fails later has been counted.
func (c *Claims) Take(ctx context.Context, domain string, scope mimi.ConsentScope) error {
	target := scope.TargetURI.String()
	counts := []struct {
		subject string
		most    int
		what    string
	}{
		// In this order, so that two claims never wait for each other.
		{"t " + target, c.quotas.Target, "of one user"},
		{"p " + target + " " + domain, c.quotas.Peer, "of one user by " + domain},
		{"s " + target + " " + scope.RequesterURI.String() + " " + scope.RoomID.String(), c.quotas.Scope, "of one user for one room"},
	}
	err := c.db.Batch(ctx, func(tx *sqldb.Tx) error {
		for _, n := range counts {
			if wait, err := c.count(ctx, tx, n.subject, n.most); err != nil {
				return err
			} else if wait > 0 {
				return problem.New(http.StatusTooManyRequests, "too-many", "too many claims of KeyPackages %s; wait", n.what).After(wait)
			}
		}
		return nil
	})
	if p := (*problem.Problem)(nil); err != nil && !errors.As(err, &p) {
		return fmt.Errorf("limit: %w", err)
	}
	return err
}

// count adds one to a subject's count, or returns how long its window lasts.
func (c *Claims) count(ctx context.Context, tx *sqldb.Tx, subject string, most int) (wait time.Duration, err error) {
	now := c.db.Now()
	_, err = tx.Exec(ctx, `INSERT INTO limit_claim (subject, since, count) VALUES (?, ?, 0) ON CONFLICT (subject) DO NOTHING`, subject, now.UnixMicro())
	if err != nil {
		return 0, err
	}
	var since int64
	var n int
	err = tx.QueryRow(ctx, `SELECT since, count FROM limit_claim WHERE subject = ?`+tx.ForUpdate(), subject).Scan(&since, &n)
	if err != nil {
		return 0, err
	}
	left := time.UnixMicro(since).Add(c.quotas.Window).Sub(now)
	if left <= 0 {
		since, n = now.UnixMicro(), 0
	}
	if n >= most {
		return max(left, time.Second), nil
	}
	return 0, tx.ExecOne(ctx, sql.ErrNoRows, `UPDATE limit_claim SET since = ?, count = ? WHERE subject = ?`, since, n+1, subject)
}

// Sweep forgets windows that are over. Call it now and then.
func (c *Claims) Sweep(ctx context.Context) error {
	err := c.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM limit_claim WHERE since < ?`, c.db.Now().Add(-c.quotas.Window).UnixMicro())
		return err
	})
	if err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	return nil
}
