package signer

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// keyStore is what the Keyring does to a KeyStore. Tests put a layer between
// that makes a step fail before or after it took effect.
type keyStore interface {
	Key(ctx context.Context, id KeyID) (*Key, error)
	Keys(ctx context.Context) ([]*Key, error)
	standingOf(ctx context.Context, id KeyID, version int) (standing, error)
	standingsOf(ctx context.Context, ids []KeyID) (map[versionRef]standing, error)
	Reserve(ctx context.Context, key *Key, device string, object ObjectID) error
	ReserveNext(ctx context.Context, id KeyID, device string, object ObjectID) (int, error)
	Activate(ctx context.Context, id KeyID, number int, made *Made) error
	Abandon(ctx context.Context, id KeyID, number int, why string) error
	BeginDestroy(ctx context.Context, id KeyID, number int) error
	FinishDestroy(ctx context.Context, id KeyID, number int) error
	SetEvidence(ctx context.Context, id KeyID, number int, e *Evidence) error
	MarkSuspect(ctx context.Context, device string, id KeyID, number int, reason string) error
	ClearSuspect(ctx context.Context, device, why string) error
	Suspects(ctx context.Context) ([]Suspect, error)
	TimesSuspect(ctx context.Context, device string, since time.Time) (int, error)
	AddReplica(ctx context.Context, id KeyID, number int, r *Replica) error
	RemoveReplica(ctx context.Context, id KeyID, number int, device string) error
}

// A Keyring joins the records in a KeyStore with the devices that hold the
// keys. Its methods may be called at the same time.
type Keyring struct {
	store   keyStore
	devices map[string]Device
	hooks   Hooks
	journal SelfTestJournal

	// mu guards open and routes; it is never held while a device or the store
	// is waited on.
	mu     sync.Mutex
	open   map[versionRef]*openVersion
	routes map[string]*route // by device
}

type versionRef struct {
	id     KeyID
	number int
}

// NewKeyring returns a Keyring over the store and the devices by their names
// in the configuration. It owns neither.
func NewKeyring(store *KeyStore, devices map[string]Device) *Keyring {
	return newKeyring(store, devices)
}

func newKeyring(store keyStore, devices map[string]Device) *Keyring {
	return &Keyring{store: store, devices: maps.Clone(devices), open: make(map[versionRef]*openVersion), routes: make(map[string]*route)}
}

// Close closes the keys that are open. Signatures under way end first.
func (k *Keyring) Close() error {
	k.mu.Lock()
	open := slices.Collect(maps.Values(k.open))
	clear(k.open)
	k.mu.Unlock()
	var errs []error
	for _, v := range open {
		errs = append(errs, v.close())
	}
	return errors.Join(errs...)
}

// device returns the device of that name.
func (k *Keyring) device(name string) (Device, error) {
	if d, ok := k.devices[name]; ok {
		return d, nil
	}
	return nil, fmt.Errorf("%w: %q is not in the configuration (there are: %v)", ErrNoDevice, clip(name), slices.Sorted(maps.Keys(k.devices)))
}

// NewKey asks Create for a key. The zero value of the optional fields works.
type NewKey struct {
	ID         KeyID
	Purpose    Purpose
	Algorithm  Algorithm // "" means the default of the purpose
	Device     string
	Labels     map[string]string
	Unverified bool // release signatures without verifying them first
}

