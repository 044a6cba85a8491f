package provider

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mls"
)

// Notify takes what another hub tells of a room (section 5.5). A body that
// came before is taken as done.
func (s *Service) Notify(ctx context.Context, domain string, room mimi.URI, body []byte) error {
	if room.Host() != domain {
		return fmt.Errorf("%w: the hub of %s is not %s", hub.ErrForeign, room, domain)
	}
	f, err := mimi.ParseFanout(body)
	if err != nil {
		return fmt.Errorf("%w: %w", hub.ErrMalformed, err)
	}
	if err := checkFanout(f); err != nil {
		return err
	}
	n := &notification{room: room, fanout: f, hash: notifyHash(domain, room, body)}
	if err := s.db.Batch(ctx, func(tx *sqldb.Tx) error { return s.take1(context.WithoutCancel(ctx), tx, n) }); err != nil {
		return err
	}
	s.announce(n.id)
	for _, c := range n.welcomed {
		s.wake.client(c)
	}
	return nil
}

// A notification on its way to the store.
type notification struct {
	room     mimi.URI
	fanout   mimi.Fanout
	hash     []byte
	id       int64
	welcomed []mimi.URI // and those who are told that the room is closed
}

// notifyHash is what a repeated body is known by (hub, path and body).
func notifyHash(domain string, room mimi.URI, body []byte) []byte {
	b := tlsvec.NewBuilder(len(body) + 256)
	b.String("notify")
	b.String(domain)
	b.String(room.String())
	b.Raw(body)
	h := sha256.Sum256(b.Bytes())
	return h[:]
}

// checkFanout checks what a follower can see: all of one body is of one group,
// and in the order of the hub's timestamps. A Welcome has its commit's.
func checkFanout(f mimi.Fanout) error {
	var last uint64
	for i, m := range f {
		if m.Timestamp < last {
			return fmt.Errorf("%w: message %d is older than the one before it", hub.ErrMalformed, i)
		}
		last = m.Timestamp
		if m.Message.WireFormat == mls.WirePrivateMessage && m.Message.ContentType != mls.ContentApplication {
			return fmt.Errorf("%w: message %d is a handshake in a PrivateMessage", hub.ErrMalformed, i)
		}
	}
	return nil
}

func (s *Service) take1(ctx context.Context, tx *sqldb.Tx, n *notification) error {
	n.welcomed = nil
	fresh, err := s.once(ctx, tx, n.hash)
	if err != nil || !fresh {
		return err
	}
	first, err := advance(ctx, tx, len(n.fanout))
	if err != nil {
		return err
	}
	if n.id, err = s.notified(ctx, tx, n); err != nil {
		return err
	}
	var lastTS, epoch int64
	if err := tx.QueryRow(ctx, `SELECT last_ts, epoch FROM room WHERE id = ?`+tx.ForUpdate(), n.id).Scan(&lastTS, &epoch); err != nil {
		return err
	}
	for i, m := range n.fanout {
		if err := s.takeOneFanout(ctx, tx, n, m, first+int64(i), &lastTS, &epoch); err != nil {
			return err
		}
		if !closing(m.Message) {
			continue
		}
		told, err := s.closeFollowed(ctx, tx, n.id, first+int64(i))
		if err != nil {
			return err
		}
		n.welcomed = append(n.welcomed, slices.Collect(maps.Keys(told))...)
		break
	}
	_, err = tx.Exec(ctx, `UPDATE room SET last_ts = ?, epoch = ?, head = ?, group_id = CASE WHEN length(group_id) = 0 THEN ? ELSE group_id END WHERE id = ?`,
		lastTS, epoch, first+int64(len(n.fanout))-1, groupOf(n.fanout), n.id)
	return err
}

// groupOf is the group of a notification; empty if only a Welcome is in it.
func groupOf(f mimi.Fanout) []byte {
	for _, m := range f {
		if len(m.Message.GroupID) > 0 {
			return m.Message.GroupID
		}
	}
	return []byte{}
}

