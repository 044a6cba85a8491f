package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mls"
)

// bound returns the software leaf key in use, or makes one.
func (k *keys) bound(ctx context.Context) (*leafKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		return k.current, nil
	}
	var public []byte
	err := k.store.one(ctx, `SELECT public FROM leaf_key ORDER BY until DESC, made DESC LIMIT 1`, nil, &public)
	switch {
	case err == nil:
		k.current, err = k.loadLeaf(ctx, public)
	case errors.Is(err, mls.ErrNotFound):
		k.current, err = k.makeLeaf(ctx)
	}
	return k.current, err
}

// renewDue reports whether the leaf key should be replaced now.
func (k *keys) renewDue(ctx context.Context) (bool, error) {
	if k.Mode != Bound {
		return false, nil
	}
	l, err := k.bound(ctx)
	return err == nil && k.now().After(l.until.Add(-k.LeafLifetime/3)), err
}

// renew makes the next leaf key. The earlier ones are kept for the groups that
// still have them.
func (k *keys) renew(ctx context.Context) (*leafKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next, err := k.makeLeaf(ctx)
	if err == nil {
		k.current = next
	}
	return next, err
}

// makeLeaf makes a software key, has the device bind it to the credential and
// stores both.
func (k *keys) makeLeaf(ctx context.Context) (*leafKey, error) {
	signer, err := generateSoftware(k.suite)
	if err != nil {
		return nil, err
	}
	public, err := signaturePublicKey(k.suite, signer)
	if err != nil {
		return nil, err
	}
	binding, err := mls.BindCredential(ctx, k.BindingSuite, k.Credential, k.Key, public)
	if err != nil {
		return nil, fmt.Errorf("client: binding a leaf key to the credential: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, err
	}
	now := k.now()
	l := &leafKey{signer, mls.MultiCredential(binding), now.Add(k.LeafLifetime)}
	err = k.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO leaf_key (public, private, credential, made, until) VALUES (?, ?, ?, ?, ?)`,
			public, k.store.seal.seal("leaf-key", public, private), l.credential.Body, now.UnixMilli(), l.until.UnixMilli())
		return err
	})
	clear(private)
	return l, err
}

func (k *keys) loadLeaf(ctx context.Context, public []byte) (*leafKey, error) {
	var sealed, credential []byte
	var until int64
	err := k.store.one(ctx, `SELECT private, credential, until FROM leaf_key WHERE public = ?`, []any{public}, &sealed, &credential, &until)
	if err != nil {
		return nil, fmt.Errorf("client: leaf key %x: %w", public, err)
	}
	private, err := k.store.seal.open("leaf-key", public, sealed)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	key, err := x509.ParsePKCS8PrivateKey(private)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, fmt.Errorf("%w: leaf key %x", ErrSeal, public)
	}
	return &leafKey{signer, mls.Credential{Type: mls.CredentialMulti, Body: credential}, time.UnixMilli(until)}, nil
}

// oldLeafKeys lists the public keys of the leaf keys that ended before a time,
// other than one.
func (k *keys) oldLeafKeys(ctx context.Context, keep []byte, end time.Time) (list [][]byte, err error) {
	err = k.store.each(ctx, `SELECT public FROM leaf_key WHERE public <> ? AND until < ?`, []any{keep, end.UnixMilli()}, func(rows *sql.Rows) error {
		var public []byte
		err := rows.Scan(&public)
		list = append(list, public)
		return err
	})
	return list, err
}

func generateSoftware(suite mls.CipherSuite) (crypto.Signer, error) {
	curves := map[mls.CipherSuite]elliptic.Curve{
		mls.P256AES128SHA256P256: elliptic.P256(), mls.P384AES256SHA384P384: elliptic.P384(), mls.P521AES256SHA512P521: elliptic.P521(),
	}
	if curve := curves[suite]; curve != nil {
		return ecdsa.GenerateKey(curve, rand.Reader)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}
