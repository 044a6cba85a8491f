package ohttp_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/bhttp"
	"github.com/privyseal/privyseal/internal/ohttp"
	"github.com/privyseal/privyseal/internal/problem"
	hubohttp "github.com/privyseal/privyseal/mimi/hub/ohttp"
	"github.com/privyseal/privyseal/mimi/peer"
)

// A gate is a Fetcher that gives nothing until it is opened, and counts who
// waits.
type gate struct {
	open    chan struct{}
	arrived chan struct{}
	in, max atomic.Int32
}

func (g *gate) Fetch(context.Context, string, int64) ([]byte, error) {
	n := g.in.Add(1)
	defer g.in.Add(-1)
	for most := g.max.Load(); n > most && !g.max.CompareAndSwap(most, n); most = g.max.Load() {
	}
	g.arrived <- struct{}{}
	<-g.open
	return []byte("asset"), nil
}

// A gateway seals eight assets at a time. Others wait until one is done, or are
// told to come again when they do not want to wait longer.
func TestGatewayIsBounded(t *testing.T) {
	const bound, more = 8, 5
	keys, err := ohttp.NewKeys(bytes.Repeat([]byte{7}, 32), time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.Current()
	if err != nil {
		t.Fatal(err)
	}
	from := &gate{open: make(chan struct{}), arrived: make(chan struct{}, bound+more)}
	gateway := hubohttp.NewGateway(keys, from, 0)
	serve := func(ctx context.Context) (*httptest.ResponseRecorder, *ohttp.Context, error) {
		q, err := (&bhttp.Request{Method: "GET", Scheme: "https", Authority: "assets.h.example", Path: "/x"}).Marshal()
		if err != nil {
			t.Error(err)
		}
		sealed, opener, err := ohttp.SealRequest(key.Config, q)
		if err != nil {
			t.Error(err)
		}
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(sealed))
		r.Header.Set("Content-Type", ohttp.MediaTypeRequest)
		w := httptest.NewRecorder()
		return w, opener, gateway.Serve(w, r)
	}
	var all sync.WaitGroup
	for range bound + more {
		all.Go(func() {
			w, opener, err := serve(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			b, err := opener.OpenResponse(w.Body.Bytes())
			if err != nil {
				t.Error(err)
				return
			}
			if p, err := bhttp.ParseResponse(b); err != nil || p.Status != http.StatusOK || string(p.Content) != "asset" {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	for range bound {
		<-from.arrived
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := serve(impatient); err == nil || problem.Of(err).Status != http.StatusServiceUnavailable {
		t.Errorf("who does not wait while eight are under way: %v", err)
	}
	close(from.open)
	all.Wait()
	if n := from.max.Load(); n != bound {
		t.Errorf("%d assets were under way at once, want %d", n, bound)
	}
}

// An answer that breaks off on its way from the gateway breaks off for the
// client: it does not take a part for the whole. The next one arrives.
func TestStreamBreaks(t *testing.T) {
	s := newScene(t)
	key := s.keys(t)
	whole := bytes.Repeat([]byte("sealed "), 100_000)
	var broken atomic.Int32
	dir, err := peer.NewDirectory("gone.example", peer.OHTTPGateway)
	if err != nil {
		t.Fatal(err)
	}
	server := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{"gone.example": "gone.example"}, Directories: map[string]*peer.Directory{"gone.example": dir}, Chains: s.net.Chains(),
	})
	server.HandleStream(peer.OHTTPGateway, func(w http.ResponseWriter, r *peer.Request) error {
		w.Header().Set("Content-Type", ohttp.MediaTypeResponse)
		n := broken.Add(1)
		if n == 1 { // told how long it would be, and not
			w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
		}
		if n > 2 {
			_, err := w.Write(whole)
			return err
		}
		w.Write(whole[:len(whole)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	s.net.Serve(t, server, "gone.example")
	sealed, _, err := ohttp.SealRequest(key, []byte("a request"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func() ([]byte, error) {
		resp, err := http.Post(s.url("gone.example"), ohttp.MediaTypeRequest, bytes.NewReader(sealed))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		return io.ReadAll(resp.Body)
	}
	for i := range 2 {
		if b, err := ask(); err == nil {
			t.Errorf("answer %d broke off, and the client has %d octets of %d and no error", i+1, len(b), len(whole))
		}
	}
	if b, err := ask(); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("the next answer has %d octets of %d: %v", len(b), len(whole), err)
	}
}
