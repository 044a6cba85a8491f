package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// An arrival is an application message with everything that is known of it.
type arrival struct {
	data     []byte // application_data
	framing  *mls.ApplicationFraming
	tag      mimi.FrankingTag
	tagged   bool
	epoch    uint64
	leaf     mls.LeafIndex
	from     *Verdict
	accepted uint64
	frank    *mimi.Frank
	received *content.Received
	franked  string // why the frank does not verify; empty if it does
	// mayReplace is set if its sender may, now, do to another's message what it
	// does to the one that it replaces.
	mayReplace bool
	mayRetopic int // bits: 1 of its own messages, 2 of others'
}

// notFranked says that the hub made no frank.
const notFranked = "none"

// takeMessage takes in an application message.
func (r *Room) takeMessage(ctx context.Context, u *unit, f *mimi.FanoutMessage) error {
	m, err := mls.ParseMessage(f.Message.Bytes())
	if err != nil {
		return err
	}
	v, err := r.group.Verify(m)
	switch {
	case errors.Is(err, mls.ErrOwnMessage):
		return r.sentBefore(ctx, u, f)
	case errors.Is(err, mls.ErrConsumed) && f.Timestamp <= r.newest:
		return nil // it came before
	case err != nil:
		return err
	}
	message, ok := v.(*mls.ApplicationMessage)
	if !ok {
		return errors.New("it is no application message")
	}
	r.advance(ctx, u, f.Timestamp)
	if err := r.group.Save(ctx); err != nil { // the message's key is used up, whatever the message is
		return err
	}
	a, err := r.arrive(ctx, message, f)
	if err != nil {
		return err
	}
	return r.accept(ctx, u, a)
}

func (r *Room) arrive(ctx context.Context, m *mls.ApplicationMessage, f *mimi.FanoutMessage) (*arrival, error) {
	a := &arrival{
		data: m.Data(), framing: m.Content(), epoch: m.Epoch(), leaf: mls.LeafIndex(m.Sender().Index), accepted: f.Timestamp, frank: f.Frank,
	}
	if tag, ok := m.SafeAAD().Find(room.ComponentFrankAAD); ok {
		a.tagged = len(tag) == len(a.tag)
		copy(a.tag[:], tag)
	}
	node, err := r.leafIn(ctx, a.epoch, a.leaf)
	if err != nil {
		return nil, err
	}
	a.from, err = r.who(ctx, node)
	return a, err
}

// who says who a leaf is. Nobody vouches for an identity that is only asserted,
// so a key other than the one first seen puts it in doubt.
func (r *Room) who(ctx context.Context, node *mls.LeafNode) (*Verdict, error) {
	v, err := r.c.verdicts.in(r.uri).of(ctx, node)
	if err != nil {
		return nil, err
	}
	why := r.onlyAsserted(ctx, v)
	if err := r.c.checkPin(ctx, v.Identity, identity.FingerprintOf(node.SignatureKey)); ours(err) {
		return nil, err
	} else if err != nil {
		why = err.Error()
	}
	if why == "" {
		return v, nil
	}
	doubted := *v
	doubted.Quarantine = why
	return &doubted, nil
}

// onlyAsserted says that a leaf is only said to be of a user whom an issuer has
// proven by another leaf of the group; it is empty if that is not so.
func (r *Room) onlyAsserted(ctx context.Context, v *Verdict) string {
	if v.Proven() {
		return ""
	}
	for _, i := range r.state.LeavesOf(v.User) {
		node := r.group.Member(mls.LeafIndex(i))
		if node == nil {
			continue
		}
		if other, err := r.c.verdicts.in(r.uri).of(ctx, node); err == nil && other.Proven() {
			return fmt.Sprintf("%s is proven by an issuer, and %s is only said to be of it", v.User, v.Identity.Client)
		}
	}
	return ""
}

// accept files a message by its media type.
func (r *Room) accept(ctx context.Context, u *unit, a *arrival) error {
	if a.framing == nil {
		return errors.New("it has no ApplicationFraming")
	}
	t := a.framing.MediaType.Type
	if t == "" { // the first that the room lists
		var err error
		if t, err = r.firstMediaType(); err != nil {
			return err
		}
	}
	switch strings.ToLower(t) {
	case content.StatusMediaType:
		return r.takeStatus(ctx, u, a.from.User, a.framing.Content, a.accepted)
	case room.ContentType:
		return r.takeContent(ctx, u, a)
	}
	return fmt.Errorf("it is of media type %.255q", t)
}

// firstMediaType is what an empty media type stands for
// (draft-ietf-mls-extensions, section on content advertisement).
func (r *Room) firstMediaType() (string, error) {
	d, err := r.dictionary()
	if err != nil {
		return "", err
	}
	value, _ := d.Find(mls.ComponentID(policy.ComponentContentMediaTypes))
	list, err := mls.ParseMediaTypeList(value)
	if err != nil || len(list) == 0 {
		return "", fmt.Errorf("the room lists no media type: %w", err)
	}
	return list[0].Type, nil
}

