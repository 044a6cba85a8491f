package content_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/content"
	"pgregory.net/rapid"
)

const (
	alice = "mimi://example.com/u/alice-smith"
	bob   = "mimi://example.com/u/bob-jones"
	cathy = "mimi://example.com/u/cathy-washington"
)

var start = time.Date(2026, time.May, 4, 12, 0, 0, 0, time.UTC)

// A said is one message of a scene: who says what about which earlier one.
type said struct {
	who       string
	text      string // empty for a null body
	replaces  string // name of an earlier message, in front of the text
	inReplyTo string
	reaction  bool
	topic     string
	expires   *content.Expiration
}

// A scene names received messages.
type scene struct {
	t      testing.TB
	byName map[string]*content.Received
	clock  int
	salt   byte
}

func newScene(t testing.TB) *scene { return &scene{t: t, byName: map[string]*content.Received{}} }

func (s *scene) say(name string, m said) *content.Received {
	s.t.Helper()
	s.clock++
	s.salt++
	msg := &content.Message{
		Salt:       [16]byte{s.salt},
		TopicID:    []byte(m.topic),
		Expires:    m.expires,
		Extensions: content.NewExtensions(m.who, room),
		Body:       content.NestedPart{Disposition: content.Render, Content: content.NullPart{}},
	}
	if m.reaction {
		msg.Body.Disposition = content.Reaction
	}
	if m.text != "" {
		msg.Body.Content = &content.SinglePart{ContentType: "text/plain;charset=utf-8", Content: []byte(m.text)}
	}
	if m.replaces != "" {
		msg.Replaces = &s.byName[m.replaces].ID
	}
	if m.inReplyTo != "" {
		msg.InReplyTo = &s.byName[m.inReplyTo].ID
	}
	encoded, err := msg.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	at := start.Add(time.Duration(s.clock) * time.Second)
	r, err := content.Receive(encoded, content.Derived{SenderURI: m.who, RoomURI: room, Accepted: at}, at)
	if err != nil {
		s.t.Fatal(err)
	}
	s.byName[name] = r
	return r
}

