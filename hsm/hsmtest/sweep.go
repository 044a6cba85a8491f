package hsmtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
)

// A Sweeping says how many faults a Sweep tries.
type Sweeping struct {
	CodesPerCall int  // how many of the codes each call fails with; 0 is one
	OneSide      bool // calls fail before and after they took effect by turns, not both
}

// sweepCodes are what the calls fail with, in turn: one of each class that the
// driver tells apart, and codes that modules give for the same loss.
var sweepCodes = []pkcs11.Error{
	pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID,
	pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_HOST_MEMORY,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_FUNCTION_FAILED,
	pkcs11.CKR_OPERATION_ACTIVE, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_ARGUMENTS_BAD,
}

// Sweep runs a scenario of a token's life again and again in this process, and
// makes the nth call of the module fail, for every n, before and after the call
// took effect, with several codes. Whatever fails: no wrong signature leaves
// the driver, no refused PIN is sent again, no Session and no search is left
// open, an error is one that says what to do, nothing half-made stays on the
// token, and afterwards the same Token works. The longest recovery is logged.
func Sweep(t *testing.T, m *Module, how Sweeping) {
	m.Setenv(t)
	s := sweep{t: t, m: m}
	calls := s.run(0, Fault{})
	if calls < 30 {
		t.Fatalf("the scenario makes only %d calls", calls)
	}
	codes := max(1, how.CodesPerCall)
	for n := 1; n <= calls && !t.Failed(); n++ { // one story of a failure is enough
		for i := range codes {
			code := sweepCodes[(n+i*len(sweepCodes)/codes)%len(sweepCodes)]
			for side := range 2 {
				if after := side == 1; !how.OneSide || after == (n%2 == 1) {
					s.run(n, Fault{Code: code, After: after})
				}
			}
		}
	}
	t.Logf("%d calls, %d faults, of which %d were repaired without the caller noticing; the longest recovery took %v",
		calls, s.faults, s.repaired, s.longest.Round(time.Microsecond))
}

type sweep struct {
	t        *testing.T
	m        *Module
	faults   int
	repaired int
	longest  time.Duration
}

// A sweepRun is one run of the scenario.
type sweepRun struct {
	*testing.T
	m     *Module
	books *Faults
	story string // which call fails, and how
	errs  []error
}

// run runs the scenario with the nth call failing and returns the number of
// calls that it made.
func (s *sweep) run(n int, fault Fault) int {
	r := &sweepRun{T: s.t, m: s.m, books: &Faults{}}
	r.books.FailNth(n, fault)
	r.story = Call{N: n, Fault: &fault}.String()
	mod, tok := r.open()
	r.scenario(tok)
	calls := r.books.Calls()
	if n > 0 && n <= len(calls) {
		s.faults++
		r.story = calls[n-1].String()
		if len(r.errs) == 0 {
			s.repaired++
		}
	}
	if n == 0 && len(r.errs) > 0 {
		s.t.Fatalf("without a fault: %v", errors.Join(r.errs...))
	}
	r.books.Choose(nil)
	begin := time.Now()
	r.afterwards(tok)
	s.longest = max(s.longest, time.Since(begin))
	r.close(mod, tok)
	return len(calls)
}

func (r *sweepRun) config() hsm.Config {
	c := r.m.Config(Sessions(2), Wrap(r.books.Wrap))
	c.Env = nil
	return c
}

// open opens module and token; the fault may hit here, and then once more must
// do.
func (r *sweepRun) open() (*hsm.Module, *hsm.Token) {
	mod, err := hsm.Open(r.Context(), r.config())
	if r.note("open", err) {
		if mod, err = hsm.Open(r.Context(), r.config()); err != nil {
			r.Fatalf("%s: opening once more: %v", r.story, err)
		}
	}
	tok, err := mod.OpenToken(r.Context(), r.m.ParsedURI(r), nil)
	if r.note("open the token", err) {
		if tok, err = mod.OpenToken(r.Context(), r.m.ParsedURI(r), nil); err != nil {
			r.Fatalf("%s: opening the token once more: %v", r.story, err)
		}
	}
	return mod, tok
}

// note checks an error and reports whether there was one.
func (r *sweepRun) note(what string, err error) bool {
	r.Helper()
	if err == nil {
		return false
	}
	r.errs = append(r.errs, fmt.Errorf("%s: %w", what, err))
	var e *hsm.Error
	switch {
	case errors.Is(err, errWrongSignature):
		r.Errorf("%s: %s: %v", r.story, what, err)
	case !errors.As(err, &e) && !isSentinel(err):
		r.Errorf("%s: %s: an error without a type: %v", r.story, what, err)
	}
	return true
}

