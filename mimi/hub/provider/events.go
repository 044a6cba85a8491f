package provider

import (
	"context"
	"errors"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
)

// Bounds of one page of events.
const (
	pageEvents = 256
	pageOctets = 4 << 20
)

// An eventPage is events of a client, and where the next page begins. Cursor
// may be beyond the last event: nothing up to it is the client's.
type eventPage struct {
	events []*clientapi.Event
	cursor uint64
}

// Events calls send for the events of a client after the query's cursor, as
// they come, until the query is done.
func (s *Service) Events(ctx context.Context, client mimi.URI, q *clientapi.EventQuery, send func(*clientapi.Event) error) error {
	end := s.cfg.Now().Add(q.Wait)
	after, sent := q.After, false
	for {
		w, err := s.listen(ctx, client)
		if err != nil {
			return err
		}
		n, next, err := s.drainEvents(ctx, client, after, send)
		after, sent = next, sent || n > 0
		if err == nil && (q.Follow || !sent) && s.cfg.Now().Before(end) {
			err = s.pause(ctx, w, end, q.Follow, send)
		} else if err == nil {
			err = errDone
		}
		s.wake.done(w)
		if err == errDone {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

type doneError struct{}

func (doneError) Error() string { return "done" }

var errDone error = doneError{}

// pause waits for news, or for the time of a heartbeat.
func (s *Service) pause(ctx context.Context, w *waiter, end time.Time, follow bool, send func(*clientapi.Event) error) error {
	left := end.Sub(s.cfg.Now())
	wait := min(left, clientapi.Heartbeat)
	if s.db.Dialect() == sqldb.PostgreSQL {
		wait = min(wait, s.cfg.Poll)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	if follow && wait == clientapi.Heartbeat {
		return send(nil)
	}
	return nil
}

func (s *Service) drainEvents(ctx context.Context, client mimi.URI, after uint64, send func(*clientapi.Event) error) (n int, next uint64, err error) {
	for {
		page, err := s.page(ctx, client, after)
		if err != nil {
			return n, after, err
		}
		for _, e := range page.events {
			if err := send(e); err != nil {
				return n, after, err
			}
			n, after = n+1, e.Seq
		}
		if len(page.events) == 0 {
			return n, max(after, page.cursor), nil
		}
	}
}

// listen registers the client for wake-ups.
func (s *Service) listen(ctx context.Context, client mimi.URI) (*waiter, error) {
	var rooms []int64
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		rows, err := tx.Query(ctx, `SELECT DISTINCT room FROM subscription WHERE client = ? AND until_seq IS NULL`, client.String())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			rooms = append(rooms, id)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return s.wake.wait(client, rooms), nil
}

// page reads the next events of a client: those of its rooms, and its own.
func (s *Service) page(ctx context.Context, client mimi.URI, after uint64) (*eventPage, error) {
	p := new(eventPage)
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		p.events = nil
		oldest, err := oldestCursor(ctx, tx)
		if err != nil {
			return err
		}
		if after < uint64(oldest) {
			return clientapi.Problemf(clientapi.CodeCursorGone, "events are kept from %d on; join the rooms anew", oldest)
		}
		var newest int64
		if err := tx.QueryRow(ctx, `SELECT seq FROM counter WHERE id = 1`).Scan(&newest); err != nil {
			return err
		}
		p.cursor = uint64(newest)
		room, err := roomEvents(ctx, tx, client, after)
		if err != nil {
			return err
		}
		direct, err := directEvents(ctx, tx, client, after)
		if err != nil {
			return err
		}
		p.events, err = fill(ctx, tx, merge(room, direct))
		return err
	})
	return p, err
}

func roomEvents(ctx context.Context, tx *sqldb.Tx, client mimi.URI, after uint64) ([]*pageEvent, error) {
	return readEvents(ctx, tx, `SELECT e.seq, e.at, 1, r.uri, e.body, e.room, e.tree FROM subscription s JOIN event e ON e.room = s.room JOIN room r ON r.id = e.room
		WHERE s.client = ? AND e.seq > ? AND e.seq > s.from_seq AND (s.until_seq IS NULL OR e.seq <= s.until_seq)
		AND e.kind <= ? AND NOT (e.kind = ? AND s.muted_seq IS NOT NULL AND e.seq > s.muted_seq) ORDER BY e.seq LIMIT ?`,
		client.String(), int64(after), int64(hub.EventCommit), int64(hub.EventMessage), pageEvents)
}

func directEvents(ctx context.Context, tx *sqldb.Tx, client mimi.URI, after uint64) ([]*pageEvent, error) {
	return readEvents(ctx, tx, `SELECT d.seq, d.at, d.kind, coalesce(r.uri, ''), coalesce(e.body, d.payload), d.room, coalesce(e.tree, 0) FROM direct d LEFT JOIN room r ON r.id = d.room LEFT JOIN event e ON e.seq = d.event
		WHERE d.client = ? AND d.seq > ? ORDER BY d.seq LIMIT ?`, client.String(), int64(after), pageEvents)
}

// A pageEvent is an event, of which a Welcome is yet without its tree.
type pageEvent struct {
	clientapi.Event
	room, tree int64
}

func readEvents(ctx context.Context, tx *sqldb.Tx, query string, args ...any) (list []*pageEvent, err error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	size := 0
	for rows.Next() && size < pageOctets {
		e := new(pageEvent)
		var seq, at int64
		var room string
		if err := rows.Scan(&seq, &at, &e.Kind, &room, &e.Payload, &e.room, &e.tree); err != nil {
			return nil, err
		}
		e.Seq, e.Time = uint64(seq), uint64(at)
		if room != "" {
			if e.Room, err = mimi.ParseURI(room); err != nil {
				return nil, err
			}
		}
		size += len(e.Payload)
		list = append(list, e)
	}
	return list, rows.Err()
}

// merge puts two pages in order, and drops of one what lies beyond the end of
// the other: that has more which comes before it.
func merge(a, b []*pageEvent) (list []*pageEvent) {
	end := ^uint64(0)
	for _, page := range [][]*pageEvent{a, b} {
		size := 0
		for _, e := range page {
			size += len(e.Payload)
		}
		if len(page) == pageEvents || size >= pageOctets {
			end = min(end, page[len(page)-1].Seq)
		}
	}
	for len(a)+len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].Seq < b[0].Seq {
			list, a = append(list, a[0]), a[1:]
		} else {
			list, b = append(list, b[0]), b[1:]
		}
		if list[len(list)-1].Seq > end {
			return list[:len(list)-1]
		}
	}
	return list
}

