package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
)

var digest = sha256.Sum256([]byte("message"))

// signOnce signs and verifies.
func signOnce(ctx context.Context, key *hsm.Key) error {
	sig, err := key.SignContext(ctx, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], sig) {
		return errors.New("a signature that does not verify")
	}
	return nil
}

// signAll signs from several goroutines and returns their errors.
func signAll(key *hsm.Key, callers, times int) error {
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		wg.Go(func() {
			for range times {
				if errs[i] = signOnce(context.Background(), key); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// events counts what a module tells.
type events struct {
	mu   sync.Mutex // guards seen
	seen map[hsm.EventKind]int
}

func (e *events) watch(c *hsm.Config) {
	e.seen = make(map[hsm.EventKind]int)
	c.Observe = func(ev hsm.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.seen[ev.Kind]++
	}
}

func (e *events) count(k hsm.EventKind) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[k]
}

func env(setting string) hsmtest.Change {
	return func(c *hsm.Config) { c.Env = append(c.Env[:len(c.Env):len(c.Env)], setting) }
}

// openKey opens a token in workers with a P-256 key on it.
func openKey(t *testing.T, m *hsmtest.Module, changes ...hsmtest.Change) (*hsm.Token, *hsm.Key) {
	t.Helper()
	tok := m.Open(t, changes...)
	info := generate(t, tok, hsm.P256, hsm.UseSign)
	key, err := tok.Signer(t.Context(), tok.KeyURI(info))
	if err != nil {
		t.Fatal(err)
	}
	return tok, key
}

func TestWorkerCrashInACall(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	var seen events
	_, key := openKey(t, hsmtest.SoftHSM(t), hsmtest.Workers(2), env(mischiefEnv+"=crash:"+flag), seen.watch)
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := signAll(key, 8, 10); err != nil {
		t.Errorf("calls beside a crash, and the call that crashed: %v", err)
	}
	if _, err := os.Stat(flag); err == nil {
		t.Error("the worker did not crash")
	}
	if n := seen.count(hsm.EventWorkerLost); n != 1 {
		t.Errorf("%d workers were lost, want 1", n)
	}
}

func TestWorkerCrashesAlways(t *testing.T) {
	_, key := openKey(t, hsmtest.SoftHSM(t), hsmtest.Workers(2), env(mischiefEnv+"=crash:"))
	err := signOnce(t.Context(), key)
	if !errors.Is(err, hsm.ErrWorkerLost) || !hsm.Retryable(err) {
		t.Errorf("got %v, want that the worker was lost", err)
	}
}

func TestWorkerHangs(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	var seen events
	limit := func(c *hsm.Config) { c.CallTimeout = 300 * time.Millisecond }
	_, key := openKey(t, hsmtest.SoftHSM(t), hsmtest.Workers(1), limit, env(mischiefEnv+"=hang:"+flag), seen.watch)
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := signOnce(short, key); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller with a deadline: %v", err)
	}
	if err := signAll(key, 3, 3); err != nil {
		t.Errorf("calls behind one that hangs: %v", err)
	}
	if n := seen.count(hsm.EventWorkerLost); n != 1 {
		t.Errorf("%d workers were lost, want 1", n)
	}
}

func TestWorkersKilled(t *testing.T) {
	tok, key := openKey(t, hsmtest.SoftHSM(t), hsmtest.Workers(2))
	for range 3 {
		killWorkers(t)
		if err := signAll(key, 4, 5); err != nil && !hsm.Retryable(err) {
			t.Errorf("right after: %v", err)
		}
		if err := signAll(key, 4, 5); err != nil {
			t.Errorf("after that: %v", err)
		}
	}
	if h, err := tok.Health(t.Context()); err != nil || !h.LoggedIn || h.Workers != 2 {
		t.Errorf("health: %+v, %v", h, err)
	}
}

// A generation may have taken effect when its worker dies: it is not repeated,
// and the error names the id under which to look.
func TestWorkerCrashesInGenerate(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tok := hsmtest.SoftHSM(t).Open(t, hsmtest.Workers(1), env(mischiefEnv+"=generate:"+flag))
	_, err := tok.Generate(t.Context(), hsm.KeySpec{Type: hsm.P256, Use: hsm.UseSign, Label: "k"})
	if !errors.Is(err, hsm.ErrWorkerLost) || !hsm.Retryable(err) {
		t.Fatalf("got %v, want that the worker was lost", err)
	}
	keys, listing := tok.Keys(t.Context())
	if listing != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v; want the one that was made", len(keys), listing)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("%x", keys[0].ID)) {
		t.Errorf("%v does not name the id %x", err, keys[0].ID)
	}
}

// Two modules with the same path and different configurations live side by
// side in workers, and not in one process.
func TestWorkersHaveTheirOwnEnvironment(t *testing.T) {
	one, other := hsmtest.SoftHSM(t), hsmtest.SoftHSM(t)
	a, keyA := openKey(t, one, hsmtest.Workers(1))
	b, keyB := openKey(t, other, hsmtest.Workers(1))
	if err := errors.Join(signOnce(t.Context(), keyA), signOnce(t.Context(), keyB)); err != nil {
		t.Error(err)
	}
	if _, err := a.Find(t.Context(), keyB.Info().URI()); !errors.Is(err, hsm.ErrKeyNotFound) {
		t.Errorf("the other's key: %v", err)
	}
	ia, _ := a.Info(t.Context())
	ib, _ := b.Info(t.Context())
	if ia.Serial == ib.Serial {
		t.Error("both workers have the same token")
	}
	first, err := hsm.Open(t.Context(), one.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close(t.Context())
	if second, err := hsm.Open(t.Context(), other.Config()); err == nil {
		second.Close(t.Context())
		t.Error("two configurations in one process were not refused")
	}
}

// logins counts the lines that the workers' layer wrote.
func logins(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}

func TestWorkersSendARefusedPINOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "logins")
	m := hsmtest.SoftHSM(t)
	mod := m.OpenModule(t, hsmtest.Workers(3), env(mischiefEnv+"=logins:"+file))
	wrong := hsm.PINValue(hsm.NewPIN([]byte("99999999")))
	for range 3 {
		if _, err := mod.OpenToken(t.Context(), m.ParsedURI(t), wrong); !errors.Is(err, hsm.ErrPINRefused) {
			t.Fatalf("a wrong PIN: %v", err)
		}
	}
	if n := logins(t, file); n != 1 {
		t.Errorf("the wrong PIN was sent %d times", n)
	}
}

