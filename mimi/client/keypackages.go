package client

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mls"
)

// KeyPackages asks the provider how many it holds, and uploads what is
// missing.
func (c *Client) KeyPackages(ctx context.Context) (clientapi.KeyPackageCounts, error) {
	counts, err := ask(ctx, c.provider, http.MethodGet, clientapi.PathKeyPackages, nil, clientapi.ParseKeyPackageCounts)
	if err != nil {
		return nil, err
	}
	return c.topUp(ctx, counts, false)
}

// topUp uploads KeyPackages until the provider holds as many as are wanted.
// With replace the provider drops those that it has.
func (c *Client) topUp(ctx context.Context, counts clientapi.KeyPackageCounts, replace bool) (clientapi.KeyPackageCounts, error) {
	missing, last := c.cfg.KeyPackages, !c.cfg.NoLastResort
	for _, n := range counts {
		if n.CipherSuite == c.cfg.CipherSuite && !replace {
			missing -= int(n.Left)
			last = last && !n.LastResort
		}
	}
	made, err := c.notUploaded(ctx)
	if err != nil {
		return counts, err
	}
	for first := replace; missing > 0 || last || first; first = false {
		n := min(max(missing, 0), clientapi.MaxKeyPackages-1)
		up := &clientapi.KeyPackageUpload{Replace: first}
		var refs [][]byte
		for i := range n {
			k, err := made.next(ctx, c, false)
			if err != nil {
				return counts, fmt.Errorf("client: KeyPackage %d of %d: %w", i+1, n, err)
			}
			up.KeyPackages, refs = append(up.KeyPackages, k), append(refs, k.Ref())
		}
		if last {
			k, err := made.next(ctx, c, true)
			if err != nil {
				return counts, err
			}
			up.KeyPackages, refs = append(up.KeyPackages, k), append(refs, k.Ref())
		}
		counts, err = ask(ctx, c.provider, http.MethodPost, clientapi.PathKeyPackages, up.Marshal(), clientapi.ParseKeyPackageCounts)
		if err != nil {
			return counts, fmt.Errorf("client: uploading KeyPackages: %w", err)
		}
		if err := c.uploaded(ctx, refs); err != nil {
			return counts, err
		}
		missing, last = missing-n, false
	}
	return counts, c.dropExpired(ctx)
}

// waitingPackages are KeyPackages that were made and of which it is not known if
// the provider has them, those of last resort by themselves. They are uploaded
// again before others are made, so that a provider that takes none does not fill
// the device with init keys. One that it has already stays as it is there.
type waitingPackages map[bool][]*mls.KeyPackage

// next returns one that waits, or makes one.
func (w waitingPackages) next(ctx context.Context, c *Client, lastResort bool) (*mls.KeyPackage, error) {
	list := w[lastResort]
	if len(list) == 0 {
		return c.newKeyPackage(ctx, lastResort)
	}
	w[lastResort] = list[1:]
	return list[0], nil
}

// notUploaded finds the KeyPackages that wait, of the present leaf key and
// credential.
func (c *Client) notUploaded(ctx context.Context) (waitingPackages, error) {
	l, err := c.keys.leaf(ctx)
	if err != nil {
		return nil, err
	}
	var refs [][]byte
	err = c.store.each(ctx, `SELECT ref FROM key_package WHERE uploaded = 0 AND not_after > ? ORDER BY not_after`, []any{c.now().Unix()}, func(rows *sql.Rows) error {
		var ref []byte
		err := rows.Scan(&ref)
		refs = append(refs, ref)
		return err
	})
	list := make(waitingPackages)
	for _, ref := range refs {
		e, err := c.engine().LoadKeyPackage(ctx, ref)
		if err != nil {
			return nil, err
		}
		k := e.KeyPackage
		if bytes.Equal(k.LeafNode.SignatureKey, c.engine().SignatureKey()) && k.LeafNode.Credential.Equal(&l.credential) {
			list[k.LastResort()] = append(list[k.LastResort()], k)
		}
	}
	return list, err
}

// newKeyPackage makes a KeyPackage, whose private keys are stored, with what is
// known of it, before anybody can see it.
func (c *Client) newKeyPackage(ctx context.Context, lastResort bool) (*mls.KeyPackage, error) {
	l, err := c.keys.leaf(ctx)
	if err != nil {
		return nil, err
	}
	name, init, err := c.keys.newInit(ctx)
	if err != nil {
		return nil, err
	}
	opts := mls.KeyPackageOptions{LastResort: lastResort, Lifetime: c.keyPackageLifetime(l)}
	if init != nil {
		opts.InitKey = init
	}
	unitCtx, u := collect(ctx)
	e, err := c.engine().NewKeyPackage(unitCtx, opts)
	if err != nil {
		return nil, err
	}
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE key_package SET not_after = ?, last_resort = ? WHERE ref = ?`,
			int64(e.KeyPackage.LeafNode.Lifetime.NotAfter), lastResort, e.Ref())
		return err
	})
	if init != nil {
		u.add(bindInit(ctx, name, init.PublicKey().Bytes(), e.Ref()))
	}
	return e.KeyPackage, c.store.commit(ctx, u)
}

// keyPackageLifetime ends with the leaf key, if that is replaced.
func (c *Client) keyPackageLifetime(l *leafKey) *mls.Lifetime {
	if l.until.IsZero() {
		return nil
	}
	return &mls.Lifetime{NotBefore: uint64(c.now().Add(-time.Hour).Unix()), NotAfter: uint64(l.until.Unix())}
}

func (c *Client) uploaded(ctx context.Context, refs [][]byte) error {
	return c.store.write(ctx, func(tx *sqldb.Tx) error {
		for _, ref := range refs {
			if _, err := tx.Exec(ctx, `UPDATE key_package SET uploaded = 1 WHERE ref = ?`, ref); err != nil {
				return err
			}
		}
		return nil
	})
}

// expiredGrace is how long private keys outlive their KeyPackage: a Welcome
// may be on its way.
const expiredGrace = 48 * time.Hour

// dropExpired deletes the private keys of KeyPackages that nobody may use any
// more.
func (c *Client) dropExpired(ctx context.Context) error {
	err := c.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM key_package WHERE not_after > 0 AND not_after < ?`, c.now().Add(-expiredGrace).Unix())
		return err
	})
	if err != nil {
		return err
	}
	return c.keys.sweep(ctx)
}
