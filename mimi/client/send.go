package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A Sent is a message of this client that the hub accepted.
type Sent struct {
	ID       content.MessageID
	Accepted time.Time
	// NotFranked says why the hub's frank does not verify; empty if it does.
	NotFranked string
}

// ErrNotAllowed is returned for a message that the hub refuses.
var ErrNotAllowed = errors.New("client: the hub does not accept messages of this user in the room")

// An outgoing message is stored until its fate is known.
type outgoing struct {
	n          int64
	id         content.MessageID
	data       []byte // application_data
	ciphertext []byte
	epoch      uint64
	status     bool // a status report, which nobody files
}

// Text sends a text in Markdown.
func (r *Room) Text(ctx context.Context, text string) (*Sent, error) {
	return r.Send(ctx, &content.Message{Body: textPart(text)})
}

const markdown = "text/markdown;variant=GFM-MIMI"

func textPart(text string) content.NestedPart {
	return content.NestedPart{Disposition: content.Render, Content: &content.SinglePart{ContentType: markdown, Content: []byte(text)}}
}

// Reply answers a message with a text.
func (r *Room) Reply(ctx context.Context, to content.MessageID, text string) (*Sent, error) {
	return r.Send(ctx, &content.Message{InReplyTo: &to, Body: textPart(text)})
}

// React puts a reaction, such as an emoji, to a message.
func (r *Room) React(ctx context.Context, to content.MessageID, reaction string) (*Sent, error) {
	return r.Send(ctx, &content.Message{InReplyTo: &to, Body: content.NestedPart{
		Disposition: content.Reaction, Content: &content.SinglePart{ContentType: "text/plain;charset=utf-8", Content: []byte(reaction)},
	}})
}

// Edit replaces the text of a message. first is the ID of its first version.
func (r *Room) Edit(ctx context.Context, first content.MessageID, text string) (*Sent, error) {
	return r.replace(ctx, first, textPart(text))
}

// Delete takes a message or a reaction back. first is the ID of its first
// version. Others who have read it have read it.
func (r *Room) Delete(ctx context.Context, first content.MessageID) (*Sent, error) {
	return r.replace(ctx, first, content.NestedPart{Content: content.NullPart{}})
}

// Retopic puts a message under another topic, or under none, and leaves what it
// says. first is the ID of its first version.
func (r *Room) Retopic(ctx context.Context, first content.MessageID, topic []byte) (*Sent, error) {
	t, err := r.Timeline(ctx)
	if err != nil {
		return nil, err
	}
	e := t.Entry(first)
	if e == nil || e.Deleted() {
		return nil, fmt.Errorf("client: message %s: %w", first, mls.ErrNotFound)
	}
	return r.Send(ctx, &content.Message{
		Replaces: &e.First.ID, TopicID: topic, Expires: e.First.Message.Expires, InReplyTo: e.First.Message.InReplyTo, Body: e.Current().Message.Body,
	})
}

func (r *Room) replace(ctx context.Context, first content.MessageID, body content.NestedPart) (*Sent, error) {
	old, err := r.Message(ctx, first)
	if err != nil {
		return nil, fmt.Errorf("client: message %s: %w", first, err)
	}
	m := &content.Message{Replaces: &first, TopicID: old.Content.TopicID, Expires: old.Content.Expires, InReplyTo: old.Content.InReplyTo, Body: body}
	t, err := r.retopicked(ctx)
	if err != nil {
		return nil, err
	}
	if e := t.Entry(first); e != nil {
		m.TopicID = e.TopicID()
	}
	if old.Content.Body.Disposition == content.Reaction {
		m.Body.Disposition = content.Reaction
	}
	return r.Send(ctx, m)
}

// Send sends a message. Its salt and the names of sender and room are filled
// in. If proposals wait in the room, they are committed first, as MLS asks.
func (r *Room) Send(ctx context.Context, m *content.Message) (*Sent, error) {
	whole := *m
	rand.Read(whole.Salt[:])
	whole.Extensions = content.NewExtensions(r.c.User().String(), r.uri.String())
	for key, value := range m.Extensions {
		whole.Extensions[key] = value
	}
	encoded, err := whole.Encode()
	if err != nil {
		return nil, err
	}
	id, err := content.ComputeID(r.c.User().String(), r.uri.String(), encoded, whole.Salt)
	if err != nil {
		return nil, err
	}
	framing := &mls.ApplicationFraming{Content: encoded}
	return r.deliver(ctx, &outgoing{id: id, data: framing.Bytes()}, &whole)
}

// maxSendTries bounds how often a message is encrypted anew because its epoch
// was over.
const maxSendTries = 20

