package dcbor

import (
	"fmt"
	"math"
	"math/big"
	"unicode/utf8"
)

// A Tagged is a tagged item among native Go values. It may be a map key when
// its Content may.
type Tagged struct {
	Number  uint64
	Content any
}

// FromNative returns x as a Value. x is nil, a bool, an integer, a float, a
// string, a []byte, a Value, a Tagged, or a []any, map[any]any or
// map[string]any of these.
func FromNative(x any) (Value, error) {
	switch x := x.(type) {
	case nil:
		return NewNull(), nil
	case Value:
		if !x.Exists() {
			return Value{}, fmt.Errorf("dcbor: the zero Value is no item")
		}
		return x, nil
	case bool:
		return NewBool(x), nil
	case string:
		if !utf8.ValidString(x) {
			return Value{}, ErrUTF8
		}
		return NewText(x), nil
	case []byte:
		return NewBytes(x), nil
	case Tagged:
		content, err := FromNative(x.Content)
		return NewTag(x.Number, content), err
	case []any:
		return arrayFromNative(x)
	case map[any]any:
		return mapFromNative(x)
	case map[string]any:
		return mapFromNative(x)
	}
	return numberFromNative(x)
}

func numberFromNative(x any) (Value, error) {
	switch x := x.(type) {
	case int:
		return NewInt(int64(x)), nil
	case int8:
		return NewInt(int64(x)), nil
	case int16:
		return NewInt(int64(x)), nil
	case int32:
		return NewInt(int64(x)), nil
	case int64:
		return NewInt(x), nil
	case uint:
		return NewUint(uint64(x)), nil
	case uint8:
		return NewUint(uint64(x)), nil
	case uint16:
		return NewUint(uint64(x)), nil
	case uint32:
		return NewUint(uint64(x)), nil
	case uint64:
		return NewUint(x), nil
	case float32:
		return NewFloat(float64(x)), nil
	case float64:
		return NewFloat(x), nil
	}
	return Value{}, fmt.Errorf("dcbor: a %T has no CBOR form here", x)
}

func arrayFromNative(x []any) (Value, error) {
	elements := make([]Value, len(x))
	for i, e := range x {
		var err error
		if elements[i], err = FromNative(e); err != nil {
			return Value{}, err
		}
	}
	return NewArray(elements...), nil
}

func mapFromNative[K comparable](x map[K]any) (Value, error) {
	kids := make([]Value, 0, 2*len(x))
	for k, e := range x {
		key, err := FromNative(k)
		if err != nil {
			return Value{}, err
		}
		value, err := FromNative(e)
		if err != nil {
			return Value{}, err
		}
		kids = append(kids, key, value)
	}
	v := NewMap(kids...)
	if len(preferredKeys(kids)) != len(x) { // such as int(1) and uint(1)
		return Value{}, ErrDuplicateKey
	}
	return v, nil
}

// Native returns v as Go values: int64 (uint64 or *big.Int where it does not
// fit), []byte, string, []any, map[any]any, Tagged, bool, nil, float64. Simple
// values without a Go form stay Values.
func (v Value) Native() any {
	switch v.kind {
	case Uint, Nint:
		return v.nativeInteger()
	case Bytes:
		return append([]byte{}, v.content()...)
	case Text:
		return string(v.content())
	case Array:
		elements := make([]any, len(v.kids))
		for i, e := range v.kids {
			elements[i] = e.Native()
		}
		return elements
	case Map:
		return v.nativeMap()
	case Tag:
		return Tagged{v.n, v.kids[0].Native()}
	case Float:
		return math.Float64frombits(v.n)
	}
	if b, ok := v.Bool(); ok {
		return b
	}
	if v.IsSimple(simpleNull) {
		return nil
	}
	return v
}

func (v Value) nativeInteger() any {
	if i, ok := v.Int(); ok {
		return i
	}
	if v.kind == Uint {
		return v.n
	}
	n := new(big.Int).SetUint64(v.n)
	return n.Not(n) // -1 - n
}

// nativeMap keeps integer and text keys as they are; every other key becomes
// the string of its diagnostic notation, so that no pair is lost.
func (v Value) nativeMap() map[any]any {
	m := make(map[any]any, len(v.kids)/2)
	for key, value := range v.Pairs() {
		switch key.kind {
		case Text:
			m[string(key.content())] = value.Native()
		case Uint, Nint:
			if i, ok := key.Int(); ok {
				m[i] = value.Native()
				continue
			}
			fallthrough
		default:
			m[key.String()] = value.Native()
		}
	}
	return m
}
