package softhsmtests

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// Settings of a worker's environment that its layer obeys. The worker is this
// test binary, started again.
const (
	hangFile  = "PRIVYSEAL_TEST_HANG"   // C_Sign hangs for ever once this file exists, which it takes away
	crashFile = "PRIVYSEAL_TEST_CRASH"  // C_Sign dies of SIGSEGV likewise
	loginFile = "PRIVYSEAL_TEST_LOGINS" // C_Login writes an octet here
)

// workerLayer is around the module in every worker of this test binary.
func workerLayer(api hsm.API) hsm.API { return misbehaving{api} }

type misbehaving struct{ hsm.API }

func (m misbehaving) Sign(sh pkcs11.SessionHandle, message []byte) ([]byte, error) {
	if taken(hangFile) {
		select {}
	}
	if taken(crashFile) {
		syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		select {}
	}
	return m.API.Sign(sh, message)
}

func (m misbehaving) Login(sh pkcs11.SessionHandle, user uint, pin string) error {
	if name := os.Getenv(loginFile); name != "" {
		if f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			f.WriteString(".")
			f.Close()
		}
	}
	return m.API.Login(sh, user, pin)
}

// taken reports whether the file that a setting names is there, and removes it
// unless the order stands for all calls.
func taken(setting string) bool {
	name := os.Getenv(setting)
	if name == "" {
		return false
	}
	content, err := os.ReadFile(name)
	return err == nil && (string(content) == always || os.Remove(name) == nil)
}

// What an order stands for.
const (
	once   = "once"
	always = "always"
)

// order tells one call of a worker, or all calls, to misbehave.
func order(t testing.TB, m *hsmtest.Module, setting, times string) {
	t.Helper()
	m.WriteFile(t, setting, times)
}

func withdraw(t testing.TB, m *hsmtest.Module, setting string) {
	t.Helper()
	if err := os.Remove(filepath.Join(m.Dir, setting)); err != nil {
		t.Fatal(err)
	}
}

// withOrders opens the module in workers that obey orders.
func withOrders(m *hsmtest.Module) hsmtest.Change {
	return func(c *hsm.Config) {
		c.Env = slices.Clone(c.Env)
		for _, setting := range []string{hangFile, crashFile, loginFile} {
			c.Env = append(c.Env, setting+"="+filepath.Join(m.Dir, setting))
		}
	}
}

// workerPIDs lists the workers of this process.
func workerPIDs(t testing.TB) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // gone
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
		if fields[1] == strconv.Itoa(os.Getpid()) && bytes.Contains(cmdline, []byte("hsm-worker")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// events collects what the driver tells.
type events struct {
	mu  sync.Mutex // guards all
	all []hsm.Event
}

func (e *events) observe(c *hsm.Config) {
	c.Observe = func(v hsm.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.all = append(e.all, v)
	}
}

func (e *events) count(k hsm.EventKind) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range e.all {
		if v.Kind == k {
			n++
		}
	}
	return n
}

// mayBeLost checks the result of a call that may have been in flight in a
// worker that died: done all the same, on another worker, or an error that says
// to try again.
func mayBeLost(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		wasLost(t, err)
	}
}

// wasLost checks the error of a call whose workers died under it.
func wasLost(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, hsm.ErrWorkerLost) || !hsm.Retryable(err) {
		t.Errorf("a call in a worker that was lost: %v, want one that may be tried again", err)
	}
}

// TestWorkersKilledUnderLoad kills workers while eight callers sign. Only calls
// in flight in the killed one may fail, with an error that says to try again.
func TestWorkersKilledUnderLoad(t *testing.T) {
	const callers, kills, workers, sessions = 8, 6, 2, 2
	m := hsmtest.SoftHSM(t)
	var log events
	tok := m.Open(t, hsmtest.Workers(workers), hsmtest.Sessions(sessions), log.observe)
	key := newSigner(t, tok, "key")
	var signed, failed atomic.Int64
	done := make(chan struct{})
	var load sync.WaitGroup
	for range callers {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := sign(t.Context(), key); err != nil {
					failed.Add(1)
					mayBeLost(t, err)
				} else {
					signed.Add(1)
				}
			}
		})
	}
	for i := range kills {
		before := signed.Load()
		wait(t, "signatures before the kill", func() bool { return signed.Load() > before+50 })
		// One that is killed while it logs in can take the token with it: SoftHSM cuts
		// token.object to nothing before it writes it.
		wait(t, "all workers", func() bool { return log.count(hsm.EventWorkerUp) == workers+i })
		pids := workerPIDs(t)
		if len(pids) == 0 {
			t.Fatal("no workers")
		}
		syscall.Kill(pids[0], syscall.SIGKILL)
	}
	before := signed.Load()
	wait(t, "signatures after the last kill", func() bool { return signed.Load() > before+50 })
	close(done)
	load.Wait()
	t.Logf("%d signatures, %d of them failed in %d kills", signed.Load()+failed.Load(), failed.Load(), kills)
	if most := int64(kills * callers); failed.Load() > most {
		t.Errorf("%d calls failed, at most %d were in flight", failed.Load(), most)
	}
	wait(t, "all workers", func() bool {
		h, err := tok.Health(t.Context())
		return err == nil && h.WorkersUp == workers
	})
	if n := log.count(hsm.EventWorkerLost); n != kills {
		t.Errorf("%d workers were reported lost, %d were killed", n, kills)
	}
}