// deliver has the hub accept a message, encrypting it anew where others began
// new epochs meanwhile.
func (r *Room) deliver(ctx context.Context, o *outgoing, m *content.Message) (*Sent, error) {
	for range maxSendTries {
		if err := r.commitPending(ctx); err != nil {
			return nil, err
		}
		sent, epoch, err := r.trySend(ctx, o, m)
		if err != nil || sent != nil {
			return sent, err
		}
		if err := r.catchUp(ctx, epoch); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("client: %s: the epoch was over %d times before the message was sent", r.uri, maxSendTries)
}

// trySend encrypts, stores and submits a message. It returns neither result
// nor error if the message must be encrypted in another epoch.
func (r *Room) trySend(ctx context.Context, o *outgoing, m *content.Message) (*Sent, uint64, error) {
	if err := r.lock(ctx); err != nil {
		return nil, 0, err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return nil, 0, err
	}
	if len(r.group.PendingProposals()) > 0 {
		return nil, r.group.Epoch(), nil // one came just now
	}
	if err := r.mayWrite(ctx, m); err != nil {
		return nil, 0, err
	}
	if err := r.encrypt(ctx, o, m); err != nil {
		r.drop()
		return nil, 0, err
	}
	return r.submit(ctx, o)
}

// mayWrite judges a message as its receivers will. A status report is no
// message for policy.
func (r *Room) mayWrite(ctx context.Context, m *content.Message) error {
	if r.status == RoomLeaving {
		return ErrLeaving
	}
	for member := range r.group.Members() {
		v, err := r.c.verdicts.in(r.uri).of(ctx, member.Node)
		if err != nil {
			return err
		}
		why := v.Quarantine
		if why == "" {
			why = r.onlyAsserted(ctx, v)
		}
		if why != "" && v.Identity.Client != r.c.URI() {
			return fmt.Errorf("%w: %s: %s", ErrQuarantined, v.Identity.Client, why)
		}
	}
	var needs []policy.Capability
	if m != nil {
		var err error
		if needs, err = r.messageNeeds(ctx, m, r.c.User()); err != nil {
			return err
		}
	}
	_, err := policy.Authorize(r.state, &policy.Message{Sender: r.c.User(), Needs: needs})
	return err
}

// encrypt makes the octets to send and stores them before they are sent.
func (r *Room) encrypt(ctx context.Context, o *outgoing, m *content.Message) error {
	var aad []byte
	if m != nil {
		tag := mimi.ComputeFrankingTag(m.Salt, o.data)
		items, err := mls.NewSafeAAD(mls.SafeAADItem{ID: room.ComponentFrankAAD, Data: tag[:]})
		if err != nil {
			return err
		}
		aad = items.Bytes()
	}
	raw, err := r.group.Send(ctx, o.data, aad)
	if err != nil {
		return err
	}
	o.ciphertext, o.epoch = raw, r.group.Epoch()
	return r.c.store.putOutgoing(ctx, r.uri, o, r.c.now())
}

func (s *store) putOutgoing(ctx context.Context, uri mimi.URI, o *outgoing, now time.Time) error {
	hash := sha256.Sum256(o.ciphertext)
	return s.write(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO outbox (room, id, data, ciphertext, hash, epoch, made) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (room, id) DO UPDATE SET ciphertext = excluded.ciphertext, hash = excluded.hash, epoch = excluded.epoch RETURNING n`,
			uri.String(), o.id[:], s.seal.seal("outbox", o.id[:], o.data), o.ciphertext, hash[:], int64(o.epoch), now.UnixMilli()).Scan(&o.n)
	})
}

// submit sends the stored octets and does what the answer says. They can be
// sent again: the hub gives the same answer, as long as it keeps the event.
func (r *Room) submit(ctx context.Context, o *outgoing) (*Sent, uint64, error) {
	msg, err := mimi.ParseMLSMessage(o.ciphertext)
	if err != nil {
		return nil, 0, err
	}
	q := &mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: msg, SendingURI: r.c.User()}
	answer, err := ask(ctx, r.c.provider, http.MethodPost, clientapi.MessagesPath(r.uri), q.Marshal(), mimi.ParseSubmitMessageResponse)
	switch {
	case err != nil && unknown(err):
		return nil, 0, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case err != nil:
		return nil, 0, errors.Join(err, r.giveUp(ctx, o))
	}
	switch answer.StatusCode {
	case mimi.SubmitAccepted:
		return r.accepted(ctx, o, answer)
	case mimi.SubmitEpochTooOld:
		return nil, max(answer.CurrentEpoch, 1), nil
	}
	return nil, 0, errors.Join(ErrNotAllowed, r.giveUp(ctx, o))
}

func (r *Room) accepted(ctx context.Context, o *outgoing, answer *mimi.SubmitMessageResponse) (*Sent, uint64, error) {
	err := r.step(ctx, func(ctx context.Context, u *unit) error {
		return r.sent(ctx, u, o, answer.AcceptedTimestamp, answer.Frank)
	})
	if err != nil {
		return nil, 0, err
	}
	s := &Sent{ID: o.id, Accepted: time.UnixMilli(int64(answer.AcceptedTimestamp))}
	if m, err := r.c.store.message(ctx, r.uri, o.id); err == nil {
		s.NotFranked = m.NotFranked
	}
	return s, 0, nil
}

// giveUp forgets a message that the hub will not accept.
func (r *Room) giveUp(ctx context.Context, o *outgoing) error {
	return r.c.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM outbox WHERE n = ?`, o.n)
		return err
	})
}