// The PIN goes wrong while the program runs, and all workers start anew.
func TestWorkersMeetAWrongPINLater(t *testing.T) {
	file := filepath.Join(t.TempDir(), "logins")
	m := hsmtest.SoftHSM(t)
	_, key := openKey(t, m, hsmtest.Workers(3), env(mischiefEnv+"=logins:"+file))
	waitFor(t, "every worker to log in", func() bool { return logins(t, file) == 3 })
	if err := os.WriteFile(m.PINFile, []byte("88888888\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := logins(t, file)
	killWorkers(t)
	for range 5 {
		if err := signAll(key, 4, 2); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a wrong PIN: %v", err)
		}
	}
	if n := logins(t, file) - before; n != 1 {
		t.Errorf("the wrong PIN was sent %d times", n)
	}
	if err := os.WriteFile(m.PINFile, []byte(hsmtest.UserPIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := signAll(key, 4, 2); err != nil {
		t.Errorf("once the PIN is right again: %v", err)
	}
}

func TestWorkersDrainBeforeClosing(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	mod := m.OpenModule(t, hsmtest.Workers(2))
	tok := m.OpenTokenOf(t, mod)
	key, err := tok.Signer(t.Context(), tok.KeyURI(generate(t, tok, hsm.P256, hsm.UseSign)))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil {
				errs[i] = signOnce(context.Background(), key)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	if err := mod.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for _, err := range errs {
		if !errors.Is(err, hsm.ErrClosed) {
			t.Errorf("a caller ended with %v, want ErrClosed", err)
		}
	}
	if pids := workerPIDs(t); len(pids) > 0 {
		t.Errorf("workers %v are still there", pids)
	}
}

func TestWorkerWithoutAModule(t *testing.T) {
	path := filepath.Join(t.TempDir(), "module.so")
	if err := os.WriteFile(path, []byte("this is no module"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []hsm.Config{{Path: path}, {Path: path, Workers: 2}} {
		if _, err := hsm.Open(t.Context(), c); !errors.Is(err, hsm.ErrModule) {
			t.Errorf("%d workers: %v", c.Workers, err)
		}
	}
}

// TestWorkerIsReplaced lets workers grow by nothing at all, so that each look at
// one ends it. No call fails, of those that may be asked twice and of those
// that may not.
func TestWorkerIsReplaced(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			var seen events
			tok, key := openKey(t, hsmtest.SoftHSM(t), hsmtest.Workers(workers), seen.watch, func(c *hsm.Config) { c.WorkerGrowth = 1 })
			var group sync.WaitGroup
			stop := make(chan struct{})
			group.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(20 * time.Millisecond):
					}
					if _, err := tok.Generate(t.Context(), hsm.KeySpec{Type: hsm.HMACSHA256, Use: hsm.UseMAC, Label: fmt.Sprint("k", i)}); err != nil {
						t.Errorf("a key while workers were replaced: %v", err)
						return
					}
				}
			})
			for range 8 {
				group.Go(func() {
					for seen.count(hsm.EventWorkerEnds) < 3 {
						if _, err := key.SignContext(t.Context(), digest[:], crypto.SHA256); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			for seen.count(hsm.EventWorkerEnds) < 3 && !t.Failed() {
				time.Sleep(5 * time.Millisecond)
			}
			close(stop)
			group.Wait()
			if n := seen.count(hsm.EventWorkerLost); n > 0 {
				t.Errorf("%d workers were lost", n)
			}
			if err := signOnce(t.Context(), key); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWorkerOpensSlowly opens a token that takes longer than StartTimeout, object
// by object, and lists its keys, which takes longer than CallTimeout. That one worker
// is lost to a machine that stands still is no failure, as the list is asked for twice.
func TestWorkerOpensSlowly(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	first := m.Open(t, hsmtest.Workers(1))
	for range 8 {
		generate(t, first, hsm.P256, hsm.UseSign)
	}
	tok := m.Open(t, hsmtest.Workers(2), env(mischiefEnv+"=slow:"), func(c *hsm.Config) {
		c.StartTimeout, c.CallTimeout = 14*slowPause, 20*slowPause // there are 16 objects, and 24 further reads for the list
	})
	waitFor(t, "both workers", func() bool {
		h, err := tok.Health(t.Context())
		return err == nil && h.WorkersUp == 2 && h.Keys == 8
	})
	if keys, err := tok.Keys(t.Context()); err != nil || len(keys) != 8 {
		t.Errorf("%d keys: %v", len(keys), err)
	}
}

// TestWorkerHangsAsItOpens has the module stop in the middle of opening a token.
func TestWorkerHangsAsItOpens(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	generate(t, m.Open(t, hsmtest.Workers(1)), hsm.P256, hsm.UseSign)
	flag := filepath.Join(t.TempDir(), "flag")
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var seen events
	mod := m.OpenModule(t, hsmtest.Workers(1), env(mischiefEnv+"=stuck:"+flag), seen.watch, func(c *hsm.Config) { c.StartTimeout = time.Second })
	if _, err := mod.OpenToken(t.Context(), m.ParsedURI(t), nil); !errors.Is(err, hsm.ErrWorkerLost) || !strings.Contains(err.Error(), "StartTimeout") {
		t.Errorf("a token that hangs as it opens: %v", err)
	}
	waitFor(t, "the loss of the worker", func() bool { return seen.count(hsm.EventWorkerLost) == 1 })
	m.OpenTokenOf(t, mod)
}
