package signer

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/privyseal/privyseal/credentials"
)

// An openVersion is a version with at least one device key open. It stays open
// until the Keyring is closed or the version is destroyed.
type openVersion struct {
	public crypto.PublicKey // parsed from the store, never what a device says now
	scheme *credentials.Scheme

	set    atomic.Pointer[placeSet]
	change sync.Mutex // held while set is replaced
}

// A placeSet is the places of one revision of a version's replicas.
type placeSet struct {
	revision int
	places   []*place
}

var errClosed = errors.New("the key was closed")

func (v *openVersion) close() error {
	v.change.Lock()
	defer v.change.Unlock()
	var errs []error
	for _, p := range v.set.Load().places {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// hashFor returns what a device signs for message: its digest, or for Ed25519
// the message itself.
func hashFor(scheme *credentials.Scheme, message []byte) ([]byte, crypto.Hash) {
	if scheme.Hash == 0 {
		return message, 0
	}
	h := scheme.Hash.New()
	h.Write(message)
	return h.Sum(nil), scheme.Hash
}

// places lists where a version's key is: its own object, then the replicas.
func (v *Version) places() []Replica {
	return append([]Replica{{Device: v.Device, URI: v.URI}}, v.Replicas...)
}

// openActive looks up the active version of a key, checks that the caller
// wants it for what it is for, and opens it in its device.
func (k *Keyring) openActive(ctx context.Context, id KeyID, purpose Purpose, use Use) (*Key, *Version, *openVersion, error) {
	key, err := k.store.Key(ctx, id)
	if err != nil {
		return nil, nil, nil, err
	}
	return k.openRead(ctx, key, purpose, use)
}

// openRead is openActive of a key that was just read.
func (k *Keyring) openRead(ctx context.Context, key *Key, purpose Purpose, use Use) (*Key, *Version, *openVersion, error) {
	if err := checkPurpose(key, purpose); err != nil {
		return nil, nil, nil, err
	}
	if key.Algorithm.Use() != use {
		return nil, nil, nil, fmt.Errorf("%w: key %s (%s) cannot %s", ErrUsage, key.ID, key.Algorithm, use)
	}
	v := key.Active()
	if v == nil {
		return nil, nil, nil, fmt.Errorf("%w: key %s has no active version; rotate it to make one", ErrKeyState, key.ID)
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
	opened, err := k.openDevices(ctx, key, v)
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

// openDevices opens the key of a version in one device; the others follow when
// they are needed.
func (k *Keyring) openDevices(ctx context.Context, key *Key, v *Version) (*openVersion, error) {
	public, err := publicOf(key, v)
	if err != nil {
		return nil, err
	}
	opened := &openVersion{public: public, scheme: key.Algorithm.Scheme()}
	set := &placeSet{revision: v.revision, places: k.placesFrom(v, nil)}
	opened.set.Store(set)
	var errs []error
	for _, p := range inOrder(set.places) {
		if err = k.openPlace(ctx, key, v, p); err == nil {
			return opened, nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	opened.close()
	return nil, errors.Join(errs...)
}

func inOrder(places []*place) []*place {
	sorted := slices.Clone(places)
	slices.SortStableFunc(sorted, comparePlaces)
	return sorted
}

// placesFrom returns the places of a version, and takes over those that are
// open already.
func (k *Keyring) placesFrom(v *Version, old []*place) (places []*place) {
	for _, r := range v.places() {
		i := slices.IndexFunc(old, func(p *place) bool { return p.device == r.Device && p.uri == r.URI })
		if i >= 0 {
			places = append(places, old[i])
		} else {
			places = append(places, k.newPlace(r.Device, r.URI))
		}
	}
	return places
}

// placesOf returns the places of an open version, and looks at its replicas
// again when somebody has changed them.
func (k *Keyring) placesOf(ctx context.Context, key *Key, v *Version, open *openVersion, revision int) ([]*place, error) {
	if set := open.set.Load(); set.revision == revision {
		return set.places, nil
	}
	open.change.Lock()
	defer open.change.Unlock()
	old := open.set.Load()
	if old.revision == revision {
		return old.places, nil
	}
	_, now, err := k.versionOf(ctx, key.ID, v.Number)
	if err != nil {
		return nil, err
	}
	set := &placeSet{revision: now.revision, places: k.placesFrom(now, old.places)}
	open.set.Store(set)
	for _, p := range old.places {
		if !slices.Contains(set.places, p) {
			p.close()
		}
	}
	return set.places, nil
}

// openPlace opens the object of a place, unless it is open.
func (k *Keyring) openPlace(ctx context.Context, key *Key, v *Version, p *place) error {
	if p.opened() {
		return nil
	}
	dev, err := k.device(p.device)
	if err != nil {
		return err
	}
	dk, err := dev.Open(ctx, p.uri, key.Algorithm)
	if err != nil {
		return deviceError(p.device, "open", err)
	}
	if err := matchDevice(dk, key, v, p); err != nil {
		dk.Close()
		return &DeviceError{Device: p.device, Op: "open", Remedy: RemedyOperator, Err: err}
	}
	return p.set(dk)
}

// publicOf returns the public key of a version as the store has it; nil for a
// MAC key.
func publicOf(key *Key, v *Version) (crypto.PublicKey, error) {
	switch key.Algorithm.Use() {
	case UseMAC:
		return nil, nil
	case UseAgree:
		return v.agreementKey(key.Algorithm)
	}
	return v.PublicKey()
}

// matchDevice refuses a device key whose kind or public key is not what the
// store has.
func matchDevice(dk DeviceKey, key *Key, v *Version, p *place) error {
	pub, err := publicOf(key, v)
	if err != nil {
		return err
	}
	same := false
	switch key.Algorithm.Use() { // a key of a TPM has the methods of all uses
	case UseMAC:
		_, same = dk.(MACKey)
	case UseAgree:
		if ak, ok := dk.(AgreementKey); ok {
			same = pub.(*ecdh.PublicKey).Equal(ak.PublicKey())
		}
	default:
		if sk, ok := dk.(SigningKey); ok {
			same = credentials.SamePublicKey(pub, sk.Public())
		}
	}
	if !same {
		return fmt.Errorf("the object at %s is not version %d of key %s: it was replaced, or the key store is of another token", p.uri, v.Number, key.ID)
	}
	return nil
}

// mayUse reads the standing of a version and refuses one that must not work.
func (k *Keyring) mayUse(ctx context.Context, key *Key, v *Version) (standing, error) {
	now, err := k.store.standingOf(ctx, key.ID, v.Number)
	switch {
	case err != nil:
		return now, err
	case !mayBeUsed(now):
		return now, fmt.Errorf("%w: version %d of key %s is %s now; look the key up again", ErrKeyState, v.Number, key.ID, now.state)
	}
	return now, nil
}

// mayBeUsed reports whether a version is fit for use.
func mayBeUsed(now standing) bool { return now.state == StateActive && !now.destroying }
