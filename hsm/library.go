package hsm

/*
#include <stdlib.h>
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// loaded holds the modules of this process. A module keeps its state in the
// process, so each path is loaded and initialised once and shared. It is never
// unloaded: libraries with threads or thread-local state do not survive dlclose.
var loaded = struct {
	mu   sync.Mutex // guards the fields below, and each library's users
	libs map[string]*library
	ctxs map[string]*pkcs11.Ctx
	env  map[string]*setting
}{
	libs: make(map[string]*library),
	ctxs: make(map[string]*pkcs11.Ctx),
	env:  make(map[string]*setting),
}

// A library is one initialised module of this process.
type library struct {
	path     string
	initArgs string
	env      []string
	wrapped  bool
	api      API
	users    int // guarded by loaded.mu

	gate    gate          // around every call
	fix     turnstile     // around initialise and finalise
	epoch   atomic.Uint64 // counts initialisations; handles of another epoch are dead
	tried   time.Time     // last attempt to initialise again, guarded by fix
	ours    bool          // this package initialised the module, guarded by fix
	info    ModuleInfo    // set once
	observe func(Event)

	mu     sync.Mutex // guards logins
	logins map[*localToken]bool
}

// join and part keep the list of tokens that share the module's handles.
func (l *library) join(t *localToken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logins[t] = true
}

func (l *library) part(t *localToken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.logins, t)
}

// destroy destroys an object; that it is gone already is as good. Every login
// to the slot forgets the handle, because some modules give it to the next
// object.
func (l *library) destroy(st *login, sh pkcs11.SessionHandle, h pkcs11.ObjectHandle) error {
	err := l.api.DestroyObject(sh, h)
	if err != nil {
		if e := l.fail("C_DestroyObject", err); e.Class != ClassKeyGone {
			return e
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for t := range l.logins {
		if other := t.state.Load(); other != nil && other.info.Slot == st.info.Slot {
			other.objects.forgetHandle(h)
		}
	}
	return nil
}

// reinitPause keeps a dead module from being initialised for each call.
const reinitPause = 250 * time.Millisecond

// acquireLibrary loads a module or joins those who use it.
func acquireLibrary(c Config) (*library, error) {
	loaded.mu.Lock()
	defer loaded.mu.Unlock()
	if l := loaded.libs[c.Path]; l != nil {
		if l.initArgs != c.InitArgs || c.Wrap != nil || l.wrapped || !slices.Equal(l.env, c.Env) {
			return nil, fmt.Errorf("%w: %s is open in this process with another configuration; close it or use Config.Workers", ErrModule, c.Path)
		}
		l.users++
		return l, nil
	}
	if err := applyEnv(c.Env); err != nil {
		return nil, err
	}
	l, err := loadLibrary(c)
	if err == nil {
		err = l.start()
	}
	if err != nil {
		releaseEnv(c.Env)
		return nil, err
	}
	l.users = 1
	loaded.libs[c.Path] = l
	return l, nil
}

// loadLibrary opens the shared object. The caller holds loaded.mu.
func loadLibrary(c Config) (*library, error) {
	p := loaded.ctxs[c.Path]
	if p == nil {
		if p = pkcs11.New(c.Path); p == nil {
			return nil, fmt.Errorf("%w: %s cannot be loaded: it is not a PKCS#11 module, is for another machine, or lacks a library that it needs (see ldd)", ErrModule, c.Path)
		}
		loaded.ctxs[c.Path] = p
	}
	l := &library{path: c.Path, initArgs: c.InitArgs, env: c.Env, api: p, fix: newTurnstile(), observe: c.Observe, logins: make(map[*localToken]bool)}
	if c.Wrap != nil {
		l.api, l.wrapped = c.Wrap(p), true
	}
	return l, nil
}

// start initialises the module for the first time.
func (l *library) start() error {
	if err := l.initialize(); err != nil {
		return err
	}
	info, err := l.api.GetInfo()
	if err != nil {
		l.api.Finalize()
		return newError(l.path, kindOf(l.path, ModuleInfo{}), "C_GetInfo", err)
	}
	l.info = moduleInfo(l.path, info)
	l.epoch.Add(1)
	return nil
}

// initialize calls C_Initialize. That somebody else did so already is not an
// error: the module is shared then, and not ours to finalise at the end.
func (l *library) initialize() error {
	var opts []pkcs11.InitializeOption
	if l.initArgs != "" {
		args := C.CString(l.initArgs)
		defer C.free(unsafe.Pointer(args))
		opts = append(opts, pkcs11.InitializeWithReserved(unsafe.Pointer(args)))
	}
	err := l.api.Initialize(opts...)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		l.ours = false
		return nil
	}
	if err != nil {
		e := newError(l.path, kindOf(l.path, l.info), "C_Initialize", err)
		e.Class = max(e.Class, ClassModule)
		e.Advice += "; see that the module's configuration file and directories exist and can be read"
		return e
	}
	l.ours = true
	return nil
}

// release gives the module up; the last user finalises it.
func (l *library) release(ctx context.Context) error {
	loaded.mu.Lock()
	defer loaded.mu.Unlock()
	if l.users--; l.users > 0 {
		return nil
	}
	delete(loaded.libs, l.path)
	releaseEnv(l.env)
	if !l.ours {
		return nil
	}
	if err := l.gate.shut(ctx); err != nil {
		return fmt.Errorf("hsm: %s is still in use, so it was not finalised: %w", l.path, err)
	}
	defer l.gate.reopen()
	l.epoch.Add(1)
	if err := l.api.Finalize(); err != nil {
		return l.fail("C_Finalize", err)
	}
	return nil
}

// errPaused means that the module was initialised a moment ago to no avail.
var errPaused = errors.New("hsm: the module was initialised a moment ago")

// restart finalises and initialises the module once for all who saw the epoch.
// Soon after another restart it waits, or fails with errPaused.
func (l *library) restart(ctx context.Context, seen uint64, wait bool, why error) error {
	if err := l.fix.lock(ctx); err != nil {
		return err
	}
	defer l.fix.unlock()
	if l.epoch.Load() != seen {
		return nil
	}
	begin := time.Now()
	if pause := reinitPause - begin.Sub(l.tried); pause > 0 {
		if !wait {
			return errPaused
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	if err := l.gate.shut(ctx); err != nil {
		return err
	}
	defer l.gate.reopen()
	l.tried = begin
	l.epoch.Add(1)
	l.api.Finalize() // fails when somebody else finalised it, which is as good
	err := l.initialize()
	l.tell(Event{Kind: EventModule, Took: time.Since(begin), Err: errors.Join(why, err)})
	return err
}

func (l *library) tell(e Event) {
	if l.observe != nil {
		e.Module = l.path
		l.observe(e)
	}
}

func (l *library) fail(function string, err error) *Error {
	return newError(l.path, l.info.Kind, function, err)
}

// tokens lists the tokens of all slots. The caller is inside the gate.
func (l *library) tokens() ([]TokenInfo, error) {
	slots, err := l.api.GetSlotList(true)
	if err != nil {
		return nil, l.fail("C_GetSlotList", err)
	}
	var tokens []TokenInfo
	for _, slot := range slots {
		t, err := l.tokenInfo(slot)
		if err != nil {
			continue // taken out a moment ago, or a slot that does not work
		}
		tokens = append(tokens, t)
	}
	return tokens, nil
}

// tokenInfo asks for one token. The caller is inside the gate.
func (l *library) tokenInfo(slot uint) (TokenInfo, error) {
	s, err := l.api.GetSlotInfo(slot)
	if err != nil {
		return TokenInfo{}, l.fail("C_GetSlotInfo", err)
	}
	t, err := l.api.GetTokenInfo(slot)
	if err != nil {
		return TokenInfo{}, l.fail("C_GetTokenInfo", err)
	}
	return tokenInfo(l.info, slot, s, t), nil
}

// mechanisms asks what the token does. The caller is inside the gate.
func (l *library) mechanisms(slot uint) (map[uint]bool, error) {
	list, err := l.api.GetMechanismList(slot)
	if err != nil {
		return nil, l.fail("C_GetMechanismList", err)
	}
	has := make(map[uint]bool, len(list))
	for _, m := range list {
		has[m.Mechanism] = true
	}
	return has, nil
}

// keyTypes lists what a token with these mechanisms can make.
func keyTypes(has map[uint]bool) []KeyType {
	var types []KeyType
	for _, t := range KeyTypes {
		if _, ok := generatorFor(t, has); ok {
			types = append(types, t)
		}
	}
	return types
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
