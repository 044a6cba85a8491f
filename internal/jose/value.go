package jose

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// An Object is a JSON object whose members keep their order. ParseJSON makes
// sure that no name occurs twice.
type Object struct{ Members []Member }

// A Member is one name and value of an Object.
type Member struct {
	Name  string
	Value any
}

// NewObject returns an Object of the given members.
func NewObject(members ...Member) *Object { return &Object{members} }

func (o *Object) index(name string) int {
	for i := range o.Members {
		if o.Members[i].Name == name {
			return i
		}
	}
	return -1
}

// Has reports whether o has a member of that name.
func (o *Object) Has(name string) bool { return o.index(name) >= 0 }

// Get returns the value of the named member, and whether there is one.
func (o *Object) Get(name string) (any, bool) {
	if i := o.index(name); i >= 0 {
		return o.Members[i].Value, true
	}
	return nil, false
}

// Text returns the value of the named member if it is a string. ok is false if
// the member is there and is something else.
func (o *Object) Text(name string) (s string, there, ok bool) {
	v, there := o.Get(name)
	if !there {
		return "", false, true
	}
	s, ok = v.(string)
	return s, true, ok
}

// Set gives the named member a value, at its place or at the end.
func (o *Object) Set(name string, value any) {
	if i := o.index(name); i >= 0 {
		o.Members[i].Value = value
		return
	}
	o.Members = append(o.Members, Member{name, value})
}

// Add appends a member, whose name o must not have yet, and returns o.
func (o *Object) Add(name string, value any) *Object {
	o.Members = append(o.Members, Member{name, value})
	return o
}

// Raw is one JSON value that AppendJSON appends as it is.
type Raw []byte

// AppendJSON appends v, a value of the kinds that ParseJSON returns, a Raw or a
// []string, as JSON without white space. It panics on anything else.
func AppendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		if v {
			return append(b, "true"...)
		}
		return append(b, "false"...)
	case json.Number:
		return append(b, v...)
	case string:
		return AppendString(b, v)
	case []any:
		return appendArray(b, v)
	case []string:
		return appendStrings(b, v)
	case Raw:
		return append(b, v...)
	case *Object:
		return appendObject(b, v)
	}
	panic("jose: not a JSON value")
}

func appendArray(b []byte, elements []any) []byte {
	b = append(b, '[')
	for i, e := range elements {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendJSON(b, e)
	}
	return append(b, ']')
}

func appendStrings(b []byte, elements []string) []byte {
	b = append(b, '[')
	for i, e := range elements {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, e)
	}
	return append(b, ']')
}

func appendObject(b []byte, o *Object) []byte {
	b = append(b, '{')
	for i := range o.Members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(AppendString(b, o.Members[i].Name), ':')
		b = AppendJSON(b, o.Members[i].Value)
	}
	return append(b, '}')
}

// AppendString appends s as a JSON string. Octets that are not UTF-8 become
// U+FFFD; strings from ParseJSON have none.
func AppendString(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		if start = i + 1; c < 0x20 {
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		} else {
			b = append(b, '\\', c)
		}
	}
	return append(append(b, s[start:]...), '"')
}

// Equal reports whether a and b are the same JSON value. The order of members
// does not matter; numbers are compared by value where one of them has a
// fraction or an exponent, and zero has no sign.
func Equal(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(a, b)
	case []any:
		b, ok := b.([]any)
		return ok && sameElements(a, b)
	case *Object:
		b, ok := b.(*Object)
		return ok && sameMembers(a, b)
	}
	return a == b
}

func sameNumber(a, b json.Number) bool {
	if a == b || !strings.ContainsAny(string(a+b), ".eE") && a != "-0" && b != "-0" {
		return a == b
	}
	x, errX := a.Float64()
	y, errY := b.Float64()
	return errX == nil && errY == nil && x == y
}

func sameElements(a, b []any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func sameMembers(a, b *Object) bool {
	if len(a.Members) != len(b.Members) {
		return false
	}
	for _, m := range a.Members {
		if v, ok := b.Get(m.Name); !ok || !Equal(m.Value, v) {
			return false
		}
	}
	return true
}
