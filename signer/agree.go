package signer

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"fmt"
)

// A KeyExchanger does ECDH with the active version of an mls-init key. It is
// an ecdh.KeyExchanger, so hpke.NewDHKEMPrivateKey takes it. A wrong result
// cannot be told from a right one here; HPKE's AEAD tells.
type KeyExchanger struct {
	ring *Keyring
	ctx  context.Context
	key  *Key
	v    *Version
	open *openVersion
}

var _ ecdh.KeyExchanger = (*KeyExchanger)(nil)

// KeyExchanger returns a KeyExchanger for the active version of a key, which
// must have that purpose. ctx governs the look-up and the calls of ECDH;
// WithContext gives those another.
func (k *Keyring) KeyExchanger(ctx context.Context, id KeyID, purpose Purpose) (*KeyExchanger, error) {
	key, v, open, err := k.openActive(ctx, id, purpose, UseAgree)
	if err != nil {
		return nil, err
	}
	return &KeyExchanger{ring: k, ctx: ctx, key: key, v: v, open: open}, nil
}

// KeyExchangerOf is KeyExchanger for a key that was just read from the store.
func (k *Keyring) KeyExchangerOf(ctx context.Context, key *Key) (*KeyExchanger, error) {
	key, v, open, err := k.openRead(ctx, key, key.Purpose, UseAgree)
	if err != nil {
		return nil, err
	}
	return &KeyExchanger{ring: k, ctx: ctx, key: key, v: v, open: open}, nil
}

// WithContext returns a copy of x whose ECDH obeys ctx.
func (x *KeyExchanger) WithContext(ctx context.Context) *KeyExchanger {
	c := *x
	c.ctx = ctx
	return &c
}

// PublicKey returns the public key.
func (x *KeyExchanger) PublicKey() *ecdh.PublicKey { return x.open.public.(*ecdh.PublicKey) }

// Curve returns the curve of the key.
func (x *KeyExchanger) Curve() ecdh.Curve { return x.PublicKey().Curve() }

// KID returns the JWK thumbprint of the public key.
func (x *KeyExchanger) KID() string { return x.v.KID }

// ECDH returns the shared secret with remote.
func (x *KeyExchanger) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	secret, _, err := x.Agree(x.ctx, remote)
	return secret, err
}

// Agree is ECDH with a context of its own that also says which device did it;
// after an error, which one failed last, or "" if none was asked.
func (x *KeyExchanger) Agree(ctx context.Context, remote *ecdh.PublicKey) (secret []byte, device string, err error) {
	if remote.Curve() != x.Curve() {
		return nil, "", fmt.Errorf("%w: the remote key is on another curve than %s", ErrUsage, x.key.Algorithm)
	}
	now, err := x.ring.mayUse(ctx, x.key, x.v)
	if err != nil {
		return nil, "", err
	}
	device, err = x.ring.try(ctx, "ecdh", x.key, x.v, x.open, &now, func(ctx context.Context, p *place) (err error) {
		secret, err = p.agree(ctx, remote)
		return err
	})
	if err != nil {
		return nil, device, err
	}
	return secret, device, nil
}

// agreementKey returns the public key of an agreement version. The P-256
// SubjectPublicKeyInfo parses as an ECDSA key.
func (v *Version) agreementKey(a Algorithm) (*ecdh.PublicKey, error) {
	pub, err := v.PublicKey()
	if err != nil {
		return nil, err
	}
	switch pub := pub.(type) {
	case *ecdh.PublicKey:
		return pub, nil
	case *ecdsa.PublicKey:
		return pub.ECDH()
	}
	return nil, fmt.Errorf("public key of version %d is no %s key", v.Number, a)
}

// A MAC computes HMAC-SHA256 with the active version of a frank-mac key.
type MAC struct {
	ring *Keyring
	key  *Key
	v    *Version
	open *openVersion

	burst *burst // see Burst; nil for a MAC that looks each time
}

// MAC returns a MAC for the active version of a key, which must have that
// purpose.
func (k *Keyring) MAC(ctx context.Context, id KeyID, purpose Purpose) (*MAC, error) {
	key, v, open, err := k.openActive(ctx, id, purpose, UseMAC)
	if err != nil {
		return nil, err
	}
	return &MAC{ring: k, key: key, v: v, open: open}, nil
}

// MACOf is MAC for a key that was just read from the store.
func (k *Keyring) MACOf(ctx context.Context, key *Key) (*MAC, error) {
	key, v, open, err := k.openRead(ctx, key, key.Purpose, UseMAC)
	if err != nil {
		return nil, err
	}
	return &MAC{ring: k, key: key, v: v, open: open}, nil
}

// Version returns the number of the version that computes.
func (m *MAC) Version() int { return m.v.Number }

// MAC returns HMAC-SHA256(key, message), 32 octets.
func (m *MAC) MAC(ctx context.Context, message []byte) ([]byte, error) {
	tag, _, err := m.Tag(ctx, message)
	return tag, err
}

// Tag is MAC that also says which device computed; after an error, which one
// failed last, or "" if none was asked.
func (m *MAC) Tag(ctx context.Context, message []byte) (tag []byte, device string, err error) {
	if len(message) > MaxRequest {
		return nil, "", fmt.Errorf("%w: a message of %d octets is too long for a MAC", ErrUsage, len(message))
	}
	now, err := m.burst.mayUse(ctx, m.ring, m.key, m.v)
	if err != nil {
		return nil, "", err
	}
	device, err = m.ring.try(ctx, "mac", m.key, m.v, m.open, &now, func(ctx context.Context, p *place) (err error) {
		if tag, err = p.mac(ctx, message); err == nil && len(tag) != 32 {
			err = &DeviceError{Device: p.device, Op: "mac", Remedy: RemedyOperator, Err: fmt.Errorf("a MAC of %d octets, want 32", len(tag))}
		}
		return err
	})
	if err != nil {
		m.burst.failed()
		return nil, device, err
	}
	return tag, device, nil
}
