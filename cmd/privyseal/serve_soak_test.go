//go:build soak

package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
)

// soakTime is how long the soak runs: PRIVYSEAL_SOAK, by default an hour.
func soakTime(t *testing.T) time.Duration {
	s := os.Getenv("PRIVYSEAL_SOAK")
	if s == "" {
		return time.Hour
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A sample is what the process holds at one time.
type sample struct {
	at         time.Duration
	fds        int
	heap, rss  float64 // MiB
	goroutines int
}

var soakMetric = regexp.MustCompile(`(?m)^(process_open_fds|go_memstats_heap_inuse_bytes|process_resident_memory_bytes|go_goroutines) (\S+)$`)

func (s *served) sample(start time.Time) sample {
	runtime.GC()
	_, text := s.page("/metrics")
	out := sample{at: time.Since(start).Round(time.Second)}
	for _, m := range soakMetric.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			s.t.Fatal(err)
		}
		switch m[1] {
		case "process_open_fds":
			out.fds = int(v)
		case "go_goroutines":
			out.goroutines = int(v)
		case "process_resident_memory_bytes":
			out.rss = v / (1 << 20)
		default:
			out.heap = v / (1 << 20)
		}
	}
	return out
}

// TestServeSoak runs serve with a key in two tokens under signatures,
// handshakes, scrapes, self-tests, reloads and killed workers, and holds memory,
// descriptors and goroutines to what they were after the first tenth.
func TestServeSoak(t *testing.T) {
	w := newTwin(t)
	if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: "web", Purpose: signer.PurposeTLS, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	pool := certify(t, w.wiring, "web", filepath.Join(w.config.dir, "server.pem"))
	interval := Duration(2 * time.Second)
	w.config.Serve = &ServeConfig{Operator: "operator", CriticalKeys: []signer.KeyID{"leaf"}, SelfTest: &interval, Listeners: map[string]*ListenerSection{
		"operator": {Address: "127.0.0.1:0", Plain: true},
		"public":   {Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web", MaxConnections: 64},
	}}
	s := serveTest(t, w.wiring)
	l := w.load(2)
	var group sync.WaitGroup
	var handshakes, failed atomic.Int64
	stop := make(chan struct{})
	defer group.Wait()
	defer close(stop)
	every := func(d time.Duration, f func()) {
		group.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					f()
				case <-stop:
					return
				}
			}
		})
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	every(20*time.Millisecond, func() {
		res, err := client.Get("https://" + s.addr["public"] + "/")
		if err != nil {
			failed.Add(1)
			return
		}
		res.Body.Close()
		handshakes.Add(1)
	})
	every(time.Second, func() { s.page("/health/ready") })
	every(10*time.Second, func() {
		if err := s.daemon.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	})
	every(30*time.Second, func() { w.kill("clone") })

	start, end := time.Now(), time.Now().Add(soakTime(t))
	step := soakTime(t) / 20
	var samples []sample
	signed := 0
	for time.Now().Before(end) {
		time.Sleep(step)
		now := s.sample(start)
		samples = append(samples, now)
		took, by, errs := l.lap()
		signed += len(took)
		t.Logf("%7v  fds %3d  heap %6.1f MiB  rss %6.1f MiB  goroutines %4d  signatures %6d %v p99 %v  handshakes %d (%d failed)",
			now.at, now.fds, now.heap, now.rss, now.goroutines, len(took), by, quantile(took, .99), handshakes.Load(), failed.Load())
		if len(errs) > 0 {
			t.Errorf("%d signatures failed, the first with: %v", len(errs), errs[0])
		}
	}
	first, last := samples[len(samples)/10], samples[len(samples)-1]
	if grown := fmt.Sprintf("from %+v to %+v", first, last); last.fds > first.fds+16 || last.goroutines > first.goroutines+32 || last.heap > 1.5*first.heap+8 {
		t.Errorf("it grows: %s", grown)
	}
	if signed == 0 || handshakes.Load() == 0 || failed.Load() > handshakes.Load()/100 {
		t.Errorf("%d signatures, %d handshakes, %d failed", signed, handshakes.Load(), failed.Load())
	}
	if _, state := s.page("/health/state"); !strings.Contains(state, `"ready": true`) {
		t.Errorf("state %s", state)
	}
}
