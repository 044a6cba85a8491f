package provider

import (
	"context"
	"errors"
	"sync"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/policy"
)

// A parent answers for the participants of a room on which another depends, as
// they are when it is asked: without the parent's lock, so that a parent that
// changes at the same moment may let one more or one less in, as it would if
// the two requests had come in the other order.
type parent struct {
	s   *Service
	uri mimi.URI
}

func (s *Service) parent(uri mimi.URI) policy.Parent { return &parent{s, uri} }

// Has reports nobody if the room cannot be read: then nobody comes in.
func (p *parent) Has(u mimi.URI) bool {
	list, err := p.s.participantsOf(context.Background(), p.uri)
	return err == nil && list.users[u]
}

func (p *parent) Len() int {
	list, err := p.s.participantsOf(context.Background(), p.uri)
	if err != nil {
		return 0
	}
	return len(list.users)
}

// participants are those of a room who are not banned.
type participants struct {
	version int64
	users   map[mimi.URI]bool
}

// participantsOf returns the participants of a room of ours as the store has
// them.
func (s *Service) participantsOf(ctx context.Context, uri mimi.URI) (*participants, error) {
	s.mu.Lock()
	known := s.parents[uri]
	s.mu.Unlock()
	now := new(participants)
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		var version int64
		err := tx.QueryRow(ctx, `SELECT coalesce((SELECT version FROM room WHERE uri = ? AND hub = '' AND closed = 0), 0)`, uri.String()).Scan(&version)
		switch {
		case err != nil:
			return err
		case version == 0:
			return ErrNoRoom
		case known != nil && known.version == version:
			*now = *known
			return nil
		}
		e := &entry{uri: uri}
		if err := s.load(ctx, tx, e); err != nil {
			return err
		}
		now.version, now.users = e.row.version, make(map[mimi.URI]bool)
		for _, q := range e.room.State().ParticipantList().Participants {
			if q.Role > mimi.RoleBanned {
				now.users[q.User] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parents) >= s.cfg.MaxRooms {
		clear(s.parents)
	}
	s.parents[uri] = now
	return now, nil
}

// A roomSet is rooms that are to be looked at.
type roomSet struct {
	mu    sync.Mutex // guards rooms
	rooms map[mimi.URI]bool
	ready chan struct{}
}

func newRoomSet() roomSet {
	return roomSet{rooms: make(map[mimi.URI]bool), ready: make(chan struct{}, 1)}
}

func (o *roomSet) add(rooms ...mimi.URI) {
	if len(rooms) == 0 {
		return
	}
	o.mu.Lock()
	for _, u := range rooms {
		o.rooms[u] = true
	}
	o.mu.Unlock()
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

func (o *roomSet) take() (rooms []mimi.URI) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for u := range o.rooms {
		rooms = append(rooms, u)
	}
	clear(o.rooms)
	return rooms
}

// departed has the rooms looked at that depend on one from which somebody went,
// and that room itself if it depends on another.
func (s *Service) departed(ctx context.Context, w *updateWrite) {
	uri := w.e.uri
	if w.out.Events[0].Kind == hub.EventCommit && !w.e.room.Parent().IsZero() {
		s.orphans.add(uri)
	}
	if len(w.out.Departed) == 0 {
		return
	}
	list, err := s.dependants(context.WithoutCancel(ctx), `parent = ?`, uri.String())
	if err != nil {
		s.cfg.Log.Error("the rooms that depend on one could not be read; they are looked at later", "room", uri.String(), "err", err)
	}
	s.orphans.add(list...)
}

// dependants lists rooms of ours that depend on others.
func (s *Service) dependants(ctx context.Context, where string, args ...any) ([]mimi.URI, error) {
	return s.roomsOfQuery(ctx, `SELECT uri FROM room WHERE parent <> '' AND closed = 0 AND `+where, args...)
}

// followParents takes out of rooms who is not in their parents any more, until
// ctx ends.
func (s *Service) followParents(ctx context.Context) {
	for {
		select {
		case <-s.orphans.ready:
		case <-ctx.Done():
			return
		}
		for _, u := range s.orphans.take() {
			if err := s.prune(ctx, u); err != nil && !errors.Is(err, ErrNoRoom) && ctx.Err() == nil {
				s.cfg.Log.Error("who is not in the parent room any more could not be removed; it is tried again", "room", u.String(), "err", err)
			}
		}
	}
}

// prune proposes to remove from a room who is not in its parent. A room whose
// parent is no more ends.
func (s *Service) prune(ctx context.Context, room mimi.URI) error {
	return s.decideAlone(ctx, room, func(e *entry) error {
		uri := e.room.Parent()
		if uri.IsZero() {
			return nil
		}
		in, err := s.participantsOf(ctx, uri)
		if errors.Is(err, ErrNoRoom) {
			return s.end(ctx, e)
		}
		if err != nil {
			return err
		}
		var out []mimi.URI
		for _, p := range e.room.State().ParticipantList().Participants {
			if p.Role > mimi.RoleBanned && !in.users[p.User] {
				out = append(out, p.User)
			}
		}
		o, err := e.room.ProposeLeave(ctx, out)
		if err != nil {
			e.forget()
			return err
		}
		if len(o.Events) == 0 {
			return nil
		}
		return s.complete(ctx, &updateWrite{e: e, out: o})
	})
}
