package hsmtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/hsm"
)

// Several callers, several logins, PINs and the end.

// Two logins hold the same handles; one destroys the key. The other must
// notice, and must not sign with whatever gets the handle next.
func testDestroyedElsewhere(t *testing.T, c contract) {
	mod := c.openModule(t)
	ours, theirs := c.m.OpenTokenOf(t, mod), c.m.OpenTokenOf(t, mod)
	info := generate(t, theirs, c.m.Deviations.keyTypes()[0], "")
	use := user(t, ours, info)
	if err := use(); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Destroy(t.Context(), theirs.KeyURI(info)); err != nil {
		t.Fatal(err)
	}
	wantError(t, "a key that another login destroyed", use(), hsm.ErrKeyGone)
	next := generate(t, theirs, info.Type, info.Type.Uses()[0])
	wantError(t, "the same key once another has been made", use(), hsm.ErrKeyGone)
	if err := user(t, ours, next)(); err != nil {
		t.Errorf("the key that another login made: %v", err)
	}
}

func testReplaced(t *testing.T, c contract) {
	mod := c.openModule(t)
	ours, theirs := c.m.OpenTokenOf(t, mod), c.m.OpenTokenOf(t, mod)
	info := generate(t, theirs, c.m.Deviations.keyTypes()[0], "")
	use := user(t, ours, info)
	if err := theirs.Destroy(t.Context(), theirs.KeyURI(info)); err != nil {
		t.Fatal(err)
	}
	next, err := theirs.Generate(t.Context(), hsm.KeySpec{Type: info.Type, Use: info.Type.Uses()[0], Label: info.Label, ID: info.ID})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := use(); !errors.Is(err, hsm.ErrKeyChanged) && !errors.Is(err, hsm.ErrKeyGone) {
			t.Errorf("a key under whose name another stands: %v", err)
		}
	}
	found, err := ours.Find(t.Context(), ours.KeyURI(info))
	if err != nil || found.Fingerprint != next.Fingerprint {
		t.Errorf("the name leads to %v (%v), not to the new key", found.Fingerprint, err)
	}
	if err := user(t, ours, next)(); err != nil {
		t.Errorf("the new key: %v", err)
	}
}

// inParallel runs f in n goroutines and returns the first error.
func inParallel(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func testConcurrent(t *testing.T, c contract) {
	const callers, calls = 8, 12
	var books Faults
	changes := []Change{Sessions(3)}
	if c.inProcess() {
		changes = append(changes, Wrap(books.Wrap))
	}
	tok := c.open(t, changes...)
	_, one := c.anyKey(t, tok)
	_, other := c.anyKey(t, tok)
	err := inParallel(callers, func(i int) error {
		for n := range calls {
			use := one
			if (i+n)%2 == 1 {
				use = other
			}
			if err := use(); err != nil {
				return fmt.Errorf("caller %d, call %d: %w", i, n, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if c.inProcess() {
		if _, most := books.OpenSessions(); most > 3+1 {
			t.Errorf("%d Sessions were open, 3 and one for the login are allowed", most)
		}
	}
}

func testGenerateBesideSignatures(t *testing.T, c contract) {
	tok := c.open(t)
	_, use := c.anyKey(t, tok)
	done := make(chan struct{})
	var signing sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		signing.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if errs[i] = use(); errs[i] != nil {
					return
				}
			}
		})
	}
	for range 10 {
		info := generate(t, tok, c.m.Deviations.keyTypes()[0], "")
		if err := tok.Destroy(t.Context(), tok.KeyURI(info)); err != nil {
			t.Errorf("destroy: %v", err)
		}
	}
	close(done)
	signing.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("a signature beside generations: %v", err)
	}
}

// testContext lets one caller wait for the only Session while others keep it
// busy.
func testContext(t *testing.T, c contract) {
	tok := c.open(t, Sessions(1))
	info, use := c.anyKey(t, tok)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, "a context that is over", operate(over, t, tok, info), context.Canceled)
	if _, err := tok.Generate(over, hsm.KeySpec{Type: info.Type, Use: info.Type.Uses()[0], Label: newLabel()}); !errors.Is(err, context.Canceled) {
		t.Errorf("generate with a context that is over: %v", err)
	}
	busy := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-busy:
					return
				default:
					use()
				}
			}
		})
	}
	for range 5 {
		short, cancel := context.WithTimeout(t.Context(), time.Microsecond)
		if err := operate(short, t, tok, info); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a waiter whose time is over: %v", err)
		}
		cancel()
	}
	close(busy)
	wg.Wait()
	for range 3 {
		if err := use(); err != nil {
			t.Errorf("after waiters gave up: %v", err)
		}
	}
}

