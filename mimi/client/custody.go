package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mls"
)

// A Mode says where a client's keys are.
type Mode string

// The modes.
const (
	Device Mode = "device" // signature and init keys in a token or TPM
	Bound  Mode = "bound"  // a short-lived software leaf key, bound by a credential whose key is in the device
	Remote Mode = "remote" // signature and init keys in an appliance, through its signing API
)

// A Custody says what holds a client's keys. Key, Credential and Mode are
// needed.
type Custody struct {
	Mode Mode

	// Key is the signature key of the client's leaves or, in mode Bound, that
	// of its credential. Its calls are made as mls.Config.Signer says.
	Key crypto.Signer

	// Credential is what an issuer has given for Key.
	Credential mls.Credential

	// Agreements makes the init keys of KeyPackages in the device. If it is
	// nil, as it is in mode Bound, they are software keys in the sealed state.
	Agreements Agreements

	// Seal is an agreement key of the device to which the key of the state is
	// encrypted. If it is nil, that key is in a file of mode 0600 beside it.
	Seal hpke.PrivateKey

	// LeafLifetime is how long a leaf key of mode Bound is used, 24 hours if
	// zero. It is replaced when a third of that is left.
	LeafLifetime time.Duration
	// BindingSuite names the signature scheme of Key in mode Bound; the
	// client's cipher suite if zero.
	BindingSuite mls.CipherSuite

	// Rejected tells a signing service that a Commit which it signed for an
	// epoch will not take effect, so that it may sign another for that epoch.
	// digest is the SHA-256 of the octets that were signed. nil where nobody
	// guards that.
	Rejected func(ctx context.Context, group []byte, epoch uint64, digest []byte, reason string) error
}

// Agreements makes ECDH keys that stay in a device. Names are the client's.
type Agreements interface {
	Generate(ctx context.Context, name string) (ecdh.KeyExchanger, error)
	// Open finds a key by the name that it was made with.
	Open(ctx context.Context, name string) (ecdh.KeyExchanger, error)
	// Destroy removes a key. One that is not there is no error.
	Destroy(ctx context.Context, name string) error
}

const defaultLeafLifetime = 24 * time.Hour

// A leafKey is a signature key for leaves, with the credential that names it.
type leafKey struct {
	signer     crypto.Signer
	credential mls.Credential
	until      time.Time // zero: it need not be replaced
}

// keys are the keys that a Custody and the state hold together.
type keys struct {
	Custody
	suite mls.CipherSuite
	store *store
	now   func() time.Time

	mu      sync.Mutex // guards what follows
	current *leafKey   // of mode Bound
	held    map[string]hpke.PrivateKey
}

func newKeys(c Custody, suite mls.CipherSuite, s *store, now func() time.Time) (*keys, error) {
	switch {
	case c.Mode != Device && c.Mode != Bound && c.Mode != Remote:
		return nil, fmt.Errorf("client: custody mode %q is unknown; it must be device, bound or remote", c.Mode)
	case c.Key == nil:
		return nil, errors.New("client: Custody.Key is nil")
	case c.Mode == Bound && c.Agreements != nil:
		return nil, errors.New("client: mode bound keeps init keys in software; Custody.Agreements must be nil")
	}
	if c.LeafLifetime <= 0 {
		c.LeafLifetime = defaultLeafLifetime
	}
	if c.BindingSuite == 0 {
		c.BindingSuite = suite
	}
	k := &keys{Custody: c, suite: suite, store: s, now: now, held: make(map[string]hpke.PrivateKey)}
	if c.Rejected != nil && c.Mode != Bound {
		k.Key = notingSigner{c.Key}
	}
	return k, nil
}

// leaf returns the key and credential for new leaves.
func (k *keys) leaf(ctx context.Context) (*leafKey, error) {
	if k.Mode != Bound {
		return &leafKey{signer: k.Key, credential: k.Credential}, nil
	}
	return k.bound(ctx)
}

// deviceKeyName returns a fresh name for an init key.
func deviceKeyName() string {
	var b [16]byte
	rand.Read(b[:])
	return "init-" + hex.EncodeToString(b[:])
}

