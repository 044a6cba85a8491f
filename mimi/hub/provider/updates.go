package provider

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/policy"
)

// A snapshot is due when the handshakes since the last one are half as long as
// it, so that snapshots cost a constant factor, and at the latest after
// maxLogged commits, so that loading a room takes bounded time.
const (
	minLog    = 64 << 10
	maxLogged = 256
)

// current brings the room in memory to where the store is. On SQLite nobody
// else writes, so it is there already. The caller holds e.mu and has drained
// the queue.
func (s *Service) current(ctx context.Context, e *entry) error {
	if err := s.fresh(ctx, e); err != nil || s.db.Dialect() == sqldb.SQLite {
		return err
	}
	return s.db.Read(ctx, func(tx *sqldb.Tx) error {
		var version, head, last, closed int64
		err := tx.QueryRow(ctx, `SELECT version, head, last_ts, closed FROM room WHERE id = ?`, e.id).Scan(&version, &head, &last, &closed)
		switch {
		case errors.Is(err, sql.ErrNoRows) || err == nil && closed != 0:
			e.forget()
			return ErrNoRoom
		case err != nil:
			return err
		case version == e.row.version:
			return e.room.Advance(ctx, uint64(last), nil, nil)
		}
		return s.load(ctx, tx, e)
	})
}

// decideAlone runs f on an up-to-date room while nothing else happens in it.
func (s *Service) decideAlone(ctx context.Context, uri mimi.URI, f func(*entry) error) error {
	e, err := s.room(ctx, uri)
	if err != nil {
		return err
	}
	for range retries {
		if err = s.decideOnce(ctx, e, f); !errors.Is(err, hub.ErrStale) {
			return err
		}
	}
	return err
}

func (s *Service) decideOnce(ctx context.Context, e *entry, f func(*entry) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queue.drain()
	if err := s.current(ctx, e); err != nil {
		return err
	}
	err := f(e)
	if errors.Is(err, hub.ErrStale) {
		e.forget()
	}
	return err
}

// Update takes a HandshakeBundle for a room of ours.
func (s *Service) Update(ctx context.Context, from hub.From, room mimi.URI, u *mimi.HandshakeBundle) (p *mimi.UpdateRoomResponse, err error) {
	hash := hashOf(u.ProposalOrCommit.Bytes()) // which names what comes with a commit, too
	if !u.IsCommit() {
		hash = hashOf(u.Marshal())
	}
	err = s.decideAlone(ctx, room, func(e *entry) error {
		p, err = s.update(ctx, e, from, u, hash)
		return err
	})
	return p, err
}

func (s *Service) update(ctx context.Context, e *entry, from hub.From, u *mimi.HandshakeBundle, hash []byte) (*mimi.UpdateRoomResponse, error) {
	if ts, body, err := s.repeated(ctx, e.id, hash); err != nil || body != nil {
		return &mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateSuccess, AcceptedTimestamp: ts}, err
	}
	var joinErr error
	var joiner mimi.URI
	fixed := e.room.FixedMembership()
	out, err := e.room.Update(ctx, from, u, func(client mimi.URI) *hub.Joining {
		joiner = client
		var j *hub.Joining
		j, joinErr = s.joining(ctx, e.id, client)
		return j
	})
	if err = errors.Join(err, joinErr); err != nil {
		e.forget() // it may have gone half of the way
		return nil, err
	}
	if len(out.Events) == 0 {
		return out.Response, nil
	}
	w := &updateWrite{e: e, out: out, hash: hash}
	if out.ByCode {
		w.code = &joiner
	}
	w.refix = fixed != e.room.FixedMembership()
	err = s.complete(ctx, w)
	if errors.Is(err, errFixedTwice) {
		return &mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateNotAllowed, ErrorDescription: err.Error()}, nil
	}
	return out.Response, err
}

// complete stores an accepted update and makes it known.
func (s *Service) complete(ctx context.Context, w *updateWrite) error {
	e := w.e
	s.hearing(w)
	s.snapshotIfDue(w)
	err := s.step("before the update is stored")
	if err == nil {
		// What was decided is stored even if the caller has gone.
		err = s.store(context.WithoutCancel(ctx), w)
	}
	if err != nil {
		e.forget()
		return err
	}
	e.row = w.row
	if w.tree != nil {
		e.trees = e.trees.with(w.tree, w.first)
		e.room.MarkTree()
	}
	s.announce(e.id)
	for _, ev := range w.out.Events {
		for _, a := range ev.To {
			s.wake.client(a.Client)
		}
	}
	for _, m := range w.out.Came {
		s.wake.client(m.Client)
	}
	s.departed(ctx, w)
	s.sendersChange(w)
	return s.step("after the update is stored")
}

