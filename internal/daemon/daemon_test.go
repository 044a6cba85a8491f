package daemon_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
)

// A service is a component whose parts the test sets.
type service struct {
	mounts []daemon.Mount
	run    func(ctx context.Context) error
	checks atomic.Pointer[[]daemon.Check]
	value  atomic.Int64 // set by a reload
	next   atomic.Int64
	broken atomic.Bool
}

func (s *service) Mounts() []daemon.Mount { return s.mounts }

func (s *service) Run(ctx context.Context) error {
	if s.run != nil {
		return s.run(ctx)
	}
	<-ctx.Done()
	return nil
}

func (s *service) Health(context.Context) []daemon.Check {
	if c := s.checks.Load(); c != nil {
		return *c
	}
	return nil
}

func (s *service) Reload(context.Context) (func(), error) {
	if s.broken.Load() {
		return nil, errors.New("the policy does not parse")
	}
	next := s.next.Load()
	return func() { s.value.Store(next) }, nil
}

// A rig is a daemon that runs, with an operator's listener.
type rig struct {
	t      *testing.T
	daemon *daemon.Daemon
	stop   context.CancelFunc
	done   chan error
	addr   map[string]string
	hangup chan os.Signal
}

// start runs a daemon with the listeners and components until the test ends.
func start(t *testing.T, listeners []daemon.ListenerConfig, components []daemon.Named, change func(*daemon.Config)) *rig {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r := &rig{t: t, done: make(chan error, 1), addr: make(map[string]string), hangup: make(chan os.Signal, 1)}
	c := daemon.Config{Log: log, Operator: "operator", Components: components, Drain: 5 * time.Second, Hangup: r.hangup}
	listeners = append(listeners, daemon.ListenerConfig{Name: "operator", Address: "127.0.0.1:0"})
	for _, lc := range listeners {
		l, err := daemon.Listen(t.Context(), lc, log)
		if err != nil {
			t.Fatal(err)
		}
		r.addr[lc.Name] = l.Addr().String()
		c.Listeners = append(c.Listeners, l)
	}
	if change != nil {
		change(&c)
	}
	var err error
	if r.daemon, err = daemon.New(c); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.done <- r.daemon.Run(ctx) }()
	t.Cleanup(func() { r.stop(); r.end() })
	return r
}

// end waits for the daemon and returns what it ended with.
func (r *rig) end() error {
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(30 * time.Second):
		r.t.Error("the daemon does not end")
		return nil
	}
}

// get fetches a page of the operator's listener.
func (r *rig) get(path string) (int, map[string]any) {
	r.t.Helper()
	res, err := http.Get("http://" + r.addr["operator"] + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var v map[string]any
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, v
}

// eventually waits for what other goroutines do.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestHealth(t *testing.T) {
	s := new(service)
	r := start(t, nil, []daemon.Named{{Name: "svc", Component: s}}, nil)
	eventually(t, "ready", func() bool { code, _ := r.get("/health/ready"); return code == http.StatusOK })
	s.checks.Store(&[]daemon.Check{{Name: "key a", Status: daemon.Down, Critical: true, Detail: "away"}})
	eventually(t, "not ready while a critical check is down", func() bool { code, _ := r.get("/health/ready"); return code == http.StatusServiceUnavailable })
	if code, _ := r.get("/health/live"); code != http.StatusOK {
		t.Errorf("live answers %d, and has nothing to do with checks", code)
	}
	_, state := r.get("/health/state")
	if state["phase"] != "operational" || state["status"] != "down" || !strings.Contains(fmt.Sprint(state["components"]), "away") {
		t.Errorf("state %v", state)
	}
	s.checks.Store(&[]daemon.Check{{Name: "key b", Status: daemon.Down}})
	eventually(t, "ready again: only critical checks count", func() bool { code, _ := r.get("/health/ready"); return code == http.StatusOK })
}

// TestHealthHangs shows that an examination that does not end is bounded.
func TestHealthHangs(t *testing.T) {
	r := start(t, nil, []daemon.Named{{Name: "hangs", Component: hanging{new(service)}}, {Name: "panics", Component: panicking{new(service)}}}, nil)
	eventually(t, "not ready", func() bool {
		_, state := r.get("/health/state")
		text := fmt.Sprint(state["components"])
		return state["ready"] == false && strings.Contains(text, "does not end") && strings.Contains(text, "panicked")
	})
}

type hanging struct{ *service }

func (hanging) Health(context.Context) []daemon.Check { select {} }

type panicking struct{ *service }

func (panicking) Health(context.Context) []daemon.Check { panic("a bug") }

