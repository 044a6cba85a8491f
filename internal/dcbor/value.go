package dcbor

import (
	"bytes"
	"math"
)

// A Kind is what a Value is. The zero Kind is that of the zero Value, which
// stands for "no item".
type Kind uint8

// The kinds of items.
const (
	None     Kind = iota
	Uint          // major type 0
	Nint          // major type 1
	Bytes         // major type 2
	Text          // major type 3
	Array         // major type 4
	Map           // major type 5
	Tag           // major type 6
	Simple        // major type 7, simple values
	Float         // major type 7, floating point
	verbatim      // octets that are copied into an encoding as they are
)

var kindNames = [...]string{"no item", "unsigned integer", "negative integer", "byte string",
	"text string", "array", "map", "tag", "simple value", "float", "verbatim item"}

func (k Kind) String() string { return kindNames[k] }

// Simple values of RFC 8949 section 3.3.
const (
	simpleFalse     = 20
	simpleTrue      = 21
	simpleNull      = 22
	simpleUndefined = 23
)

// A Value is one data item. Values are immutable: what a Value returns must
// not be changed.
type Value struct {
	kind     Kind
	received bool   // decoded, not built
	head     uint8  // octets of the head in data
	n        uint64 // argument: integer, tag number, simple value, bits of the float
	data     []byte // the item as received; of a built Value the content of a string
	kids     []Value
}

// content returns what is in a string.
func (v *Value) content() []byte { return v.data[v.head:] }

// NewUint returns the unsigned integer n.
func NewUint(n uint64) Value { return Value{kind: Uint, n: n} }

// NewInt returns the integer n.
func NewInt(n int64) Value {
	if n < 0 {
		return Value{kind: Nint, n: uint64(-1 - n)}
	}
	return NewUint(uint64(n))
}

// NewBytes returns a byte string.
func NewBytes(b []byte) Value { return Value{kind: Bytes, data: b} }

// NewText returns a text string, which must be UTF-8.
func NewText(s string) Value { return Value{kind: Text, data: []byte(s)} }

// NewArray returns an array.
func NewArray(elements ...Value) Value { return Value{kind: Array, kids: elements} }

// NewMap returns a map. keysAndValues alternates; the order does not matter.
func NewMap(keysAndValues ...Value) Value {
	if len(keysAndValues)%2 != 0 {
		panic("dcbor: a map key without a value")
	}
	return Value{kind: Map, kids: keysAndValues}
}

// NewTag returns content with tag n.
func NewTag(n uint64, content Value) Value {
	return Value{kind: Tag, n: n, kids: []Value{content}}
}

// NewSimple returns the simple value n.
func NewSimple(n uint8) Value { return Value{kind: Simple, n: uint64(n)} }

// NewBool returns true or false.
func NewBool(b bool) Value {
	if b {
		return NewSimple(simpleTrue)
	}
	return NewSimple(simpleFalse)
}

// NewNull returns null.
func NewNull() Value { return NewSimple(simpleNull) }

// NewFloat returns a floating point number.
func NewFloat(f float64) Value {
	if math.IsNaN(f) {
		f = math.NaN()
	}
	return Value{kind: Float, n: math.Float64bits(f)}
}

// Verbatim returns a Value that is encoded as item, unchanged. item must be
// one well-formed data item.
func Verbatim(item []byte) Value { return Value{kind: verbatim, data: item} }

// Kind returns what v is.
func (v Value) Kind() Kind { return v.kind }

// Exists reports whether v is an item at all.
func (v Value) Exists() bool { return v.kind != None }

// Raw returns the octets of a decoded item as they were received. It is nil for
// a Value that was built.
func (v Value) Raw() []byte {
	if !v.received {
		return nil
	}
	return v.data
}

// Uint returns an unsigned integer.
func (v Value) Uint() (uint64, bool) { return v.n, v.kind == Uint }

