package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// A localToken is a token of a module in this process. It keeps one Session for
// the login's sake, since closing the last one logs out, and a pool for work.
//
// Places in the pool are taken before the library's gate is entered; the other
// order would deadlock with a repair, which drains the pool and then needs the
// gate.
type localToken struct {
	lib    *library
	config Config
	uri    URI
	pin    PINSource
	pool   *pool
	fix    turnstile             // one repair at a time
	state  atomic.Pointer[login] // nil while the token is away
	closed atomic.Bool
}

// A login is one login with the handles that it gave. It is replaced as a
// whole, by a goroutine that holds fix and all places.
type login struct {
	epoch   uint64 // of the library
	info    TokenInfo
	keeper  pkcs11.SessionHandle
	user    bool // C_Login was needed
	has     map[uint]bool
	objects *index
}

// errStale means that the login is of an earlier initialisation of the module.
var errStale = errors.New("hsm: not logged in since the module was initialised")

func openLocalToken(ctx context.Context, lib *library, c Config, u URI, pin PINSource) (*localToken, error) {
	t := newLocalToken(lib, c, u, pin)
	if err := t.relogin(ctx, nil, nil); err != nil {
		lib.part(t)
		return nil, t.complete(err)
	}
	return t, nil
}

// newLocalToken makes a token that the first call logs in to.
func newLocalToken(lib *library, c Config, u URI, pin PINSource) *localToken {
	t := &localToken{lib: lib, config: c, uri: u.TokenOnly(), pin: pin, pool: newPool(c.Sessions), fix: newTurnstile()}
	lib.join(t)
	return t
}

// maxRepairs bounds the repairs under one call.
const maxRepairs = 5

// run calls f with a Session, and again after each repair that its failure
// asks for. Plain retries, of failures without a reason, come first; patience
// is their number.
func (t *localToken) run(ctx context.Context, patience int, f func(st *login, sh pkcs11.SessionHandle) error) error {
	for try := 0; ; try++ {
		seen, err := t.once(ctx, f)
		if err == nil {
			return nil
		}
		if try >= maxRepairs+patience {
			return t.complete(err)
		}
		if err := t.repair(ctx, seen, try < patience, err); err != nil {
			return t.complete(err)
		}
	}
}

// once calls f with a Session of the pool. After an error the Session is
// closed, which ends whatever operation it was left in.
func (t *localToken) once(ctx context.Context, f func(*login, pkcs11.SessionHandle) error) (*login, error) {
	s, err := t.pool.take(ctx)
	if err != nil {
		return nil, err
	}
	defer t.pool.put(s)
	if err := t.lib.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer t.lib.gate.leave()
	st := t.state.Load()
	switch {
	case t.closed.Load():
		return st, fmt.Errorf("hsm: token %q: %w", t.uri.Token, ErrClosed)
	case st == nil || st.epoch != t.lib.epoch.Load():
		return st, errStale
	}
	if err := t.openSession(st, s); err != nil {
		return st, err
	}
	err = f(st, s.handle)
	if err != nil {
		t.closeSession(st.epoch, s)
	}
	return st, err
}

func (t *localToken) openSession(st *login, s *session) error {
	if s.open && s.epoch == st.epoch {
		return nil
	}
	sh, err := t.lib.api.OpenSession(st.info.Slot, sessionFlags(st.info))
	if err != nil {
		return t.lib.fail("C_OpenSession", err)
	}
	s.handle, s.epoch, s.open = sh, st.epoch, true
	return nil
}

// closeSession ends a Session of this epoch; a handle of an earlier one may
// name somebody else's Session now.
func (t *localToken) closeSession(epoch uint64, s *session) {
	if s.open && s.epoch == epoch {
		t.lib.api.CloseSession(s.handle)
	}
	s.open = false
}

func sessionFlags(info TokenInfo) uint {
	if info.WriteProtected {
		return pkcs11.CKF_SERIAL_SESSION
	}
	return pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION
}

// repair does what the class of the failure asks for. Its own error ends the
// call.
func (t *localToken) repair(ctx context.Context, seen *login, patient bool, err error) error {
	if errors.Is(err, errStale) {
		return t.relogin(ctx, seen, nil)
	}
	switch classOf(err) {
	case ClassRetry:
		if patient {
			return nil
		}
		return t.restart(ctx, seen, err)
	case ClassSession, ClassLogin:
		return t.relogin(ctx, seen, err)
	case ClassKeyGone:
		return t.afterKeyGone(ctx, seen, err)
	case ClassModule:
		return t.restart(ctx, seen, err)
	}
	return err
}

