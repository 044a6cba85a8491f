package signer

import (
	"context"
	"fmt"
)

// An Attester is a Device that can make evidence anew: a TPM certifies the key
// again over qualifying data of the asker's choice, a token is asked for the
// attributes again.
type Attester interface {
	Attest(ctx context.Context, uri string, a Algorithm, qualifying []byte) (*Evidence, error)
}

// Bounds of the asker's challenge, which every TPM has room for.
const (
	minQualifying = 16
	maxQualifying = 48
)

// Attest makes evidence about a version of a key and keeps it. qualifying is
// the asker's challenge, 16 to 48 octets, or nil for one that the device draws;
// it is only in a proof.
func (k *Keyring) Attest(ctx context.Context, id KeyID, number int, qualifying []byte) (*Evidence, error) {
	key, err := k.store.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	v := key.Version(number)
	if v == nil {
		return nil, fmt.Errorf("%w: %s has no version %d", ErrNoKey, id, number)
	}
	dev, err := k.device(v.Device)
	if err != nil {
		return nil, err
	}
	attester, ok := dev.(Attester)
	if !ok {
		return nil, fmt.Errorf("%w: device %s makes no evidence", ErrUsage, v.Device)
	}
	if n := len(qualifying); n > 0 && (n < minQualifying || n > maxQualifying) {
		return nil, fmt.Errorf("%w: a nonce of %d octets; it has %d to %d", ErrUsage, n, minQualifying, maxQualifying)
	}
	e, err := attester.Attest(ctx, v.URI, key.Algorithm, qualifying)
	if err != nil {
		return nil, deviceError(v.Device, "attest", err)
	}
	return e, k.store.SetEvidence(ctx, id, number, e)
}
