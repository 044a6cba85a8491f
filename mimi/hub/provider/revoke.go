package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

// A Gone says where and when a leaf with a credential was removed.
type Gone struct {
	Room    mimi.URI
	Client  mimi.URI
	Since   uint64 // epoch in which the leaf came; of a room of another hub, or a later one
	Removed bool
	// Epoch is the first without the leaf, if Removed. Of a room of another hub
	// whose commits could not be followed all the time, it is one without the
	// leaf, or 0.
	Epoch uint64
	At    uint64 // accepted timestamp of the commit that removed it, in milliseconds
}

// Whereabouts lists the leaves that a credential has or had, to wait until it is
// nowhere any more: in our rooms, and those of our clients in rooms of other hubs,
// as far as we can follow these (see Unfollowed).
func (s *Service) Whereabouts(ctx context.Context, ids ...hub.CredentialID) (list []Gone, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		list = nil
		for _, id := range ids {
			if err := whereabouts(ctx, tx, `m.credential = ?`, id[:], &list); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// ClientWhereabouts is Whereabouts of a client, with whatever credentials.
func (s *Service) ClientWhereabouts(ctx context.Context, client mimi.URI) (list []Gone, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		list = nil
		return whereabouts(ctx, tx, `m.client = ?`, client.String(), &list)
	})
	return list, err
}

// CredentialWhereabouts is Whereabouts of those credentials of a client for which
// is returns true.
func (s *Service) CredentialWhereabouts(ctx context.Context, client mimi.URI, is func(*mls.Credential) bool) (list []Gone, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		list = nil
		ids, err := credentialsOf(ctx, tx, client, is)
		for _, id := range ids {
			if err == nil {
				err = whereabouts(ctx, tx, `m.credential = ?`, id, &list)
			}
		}
		return err
	})
	return list, err
}

func credentialsOf(ctx context.Context, tx *sqldb.Tx, client mimi.URI, is func(*mls.Credential) bool) (ids [][]byte, err error) {
	rows, err := tx.Query(ctx, `SELECT h.credential, h.type, h.body FROM held h WHERE h.credential IN (SELECT m.credential FROM member m WHERE m.client = ?)`, client.String())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id []byte
		var kind int64
		var c mls.Credential
		if err := rows.Scan(&id, &kind, &c.Body); err != nil {
			return nil, err
		}
		if c.Type = mls.CredentialType(kind); is(&c) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

func whereabouts(ctx context.Context, tx *sqldb.Tx, where string, arg any, list *[]Gone) error {
	rows, err := tx.Query(ctx, `SELECT r.uri, m.client, m.since, coalesce(m.until, -1), coalesce(m.gone_at, 0) FROM member m JOIN room r ON r.id = m.room
		WHERE r.closed = 0 AND `+where+` ORDER BY r.uri, m.since`, arg)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var room, client string
		var since, until, at int64
		if err := rows.Scan(&room, &client, &since, &until, &at); err != nil {
			return err
		}
		g := Gone{Since: uint64(since), Removed: until >= 0, Epoch: uint64(max(until, 0)), At: uint64(at)}
		if g.Room, err = mimi.ParseURI(room); err != nil {
			return err
		}
		if g.Client, err = mimi.ParseURI(client); err != nil {
			return err
		}
		*list = append(*list, g)
	}
	return rows.Err()
}

// Expel proposes, in every room of ours, to remove the leaves of credentials
// that are not believed any more. Members must commit the removals before they
// send anything else, and whoever is being removed may send nothing. That
// nobody joins with such a credential is for the Evaluator.
func (s *Service) Expel(ctx context.Context, ids ...hub.CredentialID) error {
	bad := make(map[hub.CredentialID]bool, len(ids))
	for _, id := range ids {
		bad[id] = true
	}
	return s.expel(ctx, func(m hub.Member) bool { return bad[m.Credential] }, func(tx *sqldb.Tx, rooms map[string]bool) error {
		for _, id := range ids {
			if err := roomsWith(ctx, tx, `m.credential = ?`, id[:], rooms); err != nil {
				return err
			}
		}
		return nil
	})
}

