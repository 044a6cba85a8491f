package signer

import (
	"context"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// A Replica is a further object that holds the key of a version, on another
// device than the version's own: a token that was cloned by its vendor's means,
// or that the key was wrapped to. Its key never left hardware on our account;
// how it came there is the operator's to answer for.
type Replica struct {
	Device   string      `json:"device"`
	URI      string      `json:"uri"`
	Evidence *Evidence   `json:"evidence,omitempty"` // what the device says of its object
	Proof    *Possession `json:"proof"`              // how it showed that it holds the key
	AddedAt  time.Time   `json:"added_at"`
}

// A Possession is how a device showed that it holds the key of a version: it
// answered the octets of a [SelfTest] by itself.
type Possession struct {
	Challenge []byte `json:"challenge"` // SelfTest octets, or a peer's public key for ECDH
	// Answer is the signature, which anybody can verify. Of a MAC and of a
	// shared secret it is absent: they were compared, and do not leave.
	Answer []byte    `json:"answer,omitempty"`
	At     time.Time `json:"at"`
}

// AddReplica lets another device serve a version. The device must hold the same
// key already, under uri, or under the version's ObjectID if uri is ""; it is given a challenge, and what it answers is kept.
// number 0 means the active version. From then on requests go to whichever device is well and least busy.
func (k *Keyring) AddReplica(ctx context.Context, id KeyID, number int, device, uri string) (*Replica, error) {
	key, v, err := k.versionOf(ctx, id, number)
	if err != nil {
		return nil, err
	}
	if v.State != StateActive && v.State != StateVerifyOnly || v.Destroying {
		return nil, fmt.Errorf("%w: version %d of %s is %s", ErrKeyState, v.Number, id, v.State)
	}
	for _, p := range v.places() {
		if p.Device == device {
			return nil, fmt.Errorf("%w: device %s serves version %d of %s already", ErrUsage, device, v.Number, id)
		}
	}
	if uri == "" {
		if uri, err = k.locate(ctx, key, v, device); err != nil {
			return nil, err
		}
	}
	r := &Replica{Device: device, URI: uri}
	if err := k.prove(ctx, key, v, r); err != nil {
		return nil, err
	}
	return r, k.store.AddReplica(ctx, id, v.Number, r)
}

// locate returns where a device has the object of a version.
func (k *Keyring) locate(ctx context.Context, key *Key, v *Version, device string) (string, error) {
	dev, err := k.device(device)
	if err != nil {
		return "", err
	}
	object, err := dev.Find(ctx, spec(key, v))
	if err != nil {
		return "", deviceError(device, "find", err)
	}
	return object.URI, nil
}

// versionOf returns a key and one of its versions, the active one for 0.
func (k *Keyring) versionOf(ctx context.Context, id KeyID, number int) (*Key, *Version, error) {
	key, err := k.store.Key(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	v := key.Version(number)
	if number == 0 {
		v = key.Active()
	}
	if v == nil {
		return nil, nil, fmt.Errorf("%w: %s has no version %d", ErrNoKey, id, number)
	}
	return key, v, nil
}

// prove opens the object of a replica, has it answer a challenge, and keeps
// that with what its device says of it.
func (k *Keyring) prove(ctx context.Context, key *Key, v *Version, r *Replica) error {
	p := k.newPlace(r.Device, r.URI)
	defer p.close()
	if err := k.openPlace(ctx, key, v, p); err != nil {
		return err
	}
	var err error
	switch key.Algorithm.Use() {
	case UseMAC:
		r.Proof, err = k.proveMAC(ctx, key, v, p)
	case UseAgree:
		r.Proof, err = proveAgreement(ctx, key, v, p)
	default:
		r.Proof, err = proveSigning(ctx, key, v, p)
	}
	if err != nil {
		return err
	}
	r.AddedAt = r.Proof.At
	if a, ok := k.devices[r.Device].(Attester); ok {
		if r.Evidence, err = a.Attest(ctx, r.URI, key.Algorithm, nil); err != nil {
			return deviceError(r.Device, "attest", err)
		}
	}
	return nil
}

// errOtherKey says that a device answered with another key.
func errOtherKey(device string, key *Key, v *Version) error {
	return &DeviceError{Device: device, Op: "prove", Remedy: RemedyOperator,
		Err: fmt.Errorf("%w: its object is not version %d of key %s", ErrBadSignature, v.Number, key.ID)}
}

func proveSigning(ctx context.Context, key *Key, v *Version, p *place) (*Possession, error) {
	t := newSelfTest(key, v, p.device)
	pub, err := v.PublicKey()
	if err != nil {
		return nil, err
	}
	digest, hash := hashFor(key.Algorithm.Scheme(), t.Octets())
	sig, err := p.sign(ctx, digest, hash)
	if err != nil {
		return nil, deviceError(p.device, "prove", err)
	}
	if !verify(pub, digest, sig) {
		return nil, errOtherKey(p.device, key, v)
	}
	return &Possession{Challenge: t.Octets(), Answer: sig, At: t.At}, nil
}

// proveAgreement compares the device's secret with the one that the public key
// of the version gives.
func proveAgreement(ctx context.Context, key *Key, v *Version, p *place) (*Possession, error) {
	peer, ok, err := tryAgreement(ctx, key, v, p)
	if err != nil {
		return nil, deviceError(p.device, "prove", err)
	}
	if !ok {
		return nil, errOtherKey(p.device, key, v)
	}
	return &Possession{Challenge: peer.Bytes(), At: time.Now().UTC()}, nil
}

func tryAgreement(ctx context.Context, key *Key, v *Version, p *place) (peer *ecdh.PublicKey, ok bool, err error) {
	pub, err := v.agreementKey(key.Algorithm)
	if err != nil {
		return nil, false, err
	}
	ephemeral, err := pub.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, false, err
	}
	want, err := ephemeral.ECDH(pub)
	if err != nil {
		return nil, false, err
	}
	got, err := p.agree(ctx, ephemeral.PublicKey())
	if err != nil {
		return nil, false, err
	}
	return ephemeral.PublicKey(), hmac.Equal(got, want), nil
}

// proveMAC compares the replica's tag with that of a device which serves the
// version already: there is no public key to hold it to.
func (k *Keyring) proveMAC(ctx context.Context, key *Key, v *Version, p *place) (*Possession, error) {
	t := newSelfTest(key, v, p.device)
	got, err := p.mac(ctx, t.Octets())
	if err != nil {
		return nil, deviceError(p.device, "prove", err)
	}
	want, err := k.referenceMAC(ctx, key, v, t.Octets())
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(got, want) {
		return nil, errOtherKey(p.device, key, v)
	}
	return &Possession{Challenge: t.Octets(), At: t.At}, nil
}

func (k *Keyring) referenceMAC(ctx context.Context, key *Key, v *Version, message []byte) ([]byte, error) {
	p := k.newPlace(v.Device, v.URI)
	defer p.close()
	if err := k.openPlace(ctx, key, v, p); err != nil {
		return nil, err
	}
	tag, err := p.mac(ctx, message)
	if err != nil {
		return nil, deviceError(v.Device, "mac", err)
	}
	return tag, nil
}

// RemoveReplica has a device serve a version no more. Where destroy is set the
// object is removed from the device first; otherwise it stays there. The
// version's own object is removed by Destroy only.
func (k *Keyring) RemoveReplica(ctx context.Context, id KeyID, number int, device string, destroy bool) error {
	key, v, err := k.versionOf(ctx, id, number)
	if err != nil {
		return err
	}
	for _, r := range v.Replicas {
		if r.Device != device {
			continue
		}
		if destroy {
			if err := k.destroyObject(ctx, key, r.Device, r.URI); err != nil {
				return err
			}
		}
		return k.store.RemoveReplica(ctx, id, v.Number, device)
	}
	return fmt.Errorf("%w: device %q is no replica of version %d of %s", ErrNoDevice, clip(device), v.Number, id)
}

// destroyObject removes an object; that it is gone already is fine.
func (k *Keyring) destroyObject(ctx context.Context, key *Key, device, uri string) error {
	dev, err := k.device(device)
	if err != nil {
		return err
	}
	if err := dev.Destroy(ctx, uri, key.Algorithm); err != nil && !errors.Is(err, ErrNoObject) {
		return deviceError(device, "destroy", err)
	}
	return nil
}
