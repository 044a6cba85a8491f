package tpm

import (
	"context"
	"crypto/ecdh"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
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
	return withKey(ctx, k, inOut, func(a *attachment, h tpm2.AuthHandle) ([]byte, error) {
		parms, err := a.exchange(tpm2.TPMCCECDHZGen, h, zgenParameters(point[:size], point[size:]))
		if err != nil {
			return nil, err
		}
		x, ok := readPoint(parms)
		if !ok || len(x) == 0 || len(x) > size {
			return nil, a.malformed("TPM2_ECDH_ZGen", "no point of the curve")
		}
		secret := make([]byte, size)
		copy(secret[size-len(x):], x)
		return secret, nil
	})
}

// zgenParameters are those of TPM2_ECDH_ZGen (Part 3, 14.5): a
// TPM2B_ECC_POINT, inPoint. The answer is another, outPoint.
//
//	struct {
//	    TPM2B_ECC_PARAMETER  x;
//	    TPM2B_ECC_PARAMETER  y;
//	} TPMS_ECC_POINT;            /* Part 2, 11.2.5.2, in a TPM2B */
func zgenParameters(x, y []byte) []byte {
	size := 2 + len(x) + 2 + len(y)
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+size), uint16(size))
	return append2B(append2B(b, x), y)
}

// readPoint reads one TPM2B_ECC_POINT and returns its x.
func readPoint(parms cryptobyte.String) (x []byte, ok bool) {
	var point, first, second cryptobyte.String
	ok = parms.ReadUint16LengthPrefixed(&point) && parms.Empty() &&
		point.ReadUint16LengthPrefixed(&first) && point.ReadUint16LengthPrefixed(&second) && point.Empty()
	return first, ok
}
