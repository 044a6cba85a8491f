package client

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

// A Message is one message of a room as it came, with what this client has
// verified of it.
type Message struct {
	ID       content.MessageID
	Accepted time.Time
	Kind     string // message, reply, reaction, edit or delete
	Sender   mimi.URI
	Client   mimi.URI
	Level    identity.Level // of the sender's identity
	Issuer   string         // who stands behind it; empty if nobody does
	Epoch    uint64
	Content  *content.Message

	// NotFranked says why the hub's frank does not vouch for the message;
	// empty if it does.
	NotFranked string
	// Quarantine says why the sender's credential was in doubt; empty if it
	// was not.
	Quarantine string
	// Statuses are what others report of it, by user.
	Statuses map[mimi.URI]content.Status

	n        int64
	received *content.Received
	data     []byte // application_data
	frank    *mimi.Frank
	accepted uint64

	mayReplace sql.NullBool // another's message, when this one came
	mayRetopic sql.NullInt64
}

const messageColumns = `n, id, accepted, sender, client_uri, epoch, level, issuer, data, frank, franked, quarantine, kind, may_replace, may_retopic`

// scanMessage reads and opens one row.
func (s *store) scanMessage(row interface{ Scan(...any) error }, uri mimi.URI) (*Message, error) {
	m := new(Message)
	var id, sealed, frank []byte
	var accepted, epoch, level int64
	var sender, client string
	err := row.Scan(&m.n, &id, &accepted, &sender, &client, &epoch, &level, &m.Issuer, &sealed, &frank, &m.NotFranked, &m.Quarantine, &m.Kind, &m.mayReplace, &m.mayRetopic)
	if err != nil {
		return nil, err
	}
	if len(id) != len(m.ID) {
		return nil, fmt.Errorf("client: a message ID of %d octets in the state", len(id))
	}
	copy(m.ID[:], id)
	m.accepted, m.Accepted = uint64(accepted), time.UnixMilli(accepted)
	m.Epoch, m.Level = uint64(epoch), identity.Level(level)
	if m.Sender, err = mimi.ParseURI(sender); err != nil {
		return nil, err
	}
	if m.Client, err = mimi.ParseURI(client); err != nil {
		return nil, err
	}
	if frank != nil {
		if m.frank, err = mimi.ParseFrank(frank); err != nil {
			return nil, err
		}
	}
	if m.data, err = s.seal.open("message", id, sealed); err != nil {
		return nil, err
	}
	return m, m.decode(uri)
}

func (m *Message) decode(uri mimi.URI) error {
	framing, err := mls.ParseApplicationFraming(m.data)
	if err != nil {
		return err
	}
	if m.Content, err = content.Parse(framing.Content); err != nil {
		return err
	}
	m.received = &content.Received{Message: m.Content, ID: m.ID, Derived: content.Derived{
		SenderURI: m.Sender.String(), RoomURI: uri.String(), Accepted: m.Accepted,
	}}
	return nil
}

func (s *store) message(ctx context.Context, uri mimi.URI, id content.MessageID) (m *Message, err error) {
	err = mls.ErrNotFound
	each := s.each(ctx, `SELECT `+messageColumns+` FROM message WHERE room = ? AND id = ?`, []any{uri.String(), id[:]}, func(rows *sql.Rows) error {
		m, err = s.scanMessage(rows, uri)
		return err
	})
	if each != nil {
		return nil, each
	}
	return m, err
}

// messages lists those of a room whose accepted timestamp is after a time, in
// the order of their acceptance.
func (s *store) messages(ctx context.Context, uri mimi.URI, after uint64) (list []*Message, err error) {
	err = s.each(ctx, `SELECT `+messageColumns+` FROM message WHERE room = ? AND accepted > ? ORDER BY accepted, id`,
		[]any{uri.String(), int64(after)}, func(rows *sql.Rows) error {
			m, err := s.scanMessage(rows, uri)
			list = append(list, m)
			return err
		})
	if err != nil {
		return nil, err
	}
	return list, s.addStatuses(ctx, uri, list)
}