// relogin opens Sessions, logs in and finds the keys again, unless another
// goroutine did so since the caller looked.
func (t *localToken) relogin(ctx context.Context, seen *login, why error) error {
	return t.alone(ctx, seen, func(places []*session) error {
		begin := time.Now()
		err := t.logInTwice(ctx, places)
		if needsRestart(err) {
			if again := t.lib.restart(ctx, t.lib.epoch.Load(), false, err); again == nil {
				err = t.logInTwice(ctx, places)
			}
		}
		if seen != nil || err != nil {
			t.tell(Event{Kind: EventLogin, Took: time.Since(begin), Err: errors.Join(why, err)})
		}
		return err
	})
}

// restart initialises the module anew and logs in.
func (t *localToken) restart(ctx context.Context, seen *login, why error) error {
	return t.alone(ctx, seen, func(places []*session) error {
		epoch := t.lib.epoch.Load()
		if seen == nil || seen.epoch == epoch {
			if err := t.lib.restart(ctx, epoch, true, why); err != nil {
				return err
			}
		}
		return t.logInTwice(ctx, places)
	})
}

// alone runs a repair with every place of the pool, once for all who saw the
// same login fail.
func (t *localToken) alone(ctx context.Context, seen *login, f func([]*session) error) error {
	if err := t.fix.lock(ctx); err != nil {
		return err
	}
	defer t.fix.unlock()
	if now := t.state.Load(); now != seen && now != nil {
		return nil
	}
	places, err := t.pool.drain(ctx)
	if err != nil {
		return err
	}
	defer t.pool.refill(places)
	if t.closed.Load() {
		return fmt.Errorf("hsm: token %q: %w", t.uri.Token, ErrClosed)
	}
	return f(places)
}

// needsRestart reports failures of a login that a fresh module may not have.
// Behind p11-kit, the flags of a token that was initialised anew are stale.
func needsRestart(err error) bool {
	switch classOf(err) {
	case ClassRetry, ClassModule, ClassSession, ClassLogin, ClassKeyGone:
		return true
	}
	return errors.Is(err, ErrTokenGone) || errors.Is(err, ErrPINNotSet)
}

// logInTwice forgives a login one failure without a reason.
func (t *localToken) logInTwice(ctx context.Context, places []*session) error {
	err := t.logIn(ctx, places)
	switch classOf(err) {
	case ClassRetry, ClassSession, ClassLogin, ClassKeyGone:
		err = t.logIn(ctx, places)
	}
	return err
}

// complete names token and key in an error that leaves the driver.
func (t *localToken) complete(err error) error {
	if errors.Is(err, errStale) {
		return fmt.Errorf("hsm: token %q: %w", t.uri.Token, ErrTokenGone)
	}
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	if st := t.state.Load(); st != nil && e.Token == "" {
		e.Slot, e.Token = st.info.Slot, st.info.Label
	} else if e.Token == "" {
		e.Token = t.uri.Token
	}
	return err
}

func (t *localToken) tell(e Event) {
	e.Token = t.uri.Token
	if st := t.state.Load(); st != nil {
		e.Token = st.info.Label
	}
	t.lib.tell(e)
}

// close waits for the calls in flight and closes all Sessions, which logs out.
func (t *localToken) close(ctx context.Context) error {
	if t.closed.Swap(true) {
		return nil
	}
	places, err := t.pool.drain(ctx)
	if err != nil {
		return fmt.Errorf("hsm: token %q still has calls in flight: %w", t.uri.Token, err)
	}
	defer t.pool.refill(places)
	if err := t.lib.gate.enter(ctx); err != nil {
		return err
	}
	defer t.lib.gate.leave()
	t.dropSessions(places)
	t.state.Store(nil)
	t.lib.part(t)
	return nil
}

// dropSessions closes what belongs to the current epoch and forgets the rest.
// The caller is inside the gate and holds the places.
func (t *localToken) dropSessions(places []*session) {
	epoch := t.lib.epoch.Load()
	for _, s := range places {
		t.closeSession(epoch, s)
	}
	if st := t.state.Load(); st != nil && st.epoch == epoch {
		t.lib.api.CloseSession(st.keeper)
	}
}
