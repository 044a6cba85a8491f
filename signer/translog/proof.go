package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	fproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"

	"github.com/privyseal/privyseal/signer/journal"
)

// ErrNotYet is returned for an entry that no checkpoint covers yet.
var ErrNotYet = errors.New("the entry is not under a checkpoint yet; try again in a few seconds")

// leafHash is the hash of a commitment as a leaf (RFC 6962 section 2.1).
func leafHash(commitment [32]byte) []byte { return rfc6962.DefaultHasher.HashLeaf(commitment[:]) }

// Prove returns a proof that an entry is in the log, in the form of C2SP
// tlog-proof with the entry as its extra data.
func Prove(ctx context.Context, src *Source, keys *Keys, e *journal.Entry) ([]byte, error) {
	c, err := src.Checkpoint(ctx, keys)
	if err != nil {
		return nil, err
	}
	if e.Index >= c.Size {
		return nil, ErrNotYet
	}
	pb, err := client.NewProofBuilder(ctx, c.Size, src.ReadTile)
	if err != nil {
		return nil, fmt.Errorf("the log's tiles: %w", err)
	}
	hashes, err := pb.InclusionProof(ctx, e.Index)
	if err != nil {
		return nil, fmt.Errorf("the log's tiles: %w", err)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, e.Index, c.Size, leafHash(e.Commitment()), hashes, c.Root); err != nil {
		return nil, fmt.Errorf("%w: entry %d: %w", ErrDiverged, e.Index, err)
	}
	p := fproof.TLogProof{Index: e.Index, Checkpoint: c.Note, ExtraData: e.Octets}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, [32]byte(h))
	}
	return p.Marshal(), nil
}

// MaxProof bounds a proof.
const MaxProof = 256 << 10

// A Proof is one that was checked.
type Proof struct {
	Entry      *journal.Entry
	Checkpoint *Checkpoint
}

// VerifyProof checks a proof with nothing but the keys of the log.
func VerifyProof(text []byte, keys *Keys) (*Proof, error) {
	if len(text) > MaxProof {
		return nil, errors.New("the proof is too long")
	}
	var p fproof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.Marshal(), text) {
		return nil, errors.New("the proof is not in its one form")
	}
	c, err := keys.Open(p.Checkpoint)
	if err != nil {
		return nil, err
	}
	e, err := journal.ParseEntry(p.ExtraData)
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(p.Hashes))
	for i := range p.Hashes {
		hashes[i] = p.Hashes[i][:]
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, c.Size, leafHash(e.Commitment()), hashes, c.Root); err != nil {
		return nil, fmt.Errorf("the entry is not in the log: %w", err)
	}
	e.Index = p.Index
	return &Proof{e, c}, nil
}
