package translog

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	flog "github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/witness"
	"golang.org/x/mod/sumdb/note"
)

// MaxCheckpoint bounds a checkpoint with all its signatures.
const MaxCheckpoint = 64 << 10

// A Checkpoint is a signed one, checked.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   []byte
	Note   []byte // text and signatures
	// Cosigned is the newest time at which a witness of the quorum cosigned;
	// zero without witnesses.
	Cosigned time.Time
}

// A Quorum says which witnesses must have cosigned.
type Quorum struct {
	group     witness.Group
	verifiers []note.Verifier
	set       bool
}

// WithWitnesses returns keys that also want the quorum of a policy (C2SP
// tlog-policy: lines with witness, group and quorum; witness lines have a URL).
func (k *Keys) WithWitnesses(policy []byte) (*Keys, error) {
	group, err := witness.ParsePolicy(policy)
	if err != nil {
		return nil, fmt.Errorf("witness policy: %w", err)
	}
	c := *k
	c.witnesses = Quorum{group: group, set: true}
	for _, v := range group.Endpoints() {
		c.witnesses.verifiers = append(c.witnesses.verifiers, v)
	}
	return &c, nil
}

// A SignatureError says that a checkpoint is not signed as it must be.
type SignatureError struct{ Reason string }

func (e *SignatureError) Error() string { return "the checkpoint is not to be trusted: " + e.Reason }

// Open checks a checkpoint's signatures and reads it.
func (k *Keys) Open(raw []byte) (*Checkpoint, error) {
	if len(raw) > MaxCheckpoint {
		return nil, &SignatureError{"it is too long"}
	}
	n, err := note.Open(raw, note.VerifierList(k.log...))
	if err != nil {
		return nil, &SignatureError{err.Error()}
	}
	var c flog.Checkpoint
	rest, err := c.Unmarshal([]byte(n.Text))
	if err != nil || len(rest) > 0 {
		return nil, &SignatureError{fmt.Sprintf("it is no checkpoint: %v", err)}
	}
	if again := c.Marshal(); !bytes.Equal(again, []byte(n.Text)) || c.Origin != k.Origin || len(c.Hash) != 32 {
		return nil, &SignatureError{"its text is not that of a checkpoint of " + k.Origin}
	}
	out := &Checkpoint{Origin: c.Origin, Size: c.Size, Root: c.Hash, Note: raw}
	return out, k.witnesses.check(raw, out)
}

func (q *Quorum) check(raw []byte, c *Checkpoint) error {
	if !q.set {
		return nil
	}
	if !q.group.Satisfied(raw) {
		return &SignatureError{"too few witnesses have cosigned it"}
	}
	n, err := note.Open(raw, note.VerifierList(q.verifiers...))
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		return nil // a quorum of none
	}
	if err != nil {
		return &SignatureError{err.Error()}
	}
	for _, s := range n.Sigs {
		if t, err := fnote.CoSigV1Timestamp(s); err == nil && t.After(c.Cosigned) {
			c.Cosigned = t
		}
	}
	return nil
}
