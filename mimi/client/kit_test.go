package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func uri(t testing.TB, s string) mimi.URI { t.Helper(); return must[mimi.URI](t)(mimi.ParseURI(s)) }

const clubhouse = "mimi://a.example/r/clubhouse"

// A person is a client with what it takes to open it again.
type person struct {
	*client.Client
	t    testing.TB
	cfg  client.Config
	name string // user/device at host
}

// A mod changes how a client is opened.
type mod func(*client.Config)

func wrapped(f *clienttest.Faults) mod {
	return func(c *client.Config) { c.Wrap = func(rt http.RoundTripper) http.RoundTripper { return f.Wrap(rt) } }
}

// newPerson opens and registers a client named like alice/phone@a.example,
// with a certificate and a software key in the place of a device.
func newPerson(t testing.TB, h *clienttest.Hub, name string, mods ...mod) *person {
	t.Helper()
	local, host, _ := strings.Cut(name, "@")
	user, _, _ := strings.Cut(local, "/")
	key := identitytest.NewKey(t)
	p := &person{t: t, name: name, cfg: client.Config{
		State: filepath.Join(t.TempDir(), "state.db"),
		Custody: client.Custody{
			Mode: client.Device, Key: key,
			Credential: h.CA.Client(t, &key.PublicKey, fmt.Sprintf("mimi://%s/d/%s", host, local), fmt.Sprintf("mimi://%s/u/%s", host, user)),
		},
		Judge: client.TrustJudge{Evaluator: h.Evaluator}, Provider: h.URL, TLS: h.ClientTLS(t), KeyPackages: 3,
	}}
	for _, m := range mods {
		m(&p.cfg)
	}
	p.open()
	must[any](t)(p.Register(t.Context(), nil))
	return p
}

func (p *person) open() {
	p.t.Helper()
	p.Client = must[*client.Client](p.t)(client.Open(context.Background(), p.cfg))
	c := p.Client
	p.t.Cleanup(func() { c.Close() })
}

// restart closes the client and opens it again.
func (p *person) restart() {
	p.t.Helper()
	ok(p.t, p.Client.Close())
	p.open()
}

func (p *person) sync() {
	p.t.Helper()
	ok(p.t, p.Sync(p.t.Context()))
}

func (p *person) room(s string) *client.Room {
	p.t.Helper()
	return must[*client.Room](p.t)(p.Room(p.t.Context(), uri(p.t, s)))
}

// create makes a room with others in it, who have joined.
func (p *person) create(s string, others ...*person) *client.Room {
	p.t.Helper()
	r := must[*client.Room](p.t)(p.CreateRoom(p.t.Context(), uri(p.t, s), client.RoomOptions{Metadata: mimi.RoomMetaData{RoomName: "Clubhouse"}}))
	for _, o := range others {
		must[*client.Committed](p.t)(r.Add(p.t.Context(), o.User(), client.AddOptions{}))
	}
	for _, o := range others {
		o.sync()
	}
	return r
}

func (p *person) say(room, text string) *client.Sent {
	p.t.Helper()
	s := must[*client.Sent](p.t)(p.room(room).Text(p.t.Context(), text))
	if s.NotFranked != "" {
		p.t.Fatalf("%s: own message is not franked: %s", p.name, s.NotFranked)
	}
	return s
}

// texts are the texts of a room's messages, with their kinds.
func (p *person) texts(room string) string {
	p.t.Helper()
	var list []string
	for _, m := range must[[]*client.Message](p.t)(p.room(room).Messages(p.t.Context(), noTime)) {
		list = append(list, m.Kind+":"+textOf(m.Content))
	}
	return strings.Join(list, " ")
}

func textOf(m *content.Message) string {
	if s, ok := m.Body.Content.(*content.SinglePart); ok {
		return string(s.Content)
	}
	return ""
}

func (p *person) wantTexts(room, want string) {
	p.t.Helper()
	if got := p.texts(room); got != want {
		p.t.Errorf("%s has %q, want %q", p.name, got, want)
	}
}

// wantStatus compares how a client stands to a room.
func (p *person) wantStatus(room string, want client.RoomStatus) {
	p.t.Helper()
	r, err := p.Room(p.t.Context(), uri(p.t, room))
	if errors.Is(err, client.ErrNoRoom) {
		if want != "" {
			p.t.Errorf("%s has no room %s, want %s", p.name, room, want)
		}
		return
	}
	ok(p.t, err)
	if got, detail := r.Status(); got != want {
		p.t.Errorf("%s is %q in %s (%s), want %q", p.name, got, room, detail, want)
	}
}

// agree checks that clients and hub have the same epoch, tree and components.
func agree(t testing.TB, h *clienttest.Hub, room string, people ...*person) {
	t.Helper()
	at := h.Room(uri(t, room))
	var authenticator string
	for _, p := range people {
		i := must[*client.Info](t)(p.room(room).Info(t.Context()))
		if i.Epoch != at.Epoch() {
			t.Errorf("%s is in epoch %d, the hub in %d", p.name, i.Epoch, at.Epoch())
		}
		if authenticator == "" {
			authenticator = string(i.Authenticator)
		}
		if string(i.Authenticator) != authenticator {
			t.Errorf("%s has another epoch_authenticator", p.name)
		}
		n := 0
		for _, q := range i.Participants {
			n += len(q.Clients)
		}
		if n != at.Size() {
			t.Errorf("%s sees %d clients, the hub %d", p.name, n, at.Size())
		}
	}
}

// nothingRefused checks that a client took in everything that came.
func (p *person) nothingRefused() {
	p.t.Helper()
	for _, f := range must[[]client.Refused](p.t)(p.Refused(p.t.Context())) {
		p.t.Errorf("%s refused: %s", p.name, f.Reason)
	}
}
