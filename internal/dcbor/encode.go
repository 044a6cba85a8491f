package dcbor

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// Major types, RFC 8949 section 3.1, in the high three bits.
const (
	majorUint   = 0 << 5
	majorNint   = 1 << 5
	majorBytes  = 2 << 5
	majorText   = 3 << 5
	majorArray  = 4 << 5
	majorMap    = 5 << 5
	majorTag    = 6 << 5
	majorSimple = 7 << 5
)

// Encode returns v in core deterministic encoding.
func Encode(v Value) []byte { return v.Append(nil) }

// Append appends v to dst in core deterministic encoding: shortest heads,
// definite lengths, shortest floats that keep the value, map keys in bytewise
// order of their encodings.
func (v Value) Append(dst []byte) []byte {
	switch v.kind {
	case Uint:
		return AppendHead(dst, majorUint, v.n)
	case Nint:
		return AppendHead(dst, majorNint, v.n)
	case Bytes:
		return append(AppendHead(dst, majorBytes, uint64(len(v.b))), v.b...)
	case Text:
		return append(AppendHead(dst, majorText, uint64(len(v.b))), v.b...)
	case Array:
		dst = AppendHead(dst, majorArray, uint64(len(v.kids)))
		for _, e := range v.kids {
			dst = e.Append(dst)
		}
		return dst
	case Map:
		return v.appendMap(dst)
	case Tag:
		return v.kids[0].Append(AppendHead(dst, majorTag, v.n))
	case Simple:
		return AppendHead(dst, majorSimple, v.n)
	case Float:
		return appendFloat(dst, math.Float64frombits(v.n))
	case verbatim:
		return append(dst, v.raw...)
	}
	panic("dcbor: encoding the zero Value")
}

// appendMap writes the pairs in place, and moves them if they turn out to be
// unsorted, which most maps of a decoder or a careful caller are not.
func (v Value) appendMap(dst []byte) []byte {
	dst = AppendHead(dst, majorMap, uint64(len(v.kids)/2))
	type pair struct{ key, item []byte }
	var few [16]pair
	pairs, sorted, start := few[:0], true, len(dst)
	ends := make([][2]int, 0, 16)
	for i := 0; i < len(v.kids); i += 2 {
		from := len(dst)
		dst = v.kids[i].Append(dst)
		ends = append(ends, [2]int{from, len(dst)})
		dst = v.kids[i+1].Append(dst)
	}
	for i, e := range ends {
		to := len(dst)
		if i+1 < len(ends) {
			to = ends[i+1][0]
		}
		pairs = append(pairs, pair{dst[e[0]:e[1]], dst[e[0]:to]})
		sorted = sorted && (i == 0 || bytes.Compare(pairs[i-1].key, pairs[i].key) < 0)
	}
	if sorted {
		return dst
	}
	slices.SortFunc(pairs, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	moved := make([]byte, 0, len(dst)-start)
	for _, p := range pairs {
		moved = append(moved, p.item...)
	}
	return append(dst[:start], moved...)
}

// AppendHead appends the shortest head of an item: a major type in the high
// three bits of major, and its argument.
func AppendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

// AppendBytes appends b as a byte string.
func AppendBytes(dst, b []byte) []byte {
	return append(AppendHead(dst, majorBytes, uint64(len(b))), b...)
}

// WrapBytes returns item inside a byte string, as "bstr .cbor" of CDDL.
func WrapBytes(item []byte) []byte {
	return AppendBytes(make([]byte, 0, len(item)+9), item)
}

func appendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) {
		return append(dst, 0xf9, 0x7e, 0x00)
	}
	f32 := float32(f)
	if float64(f32) != f {
		return binary.BigEndian.AppendUint64(append(dst, majorSimple|27), math.Float64bits(f))
	}
	if h, ok := halfFloat(f32); ok {
		return binary.BigEndian.AppendUint16(append(dst, majorSimple|25), h)
	}
	return binary.BigEndian.AppendUint32(append(dst, majorSimple|26), math.Float32bits(f32))
}

// halfFloat returns f as IEEE 754 binary16 if that loses nothing.
func halfFloat(f float32) (uint16, bool) {
	bits := math.Float32bits(f)
	sign, exponent, fraction := uint16(bits>>16)&0x8000, int(bits>>23&0xff)-127, bits&0x7fffff
	switch {
	case exponent == 128: // infinity; NaN does not come here
		return sign | 0x7c00, fraction == 0
	case bits<<1 == 0:
		return sign, true
	case exponent >= -14 && exponent <= 15 && fraction&0x1fff == 0:
		return sign | uint16(exponent+15)<<10 | uint16(fraction>>13), true
	case exponent >= -24 && exponent < -14:
		full, shift := fraction|0x800000, uint(-exponent-1)
		return sign | uint16(full>>shift), full&(1<<shift-1) == 0
	}
	return 0, false
}

// fromHalf returns the number that h is in IEEE 754 binary16.
func fromHalf(h uint16) float64 {
	exponent, fraction := int(h>>10&0x1f), float64(h&0x3ff)
	var f float64
	switch exponent {
	case 0:
		f = math.Ldexp(fraction, -24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		f = math.Inf(1)
	default:
		f = math.Ldexp(1+fraction/1024, exponent-15)
	}
	if h&0x8000 != 0 {
		return math.Copysign(f, -1)
	}
	return f
}
