package client

import "context"

var ctxBackground = context.Background()

// SetFault has f called before and after each write of the state.
func (c *Client) SetFault(f func(after bool) error) { c.store.fault = f }

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
