package dcbor

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// Limits bounds what a decoder takes. A zero field stands for its default.
type Limits struct {
	Size     int // octets of the input, default 64 KiB
	Depth    int // levels of arrays, maps and tags, default 32
	Items    int // items in all, default 65,536
	Pairs    int // pairs of one map, default 4,096
	Elements int // elements of one array, default 65,536

	// Deterministic refuses whatever is not core deterministic encoding, so
	// that encoding what was decoded gives the same octets.
	Deterministic bool
}

// The defaults of Limits.
const (
	DefaultSize     = 64 << 10
	DefaultDepth    = 32
	DefaultItems    = 1 << 16
	DefaultPairs    = 1 << 12
	DefaultElements = 1 << 16
)

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{{&l.Size, DefaultSize}, {&l.Depth, DefaultDepth}, {&l.Items, DefaultItems}, {&l.Pairs, DefaultPairs}, {&l.Elements, DefaultElements}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return l
}

// Decode decodes data, which must be exactly one item, within the default
// limits. The Value refers to data, which must not be changed afterwards. Every
// error is a *SyntaxError.
func Decode(data []byte) (Value, error) { return Limits{}.Decode(data) }

// Decode decodes data, which must be exactly one item.
func (l Limits) Decode(data []byte) (Value, error) {
	d := decoder{data: data, limits: l.withDefaults()}
	if len(data) > d.limits.Size {
		return Value{}, d.fail(ErrTooLarge)
	}
	var v Value
	if err := d.item(&v, 0); err != nil {
		return Value{}, err
	}
	if d.off != len(data) {
		return Value{}, d.fail(ErrTrailing)
	}
	return v, nil
}

type decoder struct {
	data   []byte
	off    int
	items  int // announced so far
	limits Limits
}

func (d *decoder) fail(err error) error { return &SyntaxError{Offset: d.off, Err: err} }

// head reads the head of an item. info is its additional information.
func (d *decoder) head() (major, info byte, n uint64, err error) {
	if d.off >= len(d.data) {
		return 0, 0, 0, d.fail(ErrTruncated)
	}
	first := d.data[d.off]
	major, info = first&0xe0, first&0x1f
	rest := d.data[d.off+1:]
	switch {
	case info < 24:
		d.off++
		return major, info, uint64(info), nil
	case info == 31:
		return 0, 0, 0, d.fail(ErrIndefinite)
	case info > 27:
		return 0, 0, 0, d.fail(ErrReserved)
	}
	size := 1 << (info - 24)
	if len(rest) < size {
		return 0, 0, 0, d.fail(ErrTruncated)
	}
	var shortest uint64
	switch size {
	case 1:
		n, shortest = uint64(rest[0]), 24
	case 2:
		n, shortest = uint64(binary.BigEndian.Uint16(rest)), math.MaxUint8+1
	case 4:
		n, shortest = uint64(binary.BigEndian.Uint32(rest)), math.MaxUint16+1
	default:
		n, shortest = binary.BigEndian.Uint64(rest), math.MaxUint32+1
	}
	if d.limits.Deterministic && major != majorSimple && n < shortest {
		return 0, 0, 0, d.fail(ErrNotDeterministic)
	}
	d.off += 1 + size
	return major, info, n, nil
}

// item reads one item into v, which lies inside depth arrays, maps and tags.
func (d *decoder) item(v *Value, depth int) error {
	start := d.off
	major, info, n, err := d.head()
	if err != nil {
		return err
	}
	v.n = n
	switch major {
	case majorUint:
		v.kind = Uint
	case majorNint:
		v.kind = Nint
	case majorBytes:
		v.kind, v.n = Bytes, 0
		v.b, err = d.take(n)
	case majorText:
		v.kind, v.n = Text, 0
		v.b, err = d.take(n)
		if err == nil && !utf8.Valid(v.b) {
			err = d.fail(ErrUTF8)
		}
	case majorArray:
		v.kind, v.n = Array, 0
		err = d.children(v, n, 1, d.limits.Elements, depth)
	case majorMap:
		v.kind, v.n = Map, 0
		if err = d.children(v, n, 2, d.limits.Pairs, depth); err == nil {
			err = d.checkKeys(v.kids)
		}
	case majorTag:
		v.kind = Tag
		err = d.children(v, 1, 1, 1, depth)
	default:
		err = d.simpleOrFloat(v, info, n)
	}
	v.raw = d.data[start:d.off:d.off]
	return err
}

