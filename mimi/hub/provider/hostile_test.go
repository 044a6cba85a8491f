package provider_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"path"
	"testing"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mls"
)

// status returns the HTTP status with which a peer was refused, or 0.
func status(err error) int {
	var p *problem.Problem
	if errors.As(err, &p) {
		return p.Status
	}
	return 0
}

// A spy keeps the bodies that a client posts, by the last part of the path.
type spy struct {
	next http.RoundTripper
	last map[string][]byte
}

func (s *spy) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		s.last[path.Base(r.URL.Path)] = b
		r.Body = io.NopCloser(bytes.NewReader(b))
	}
	return s.next.RoundTrip(r)
}

// A hostile follower is refused with the code that is specified.
func TestHostileFollower(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example", "c.example")
	alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	alice.create(clubhouse, bob)
	bob.say(clubhouse, "one")
	alice.hears(clubhouse, "one")
	message := w.messageAt(bob, "b.example")
	submit := func(by *peer.Client, sender string, m *mimi.MLSMessage) (*mimi.SubmitMessageResponse, error) {
		q := mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: m, SendingURI: uri(t, sender)}
		b, err := by.Do(t.Context(), "a.example", peer.SubmitMessage, clubhouse, q.Marshal())
		if err != nil {
			return nil, err
		}
		return mimi.ParseSubmitMessageResponse(b)
	}
	b, c := w.hubs["b.example"].peer, w.hubs["c.example"].peer
	if _, err := submit(b, alice.User().String(), message); status(err) != 403 {
		t.Errorf("a foreign sendingUri: %v, want 403", err)
	}
	if p, err := submit(c, "mimi://c.example/u/eve", message); err != nil || p.StatusCode != mimi.SubmitNotAllowed {
		t.Errorf("a stranger sends: %v %v", p, err)
	}
	// c.example's certificate says nothing of b.example.
	forged := w.net.ClientAs(t, "b.example", w.net.Certificate(t, "c.example"))
	if _, err := submit(forged, bob.User().String(), message); status(err) != 403 {
		t.Errorf("a forged From: %v, want 403", err)
	}
	before := w.check(clubhouse)
	p, err := submit(b, bob.User().String(), message)
	if err != nil || p.StatusCode != mimi.SubmitAccepted {
		t.Errorf("a message that is sent again: %v %v", p, err)
	}
	if after := w.check(clubhouse); after.LastAccepted != before.LastAccepted && err == nil && p.AcceptedTimestamp > before.LastAccepted {
		t.Error("a message that is sent again is accepted again")
	}
	if _, err := b.Do(t.Context(), "a.example", peer.SubmitMessage, clubhouse, []byte("nonsense")); status(err) != 400 {
		t.Errorf("nonsense: %v, want 400", err)
	}
	if _, err := b.Do(t.Context(), "a.example", peer.SubmitMessage, clubhouse, make([]byte, 300<<10)); status(err) != 413 {
		t.Errorf("an oversized message: %v, want 413", err)
	}
	if _, err := b.Do(t.Context(), "a.example", peer.Notify, clubhouse, nil); status(err) != 403 && status(err) != 400 {
		t.Errorf("a follower notifies the hub: %v", err)
	}
	stale := must[*mimi.MLSMessage](t)(mimi.ParseMLSMessage(message.Bytes()))
	for range 3 {
		must[*client.Committed](t)(alice.room(clubhouse).Refresh(t.Context()))
	}
	other := rewrite(t, stale)
	p, err = submit(b, bob.User().String(), other)
	if err != nil || p.StatusCode != mimi.SubmitEpochTooOld || p.CurrentEpoch != alice.epoch(clubhouse) {
		t.Errorf("a message of a stale epoch: %+v %v", p, err)
	}
}

// messageAt waits until a provider has an application message for a client, and
// returns it.
func (w *world) messageAt(p *person, host string) (message *mimi.MLSMessage) {
	w.t.Helper()
	p.until("its provider has a message", func() bool {
		for _, e := range w.events(p.URI(), host) {
			if f, err := e.Fanout(); err == nil && f.Message.ContentType == mls.ContentApplication {
				message = f.Message
			}
		}
		return message != nil
	})
	return message
}

// rewrite returns a message that differs in its last octet, which the hub
// cannot judge.
func rewrite(t *testing.T, m *mimi.MLSMessage) *mimi.MLSMessage {
	b := append([]byte(nil), m.Bytes()...)
	b[len(b)-1] ^= 1
	return must[*mimi.MLSMessage](t)(mimi.ParseMLSMessage(b))
}

// events are all events that a provider keeps for a client.
func (w *world) events(c mimi.URI, host string) (list []*clientapi.Event) {
	w.t.Helper()
	ok(w.t, w.hubs[host].Events(w.t.Context(), c, new(clientapi.EventQuery), func(e *clientapi.Event) error {
		list = append(list, e)
		return nil
	}))
	return list
}