// Create makes a key in its device: first the intent is stored, then the
// device makes the object, then the version turns active. When it fails, what
// the device may have made is removed again; where that fails too, the pending
// version stays for Reconcile.
func (k *Keyring) Create(ctx context.Context, n NewKey) (*Key, error) {
	if n.Algorithm == "" {
		n.Algorithm = n.Purpose.DefaultAlgorithm()
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	dev, err := k.device(n.Device)
	if err != nil {
		return nil, err
	}
	object := NewObjectID()
	key := &Key{ID: n.ID, Purpose: n.Purpose, Algorithm: n.Algorithm, Labels: n.Labels, Unverified: n.Unverified}
	if err := k.store.Reserve(ctx, key, n.Device, object); err != nil {
		return nil, err
	}
	return k.make(ctx, dev, key, &Version{Number: 1, Device: n.Device, ObjectID: object})
}

func (n *NewKey) check() error {
	if _, err := ParseKeyID(string(n.ID)); err != nil {
		return err
	}
	if _, err := ParsePurpose(string(n.Purpose)); err != nil {
		return err
	}
	for name, value := range n.Labels {
		if name == "" || len(name) > 64 || len(value) > 256 || len(n.Labels) > 32 {
			return fmt.Errorf("%w: labels are at most 32, with names of 1 to 64 and values of up to 256 octets", ErrUsage)
		}
	}
	return n.Algorithm.checkSuits(n.Purpose)
}

// Rotate makes a further version of a key, in the named device or, if device
// is "", in the one of its newest version. The new version turns active and
// the old one verify-only in one step.
func (k *Keyring) Rotate(ctx context.Context, id KeyID, device string) (*Key, error) {
	key, err := k.store.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	if device == "" {
		device = key.Versions[len(key.Versions)-1].Device
	}
	dev, err := k.device(device)
	if err != nil {
		return nil, err
	}
	object := NewObjectID()
	number, err := k.store.ReserveNext(ctx, id, device, object)
	if err != nil {
		return nil, err
	}
	return k.make(ctx, dev, key, &Version{Number: number, Device: device, ObjectID: object})
}

// make has the device make the object of a reserved version.
func (k *Keyring) make(ctx context.Context, dev Device, key *Key, v *Version) (*Key, error) {
	object, err := dev.Generate(ctx, spec(key, v))
	if err != nil {
		err = deviceError(v.Device, "generate", err)
		return nil, k.undo(ctx, dev, key, v, err)
	}
	made, err := usable(object, key.Algorithm)
	if err != nil {
		return nil, k.undo(ctx, dev, key, v, fmt.Errorf("device %s made an unusable key: %w", v.Device, err))
	}
	if err := k.store.Activate(ctx, key.ID, v.Number, made); err != nil {
		return nil, fmt.Errorf("the device made version %d of %s, which is still pending: %w", v.Number, key.ID, err)
	}
	return k.store.Key(ctx, key.ID)
}

func spec(key *Key, v *Version) KeySpec {
	return KeySpec{ID: v.ObjectID, Label: fmt.Sprintf("%s/%d", key.ID, v.Number), Algorithm: key.Algorithm, Purpose: key.Purpose}
}

// undoTime bounds the removal of what a failed Create left behind, which runs
// even where the caller's context has ended.
const undoTime = 10 * time.Second

// undo removes what a failed Generate may have made and abandons the version.
// It returns cause, and says so where the version stays pending.
func (k *Keyring) undo(ctx context.Context, dev Device, key *Key, v *Version, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	err := remove(ctx, dev, key, v)
	if err == nil {
		err = k.store.Abandon(ctx, key.ID, v.Number, "the device failed to make it")
	}
	if err != nil {
		return fmt.Errorf("%w (version %d of %s stays pending: %w)", cause, v.Number, key.ID, err)
	}
	return cause
}

// remove destroys the object of a version by its ObjectID. No object is fine.
func remove(ctx context.Context, dev Device, key *Key, v *Version) error {
	object, err := dev.Find(ctx, spec(key, v))
	if err == nil {
		err = dev.Destroy(ctx, object.URI, key.Algorithm)
	}
	if errors.Is(err, ErrNoObject) {
		return nil
	}
	return err
}

// usable refuses an object that is not what was asked for.
func usable(o *Object, a Algorithm) (*Made, error) {
	made := &Made{URI: o.URI, Evidence: o.Evidence}
	if o.URI == "" {
		return nil, errors.New("it has no URI")
	}
	if err := o.Evidence.check(); err != nil {
		return nil, err
	}
	if a.Use() == UseMAC {
		return made, nil
	}
	if err := checkPublic(o.Public, a); err != nil {
		return nil, err
	}
	var err error
	if made.KID, err = JWKThumbprint(o.Public); err != nil {
		return nil, err
	}
	made.Public, err = x509.MarshalPKIXPublicKey(o.Public)
	return made, err
}

func checkPublic(pub crypto.PublicKey, a Algorithm) error {
	if p, ok := pub.(*ecdh.PublicKey); ok && a.Use() == UseAgree {
		if p.Curve() == ecdhCurve(a) {
			return nil
		}
	} else if a.Use() == UseSign {
		if s, err := credentials.SchemeOf(pub); err == nil && s == a.Scheme() {
			return nil
		}
	}
	return fmt.Errorf("its public key (%T) is not for %s", pub, a)
}

func ecdhCurve(a Algorithm) ecdh.Curve {
	if a == X25519 {
		return ecdh.X25519()
	}
	return ecdh.P256()
}

// Destroy removes the object of one version from its device for good. First
// the decision is stored, from where on the version signs no more.
func (k *Keyring) Destroy(ctx context.Context, id KeyID, number int) error {
	key, err := k.store.Key(ctx, id)
	if err != nil {
		return err
	}
	v := key.Version(number)
	if v == nil {
		return fmt.Errorf("%w: %s has no version %d", ErrNoKey, id, number)
	}
	if _, err := k.device(v.Device); err != nil {
		return err
	}
	if err := k.store.BeginDestroy(ctx, id, number); err != nil {
		return err
	}
	k.forget(versionRef{id, number})
	return k.finishDestroy(ctx, key, v)
}

// finishDestroy is the second half of Destroy, here and after a crash. The
// replicas go first: while one is left the version shows as being destroyed.
func (k *Keyring) finishDestroy(ctx context.Context, key *Key, v *Version) error {
	for _, r := range v.Replicas {
		if err := k.destroyObject(ctx, key, r.Device, r.URI); err != nil {
			return err
		}
	}
	if err := k.destroyObject(ctx, key, v.Device, v.URI); err != nil {
		return err
	}
	return k.store.FinishDestroy(ctx, key.ID, v.Number)
}

// forget closes a version that is open.
func (k *Keyring) forget(ref versionRef) {
	k.mu.Lock()
	v := k.open[ref]
	delete(k.open, ref)
	k.mu.Unlock()
	if v != nil {
		v.close()
	}
}
