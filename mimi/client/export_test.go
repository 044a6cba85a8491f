package client

import (
	"context"
	"time"

	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mls"
)

var ctxBackground = context.Background()

// SetFault has f called before and after each write of the state.
func (c *Client) SetFault(f func(after bool) error) { c.store.fault = f }

// SetStall bounds how long nothing may move of a request or an answer.
func (c *Client) SetStall(d time.Duration) { c.provider.stall = d }

// Turn is how many members are called before this one to commit what waits.
func (r *Room) Turn(ctx context.Context) (int, error) {
	if err := r.lock(ctx); err != nil {
		return 0, err
	}
	defer r.mu.Unlock()
	err := r.load(ctx)
	if err != nil {
		return 0, err
	}
	return r.turn(), nil
}

// LeafKeys counts the software leaf keys in the state.
func (c *Client) LeafKeys() (n int, err error) {
	err = c.store.one(ctxBackground, `SELECT count(*) FROM leaf_key`, nil, &n)
	return n, err
}

// DeviceKeys counts the init keys of the device that the state knows of.
func (c *Client) DeviceKeys() (n int, err error) {
	err = c.store.one(ctxBackground, `SELECT count(*) FROM device_key`, nil, &n)
	return n, err
}

// Waiting counts the messages in the outbox.
func (c *Client) Waiting() (n int, err error) {
	err = c.store.one(ctxBackground, `SELECT count(*) FROM outbox`, nil, &n)
	return n, err
}

// PastEpochs is for how many epochs late messages are read.
const PastEpochs = pastEpochs

// SetMaxRefused bounds what is kept of refused events.
func (c *Client) SetMaxRefused(n int) { c.maxRefused = n }

// SendRaw sends application data as it is, past all checks of this side.
func (r *Room) SendRaw(ctx context.Context, data []byte) error {
	o := &outgoing{data: data}
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return err
	}
	if err := r.encrypt(ctx, o, nil); err != nil {
		return err
	}
	_, _, err := r.submit(ctx, o)
	if err != nil { // what is no message is not filed
		err = r.giveUp(ctx, o)
	}
	return err
}

// SendAs sends a text with the media type written as it is given.
func (r *Room) SendAs(ctx context.Context, mediaType, text string) error {
	m := &content.Message{Salt: [16]byte{1}, Extensions: content.NewExtensions(r.c.User().String(), r.uri.String()), Body: textPart(text)}
	encoded, err := m.Encode()
	if err != nil {
		return err
	}
	f := &mls.ApplicationFraming{MediaType: mls.MediaType{Type: mediaType}, Content: encoded}
	return r.SendRaw(ctx, f.Bytes())
}
