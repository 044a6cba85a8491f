package hsmtest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/privyseal/privyseal/hsm"
)

// TestRecovery does to the token what happens to tokens, and wants the same
// Token value to work again without a restart of the program. How long each
// recovery takes is logged.
func TestRecovery(t *testing.T, m *Module, changes ...Change) {
	c := contract{m: m, changes: changes}
	if c.inProcess() {
		for name, harm := range map[string]func(r *Raw) error{
			"sessions closed":           func(r *Raw) error { return r.CloseAllSessions(r.Slot) },
			"logged out":                logOut,
			"finalised":                 func(r *Raw) error { return r.Finalize() },
			"finalised and initialised": func(r *Raw) error { return errors.Join(r.Finalize(), r.initialize()) },
		} {
			t.Run(name, func(t *testing.T) { testHarm(t, c, harm) })
		}
	}
	if m.Kill != nil {
		t.Run("daemon killed and restarted", func(t *testing.T) { testKilled(t, c) })
	}
	if m.Remove != nil {
		t.Run("token taken away and back", func(t *testing.T) { testRemoved(t, c) })
	}
	if m.Reinit != nil {
		t.Run("token initialised anew", func(t *testing.T) { testReinitialized(t, c) })
	}
}

// logOut ends the login, which all Sessions of the process share.
func logOut(r *Raw) error {
	s, err := r.OpenRW()
	if err != nil {
		return err
	}
	return errors.Join(r.Logout(s), r.CloseSession(s))
}

// testHarm harms an idle token twice. The next call must succeed as if nothing
// had happened, whichever it is.
func testHarm(t *testing.T, c contract, harm func(*Raw) error) {
	r, shared := c.m.Share()
	tok := c.open(t, shared)
	_, use := c.anyKey(t, tok)
	for _, next := range []struct {
		what string
		do   func() error
	}{
		{"sign", use},
		{"list", func() error { return listsSome(t, tok) }},
		{"generate", func() error { return generatesAndUses(t, c, tok) }},
		{"health", func() error { return healthy(t, tok) }},
	} {
		if err := r.FindSlot(); err != nil {
			t.Fatal(err)
		}
		if err := harm(r); err != nil {
			t.Fatalf("the harm itself: %v", err)
		}
		begin := time.Now()
		if err := next.do(); err != nil {
			t.Errorf("%s: %v", next.what, err)
		}
		t.Logf("%s works after %v", next.what, time.Since(begin).Round(time.Microsecond))
		if err := use(); err != nil {
			t.Errorf("the key after %s: %v", next.what, err)
		}
	}
}

var errNoKeys = errors.New("the token shows no keys")

func listsSome(t testing.TB, tok *hsm.Token) error {
	t.Helper()
	keys, err := tok.Keys(t.Context())
	if err == nil && len(keys) == 0 {
		return errNoKeys
	}
	return err
}

func generatesAndUses(t testing.TB, c contract, tok *hsm.Token) error {
	t.Helper()
	k := c.m.Deviations.keyTypes()[0]
	info, err := tok.Generate(t.Context(), hsm.KeySpec{Type: k, Use: k.Uses()[0], Label: newLabel()})
	if err != nil {
		return err
	}
	return user(t, tok, info)()
}

var errNotHealthy = errors.New("the token is not logged in")

func healthy(t testing.TB, tok *hsm.Token) error {
	t.Helper()
	h, err := tok.Health(t.Context())
	if err == nil && !h.LoggedIn {
		return errNotHealthy
	}
	return err
}

// recoveryLimit bounds how long a token may take to come back.
const recoveryLimit = 30 * time.Second

// comesBack calls use until it succeeds. Every failure on the way must be one
// that says what to do about it.
func comesBack(t *testing.T, what string, use func() error) {
	t.Helper()
	begin := time.Now()
	var last error
	ok := waitFor(recoveryLimit, func() bool {
		last = use()
		if errors.Is(last, errWrongSignature) {
			t.Error(last)
		}
		return last == nil
	})
	if !ok {
		t.Fatalf("%s: still %v", what, last)
	}
	t.Logf("%s: works again after %v", what, time.Since(begin).Round(time.Microsecond))
}

func testKilled(t *testing.T, c contract) {
	tok := c.open(t)
	info, use := c.anyKey(t, tok)
	c.m.Kill(t)
	for range 3 {
		err := use()
		switch {
		case c.m.Deviations.WorksWithoutDaemon:
			if err != nil {
				t.Errorf("without a daemon that is not needed: %v", err)
			}
		case err == nil || !hsm.Retryable(err):
			t.Errorf("with a dead daemon: %v, want an error that may be tried again", err)
		}
	}
	c.m.Restart(t)
	comesBack(t, "signing", use)
	if err := errors.Join(healthy(t, tok), listsSome(t, tok), generatesAndUses(t, c, tok)); err != nil {
		t.Errorf("after the daemon came back: %v", err)
	}
	if found, err := tok.Find(t.Context(), info.URI()); err != nil || found.Fingerprint != info.Fingerprint {
		t.Errorf("the key after the daemon came back: %v", err)
	}
}

// A token that was taken away looks like one whose keys were destroyed. The
// driver must not believe that for good.
func testRemoved(t *testing.T, c contract) {
	tok := c.open(t)
	_, use := c.anyKey(t, tok)
	c.m.Remove(t)
	for range 3 {
		if err := use(); err == nil {
			t.Error("a token that was taken away signs")
		} else if errors.Is(err, hsm.ErrKeyGone) {
			t.Logf("while it is away: %v", err)
		}
	}
	if _, err := tok.Health(t.Context()); err == nil {
		t.Error("a token that was taken away is healthy")
	}
	c.m.Restore(t)
	comesBack(t, "signing", use)
	if err := errors.Join(healthy(t, tok), listsSome(t, tok), generatesAndUses(t, c, tok)); err != nil {
		t.Errorf("after the token came back: %v", err)
	}
}

// A token initialised anew, with the same label and PIN, has none of the keys;
// what stands under an old name is another key.
func testReinitialized(t *testing.T, c contract) {
	tok := c.open(t)
	info, use := c.anyKey(t, tok)
	c.m.Reinit(t)
	wantError(t, "a key of before", use(), hsm.ErrKeyGone)
	begin := time.Now()
	next, err := tok.Generate(t.Context(), hsm.KeySpec{Type: info.Type, Use: info.Type.Uses()[0], Label: info.Label, ID: info.ID})
	if err != nil {
		t.Fatalf("generate on the new token: %v", err)
	}
	t.Logf("generate works after %v", time.Since(begin).Round(time.Microsecond))
	if err := user(t, tok, next)(); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if err := use(); !errors.Is(err, hsm.ErrKeyGone) && !errors.Is(err, hsm.ErrKeyChanged) {
		t.Errorf("the old key, under whose name another stands: %v", err)
	}
	keys, err := tok.Keys(t.Context())
	if err != nil || slices.ContainsFunc(keys, func(k hsm.KeyInfo) bool { return k.Fingerprint == info.Fingerprint }) {
		t.Errorf("the old key is listed (%v)", err)
	}
}