// snapshotIfDue takes along what is to be stored of the room beside the update.
func (s *Service) snapshotIfDue(w *updateWrite) {
	r := &w.e.row
	if w.out.Events[0].Kind == hub.EventCommit && (r.logN >= maxLogged || r.logLen >= max(minLog, r.snapshotLen/2)) {
		w.snapshot = w.e.room.Snapshot()
	}
	if w.snapshot != nil || w.welcomes() {
		w.tree = w.e.nextTree()
	}
}

// hearing works out whose clients may not be sent messages any more, or may
// again. Who is silenced is known at once; what roles allow changes only with a
// commit that touches roles.
func (s *Service) hearing(w *updateWrite) {
	e := w.e
	before := e.deaf
	switch {
	case w.out.Roles:
		e.deaf = deafUsers(e.room, s.cfg.Domain)
	default:
		e.deaf = make(map[mimi.URI]bool, len(before))
		for u := range before {
			e.deaf[u] = true
		}
		for _, u := range slices.Concat(w.out.Silenced, w.out.Heard, usersOf(w.out.Came)) {
			delete(e.deaf, u)
			if !e.room.Receives(u) && u.Host() == s.cfg.Domain {
				e.deaf[u] = true
			}
		}
	}
	if maps.Equal(before, e.deaf) {
		return
	}
	for _, m := range e.room.Members() {
		if m.Client.Host() != s.cfg.Domain {
			continue
		}
		if e.deaf[m.User] && !before[m.User] {
			w.muted = append(w.muted, m.Client)
		} else if !e.deaf[m.User] && before[m.User] {
			w.unmuted = append(w.unmuted, m.Client)
		}
	}
}

func usersOf(members []hub.Member) (users []mimi.URI) {
	for _, m := range members {
		users = append(users, m.User)
	}
	return users
}

// deafProviders are the hosts of followers none of whose users may receive
// messages now.
func (e *entry) deafProviders() []string { return e.room.DeafProviders() }

// CreateRoom makes a room of ours for one of our clients.
func (s *Service) CreateRoom(ctx context.Context, from hub.From, q *clientapi.CreateRoomRequest) (*mimi.UpdateRoomResponse, error) {
	e, err := s.room(ctx, q.RoomID)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := s.fresh(ctx, e); !errors.Is(err, ErrNoRoom) {
		if err == nil {
			return s.created(ctx, e, q)
		}
		return nil, err
	}
	room, out, err := hub.Create(ctx, &s.hub, from, q.RoomID, q.GroupInfo, q.RatchetTree)
	if err != nil {
		return nil, err
	}
	if err := s.alone(ctx, room); err != nil {
		return nil, err
	}
	if err := s.storeNew(ctx, e, room, out, hashOf(q.Marshal())); err != nil {
		return nil, err
	}
	room.MarkTree()
	e.hold(room)
	e.deaf = deafUsers(room, s.cfg.Domain)
	for _, m := range out.Came {
		s.wake.client(m.Client)
	}
	return out.Response, nil
}

// created answers a request that repeats the one which made the room.
func (s *Service) created(ctx context.Context, e *entry, q *clientapi.CreateRoomRequest) (*mimi.UpdateRoomResponse, error) {
	ts, body, err := s.repeated(ctx, e.id, hashOf(q.Marshal()))
	if err != nil {
		return nil, err
	}
	if body == nil {
		return nil, ErrRoomExists
	}
	return &mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateSuccess, AcceptedTimestamp: ts}, nil
}

// kindCreated is the kind of the event that a room begins with. It goes to
// nobody, and keeps the hash of the request.
const kindCreated = 9

