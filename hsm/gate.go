package hsm

import (
	"context"
	"sync"
)

// A gate lets many calls into a module and, when it has to be finalised, lets
// nobody in until all are out: finalising a module in use kills the process.
type gate struct {
	mu     sync.Mutex    // guards the fields below
	inside int           // calls in the module
	open   chan struct{} // not nil while the gate is shut; closed when it opens
	empty  chan struct{} // not nil while somebody waits for the last call
}

// enter waits for an open gate. Every enter is followed by a leave.
func (g *gate) enter(ctx context.Context) error {
	for {
		g.mu.Lock()
		shut := g.open
		if shut == nil {
			g.inside++
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// shut closes the gate and waits until it is empty. After an error the gate is
// open again. Only one caller at a time may shut a gate.
func (g *gate) shut(ctx context.Context) error {
	g.mu.Lock()
	g.open = make(chan struct{})
	if g.inside == 0 {
		g.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	g.empty = empty
	g.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		g.reopen()
		return context.Cause(ctx)
	}
}

func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
	g.open, g.empty = nil, nil
}

// A turnstile lets one goroutine through at a time, and its waiters obey their
// context.
type turnstile chan struct{}

func newTurnstile() turnstile { return make(turnstile, 1) }

func (t turnstile) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turnstile) unlock() { <-t }
