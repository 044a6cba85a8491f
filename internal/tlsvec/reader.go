// Package tlsvec reads and builds the TLS presentation language as RFC 9420
// section 2.1 uses it: big-endian integers, optional values and vectors whose
// length is a QUIC-style variable-length integer.
//
// The Reader is strict: lengths must have their minimal form, are compared
// with what is left before anything is allocated, and an error names the
// offset at which it was found. Byte strings that it returns alias the input.
package tlsvec

import (
	"encoding/binary"
	"fmt"
)

// An Error says what was wrong with an encoding, and where.
type Error struct {
	Offset int    // position in the outermost input
	Reason string // what was wrong there
}

func (e *Error) Error() string { return fmt.Sprintf("octet %d: %s", e.Offset, e.Reason) }

// MaxLength is the longest vector that a length header can announce,
// 2^30-1 octets.
const MaxLength = 1<<30 - 1

// A Reader consumes an encoding from the front. The first error sticks: later
// reads return zero values, so a caller may check Err or Done once at the end.
type Reader struct {
	data []byte
	pos  int
	base int // offset of data in the outermost input
	err  *Error
}

// NewReader returns a Reader of b, which it does not copy.
func NewReader(b []byte) *Reader { return &Reader{data: b} }

// Err returns the first error, or nil.
func (r *Reader) Err() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

// Done returns the first error, or one that says that octets are left over.
func (r *Reader) Done() error {
	if r.err == nil && r.pos != len(r.data) {
		r.Fail(fmt.Sprintf("%d trailing octets", len(r.data)-r.pos))
	}
	return r.Err()
}

// Fail records an error at the current position, unless there is one already.
func (r *Reader) Fail(reason string) {
	if r.err == nil {
		r.err = &Error{r.base + r.pos, reason}
	}
}

// Empty reports whether nothing is left to read, or reading has failed.
func (r *Reader) Empty() bool { return r.err != nil || r.pos == len(r.data) }

// Len returns the number of octets that are left.
func (r *Reader) Len() int {
	if r.err != nil {
		return 0
	}
	return len(r.data) - r.pos
}

// Pos returns the position in this Reader's input, for use with Since.
func (r *Reader) Pos() int { return r.pos }

// Since returns what was read since the position pos.
func (r *Reader) Since(pos int) []byte { return r.data[pos:r.pos:r.pos] }

// Bytes reads exactly n octets.
func (r *Reader) Bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.data)-r.pos {
		r.Fail(fmt.Sprintf("%d octets wanted, %d left", n, len(r.data)-r.pos))
		return nil
	}
	b := r.data[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return b
}

// Rest reads everything that is left.
func (r *Reader) Rest() []byte { return r.Bytes(r.Len()) }

// Uint8 reads a uint8.
func (r *Reader) Uint8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint16 reads a uint16.
func (r *Reader) Uint16() uint16 {
	if b := r.Bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint32 reads a uint32.
func (r *Reader) Uint32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads a uint64.
func (r *Reader) Uint64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Length reads the header of a vector (RFC 9420, section 2.1.2). It does not
// compare it with what is left.
func (r *Reader) Length() int {
	start := r.pos
	first := r.Uint8()
	size := 1 << (first >> 6)
	if size == 8 {
		r.failAt(start, "length prefix 3 is invalid")
		return 0
	}
	n := int(first & 0x3f)
	for _, b := range r.Bytes(size - 1) {
		n = n<<8 | int(b)
	}
	if r.err == nil && headerSize(n) != size {
		r.failAt(start, "length is not in its minimal form")
	}
	if r.err != nil {
		return 0
	}
	return n
}

// Vector reads the octets of opaque data<V>.
func (r *Reader) Vector() []byte {
	start := r.pos
	n := r.Length()
	if r.err == nil && n > len(r.data)-r.pos {
		r.failAt(start, fmt.Sprintf("vector of %d octets, %d left", n, len(r.data)-r.pos))
		return nil
	}
	return r.Bytes(n)
}

// Sub reads a vector and returns a Reader of its content. The caller hands it
// back to End, which carries its error over.
func (r *Reader) Sub() *Reader {
	v := r.Vector()
	return &Reader{data: v, base: r.base + r.pos - len(v), err: r.err}
}

// End finishes a Reader that Sub returned: its error, or its trailing octets,
// become errors of r.
func (r *Reader) End(sub *Reader) {
	if err := sub.Done(); err != nil && r.err == nil {
		r.err = sub.err
	}
}

// Each reads a vector and calls read until its content is used up.
func (r *Reader) Each(read func(*Reader)) {
	sub := r.Sub()
	for !sub.Empty() {
		at := sub.pos
		read(sub)
		if sub.pos == at {
			sub.Fail("empty element")
		}
	}
	r.End(sub)
}

// Optional reads the presence octet of optional<T>.
func (r *Reader) Optional() bool {
	start := r.pos
	switch r.Uint8() {
	case 0:
		return false
	case 1:
		return r.err == nil
	}
	r.failAt(start, "presence octet is neither 0 nor 1")
	return false
}

func (r *Reader) failAt(pos int, reason string) {
	if r.err == nil {
		r.err = &Error{r.base + pos, reason}
	}
}

func headerSize(n int) int {
	switch {
	case n < 1<<6:
		return 1
	case n < 1<<14:
		return 2
	}
	return 4
}
