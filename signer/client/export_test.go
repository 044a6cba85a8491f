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
