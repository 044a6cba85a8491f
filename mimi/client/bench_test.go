package client_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// A clocked transport notes how long the provider takes to accept messages.
type clocked struct {
	next http.RoundTripper
	mu   sync.Mutex // guards took
	took []time.Duration
}

func (c *clocked) RoundTrip(r *http.Request) (*http.Response, error) {
	begin := time.Now()
	resp, err := c.next.RoundTrip(r)
	if r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, clientapi.PathRooms) && strings.HasSuffix(r.URL.Path, "/messages") {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.took = append(c.took, time.Since(begin))
	}
	return resp, err
}

func quantile(list []time.Duration, q float64) float64 {
	slices.Sort(list)
	return float64(list[int(q*float64(len(list)-1))].Microseconds())
}

// BenchmarkSubmitToReceive measures by stages how long a message takes from
// one client to another over loopback: encrypting, signing and storing it
// (seal), its way to the hub with the hub's decision and frank (accept), filing
// the answer (file), and the way to the receiver who decrypts it, verifies it
// and stores it (receive). The hub keeps everything in memory.
func BenchmarkSubmitToReceive(b *testing.B) {
	h := clienttest.NewHub(b, "a.example", "b.example")
	clock := new(clocked)
	alice := newPerson(b, h, "alice/phone@a.example", func(c *client.Config) {
		c.Wrap = func(rt http.RoundTripper) http.RoundTripper { clock.next = rt; return clock }
	})
	bob := newPerson(b, h, "bob/tablet@b.example")
	r := alice.create(clubhouse, bob)
	told := make(chan struct{}, 1)
	go bob.Watch(b.Context(), func() { told <- struct{}{} })
	must[any](b)(r.Text(b.Context(), "first"))
	<-told
	clock.took = nil
	var send, receive, total []time.Duration
	b.ResetTimer()
	for i := range b.N {
		begin := time.Now()
		must[any](b)(r.Text(b.Context(), fmt.Sprint(i)))
		accepted := time.Now()
		<-told
		send, total = append(send, accepted.Sub(begin)), append(total, time.Since(begin))
		receive = append(receive, time.Since(accepted))
	}
	b.StopTimer()
	var local []time.Duration
	for i, d := range send {
		local = append(local, d-clock.took[i])
	}
	for name, list := range map[string][]time.Duration{"seal+file": local, "accept": clock.took, "receive": receive, "total": total} {
		b.ReportMetric(quantile(list, 0.5), name+"-p50-µs")
		b.ReportMetric(quantile(list, 0.99), name+"-p99-µs")
	}
}