func (d *decoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.data)-d.off) {
		return nil, d.fail(ErrTruncated)
	}
	b := d.data[d.off : d.off+int(n) : d.off+int(n)]
	d.off += int(n)
	return b, nil
}

// children reads n times width items. Since each is at least one octet, no more
// are ever allocated than the input has octets.
func (d *decoder) children(v *Value, n uint64, width, limit, depth int) error {
	switch {
	case depth >= d.limits.Depth:
		return d.fail(ErrTooDeep)
	case n > uint64(len(d.data)-d.off)/uint64(width):
		return d.fail(ErrTruncated)
	case n > uint64(limit):
		return d.fail(ErrTooLarge)
	}
	count := int(n) * width
	if d.items += count; d.items > len(d.data) {
		return d.fail(ErrTruncated)
	}
	if d.items > d.limits.Items {
		return d.fail(ErrTooLarge)
	}
	if count == 0 {
		return nil
	}
	v.kids = make([]Value, count)
	for i := range v.kids {
		if err := d.item(&v.kids[i], depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) simpleOrFloat(v *Value, info byte, n uint64) error {
	switch info {
	case 25:
		v.kind, v.n = Float, math.Float64bits(fromHalf(uint16(n)))
	case 26:
		v.kind, v.n = Float, math.Float64bits(float64(math.Float32frombits(uint32(n))))
	case 27:
		v.kind = Float
	case 24:
		v.kind = Simple
		if n < 32 {
			return d.fail(ErrReserved)
		}
	default:
		v.kind = Simple
	}
	if v.kind == Float && math.IsNaN(math.Float64frombits(v.n)) {
		v.n = math.Float64bits(math.NaN()) // there is one NaN in the data model
	}
	if v.kind == Float && d.limits.Deterministic {
		size := 1 + 1<<(info-24)
		if !bytes.Equal(v.Append(nil), d.data[d.off-size:d.off]) {
			return d.fail(ErrNotDeterministic)
		}
	}
	return nil
}

// checkKeys refuses a map with two keys of the same preferred encoding. Keys in
// deterministic order, as most are, need no table.
func (d *decoder) checkKeys(kids []Value) error {
	var keys map[string]struct{}
	var last []byte
	scratch := make([]byte, 0, 32)
	for i := 0; i < len(kids); i += 2 {
		key := kids[i].raw
		if !d.limits.Deterministic {
			scratch = kids[i].Append(scratch[:0])
			if !bytes.Equal(scratch, key) {
				key = bytes.Clone(scratch)
			}
		}
		ascends := i == 0 || bytes.Compare(last, key) < 0
		last = key
		switch {
		case ascends && keys == nil:
			continue
		case d.limits.Deterministic && !bytes.Equal(kids[i-2].raw, key):
			return d.fail(ErrNotDeterministic)
		case keys == nil:
			keys = preferredKeys(kids[:i])
		}
		if _, double := keys[string(key)]; double {
			return d.fail(ErrDuplicateKey)
		}
		keys[string(key)] = struct{}{}
	}
	return nil
}

func preferredKeys(kids []Value) map[string]struct{} {
	keys := make(map[string]struct{}, len(kids)/2+1)
	for i := 0; i < len(kids); i += 2 {
		keys[string(kids[i].Append(nil))] = struct{}{}
	}
	return keys
}
