//go:build soak

package stack

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// settled waits until the load has ended, nothing waits anywhere, and all have
// the same; and then checks it.
func (w *world) settled() {
	w.t.Helper()
	reports := w.converge(w.unsettled)
	w.nothingRefused(reports)
	for _, room := range rooms {
		list := reports[0].Rooms[room].Messages
		for _, what := range wrong(room, list, w.tally.acks) {
			w.t.Errorf("%s: %s", room, what)
		}
		w.t.Logf("%s: %d messages", room, len(list))
	}
}

// nothingRefused checks that clients took in everything that came, and that
// faults explain all errors. A message whose generation was used before is
// refused.
func (w *world) nothingRefused(reports []*report) {
	w.t.Helper()
	for _, s := range w.tally.surprises {
		w.t.Error(s)
	}
	for i, p := range reports {
		for _, reason := range p.Refused {
			w.t.Errorf("%s refused: %s", users[i], reason)
		}
	}
}

// unsettled says what is not yet as it must be in the end.
func (w *world) unsettled(reports []*report) string {
	for i, p := range reports {
		if p.Waiting > 0 {
			return fmt.Sprintf("%s has %d things in the outbox or open", users[i], p.Waiting)
		}
	}
	for i, room := range rooms {
		hub := new(hubView)
		if err := w.providers[hosts[i]].ask(&order{Do: "inspect", Room: room}, hub); err != nil {
			return err.Error()
		}
		if what := disagree(hub, room, reports); what != "" {
			return room + ": " + what
		}
	}
	return ""
}

// disagree says in what a room at its members differs from that at its hub, or
// from one member to another.
func disagree(hub *hubView, room string, reports []*report) string {
	if hub.Pending > 0 || hub.Due > 0 {
		return fmt.Sprintf("the hub has %d proposals pending and %d followers to tell", hub.Pending, hub.Due)
	}
	first := reports[0].Rooms[room]
	for i, p := range reports {
		v := p.Rooms[room]
		switch {
		case v == nil || v.Status != "member":
			return users[i] + " is no member"
		case v.Epoch != hub.Epoch || !bytes.Equal(v.Context, hub.Context):
			return fmt.Sprintf("%s is in epoch %d with GroupContext %x, the hub in %d with %x", users[i], v.Epoch, v.Context, hub.Epoch, hub.Context)
		case !bytes.Equal(v.Authenticator, first.Authenticator):
			return fmt.Sprintf("%s and %s have different epoch_authenticators", users[i], users[0])
		case v.Members != hub.Members || v.Members != len(users):
			return fmt.Sprintf("%s sees %d clients, the hub %d, of %d", users[i], v.Members, hub.Members, len(users))
		case v.Pending > 0:
			return fmt.Sprintf("%s has %d proposals pending", users[i], v.Pending)
		case !slices.Equal(v.Messages, first.Messages):
			return differ(users[0], first.Messages, users[i], v.Messages)
		}
	}
	return ""
}

// differ says where two archives part.
func differ(a string, x []heard, b string, y []heard) string {
	i := 0
	for i < min(len(x), len(y)) && x[i] == y[i] {
		i++
	}
	at := func(list []heard) any {
		if i < len(list) {
			return list[i]
		}
		return "nothing"
	}
	return fmt.Sprintf("%s has %d messages, %s %d; the first that differs is the one at %d: %v and %v", a, len(x), b, len(y), i, at(x), at(y))
}

// wrong lists what is wrong with an archive, which is everybody's, and with it
// as what became of the messages that were acknowledged.
func wrong(room string, list []heard, acks []ack) (what []string) {
	complain := func(format string, args ...any) { what = append(what, fmt.Sprintf(format, args...)) }
	ids, texts := make(map[string]string), make(map[string]int)
	var last int64
	for _, m := range list {
		ids[m.ID] = m.Text
		texts[m.Text]++
		if m.Accepted <= last {
			complain("%q was accepted at %d, after one of %d", m.Text, m.Accepted, last)
		}
		last = m.Accepted
		if name, _, _ := strings.Cut(m.Text, "."); !strings.Contains(m.Client, "/d/"+name+"/") {
			complain("%q is said to be of %s", m.Text, m.Client)
		}
		if m.NotFranked != "" {
			complain("%q is not franked: %s", m.Text, m.NotFranked)
		}
	}
	for text, n := range texts {
		if n != 1 {
			complain("%q is there %d times", text, n)
		}
	}
	for _, a := range acks {
		if a.Room == room && ids[a.ID] != a.Text {
			complain("%q was acknowledged and is not there", a.Text)
		}
	}
	return what
}