// TestReloadAllOrNothing reloads two components, of which one fails at first.
func TestReloadAllOrNothing(t *testing.T) {
	a, b := new(service), new(service)
	r := start(t, nil, []daemon.Named{{Name: "a", Component: a}, {Name: "b", Component: b}}, nil)
	a.next.Store(1)
	b.next.Store(1)
	b.broken.Store(true)
	if err := r.daemon.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "component b: the policy does not parse") {
		t.Errorf("reload: %v", err)
	}
	if a.value.Load() != 0 {
		t.Error("one component was reloaded while another could not be")
	}
	_, state := r.get("/health/state")
	if last, ok := state["last_reload"].(map[string]any); !ok || !strings.Contains(fmt.Sprint(last["error"]), "does not parse") {
		t.Errorf("state %v", state)
	}
	b.broken.Store(false)
	r.hangup <- os.Interrupt
	eventually(t, "both are reloaded", func() bool { return a.value.Load() == 1 && b.value.Load() == 1 })
}

// TestDrain ends the daemon under two requests: one ends in time, the other is
// cut off.
func TestDrain(t *testing.T) {
	entered := make(chan struct{}, 2)
	mux := func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if r.URL.Path == "/s/ends" {
			<-daemon.DrainSignal(r.Context())
			io.WriteString(w, "whole")
			return
		}
		<-r.Context().Done()
	}
	s := &service{mounts: []daemon.Mount{{Listener: "api", Pattern: "/s/", Handler: http.HandlerFunc(mux)}}}
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0"}}, []daemon.Named{{Name: "svc", Component: s}},
		func(c *daemon.Config) { c.Drain = time.Second })
	results := make(map[string]chan string)
	for _, path := range []string{"/s/ends", "/s/hangs"} {
		c := make(chan string, 1)
		results[path] = c
		go func() {
			res, err := http.Get("http://" + r.addr["api"] + path)
			if err != nil {
				c <- "cut off"
				return
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			c <- string(b)
		}()
	}
	<-entered
	<-entered
	r.stop()
	if err := r.end(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if got := <-results["/s/ends"]; got != "whole" {
		t.Errorf("the request that ends in time: %q", got)
	}
	if got := <-results["/s/hangs"]; got != "cut off" {
		t.Errorf("the request that does not end: %q", got)
	}
}

func TestComponentFails(t *testing.T) {
	for name, run := range map[string]func(context.Context) error{
		"error":  func(context.Context) error { return errors.New("lost the store") },
		"return": func(context.Context) error { return nil },
		"panic":  func(context.Context) error { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil, []daemon.Named{{Name: "svc", Component: &service{run: run}}}, nil)
			if err := r.end(); err == nil || !strings.Contains(err.Error(), "component svc") {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestMountConflict refuses two handlers for one pattern, and a listener that
// is not there.
func TestMountConflict(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	l, err := daemon.Listen(t.Context(), daemon.ListenerConfig{Name: "api", Address: "127.0.0.1:0"}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, name := range []string{"api", "other"} {
		m := daemon.Mount{Listener: name, Pattern: "/x", Handler: http.NotFoundHandler()}
		_, err := daemon.New(daemon.Config{Log: log, Listeners: []*daemon.Listener{l}, Pages: []daemon.Mount{m, m}})
		if err == nil {
			t.Errorf("listener %q: accepted", name)
		}
	}
}

// TestNotify plays the service manager.
func TestNotify(t *testing.T) {
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	var mu sync.Mutex // guards heard
	var heard []string
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := manager.Read(b)
			if err != nil {
				return
			}
			mu.Lock()
			heard = append(heard, string(b[:n]))
			mu.Unlock()
		}
	}()
	has := func(s string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return strings.Contains(strings.Join(heard, "\n"), s)
		}
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	n := daemon.NotifierFromEnv()
	if os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("WATCHDOG_USEC") != "" {
		t.Error("children would inherit the socket")
	}
	s := new(service)
	s.broken.Store(true)
	r := start(t, nil, []daemon.Named{{Name: "svc", Component: s}}, func(c *daemon.Config) { c.Notify = n })
	eventually(t, "READY=1", has("READY=1"))
	eventually(t, "WATCHDOG=1", has("WATCHDOG=1"))
	r.hangup <- os.Interrupt
	eventually(t, "RELOADING=1", has("RELOADING=1\nMONOTONIC_USEC="))
	eventually(t, "the failed reload in the status", has("STATUS=serving; the last reload failed"))
	r.stop()
	r.end()
	eventually(t, "STOPPING=1", has("STOPPING=1"))
}

func readPool(path string) func(context.Context) (*x509.CertPool, error) {
	return func(context.Context) (*x509.CertPool, error) { return daemon.ReadPool(path) }
}

func readPair(cert, key string) func(context.Context) (*tls.Certificate, error) {
	return func(context.Context) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(cert, key)
		return &c, err
	}
}