func (r *Room) takeContent(ctx context.Context, u *unit, a *arrival) error {
	var err error
	a.received, err = content.Receive(a.framing.Content, r.derived(a), r.c.now())
	if err != nil {
		return err
	}
	if a.franked, err = r.checkFrank(ctx, a); err != nil {
		return err
	}
	if a.epoch == r.group.Epoch() { // roles of an earlier epoch were judged by the hub
		if err := r.mayHaveSent(ctx, a); err != nil {
			return err
		}
	}
	r.noteRights(a)
	if report := statusReport(&a.received.Message.Body); report != nil {
		return r.takeStatus(ctx, u, a.from.User, report, a.accepted)
	}
	r.fileMessage(ctx, u, a)
	return nil
}

func (r *Room) derived(a *arrival) content.Derived {
	return content.Derived{
		SenderURI: a.from.User.String(), RoomURI: r.uri.String(), Accepted: time.UnixMilli(int64(a.accepted)),
	}
}

// mayHaveSent judges the content by the sender's role, which the hub cannot
// see.
func (r *Room) mayHaveSent(ctx context.Context, a *arrival) error {
	needs, err := r.messageNeeds(ctx, a.received.Message, a.from.User)
	if err != nil {
		return err
	}
	_, err = policy.Authorize(r.state, &policy.Message{Sender: a.from.User, Needs: needs})
	return err
}

// messageNeeds returns the capabilities that a sender needs for a message,
// which go by whose messages it replaces and answers.
func (r *Room) messageNeeds(ctx context.Context, m *content.Message, sender mimi.URI) ([]policy.Capability, error) {
	replaced, err := r.target(ctx, m.Replaces)
	if err != nil {
		return nil, err
	}
	if replaced != nil && !bytes.Equal(replaced.TopicID, m.TopicID) {
		if t, err := r.retopicked(ctx); err != nil {
			return nil, err
		} else if e := t.Entry(*m.Replaces); e != nil && e.HadTopic(m.TopicID) {
			replaced.TopicID = m.TopicID // somebody has given it to it
		}
	}
	answered, err := r.target(ctx, m.InReplyTo)
	if err != nil {
		return nil, err
	}
	return policy.MessageNeeds(m, sender, replaced, answered), nil
}

// noteRights notes what the sender of a message that replaces another may do, as
// it comes.
func (r *Room) noteRights(a *arrival) {
	if a.received.Message.Replaces == nil {
		return
	}
	a.mayReplace = r.mayReplace(a.from.User, a.received.Message)
	for bit, c := range map[int]policy.Capability{ownTopics: policy.CanEditOwnTopic, othersTopics: policy.CanEditOtherTopic} {
		if _, err := policy.Authorize(r.state, &policy.Message{Sender: a.from.User, Needs: []policy.Capability{c}}); err == nil {
			a.mayRetopic |= bit
		}
	}
}

// Bits of arrival.mayRetopic.
const (
	ownTopics    = 1
	othersTopics = 2
)

// mayReplace reports whether a user may do with another's message or reaction
// what m does with the one that it replaces. It is judged when m comes: what a
// moderator has deleted stays so when the moderator is none any more.
func (r *Room) mayReplace(sender mimi.URI, m *content.Message) bool {
	if m.Replaces == nil {
		return false
	}
	others := &policy.Target{TopicID: m.TopicID, Reaction: m.Body.Disposition == content.Reaction}
	_, err := policy.Authorize(r.state, &policy.Message{Sender: sender, Needs: policy.MessageNeeds(m, sender, others, nil)})
	return err == nil
}

