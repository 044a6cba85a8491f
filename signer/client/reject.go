package client

import (
	"context"

	"connectrpc.com/connect"

	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
)

// ReportRejected tells the service that a Commit which the key of that name
// signed for an epoch of a group will not take effect, so that it may sign
// another for that epoch. digest is the SHA-256 of the to-be-signed octets.
func (c *Client) ReportRejected(ctx context.Context, name string, group []byte, epoch uint64, digest []byte, reason string) error {
	return c.retry(ctx, func(ctx context.Context) error {
		_, err := c.signing.ReportRejected(ctx, connect.NewRequest(&signerv1.ReportRejectedRequest{
			Key: name, Group: group, Epoch: epoch, Digest: digest, Reason: reason,
		}))
		return err
	})
}
