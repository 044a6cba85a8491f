package provider_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/peer"
)

// marks are when a message passed the places on its way.
type marks struct {
	mu sync.Mutex // guards at
	at map[string]time.Time
}

func (m *marks) set(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at[name] = time.Now()
}

func (m *marks) take() map[string]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.at
	m.at = make(map[string]time.Time)
	return was
}

// RoundTrip marks the submission of the sender, and what comes on the events of
// the receiver.
type marked struct {
	*marks
	next http.RoundTripper
}

func (m marked) RoundTrip(r *http.Request) (*http.Response, error) {
	submits := r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/messages")
	if submits {
		m.set("submit")
	}
	resp, err := m.next.RoundTrip(r)
	switch {
	case submits:
		m.set("accepted")
	case err == nil && r.URL.Path == clientapi.PathEvents:
		resp.Body = markedBody{m.marks, resp.Body}
	}
	return resp, err
}

type markedBody struct {
	*marks
	io.ReadCloser
}

func (b markedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.set("came")
	}
	return n, err
}

// markedPeers marks the calls to the follower.
type markedPeers struct {
	*marks
	provider.Peers
}

func (p markedPeers) Do(ctx context.Context, domain string, e peer.Endpoint, variable string, body []byte) ([]byte, error) {
	if e == peer.Notify {
		p.set("notify")
		defer p.set("followed")
	}
	return p.Peers.Do(ctx, domain, e, variable, body)
}

// BenchmarkSubmitToReceive follows messages from a client of one provider to a
// client of another, one at a time, over mutual TLS with software keys, and
// reports by stages how long they take.
func BenchmarkSubmitToReceive(b *testing.B) {
	engines(b, func(b *testing.B, pg bool) {
		m := &marks{at: make(map[string]time.Time)}
		w := newWorldWith(b, pg, func(_ *world, n *node, c *provider.Config) {
			if n.host == "a.example" {
				c.Peers = markedPeers{m, c.Peers}
			}
		}, "a.example", "b.example")
		mark := func(c *client.Config) { c.Wrap = func(rt http.RoundTripper) http.RoundTripper { return marked{m, rt} } }
		alice, bob := w.person("alice/phone@a.example", mark), w.person("bob/tablet@b.example", mark)
		r := alice.create(clubhouse, bob)
		told := make(chan struct{}, 1)
		ctx, stop := context.WithCancel(b.Context())
		var watching sync.WaitGroup
		watching.Go(func() { bob.Watch(ctx, func() { m.set("told"); told <- struct{}{} }) })
		b.Cleanup(func() { stop(); watching.Wait() })
		alice.say(clubhouse, "first")
		<-told
		stages := []struct{ name, from, to string }{
			{"seal", "begin", "submit"}, {"accept", "submit", "accepted"}, {"file", "accepted", "filed"}, {"due", "accepted", "notify"},
			{"follow", "notify", "followed"}, {"stream", "followed", "came"}, {"open", "came", "told"}, {"all", "begin", "told"},
		}
		took := make(map[string][]float64)
		for b.Loop() {
			for i := range 100 {
				m.take()
				m.set("begin")
				must[*client.Sent](b)(r.Text(b.Context(), fmt.Sprint(i)))
				m.set("filed")
				<-told
				time.Sleep(2 * time.Millisecond) // the answer to the hub may be behind the event
				at := m.take()
				for _, s := range stages {
					took[s.name] = append(took[s.name], float64(at[s.to].Sub(at[s.from]).Microseconds()))
				}
			}
		}
		for name, list := range took {
			b.ReportMetric(quantile(list, 0.5), name+"-p50-µs")
			b.ReportMetric(quantile(list, 0.99), name+"-p99-µs")
		}
		b.ReportMetric(0, "ns/op")
	})
}
