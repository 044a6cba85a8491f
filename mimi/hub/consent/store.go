package consent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
)

// Which side of a request our user is on.
const (
	received = 0
	sent     = 1
)

func micros(db *sqldb.DB) int64 { return db.Now().UnixMicro() }

// readWords returns what the target has said about the scope's room and about
// any room.
func readWords(ctx context.Context, tx *sqldb.Tx, scope mimi.ConsentScope) (mimi.Consents, error) {
	rows, err := tx.Query(ctx, `SELECT room, granted FROM consent_word WHERE target = ? AND requester = ? AND (room = ? OR room = '')`,
		scope.TargetURI.String(), scope.RequesterURI.String(), scope.RoomID.String())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	words := mimi.Consents{}
	for rows.Next() {
		var room string
		var granted int
		if err := rows.Scan(&room, &granted); err != nil {
			return nil, err
		}
		key := mimi.ConsentScope{RequesterURI: scope.RequesterURI, TargetURI: scope.TargetURI}
		if room != "" {
			key.RoomID = scope.RoomID
		}
		words[key] = granted == 1
	}
	return words, rows.Err()
}

// grantedElsewhere reports whether the target granted another room.
func grantedElsewhere(ctx context.Context, tx *sqldb.Tx, scope mimi.ConsentScope) (bool, error) {
	return exists(tx.QueryRow(ctx, `SELECT 1 FROM consent_word WHERE target = ? AND requester = ? AND granted = 1 LIMIT 1`,
		scope.TargetURI.String(), scope.RequesterURI.String()))
}

func exists(row *sql.Row) (bool, error) {
	var one int
	err := row.Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func setWord(ctx context.Context, tx *sqldb.Tx, table string, scope mimi.ConsentScope, granted bool, at int64) error {
	n := 0
	if granted {
		n = 1
	}
	_, err := tx.Exec(ctx, `INSERT INTO `+table+` (target, requester, room, granted, at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (target, requester, room) DO UPDATE SET granted = excluded.granted, at = excluded.at`,
		scope.TargetURI.String(), scope.RequesterURI.String(), scope.RoomID.String(), n, at)
	return err
}

// boundWords refuses a word beyond what one user may have.
func boundWords(ctx context.Context, tx *sqldb.Tx, table, side string, user mimi.URI) error {
	var n int
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM `+table+` WHERE `+side+` = ? LIMIT ?) AS words`, user.String(), maxWords+1).Scan(&n)
	if err == nil && n > maxWords {
		return problem.New(http.StatusTooManyRequests, "too-many", "%s has more than %d consents", user, maxWords)
	}
	return err
}

func scopeArgs(side int, s mimi.ConsentScope) []any {
	return []any{side, s.TargetURI.String(), s.RequesterURI.String(), s.RoomID.String()}
}

const ofScope = ` WHERE sent = ? AND target = ? AND requester = ? AND room = ?`

func hasRequest(ctx context.Context, tx *sqldb.Tx, side int, s mimi.ConsentScope) (bool, error) {
	return exists(tx.QueryRow(ctx, `SELECT 1 FROM consent_request`+ofScope, scopeArgs(side, s)...))
}

func addRequest(ctx context.Context, tx *sqldb.Tx, side int, s mimi.ConsentScope, at int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO consent_request (sent, target, requester, room, provider, at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (sent, target, requester, room) DO UPDATE SET at = excluded.at`,
		append(scopeArgs(side, s), s.RequesterURI.Host(), at)...)
	return err
}

// dropRequest forgets a request and reports whether there was one.
func dropRequest(ctx context.Context, tx *sqldb.Tx, side int, s mimi.ConsentScope) (bool, error) {
	res, err := tx.Exec(ctx, `DELETE FROM consent_request`+ofScope, scopeArgs(side, s)...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func countRequests(ctx context.Context, tx *sqldb.Tx, where string, args ...any) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM consent_request WHERE `+where, args...).Scan(&n)
	return n, err
}

// pendingFull reports whether the target has all the requests that it may have
// open, or all from this provider.
func pendingFull(ctx context.Context, tx *sqldb.Tx, s mimi.ConsentScope) (bool, error) {
	target := s.TargetURI.String()
	all, err := countRequests(ctx, tx, `sent = 0 AND target = ?`, target)
	if err != nil || all >= maxPending {
		return true, err
	}
	ofProvider, err := countRequests(ctx, tx, `sent = 0 AND target = ? AND provider = ?`, target, s.RequesterURI.Host())
	return ofProvider >= maxPendingProvider, err
}

// expire forgets requests that nobody has answered.
func (s *Service) expire(ctx context.Context) error {
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM consent_request WHERE at < ?`, s.db.Now().Add(-requestLifetime).UnixMicro())
		return err
	})
}

// A Word is one grant or revocation, with its scope.
type Word struct {
	mimi.ConsentScope
	Granted bool
	At      time.Time
}

// Words returns what a user of ours has granted and revoked, at most limit.
func (s *Service) Words(ctx context.Context, target mimi.URI, limit int) ([]Word, error) {
	return s.words(ctx, `SELECT requester, target, room, granted, at FROM consent_word WHERE target = ? ORDER BY requester, room LIMIT ?`, target.String(), limit)
}

// Told returns what others have granted a user of ours or revoked, at most
// limit.
func (s *Service) Told(ctx context.Context, requester mimi.URI, limit int) ([]Word, error) {
	return s.words(ctx, `SELECT requester, target, room, granted, at FROM consent_told WHERE requester = ? ORDER BY target, room LIMIT ?`, requester.String(), limit)
}

// Pending returns the requests that wait for a user of ours, oldest first, at
// most limit. Their Granted is false.
func (s *Service) Pending(ctx context.Context, target mimi.URI, limit int) ([]Word, error) {
	return s.words(ctx, `SELECT requester, target, room, 0, at FROM consent_request WHERE sent = 0 AND target = ? ORDER BY at, requester, room LIMIT ?`, target.String(), limit)
}

// Asked returns the requests of a user of ours that wait for an answer, oldest
// first, at most limit. Their Granted is false.
func (s *Service) Asked(ctx context.Context, requester mimi.URI, limit int) ([]Word, error) {
	return s.words(ctx, `SELECT requester, target, room, 0, at FROM consent_request WHERE sent = 1 AND requester = ? ORDER BY at, target, room LIMIT ?`, requester.String(), limit)
}

func (s *Service) words(ctx context.Context, query string, args ...any) (words []Word, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		words = nil
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			w, err := scanWord(rows)
			if err != nil {
				return err
			}
			words = append(words, w)
		}
		return rows.Err()
	})
	return words, storeError(err)
}

func scanWord(rows *sql.Rows) (w Word, err error) {
	var requester, target, room string
	var granted int
	var at int64
	if err := rows.Scan(&requester, &target, &room, &granted, &at); err != nil {
		return w, err
	}
	w.Granted, w.At = granted == 1, time.UnixMicro(at).UTC()
	for _, u := range []struct {
		to   *mimi.URI
		text string
	}{{&w.RequesterURI, requester}, {&w.TargetURI, target}, {&w.RoomID, room}} {
		if err := u.to.UnmarshalText([]byte(u.text)); err != nil {
			return w, fmt.Errorf("the database has a bad URI: %w", err)
		}
	}
	return w, nil
}