// isSentinel reports whether a caller can branch on the error.
func isSentinel(err error) bool {
	return slices.ContainsFunc([]error{
		hsm.ErrTokenGone, hsm.ErrKeyNotFound, hsm.ErrKeyGone, hsm.ErrKeyChanged, hsm.ErrUnsupported, hsm.ErrNotLoggedIn,
		hsm.ErrBadOutput, hsm.ErrModule, hsm.ErrWeakKey, hsm.ErrKeyExists, hsm.ErrKeyUse,
	}, func(target error) bool { return errors.Is(err, target) })
}

// scenario is a token's life: what can be done to it, once or twice.
func (r *sweepRun) scenario(tok *hsm.Token) {
	for _, k := range r.m.Deviations.sweptTypes() {
		spec := hsm.KeySpec{Type: k, Use: k.Uses()[0], Label: newLabel()}
		info, err := tok.Generate(r.Context(), spec)
		if r.note("generate", err) {
			r.nothingLeft(tok, spec.Label)
			continue
		}
		for range 2 {
			r.note("use", r.use(tok, info))
		}
		_, err = tok.Find(r.Context(), tok.KeyURI(info))
		r.note("find", err)
		_, err = tok.Health(r.Context())
		r.note("health", err)
		_, err = tok.Keys(r.Context())
		r.note("list", err)
		if r.note("destroy", tok.Destroy(r.Context(), tok.KeyURI(info))) {
			r.books.Choose(nil)
			if err := tok.Destroy(r.Context(), tok.KeyURI(info)); err != nil && !errors.Is(err, hsm.ErrKeyNotFound) {
				r.Errorf("%s: destroy once more: %v", r.story, err)
			}
		}
		r.nothingLeft(tok, spec.Label)
	}
}

// sweptTypes are a key pair and a secret, as far as the token has them.
func (d Deviations) sweptTypes() (types []hsm.KeyType) {
	for _, k := range []hsm.KeyType{hsm.P256, hsm.HMACSHA256} {
		if slices.Contains(d.keyTypes(), k) {
			types = append(types, k)
		}
	}
	return types
}

// use uses the key through its URI, as a caller does that keeps nothing.
func (r *sweepRun) use(tok *hsm.Token, info hsm.KeyInfo) error {
	if info.Class == hsm.ClassPrivate {
		key, err := tok.Signer(r.Context(), tok.KeyURI(info))
		if err != nil {
			return err
		}
		return trySign(key, []byte("message"))
	}
	key, err := tok.MAC(r.Context(), tok.KeyURI(info))
	if err != nil {
		return err
	}
	one, err := key.MAC(r.Context(), []byte("message"))
	if err != nil {
		return err
	}
	ok, err := key.Verify(r.Context(), []byte("message"), one)
	if err == nil && !ok {
		return errWrongSignature
	}
	return err
}

// nothingLeft looks for a key by its label, without a fault.
func (r *sweepRun) nothingLeft(tok *hsm.Token, label string) {
	r.Helper()
	if len(r.errs) == 0 {
		return
	}
	r.books.Choose(nil)
	keys, err := tok.Keys(r.Context())
	if err != nil {
		r.Errorf("%s: list: %v", r.story, err)
	}
	if slices.ContainsFunc(keys, func(k hsm.KeyInfo) bool { return k.Label == label }) {
		r.Errorf("%s: key %q is still on the token after %v", r.story, label, errors.Join(r.errs...))
	}
}

// afterwards wants a whole life without an error.
func (r *sweepRun) afterwards(tok *hsm.Token) {
	before := len(r.errs)
	r.scenario(tok)
	if len(r.errs) > before {
		r.Errorf("%s: the token does not work afterwards: %v", r.story, errors.Join(r.errs[before:]...))
	}
	if open, most := r.books.OpenSessions(); most > 3+1 {
		r.Errorf("%s: %d Sessions are open and %d were, 2 and one for the login are allowed", r.story, open, most)
	}
}

func (r *sweepRun) close(mod *hsm.Module, tok *hsm.Token) {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if err := errors.Join(tok.Close(ctx), mod.Close(ctx)); err != nil {
		r.Errorf("%s: close: %v", r.story, err)
	}
	for _, problem := range r.books.Problems() {
		r.Errorf("%s: %s", r.story, problem)
	}
	if now, _ := r.books.OpenSessions(); now > 0 {
		r.Errorf("%s: %d Sessions are open after closing", r.story, now)
	}
}
