package provider

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
)

// An entry is a room of ours in memory.
type entry struct {
	uri    mimi.URI
	used   uint64      // guarded by Service.mu
	loaded atomic.Bool // room is not nil

	mu    sync.Mutex // one decision at a time; guards what follows
	id    int64
	room  *hub.Room // nil: not loaded, or ahead of the store
	row   roomRow
	trees chain
	deaf  map[mimi.URI]bool // users of ours who may not receive messages

	queue queue
}

// A roomRow is the room as the store has it.
type roomRow struct {
	version                   int64
	head                      int64
	snapshotSeq, snapshotTS   int64
	snapshotLen, logLen, logN int64
}

// room returns the entry of a room of ours, without loading it.
func (s *Service) room(_ context.Context, uri mimi.URI) (*entry, error) {
	if uri.Kind() != mimi.KindRoom || uri.Host() != s.cfg.Domain {
		return nil, ErrNoRoom
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	e := s.rooms[uri]
	if e == nil {
		s.evict()
		e = &entry{uri: uri}
		e.queue.entry, e.queue.w = e, &s.writer
		s.rooms[uri] = e
	}
	e.used = s.clock
	return e, nil
}

// evict makes place for one more room. A room that is busy stays. Names of rooms
// that are not loaded, as of those that somebody has made up, go first: nobody
// drives rooms out of memory by asking for others that are not there.
func (s *Service) evict() {
	for len(s.rooms) >= s.cfg.MaxRooms {
		var oldest *entry
		for _, e := range s.rooms {
			if oldest == nil || e.before(oldest) {
				oldest = e
			}
		}
		if !oldest.mu.TryLock() {
			return
		}
		idle := oldest.queue.idle()
		oldest.mu.Unlock()
		if !idle {
			return
		}
		delete(s.rooms, oldest.uri)
	}
}

// before reports whether an entry is to go before another.
func (e *entry) before(other *entry) bool {
	if mine, its := e.loaded.Load(), other.loaded.Load(); mine != its {
		return !mine
	}
	return e.used < other.used
}

// hold keeps a room in memory. The caller holds e.mu.
func (e *entry) hold(room *hub.Room) {
	e.room = room
	e.loaded.Store(room != nil)
}

// fresh makes the room in memory what the store has. The caller holds e.mu.
func (s *Service) fresh(ctx context.Context, e *entry) error {
	if e.queue.stale() {
		e.forget()
	}
	if e.room != nil {
		return nil
	}
	return s.db.Read(ctx, func(tx *sqldb.Tx) error { return s.load(ctx, tx, e) })
}

func (s *Service) load(ctx context.Context, tx *sqldb.Tx, e *entry) error {
	var row roomRow
	var id, lastTS, newest, closed int64
	err := tx.QueryRow(ctx, `SELECT r.id, r.version, r.head, r.last_ts, r.snapshot_seq, r.snapshot_ts, r.snapshot_len, r.log_len, r.log_commits, r.newest, r.closed
		FROM room r WHERE r.uri = ? AND r.hub = ''`, e.uri.String()).
		Scan(&id, &row.version, &row.head, &lastTS, &row.snapshotSeq, &row.snapshotTS, &row.snapshotLen, &row.logLen, &row.logN, &newest, &closed)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && closed != 0:
		return ErrNoRoom
	case err != nil:
		return err
	}
	st := hub.Stored{At: uint64(row.snapshotTS), Newest: uint64(newest)}
	if st.Group, err = readSnapshot(ctx, tx, id); err != nil {
		return fmt.Errorf("snapshot of %s: %w", e.uri, err)
	}
	if st.Members, err = readMembers(ctx, tx, id); err != nil {
		return err
	}
	if st.Events, err = readHandshakes(ctx, tx, id, row.snapshotSeq); err != nil {
		return err
	}
	trees, err := readChain(ctx, tx, id)
	if err != nil {
		return err
	}
	st.Marked = trees.epoch
	room, err := hub.Load(ctx, &s.hub, e.uri, &st)
	if err != nil {
		return err
	}
	if err := room.Advance(ctx, uint64(lastTS), nil, nil); err != nil {
		return err
	}
	e.hold(room)
	e.id, e.row, e.trees, e.deaf = id, row, trees, deafUsers(room, s.cfg.Domain)
	return nil
}

func readHandshakes(ctx context.Context, tx *sqldb.Tx, room, after int64) (events []hub.Event, err error) {
	rows, err := tx.Query(ctx, `SELECT kind, ts, epoch, body, partial FROM event WHERE room = ? AND seq > ? AND kind IN (2, 3) ORDER BY seq`, room, after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e hub.Event
		var ts, epoch int64
		if err := rows.Scan(&e.Kind, &ts, &epoch, &e.Fanout, &e.Partial); err != nil {
			return nil, err
		}
		e.Timestamp, e.Epoch = uint64(ts), uint64(epoch)
		events = append(events, e)
	}
	return events, rows.Err()
}

// deafUsers are the users of ours with clients in the room who may not receive
// messages by their role.
func deafUsers(room *hub.Room, domain string) map[mimi.URI]bool {
	deaf := make(map[mimi.URI]bool)
	known := make(map[mimi.URI]bool)
	for _, m := range room.Members() {
		if m.Client.Host() != domain || known[m.User] {
			continue
		}
		known[m.User] = true
		if !room.Receives(m.User) {
			deaf[m.User] = true
		}
	}
	return deaf
}

// forget drops the room from memory, because it may be ahead of the store. The
// caller holds e.mu.
func (e *entry) forget() { e.hold(nil) }
