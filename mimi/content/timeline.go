package content

import (
	"bytes"
	"errors"
	"slices"
	"time"
)

// A Timeline folds the messages of one room, in whatever order they come, into
// what a person should see: edits and deletions applied to the message that
// they speak of, reactions beside it, replies pointing at the version that
// they answer.
//
// The order is that of the hub's accepted timestamps, and of the message IDs
// where two are equal. An edit, a deletion or a reaction that comes before its
// target waits for it. A Timeline is not safe for concurrent use.
type Timeline struct {
	// MayReplace reports whether r may edit or delete target, a message or a
	// reaction of another user, by the room's policy. Nil allows nobody.
	MayReplace func(r, target *Received) bool
	// MayRetopic reports whether the sender of r may change the topic of target,
	// its own message or another's, by the room's policy. Nil allows nobody.
	// Without it an edit may change the body only: the topic needs a "specific
	// authorization" (draft-ietf-mimi-content-08, "Rendering and authorization of
	// edits and deletes"), which the room policy has for it.
	MayRetopic func(r, target *Received) bool

	entries map[MessageID]*Entry      // messages that stand for themselves, by their ID
	seen    map[MessageID]bool        // every ID that was added
	waiting map[MessageID][]*Received // what speaks of a message that has not come
	root    map[MessageID]MessageID   // the first version of every later version
}

// An Entry is a message as it stands now.
type Entry struct {
	First     *Received   // the first version; its ID names the message in Replaces
	Versions  []*Received // accepted edits and deletions, oldest first
	Reactions []*Received // current reactions to any version, oldest first, each with the ID of its first version

	topics    []*Received // versions that say which topic it is of, oldest first
	reactions []*reaction // also those that were taken back
}

// A reaction is one reaction with its changes.
type reaction struct {
	first    *Received
	versions []*Received // oldest first
}

// show fills in the reactions that stand.
func (e *Entry) show() {
	e.Reactions = e.Reactions[:0:0]
	for _, x := range e.reactions {
		now := x.first
		if n := len(x.versions); n > 0 {
			now = x.versions[n-1]
		}
		if now.Message.Body.IsNull() {
			continue
		}
		if now != x.first {
			changed := *now
			changed.ID = x.first.ID // later changes name the first version
			now = &changed
		}
		e.Reactions = append(e.Reactions, now)
	}
}

// Current returns the newest version.
func (e *Entry) Current() *Received {
	if len(e.Versions) > 0 {
		return e.Versions[len(e.Versions)-1]
	}
	return e.First
}

// Deleted reports whether the newest version has no body.
func (e *Entry) Deleted() bool { return len(e.Versions) > 0 && e.Current().Message.Body.IsNull() }

// Edited reports whether there is more than one version, if only of its topic. A
// client shows it.
func (e *Entry) Edited() bool {
	return len(e.Versions) > 0 || !bytes.Equal(e.TopicID(), e.First.Message.TopicID)
}

// TopicID returns the topic that the message is of now.
func (e *Entry) TopicID() []byte {
	if n := len(e.topics); n > 0 {
		return e.topics[n-1].Message.TopicID
	}
	return e.First.Message.TopicID
}

// HadTopic reports whether the message is, or ever was, of a topic.
func (e *Entry) HadTopic(id []byte) bool {
	return bytes.Equal(e.First.Message.TopicID, id) ||
		slices.ContainsFunc(e.topics, func(r *Received) bool { return bytes.Equal(r.Message.TopicID, id) })
}

// NewTimeline returns an empty Timeline.
func NewTimeline() *Timeline {
	return &Timeline{
		entries: make(map[MessageID]*Entry),
		seen:    make(map[MessageID]bool),
		waiting: make(map[MessageID][]*Received),
		root:    make(map[MessageID]MessageID),
	}
}

// Add takes in a message. It refuses one whose ID it has seen, and an edit or
// deletion that its sender may not make; a refused message changes nothing.
func (t *Timeline) Add(r *Received) error {
	if t.seen[r.ID] {
		return refuse(CodeDuplicate, "message ID", "a message with this ID is in the timeline")
	}
	if err := t.apply(r); err != nil {
		return err
	}
	t.seen[r.ID] = true
	return nil
}

func (t *Timeline) apply(r *Received) error {
	m := r.Message
	switch {
	case m.Replaces != nil:
		return t.replace(r, *m.Replaces)
	case isReaction(m) && m.InReplyTo != nil:
		return t.react(r, *m.InReplyTo)
	}
	t.insert(r)
	return nil
}

func isReaction(m *Message) bool { return m.Body.Disposition == Reaction }

func (t *Timeline) insert(r *Received) {
	t.entries[r.ID] = &Entry{First: r}
	t.settle(r.ID)
}

// settle applies what waited for a message. What its sender may not do is
// dropped, as it would have been on arrival.
func (t *Timeline) settle(id MessageID) {
	waiting := t.waiting[id]
	delete(t.waiting, id)
	slices.SortFunc(waiting, compareReceived)
	for _, r := range waiting {
		_ = t.apply(r)
	}
}

// replace adds a version to a message, or changes or takes back a reaction.
func (t *Timeline) replace(r *Received, target MessageID) error {
	if e, ok := t.entries[target]; ok {
		body, topic, err := t.changes(r, e)
		if err != nil {
			return err
		}
		if body {
			e.Versions = insertSorted(e.Versions, r)
		}
		if topic {
			e.topics = insertSorted(e.topics, r)
		}
		t.root[r.ID] = target
		t.settle(r.ID)
		return nil
	}
	if at, ok := t.root[target]; ok {
		if e := t.entries[at]; e != nil {
			if i := slices.IndexFunc(e.reactions, func(x *reaction) bool { return x.first.ID == target }); i >= 0 {
				return t.replaceReaction(r, at, e, e.reactions[i])
			}
		}
		return refuse(CodeReplacesShape, "replaces", "names a later version, want the first")
	}
	t.waiting[target] = append(t.waiting[target], r)
	return nil
}