// notified returns the room of a notification. An unknown one is made if a
// Welcome for a client of ours is in it.
func (s *Service) notified(ctx context.Context, tx *sqldb.Tx, n *notification) (int64, error) {
	var id int64
	var closed int64
	err := tx.QueryRow(ctx, `SELECT coalesce((SELECT id FROM room WHERE uri = ? AND hub = ?), 0), coalesce((SELECT closed FROM room WHERE uri = ? AND hub = ?), 0)`,
		n.room.String(), n.room.Host(), n.room.String(), n.room.Host()).Scan(&id, &closed)
	if err == nil && closed != 0 {
		err = ErrNoRoom
	}
	if err != nil || id != 0 {
		return id, err
	}
	for _, m := range n.fanout {
		if m.Message.WireFormat != mls.WireWelcome {
			continue
		}
		clients, err := welcomedClients(ctx, tx, m.Message)
		if err != nil {
			return 0, err
		}
		if len(clients) > 0 {
			return s.followed(ctx, tx, n.room)
		}
	}
	return 0, ErrNoRoom
}

// welcomedClients are the clients of ours whose KeyPackages a Welcome names.
func welcomedClients(ctx context.Context, tx *sqldb.Tx, m *mimi.MLSMessage) (clients []mimi.URI, err error) {
	w, err := mls.ParseWelcome(m.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hub.ErrMalformed, err)
	}
	for _, secret := range w.Secrets {
		var client string
		err := tx.QueryRow(ctx, `SELECT coalesce((SELECT client FROM key_package WHERE ref = ?), '')`, secret.NewMember).Scan(&client)
		if err != nil {
			return nil, err
		}
		if client == "" {
			continue
		}
		u, err := mimi.ParseURI(client)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(clients, u) {
			clients = append(clients, u)
		}
	}
	return clients, nil
}

// takeOneFanout stores one message. One that is not newer than what the room
// has was delivered before, in another body.
func (s *Service) takeOneFanout(ctx context.Context, tx *sqldb.Tx, n *notification, m *mimi.FanoutMessage, seq int64, lastTS, epoch *int64) error {
	e := &stored{Event: hub.Event{Kind: kindOf(m), Timestamp: m.Timestamp, Epoch: m.Message.Epoch, Fanout: mimi.Fanout{m}.Marshal()}}
	e.hash = hashOf(e.Fanout) // with the tree, if it has one
	var known int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM event WHERE room = ? AND hash = ?`, n.id, e.hash).Scan(&known); err != nil {
		return err
	}
	if known > 0 {
		return nil
	}
	if int64(m.Timestamp) < *lastTS || int64(m.Timestamp) == *lastTS && e.Kind != hub.EventWelcome {
		return fmt.Errorf("%w: a message at %d came after one at %d", hub.ErrMalformed, m.Timestamp, *lastTS)
	}
	follows := int64(m.Timestamp) == *lastTS // a Welcome comes after its commit, if that is for us too
	*lastTS = int64(m.Timestamp)
	if err := keepTree(ctx, tx, n.id, seq, m, e); err != nil {
		return err
	}
	if err := s.putEvent(ctx, tx, n.id, seq, e); err != nil {
		return err
	}
	switch e.Kind {
	case hub.EventCommit:
		*epoch = max(*epoch, int64(m.Message.Epoch)+1)
		return s.followCommit(ctx, tx, n.id, m)
	case hub.EventWelcome:
		if err := s.takeWelcome(ctx, tx, n, m, seq); err != nil {
			return err
		}
		w, err := mls.ParseWelcome(m.Message.Bytes())
		if err != nil {
			return err
		}
		begun := int64(-1)
		if follows {
			begun = *epoch
		}
		return s.followTree(ctx, tx, n.id, m, w, begun, *epoch)
	}
	return nil
}

func kindOf(m *mimi.FanoutMessage) hub.EventKind {
	switch {
	case m.Message.WireFormat == mls.WireWelcome:
		return hub.EventWelcome
	case m.Message.ContentType == mls.ContentCommit:
		return hub.EventCommit
	case m.Message.ContentType == mls.ContentProposal:
		return hub.EventProposal
	}
	return hub.EventMessage
}

func (s *Service) takeWelcome(ctx context.Context, tx *sqldb.Tx, n *notification, m *mimi.FanoutMessage, seq int64) error {
	clients, err := welcomedClients(ctx, tx, m.Message)
	if err != nil {
		return err
	}
	// With nobody there is nothing to do: the KeyPackage was of a client that has
	// gone, or was replaced. To refuse it would hold up what comes after it.
	for _, c := range clients {
		if err := hear(ctx, tx, c, n.id, seq); err != nil {
			return err
		}
		if err := s.putDirect(ctx, tx, c, seq, clientapi.EventFanout, n.id, seq, nil); err != nil {
			return err
		}
	}
	n.welcomed = append(n.welcomed, clients...)
	return nil
}
