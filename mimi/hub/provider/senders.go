package provider

import (
	"context"
	"errors"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// A provider that a room lists in external_senders goes from there when its last
// participant leaves, and is listed again when one comes back. What it was listed
// with is kept in the table sender from the commit in which it left on.

// storeSenders keeps the entries of providers whose last participant went with a
// commit.
func (s *Service) storeSenders(ctx context.Context, tx *sqldb.Tx, w *updateWrite) error {
	for host, list := range w.e.room.Departed(w.out.Departed) {
		_, err := tx.Exec(ctx, `INSERT INTO sender (room, provider, entries) VALUES (?, ?, ?) ON CONFLICT (room, provider) DO UPDATE SET entries = excluded.entries`,
			w.e.id, host, mls.ExternalSendersExtension(list...).Data)
		if err != nil {
			return err
		}
	}
	return nil
}

// sendersChange has the external senders of a room looked at after a commit with
// which somebody went or came, or which changed them.
func (s *Service) sendersChange(w *updateWrite) {
	if w.out.Events[0].Kind == hub.EventCommit && (w.out.Extended || len(w.out.Came) > 0 || len(w.e.room.Departed(w.out.Departed)) > 0) {
		s.listing.add(w.e.uri)
	}
}

// delisted lists the rooms of which a provider has gone.
func (s *Service) delisted(ctx context.Context) ([]mimi.URI, error) {
	return s.roomsOfQuery(ctx, `SELECT DISTINCT r.uri FROM sender s JOIN room r ON r.id = s.room WHERE r.closed = 0`)
}

// followSenders keeps the external senders of rooms in step with the
// participants, until ctx ends.
func (s *Service) followSenders(ctx context.Context) {
	for {
		select {
		case <-s.listing.ready:
		case <-ctx.Done():
			return
		}
		for _, u := range s.listing.take() {
			if err := s.relist(ctx, u); err != nil && !errors.Is(err, ErrNoRoom) && ctx.Err() == nil {
				s.cfg.Log.Error("the external senders of a room could not be brought up to date; it is tried again", "room", u.String(), "err", err)
			}
		}
	}
}

// relist proposes the external senders that fit a room's participants. What an
// external commit cuts off of that is proposed again, since somebody came with it.
func (s *Service) relist(ctx context.Context, room mimi.URI) error {
	return s.decideAlone(ctx, room, func(e *entry) error {
		kept, err := s.keptSenders(ctx, e.id)
		if err != nil || len(kept) == 0 {
			return err
		}
		listed := e.room.Senders()
		var gone, settled []string
		var back []mls.ExternalSender
		for host, entries := range kept {
			switch in, is := e.room.From(host), len(listed[host]) > 0; {
			case is && !in:
				gone = append(gone, host)
			case in && !is:
				back = append(back, entries...)
			case in && is:
				settled = append(settled, host)
			}
		}
		if err := s.settleSenders(ctx, e.id, settled); err != nil {
			return err
		}
		out, err := e.room.ProposeSenders(ctx, gone, back)
		if err != nil {
			e.forget()
			if refusal := new(policy.Refusal); errors.As(err, &refusal) {
				return nil // the room takes no external proposals, so nobody acts by the entry
			}
			return err
		}
		if len(out.Events) == 0 {
			return nil
		}
		return s.complete(ctx, &updateWrite{e: e, out: out})
	})
}

func (s *Service) keptSenders(ctx context.Context, room int64) (kept map[string][]mls.ExternalSender, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		kept = make(map[string][]mls.ExternalSender)
		rows, err := tx.Query(ctx, `SELECT provider, entries FROM sender WHERE room = ?`, room)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var host string
			var data []byte
			if err := rows.Scan(&host, &data); err != nil {
				return err
			}
			if kept[host], err = (mls.Extensions{{Type: mls.ExtensionExternalSenders, Data: data}}).ExternalSenders(); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	return kept, err
}

// settleSenders forgets the entries of providers that are listed again.
func (s *Service) settleSenders(ctx context.Context, room int64, hosts []string) error {
	if len(hosts) == 0 {
		return nil
	}
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		for _, host := range hosts {
			if _, err := tx.Exec(ctx, `DELETE FROM sender WHERE room = ? AND provider = ?`, room, host); err != nil {
				return err
			}
		}
		return nil
	})
}

// roomsOfQuery lists the rooms whose URIs a query returns.
func (s *Service) roomsOfQuery(ctx context.Context, query string, args ...any) (list []mimi.URI, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		list = nil
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var raw string
			if err := rows.Scan(&raw); err != nil {
				return err
			}
			u, err := mimi.ParseURI(raw)
			if err != nil {
				return err
			}
			list = append(list, u)
		}
		return rows.Err()
	})
	return list, err
}
