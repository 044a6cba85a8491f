package hsm

import (
	"context"
	"fmt"
	"sync"
)

// A pinDesk hands a token's PIN to one worker at a time and waits for what
// becomes of it. Without it, a PIN that has gone wrong would be refused once in
// each worker, and three refusals lock many tokens.
type pinDesk struct {
	turn turnstile

	mu      sync.Mutex // guards the fields below
	holder  *link
	name    string
	pin     PIN
	verdict chan struct{}
}

// told hears what a worker says unasked.
func (w *workers) told(l *link, f frame) {
	switch f.kind {
	case tellEvent:
		var e wireEvent
		if decodeJSON(f.payload, &e) == nil {
			w.config.Observe(e.event(w.config.Path, l.number))
		}
	case wantPIN:
		n, name, err := cutTokenNumber(f.payload)
		if t := w.tokenByNumber(n); err == nil && t != nil {
			go t.servePIN(l, string(name))
		} else if err == nil {
			l.out.send(0, tellPIN, pinAnswer{token: n, why: pinUnread, text: "the token was closed"}.bytes())
		}
	case tellVerdict:
		n, rest, err := cutTokenNumber(f.payload)
		if t := w.tokenByNumber(n); err == nil && t != nil && len(rest) == 1 {
			t.desk.judge(l, rest[0] == 1)
		}
	}
}

// servePIN answers a worker that wants the PIN.
func (t *sharedToken) servePIN(l *link, name string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-l.dead:
			cancel()
		case <-ctx.Done():
		}
	}()
	if t.desk.turn.lock(ctx) != nil {
		return
	}
	defer t.desk.turn.unlock()
	answer := t.answerPIN(ctx, name)
	if answer.why != pinGiven {
		l.out.send(0, tellPIN, answer.bytes())
		return
	}
	verdict := t.desk.lend(l, name, answer.pin)
	p := answer.bytes()
	l.out.send(0, tellPIN, p)
	clear(p)
	select {
	case <-verdict:
	case <-l.dead:
		t.desk.judge(l, false)
	}
}

// answerPIN reads the source and looks the PIN up among the refused ones.
func (t *sharedToken) answerPIN(ctx context.Context, name string) pinAnswer {
	if t.pin == nil {
		return pinAnswer{token: t.number, why: pinUnread, text: fmt.Sprintf("token %q wants a PIN: add pin-source to its URI", t.uri.Token)}
	}
	pin, err := t.pin.PIN(ctx)
	switch {
	case err != nil:
		return pinAnswer{token: t.number, why: pinUnread, text: err.Error()}
	case refusedPINs.has(name, pin):
		return pinAnswer{token: t.number, why: pinRefused}
	}
	return pinAnswer{token: t.number, pin: pin}
}

func (d *pinDesk) lend(l *link, name string, pin PIN) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holder, d.name, d.pin, d.verdict = l, name, pin, make(chan struct{})
	return d.verdict
}

// judge takes a verdict from the worker that holds the PIN.
func (d *pinDesk) judge(l *link, refused bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holder != l || l == nil {
		return
	}
	if refused {
		refusedPINs.add(d.name, d.pin)
	}
	d.holder, d.pin = nil, PIN{}
	close(d.verdict)
}