// changes says what of a message r changes. Who may change the topic of another's
// message and not its body changes the topic alone.
func (t *Timeline) changes(r *Received, e *Entry) (body, topic bool, err error) {
	topic = !r.Message.Body.IsNull() && t.MayRetopic != nil && t.MayRetopic(r, e.First)
	if !topic && !r.Message.Body.IsNull() && !e.HadTopic(r.Message.TopicID) {
		return false, false, refuse(CodeReplacesShape, "topicId", "its sender may change the body only, and not the topic")
	}
	err = t.checkReplace(r, e.First)
	if refusal := new(Error); topic && errors.As(err, &refusal) && refusal.Code == CodeUnauthorized {
		return false, true, nil
	}
	return err == nil, topic && err == nil, err
}

func (t *Timeline) checkReplace(r, first *Received) error {
	if compareReceived(r, first) <= 0 {
		return refuse(CodeReplacesShape, "replaces", "the hub accepted the change before the message")
	}
	if r.Derived.SenderURI != first.Derived.SenderURI && (t.MayReplace == nil || !t.MayReplace(r, first)) {
		return refuse(CodeUnauthorized, "replaces", "only the sender of a message may edit or delete it")
	}
	return nil
}

// replaceReaction changes a reaction, or takes it back where the body is null.
// Nobody changes what another feels.
func (t *Timeline) replaceReaction(r *Received, at MessageID, e *Entry, x *reaction) error {
	if err := t.checkReplace(r, x.first); err != nil {
		return err
	}
	if !r.Message.Body.IsNull() && !bytes.Equal(r.Message.TopicID, x.first.Message.TopicID) {
		return refuse(CodeReplacesShape, "topicId", "a reaction is of the topic of its message")
	}
	if r.Derived.SenderURI != x.first.Derived.SenderURI && !r.Message.Body.IsNull() {
		return refuse(CodeUnauthorized, "replaces", "only its sender may change a reaction")
	}
	x.versions = insertSorted(x.versions, r)
	e.show()
	t.root[r.ID] = at
	t.settle(r.ID)
	return nil
}

// react adds a reaction to the message that it answers, whichever version it
// names.
func (t *Timeline) react(r *Received, target MessageID) error {
	at := target
	if root, ok := t.root[target]; ok {
		at = root
	}
	e, ok := t.entries[at]
	if !ok {
		t.waiting[target] = append(t.waiting[target], r)
		return nil
	}
	i, _ := slices.BinarySearchFunc(e.reactions, r, func(x *reaction, r *Received) int { return compareReceived(x.first, r) })
	e.reactions = slices.Insert(e.reactions, i, &reaction{first: r})
	e.show()
	t.root[r.ID] = at
	t.settle(r.ID)
	return nil
}

// Entries returns the messages in order, deleted ones included.
func (t *Timeline) Entries() []*Entry {
	all := make([]*Entry, 0, len(t.entries))
	for _, e := range t.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *Entry) int { return compareReceived(a.First, b.First) })
	return all
}

// Topic returns the messages of one topic, in order.
func (t *Timeline) Topic(id []byte) []*Entry {
	return slices.DeleteFunc(t.Entries(), func(e *Entry) bool { return !bytes.Equal(e.TopicID(), id) })
}

// Entry returns the message of which id names any version, or nil.
func (t *Timeline) Entry(id MessageID) *Entry {
	if root, ok := t.root[id]; ok {
		id = root
	}
	return t.entries[id]
}

// Answers returns the entries that id answers, nearest first. It stops at a
// message that is not known and at the first loop.
func (t *Timeline) Answers(id MessageID) []*Entry {
	var chain []*Entry
	visited := map[*Entry]bool{}
	for e := t.Entry(id); e != nil && !visited[e]; {
		visited[e] = true
		next := e.First.Message.InReplyTo
		if next == nil {
			break
		}
		if e = t.Entry(*next); e != nil && !visited[e] {
			chain = append(chain, e)
		}
	}
	return chain
}

// Waiting returns how many messages wait for one that they speak of.
func (t *Timeline) Waiting() int {
	n := 0
	for _, w := range t.waiting {
		n += len(w)
	}
	return n
}

// Expire forgets the messages whose senders ask for it at now, as they asked when
// they sent them: an edit changes no more than the body. readAt tells
// when a message was read; nil means that none was.
func (t *Timeline) Expire(now time.Time, readAt func(MessageID) time.Time) (forgotten []MessageID) {
	for id, e := range t.entries {
		var read time.Time
		if readAt != nil {
			read = readAt(id)
		}
		if at, asks := e.First.Message.ExpiresAt(read); asks && !now.Before(at) {
			delete(t.entries, id)
			forgotten = append(forgotten, id)
		}
	}
	slices.SortFunc(forgotten, func(a, b MessageID) int { return bytes.Compare(a[:], b[:]) })
	return forgotten
}

func compareReceived(a, b *Received) int {
	if c := a.Derived.Accepted.Compare(b.Derived.Accepted); c != 0 {
		return c
	}
	return bytes.Compare(a.ID[:], b.ID[:])
}

func insertSorted(list []*Received, r *Received) []*Received {
	i, _ := slices.BinarySearchFunc(list, r, compareReceived)
	return slices.Insert(list, i, r)
}
