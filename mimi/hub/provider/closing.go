package provider

import (
	"context"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// end ends a room of ours, whose lock the caller holds. Followers are told by
// what the hub signs, which is the last that is delivered to them, and clients
// of ours by an event beside it.
func (s *Service) end(ctx context.Context, e *entry) error {
	out, err := e.room.Close(ctx)
	if err != nil {
		e.forget()
		return err
	}
	told := make(map[mimi.URI]bool)
	for _, m := range e.room.Members() {
		if m.Client.Host() == s.cfg.Domain {
			told[m.Client] = true
		}
	}
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		seq, err := advance(ctx, tx, 2)
		if err != nil {
			return err
		}
		err = tx.ExecOne(ctx, hub.ErrStale, `UPDATE room SET closed = ?, version = version + 1, head = ?, last_ts = ? WHERE id = ? AND version = ? AND last_ts < ?`,
			s.nowMS(), seq, int64(out.Events[0].Timestamp), e.id, e.row.version, int64(out.Events[0].Timestamp))
		if err != nil {
			return err
		}
		if err := s.putEvent(ctx, tx, e.id, seq, &stored{Event: out.Events[0]}); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE follower SET until_seq = ? WHERE room = ? AND until_seq IS NULL`, seq, e.id); err != nil {
			return err
		}
		if err := s.wakeFollowers(ctx, tx, e.id); err != nil {
			return err
		}
		return s.tellClosed(ctx, tx, e.id, seq, seq+1, told)
	})
	e.forget()
	if err != nil {
		return err
	}
	s.announce(e.id)
	for c := range told {
		s.wake.client(c)
	}
	list, err := s.dependants(ctx, `parent = ?`, e.uri.String())
	if err != nil {
		s.cfg.Log.Error("the rooms that depend on one could not be read; they are looked at later", "room", e.uri.String(), "err", err)
	}
	s.orphans.add(list...)
	return nil
}

// tellClosed tells clients of ours that a room is no more, and ends what they
// hear of it after last.
func (s *Service) tellClosed(ctx context.Context, tx *sqldb.Tx, room, last, seq int64, clients map[mimi.URI]bool) error {
	for c := range clients {
		if err := s.putDirect(ctx, tx, c, seq, clientapi.EventRoomClosed, room, 0, nil); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `UPDATE subscription SET until_seq = ? WHERE room = ? AND until_seq IS NULL`, last, room)
	return err
}

// closing reports whether a message says that the room is no more. Who said so is
// the hub of the room, as the connection has proved.
func closing(m *mimi.MLSMessage) bool {
	if m.WireFormat != mls.WirePublicMessage || m.ContentType != mls.ContentProposal {
		return false
	}
	p, err := mls.ParseMessage(m.Bytes())
	return err == nil && room.IsClosing(p.PublicMessage.Content.Sender, p.PublicMessage.Content.Proposal)
}

// closeFollowed ends a room of another hub: clients of ours are told, and hear
// nothing after last.
func (s *Service) closeFollowed(ctx context.Context, tx *sqldb.Tx, id, last int64) (told map[mimi.URI]bool, err error) {
	told = make(map[mimi.URI]bool)
	rows, err := tx.Query(ctx, `SELECT client FROM subscription WHERE room = ? AND until_seq IS NULL`, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var client string
		if err := rows.Scan(&client); err != nil {
			return nil, err
		}
		u, err := mimi.ParseURI(client)
		if err != nil {
			return nil, err
		}
		told[u] = true
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	if _, err := tx.Exec(ctx, `UPDATE room SET closed = ? WHERE id = ?`, s.nowMS(), id); err != nil {
		return nil, err
	}
	seq, err := advance(ctx, tx, 1)
	if err != nil {
		return nil, err
	}
	return told, s.tellClosed(ctx, tx, id, last, seq, told)
}

// unfollow ends a room of which its hub says that there is none.
func (s *Service) unfollow(ctx context.Context, uri mimi.URI) error {
	var told map[mimi.URI]bool
	err := s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		told = nil
		last, err := advance(ctx, tx, 0)
		if err != nil {
			return err
		}
		var id int64
		err = tx.QueryRow(ctx, `SELECT coalesce((SELECT id FROM room WHERE uri = ? AND hub <> '' AND closed = 0), 0)`, uri.String()).Scan(&id)
		if err != nil || id == 0 {
			return err
		}
		told, err = s.closeFollowed(ctx, tx, id, last-1) // advance returns the next number
		return err
	})
	for c := range told {
		s.wake.client(c)
	}
	return err
}
