package signer

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"errors"
	"fmt"
	"sync"

	"github.com/privyseal/privyseal/credentials"
)

// An openVersion is a version whose device key is open. It stays open until
// the Keyring is closed or the version is destroyed.
type openVersion struct {
	public crypto.PublicKey // parsed from the store, never what the device says now
	scheme *credentials.Scheme

	// use is held for reading while the device works with key, and for
	// writing to close it.
	use sync.RWMutex
	key DeviceKey // nil when closed
}

var errClosed = errors.New("the key was closed")

func (v *openVersion) close() error {
	v.use.Lock()
	defer v.use.Unlock()
	if v.key == nil {
		return nil
	}
	err := v.key.Close()
	v.key = nil
	return err
}

// hash returns what the device signs for message: its digest, or for Ed25519
// the message itself.
func (v *openVersion) hash(message []byte) ([]byte, crypto.Hash) {
	if v.scheme.Hash == 0 {
		return message, 0
	}
	h := v.scheme.Hash.New()
	h.Write(message)
	return h.Sum(nil), v.scheme.Hash
}

func (v *openVersion) sign(ctx context.Context, digest []byte, hash crypto.Hash) ([]byte, error) {
	v.use.RLock()
	defer v.use.RUnlock()
	key, ok := v.key.(SigningKey)
	if !ok {
		return nil, errClosed
	}
	return key.SignContext(ctx, digest, hash)
}

func (v *openVersion) agree(ctx context.Context, remote *ecdh.PublicKey) ([]byte, error) {
	v.use.RLock()
	defer v.use.RUnlock()
	key, ok := v.key.(AgreementKey)
	if !ok {
		return nil, errClosed
	}
	return key.ECDHContext(ctx, remote)
}

func (v *openVersion) mac(ctx context.Context, message []byte) ([]byte, error) {
	v.use.RLock()
	defer v.use.RUnlock()
	key, ok := v.key.(MACKey)
	if !ok {
		return nil, errClosed
	}
	return key.MACContext(ctx, message)
}

// openActive looks up the active version of a key, checks that the caller
// wants it for what it is for, and opens it in its device.
func (k *Keyring) openActive(ctx context.Context, id KeyID, purpose Purpose, use Use) (*Key, *Version, *openVersion, error) {
	key, err := k.store.Key(ctx, id)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := checkPurpose(key, purpose); err != nil {
		return nil, nil, nil, err
	}
	if key.Algorithm.Use() != use {
		return nil, nil, nil, fmt.Errorf("%w: key %s (%s) cannot %s", ErrUsage, id, key.Algorithm, use)
	}
	v := key.Active()
	if v == nil {
		return nil, nil, nil, fmt.Errorf("%w: key %s has no active version; rotate it to make one", ErrKeyState, id)
	}
	open, err := k.openVersion(ctx, key, v)
	return key, v, open, err
}

// openVersion returns the version from the cache or opens it. Two callers may
// open it at the same time; the second one closes its own again.
func (k *Keyring) openVersion(ctx context.Context, key *Key, v *Version) (*openVersion, error) {
	ref := versionRef{key.ID, v.Number}
	k.mu.Lock()
	cached := k.open[ref]
	k.mu.Unlock()
	if cached != nil {
		return cached, nil
	}
	opened, err := k.openDevice(ctx, key, v)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	cached = k.open[ref]
	if cached == nil {
		k.open[ref] = opened
	}
	k.mu.Unlock()
	if cached != nil {
		opened.close()
		return cached, nil
	}
	return opened, nil
}

func (k *Keyring) openDevice(ctx context.Context, key *Key, v *Version) (*openVersion, error) {
	dev, err := k.device(v.Device)
	if err != nil {
		return nil, err
	}
	dk, err := dev.Open(ctx, v.URI, key.Algorithm)
	if err != nil {
		return nil, deviceError(v.Device, "open", err)
	}
	opened := &openVersion{key: dk, scheme: key.Algorithm.Scheme()}
	if opened.public, err = matchDevice(dk, key, v); err != nil {
		dk.Close()
		return nil, &DeviceError{Device: v.Device, Op: "open", Remedy: RemedyOperator, Err: err}
	}
	return opened, nil
}

// matchDevice refuses a device key whose kind or public key is not what the
// store has, and returns the public key.
func matchDevice(dk DeviceKey, key *Key, v *Version) (crypto.PublicKey, error) {
	mismatch := fmt.Errorf("the object at %s is not version %d of key %s: it was replaced, or the key store is of another token", v.URI, v.Number, key.ID)
	switch key.Algorithm.Use() {
	case UseMAC:
		if _, ok := dk.(MACKey); !ok {
			return nil, mismatch
		}
		return nil, nil
	case UseAgree:
		return matchAgreement(dk, key, v, mismatch)
	}
	sk, ok := dk.(SigningKey)
	if !ok {
		return nil, mismatch
	}
	pub, err := v.PublicKey()
	if err != nil {
		return nil, err
	}
	if !credentials.SamePublicKey(pub, sk.Public()) {
		return nil, mismatch
	}
	return pub, nil
}

func matchAgreement(dk DeviceKey, key *Key, v *Version, mismatch error) (crypto.PublicKey, error) {
	ak, ok := dk.(AgreementKey)
	if !ok {
		return nil, mismatch
	}
	pub, err := v.agreementKey(key.Algorithm)
	if err != nil {
		return nil, err
	}
	if !pub.Equal(ak.PublicKey()) {
		return nil, mismatch
	}
	return pub, nil
}

// mayUse reads the standing of a version and refuses one that must not work.
func (k *Keyring) mayUse(ctx context.Context, key *Key, v *Version) (standing, error) {
	now, err := k.store.standingOf(ctx, key.ID, v.Number)
	switch {
	case err != nil:
		return now, err
	case now.state != StateActive || now.destroying:
		return now, fmt.Errorf("%w: version %d of key %s is %s now; look the key up again", ErrKeyState, v.Number, key.ID, now.state)
	case now.suspect:
		return now, &DeviceError{Device: v.Device, Op: "sign", Remedy: RemedyOperator,
			Err: fmt.Errorf("%w: it returned a wrong signature and an operator must look into it", ErrDeviceSuspect)}
	}
	return now, nil
}
