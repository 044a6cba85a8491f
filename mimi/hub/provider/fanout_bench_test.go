package provider_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// benchFollowers is how many providers follow the room.
const benchFollowers = 100

func followerName(i int) string { return fmt.Sprintf("f%d.example", i) }

// A fanoutBench is a hub with a room that many providers follow, and those
// providers, which take what they are told and keep nothing.
type fanoutBench struct {
	*world
	crowd *crowd
	next  func() *mimi.MLSMessage
	body  []byte // of what one delivery of one message brings

	took  atomic.Int64 // messages that came
	calls atomic.Int64
	done  chan struct{} // has an element when want have come
	want  atomic.Int64
	plain []*http.Client // one for each follower, for bare POSTs
}

func newFanoutBench(b *testing.B, pg bool) *fanoutBench {
	hosts := []string{"a.example"}
	for i := range benchFollowers {
		hosts = append(hosts, followerName(i))
	}
	x := &fanoutBench{world: knownWorld(b, pg, hosts...), done: make(chan struct{}, 1)}
	x.serveFollowers()
	x.hubs["a.example"] = x.start("a.example", x.source(), newHubKeys(b, x.ca, "a.example"))
	x.crowd = x.world.crowd("a.example", "followed", 1)
	x.follow()
	x.next = variants(b, x.message())
	f := mimi.FanoutMessage{Timestamp: 1, Message: x.next(), Frank: &mimi.Frank{CipherSuite: suite, IntegritySignature: make([]byte, 71)}}
	x.body = mimi.Fanout{&f}.Marshal()
	return x
}

// serveFollowers serves all followers, each under its name and over its own
// connections, and a bare handler beside them.
func (x *fanoutBench) serveFollowers() {
	cfg := peer.ServerConfig{Hosts: make(map[string]string), Directories: make(map[string]*peer.Directory), Chains: x.net.Chains(), Log: slog.New(slog.DiscardHandler)}
	var names, bare []string
	for i := range benchFollowers {
		name := followerName(i)
		names, bare = append(names, name), append(bare, "bare-"+name)
		cfg.Hosts[name], cfg.Directories[name] = name, must[*peer.Directory](x.t)(peer.NewDirectory(name, peer.Notify))
	}
	s := peer.NewServer(cfg)
	s.Handle(peer.Notify, func(_ context.Context, r *peer.Request) ([]byte, error) {
		f, err := mimi.ParseFanout(r.Body)
		if err == nil {
			x.calls.Add(1)
			x.came(len(f))
		}
		return nil, err
	})
	x.net.Serve(x.t, s, names...)
	x.net.Serve(x.t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }), bare...)
	cert := x.net.Certificate(x.t, "a.example")
	for range bare {
		x.plain = append(x.plain, &http.Client{Transport: &http.Transport{
			DialContext: x.net.DialContext, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: x.net.Roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		}})
	}
}

func (x *fanoutBench) came(n int) {
	if x.took.Add(int64(n)) == x.want.Load() {
		x.done <- struct{}{}
	}
}

// follow lets a client of each follower into the room, and waits until they
// have heard of it.
func (x *fanoutBench) follow() {
	var list []newcomer
	var users []mimi.URI
	for i := range benchFollowers {
		list = append(list, x.newcomers(followerName(i), 0, 1)...)
		_, user := clientNames(followerName(i), 0)
		users = append(users, uri(x.t, user))
	}
	x.want.Store(benchFollowers) // the Welcome
	x.crowd.send(x.crowd.commit(x.crowd.adding(list, users)...))
	x.crowd.merge()
	<-x.done
}

// message is a message of the member.
func (x *fanoutBench) message() *mimi.MLSMessage {
	aad := must[mls.SafeAAD](x.t)(mls.NewSafeAAD(mls.SafeAADItem{ID: room.ComponentFrankAAD, Data: make([]byte, mimi.FrankingTagSize)}))
	framed := mls.ApplicationFraming{Content: bytes.Repeat([]byte("text "), 50)}
	raw := must[[]byte](x.t)(x.crowd.group.SendContent(x.t.Context(), &framed, aad.Bytes()))
	return must[*mimi.MLSMessage](x.t)(mimi.ParseMLSMessage(raw))
}

// burst has the hub accept n messages one after the other, and waits until all
// followers have them.
func (x *fanoutBench) burst(n int) (calls int64, wall, cpu time.Duration) {
	x.took.Store(0)
	x.calls.Store(0)
	x.want.Store(int64(n * benchFollowers))
	before, begin := cpuTime(), time.Now()
	for range n {
		q := &mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: x.next(), SendingURI: x.crowd.user}
		if r, err := x.crowd.node.Submit(x.t.Context(), hub.From{Provider: "a.example"}, x.crowd.uri, q); err != nil || r.Frank == nil {
			x.t.Fatalf("%+v %v", r, err)
		}
	}
	<-x.done
	return x.calls.Load(), time.Since(begin), cpuTime() - before
}

// bare posts what a delivery brings to every follower, as many at once as the
// hub has workers.
func (x *fanoutBench) bare() (wall, cpu time.Duration) {
	var next atomic.Int64
	var wg sync.WaitGroup
	before, begin := cpuTime(), time.Now()
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < benchFollowers; i = next.Add(1) - 1 {
				r, err := x.plain[i].Post("https://bare-"+followerName(int(i))+"/notify", "application/octet-stream", bytes.NewReader(x.body))
				if err != nil {
					x.t.Error(err)
					return
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		})
	}
	wg.Wait()
	return time.Since(begin), cpuTime() - before
}

// BenchmarkFanout delivers messages to 100 followers over mutual TLS: what a
// delivery costs beside a bare POST of its body, with one message at a time and
// with 32, which share deliveries. CPU is that of hub and followers together, as
// it is for the POST.
func BenchmarkFanout(b *testing.B) {
	engines(b, func(b *testing.B, pg bool) {
		x := newFanoutBench(b, pg)
		x.bare() // connects
		x.burst(1)
		figures := make(map[string][]float64)
		note := func(name string, v float64) { figures[name] = append(figures[name], v) }
		each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / benchFollowers }
		const many = 32
		for b.Loop() {
			bareWall, bare := x.bare()
			note("post-µs", each(bareWall))
			note("post-cpu-µs", each(bare))
			_, wall, cpu := x.burst(1)
			note("delivery-µs", each(wall))
			note("delivery-cpu-µs", each(cpu))
			note("delivery-x-post", float64(wall)/float64(bareWall))
			note("delivery-cpu-x-post", float64(cpu)/float64(bare))
			calls, wall, cpu := x.burst(many)
			note("burst-messages-in-a-delivery", many*benchFollowers/float64(calls))
			note("burst-messages/s", many/wall.Seconds())
			note("burst-cpu-µs", each(cpu)/many)
			note("burst-cpu-x-post", each(cpu)/many/each(bare))
		}
		for name, list := range figures {
			b.ReportMetric(quantile(list, 0.5), name)
		}
		b.ReportMetric(0, "ns/op")
	})
}