const outgoingColumns = `n, id, data, ciphertext, epoch`

func (s *store) scanOutgoing(rows *sql.Rows) (*outgoing, error) {
	o := new(outgoing)
	var id, sealed []byte
	var epoch int64
	if err := rows.Scan(&o.n, &id, &sealed, &o.ciphertext, &epoch); err != nil {
		return nil, err
	}
	if len(id) != len(o.id) {
		return nil, fmt.Errorf("client: a message ID of %d octets in the outbox", len(id))
	}
	copy(o.id[:], id)
	o.epoch = uint64(epoch)
	var err error
	o.data, err = s.seal.open("outbox", id, sealed)
	return o, err
}

// outgoing finds a message that was sent and not answered, by its hash.
func (s *store) outgoing(ctx context.Context, uri mimi.URI, hash []byte) (o *outgoing, err error) {
	err = mls.ErrNotFound
	each := s.each(ctx, `SELECT `+outgoingColumns+` FROM outbox WHERE room = ? AND hash = ?`, []any{uri.String(), hash}, func(rows *sql.Rows) error {
		o, err = s.scanOutgoing(rows)
		return err
	})
	return o, errors.Join(each, err)
}

// outbox lists what waits in a room to be sent, oldest first.
func (s *store) outbox(ctx context.Context, uri mimi.URI) (list []*outgoing, err error) {
	err = s.each(ctx, `SELECT `+outgoingColumns+` FROM outbox WHERE room = ? ORDER BY n`, []any{uri.String()}, func(rows *sql.Rows) error {
		o, err := s.scanOutgoing(rows)
		list = append(list, o)
		return err
	})
	return list, err
}

// flush sends again what a crash or a lost answer has left in the outbox.
func (r *Room) flush(ctx context.Context) error {
	list, err := r.c.store.outbox(ctx, r.uri)
	if err != nil {
		return err
	}
	for _, o := range list {
		if err := r.flushOne(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// resubmit sends stored octets again. It returns neither result nor error if the
// message must be encrypted in another epoch.
func (r *Room) resubmit(ctx context.Context, o *outgoing) (*Sent, error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	sent, _, err := r.submit(ctx, o)
	return sent, err
}

func (r *Room) flushOne(ctx context.Context, o *outgoing) error {
	sent, err := r.resubmit(ctx, o)
	if err != nil || sent != nil {
		return err
	}
	framing, err := mls.ParseApplicationFraming(o.data)
	if err != nil {
		return err
	}
	if framing.MediaType.Type == content.StatusMediaType {
		return r.giveUp(ctx, o) // a later report will say more
	}
	m, err := content.Parse(framing.Content)
	if err != nil {
		return err
	}
	_, err = r.deliver(ctx, o, m)
	return err
}

// Report tells the room what became of messages at this client, as the room's
// policy allows.
func (r *Room) Report(ctx context.Context, statuses []content.MessageStatus) error {
	body, err := content.EncodeStatusReport(statuses)
	if err != nil {
		return err
	}
	framing := &mls.ApplicationFraming{MediaType: mls.MediaType{Type: content.StatusMediaType}, Content: body}
	o := &outgoing{data: framing.Bytes(), status: true}
	rand.Read(o.id[:])
	_, err = r.deliver(ctx, o, nil)
	return err
}

// commitPending commits the proposals that wait, since application data may
// not be sent before.
func (r *Room) commitPending(ctx context.Context) error {
	_, err := r.commit(ctx, func(context.Context) (*intent, error) {
		if len(r.group.PendingProposals()) == 0 {
			return nil, nil
		}
		return &intent{}, nil
	})
	return err
}
