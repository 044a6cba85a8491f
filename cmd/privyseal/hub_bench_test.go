package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/telemetry"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// benchRooms is how many rooms the messages of a hub benchmark go to: flushes
// are shared across rooms.
const benchRooms = 8

// A hubBench is serve with a provider whose keys are in a device, as serve runs
// it, and messages that it accepts.
type hubBench struct {
	*providerTest
	device  string
	service *provider.Service
	load    hubLoad

	rooms    []mimi.URI
	requests []*mimi.SubmitMessageRequest
	next     uint64
	user     mimi.URI
}

// newHubBench runs a provider with its keys in a device. database is a
// PostgreSQL for all state, or "" for SQLite files.
func newHubBench(t testing.TB, o initOptions, device, database string) *hubBench {
	t.Helper()
	t.Cleanup(daemon.SpareHeap()) // as serve has it
	w := benchWiring(t, o, database)
	b := &hubBench{providerTest: newProviderOn(t, w, device), device: device}
	s := b.serve(t)
	var caught messageCatcher
	config := deviceTLS(t, b.roots)
	alice, _ := member(t, b.ca, s, b.judge, config, "alice", func(c *client.Config) {
		c.Wrap = func(rt http.RoundTripper) http.RoundTripper { caught.next = rt; return &caught }
	})
	b.user = alice.User()
	for i := range benchRooms {
		uri, err := mimi.ParseURI(fmt.Sprintf("mimi://a.example/r/%d", i))
		if err != nil {
			t.Fatal(err)
		}
		room, err := alice.CreateRoom(t.Context(), uri, client.RoomOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if sent, err := room.Text(t.Context(), strings.Repeat("a message of usual length. ", 8)); err != nil || sent.NotFranked != "" {
			t.Fatalf("%+v %v", sent, err)
		}
		b.rooms = append(b.rooms, uri)
	}
	b.messages(t, &caught)
	b.caller(t, s, config)
	return b
}

// benchWiring is wireTest with PKCS#11 modules in this process, where their CPU
// can be told from ours by a bare loop, and with a database.
func benchWiring(t testing.TB, o initOptions, database string) *wiring {
	t.Helper()
	config, err := initState(t.Context(), filepath.Join(t.TempDir(), "home", configName), o)
	if err != nil {
		t.Fatal(err)
	}
	config.Database = database
	w, err := newWiring(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// serve runs the services as "privyseal serve" does, and keeps the provider.
func (b *hubBench) serve(t testing.TB) *served {
	t.Helper()
	if err := b.config.check(); err != nil {
		t.Fatal(err)
	}
	p := &process{wiring: b.wiring, log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		metrics: telemetry.NewMetrics(buildInfo()), notify: new(daemon.Notifier)}
	p.instrument(p.metrics, p.log)
	components, err := p.components(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range components {
		if c, ok := c.Component.(*providerComponent); ok {
			b.service = c.service
		}
	}
	listeners, err := listen(t.Context(), b.wiring, p.log)
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, addr: make(map[string]string), done: make(chan error, 1)}
	for _, l := range listeners {
		s.addr[l.Name()] = l.Addr().String()
	}
	if s.daemon, err = daemon.New(p.daemonConfig(components, listeners)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() { s.done <- s.daemon.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-s.done; err != nil {
			t.Error(err)
		}
	})
	s.eventually("ready", func() bool { code, _ := s.page("/health/ready"); return code == http.StatusOK })
	return s
}

// A messageCatcher keeps what a client sends to the rooms.
type messageCatcher struct {
	next  http.RoundTripper
	mu    sync.Mutex // guards what follows
	paths []string
	sent  [][]byte
}

func (m *messageCatcher) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/messages") {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		m.mu.Lock()
		m.paths, m.sent = append(m.paths, r.URL.EscapedPath()), append(m.sent, b)
		m.mu.Unlock()
	}
	return m.next.RoundTrip(r)
}

func (b *hubBench) messages(t testing.TB, caught *messageCatcher) {
	t.Helper()
	for i, raw := range caught.sent {
		q, err := mimi.ParseSubmitMessageRequest(raw)
		if err != nil {
			t.Fatal(err)
		}
		b.requests = append(b.requests, q)
		text, err := json.Marshal(map[string]any{"Room": caught.paths[i], "Request": raw})
		if err != nil {
			t.Fatal(err)
		}
		b.load.Messages = append(b.load.Messages, text)
	}
	if len(b.requests) != benchRooms {
		t.Fatalf("%d messages were sent to %d rooms", len(b.requests), benchRooms)
	}
}

// caller fills in how the process of the callers reaches us.
func (b *hubBench) caller(t testing.TB, s *served, config *tls.Config) {
	t.Helper()
	root, err := tls.Dial("tcp", s.addr["clients"], &tls.Config{RootCAs: b.roots, Certificates: config.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	chain := root.ConnectionState().VerifiedChains[0]
	root.Close()
	key, err := x509.MarshalPKCS8PrivateKey(config.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	b.load.Server, b.load.Roots = "https://"+s.addr["clients"], text("CERTIFICATE", chain[len(chain)-1].Raw)
	b.load.Certificate, b.load.Key = text("CERTIFICATE", config.Certificates[0].Certificate[0]), text("PRIVATE KEY", key)
}

// bare has the device make n MACs and signatures, a pair after the other for
// each caller, without anything of ours above it.
func (b *hubBench) bare(t testing.TB, callers, n int) (wall, cpu time.Duration) {
	t.Helper()
	mac := b.open(t, "mac").(signer.MACKey)
	defer mac.Close()
	sign := b.open(t, "frank").(signer.SigningKey)
	defer sign.Close()
	return parallel(t, callers, n, func(i int64) error {
		message := loadMessage(i)
		digest := sha256.Sum256(message)
		if _, err := mac.MACContext(context.Background(), message); err != nil {
			return err
		}
		_, err := sign.SignContext(context.Background(), digest[:], crypto.SHA256)
		return err
	})
}

func (b *hubBench) open(t testing.TB, id signer.KeyID) signer.DeviceKey {
	t.Helper()
	key, err := b.store.Key(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	open, err := b.devices[b.device].Open(context.Background(), key.Active().URI, key.Algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// direct has the provider accept n messages without a network.
func (b *hubBench) direct(t testing.TB, callers, n int) (wall, cpu time.Duration) {
	t.Helper()
	base := b.next
	b.next += uint64(n)
	return parallel(t, callers, n, func(i int64) error {
		which := int(i) % len(b.rooms)
		return accepted(b.service.Submit(context.Background(), hub.From{Provider: "a.example"}, b.rooms[which], variant(b.requests[which], base+uint64(i))))
	})
}

// eachDatabase runs a benchmark with all state in SQLite files, and in
// PostgreSQL.
func eachDatabase(b *testing.B, f func(b *testing.B, database string)) {
	b.Run("SQLite", func(b *testing.B) { f(b, "") })
	b.Run("PostgreSQL", func(b *testing.B) {
		s, err := pgtest.Start()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		database, err := s.NewDatabase(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		f(b, database)
	})
}

// BenchmarkHubSoftHSM accepts, franks and stores messages with the franking
// keys in SoftHSM, whose module runs in this process: the CPU of the hub for a
// message beyond the module's own for one MAC and one signature, and the rate
// over the module's; called directly, and by clients in a process of their own
// over mutual TLS.
func BenchmarkHubSoftHSM(b *testing.B) {
	eachDatabase(b, func(b *testing.B, database string) {
		benchHub(b, newHubBench(b, initOptions{softHSM: true}, "softhsm", database), 32, 2000, nil)
	})
}

// BenchmarkHubTPM is BenchmarkHubSoftHSM with the keys in a TPM, whose CPU is not
// this process's. tpm-busy is the part of the time in which swtpm is at work.
func BenchmarkHubTPM(b *testing.B) {
	eachDatabase(b, func(b *testing.B, database string) {
		device := tpmtest.Start(b, swtpm.Config{})
		benchHub(b, newHubBench(b, initOptions{tpm: device.Address()}, "tpm", database), 32, 400, device)
	})
}

// benchHub runs the loads in turn. device is the TPM that the keys are in, nil
// if they are not in one.
func benchHub(b *testing.B, x *hubBench, callers, n int, device *swtpm.Server) {
	l := x.load
	l.Connections, l.Callers, l.Count = 8, callers, n
	process := startHubLoad(b, &l)
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) }
	figures := make(map[string][]float64)
	note := func(name string, v float64) { figures[name] = append(figures[name], v) }
	busy := func(name string) func(time.Duration) {
		if device == nil {
			return func(time.Duration) {}
		}
		ends := tpmBusy(b, device)
		return func(wall time.Duration) { note("tpm-busy-"+name, ends(wall)) }
	}
	for b.Loop() {
		ends := busy("bare")
		wall, own := x.bare(b, callers, n)
		ends(wall)
		note("bare/s", float64(n)/wall.Seconds())
		note("bare-cpu-µs", each(own))
		ends = busy("direct")
		directWall, cpu := x.direct(b, callers, n)
		ends(directWall)
		note("direct-x-bare", wall.Seconds()/directWall.Seconds())
		note("direct-adds-cpu-µs", each(cpu-own))
		ends = busy("tls")
		before := cpuTime()
		r := process.run(b)
		ends(time.Duration(r.Seconds * 1e9))
		note("tls-x-bare", wall.Seconds()/r.Seconds)
		note("tls-adds-cpu-µs", each(cpuTime()-before-own))
		note("tls-p50-ms", r.P50)
		note("tls-p99-ms", r.P99)
		note("callers-cpu-µs", r.CPU*1e6/float64(n))
	}
	for name, list := range figures {
		b.ReportMetric(median(list), name)
	}
	b.ReportMetric(0, "ns/op")
}