func (s *store) addStatuses(ctx context.Context, uri mimi.URI, list []*Message) error {
	byID := make(map[content.MessageID]*Message, len(list))
	for _, m := range list {
		byID[m.ID] = m
	}
	return s.each(ctx, `SELECT id, user_uri, status FROM status WHERE room = ?`, []any{uri.String()}, func(rows *sql.Rows) error {
		var id []byte
		var user string
		var status content.Status
		if err := rows.Scan(&id, &user, &status); err != nil {
			return err
		}
		if len(id) != content.MessageIDSize {
			return nil
		}
		m := byID[content.MessageID(id)]
		if m == nil {
			return nil
		}
		u, err := mimi.ParseURI(user)
		if m.Statuses == nil {
			m.Statuses = make(map[mimi.URI]content.Status)
		}
		m.Statuses[u] = status
		return err
	})
}

// Messages lists what was said in the room after a time, in the order in which
// the hub accepted it, each as it came: edits and reactions stand by
// themselves. Timeline folds them.
func (r *Room) Messages(ctx context.Context, after time.Time) ([]*Message, error) {
	return r.c.store.messages(ctx, r.uri, uint64(max(after.UnixMilli(), 0)))
}

// Timeline folds the room's messages into what a person should see.
func (r *Room) Timeline(ctx context.Context) (*content.Timeline, error) {
	return r.fold(ctx, func(m *Message) bool { return r.mightReplace(ctx, m) })
}

// retopicked is a Timeline that says which topics messages have; an empty one
// where nobody may have changed one. The caller may hold the room.
func (r *Room) retopicked(ctx context.Context) (*content.Timeline, error) {
	var n int
	err := r.c.store.one(ctx, `SELECT count(*) FROM (SELECT 1 FROM message WHERE room = ? AND may_retopic > 0 LIMIT 1)`, []any{r.uri.String()}, &n)
	if err != nil || n == 0 {
		return content.NewTimeline(), err
	}
	return r.fold(ctx, func(m *Message) bool { return m != nil && m.mayReplace.Bool })
}

func (r *Room) fold(ctx context.Context, mightReplace func(*Message) bool) (*content.Timeline, error) {
	list, err := r.c.store.messages(ctx, r.uri, 0)
	if err != nil {
		return nil, err
	}
	byID := make(map[content.MessageID]*Message, len(list))
	for _, m := range list {
		byID[m.ID] = m
	}
	t := content.NewTimeline()
	t.MayReplace = func(by, _ *content.Received) bool { return mightReplace(byID[by.ID]) }
	t.MayRetopic = func(by, of *content.Received) bool {
		bit := int64(othersTopics)
		if by.Derived.SenderURI == of.Derived.SenderURI {
			bit = ownTopics
		}
		m := byID[by.ID]
		return m != nil && m.mayRetopic.Int64&bit != 0
	}
	for _, m := range list {
		if err := t.Add(m.received); err != nil {
			r.c.log.Debug("a message is not shown", "room", r.uri, "id", fmt.Sprintf("%x", m.ID), "err", err)
		}
	}
	return t, nil
}

// mightReplace reports whether the sender of m, which replaces another's message,
// might do that when m came; by its present role, where that was not noted.
func (r *Room) mightReplace(ctx context.Context, m *Message) bool {
	if m == nil || m.mayReplace.Valid {
		return m != nil && m.mayReplace.Bool
	}
	if err := r.lock(ctx); err != nil {
		return false
	}
	defer r.mu.Unlock()
	return r.load(ctx) == nil && r.mayReplace(m.Sender, m.Content)
}

// Message returns one message.
func (r *Room) Message(ctx context.Context, id content.MessageID) (*Message, error) {
	return r.c.store.message(ctx, r.uri, id)
}

// A Refused is something that came and could not be taken in.
type Refused struct {
	Room   mimi.URI // zero for what is of no room
	At     time.Time
	Reason string
}

// Refused lists what could not be taken in, the newest last; the newest thousand
// are kept.
func (c *Client) Refused(ctx context.Context) (list []Refused, err error) {
	err = c.store.each(ctx, `SELECT room, at, reason FROM refused ORDER BY n`, nil, func(rows *sql.Rows) error {
		var room string
		var at int64
		var f Refused
		if err := rows.Scan(&room, &at, &f.Reason); err != nil {
			return err
		}
		f.At = time.UnixMilli(at)
		list = append(list, f)
		return list[len(list)-1].Room.UnmarshalText([]byte(room))
	})
	return list, err
}
