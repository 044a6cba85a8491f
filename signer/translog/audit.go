package translog

import (
	"bytes"
	"context"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"

	"github.com/privyseal/privyseal/signer/journal"
)

// A Report is what Audit found to be in order.
type Report struct {
	Head       journal.Head
	Checkpoint *Checkpoint
	Unlogged   uint64 // entries that no checkpoint covers yet
}

// Audit reads the whole journal and compares it with the log: the rows among
// themselves, the tree that they make with the checkpoint, and the leaves that
// the log shows with the commitments. What is wrong is a *journal.TamperError
// or ErrDiverged.
func Audit(ctx context.Context, j *journal.Journal, src *Source, keys *Keys) (*Report, error) {
	c, err := src.Checkpoint(ctx, keys)
	if err != nil {
		return nil, err
	}
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	leaves := &leafReader{src: src, size: c.Size}
	h, err := j.Verify(ctx, func(e *journal.Entry) error {
		if e.Index >= c.Size {
			return nil
		}
		if err := leaves.compare(ctx, e); err != nil {
			return err
		}
		return tree.Append(leafHash(e.Commitment()), nil)
	})
	if err != nil {
		return nil, err
	}
	if h.Entries < c.Size {
		return nil, &journal.TamperError{Index: h.Entries,
			Reason: fmt.Sprintf("rows were cut off: a checkpoint of %d entries was signed and the journal has %d", c.Size, h.Entries)}
	}
	if err := sameRoot(tree, c); err != nil {
		return nil, err
	}
	return &Report{Head: h, Checkpoint: c, Unlogged: h.Entries - c.Size}, nil
}

func sameRoot(tree *compact.Range, c *Checkpoint) error {
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return err
	}
	if c.Size == 0 {
		root = rfc6962.DefaultHasher.EmptyRoot()
	}
	if !bytes.Equal(root, c.Root) {
		return fmt.Errorf("%w: the journal's %d entries make another tree than the one that the checkpoint signs", ErrDiverged, c.Size)
	}
	return nil
}

// leafReader reads the leaves of a log in order, a bundle at a time.
type leafReader struct {
	src    *Source
	size   uint64
	bundle [][]byte
}

func (r *leafReader) compare(ctx context.Context, e *journal.Entry) (err error) {
	at := e.Index % layout.EntryBundleWidth
	if at == 0 || r.bundle == nil {
		index := e.Index / layout.EntryBundleWidth
		if r.bundle, err = readLeaves(ctx, r.src, index, layout.PartialTileSize(0, index, r.size)); err != nil {
			return fmt.Errorf("%w: %w", ErrDiverged, err)
		}
	}
	want := e.Commitment()
	if !bytes.Equal(r.bundle[at], want[:]) {
		return fmt.Errorf("%w: entry %d is another one there", ErrDiverged, e.Index)
	}
	return nil
}
