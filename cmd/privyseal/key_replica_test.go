package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// cloneSoftHSM copies the token of a device by SoftHSM's means, its files, and
// returns the configuration of the clone. No process may use the token meanwhile.
func cloneSoftHSM(t *testing.T, c *Config, name string) *DeviceConfig {
	t.Helper()
	from, to := filepath.Join(c.dir, "softhsm"), filepath.Join(c.dir, name)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(to, "softhsm2.conf")
	text, err := os.ReadFile(conf)
	if err == nil {
		err = os.WriteFile(conf, []byte(strings.ReplaceAll(string(text), from, to)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := *c.Devices["softhsm"]
	d.PINSource, d.Env = "file:"+name+"/pin", map[string]string{"SOFTHSM2_CONF": conf}
	return &d
}

// A twin is a configuration with two tokens that hold the same keys.
type twin struct {
	*wiring
	t *testing.T
}

func newTwin(t *testing.T) *twin { return newTwinWith(t, initOptions{softHSM: true}) }

func newTwinWith(t *testing.T, o initOptions) *twin {
	t.Helper()
	w := wireTest(t, o)
	for id, p := range map[signer.KeyID]signer.Purpose{"leaf": signer.PurposeMLSLeaf, "init": signer.PurposeMLSInit, "mac": signer.PurposeFrankMAC, "acme.both": signer.PurposeMLSLeaf} {
		if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: p, Device: "softhsm"}); err != nil {
			t.Fatal(err)
		}
	}
	c := w.config
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Devices["clone"] = cloneSoftHSM(t, c, "clone")
	for _, d := range c.Devices {
		if d.Kind == kindPKCS11 {
			d.Workers = 2
		}
	}
	w, err := newWiring(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(context.Background()) })
	for _, id := range []signer.KeyID{"leaf", "init", "mac", "acme.both"} {
		if _, err := w.ring.AddReplica(t.Context(), id, 0, "clone", ""); err != nil {
			t.Fatal(err)
		}
	}
	return &twin{w, t}
}

// workers lists the processes that host the module of a device.
func (w *twin) workers(device string) (pids []int) {
	w.t.Helper()
	setting := "SOFTHSM2_CONF=" + w.config.Devices[device].Env["SOFTHSM2_CONF"]
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range names {
		env, err := os.ReadFile(name)
		if err == nil && slices.Contains(strings.Split(string(env), "\x00"), setting) {
			pid, err := strconv.Atoi(strings.Split(name, "/")[2])
			if err == nil && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// up reports whether both workers of a device have logged in to its token.
func (w *twin) up(device string) bool {
	w.t.Helper()
	token, err := w.devices[device].(*pkcs11Device).open(context.Background())
	if err != nil {
		return false
	}
	h, _ := token.Health(context.Background()) // the token may be away
	return h.WorkersUp == 2
}

// kill ends the workers of a device, and says how many there were. It waits until
// they have logged in: SoftHSM cuts token.object to nothing before it writes it, at
// each login, and one that is killed in between leaves no token behind.
func (w *twin) kill(device string) int {
	w.until("the workers of "+device+" are up", func() bool { return w.up(device) })
	pids := w.workers(device)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	w.until("the workers of "+device+" are gone", func() bool {
		return !slices.ContainsFunc(w.workers(device), func(pid int) bool { return slices.Contains(pids, pid) })
	})
	return len(pids)
}

// A signLoad signs until it is stopped.
type signLoad struct {
	stop  context.CancelFunc
	group sync.WaitGroup
	mu    sync.Mutex // guards the rest
	took  []time.Duration
	by    map[string]int
	errs  []error
}

func (w *twin) load(callers int) *signLoad {
	w.t.Helper()
	r, err := signer.MLSRequest("LeafNodeTBS", signertest.LeafNodeTBS("alice"))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &signLoad{stop: stop, by: make(map[string]int)}
	for range callers {
		l.group.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				sig, err := w.ring.Sign(ctx, "leaf", signer.PurposeMLSLeaf, r)
				l.add(ctx, sig, err, time.Since(start))
			}
		})
	}
	w.t.Cleanup(func() { stop(); l.group.Wait() })
	return l
}

func (l *signLoad) add(ctx context.Context, sig *signer.Signature, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.took = append(l.took, took)
		l.by[sig.Device]++
	case ctx.Err() == nil:
		l.errs = append(l.errs, err)
	}
}

// lap returns what happened since the last one.
func (l *signLoad) lap() (took []time.Duration, by map[string]int, errs []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	took, by, errs = l.took, l.by, l.errs
	l.took, l.by, l.errs = nil, make(map[string]int), nil
	slices.Sort(took)
	return took, by, errs
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))].Round(10 * time.Microsecond)
}

func (w *twin) until(what string, f func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) > 60*time.Second {
			w.t.Fatalf("never: %s; health %+v", what, w.ring.Health())
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(start)
}

// TestReplicasUnderLoad kills the workers of one of two tokens, and then takes
// the token away, under load. No request fails, and the token comes back by
// itself.
func TestReplicasUnderLoad(t *testing.T) {
	w := newTwin(t)
	ctx, stop := context.WithCancel(t.Context())
	var tending sync.WaitGroup
	tending.Go(func() { w.ring.Tend(ctx, signer.TendOptions{Interval: -1}) })
	defer tending.Wait()
	defer stop()
	l := w.load(4)
	report := func(phase string) map[string]int {
		t.Helper()
		took, by, errs := l.lap()
		t.Logf("%-28s %5d signatures by %v, p50 %v p99 %v max %v", phase, len(took), by, quantile(took, .5), quantile(took, .99), quantile(took, 1))
		if len(errs) > 0 {
			t.Errorf("%s: %d requests failed, the first with: %v", phase, len(errs), errs[0])
		}
		return by
	}
	both := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.by["clone"] > 50 && l.by["softhsm"] > 50
	}
	w.until("both tokens work", both)
	report("both tokens")

	for range 5 {
		if n := w.kill("clone"); n == 0 {
			t.Fatal("there was no worker to kill")
		}
		back := w.until("the clone's workers are back", func() bool {
			return len(w.workers("clone")) == 2 && w.up("clone") && w.ring.Health()["clone"].Away == nil
		})
		t.Logf("workers killed and back in %v", back.Round(time.Millisecond))
	}
	w.until("both tokens work", both)
	report("workers killed five times")
	w.until("both tokens work again", both)
	report("both tokens")

	tokens := filepath.Join(w.config.dir, "clone", "tokens")
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	w.kill("clone")
	gone := w.until("the clone is left out", func() bool { return w.ring.Health()["clone"].Away != nil || w.broken("clone") })
	report("token taken away")
	l.mu.Lock()
	before := len(l.took)
	l.mu.Unlock()
	w.until("the other works alone", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.took) > before+200 })
	if by := report("one token"); by["clone"] > 0 {
		t.Errorf("a token that is away signed %d times", by["clone"])
	}
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
	back := w.until("the clone works again", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.by["clone"] > 0 })
	t.Logf("left out after %v, back %v after the token was", gone.Round(time.Millisecond), back.Round(time.Millisecond))
	report("token back")
}

// broken reports whether a self-test of the key finds the device's object gone.
func (w *twin) broken(device string) bool {
	results, err := w.ring.SelfTest(context.Background(), "leaf")
	if err != nil {
		return false
	}
	return slices.ContainsFunc(results, func(r signer.SelfTestResult) bool { return r.Device == device && r.Err != nil })
}
