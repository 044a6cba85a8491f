// Package strictjson decodes the project's own JSON files: what is not known
// is an error, never ignored.
package strictjson

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/privyseal/privyseal/internal/jose"
)

// maxDepth bounds nested arrays and objects.
const maxDepth = 32

// An Error says which member is wrong.
type Error struct {
	At  string // such as "rules[2].when"; "" for the whole text
	Err error
}

func (e *Error) Error() string {
	if e.At == "" {
		return e.Err.Error()
	}
	return e.At + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Decode decodes one JSON value of at most max octets into v. It refuses
// members that v does not have, that occur twice or are written in another
// case, and null. A field of type any, json.RawMessage or with its own decoder
// is left to itself.
func Decode(b []byte, max int, v any) error {
	if len(b) > max {
		return &Error{Err: fmt.Errorf("more than %d octets", max)}
	}
	parsed, err := jose.ParseJSON(string(b), maxDepth)
	if err != nil {
		return &Error{Err: err}
	}
	if err := check(parsed, reflect.TypeOf(v), ""); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &Error{At: wrong.Field, Err: fmt.Errorf("a JSON %s, want %v", wrong.Value, wrong.Type)}
	}
	if err != nil {
		return &Error{Err: err}
	}
	return nil
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// check descends where both the value and its Go type have members.
func check(v any, t reflect.Type, at string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	own := reflect.PointerTo(t).Implements(unmarshaler) || reflect.PointerTo(t).Implements(textUnmarshaler)
	if own || t.Kind() == reflect.Interface {
		return nil
	}
	switch v := v.(type) {
	case nil:
		return &Error{At: at, Err: errors.New("null; leave the member out instead")}
	case *jose.Object:
		return checkObject(v, t, at)
	case []any:
		if t.Kind() == reflect.Slice {
			return checkArray(v, t.Elem(), at)
		}
	}
	return nil
}

func checkArray(v []any, elem reflect.Type, at string) error {
	for i, e := range v {
		if err := check(e, elem, fmt.Sprintf("%s[%d]", at, i)); err != nil {
			return err
		}
	}
	return nil
}

func checkObject(o *jose.Object, t reflect.Type, at string) error {
	for _, m := range o.Members {
		inner := t
		switch t.Kind() {
		case reflect.Struct:
			f, ok := field(t, m.Name)
			if !ok {
				return &Error{At: at, Err: fmt.Errorf("there is no member %q", m.Name)}
			}
			inner = f.Type
		case reflect.Map:
			inner = t.Elem()
		default:
			return nil
		}
		if err := check(m.Value, inner, join(at, m.Name)); err != nil {
			return err
		}
	}
	return nil
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// field returns the field whose json tag has exactly that name.
func field(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name && tag != "" && tag != "-" {
			return f, true
		}
	}
	return reflect.StructField{}, false
}
