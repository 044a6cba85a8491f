package stack

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// settled waits until the load has ended, nothing waits anywhere, and all have
// the same; and then checks it.
func (w *world) settled() {
	w.t.Helper()
	reports := w.converge(w.unsettled)
	for _, s := range w.tally.surprises {
		w.t.Error(s)
	}
	for i, p := range reports {
		for _, reason := range p.Refused {
			w.t.Errorf("%s refused: %s", users[i], reason)
		}
	}
	for _, room := range rooms {
		w.checkMessages(room, reports[0].Rooms[room].Messages)
	}
}

// unsettled says what is not yet as it must be in the end.
func (w *world) unsettled(reports []*report) string {
	for i, p := range reports {
		if p.Waiting > 0 {
			return fmt.Sprintf("%s has %d things in the outbox or open", users[i], p.Waiting)
		}
	}
	for _, room := range rooms {
		if what := w.disagree(room, reports); what != "" {
			return room + ": " + what
		}
	}
	return ""
}

// disagree compares a room at its members and at its hub.
func (w *world) disagree(room string, reports []*report) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(room, "mimi://"), "/")
	hub := new(hubView)
	if err := w.providers[host].ask(&order{Do: "inspect", Room: room}, hub); err != nil {
		return err.Error()
	}
	if hub.Pending > 0 || hub.Due > 0 {
		return fmt.Sprintf("the hub has %d proposals pending and %d followers to tell", hub.Pending, hub.Due)
	}
	first := reports[0].Rooms[room]
	for i, p := range reports {
		v := p.Rooms[room]
		switch {
		case v.Status != "member":
			return fmt.Sprintf("%s is %s", users[i], v.Status)
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

// checkMessages checks an archive, which is everybody's, against what was
// acknowledged.
func (w *world) checkMessages(room string, list []heard) {
	w.t.Helper()
	ids, texts := make(map[string]bool), make(map[string]int)
	var last int64
	for _, m := range list {
		ids[m.ID] = true
		texts[m.Text]++
		if m.Accepted <= last {
			w.t.Errorf("%s: %q was accepted at %d, after one of %d", room, m.Text, m.Accepted, last)
		}
		last = m.Accepted
		name, _, _ := strings.Cut(m.Text, ".")
		if !strings.Contains(m.Client, "/d/"+name+"/") {
			w.t.Errorf("%s: %q is said to be of %s", room, m.Text, m.Client)
		}
		if m.NotFranked != "" {
			w.t.Errorf("%s: %q is not franked: %s", room, m.Text, m.NotFranked)
		}
	}
	for text, n := range texts {
		if n != 1 {
			w.t.Errorf("%s: %q is there %d times", room, text, n)
		}
	}
	for _, a := range w.tally.acks {
		if a.Room == room && (!ids[a.ID] || texts[a.Text] != 1) {
			w.t.Errorf("%s: %q was acknowledged and is not there", room, a.Text)
		}
	}
	w.t.Logf("%s: %d messages", room, len(list))
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