func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// TestWorkerHangs lets one call hang in the module. Its worker is killed at the
// call's time limit; the other worker goes on meanwhile.
func TestWorkerHangs(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	tok := m.Open(t, hsmtest.Workers(2), withOrders(m), func(c *hsm.Config) { c.CallTimeout = 500 * time.Millisecond })
	key := newSigner(t, tok, "key")
	order(t, m, hangFile, once)
	begin := time.Now()
	hung := make(chan error, 1)
	go func() { hung <- sign(t.Context(), key) }()
	wait(t, "the call to hang", func() bool { return !exists(m, hangFile) })
	for range 20 { // on whatever is left of the workers
		if err := sign(t.Context(), key); err != nil {
			mayBeLost(t, err)
		}
	}
	mayBeLost(t, <-hung)
	t.Logf("the call that hung came back after %v with a limit of 500ms", time.Since(begin))
	for range 10 {
		if err := sign(t.Context(), key); err != nil {
			t.Errorf("after the worker was replaced: %v", err)
		}
	}
}

func exists(m *hsmtest.Module, setting string) bool {
	_, err := os.Stat(filepath.Join(m.Dir, setting))
	return err == nil
}

// TestCallerLeavesAHangingWorker: the caller's context counts before the limit
// of the call.
func TestCallerLeavesAHangingWorker(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	tok := m.Open(t, hsmtest.Workers(1), withOrders(m), func(c *hsm.Config) { c.CallTimeout = 300 * time.Millisecond })
	key := newSigner(t, tok, "key")
	order(t, m, hangFile, once)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := sign(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller whose time is over: %v", err)
	}
	wait(t, "signatures", func() bool { return sign(t.Context(), key) == nil })
}

// TestWorkerCrashes lets the module crash under a call, as finalising one in
// use does.
func TestWorkerCrashes(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	tok := m.Open(t, hsmtest.Workers(1), withOrders(m))
	key := newSigner(t, tok, "key")
	for range 3 {
		order(t, m, crashFile, once)
		begin := time.Now()
		mayBeLost(t, sign(t.Context(), key))
		wait(t, "signatures", func() bool { return sign(t.Context(), key) == nil })
		t.Logf("signatures again %v after the call that crashed", time.Since(begin).Round(time.Microsecond))
	}
}

// TestWorkerCrashesAlways: a module that crashes at every call costs errors and
// not the program, and the program need not be started again once it is mended.
func TestWorkerCrashesAlways(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	tok := m.Open(t, hsmtest.Workers(2), withOrders(m))
	key := newSigner(t, tok, "key")
	order(t, m, crashFile, always)
	for range 3 {
		wasLost(t, sign(t.Context(), key))
	}
	withdraw(t, m, crashFile)
	begin := time.Now()
	wait(t, "signatures", func() bool { return sign(t.Context(), key) == nil })
	t.Logf("signatures again after %v", time.Since(begin).Round(time.Microsecond))
}

// TestWorkersSendARefusedPINOnce: several workers have several logins, and the
// token counts refusals of all of them.
func TestWorkersSendARefusedPINOnce(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	mod := m.OpenModule(t, hsmtest.Workers(4), withOrders(m))
	wrong := m.WriteFile(t, "wrong", "00000001")
	for range 3 {
		if _, err := mod.OpenToken(t.Context(), m.ParsedURI(t), hsm.PINFile(wrong)); !errors.Is(err, hsm.ErrPINRefused) {
			t.Errorf("a wrong PIN: %v", err)
		}
	}
	logins, err := os.ReadFile(filepath.Join(m.Dir, loginFile))
	if err != nil || len(logins) != 1 {
		t.Errorf("the wrong PIN was sent %d times (%v)", len(logins), err)
	}
}

// TestWorkersHideThePIN looks for the PIN where other users could.
func TestWorkersHideThePIN(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	m.Open(t, hsmtest.Workers(2))
	wait(t, "two workers", func() bool { return len(workerPIDs(t)) == 2 })
	for _, pid := range workerPIDs(t) {
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 || bytes.Contains(b, []byte(hsmtest.UserPIN)) {
				t.Errorf("%s of a worker has %d octets, or the PIN", file, len(b))
			}
		}
	}
}

// TestModulesSideBySide holds two configurations of one module, and a second
// module, at the same time; one process could not.
func TestModulesSideBySide(t *testing.T) {
	one, two, other := hsmtest.SoftHSM(t), hsmtest.SoftHSM(t), hsmtest.NSS(t)
	var keys []*hsm.Key
	for i, m := range []*hsmtest.Module{one, two, other} {
		keys = append(keys, newSigner(t, m.Open(t, hsmtest.Workers(1)), fmt.Sprint("key ", i)))
	}
	var wg sync.WaitGroup
	for _, key := range keys {
		wg.Go(func() {
			for range 20 {
				if err := sign(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if keys[0].Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(keys[1].Public()) {
		t.Error("two tokens have one key")
	}
}

// TestWorkersEnd: closing the module leaves no process behind.
func TestWorkersEnd(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	before := len(workerPIDs(t))
	mod, err := hsm.Open(t.Context(), m.Config(hsmtest.Workers(3)))
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "three workers", func() bool { return len(workerPIDs(t)) == before+3 })
	if err := mod.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wait(t, "the end of the workers", func() bool { return len(workerPIDs(t)) == before })
}
