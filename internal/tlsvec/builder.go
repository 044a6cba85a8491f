package tlsvec

import "encoding/binary"

// A Builder appends encodings to a buffer. Its zero value is ready to use.
type Builder struct {
	buf []byte
}

// NewBuilder returns a Builder with room for n octets.
func NewBuilder(n int) *Builder { return &Builder{buf: make([]byte, 0, n)} }

// Bytes returns what was built. It aliases the Builder's buffer.
func (b *Builder) Bytes() []byte { return b.buf }

// Len returns the number of octets built so far.
func (b *Builder) Len() int { return len(b.buf) }

// Reset empties the Builder and keeps its buffer.
func (b *Builder) Reset() { b.buf = b.buf[:0] }

// Uint8 appends a uint8.
func (b *Builder) Uint8(v uint8) { b.buf = append(b.buf, v) }

// Uint16 appends a uint16.
func (b *Builder) Uint16(v uint16) { b.buf = binary.BigEndian.AppendUint16(b.buf, v) }

// Uint32 appends a uint32.
func (b *Builder) Uint32(v uint32) { b.buf = binary.BigEndian.AppendUint32(b.buf, v) }

// Uint64 appends a uint64.
func (b *Builder) Uint64(v uint64) { b.buf = binary.BigEndian.AppendUint64(b.buf, v) }

// Raw appends octets as they are.
func (b *Builder) Raw(v []byte) { b.buf = append(b.buf, v...) }

// Vector appends opaque data<V>.
func (b *Builder) Vector(v []byte) {
	b.buf = AppendLength(b.buf, len(v))
	b.buf = append(b.buf, v...)
}

// String appends a string as opaque data<V>.
func (b *Builder) String(v string) {
	b.buf = AppendLength(b.buf, len(v))
	b.buf = append(b.buf, v...)
}

// Optional appends the presence octet of optional<T>.
func (b *Builder) Optional(present bool) {
	if present {
		b.Uint8(1)
	} else {
		b.Uint8(0)
	}
}

// Nested appends a vector whose content build writes.
func (b *Builder) Nested(build func(*Builder)) {
	start := len(b.buf)
	build(b)
	n := len(b.buf) - start
	var header [4]byte
	h := AppendLength(header[:0], n)
	b.buf = append(b.buf, h...)
	copy(b.buf[start+len(h):], b.buf[start:start+n])
	copy(b.buf[start:], h)
}

// AppendLength appends the minimal header of a vector of n octets. It panics
// if n is above MaxLength, which no caller can reach with data that was read.
func AppendLength(buf []byte, n int) []byte {
	switch {
	case n < 0 || n > MaxLength:
		panic("tlsvec: vector longer than 2^30-1 octets")
	case n < 1<<6:
		return append(buf, byte(n))
	case n < 1<<14:
		return binary.BigEndian.AppendUint16(buf, uint16(n)|1<<14)
	}
	return binary.BigEndian.AppendUint32(buf, uint32(n)|2<<30)
}
