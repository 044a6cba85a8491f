package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"

	"github.com/privyseal/privyseal/internal/durable"
)

// A Fault is what a Monitor can find.
type Fault string

// The faults.
const (
	FaultTruncated Fault = "truncated" // smaller than it was
	FaultForked    Fault = "forked"    // another tree of the same size
	FaultRewritten Fault = "rewritten" // larger, and what was there is not its beginning
	FaultStale     Fault = "stale"     // no new checkpoint for too long
	FaultUnsigned  Fault = "unsigned"  // not signed as it must be
)

// A FaultError is a fault with both checkpoints as evidence.
type FaultError struct {
	Fault    Fault
	Reason   string
	Old, New []byte // notes; Old is nil if it is not needed
}

func (e *FaultError) Error() string { return fmt.Sprintf("the log is %s: %s", e.Fault, e.Reason) }

// A Monitor follows a log over time. It keeps the newest checkpoint that it
// found good in a file.
type Monitor struct {
	Source *Source
	Keys   *Keys
	State  string // path of the file; made at the first look

	// MaxAge is how old the newest checkpoint may be; 0 for any age. Its age
	// is that of the cosignatures if there are witnesses. Otherwise it is what
	// the server says, which shows a log that stands still and not one that
	// lies.
	MaxAge time.Duration
	Now    func() time.Time // time.Now if nil
}

// A Status is what one look found.
type Status struct {
	First bool   // there was no state: the log is believed this time
	From  uint64 // size before
	Size  uint64
	Root  []byte
	Time  time.Time // of the checkpoint, as for MaxAge
}

// Check looks at the log once, compares it with what was seen before, and
// keeps what it saw. A *FaultError says that the log is not to be trusted; the
// state then stays as it was.
func (m *Monitor) Check(ctx context.Context) (*Status, error) {
	raw, at, err := m.Source.ReadCheckpoint(ctx)
	if err != nil {
		return nil, err
	}
	now, err := m.Keys.Open(raw)
	if err != nil {
		return nil, &FaultError{Fault: FaultUnsigned, Reason: err.Error(), New: raw}
	}
	if !now.Cosigned.IsZero() {
		at = now.Cosigned
	}
	st := &Status{Size: now.Size, Root: now.Root, Time: at}
	old, err := m.last()
	switch {
	case err != nil:
		return nil, err
	case old == nil:
		st.First = true
	default:
		st.From = old.Size
		if err := m.compare(ctx, old, now); err != nil {
			return nil, err
		}
	}
	if err := m.fresh(at, raw); err != nil {
		return nil, err
	}
	return st, durable.WriteFile(m.State, raw, 0o600)
}

// last returns the checkpoint of the state, or nil if there is none.
func (m *Monitor) last() (*Checkpoint, error) {
	raw, err := os.ReadFile(m.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := m.Keys.Open(raw)
	if err != nil {
		return nil, fmt.Errorf("the state %s is not a checkpoint of this log: %w", m.State, err)
	}
	return c, nil
}

func (m *Monitor) compare(ctx context.Context, old, now *Checkpoint) error {
	fault := func(f Fault, format string, args ...any) error {
		return &FaultError{Fault: f, Reason: fmt.Sprintf(format, args...), Old: old.Note, New: now.Note}
	}
	switch {
	case now.Size < old.Size:
		return fault(FaultTruncated, "it had %d entries and has %d", old.Size, now.Size)
	case now.Size == old.Size:
		if !bytes.Equal(now.Root, old.Root) {
			return fault(FaultForked, "two checkpoints of %d entries have two roots", now.Size)
		}
		return nil
	case old.Size == 0:
		return nil
	}
	hashes, err := consistency(ctx, m.Source, old.Size, now.Size)
	if err != nil {
		return err
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old.Size, now.Size, hashes, old.Root, now.Root); err != nil {
		return fault(FaultRewritten, "its first %d entries are not those that it had: %v", old.Size, err)
	}
	return nil
}

// consistency returns the proof between two sizes (RFC 6962 section 2.1.2).
func consistency(ctx context.Context, src *Source, from, to uint64) ([][]byte, error) {
	pb, err := client.NewProofBuilder(ctx, to, src.ReadTile)
	if err != nil {
		return nil, fmt.Errorf("the log's tiles: %w", err)
	}
	hashes, err := pb.ConsistencyProof(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("the log's tiles: %w", err)
	}
	return hashes, nil
}

func (m *Monitor) fresh(at time.Time, raw []byte) error {
	now := time.Now
	if m.Now != nil {
		now = m.Now
	}
	if age := now().Sub(at); m.MaxAge > 0 && age > m.MaxAge {
		return &FaultError{Fault: FaultStale, Reason: fmt.Sprintf("its checkpoint is %s old", age.Round(time.Second)), New: raw}
	}
	return nil
}
