package hsm

import (
	"context"
	"crypto/ecdh"
	"crypto/subtle"
	"fmt"
)

// An AgreementKey is an ECDH key on a token. It is an [ecdh.KeyExchanger], so
// that [crypto/hpke.NewDHKEMPrivateKey] takes it. The private key stays in the
// token; the shared secret, which HPKE needs, is read out of it.
type AgreementKey struct {
	_      [0]func() // no ==
	token  *Token
	info   *KeyInfo
	curve  *curve
	public *ecdh.PublicKey
}

var _ ecdh.KeyExchanger = (*AgreementKey)(nil)

func newAgreementKey(t *Token, info *KeyInfo) (*AgreementKey, error) {
	c := curveOf(info.Type)
	public, err := c.ecdhKey(info.Public)
	if err != nil {
		return nil, err
	}
	return &AgreementKey{token: t, info: info, curve: c, public: public}, nil
}

// Info describes the key, with the attributes the module claims for it.
func (k *AgreementKey) Info() KeyInfo { return *k.info }

// URI names the key and its token.
func (k *AgreementKey) URI() URI { return k.token.KeyURI(*k.info) }

func (k *AgreementKey) String() string {
	return fmt.Sprintf("%s agreement key %s", k.info.Type, k.info.Fingerprint)
}

// PublicKey is the key's public point.
func (k *AgreementKey) PublicKey() *ecdh.PublicKey { return k.public }

// Curve is the key's curve.
func (k *AgreementKey) Curve() ecdh.Curve { return k.curve.ecdh }

// ECDH is ECDHContext without a deadline.
func (k *AgreementKey) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	return k.ECDHContext(context.Background(), peer)
}

// ECDHContext computes the shared secret with a peer's public key: the x
// coordinate with its leading zeros, or the 32 bytes of X25519. As RFC 7748
// section 6.1 advises, an X25519 secret of zeros is an error.
func (k *AgreementKey) ECDHContext(ctx context.Context, peer *ecdh.PublicKey) ([]byte, error) {
	if peer == nil || peer.Curve() != k.curve.ecdh {
		return nil, fmt.Errorf("%w: the peer's key is not on %s", ErrBadPoint, k.info.Type)
	}
	secret, err := k.token.backend.operate(ctx, opDerive, k.info, peer.Bytes())
	if err != nil {
		return nil, err
	}
	size := k.curve.size
	if len(secret) == 0 || len(secret) > size || k.info.Type == X25519 && len(secret) != size {
		return nil, fmt.Errorf("hsm: key %s: %w: a shared secret of %d bytes", k.info.name(), ErrBadOutput, len(secret))
	}
	if len(secret) < size { // modules strip leading zeros
		padded := make([]byte, size)
		copy(padded[size-len(secret):], secret)
		clear(secret)
		secret = padded
	}
	if subtle.ConstantTimeCompare(secret, make([]byte, size)) == 1 && k.info.Type == X25519 {
		return nil, fmt.Errorf("%w: X25519 gives a secret of zeros", ErrBadPoint)
	}
	return secret, nil
}