// target is what policy needs to know of a message that another refers to;
// nil if there is none, or if it is not known.
func (r *Room) target(ctx context.Context, id *content.MessageID) (*policy.Target, error) {
	if id == nil {
		return nil, nil
	}
	row, err := r.c.store.message(ctx, r.uri, *id)
	if errors.Is(err, mls.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := row.received.Message
	sender, err := mimi.ParseURI(row.received.Derived.SenderURI)
	return &policy.Target{Sender: sender, TopicID: m.TopicID, Reaction: m.Body.Disposition == content.Reaction}, err
}

// checkFrank verifies the hub's frank. A message without a good one is shown
// as such; one whose content names another sender or room is refused.
func (r *Room) checkFrank(ctx context.Context, a *arrival) (string, error) {
	if a.frank == nil || !a.tagged {
		return notFranked, nil
	}
	agent, err := r.agentIn(ctx, a.epoch)
	if err != nil {
		return "", err
	}
	hub, err := r.c.verdicts.in(r.uri).hub(ctx, mls.ExternalSender{SignatureKey: agent.SignatureKey, Credential: agent.Credential})
	if err != nil {
		if ours(err) {
			return "", err
		}
		return string(mimi.FrankAgent), nil
	}
	m := a.received.Message
	fm := &mimi.FrankedMessage{
		Content: mimi.FrankedContent{ApplicationData: a.data, Salt: m.Salt, SenderURI: a.from.User, RoomURI: r.uri},
		Frank:   a.frank, AcceptedTimestamp: a.accepted, Tag: a.tag, GroupSuite: r.group.CipherSuite(),
		AgentKey: agent.SignatureKey, AgentDomain: hub.Host(), LeafUserURI: a.from.User, RoomURI: r.uri,
	}
	err = fm.Verify()
	var frank *mimi.FrankError
	switch {
	case err == nil:
		return "", nil
	case !errors.As(err, &frank):
		return "", err
	case frank.Reason == mimi.FrankSender || frank.Reason == mimi.FrankRoom:
		return "", err
	}
	return string(frank.Reason), nil
}

// fileMessage is the step that stores a message.
func (r *Room) fileMessage(ctx context.Context, u *unit, a *arrival) {
	uri, group, id := r.uri.String(), r.groupID, a.received.ID
	var frank []byte
	if a.frank != nil {
		frank = a.frank.Marshal()
	}
	kind := kindOf(a.received.Message)
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO message (room, id, accepted, sender, client_uri, group_id, epoch, leaf, level, issuer, data, frank, franked, quarantine, kind, may_replace, may_retopic)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (room, id) DO NOTHING`,
			uri, id[:], int64(a.accepted), a.from.User.String(), a.from.Identity.Client.String(), group, int64(a.epoch), int64(a.leaf),
			int64(a.from.Level), a.from.Issuer, r.c.store.seal.seal("message", id[:], a.data), frank, a.franked, a.from.Quarantine, kind, a.mayReplace, a.mayRetopic)
		return err
	})
}

// sentBefore takes in a message of this client that came back.
func (r *Room) sentBefore(ctx context.Context, u *unit, f *mimi.FanoutMessage) error {
	hash := sha256.Sum256(f.Message.Bytes())
	o, err := r.c.store.outgoing(ctx, r.uri, hash[:])
	if errors.Is(err, mls.ErrNotFound) {
		return nil // the answer came first
	}
	if err != nil {
		return err
	}
	return r.sent(ctx, u, o, f.Timestamp, f.Frank)
}

// sent files a message of this client that the hub has accepted.
func (r *Room) sent(ctx context.Context, u *unit, o *outgoing, accepted uint64, frank *mimi.Frank) error {
	r.advance(ctx, u, accepted)
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM outbox WHERE n = ?`, o.n)
		return err
	})
	framing, err := mls.ParseApplicationFraming(o.data)
	if err != nil {
		return err
	}
	if framing.MediaType.Type == content.StatusMediaType {
		return nil
	}
	a := &arrival{
		data: o.data, framing: framing, epoch: o.epoch, leaf: r.group.OwnLeaf(), from: r.c.who(), accepted: accepted, frank: frank, tagged: true,
	}
	now := r.c.now()
	if at := time.UnixMilli(int64(accepted)); at.After(now) {
		now = at // the hub has accepted it, whatever the clock here says
	}
	if a.received, err = content.Receive(framing.Content, r.derived(a), now); err != nil {
		return err
	}
	a.tag = mimi.ComputeFrankingTag(a.received.Message.Salt, o.data)
	if a.franked, err = r.checkFrank(ctx, a); err != nil {
		return err
	}
	r.noteRights(a)
	r.fileMessage(ctx, u, a)
	return nil
}

// kindOf names what a message does.
func kindOf(m *content.Message) string {
	reaction := m.Body.Disposition == content.Reaction
	switch {
	case m.Replaces != nil && m.Body.IsNull():
		return "delete"
	case m.Replaces != nil:
		return "edit"
	case reaction:
		return "reaction"
	case m.InReplyTo != nil:
		return "reply"
	}
	return "message"
}

// statusReport returns the report that a MIMI content message is, or nil.
func statusReport(p *content.NestedPart) []byte {
	s, ok := p.Content.(*content.SinglePart)
	if !ok || s.ContentType != content.StatusMediaType {
		return nil
	}
	return bytes.Clone(s.Content)
}

// takeStatus files what a user reports of messages.
func (r *Room) takeStatus(ctx context.Context, u *unit, from mimi.URI, report []byte, at uint64) error {
	rows, err := content.ParseStatusReport(report)
	if err != nil {
		return err
	}
	uri := r.uri.String()
	u.add(func(tx *sqldb.Tx) error {
		for _, s := range rows {
			if s.Status > content.StatusError {
				continue
			}
			_, err := tx.Exec(ctx, `INSERT INTO status (room, id, user_uri, status, at) SELECT ?, ?, ?, ?, ?
				WHERE EXISTS (SELECT 1 FROM message WHERE room = ? AND id = ?)
				ON CONFLICT (room, id, user_uri) DO UPDATE SET status = excluded.status, at = excluded.at`,
				uri, s.ID[:], from.String(), int64(s.Status), int64(at), uri, s.ID[:])
			if err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}
