package client

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// A consent lets one user fetch another's KeyPackages, to add its clients to one
// room or to any (draft-ietf-mimi-protocol-06 section 5.7). Who asks is the
// requester, who is asked the target. The user's provider keeps what stands, for
// all of its clients; what comes in the events is kept here so that a person
// can be told.

// RequestConsent asks another user to let this one add it to a room, or to any
// if room is zero. Whether it is there and has seen the request is not told.
func (c *Client) RequestConsent(ctx context.Context, target, room mimi.URI) error {
	return c.sendConsent(ctx, mimi.ConsentRequest, mimi.ConsentScope{RequesterURI: c.User(), TargetURI: target, RoomID: room})
}

// CancelConsent takes a request back. It must be for what was asked for.
func (c *Client) CancelConsent(ctx context.Context, target, room mimi.URI) error {
	return c.sendConsent(ctx, mimi.ConsentCancel, mimi.ConsentScope{RequesterURI: c.User(), TargetURI: target, RoomID: room})
}

// GrantConsent lets a user add this one to a room, or to any if room is zero,
// whether it has asked or not.
func (c *Client) GrantConsent(ctx context.Context, requester, room mimi.URI) error {
	return c.sendConsent(ctx, mimi.ConsentGrant, mimi.ConsentScope{RequesterURI: requester, TargetURI: c.User(), RoomID: room})
}

// RevokeConsent no longer lets a user add this one. A word about a room goes
// before one about any. Rooms in which both are stay as they are.
func (c *Client) RevokeConsent(ctx context.Context, requester, room mimi.URI) error {
	return c.sendConsent(ctx, mimi.ConsentRevoke, mimi.ConsentScope{RequesterURI: requester, TargetURI: c.User(), RoomID: room})
}

func (c *Client) sendConsent(ctx context.Context, op mimi.ConsentOperation, scope mimi.ConsentScope) error {
	if scope.RequesterURI == scope.TargetURI {
		return fmt.Errorf("client: %s needs no consent of its own", scope.TargetURI)
	}
	e := &mimi.ConsentEntry{Operation: op, ConsentScope: scope}
	_, err := c.provider.call(ctx, http.MethodPost, clientapi.PathConsent, e.Marshal())
	return err
}

// Consents asks the provider for the consents that wait or stand, of which this
// user is requester or target.
func (c *Client) Consents(ctx context.Context) (clientapi.ConsentList, error) {
	return ask(ctx, c.provider, http.MethodGet, clientapi.PathConsent, nil, clientapi.ParseConsentList)
}

// A ConsentEvent is something that the user was asked or told.
type ConsentEvent struct {
	Seq uint64 // of the event, by which ConsentEvents goes on
	At  time.Time
	mimi.ConsentScope
	Operation mimi.ConsentOperation
}

// maxConsentEvents is how many are kept.
const maxConsentEvents = 1000

// takeConsent is the step that notes an event of a consent. What is not about
// this user is refused: a provider does not tell it to others.
func (t *taker) takeConsent(ctx context.Context, u *unit, e *clientapi.Event) error {
	entry, err := mimi.ParseConsentEntry(e.Payload)
	if err != nil {
		return err
	}
	about := entry.TargetURI
	if entry.Operation == mimi.ConsentGrant || entry.Operation == mimi.ConsentRevoke {
		about = entry.RequesterURI
	}
	if about != t.c.User() {
		return fmt.Errorf("a consent of %s with %s, which is not for %s", entry.RequesterURI, entry.TargetURI, t.c.User())
	}
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO consent_event (seq, at, operation, requester, target, room) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (seq) DO NOTHING`,
			int64(e.Seq), int64(e.Time), int64(entry.Operation), entry.RequesterURI.String(), entry.TargetURI.String(), entry.RoomID.String())
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM consent_event WHERE n <= (SELECT max(n) FROM consent_event) - ?`, maxConsentEvents)
		}
		return err
	})
	return nil
}

// ConsentEvents lists what the user was asked and told after an event, oldest
// first; after 0 all that is kept.
func (c *Client) ConsentEvents(ctx context.Context, after uint64) (list []ConsentEvent, err error) {
	err = c.store.each(ctx, `SELECT seq, at, operation, requester, target, room FROM consent_event WHERE seq > ? ORDER BY seq`, []any{int64(after)}, func(rows *sql.Rows) error {
		var seq, at, op int64
		var requester, target, room string
		if err := rows.Scan(&seq, &at, &op, &requester, &target, &room); err != nil {
			return err
		}
		e := ConsentEvent{Seq: uint64(seq), At: time.UnixMilli(at), Operation: mimi.ConsentOperation(op)}
		for _, u := range []struct {
			to   *mimi.URI
			text string
		}{{&e.RequesterURI, requester}, {&e.TargetURI, target}, {&e.RoomID, room}} {
			if err := u.to.UnmarshalText([]byte(u.text)); err != nil {
				return err
			}
		}
		list = append(list, e)
		return nil
	})
	return list, err
}
