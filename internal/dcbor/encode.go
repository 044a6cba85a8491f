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
func Encode(v Value) []byte { return v.Append(make([]byte, 0, v.MaxEncoded())) }

// Append appends v to dst in core deterministic encoding: shortest heads,
// definite lengths, shortest floats that keep the value, map keys in bytewise
// order of their encodings.
func (v Value) Append(dst []byte) []byte { return v.append(dst) }

func (v *Value) append(dst []byte) []byte {
	switch v.kind {
	case Uint:
		return AppendHead(dst, majorUint, v.n)
	case Nint:
		return AppendHead(dst, majorNint, v.n)
	case Bytes:
		return AppendBytes(dst, v.content())
	case Text:
		return append(AppendHead(dst, majorText, uint64(len(v.content()))), v.content()...)
	case Array:
		dst = AppendHead(dst, majorArray, uint64(len(v.kids)))
		for i := range v.kids {
			dst = v.kids[i].append(dst)
		}
		return dst
	case Map:
		return v.appendMap(dst)
	case Tag:
		return v.kids[0].append(AppendHead(dst, majorTag, v.n))
	case Simple:
		return AppendHead(dst, majorSimple, v.n)
	case Float:
		return appendFloat(dst, math.Float64frombits(v.n))
	case verbatim:
		return append(dst, v.data...)
	}
	panic("dcbor: encoding the zero Value")
}

// appendMap writes the pairs in place, and moves them if they turn out to be
// unsorted, which most maps of a decoder or a careful caller are not.
func (v *Value) appendMap(dst []byte) []byte {
	dst = AppendHead(dst, majorMap, uint64(len(v.kids)/2))
	var few [16]keyAt
	keys, sorted, start := few[:0], true, len(dst)
	if n := len(v.kids) / 2; n > len(few) {
		keys = make([]keyAt, 0, n)
	}
	for i := 0; i < len(v.kids); i += 2 {
		key := keyAt{from: len(dst)}
		dst = v.kids[i].append(dst)
		key.to = len(dst)
		sorted = sorted && (i == 0 || bytes.Compare(keys[i/2-1].in(dst), key.in(dst)) < 0)
		keys = append(keys, key)
		dst = v.kids[i+1].append(dst)
	}
	if sorted {
		return dst
	}
	return sortPairs(dst, start, keys)
}

// A keyAt says where in an encoding a map key is. Its value follows it.
type keyAt struct{ from, to int }

func (k keyAt) in(b []byte) []byte { return b[k.from:k.to] }

// sortPairs puts the pairs that b has from start on in the order of their keys.
func sortPairs(b []byte, start int, keys []keyAt) []byte {
	type pair struct{ key, item []byte }
	pairs := make([]pair, len(keys))
	for i, k := range keys {
		end := len(b)
		if i+1 < len(keys) {
			end = keys[i+1].from
		}
		pairs[i] = pair{k.in(b), b[k.from:end]}
	}
	slices.SortFunc(pairs, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	moved := make([]byte, 0, len(b)-start)
	for _, p := range pairs {
		moved = append(moved, p.item...)
	}
	return append(b[:start], moved...)
}

// MaxEncoded returns how many octets Append adds at most: just as many, but for
// floats, which may be shorter.
func (v *Value) MaxEncoded() int {
	switch v.kind {
	case Bytes, Text:
		n := len(v.content())
		return headSize(uint64(n)) + n
	case Array, Map, Tag:
		n := headSize(v.n) // of a tag
		if v.kind != Tag {
			n = headSize(uint64(len(v.kids)))
		}
		for i := range v.kids {
			n += v.kids[i].MaxEncoded()
		}
		return n
	case verbatim:
		return len(v.data)
	case Float:
		return 9
	}
	return headSize(v.n)
}

func headSize(n uint64) int {
	switch {
	case n < 24:
		return 1
	case n <= math.MaxUint8:
		return 2
	case n <= math.MaxUint16:
		return 3
	case n <= math.MaxUint32:
		return 5
	}
	return 9
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
