package main

import (
	"context"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/hsm"
)

// An opening is one attempt to open a token, for all who want it meanwhile. It goes
// on when they have left: a token with many keys takes longer to open than most
// wait, and if it ended with them, each would begin from nothing, without end.
type opening struct {
	begun time.Time
	stop  context.CancelFunc
	done  chan struct{}
	token *hsm.Token // set before done is closed, as is err
	err   error
}

// open logs in to the token, once. Who does not wait for the end is told that it
// is being opened.
func (d *pkcs11Device) open(ctx context.Context) (*hsm.Token, error) {
	d.mu.Lock()
	token, o := d.token, d.opening
	if token == nil && o == nil {
		o = d.beginOpening(ctx)
	}
	d.mu.Unlock()
	if token != nil {
		return token, nil
	}
	left := ctx.Done()
	if d.config.PINSource == "prompt" {
		left = nil // the terminal, which shows nothing that is typed, must be given back
	}
	select {
	case <-o.done:
		return o.token, o.err
	case <-left:
		return nil, d.wrap("open the token", fmt.Errorf("%w; it is being opened, since %v", context.Cause(ctx), time.Since(o.begun).Round(time.Millisecond)))
	}
}

// beginOpening has the token opened. The caller holds mu.
func (d *pkcs11Device) beginOpening(ctx context.Context) *opening {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	o := &opening{begun: time.Now(), stop: stop, done: make(chan struct{})}
	d.opening = o
	go func() {
		defer stop()
		token, err := d.openToken(ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		o.token, o.err = token, err
		d.token, d.opening = token, nil
		close(o.done)
	}()
	return o
}

func (d *pkcs11Device) openToken(ctx context.Context) (*hsm.Token, error) {
	m, err := d.openModule(ctx)
	if err != nil {
		return nil, err
	}
	u, pin, err := d.uriAndPIN()
	if err != nil {
		return nil, err
	}
	token, err := m.OpenToken(ctx, u, pin)
	return token, d.wrap("open the token", err)
}

// endOpening ends an attempt that is under way.
func (d *pkcs11Device) endOpening(ctx context.Context) error {
	d.mu.Lock()
	o := d.opening
	d.mu.Unlock()
	if o == nil {
		return nil
	}
	o.stop()
	select {
	case <-o.done:
		return nil
	case <-ctx.Done():
		return d.wrap("close", context.Cause(ctx))
	}
}
