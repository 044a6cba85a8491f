package hsmtest

import (
	"context"
	"testing"
	"time"

	"github.com/privyseal/privyseal/hsm"
)

// A Change adjusts the configuration with which a test opens a module.
type Change = func(*hsm.Config)

// Workers hosts the module in n worker processes. The test binary must call
// hsm.WorkerMain first in TestMain.
func Workers(n int) Change { return func(c *hsm.Config) { c.Workers = n } }

// InWorkers hosts the module in as many worker processes as it bears, two at
// most.
func (m *Module) InWorkers() Change {
	if m.Deviations.OneProcess {
		return Workers(1)
	}
	return Workers(2)
}

// Sessions bounds the Sessions of a token.
func Sessions(n int) Change { return func(c *hsm.Config) { c.Sessions = n } }

// Wrap puts a layer around the module in this process, such as Faults.Wrap.
func Wrap(layer func(hsm.API) hsm.API) Change { return func(c *hsm.Config) { c.Wrap = layer } }

// closeLimit bounds how long closing may take.
const closeLimit = 30 * time.Second

// Token returns a throwaway SoftHSM token in this process, logged in and
// closed when the test ends. Such a test cannot be parallel.
func Token(t testing.TB, changes ...Change) *hsm.Token {
	t.Helper()
	return SoftHSM(t).Open(t, changes...)
}

// Config returns the configuration for the module, with the attributes that it
// lacks admitted.
func (m *Module) Config(changes ...Change) hsm.Config {
	c := hsm.Config{Path: m.Path, InitArgs: m.InitArgs, Env: m.Env, AdmitWeak: m.Deviations.Weak}
	for _, change := range changes {
		change(&c)
	}
	return c
}

// OpenModule opens the module; it is closed when the test ends.
func (m *Module) OpenModule(t testing.TB, changes ...Change) *hsm.Module {
	t.Helper()
	c := m.Config(changes...)
	if c.Workers == 0 {
		m.Setenv(t) // and takes it back, so that the next test has its own
		c.Env = nil
	}
	mod, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatalf("open %s: %v", m.Name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		if err := mod.Close(ctx); err != nil {
			t.Errorf("close %s: %v", m.Name, err)
		}
	})
	return mod
}

// Open opens the module and its token with a login; both are closed when the
// test ends.
func (m *Module) Open(t testing.TB, changes ...Change) *hsm.Token {
	t.Helper()
	return m.OpenTokenOf(t, m.OpenModule(t, changes...))
}

// OpenTokenOf opens the token of an open module.
func (m *Module) OpenTokenOf(t testing.TB, mod *hsm.Module) *hsm.Token {
	t.Helper()
	tok, err := mod.OpenToken(t.Context(), m.ParsedURI(t), nil)
	if err != nil {
		t.Fatalf("open the token of %s: %v", m.Name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		if err := tok.Close(ctx); err != nil {
			t.Errorf("close the token of %s: %v", m.Name, err)
		}
	})
	return tok
}

// ParsedURI is URI for the driver.
func (m *Module) ParsedURI(t testing.TB) hsm.URI {
	t.Helper()
	u, err := hsm.ParseURI(m.URI())
	if err != nil {
		t.Fatal(err)
	}
	return u
}
