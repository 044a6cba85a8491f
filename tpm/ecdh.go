package tpm

import (
	"context"
	"crypto/ecdh"

	"github.com/google/go-tpm/tpm2"
)

var _ ecdh.KeyExchanger = (*Key)(nil)

// PublicKey returns the public key for key agreement, nil for a MAC key.
func (k *Key) PublicKey() *ecdh.PublicKey {
	if k.public == nil {
		return nil
	}
	return ecdhPublicKey(k.public)
}

// Curve returns the curve of the key, nil for a MAC key.
func (k *Key) Curve() ecdh.Curve {
	if p := k.PublicKey(); p != nil {
		return p.Curve()
	}
	return nil
}

// ECDH computes the shared secret in the TPM (Part 3, 14.5: TPM2_ECDH_ZGen).
func (k *Key) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	return k.ECDHContext(context.Background(), peer)
}

// ECDHContext is ECDH, waiting for the TPM no longer than ctx.
func (k *Key) ECDHContext(ctx context.Context, peer *ecdh.PublicKey) ([]byte, error) {
	if k.kind != ECDHP256 && k.kind != ECDHP384 {
		return nil, k.d.inputError(ErrKeyUse, "a key of kind %v does not agree on keys", k.kind)
	}
	if peer == nil || peer.Curve() != k.Curve() {
		return nil, k.d.inputError(ErrKeyUse, "the peer's key is on another curve")
	}
	point := peer.Bytes()[1:] // 4, X, Y
	size := len(point) / 2
	return withKey(ctx, k, 0, inOut, func(a *attachment, h tpm2.AuthHandle) ([]byte, error) {
		rsp, err := run(a, tpm2.ECDHZGen{
			KeyHandle: h,
			InPoint: tpm2.New2B(tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: point[:size]},
				Y: tpm2.TPM2BECCParameter{Buffer: point[size:]},
			}),
		})
		if err != nil {
			return nil, err
		}
		z, err := rsp.OutPoint.Contents()
		if err != nil || len(z.X.Buffer) == 0 || len(z.X.Buffer) > size {
			return nil, a.malformed("TPM2_ECDH_ZGen", "no point of the curve")
		}
		secret := make([]byte, size)
		copy(secret[size-len(z.X.Buffer):], z.X.Buffer)
		return secret, nil
	})
}
