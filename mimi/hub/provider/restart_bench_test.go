package provider_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mls"
)

// size is what a provider's database takes on the disk.
func (n *node) size(tb testing.TB) (octets int64) {
	query := `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`
	if n.db.Dialect() == sqldb.PostgreSQL {
		query = `SELECT pg_database_size(current_database())`
	}
	ok(tb, n.db.QueryRow(context.Background(), query).Scan(&octets))
	return octets
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// eachOf runs f for 0 to n-1 from so many goroutines.
func eachOf(n, goroutines int, f func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	wg.Wait()
}

// small makes a room of one client.
func (w *world) small(host, name string, engine *mls.Client) *crowd {
	c := &crowd{t: w.t, w: w, node: w.hubs[host], uri: uri(w.t, "mimi://"+host+"/r/"+name)}
	client, user := clientNames(host, 0)
	c.from, c.user = hub.From{Provider: host, Client: uri(w.t, client)}, uri(w.t, user)
	c.group = must[*mls.Group](w.t)(engine.CreateGroup(w.t.Context(), nil, mls.GroupOptions{Extensions: c.extensions(host, 1)}))
	info := must[*mls.GroupInfo](w.t)(c.group.GroupInfo(w.t.Context(), mls.GroupInfoOptions{ExternalPub: true}))
	q := &clientapi.CreateRoomRequest{RoomID: c.uri, GroupInfo: info, RatchetTree: mls.FullTree(c.group.RatchetTree())}
	if r := must[*mimi.UpdateRoomResponse](w.t)(c.node.CreateRoom(w.t.Context(), c.from, q)); r.ResponseCode != mimi.UpdateSuccess {
		w.t.Error(r.ErrorDescription)
	}
	return c
}

// BenchmarkRestart starts a provider with 10,000 rooms: the time until it has
// answered its first request, what it holds in memory then, the time to load a
// room when it is first asked for, and what a loaded room holds.
func BenchmarkRestart(b *testing.B) {
	const rooms, loaded = 10_000, 500
	engines(b, func(b *testing.B, pg bool) {
		w := newWorld(b, pg, "a.example")
		engine := w.engine("a.example", 0)
		n := w.hubs["a.example"]
		empty := n.size(b)
		all := make([]mimi.URI, rooms)
		eachOf(rooms, 16, func(i int) { all[i] = w.small("a.example", fmt.Sprint(i), engine).uri })
		perRoom := float64(n.size(b)-empty) / rooms
		_, user := clientNames("a.example", 0)
		ask := func(n *node, i int) {
			if _, err := n.AssetPolicy(context.Background(), uri(b, user), all[i]); err != nil {
				b.Fatal(err)
			}
		}
		var ready, load, held, holds []float64
		for b.Loop() {
			n.stop()
			before, begin := heap(), time.Now()
			n = w.start("a.example", n.source, n.keys)
			ask(n, 0)
			ready = append(ready, float64(time.Since(begin).Microseconds())/1e3)
			started := heap()
			held = append(held, float64(started-before)/1e6)
			begin = time.Now()
			for i := range loaded {
				ask(n, 1+i*(rooms/loaded-1))
			}
			load = append(load, float64(time.Since(begin).Microseconds())/loaded)
			holds = append(holds, float64(heap()-started)/loaded/1e3)
		}
		b.ReportMetric(perRoom, "disk-octets/room")
		b.ReportMetric(quantile(ready, 0.5), "ready-ms")
		b.ReportMetric(quantile(held, 0.5), "started-heap-MB")
		b.ReportMetric(quantile(load, 0.5), "first-use-of-a-room-µs")
		b.ReportMetric(quantile(holds, 0.5), "heap-kB/loaded-room")
		b.ReportMetric(0, "ns/op")
	})
}

// BenchmarkDisk reports what a message takes on the disk beyond its own octets,
// with all indexes.
func BenchmarkDisk(b *testing.B) {
	const messages = 5000
	engines(b, func(b *testing.B, pg bool) {
		w := newWorld(b, pg, "a.example")
		c := w.small("a.example", "one", w.engine("a.example", 0))
		x := &fanoutBench{world: w, crowd: c}
		m := x.message()
		next := variants(b, m)
		var took []float64
		for b.Loop() {
			before := c.node.size(b)
			eachOf(messages, 32, func(int) {
				q := &mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: next(), SendingURI: c.user}
				if r, err := c.node.Submit(context.Background(), c.from, c.uri, q); err != nil || r.Frank == nil {
					b.Errorf("%+v %v", r, err)
				}
			})
			took = append(took, float64(c.node.size(b)-before)/messages)
		}
		b.ReportMetric(float64(len(m.Bytes())), "message-octets")
		b.ReportMetric(quantile(took, 0.5), "disk-octets/message")
		b.ReportMetric(0, "ns/op")
	})
}
