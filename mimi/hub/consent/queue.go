package consent

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/peer"
)

const (
	lease       = 2 * time.Minute // for which one node has what it sends
	atOnce      = 16              // destinations that are served at the same time
	idle        = 5 * time.Second // between looks into the queue without new work
	giveUpAfter = 14 * 24 * time.Hour
)

// A Courier tells others. An error that peer.Retry calls final ends the
// attempt; any other is tried again.
type Courier interface {
	// Send tells another provider.
	Send(ctx context.Context, provider string, e *mimi.ConsentEntry) error
	// Notify tells the clients of a user of ours. It must be durable, and may
	// be called again with the same entry after a crash.
	Notify(ctx context.Context, user mimi.URI, e *mimi.ConsentEntry) error
}

// enqueue keeps an entry for a provider's domain or a user's URI.
func (s *Service) enqueue(ctx context.Context, tx *sqldb.Tx, destination string, e *mimi.ConsentEntry) error {
	var n int
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM consent_queue WHERE destination = ?`, destination).Scan(&n)
	if err != nil {
		return err
	}
	if n >= maxQueue {
		return errFull
	}
	now, author, b := micros(s.db), s.author(e), e.Marshal()
	if err := s.mayWait(ctx, tx, author, len(b)); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO consent_queue (destination, entry, attempts, created, due, author) VALUES (?, ?, 0, ?, ?, ?)`,
		destination, b, now, now, author)
	return err
}

// errFull does not say for whom too much waits, since others may ask.
var errFull = problem.New(http.StatusTooManyRequests, "too-many", "too much waits to be told; try again later").After(time.Minute)

// author says whose word an entry is: a user's of ours, or another provider's.
func (s *Service) author(e *mimi.ConsentEntry) string {
	speaker := e.RequesterURI
	if e.Operation == mimi.ConsentGrant || e.Operation == mimi.ConsentRevoke {
		speaker = e.TargetURI
	}
	if s.cfg.Serves(speaker.Host()) {
		return speaker.String()
	}
	return speaker.Host()
}

// mayWait refuses an entry of an author of whom too much waits.
func (s *Service) mayWait(ctx context.Context, tx *sqldb.Tx, author string, size int) error {
	most, octets := maxUserQueue, int64(maxUserOctets)
	if !strings.HasPrefix(author, "mimi://") {
		most, octets = maxQueue, maxProviderOctets
	}
	var n int
	var sum int64
	err := tx.QueryRow(ctx, `SELECT COUNT(*), COALESCE(SUM(LENGTH(entry)), 0) FROM consent_queue WHERE author = ?`, author).Scan(&n, &sum)
	if err == nil && (n >= most || sum+int64(size) > octets) {
		err = errFull
	}
	return err
}

// A letter is one row of the queue.
type letter struct {
	id, created int64
	attempts    int
	destination string
	entry       []byte
}

// Run tells others until the context ends. Several nodes may run on one
// database; each destination is served by one of them at a time, in order.
func (s *Service) Run(ctx context.Context, c Courier) {
	lastExpiry := time.Time{}
	for ctx.Err() == nil {
		if now := s.db.Now(); now.Sub(lastExpiry) > time.Hour {
			lastExpiry = now
			s.report(s.expire(ctx))
		}
		n, err := s.deliver(ctx, c)
		s.report(err)
		if n == 0 || err != nil {
			s.wait(ctx)
		}
	}
}

// wait returns when there may be work.
func (s *Service) wait(ctx context.Context) {
	timer := time.NewTimer(s.untilDue(ctx))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.poke:
	case <-timer.C:
	}
}

// untilDue returns for how long nothing is due that the queue has now.
func (s *Service) untilDue(ctx context.Context) time.Duration {
	wait := idle
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		var due sql.NullInt64
		if err := tx.QueryRow(ctx, `SELECT MIN(due) FROM consent_queue`).Scan(&due); err != nil || !due.Valid {
			return err
		}
		wait = min(max(time.UnixMicro(due.Int64).Sub(s.db.Now()), 50*time.Millisecond), idle)
		return nil
	})
	if err != nil {
		return idle
	}
	return wait
}

func (s *Service) report(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.cfg.Log.Error("consent queue", "error", err)
	}
}

// deliver serves the destinations that are due once, and returns how many.
func (s *Service) deliver(ctx context.Context, c Courier) (int, error) {
	letters, err := s.claim(ctx)
	if err != nil {
		return 0, err
	}
	done := make(chan error, len(letters))
	for _, l := range letters {
		go func() { done <- s.hand(ctx, c, l) }()
	}
	for range letters {
		if e := <-done; e != nil && ctx.Err() == nil {
			err = e
		}
	}
	return len(letters), err
}

// claim takes the oldest letter of each destination that is due.
func (s *Service) claim(ctx context.Context) (letters []letter, err error) {
	now := s.db.Now()
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		letters = nil
		rows, err := tx.Query(ctx, `SELECT id, created, attempts, destination, entry FROM consent_queue q WHERE due <= ?
			AND NOT EXISTS (SELECT 1 FROM consent_queue e WHERE e.destination = q.destination AND e.id < q.id)
			ORDER BY due LIMIT ?`+tx.SkipLocked(), now.UnixMicro(), atOnce)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var l letter
			if err := rows.Scan(&l.id, &l.created, &l.attempts, &l.destination, &l.entry); err != nil {
				return err
			}
			letters = append(letters, l)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		rows.Close()
		for _, l := range letters {
			if _, err := tx.Exec(ctx, `UPDATE consent_queue SET due = ? WHERE id = ?`, now.Add(lease).UnixMicro(), l.id); err != nil {
				return err
			}
		}
		return nil
	})
	return letters, err
}

// hand tells one destination and strikes the letter off, or sets when to try
// again.
func (s *Service) hand(ctx context.Context, c Courier, l letter) error {
	err := s.carry(ctx, c, l)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	after, again := peer.Retry(err)
	if p := (*problem.Problem)(nil); err != nil && !again && (!errors.As(err, &p) || p.Status == http.StatusUnauthorized) {
		again = true // ours, such as a database that is away, or a certificate that has ended
	}
	if again && s.db.Now().Sub(time.UnixMicro(l.created)) < giveUpAfter {
		due := s.db.Now().Add(max(after, peer.Backoff(l.attempts+1)))
		return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE consent_queue SET due = ?, attempts = attempts + 1 WHERE id = ?`, due.UnixMicro(), l.id)
			return err
		})
	}
	if err != nil {
		s.cfg.Log.Warn("consent entry was not taken", "destination", l.destination, "attempts", l.attempts+1, "error", err)
	}
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM consent_queue WHERE id = ?`, l.id)
		return err
	})
}

func (s *Service) carry(ctx context.Context, c Courier, l letter) error {
	ctx, cancel := context.WithTimeout(ctx, lease/2)
	defer cancel()
	e, err := mimi.ParseConsentEntry(l.entry)
	if err != nil {
		return problem.New(http.StatusInternalServerError, "internal", "the queue has a bad entry: %w", err)
	}
	if !strings.HasPrefix(l.destination, "mimi://") {
		return c.Send(ctx, l.destination, e)
	}
	user, err := mimi.ParseURI(l.destination)
	if err != nil {
		return problem.New(http.StatusInternalServerError, "internal", "the queue has a bad URI: %w", err)
	}
	return c.Notify(ctx, user, e)
}
