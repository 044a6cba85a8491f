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
func (l Limits) Decode(data []byte) (Value, error) { return l.DecodeIn(nil, data) }

// DecodeIn is Decode with the parts of the Value in an Arena, unless that is
// nil.
func (l Limits) DecodeIn(a *Arena, data []byte) (Value, error) {
	d := decoder{data: data, limits: l.withDefaults(), arena: a}
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
	arena  *Arena
	loose  bool    // something so far was not in deterministic encoding
	spare  []Value // made together with others, for the next array, map or tag
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
	if major != majorSimple && n < shortest {
		if d.limits.Deterministic {
			return 0, 0, 0, d.fail(ErrNotDeterministic)
		}
		d.loose = true
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
	v.n, v.received, v.head = n, true, uint8(d.off-start)
	switch major {
	case majorUint:
		v.kind = Uint
	case majorNint:
		v.kind = Nint
	case majorBytes:
		v.kind, v.n = Bytes, 0
		_, err = d.take(n)
	case majorText:
		v.kind, v.n = Text, 0
		var text []byte
		if text, err = d.take(n); err == nil && !utf8.Valid(text) {
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
	v.data = d.data[start:d.off:d.off]
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
	v.kids = d.values(count)
	for i := range v.kids {
		if err := d.item(&v.kids[i], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// values returns n Values. Few at a time are made together with those of the
// next items, if much of the input is left.
func (d *decoder) values(n int) []Value {
	const together = 32
	if d.arena != nil {
		return d.arena.Make(n)
	}
	if n > len(d.spare) {
		if n >= together {
			return make([]Value, n)
		}
		d.spare = make([]Value, max(n, min(together, (len(d.data)-d.off)/8)))
	}
	v := d.spare[:n:n]
	d.spare = d.spare[n:]
	return v
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
	if v.kind == Float {
		size := 1 + 1<<(info-24)
		if !bytes.Equal(v.append(make([]byte, 0, 9)), d.data[d.off-size:d.off]) {
			if d.limits.Deterministic {
				return d.fail(ErrNotDeterministic)
			}
			d.loose = true
		}
	}
	return nil
}

// checkKeys refuses a map with two keys of the same preferred encoding. Keys in
// deterministic order, as most are, need no table.
func (d *decoder) checkKeys(kids []Value) error {
	var keys map[string]struct{}
	var last []byte
	for i := 0; i < len(kids); i += 2 {
		key := kids[i].data
		if d.loose {
			key = kids[i].append(nil)
		}
		ascends := i == 0 || bytes.Compare(last, key) < 0
		last = key
		switch {
		case ascends && keys == nil:
			continue
		case d.limits.Deterministic && !bytes.Equal(kids[i-2].data, key):
			return d.fail(ErrNotDeterministic)
		case keys == nil:
			keys = preferredKeys(kids[:i])
		}
		if _, double := keys[string(key)]; double {
			return d.fail(ErrDuplicateKey)
		}
		keys[string(key)] = struct{}{}
	}
	d.loose = d.loose || keys != nil
	return nil
}

func preferredKeys(kids []Value) map[string]struct{} {
	keys := make(map[string]struct{}, len(kids)/2+1)
	for i := 0; i < len(kids); i += 2 {
		keys[string(kids[i].append(nil))] = struct{}{}
	}
	return keys
}