// newInit makes the init key of a KeyPackage, or returns nil for a software
// key. The row is there before the key.
func (k *keys) newInit(ctx context.Context) (name string, _ hpke.PrivateKey, err error) {
	if k.Agreements == nil {
		return "", nil, nil
	}
	name = deviceKeyName()
	err = k.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO device_key (name, made) VALUES (?, ?)`, name, k.now().UnixMilli())
		return err
	})
	if err != nil {
		return "", nil, err
	}
	x, err := k.Agreements.Generate(ctx, name)
	if err != nil {
		return "", nil, &DeviceError{fmt.Errorf("making an init key: %w", err)}
	}
	private, err := hpke.NewDHKEMPrivateKey(deviceExchanger{x})
	if err != nil {
		return "", nil, fmt.Errorf("client: the device's init key: %w", err)
	}
	k.mu.Lock()
	k.held[string(private.PublicKey().Bytes())] = private
	k.mu.Unlock()
	return name, private, nil
}

// bindInit is the step that ties an init key to its KeyPackage.
func bindInit(ctx context.Context, name string, public, ref []byte) func(*sqldb.Tx) error {
	return func(tx *sqldb.Tx) error {
		return tx.ExecOne(ctx, errors.New("client: the init key's row is gone"), `UPDATE device_key SET public = ?, ref = ? WHERE name = ?`, public, ref, name)
	}
}

// private finds an init key of the device, for mls.Config.PrivateKey.
func (k *keys) private(ctx context.Context, public []byte) (hpke.PrivateKey, error) {
	k.mu.Lock()
	private := k.held[string(public)]
	k.mu.Unlock()
	if private != nil {
		return private, nil
	}
	var name string
	if err := k.store.one(ctx, `SELECT name FROM device_key WHERE public = ?`, []any{public}, &name); err != nil {
		return nil, fmt.Errorf("client: init key %x: %w", public, err)
	}
	if k.Agreements == nil {
		return nil, errors.New("client: an init key is in a device, and Custody.Agreements is nil")
	}
	x, err := k.Agreements.Open(ctx, name)
	if err != nil {
		return nil, &DeviceError{err}
	}
	if private, err = hpke.NewDHKEMPrivateKey(deviceExchanger{x}); err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.held[string(public)] = private
	k.mu.Unlock()
	return private, nil
}

// sweepAge is how old an init key without a KeyPackage must be to count as
// left behind by a crash.
const sweepAge = time.Minute

// sweep destroys the init keys of the device whose KeyPackages are used up or
// were never stored. A row goes after its key.
func (k *keys) sweep(ctx context.Context) error {
	if k.Agreements == nil {
		return nil
	}
	type gone struct {
		name   string
		public []byte
	}
	var list []gone
	err := k.store.each(ctx, `SELECT name, public FROM device_key AS d
		WHERE (ref IS NOT NULL AND NOT EXISTS (SELECT 1 FROM key_package WHERE key_package.ref = d.ref)) OR (ref IS NULL AND made < ?)`,
		[]any{k.now().Add(-sweepAge).UnixMilli()}, func(rows *sql.Rows) error {
			var g gone
			err := rows.Scan(&g.name, &g.public)
			list = append(list, g)
			return err
		})
	if err != nil {
		return err
	}
	for _, g := range list {
		if err := k.Agreements.Destroy(ctx, g.name); err != nil {
			return &DeviceError{fmt.Errorf("destroying init key %s: %w", g.name, err)}
		}
		k.mu.Lock()
		delete(k.held, string(g.public))
		k.mu.Unlock()
		err := k.store.write(ctx, func(tx *sqldb.Tx) error {
			_, err := tx.Exec(ctx, `DELETE FROM device_key WHERE name = ?`, g.name)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// signer finds the key of a leaf that the client has in a group, for
// mls.Config.SignerFor.
func (k *keys) signer(ctx context.Context, public []byte) (crypto.Signer, error) {
	if k.Mode == Bound {
		key, err := k.loadLeaf(ctx, public)
		if err != nil {
			return nil, err
		}
		return key.signer, nil
	}
	own, err := signaturePublicKey(k.suite, k.Key)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(own, public) {
		return nil, fmt.Errorf("client: a group has a leaf of another signature key (%x) than the device's", public)
	}
	return k.Key, nil
}

// signaturePublicKey encodes a key's public key as MLS does.
func signaturePublicKey(suite mls.CipherSuite, key crypto.Signer) ([]byte, error) {
	c, err := mls.NewClient(mls.Config{CipherSuite: suite, Signer: key})
	if err != nil {
		return nil, err
	}
	return c.SignatureKey(), nil
}