// lastWords has every client commit and speak in every room once more, which a
// member succeeds in only if it agrees with the hub, and read all of it.
func (w *world) lastWords() {
	w.t.Helper()
	for _, c := range w.clients {
		for _, room := range rooms {
			w.try(c.ask(&order{Do: "last", Room: room}, nil))
		}
	}
	reports := w.converge(w.unsettled)
	for _, room := range rooms {
		list := reports[0].Rooms[room].Messages
		for _, u := range users {
			name, _, _ := strings.Cut(u, "@")
			if !slices.ContainsFunc(list, func(m heard) bool { return m.Text == name+".last" }) {
				w.t.Errorf("%s: the last message of %s is not there", room, u)
			}
		}
	}
}

// agreed is a room that everybody has alike, with what was acknowledged in it.
func agreed() (*hubView, []*report, []ack) {
	const room = "mimi://a.example/r/clubhouse"
	hub := &hubView{Epoch: 7, Context: []byte("context"), Members: len(users)}
	var reports []*report
	for range users {
		v := &view{Status: "member", Epoch: 7, Context: []byte("context"), Authenticator: []byte("authenticator"), Members: len(users)}
		for n, name := range []string{"alice", "bob", "alice"} {
			v.Messages = append(v.Messages, heard{ID: fmt.Sprint(n), Client: "mimi://a.example/d/" + name + "/phone", Text: fmt.Sprintf("%s.1.%d", name, n), Accepted: int64(n + 1)})
		}
		reports = append(reports, &report{Rooms: map[string]*view{room: v}})
	}
	return hub, reports, []ack{{room, "alice.1.0", "0"}, {room, "alice.1.2", "2"}}
}

// The checker finds each thing that it is there for.
func TestChecker(t *testing.T) {
	const room = "mimi://a.example/r/clubhouse"
	for name, spoil := range map[string]func(h *hubView, v *view, a []ack){
		"nothing":             func(*hubView, *view, []ack) {},
		"another status":      func(_ *hubView, v *view, _ []ack) { v.Status = "lost" },
		"another epoch":       func(_ *hubView, v *view, _ []ack) { v.Epoch++ },
		"another context":     func(h *hubView, _ *view, _ []ack) { h.Context = []byte("other") },
		"another secret":      func(_ *hubView, v *view, _ []ack) { v.Authenticator = []byte("other") },
		"another member":      func(_ *hubView, v *view, _ []ack) { v.Members++ },
		"a proposal":          func(_ *hubView, v *view, _ []ack) { v.Pending++ },
		"a proposal at a hub": func(h *hubView, _ *view, _ []ack) { h.Pending++ },
		"a late follower":     func(h *hubView, _ *view, _ []ack) { h.Due++ },
		"a message lost":      func(_ *hubView, v *view, _ []ack) { v.Messages = v.Messages[:2] },
		"a message twice":     func(_ *hubView, v *view, _ []ack) { v.Messages = append(v.Messages, v.Messages[2]) },
		"another order":       func(_ *hubView, v *view, _ []ack) { v.Messages[0], v.Messages[1] = v.Messages[1], v.Messages[0] },
		"another sender":      func(_ *hubView, v *view, _ []ack) { v.Messages[0].Client = v.Messages[1].Client },
		"no frank":            func(_ *hubView, v *view, _ []ack) { v.Messages[0].NotFranked = "mac" },
		"an ack for nothing":  func(_ *hubView, _ *view, a []ack) { a[0].ID = "9" },
	} {
		t.Run(name, func(t *testing.T) {
			for _, everywhere := range []bool{false, true} {
				hub, reports, acks := agreed()
				for i, p := range reports {
					if everywhere || i == len(reports)-1 {
						spoil(hub, p.Rooms[room], acks)
					}
				}
				found := disagree(hub, room, reports) != "" || len(wrong(room, reports[0].Rooms[room].Messages, acks)) > 0
				shared := name == "another secret" // all have it
				if want := name != "nothing" && !(shared && everywhere); found != want {
					t.Errorf("everywhere %v: found is %v", everywhere, found)
				}
			}
		})
	}
}
