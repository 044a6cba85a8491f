package provider_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"
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
	cut  bool // nothing comes through
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
	if s.cut {
		return nil, errors.New("the net is cut")
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

// KeyPackages are handed out once each, then the last resort.
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

// A follower that brings handshakes and asks for the room is refused with the
// code that is specified.
func TestHostileHandshakes(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example", "c.example")
	reports := &spy{last: make(map[string][]byte)}
	alice := w.person("alice/phone@a.example")
	bob := w.person("bob/tablet@b.example", func(c *client.Config) {
		c.Wrap = func(next http.RoundTripper) http.RoundTripper { reports.next = next; return reports }
	})
	alice.create(clubhouse, bob)
	must[*client.Committed](t)(bob.room(clubhouse).Refresh(t.Context()))
	commit := reports.last["update"]
	b, c := w.hubs["b.example"].peer, w.hubs["c.example"].peer
	update := func(by *peer.Client, body []byte) (*mimi.UpdateRoomResponse, int) {
		t.Helper()
		answer, err := by.Do(t.Context(), "a.example", peer.Update, clubhouse, body)
		if err != nil {
			return nil, status(err)
		}
		return must[*mimi.UpdateRoomResponse](t)(mimi.ParseUpdateRoomResponse(answer)), 0
	}
	before := w.check(clubhouse, alice, bob)
	if p, _ := update(b, commit); p == nil || p.ResponseCode != mimi.UpdateSuccess || p.AcceptedTimestamp > before.LastAccepted {
		t.Errorf("a commit that is sent again: %+v, want the first answer", p)
	}
	garbled := bytes.Clone(commit)
	garbled[len(garbled)-1] ^= 1 // of the GroupInfo option: another request, of an epoch that is over
	if p, code := update(b, garbled); code != 400 && (p == nil || p.ResponseCode != mimi.UpdateWrongEpoch || p.CurrentEpoch != before.Epoch) {
		t.Errorf("a commit of an epoch that is over: %+v %d", p, code)
	}
	// The next commit of bob's is brought by another provider, garbled, and late.
	reports.cut = true
	_, err := bob.room(clubhouse).Refresh(t.Context())
	if err == nil {
		t.Fatal("a commit came through a net that is cut")
	}
	next := reports.last["update"]
	reports.cut = false
	if _, code := update(c, next); code != 403 {
		t.Errorf("another provider's commit: %d, want 403", code)
	}
	if _, code := update(b, next[:len(next)-1]); code != 400 {
		t.Errorf("a commit that is cut short: %d, want 400", code)
	}
	if _, code := update(b, nil); code != 400 {
		t.Errorf("an empty body: %d, want 400", code)
	}
	if _, err := b.Do(t.Context(), "a.example", peer.Update, "mimi://a.example/r/other", next); status(err) != 404 {
		t.Errorf("a room that is not there: %v, want 404", err)
	}
	if _, err := b.Do(t.Context(), "a.example", peer.Update, "mimi://c.example/r/clubhouse", next); status(err) < 400 || status(err) > 404 {
		t.Errorf("a room of another hub: %v", err)
	}
	signed := bytes.Clone(next)
	signed[len(signed)/3] ^= 1 // somewhere in the commit
	if p, code := update(b, signed); code != 400 && (p == nil || p.ResponseCode == mimi.UpdateSuccess) {
		t.Errorf("a commit with a changed octet: %+v %d", p, code)
	}
	if i := w.check(clubhouse, alice); i.Epoch != before.Epoch {
		t.Errorf("hostile commits brought the room from epoch %d to %d", before.Epoch, i.Epoch)
	}
	ok(t, bob.room(clubhouse).Resume(t.Context()))
	w.check(clubhouse, alice, bob)
}

// A client that speaks for others, or sends what is none, is refused with the
// code that is specified, and has the provider call nobody.
func TestHostileClient(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, adam, bob := w.person("alice/phone@a.example"), w.person("adam/phone@a.example"), w.person("bob/tablet@b.example")
	alice.create(clubhouse, adam, bob)
	alice.say(clubhouse, "one")
	message := w.messageAt(alice, "a.example")
	ask := func(of *person, method, path string, body []byte) int {
		t.Helper()
		c := http.Client{Transport: &http.Transport{TLSClientConfig: of.cfg.TLS, ForceAttemptHTTP2: true}}
		defer c.CloseIdleConnections()
		r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), method, w.hubs["a.example"].url+path, bytes.NewReader(body)))
		resp := must[*http.Response](t)(c.Do(r))
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	room := uri(t, clubhouse)
	submit := func(user mimi.URI) []byte {
		return (&mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: rewrite(t, message), SendingURI: user}).Marshal()
	}
	stranger := *alice
	stranger.cfg.TLS = alice.cfg.TLS.Clone()
	stranger.cfg.TLS.Certificates = []tls.Certificate{selfSigned(t)}
	before, dials := w.check(clubhouse), w.net.Dials()
	for name, c := range map[string]struct {
		of     *person
		method string
		path   string
		body   []byte
		want   int
	}{
		"another user's message":     {adam, "POST", clientapi.MessagesPath(room), submit(alice.User()), 403},
		"a foreign user's message":   {adam, "POST", clientapi.MessagesPath(room), submit(bob.User()), 403},
		"a key that is unknown":      {&stranger, "POST", clientapi.MessagesPath(room), submit(alice.User()), 401},
		"nonsense":                   {adam, "POST", clientapi.MessagesPath(room), []byte("nonsense"), 400},
		"an oversized message":       {adam, "POST", clientapi.MessagesPath(room), make([]byte, 300<<10), 413},
		"an oversized request":       {adam, "POST", clientapi.UpdatePath(room), make([]byte, clientapi.MaxRequest+1), 413},
		"nonsense as an update":      {adam, "POST", clientapi.UpdatePath(room), []byte{1, 2, 3}, 400},
		"a room that is none":        {adam, "POST", clientapi.PathRooms + "/nonsense/update", nil, 400},
		"a room at an address":       {adam, "POST", clientapi.PathRooms + "/mimi%3A%2F%2F127.0.0.1%2Fr%2Fx/group-info", nil, 400},
		"a room at a port":           {adam, "POST", clientapi.PathRooms + "/mimi%3A%2F%2Fb.example%3A22%2Fr%2Fx/group-info", nil, 400},
		"a room that is not there":   {adam, "DELETE", clientapi.RoomPath(uri(t, "mimi://a.example/r/other")), nil, 404},
		"the end of the room":        {adam, "DELETE", clientapi.RoomPath(room), nil, 403},
		"a way that is none":         {adam, "GET", clientapi.Prefix + "/secrets", nil, 404},
		"another's KeyPackages":      {adam, "POST", clientapi.PathKeyMaterial, []byte("x"), 400},
		"events of before the world": {adam, "GET", clientapi.PathEvents + "?after=nonsense", nil, 400},
	} {
		if got := ask(c.of, c.method, c.path, c.body); got != c.want {
			t.Errorf("%s: status %d, want %d", name, got, c.want)
		}
	}
	if got := w.net.Dials(); got != dials {
		t.Errorf("the provider made %d connections for a hostile client", got-dials)
	}
	if after := w.check(clubhouse, alice, adam, bob); after.Epoch != before.Epoch || after.LastAccepted != before.LastAccepted {
		t.Error("something of it was accepted")
	}
}

// A client learns that another provider does not answer, and nothing of the
// network in which its own one looked for it.
func TestUnreachableProviderTellsNothing(t *testing.T) {
	w := newWorld(t, false, "a.example")
	alice := w.person("alice/phone@a.example")
	_, err := alice.Join(t.Context(), uri(t, "mimi://inside.example/r/x"), client.JoinOptions{Role: 2})
	if !clientapi.CodeHubUnreachable.Is(err) || !strings.HasSuffix(err.Error(), "inside.example did not answer") {
		t.Errorf("%v", err)
	}
}
