package journal

import (
	"context"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Find returns the entry of a signature that somebody holds, or ErrNotFound.
// A signature of ECDSA may be in DER, as it was released, or r and s side by
// side, as JOSE and COSE have it.
func (j *Journal) Find(ctx context.Context, signature []byte) (*Entry, error) {
	e, err := j.findDigest(ctx, sha(signature))
	if der := derOf(signature); der != nil && errors.Is(err, ErrNotFound) {
		return j.findDigest(ctx, sha(der))
	}
	return e, err
}

func (j *Journal) findDigest(ctx context.Context, digest []byte) (*Entry, error) {
	var found []*Entry
	err := j.db.Read(ctx, func(tx *sqldb.Tx) (err error) {
		found, err = findDigest(ctx, tx, digest)
		return err
	})
	return one(found, err)
}

// derOf returns the DER form of r and s side by side, for the three curves.
func derOf(raw []byte) []byte {
	n := len(raw) / 2
	if len(raw) != 2*32 && len(raw) != 2*48 && len(raw) != 2*66 {
		return nil
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[:n]))
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[n:]))
	})
	der, err := b.Bytes()
	if err != nil {
		return nil
	}
	return der
}