// fill gives Welcomes their trees, and ends the page where it has become long.
func fill(ctx context.Context, tx *sqldb.Tx, page []*pageEvent) (list []*clientapi.Event, err error) {
	size := 0
	for _, e := range page {
		if size >= pageOctets {
			break
		}
		if e.tree != 0 {
			if e.Payload, err = completed(ctx, tx, e.room, e.tree, e.Payload); err != nil {
				return nil, err
			}
		}
		size += len(e.Payload)
		list = append(list, &e.Event)
	}
	return list, nil
}

// Rooms lists the rooms of which a client gets events.
func (s *Service) Rooms(ctx context.Context, client, user mimi.URI) (list clientapi.RoomList, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		list = nil
		rows, err := tx.Query(ctx, `SELECT r.uri, r.group_id, r.epoch, s.from_seq FROM subscription s JOIN room r ON r.id = s.room
			WHERE s.client = ? AND s.until_seq IS NULL ORDER BY r.uri LIMIT ?`, client.String(), clientapi.MaxRoomsListed)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e clientapi.RoomEntry
			var uri string
			var epoch, since int64
			if err := rows.Scan(&uri, &e.GroupID, &epoch, &since); err != nil {
				return err
			}
			if e.RoomID, err = mimi.ParseURI(uri); err != nil {
				return err
			}
			e.Epoch, e.Since = uint64(epoch), uint64(since)
			list = append(list, e)
		}
		return rows.Err()
	})
	for i := range list {
		list[i].Role = s.roleIn(ctx, list[i].RoomID, user)
	}
	return list, err
}

// roleIn returns the user's role in a room of ours that is in memory or can be
// loaded, and RoleNone of any other.
func (s *Service) roleIn(ctx context.Context, room, user mimi.URI) (role mimi.RoleIndex) {
	if room.Host() != s.cfg.Domain {
		return mimi.RoleNone
	}
	e, err := s.room(ctx, room)
	if err != nil {
		return mimi.RoleNone
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.fresh(ctx, e) == nil {
		role = e.room.State().RoleOf(user)
	}
	return role
}

// Purge deletes events that were kept long enough, but for handshakes that a
// room is still rebuilt from, and what is remembered for shorter times.
func (s *Service) Purge(ctx context.Context) error {
	return errors.Join(s.purgeEvents(ctx), s.dropTrees(ctx))
}

func (s *Service) purgeEvents(ctx context.Context) error {
	keep := s.cfg.Retention
	if keep == 0 {
		keep = clientapi.Retention
	}
	before := s.cfg.Now().Add(-keep).UnixMilli()
	day := s.cfg.Now().Add(-24 * time.Hour).UnixMilli()
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		for _, q := range []string{`DELETE FROM seen WHERE at < ?`, `DELETE FROM key_answer WHERE at < ?`, `DELETE FROM join_code WHERE expires < ?`} {
			if _, err := tx.Exec(ctx, q, day); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `DELETE FROM key_package WHERE not_after < ?`, s.cfg.Now().Add(-keptExpired).Unix()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM invitation WHERE expires < ?`, before); err != nil {
			return err
		}
		var oldest int64
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(seq), 0) FROM event WHERE at < ?`, before).Scan(&oldest); err != nil || oldest == 0 {
			return err
		}
		for _, q := range []string{
			`UPDATE counter SET seq = CASE WHEN seq < ? THEN ? ELSE seq END WHERE id = 2`,
		} {
			if _, err := tx.Exec(ctx, q, oldest, oldest); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `DELETE FROM direct WHERE seq <= ?`, oldest); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM event WHERE seq <= ? AND NOT (kind IN (2, 3) AND EXISTS
			(SELECT 1 FROM room r WHERE r.id = event.room AND r.hub = '' AND r.closed = 0 AND event.seq > r.snapshot_seq))`, oldest)
		return err
	})
}