// ExpelClient is Expel of a client, with whatever credential.
func (s *Service) ExpelClient(ctx context.Context, client mimi.URI) error {
	return s.expel(ctx, func(m hub.Member) bool { return m.Client == client }, func(tx *sqldb.Tx, rooms map[string]bool) error {
		return roomsWith(ctx, tx, `m.client = ?`, client.String(), rooms)
	})
}

func (s *Service) expel(ctx context.Context, wanted func(hub.Member) bool, find func(*sqldb.Tx, map[string]bool) error) error {
	rooms := make(map[string]bool)
	if err := s.db.Read(ctx, func(tx *sqldb.Tx) error { clear(rooms); return find(tx, rooms) }); err != nil {
		return err
	}
	var failures []error
	for uri := range rooms {
		room, err := mimi.ParseURI(uri)
		if err == nil {
			err = s.proposeRemoval(ctx, room, wanted)
		}
		if err != nil && !errors.Is(err, ErrNoRoom) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func (s *Service) proposeRemoval(ctx context.Context, room mimi.URI, wanted func(hub.Member) bool) error {
	return s.decideAlone(ctx, room, func(e *entry) error {
		out, err := e.room.ProposeRemoval(ctx, wanted)
		if err != nil {
			e.forget()
			return err
		}
		if len(out.Events) == 0 {
			return nil
		}
		// A removed leaf is not heard, even where its user stays with others.
		return s.complete(ctx, &updateWrite{e: e, out: out})
	})
}

func roomsWith(ctx context.Context, tx *sqldb.Tx, where string, arg any, rooms map[string]bool) error {
	rows, err := tx.Query(ctx, `SELECT DISTINCT r.uri FROM member m JOIN room r ON r.id = m.room WHERE m.until IS NULL AND r.closed = 0 AND r.hub = '' AND `+where, arg)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var uri string
		if err := rows.Scan(&uri); err != nil {
			return err
		}
		rooms[uri] = true
	}
	return rows.Err()
}

// Follow asks again and again whether the credentials of leaves are believed,
// at once when the trust configuration or what is known of revocations changes,
// until ctx ends. It expels those that are not believed any more, and holds them
// until they are gone, and those that are suspended until they are valid again.
func (s *Service) Follow(ctx context.Context, e *identity.Evaluator) error {
	warned := make(map[hub.CredentialID]identity.AlertKind)
	var seen suspensions
	look := func(ctx context.Context) (list []identity.Held, err error) {
		list, seen, err = s.held(ctx)
		return list, err
	}
	return e.Follow(ctx, look, func(ctx context.Context, alerts []identity.Alert) error {
		var gone []hub.CredentialID
		suspended := make(map[hub.CredentialID]bool)
		now := make(map[hub.CredentialID]identity.AlertKind, len(alerts))
		for _, a := range alerts {
			id := a.Ref.(hub.CredentialID)
			now[id] = a.Kind
			if warned[id] != a.Kind {
				s.cfg.Log.Warn("a credential in our rooms has changed", "kind", string(a.Kind), "credential", fmt.Sprintf("%x", id[:8]), "err", a.Err)
			}
			if a.Kind.Remove() {
				gone = append(gone, id)
			}
			suspended[id] = a.Kind.Remove() || a.Kind == identity.AlertSuspended
		}
		warned = now
		if err := s.suspend(ctx, suspended, seen); err != nil {
			s.cfg.Log.Error("suspended credentials could not be noted; it is tried again", "err", err)
		}
		if err := s.Expel(ctx, gone...); err != nil {
			s.cfg.Log.Error("leaves could not be removed; it is tried again", "err", err)
		}
		return nil
	})
}

// suspensions are the credentials that are suspended, and when that was noted, in
// milliseconds.
type suspensions map[hub.CredentialID]int64

// suspend makes the suspended credentials of leaves exactly these. Their leaves
// stay in the rooms, since a suspension may end: until then they may send
// nothing, and propose or commit nothing but the removal of their user's own
// clients. A suspension ends only if it is the one that was seen before the
// credentials were judged: another node may have noted it meanwhile, of a newer
// list.
func (s *Service) suspend(ctx context.Context, now map[hub.CredentialID]bool, seen suspensions) error {
	rooms := make(map[string]bool)
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		clear(rooms)
		if _, err := advance(ctx, tx, 0); err != nil { // the counter first, like everybody
			return err
		}
		changed, err := changes(ctx, tx, now, seen)
		if err != nil {
			return err
		}
		for id, on := range changed {
			var at int64
			if on {
				at = s.nowMS()
			}
			if _, err := tx.Exec(ctx, `UPDATE held SET suspended = ? WHERE credential = ?`, at, id[:]); err != nil {
				return err
			}
			if err := roomsWith(ctx, tx, `m.credential = ?`, id[:], rooms); err != nil {
				return err
			}
		}
		for uri := range rooms { // other nodes have to decide anew
			if _, err := tx.Exec(ctx, `UPDATE room SET version = version + 1 WHERE uri = ?`, uri); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for uri := range rooms {
		s.reload(uri)
	}
	return nil
}

// changes compares what is stored with what is so: true where a suspension
// begins, false where one that was seen ends.
func changes(ctx context.Context, tx *sqldb.Tx, now map[hub.CredentialID]bool, seen suspensions) (map[hub.CredentialID]bool, error) {
	changed := make(map[hub.CredentialID]bool)
	for id, on := range now {
		if on {
			changed[id] = true
		}
	}
	stored, err := noted(ctx, tx)
	for id, at := range stored {
		if now[id] {
			delete(changed, id)
		} else if seen[id] == at {
			changed[id] = false
		}
	}
	return changed, err
}

// noted are the suspensions that are stored.
func noted(ctx context.Context, tx *sqldb.Tx) (suspensions, error) {
	rows, err := tx.Query(ctx, `SELECT credential, suspended FROM held WHERE suspended <> 0`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(suspensions)
	for rows.Next() {
		var id []byte
		var at int64
		if err := rows.Scan(&id, &at); err != nil {
			return nil, err
		}
		all[hub.CredentialID(id)] = at
	}
	return all, rows.Err()
}

// reload has a room of ours loaded again before anything else is decided in it.
func (s *Service) reload(uri string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for u, e := range s.rooms {
		if u.String() == uri {
			e.queue.mu.Lock()
			e.queue.reload = true
			e.queue.mu.Unlock()
		}
	}
}

// held lists the distinct credentials that leaves of our rooms have now, and all
// that are suspended.
func (s *Service) held(ctx context.Context) (list []identity.Held, seen suspensions, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		list = nil
		var err error
		if seen, err = noted(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT h.credential, h.host, h.suite, h.key, h.type, h.body, h.suspended FROM held h
			WHERE EXISTS (SELECT 1 FROM member m JOIN room r ON r.id = m.room WHERE m.credential = h.credential AND m.until IS NULL AND r.closed = 0 AND r.hub = '')`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id []byte
			var suite, kind, suspended int64
			q := identity.Question{Role: identity.RoleClient, Expect: identity.Expected{Pseudonyms: true}}
			if err := rows.Scan(&id, &q.Voucher, &suite, &q.SignatureKey, &kind, &q.Credential.Body, &suspended); err != nil {
				return err
			}
			q.Suite, q.Credential.Type = mls.CipherSuite(suite), mls.CredentialType(kind)
			list = append(list, identity.Held{Question: q, Ref: hub.CredentialID(id), Suspended: suspended != 0})
		}
		return rows.Err()
	})
	return list, seen, err
}