func (s *Service) storeNew(ctx context.Context, e *entry, room *hub.Room, out *hub.Outcome, hash []byte) error {
	var id, seq int64
	snapshot, tree := room.Snapshot(), &treeWrite{room.Tree(), true, room.Epoch()}
	at := int64(out.Response.AcceptedTimestamp)
	err := s.db.Batch(ctx, func(tx *sqldb.Tx) (err error) {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		if seq, err = advance(ctx, tx, 1); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `INSERT INTO room (uri, hub, group_id, epoch, version, last_ts, head, snapshot_seq, snapshot_ts, snapshot_len, log_len, log_commits, created, closed, fixed_set, parent, franking)
			VALUES (?, '', ?, ?, 1, ?, ?, ?, ?, ?, 0, 0, ?, 0, ?, ?, ?) ON CONFLICT (uri) DO NOTHING RETURNING id`,
			room.URI().String(), room.GroupID(), int64(room.Epoch()), at, seq, seq, at, len(snapshot), s.nowMS(), fixedSet(room), room.Parent().String(), frankingID(room.FrankingKey())).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrRoomExists
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO room_snapshot (room, data, tree) VALUES (?, ?, ?)`, id, snapshot, seq); err != nil {
			return err
		}
		if err := putTree(ctx, tx, id, seq, seq, tree); err != nil {
			return err
		}
		created := stored{Event: hub.Event{Kind: kindCreated, Timestamp: uint64(at), Epoch: room.Epoch(), Fanout: []byte{0}}, hash: hash}
		if err := s.putEvent(ctx, tx, id, seq, &created); err != nil {
			return err
		}
		if err := writeMembers(ctx, tx, id, out, room.Epoch(), at); err != nil {
			return err
		}
		return s.subscribe(ctx, tx, id, seq, seq, out)
	})
	if err != nil {
		return err
	}
	e.id, e.row = id, roomRow{version: 1, head: seq, snapshotSeq: seq, snapshotTS: at, snapshotLen: int64(len(snapshot))}
	e.trees = chain{}.with(tree, seq)
	return nil
}

func fixedSet(room *hub.Room) []byte {
	if !room.FixedMembership() {
		return nil
	}
	return room.ParticipantSet()
}

// alone refuses a second room of fixed membership for the same participants
// (draft-ietf-mimi-room-policy-03 section 5.3): it would be the same direct
// message.
func (s *Service) alone(ctx context.Context, room *hub.Room) error {
	if !room.FixedMembership() {
		return nil
	}
	return s.db.Read(ctx, func(tx *sqldb.Tx) error {
		if err := fixedOnce(ctx, tx, room.ParticipantSet()); err != nil {
			return fmt.Errorf("%w: %w", hub.ErrNotCreated, err)
		}
		return nil
	})
}

// errFixedTwice refuses to fix the membership of a room.
var errFixedTwice = errors.New("another room of fixed membership has these participants")

// fixedOnce refuses a set of participants that has its room.
func fixedOnce(ctx context.Context, tx *sqldb.Tx, set []byte) error {
	var n int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM room WHERE hub = '' AND closed = 0 AND fixed_set = ?`, set).Scan(&n)
	if err == nil && n > 0 {
		err = errFixedTwice
	}
	return err
}

// storeFixed notes the set of a room whose membership has been fixed, or is not
// any more.
func storeFixed(ctx context.Context, tx *sqldb.Tx, w *updateWrite) error {
	if !w.refix {
		return nil
	}
	set := fixedSet(w.e.room)
	if set != nil {
		if err := fixedOnce(ctx, tx, set); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `UPDATE room SET fixed_set = ? WHERE id = ?`, set, w.e.id)
	return err
}

// DestroyRoom ends a room of ours for good.
func (s *Service) DestroyRoom(ctx context.Context, from hub.From, room mimi.URI) error {
	return s.decideAlone(ctx, room, func(e *entry) error {
		if err := e.mayDo(from, policy.CanDestroyRoom); err != nil {
			return err
		}
		return s.end(ctx, e)
	})
}

// mayDo asks policy whether a client of ours has a capability in the room. One
// whose credential is suspended, or whose user is being removed, uses none.
func (e *entry) mayDo(from hub.From, c policy.Capability) error {
	m, ok := e.room.MemberOf(from.Client)
	if !ok {
		return ErrNoRoom
	}
	if m.Suspended {
		return hub.NotHeard(m.User)
	}
	if e.room.Silenced(m.User) {
		return clientapi.Problemf(clientapi.CodeRefused, "%s is being removed", m.User)
	}
	_, err := policy.Authorize(e.room.State(), &policy.Deed{Actor: policy.Actor{Sender: policy.Member, Leaf: m.Leaf}, Needs: []policy.Capability{c}})
	return err
}