// show draws a timeline: a line for each message, with its reactions.
func show(tl *content.Timeline) string {
	var b strings.Builder
	for _, e := range tl.Entries() {
		text := "(deleted)"
		if p, ok := e.Current().Message.Body.Content.(*content.SinglePart); ok {
			text = string(p.Content)
		}
		who := e.First.Derived.SenderURI
		fmt.Fprintf(&b, "%s: %s", who[strings.LastIndex(who, "/")+1:], text)
		if e.Edited() && !e.Deleted() {
			b.WriteString(" (edited)")
		}
		for _, r := range e.Reactions {
			fmt.Fprintf(&b, " [%s]", r.Message.Body.Content.(*content.SinglePart).Content)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// pizza is a scene with every kind of message.
func pizza(t testing.TB) (*scene, []*content.Received) {
	s := newScene(t)
	s.say("offer", said{who: alice, text: "Free Hawaian pizza"})
	s.say("fix", said{who: alice, text: "Free Hawaiian pizza", replaces: "offer"})
	s.say("yuck", said{who: bob, text: "no pineapple", inReplyTo: "fix"})
	s.say("heart", said{who: cathy, text: "<3", inReplyTo: "fix", reaction: true})
	s.say("grin", said{who: cathy, text: ":D", replaces: "heart", inReplyTo: "fix", reaction: true})
	s.say("plus", said{who: bob, text: "+1", inReplyTo: "offer", reaction: true})
	s.say("unplus", said{who: bob, replaces: "plus", inReplyTo: "offer", reaction: true})
	s.say("wow", said{who: alice, text: "wow", inReplyTo: "fix", reaction: true})
	s.say("laugh", said{who: cathy, text: "LOL", replaces: "heart", inReplyTo: "fix", reaction: true})
	s.say("again", said{who: bob, text: "+2", replaces: "plus", inReplyTo: "offer", reaction: true})
	s.say("gone", said{who: bob, replaces: "yuck"})
	s.say("ok", said{who: cathy, text: "fine", inReplyTo: "yuck"})
	var all []*content.Received
	for _, r := range s.byName {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *content.Received) int { return a.Derived.Accepted.Compare(b.Derived.Accepted) })
	return s, all
}

const pizzaShown = "alice-smith: Free Hawaiian pizza (edited) [LOL] [+2] [wow]\n" +
	"bob-jones: (deleted)\n" +
	"cathy-washington: fine\n"

func TestTimeline(t *testing.T) {
	s, all := pizza(t)
	tl := content.NewTimeline()
	for _, r := range all {
		if err := tl.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if got := show(tl); got != pizzaShown {
		t.Errorf("timeline is\n%swant\n%s", got, pizzaShown)
	}
	if err := tl.Add(all[0]); !errors.Is(err, &content.Error{Code: content.CodeDuplicate}) {
		t.Errorf("a message twice: %v", err)
	}
	answers := tl.Answers(s.byName["ok"].ID)
	if len(answers) != 2 || answers[0].First != s.byName["yuck"] || answers[1].First != s.byName["offer"] {
		t.Errorf("answers = %v", answers)
	}
}

// However the messages arrive, the timeline is the same.
func TestTimelineInAnyOrder(t *testing.T) {
	_, all := pizza(t)
	rapid.Check(t, func(t *rapid.T) {
		tl := content.NewTimeline()
		for _, r := range rapid.Permutation(all).Draw(t, "order") {
			if err := tl.Add(r); err != nil {
				t.Fatal(err)
			}
		}
		if got := show(tl); got != pizzaShown {
			t.Fatalf("timeline is\n%s", got)
		}
		if n := tl.Waiting(); n != 0 {
			t.Fatalf("%d messages still wait", n)
		}
	})
}

// The topic of a message changes by who may change it, and by nobody else; who may
// not edit it changes the topic alone.
func TestTimelineTopics(t *testing.T) {
	s := newScene(t)
	all := []*content.Received{
		s.say("a", said{who: alice, text: "tea?", topic: "drinks"}),
		s.say("b", said{who: bob, text: "cake?", topic: "food"}),
		s.say("moved", said{who: alice, text: "tea at four?", topic: "meetings", replaces: "a"}),
		s.say("bob's", said{who: bob, text: "my cake?", topic: "meetings", replaces: "b"}),   // may not
		s.say("moderated", said{who: cathy, text: "no tea", topic: "food", replaces: "a"}),   // but for what it says
		s.say("edited", said{who: bob, text: "cake at four?", topic: "food", replaces: "b"}), // its body only
		s.say("deletion", said{who: cathy, replaces: "b"}),                                   // may not
		s.say("none", said{who: alice, text: "tea at five?", replaces: "a"}),
	}
	may := func(r, target *content.Received) bool {
		return r.Derived.SenderURI == cathy || r.Derived.SenderURI == alice && target.Derived.SenderURI == alice
	}
	for _, order := range [][]int{{0, 1, 2, 3, 4, 5, 6, 7}, {7, 6, 5, 4, 3, 2, 1, 0}, {4, 2, 0, 7, 5, 3, 6, 1}} {
		tl := content.NewTimeline()
		tl.MayRetopic = may
		for _, i := range order {
			tl.Add(all[i]) // refusals show in what becomes of it
		}
		if got, want := show(tl), "alice-smith: tea at five? (edited)\nbob-jones: cake at four? (edited)\n"; got != want {
			t.Errorf("%v: the timeline is\n%swant\n%s", order, got, want)
		}
		a, b := tl.Entry(all[0].ID), tl.Entry(all[1].ID)
		if string(a.TopicID()) != "" || string(b.TopicID()) != "food" || !a.HadTopic([]byte("food")) || b.HadTopic([]byte("meetings")) {
			t.Errorf("%v: topics %q and %q", order, a.TopicID(), b.TopicID())
		}
		if n := len(tl.Topic([]byte("meetings"))) + len(tl.Topic([]byte("drinks"))); n != 0 || len(tl.Topic([]byte("food"))) != 1 {
			t.Errorf("%v: %d messages in topics that they have left", order, n)
		}
	}
	// Where nobody is authorised, an edit changes the body only.
	tl := content.NewTimeline()
	for i, r := range all[:3] {
		if err := tl.Add(r); (err != nil) != (i == 2) || i == 2 && !errors.Is(err, &content.Error{Code: content.CodeReplacesShape}) {
			t.Errorf("message %d: %v", i, err)
		}
	}
}

// An edit changes neither what a message answers nor when it expires.
func TestTimelineExpiryOfEdits(t *testing.T) {
	s := newScene(t)
	tl := content.NewTimeline()
	soon := uint32(start.Add(time.Hour).Unix())
	for _, r := range []*content.Received{
		s.say("a", said{who: alice, text: "gone soon", expires: &content.Expiration{Time: soon}}),
		s.say("a2", said{who: alice, text: "here to stay", replaces: "a"}),
	} {
		if err := tl.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(tl.Expire(start.Add(2*time.Hour), nil)); n != 1 {
		t.Errorf("%d messages are forgotten, want 1", n)
	}
}

func TestTimelineRefusals(t *testing.T) {
	s := newScene(t)
	tl := content.NewTimeline()
	add := func(name string, m said) error { return tl.Add(s.say(name, m)) }
	for _, err := range []error{
		add("a", said{who: alice, text: "mine"}),
		add("a2", said{who: alice, text: "mine!", replaces: "a"}),
		add("like", said{who: bob, text: "+1", inReplyTo: "a", reaction: true}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		m    said
		want content.Code
	}{
		{"edit of another's", said{who: bob, text: "bob's", replaces: "a"}, content.CodeUnauthorized},
		{"deletion of another's", said{who: bob, replaces: "a"}, content.CodeUnauthorized},
		{"edit that names a later version", said{who: alice, text: "x", replaces: "a2"}, content.CodeReplacesShape},
		{"unlike of another's", said{who: alice, replaces: "like", reaction: true}, content.CodeUnauthorized},
	} {
		if err := add(c.name, c.m); !errors.Is(err, &content.Error{Code: c.want}) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	if got, want := show(tl), "alice-smith: mine! (edited) [+1]\n"; got != want {
		t.Errorf("after the refusals the timeline is\n%s", got)
	}
	tl.MayReplace = func(r, _ *content.Received) bool { return r.Derived.SenderURI == cathy && r.Message.Body.IsNull() }
	if err := add("another's reaction changed", said{who: cathy, text: "-1", replaces: "like", reaction: true}); !errors.Is(err, &content.Error{Code: content.CodeUnauthorized}) {
		t.Errorf("a moderator changes a reaction: %v", err)
	}
	if err := add("another's reaction taken back", said{who: cathy, replaces: "like", reaction: true}); err != nil {
		t.Errorf("a moderator takes a reaction back: %v", err)
	}
	if got, want := show(tl), "alice-smith: mine! (edited)\n"; got != want {
		t.Errorf("after moderation the timeline is\n%s", got)
	}
	if err := add("moderation", said{who: cathy, replaces: "a"}); err != nil {
		t.Errorf("a moderator's deletion: %v", err)
	}
	if err := add("rewriting", said{who: cathy, text: "x", replaces: "a"}); err == nil {
		t.Error("a moderator who may delete could edit")
	}
}

func TestReceive(t *testing.T) {
	s := newScene(t)
	good := s.say("m", said{who: alice, text: "hi"})
	encoded, err := good.Message.Encode()
	if err != nil {
		t.Fatal(err)
	}
	year := 365 * 24 * time.Hour
	expiring := func(e content.Expiration) []byte {
		m := *good.Message
		m.Expires = &e
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	d := good.Derived
	for _, c := range []struct {
		name    string
		encoded []byte
		change  func(*content.Derived)
		want    content.Code
	}{
		{"as sent", encoded, func(*content.Derived) {}, ""},
		{"another sender", encoded, func(d *content.Derived) { d.SenderURI = bob }, content.CodeSenderURI},
		{"another room", encoded, func(d *content.Derived) { d.RoomURI += "x" }, content.CodeRoomURI},
		{"from the future", encoded, func(d *content.Derived) { d.Accepted = start.Add(time.Hour) }, content.CodeTimestamp},
		{"before the format", encoded, func(d *content.Derived) { d.Accepted = start.Add(-20 * year) }, content.CodeTimestamp},
		{"before the room", encoded, func(d *content.Derived) { d.Created = start.Add(time.Minute) }, content.CodeTimestamp},
		{"expires in a day", expiring(content.Expiration{Relative: true, Time: 86400}), func(*content.Derived) {}, ""},
		{"expires in two years", expiring(content.Expiration{Relative: true, Time: 2 * 365 * 86400}), func(*content.Derived) {}, content.CodeExpires},
		{"expired long ago", expiring(content.Expiration{Time: 1}), func(*content.Derived) {}, content.CodeExpires},
		{"expires in 2106", expiring(content.Expiration{Time: 1<<32 - 1}), func(*content.Derived) {}, content.CodeExpires},
		{"malformed", encoded[1:], func(*content.Derived) {}, content.CodeMalformed},
	} {
		derived := d
		c.change(&derived)
		_, err := content.Receive(c.encoded, derived, start.Add(time.Minute))
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, &content.Error{Code: c.want}) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestExpire(t *testing.T) {
	s := newScene(t)
	r := s.say("m", said{who: alice, text: "soon gone"})
	r.Message.Expires = &content.Expiration{Relative: true, Time: 60}
	kept := s.say("kept", said{who: alice, text: "stays"})
	tl := content.NewTimeline()
	for _, m := range []*content.Received{r, kept} {
		if err := tl.Add(m); err != nil {
			t.Fatal(err)
		}
	}
	if gone := tl.Expire(start.Add(time.Hour), nil); len(gone) != 0 {
		t.Errorf("an unread message was forgotten: %v", gone)
	}
	read := func(content.MessageID) time.Time { return start }
	if gone := tl.Expire(start.Add(59*time.Second), read); len(gone) != 0 {
		t.Errorf("forgotten too early: %v", gone)
	}
	if gone := tl.Expire(start.Add(60*time.Second), read); len(gone) != 1 || gone[0] != r.ID {
		t.Errorf("forgotten: %v", gone)
	}
	if got := show(tl); got != "alice-smith: stays\n" {
		t.Errorf("left: %s", got)
	}
}

func TestAsset(t *testing.T) {
	asset := []byte("a picture of a pizza")
	upload, part, err := content.SealAsset(asset, "image/png")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := part.Open(upload); err != nil || string(got) != string(asset) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	part.Size = uint64(len(asset))
	if _, err := part.Open(upload); err != nil {
		t.Errorf("size of the plaintext: %v", err)
	}
	for _, c := range []struct {
		name   string
		change func(p *content.ExternalPart, octets []byte) []byte
		want   error
	}{
		{"hash", func(p *content.ExternalPart, o []byte) []byte { o[0] ^= 1; return o }, content.ErrAssetHash},
		{"no hash, changed octets", func(p *content.ExternalPart, o []byte) []byte { p.ContentHash = nil; o[0] ^= 1; return o }, content.ErrAssetKey},
		{"size", func(p *content.ExternalPart, o []byte) []byte { p.Size = 1; return o }, content.ErrAssetSize},
		{"AEAD", func(p *content.ExternalPart, o []byte) []byte { p.EncAlg = 30; return o }, content.ErrAssetAlgorithm},
		{"hash algorithm", func(p *content.ExternalPart, o []byte) []byte { p.HashAlg = 2; return o }, content.ErrAssetAlgorithm},
		{"key size", func(p *content.ExternalPart, o []byte) []byte { p.Key = p.Key[1:]; return o }, content.ErrAssetKey},
		{"nonce size", func(p *content.ExternalPart, o []byte) []byte { p.Nonce = p.Nonce[1:]; return o }, content.ErrAssetKey},
		{"additional data", func(p *content.ExternalPart, o []byte) []byte { p.AAD = []byte{1}; return o }, content.ErrAssetKey},
	} {
		spoiled := *part
		if _, err := spoiled.Open(c.change(&spoiled, slices.Clone(upload))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for url, ok := range map[string]bool{
		"https://example.com/storage/8ksB4bSrrRE.mp4": true, "http://example.com/x": false, "https:///x": false,
		"https://user@example.com/": false, "file:///etc/passwd": false, "x": false,
	} {
		part.URL = url
		if _, err := part.FetchURL(); (err == nil) != ok {
			t.Errorf("FetchURL(%s): %v", url, err)
		}
	}
}

func TestStatusReport(t *testing.T) {
	// draft-mahy-mimi-message-status-01, status.cbor, second row.
	id := content.MessageID{1, 0x53, 0x54, 0x97}
	encoded, err := content.EncodeStatusReport([]content.MessageStatus{{id, content.StatusRead}, {id, 200}})
	if err != nil {
		t.Fatal(err)
	}
	if encoded[0] != 0x82 || encoded[1] != 0x82 || encoded[2] != 0x58 || encoded[3] != 0x20 || encoded[36] != 2 {
		t.Errorf("report is %x", encoded)
	}
	report, err := content.ParseStatusReport(encoded)
	if err != nil || len(report) != 2 || report[0].ID != id || report[1].Status != 200 {
		t.Errorf("report = %v, %v", report, err)
	}
	for n := range encoded {
		if _, err := content.ParseStatusReport(encoded[:n]); err == nil {
			t.Errorf("the first %d octets were accepted", n)
		}
	}
	if _, err := content.EncodeStatusReport(make([]content.MessageStatus, 1025)); err == nil {
		t.Error("a report on 1025 messages was made")
	}
}
