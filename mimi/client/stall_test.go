package client_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// A halfway body has some octets, and then nothing until its request ends.
type halfway struct {
	io.Reader
	q *http.Request
}

func (h *halfway) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if err == io.EOF {
		<-h.q.Context().Done()
		err = h.q.Context().Err()
	}
	return n, err
}

func (h *halfway) Close() error { return nil }

// A provider that stops in the middle of an answer, or of taking a request, holds
// its client for a while and not for ever; what it was asked is asked again.
func TestStalledProvider(t *testing.T) {
	for name, stall := range map[string]func(rt http.RoundTripper, q *http.Request) (*http.Response, error){
		"answer": func(rt http.RoundTripper, q *http.Request) (*http.Response, error) {
			resp, err := rt.RoundTrip(q)
			if err != nil {
				return nil, err
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			resp.Body = &halfway{strings.NewReader(string(b[:len(b)/2])), q}
			return resp, err
		},
		"request": func(_ http.RoundTripper, q *http.Request) (*http.Response, error) {
			q.Body.Read(make([]byte, 1)) // and no more of it
			<-q.Context().Done()
			q.Body.Close()
			return nil, q.Context().Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := clienttest.NewHub(t, "a.example")
			var stalls atomic.Int32
			alice := newPerson(t, h, "alice/phone@a.example", func(c *client.Config) {
				c.Wrap = func(rt http.RoundTripper) http.RoundTripper {
					return roundTrip(func(q *http.Request) (*http.Response, error) {
						if q.URL.EscapedPath() == clientapi.UpdatePath(uri(t, clubhouse)) && stalls.Add(-1) >= 0 {
							return stall(rt, q)
						}
						return rt.RoundTrip(q)
					})
				}
			})
			bob := newPerson(t, h, "bob/tablet@a.example")
			r := alice.create(clubhouse, bob)
			alice.SetStall(500 * time.Millisecond)
			stalls.Store(2)
			must[*client.Committed](t)(r.Refresh(t.Context()))
			if stalls.Load() >= 0 {
				t.Error("nothing has stalled")
			}
			bob.sync()
			agree(t, h, clubhouse, alice, bob)
		})
	}
}