// operate uses the key under a context.
func operate(ctx context.Context, t testing.TB, tok *hsm.Token, info hsm.KeyInfo) error {
	t.Helper()
	if info.Class == hsm.ClassSecret {
		key, err := tok.MAC(t.Context(), tok.KeyURI(info))
		if err != nil {
			t.Fatal(err)
		}
		_, err = key.MAC(ctx, []byte("message"))
		return err
	}
	digest, hash := Digest(info.Type, []byte("message"))
	_, err := signer(t, tok, info).SignContext(ctx, digest, hash)
	return err
}

// testRefusedPIN uses a wrong PIN twice. The token must hear of it once.
func testRefusedPIN(t *testing.T, c contract) {
	var books Faults
	var changes []Change
	if c.inProcess() {
		changes = append(changes, Wrap(books.Wrap))
	}
	mod := c.openModule(t, changes...)
	wrong := c.m.WriteFile(t, "wrong-pin", fmt.Sprintf("0%07d", labels.Add(1)))
	for range 3 {
		tok, err := mod.OpenToken(t.Context(), c.m.ParsedURI(t), hsm.PINFile(wrong))
		if !errors.Is(err, hsm.ErrPINRefused) {
			t.Fatalf("a wrong PIN: %v, %v", tok, err)
		}
		var e *hsm.Error
		if !errors.As(err, &e) || !e.NeedsOperator() || e.Retryable() {
			t.Errorf("a wrong PIN: %+v, want one for an operator", e)
		}
		checkErrorNames(t, c.m, err)
	}
	if c.inProcess() {
		if n := books.Count("C_Login"); n != 1 {
			t.Errorf("C_Login was called %d times", n)
		}
	}
	refusesOpenPINFile(t, c, mod)
	tok := c.m.OpenTokenOf(t, mod)
	_, use := c.anyKey(t, tok)
	if err := use(); err != nil {
		t.Errorf("with the right PIN: %v", err)
	}
	for _, problem := range books.Problems() {
		t.Error(problem)
	}
}

// refusesOpenPINFile gives a PIN file that others may read, and a URI that
// carries the PIN.
func refusesOpenPINFile(t *testing.T, c contract, mod *hsm.Module) {
	t.Helper()
	open := c.m.WriteFile(t, "open-pin", UserPIN)
	chmod(t, open, 0o644)
	_, err := mod.OpenToken(t.Context(), c.m.ParsedURI(t), hsm.PINFile(open))
	wantError(t, "a PIN file that others can read", err, hsm.ErrPINSource)
	_, err = hsm.ParseURI("pkcs11:token=x?pin-value=" + UserPIN)
	wantError(t, "a URI with a PIN", err, hsm.ErrPINValue)
	if err != nil && strings.Contains(err.Error(), UserPIN) {
		t.Error("the error repeats the PIN")
	}
}

func testClosed(t *testing.T, c contract) {
	mod := c.openModule(t)
	tok := c.m.OpenTokenOf(t, mod)
	info, use := c.anyKey(t, tok)
	if err := tok.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantError(t, "a key of a closed token", use(), hsm.ErrClosed)
	_, err := tok.Find(t.Context(), info.URI())
	wantError(t, "Find on a closed token", err, hsm.ErrClosed)
	if err := tok.Close(t.Context()); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	again := c.m.OpenTokenOf(t, mod)
	if err := user(t, again, info)(); err != nil {
		t.Errorf("the token opened again: %v", err)
	}
	if err := mod.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = mod.OpenToken(t.Context(), c.m.ParsedURI(t), nil)
	wantError(t, "OpenToken of a closed module", err, hsm.ErrClosed)
	_, err = again.Find(t.Context(), info.URI())
	wantError(t, "Find once the module is closed", err, hsm.ErrClosed)
}
