package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mls"
)

// A telling is what the provider was told of this client.
type telling struct {
	registered bool
	hash       []byte // of the credential
	moving     bool   // a room may have another credential or leaf key
}

func credentialHash(c *mls.Credential) []byte {
	h := sha256.New()
	h.Write([]byte{byte(c.Type >> 8), byte(c.Type)})
	h.Write(c.Body)
	return h.Sum(nil)
}

// is reports whether a credential is the one that was told.
func (t *telling) is(c *mls.Credential) bool { return bytes.Equal(t.hash, credentialHash(c)) }

func (c *Client) told(ctx context.Context) (*telling, error) {
	t := new(telling)
	err := c.store.one(ctx, `SELECT registered, credential, moving FROM client`, nil, &t.registered, &t.hash, &t.moving)
	return t, err
}

// tell notes that the provider was told the present credential.
func (c *Client) tell(ctx context.Context, moving bool) error {
	return c.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE client SET credential = ?, moving = ?`, credentialHash(&c.cfg.Custody.Credential), moving)
		return err
	})
}

// setMoving is the step that has moveRooms look at all rooms.
func (c *Client) setMoving(ctx context.Context, u *unit) {
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE client SET moving = 1`)
		return err
	})
}

// Renew makes what is new of the client's leaf known: a credential that another
// than that of the last time was opened with, and in mode Bound a leaf key, which
// is made and bound to the credential when the one in use is due to be replaced,
// or now. It registers it, replaces the KeyPackages and commits it in every
// room. Leaf keys that no room has any more are deleted.
func (c *Client) Renew(ctx context.Context, now bool) error {
	due, err := c.keys.renewDue(ctx)
	if err != nil {
		return err
	}
	t, err := c.told(ctx)
	if err != nil || !t.registered {
		return err
	}
	changed := !t.is(&c.cfg.Custody.Credential)
	if c.keys.Mode == Bound && (due || now || changed) {
		if err := c.newLeafKey(ctx); err != nil {
			return err
		}
		changed = true
	}
	if changed {
		if err := c.announce(ctx); err != nil {
			return err
		}
	}
	if changed || t.moving {
		return c.moveRooms(ctx)
	}
	return c.dropLeafKeys(ctx)
}

// newLeafKey makes the next leaf key of mode Bound.
func (c *Client) newLeafKey(ctx context.Context) error {
	if _, err := c.keys.renew(ctx); err != nil {
		return err
	}
	return c.newMLS(ctx)
}

// announce makes leaf key and credential known to the provider.
func (c *Client) announce(ctx context.Context) error {
	if _, err := c.register(ctx, nil); err != nil {
		return err
	}
	if _, err := c.topUp(ctx, nil, true); err != nil {
		return err
	}
	return c.tell(ctx, true)
}

// moveRooms commits leaf key and credential in the rooms that have others.
func (c *Client) moveRooms(ctx context.Context) error {
	rooms, err := c.Rooms(ctx)
	if err != nil {
		return err
	}
	all := true
	for _, r := range rooms {
		if status, _ := r.Status(); status != RoomMember && status != RoomLeaving {
			continue
		}
		if err := r.moveLeaf(ctx); err != nil && !errors.Is(err, ErrLeaving) {
			c.log.Warn("a room keeps the old credential or leaf key for now", "room", r.uri, "err", err)
			all = false
		}
	}
	if !all {
		return nil
	}
	if err := c.tell(ctx, false); err != nil {
		return err
	}
	return c.dropLeafKeys(ctx)
}

// moveLeaf commits leaf key and credential, if the room has others.
func (r *Room) moveLeaf(ctx context.Context) error {
	l, err := r.c.keys.leaf(ctx)
	if err != nil {
		return err
	}
	r.reload()
	_, err = r.commit(ctx, func(context.Context) (*intent, error) {
		if r.hasLeaf(l) {
			return nil, nil
		}
		return &intent{leaf: &mls.LeafChange{Signer: l.signer, Credential: &l.credential}}, nil
	})
	return err
}

// hasLeaf reports whether this client's leaf in the group has a key and
// credential.
func (r *Room) hasLeaf(l *leafKey) bool {
	leaf := r.group.Member(r.group.OwnLeaf())
	public, err := signaturePublicKey(r.c.keys.suite, l.signer)
	return leaf != nil && err == nil && bytes.Equal(leaf.SignatureKey, public) && leaf.Credential.Equal(&l.credential)
}

// reload has the group loaded by the present MLS client.
func (r *Room) reload() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
}

// dropLeafKeys deletes the leaf keys that were replaced in every room. A Welcome
// to a KeyPackage of one may still be on its way for a while.
func (c *Client) dropLeafKeys(ctx context.Context) error {
	if c.keys.Mode != Bound {
		return nil
	}
	old, err := c.keys.oldLeafKeys(ctx, c.engine().SignatureKey(), c.now().Add(-expiredGrace))
	if err != nil || len(old) == 0 {
		return err
	}
	return c.store.write(ctx, func(tx *sqldb.Tx) error {
		for _, public := range old {
			if _, err := tx.Exec(ctx, `DELETE FROM leaf_key WHERE public = ?`, public); err != nil {
				return err
			}
		}
		return nil
	})
}

// LeafUntil is when the leaf key of mode Bound ends; zero in the other modes. It
// is replaced before.
func (c *Client) LeafUntil(ctx context.Context) (time.Time, error) {
	l, err := c.keys.leaf(ctx)
	if err != nil {
		return time.Time{}, err
	}
	return l.until, nil
}