// A hub that is not the room's cannot tell of it, and a Welcome for nobody here
// makes no room.
func TestHostileHub(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example", "c.example")
	alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	alice.create(clubhouse, bob)
	alice.say(clubhouse, "one")
	bob.hears(clubhouse, "one")
	var body, welcome []byte
	for _, e := range w.events(bob.URI(), "b.example") {
		f, err := e.Fanout()
		if err != nil {
			continue
		}
		if f.Message.WireFormat == mls.WireWelcome {
			welcome = e.Payload
		} else {
			body = e.Payload
		}
	}
	c := w.hubs["c.example"].peer
	if _, err := c.Do(t.Context(), "b.example", peer.Notify, clubhouse, body); status(err) != 403 {
		t.Errorf("another provider tells of the room: %v, want 403", err)
	}
	if _, err := c.Do(t.Context(), "a.example", peer.Notify, "mimi://c.example/r/other", welcome); status(err) != 404 {
		t.Errorf("a Welcome for nobody here: %v, want 404", err)
	}
	a := w.hubs["a.example"].peer
	before := len(w.events(bob.URI(), "b.example"))
	if _, err := a.Do(t.Context(), "b.example", peer.Notify, clubhouse, body); err != nil {
		t.Errorf("the same body again: %v", err)
	}
	if after := len(w.events(bob.URI(), "b.example")); after != before {
		t.Errorf("%d events became %d by a repeated body", before, after)
	}
}

// An abuse report is believed when the hub accepted the message, and not when
// anything about it is changed.
func TestAbuseReport(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		watch := &spy{last: make(map[string][]byte)}
		alice := w.person("alice/phone@a.example", func(c *client.Config) {
			c.Wrap = func(next http.RoundTripper) http.RoundTripper { watch.next = next; return watch }
		})
		bob := w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		sent := bob.say(clubhouse, "an insult")
		alice.hears(clubhouse, "an insult")
		told := must[clientapi.AbuseVerdicts](t)(alice.room(clubhouse).ReportAbuse(t.Context(), []content.MessageID{sent.ID}, "it hurts"))
		if len(told) != 1 || !told[0].Accepted {
			t.Errorf("the client was told %v", told)
		}
		report := must[*mimi.AbuseReport](t)(mimi.ParseAbuseReport(watch.last["abuse-reports"]))
		n, room, from := w.hubs["a.example"], uri(t, clubhouse), hub.From{Provider: "a.example", Client: alice.URI()}
		v, err := n.ReportAbuse(t.Context(), from, room, report)
		if err != nil || len(v) != 1 || !v[0].Accepted {
			t.Fatalf("a true report: %v %v", v, err)
		}
		for name, forge := range map[string]struct {
			change func(*mimi.AbuseReport)
			want   mimi.FrankReason
		}{
			"another sender": {func(r *mimi.AbuseReport) { r.AllegedAbuserURI = alice.User() }, mimi.FrankSender},
			"another time":   {func(r *mimi.AbuseReport) { r.Messages[0].AcceptedTimestamp++ }, mimi.FrankMAC},
			"another frank":  {func(r *mimi.AbuseReport) { r.Messages[0].Frank.ServerFrank[0] ^= 1 }, mimi.FrankMAC},
			"a garbled text": {func(r *mimi.AbuseReport) { r.Messages[0].MessageContent = []byte("x") }, mimi.FrankTag},
		} {
			changed := must[*mimi.AbuseReport](t)(mimi.ParseAbuseReport(report.Marshal()))
			forge.change(changed)
			v, err := n.ReportAbuse(t.Context(), from, room, changed)
			if err != nil || v[0].Accepted || v[0].Reason != forge.want {
				t.Errorf("%s: %v %v, want %s", name, v, err, forge.want)
			}
		}
	})
}

// KeyPackages are handed out once each, then the last resort, and a request
// that is repeated gets the same again.
func TestKeyPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice := w.person("alice/phone@a.example")
		bob := w.person("bob/tablet@b.example")
		counts := must[clientapi.KeyPackageCounts](t)(bob.KeyPackages(t.Context()))
		if len(counts) != 1 || counts[0].Left != 3 || !counts[0].LastResort {
			t.Fatalf("bob has %+v", counts)
		}
		refs := make(map[string]int)
		for i := range 5 {
			r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse+string(rune('a'+i))), client.RoomOptions{}))
			must[*client.Committed](t)(r.Add(t.Context(), bob.User(), client.AddOptions{}))
			for _, m := range must[*client.Info](t)(r.Info(t.Context())).Participants[1].Clients {
				refs[m.Client.String()]++
			}
		}
		for i := range 5 {
			bob.until("it is in the room", func() bool { return bob.status(clubhouse+string(rune('a'+i))) == client.RoomMember })
		}
		bob.nothingRefused()
		if refs[bob.URI().String()] != 5 {
			t.Errorf("bob was added %v", refs)
		}
	})
}
