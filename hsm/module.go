package hsm

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// A Module is a PKCS#11 module, in this process or in workers.
type Module struct {
	config  Config
	backend backend
	closed  atomic.Bool
}

// A backend hosts a module; a tokenBackend is one of its tokens after login.
// Both forms, in this process and in workers, have the same ones.
type backend interface {
	info(ctx context.Context) (ModuleInfo, error)
	tokens(ctx context.Context) ([]TokenInfo, error)
	open(ctx context.Context, u URI, pin PINSource) (tokenBackend, error)
	close(ctx context.Context) error
}

type tokenBackend interface {
	health(ctx context.Context) (Health, error)
	keys(ctx context.Context) ([]KeyInfo, error)
	find(ctx context.Context, u URI) ([]KeyInfo, error)
	generate(ctx context.Context, spec KeySpec) (KeyInfo, error)
	destroy(ctx context.Context, k *KeyInfo) error
	operate(ctx context.Context, op operation, k *KeyInfo, in []byte) ([]byte, error)
	close(ctx context.Context) error
}

// Open loads a module. The Module must be closed.
func Open(ctx context.Context, c Config) (*Module, error) {
	c, err := c.check()
	if err != nil {
		return nil, err
	}
	c.Observe = oneAtATime(c.Observe)
	m := &Module{config: c}
	if c.Workers > 0 {
		m.backend, err = openWorkers(ctx, c)
	} else {
		m.backend, err = openLocal(c)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// oneAtATime makes an observer that is never called twice at once.
func oneAtATime(observe func(Event)) func(Event) {
	if observe == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		observe(e)
	}
}

// Info says what the module says about itself.
func (m *Module) Info(ctx context.Context) (ModuleInfo, error) {
	if err := m.alive(); err != nil {
		return ModuleInfo{}, err
	}
	return m.backend.info(ctx)
}

// Tokens lists the tokens in all slots, also those that are not initialised.
func (m *Module) Tokens(ctx context.Context) ([]TokenInfo, error) {
	if err := m.alive(); err != nil {
		return nil, err
	}
	return m.backend.tokens(ctx)
}

// OpenToken chooses the one token that the URI names and logs in. Without a pin
// source the one in the URI is used. The Token must be closed.
func (m *Module) OpenToken(ctx context.Context, u URI, pin PINSource) (*Token, error) {
	if err := m.alive(); err != nil {
		return nil, err
	}
	if !u.NamesToken() {
		return nil, fmt.Errorf("%w: one of token, serial or slot-id is required", ErrURI)
	}
	if pin == nil && u.PINSource != "" {
		var err error
		if pin, err = ParsePINSource(u.PINSource); err != nil {
			return nil, err
		}
	}
	b, err := m.backend.open(ctx, u, pin)
	if err != nil {
		return nil, err
	}
	return &Token{config: m.config, backend: m.config.traced(b), uri: u.TokenOnly()}, nil
}

// Close ends the calls in flight, logs out and finalises the module. Tokens are
// closed first.
func (m *Module) Close(ctx context.Context) error {
	if m.closed.Swap(true) {
		return nil
	}
	return m.backend.close(ctx)
}

func (m *Module) alive() error {
	if m.closed.Load() {
		return fmt.Errorf("hsm: module %s: %w", m.config.Path, ErrClosed)
	}
	return nil
}

// A localModule is the backend in this process.
type localModule struct {
	lib    *library
	config Config

	mu     sync.Mutex // guards opened
	opened map[*localToken]bool
}

func openLocal(c Config) (*localModule, error) {
	lib, err := acquireLibrary(c)
	if err != nil {
		return nil, err
	}
	return &localModule{lib: lib, config: c, opened: make(map[*localToken]bool)}, nil
}

func (m *localModule) info(context.Context) (ModuleInfo, error) { return m.lib.info, nil }

// tokens lists the tokens. A module that was finalised by somebody else, or
// whose daemon came back, is initialised again first.
func (m *localModule) tokens(ctx context.Context) ([]TokenInfo, error) {
	epoch := m.lib.epoch.Load()
	tokens, err := m.listTokens(ctx)
	if classOf(err) == ClassModule {
		if err := m.lib.restart(ctx, epoch, true, err); err != nil {
			return nil, err
		}
		return m.listTokens(ctx)
	}
	return tokens, err
}

func (m *localModule) listTokens(ctx context.Context) ([]TokenInfo, error) {
	if err := m.lib.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer m.lib.gate.leave()
	tokens, err := m.lib.tokens()
	if err != nil {
		return nil, err
	}
	for i := range tokens {
		if has, err := m.lib.mechanisms(tokens[i].Slot); err == nil {
			tokens[i].KeyTypes = keyTypes(has)
		}
	}
	return tokens, nil
}

func (m *localModule) open(ctx context.Context, u URI, pin PINSource) (tokenBackend, error) {
	t, err := openLocalToken(ctx, m.lib, m.config, u, pin)
	if err != nil {
		return nil, err
	}
	m.add(t)
	return t, nil
}

func (m *localModule) add(t *localToken) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened[t] = true
}

func (m *localModule) close(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for t := range m.opened {
		if err := t.close(ctx); err != nil {
			return err
		}
	}
	return m.lib.release(ctx)
}