// Int returns an integer that fits an int64.
func (v Value) Int() (int64, bool) {
	switch {
	case v.n > math.MaxInt64:
		return 0, false
	case v.kind == Uint:
		return int64(v.n), true
	case v.kind == Nint:
		return -1 - int64(v.n), true
	}
	return 0, false
}

// IsInteger reports whether v is an integer of any size.
func (v Value) IsInteger() bool { return v.kind == Uint || v.kind == Nint }

// IsInt reports whether v is the integer n.
func (v Value) IsInt(n int64) bool {
	i, ok := v.Int()
	return ok && i == n
}

// Bytes returns the content of a byte string.
func (v Value) Bytes() ([]byte, bool) {
	if v.kind != Bytes {
		return nil, false
	}
	return v.content(), true
}

// Text returns a text string.
func (v Value) Text() (string, bool) {
	if v.kind != Text {
		return "", false
	}
	return string(v.content()), true
}

// Size returns the octets of a string, the elements of an array or the pairs
// of a map, without copying.
func (v Value) Size() int {
	switch v.kind {
	case Bytes, Text:
		return len(v.content())
	case Map:
		return len(v.kids) / 2
	}
	return len(v.kids)
}

// Elements returns the elements of an array.
func (v Value) Elements() ([]Value, bool) { return v.kids, v.kind == Array }

// Inside returns the elements of an array, the keys and values of a map by
// turns, or the content of a tagged item.
func (v *Value) Inside() []Value { return v.kids }

// Tagged returns the number and the content of a tagged item.
func (v Value) Tagged() (uint64, Value, bool) {
	if v.kind != Tag {
		return 0, Value{}, false
	}
	return v.n, v.kids[0], true
}

// Simple returns a simple value.
func (v Value) Simple() (uint8, bool) { return uint8(v.n), v.kind == Simple }

// IsSimple reports whether v is the simple value n.
func (v Value) IsSimple(n uint8) bool { return v.kind == Simple && v.n == uint64(n) }

// Bool returns true or false.
func (v Value) Bool() (value, ok bool) {
	return v.n == simpleTrue, v.kind == Simple && (v.n == simpleTrue || v.n == simpleFalse)
}

// Float returns a floating point number.
func (v Value) Float() (float64, bool) { return math.Float64frombits(v.n), v.kind == Float }

// Pairs iterates over the pairs of a map, in the order received.
func (v Value) Pairs() func(yield func(key, value Value) bool) {
	return func(yield func(key, value Value) bool) {
		if v.kind != Map {
			return
		}
		for i := 0; i < len(v.kids); i += 2 {
			if !yield(v.kids[i], v.kids[i+1]) {
				return
			}
		}
	}
}

// Get returns the value of key in a map, or the zero Value.
func (v Value) Get(key Value) Value {
	if v.kind != Map {
		return Value{}
	}
	for i := 0; i < len(v.kids); i += 2 {
		if k := &v.kids[i]; k.kind == key.kind && k.n == key.n && k.Equal(key) {
			return v.kids[i+1]
		}
	}
	return Value{}
}

// GetInt returns the value of the integer key in a map, or the zero Value.
func (v Value) GetInt(key int64) Value {
	if v.kind != Map {
		return Value{}
	}
	want := NewInt(key)
	for i := 0; i < len(v.kids); i += 2 {
		if k := &v.kids[i]; k.n == want.n && k.kind == want.kind {
			return v.kids[i+1]
		}
	}
	return Value{}
}

// GetText returns the value of the text key in a map, or the zero Value.
func (v Value) GetText(key string) Value { return v.Get(NewText(key)) }

// Equal reports whether v and w are the same item of the data model: equal in
// deterministic encoding.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.n != w.n || len(v.kids) != len(w.kids) {
		return false
	}
	switch {
	case v.kind == Bytes || v.kind == Text:
		return bytes.Equal(v.content(), w.content())
	case len(v.kids) == 0 && v.kind != verbatim:
		return true
	}
	return bytes.Equal(v.Append(nil), w.Append(nil))
}
