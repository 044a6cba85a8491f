package client

import (
	"context"
	"errors"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

// pinned is the step that remembers the key of a client when it is first
// seen.
func pinned(ctx context.Context, client mimi.URI, print identity.Fingerprint, at int64) func(*sqldb.Tx) error {
	return func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO pin (client_uri, fingerprint, at) VALUES (?, ?, ?) ON CONFLICT (client_uri) DO NOTHING`,
			client.String(), print[:], at)
		return err
	}
}

// pin remembers the keys of leaves of a room.
func (c *Client) pin(ctx context.Context, u *unit, room mimi.URI, leaves ...*mls.LeafNode) error {
	for _, leaf := range leaves {
		if leaf == nil {
			continue
		}
		v, err := c.verdicts.in(room).of(ctx, leaf)
		if err != nil {
			return err
		}
		if v.Proven() {
			continue // what an issuer has proven may change its key
		}
		u.add(pinned(ctx, v.Identity.Client, identity.FingerprintOf(leaf.SignatureKey), c.now().UnixMilli()))
	}
	return nil
}

// checkPin compares the key of a client with the one first seen. An identity
// that an issuer has proven may change its key.
func (c *Client) checkPin(ctx context.Context, id *identity.Identity, now identity.Fingerprint) error {
	if id.Proven() {
		return nil
	}
	var first []byte
	err := c.store.one(ctx, `SELECT fingerprint FROM pin WHERE client_uri = ?`, []any{id.Client.String()}, &first)
	if errors.Is(err, mls.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return identity.CheckPin(id, identity.Fingerprint(first), now)
}

// Verify records that a person has compared the fingerprint of a client's
// signature key by another way. A later change of the key ends that.
func (c *Client) Verify(ctx context.Context, client mimi.URI, print identity.Fingerprint) error {
	return c.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO pin (client_uri, fingerprint, verified, at) VALUES (?, ?, 1, ?)
			ON CONFLICT (client_uri) DO UPDATE SET fingerprint = excluded.fingerprint, verified = 1, at = excluded.at`,
			client.String(), print[:], c.now().UnixMilli())
		return err
	})
}

func (c *Client) isVerified(ctx context.Context, client mimi.URI, print identity.Fingerprint) (bool, error) {
	var n int
	err := c.store.one(ctx, `SELECT count(*) FROM pin WHERE client_uri = ? AND fingerprint = ? AND verified = 1`, []any{client.String(), print[:]}, &n)
	return n > 0, err
}
