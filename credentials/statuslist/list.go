package statuslist

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
)

// A Status is the value of one entry.
type Status uint8

// The registered values. 3 and 12 to 15 are for applications; a verifier that
// has no meaning for a value refuses.
const (
	Valid     Status = 0
	Invalid   Status = 1 // revoked, for good
	Suspended Status = 2 // may become valid again
)

func (s Status) String() string {
	switch s {
	case Valid:
		return "valid"
	case Invalid:
		return "revoked"
	case Suspended:
		return "suspended"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// A List is an array of statuses of 1, 2, 4 or 8 bits. Entry i begins at bit i
// times bits, counted from the least significant bit of octet 0.
type List struct {
	bits   int
	octets []byte
}

// ErrBits reports a width that is not 1, 2, 4 or 8.
var ErrBits = errors.New("statuslist: the bits of an entry are not 1, 2, 4 or 8")

// NewList returns a List of size entries, all valid. The size is rounded up to
// whole octets.
func NewList(bits, size int) (*List, error) {
	if !validBits(bits) {
		return nil, ErrBits
	}
	if size < 1 || size > maxInflated*8/bits {
		return nil, fmt.Errorf("statuslist: %d entries of %d bits, want 1 to %d", size, bits, maxInflated*8/bits)
	}
	return &List{bits, make([]byte, (size*bits+7)/8)}, nil
}

func validBits(bits int) bool { return bits == 1 || bits == 2 || bits == 4 || bits == 8 }

// Bits returns the width of an entry.
func (l *List) Bits() int { return l.bits }

// Len returns the number of entries.
func (l *List) Len() int { return len(l.octets) * 8 / l.bits }

// Octets returns the array. The caller must not change it.
func (l *List) Octets() []byte { return l.octets }

// Get returns entry i. ok is false if there is no such entry.
func (l *List) Get(i int64) (s Status, ok bool) {
	if i < 0 || i >= int64(l.Len()) {
		return 0, false
	}
	at, shift := l.place(i)
	return Status(l.octets[at]>>shift) & l.mask(), true
}

// Set changes entry i.
func (l *List) Set(i int64, s Status) error {
	if i < 0 || i >= int64(l.Len()) {
		return fmt.Errorf("statuslist: no entry %d in a list of %d", i, l.Len())
	}
	if s > l.mask() {
		return fmt.Errorf("statuslist: %s does not fit %d bits", s, l.bits)
	}
	at, shift := l.place(i)
	l.octets[at] = l.octets[at]&^(byte(l.mask())<<shift) | byte(s)<<shift
	return nil
}

func (l *List) place(i int64) (octet int, shift uint) {
	bit := i * int64(l.bits)
	return int(bit / 8), uint(bit % 8)
}

func (l *List) mask() Status { return Status(1<<l.bits - 1) }

// Compress returns the array as lst has it: DEFLATE in the ZLIB format.
func (l *List) Compress() ([]byte, error) {
	var b bytes.Buffer
	w := zlib.NewWriter(&b) // the best level is 14 times slower, and saves a sixth
	if _, err := w.Write(l.octets); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), tooLarge(b.Len(), maxCompressed)
}

func tooLarge(n, limit int) error {
	if n > limit {
		return fmt.Errorf("statuslist: %d octets, want at most %d", n, limit)
	}
	return nil
}

// Inflate returns the list in lst. The array is bounded while it is read, and
// nothing may follow the ZLIB stream.
func Inflate(bits int, lst []byte) (*List, error) {
	if !validBits(bits) {
		return nil, ErrBits
	}
	if err := tooLarge(len(lst), maxCompressed); err != nil {
		return nil, err
	}
	in := bytes.NewReader(lst)
	z, err := zlib.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("statuslist: %w", err)
	}
	octets, err := io.ReadAll(io.LimitReader(z, maxInflated+1))
	if err != nil {
		return nil, fmt.Errorf("statuslist: %w", err)
	}
	if err := tooLarge(len(octets), maxInflated); err != nil {
		return nil, err
	}
	if in.Len() > 0 {
		return nil, fmt.Errorf("statuslist: %d octets after the compressed list", in.Len())
	}
	return &List{bits, octets}, nil
}
