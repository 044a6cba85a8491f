package hsm

import (
	"context"

	"github.com/miekg/pkcs11"
)

// A session is one place in the pool; it opens its PKCS#11 Session when it is
// first used.
type session struct {
	handle pkcs11.SessionHandle
	epoch  uint64 // of the library when it was opened
	open   bool
}

// A pool bounds the Sessions of a token. Who waits for a place obeys its
// context; who takes all places has the token for itself.
type pool struct {
	places chan *session
	all    turnstile // one drain at a time, or two would wait for each other
}

func newPool(n int) *pool {
	p := &pool{places: make(chan *session, n), all: newTurnstile()}
	for range n {
		p.places <- new(session)
	}
	return p
}

func (p *pool) take(ctx context.Context) (*session, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case s := <-p.places:
		return s, nil
	default:
	}
	select {
	case s := <-p.places:
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pool) put(s *session) { p.places <- s }

// drain takes every place, so that no call is in progress on any Session.
func (p *pool) drain(ctx context.Context) ([]*session, error) {
	if err := p.all.lock(ctx); err != nil {
		return nil, err
	}
	defer p.all.unlock()
	taken := make([]*session, 0, cap(p.places))
	for len(taken) < cap(p.places) {
		s, err := p.take(ctx)
		if err != nil {
			p.refill(taken)
			return nil, err
		}
		taken = append(taken, s)
	}
	return taken, nil
}

func (p *pool) refill(sessions []*session) {
	for _, s := range sessions {
		p.put(s)
	}
}
