package client

import (
	"context"

	"connectrpc.com/connect"

	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/api/privyseal/signer/v1/signerv1connect"
)

// WithCall returns a copy of s whose answers are changed on their way.
func (s *Signer) WithCall(change func(*signerv1.SignResponse)) *Signer {
	c, changed := *s.c, *s
	c.signing = &changing{c.signing, change}
	changed.c = &c
	return &changed
}

type changing struct {
	signerv1connect.SigningServiceClient
	change func(*signerv1.SignResponse)
}

func (c *changing) Sign(ctx context.Context, r *connect.Request[signerv1.SignRequest]) (*connect.Response[signerv1.SignResponse], error) {
	out, err := c.SigningServiceClient.Sign(ctx, r)
	if err == nil {
		c.change(out.Msg)
	}
	return out, err
}

// A Tap is between a Client and its service. It sees each request for a
// signature and may change what becomes of a batch.
type Tap struct {
	signerv1connect.SigningServiceClient
	// Single is told of each call of Sign.
	Single func(*signerv1.SignRequest)
	// Before is told of each batch, After may change its answer; nil for none.
	Before func(*signerv1.BatchRequest)
	After  func(*signerv1.BatchRequest, *signerv1.BatchResponse, error) error
}

// Tap returns a copy of c whose requests pass t.
func (c *Client) Tap(t *Tap) *Client {
	out := *c
	t.SigningServiceClient = c.signing
	out.signing = t
	return &out
}

// Lanes returns how many lanes are in use.
func (c *Client) Lanes() int {
	c.batches.mu.Lock()
	defer c.batches.mu.Unlock()
	return len(c.batches.lanes)
}

func (t *Tap) Sign(ctx context.Context, r *connect.Request[signerv1.SignRequest]) (*connect.Response[signerv1.SignResponse], error) {
	if t.Single != nil {
		t.Single(r.Msg)
	}
	return t.SigningServiceClient.Sign(ctx, r)
}

func (t *Tap) Batch(ctx context.Context, r *connect.Request[signerv1.BatchRequest]) (*connect.Response[signerv1.BatchResponse], error) {
	if t.Before != nil {
		t.Before(r.Msg)
	}
	out, err := t.SigningServiceClient.Batch(ctx, r)
	if t.After == nil {
		return out, err
	}
	var m *signerv1.BatchResponse
	if err == nil {
		m = out.Msg
	}
	if err = t.After(r.Msg, m, err); err != nil {
		return nil, err
	}
	return out, nil
}
