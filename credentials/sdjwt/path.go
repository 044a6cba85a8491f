package sdjwt

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/privyseal/privyseal/internal/jose"
)

// A Path names a claim by the steps from the top of the claims set, as the
// claims paths of SD-JWT VC do: a string is a member of an object, an int an
// element of an array, and nil every element of an array.
type Path []any

// ParsePath reads a Path from its JSON array, such as ["address","region"] or
// ["nationalities",null].
func ParsePath(text string) (Path, error) {
	v, err := jose.ParseJSON(text, 1)
	if err != nil {
		return nil, fmt.Errorf("claims path: %w", err)
	}
	steps, ok := v.([]any)
	if !ok || len(steps) == 0 {
		return nil, fmt.Errorf("claims path: want a JSON array of one or more steps")
	}
	p := make(Path, len(steps))
	for i, step := range steps {
		switch step := step.(type) {
		case nil, string:
			p[i] = step
		case json.Number:
			n, err := strconv.ParseUint(string(step), 10, 31)
			if err != nil {
				return nil, fmt.Errorf("claims path: step %s is no array index", step)
			}
			p[i] = int(n)
		default:
			return nil, fmt.Errorf("claims path: step %d is no string, index or null", i+1)
		}
	}
	return p, nil
}

// String returns p as its JSON array.
func (p Path) String() string {
	b := []byte{'['}
	for i, step := range p {
		if i > 0 {
			b = append(b, ',')
		}
		switch step := step.(type) {
		case nil:
			b = append(b, "null"...)
		case int:
			b = strconv.AppendInt(b, int64(step), 10)
		case string:
			b = jose.AppendString(b, step)
		default:
			b = fmt.Appendf(b, "%v", step)
		}
	}
	return string(append(b, ']'))
}

// Matches reports whether p, which may have nil steps, names exactly the claim
// at the concrete path q.
func (p Path) Matches(q Path) bool {
	if len(p) != len(q) {
		return false
	}
	for i, step := range p {
		_, index := q[i].(int)
		if step != q[i] && !(step == nil && index) {
			return false
		}
	}
	return true
}

// lookup returns the value at a concrete path.
func lookup(v any, p Path) (any, bool) {
	for _, step := range p {
		switch step := step.(type) {
		case string:
			o, ok := v.(*jose.Object)
			if !ok {
				return nil, false
			}
			if v, ok = o.Get(step); !ok {
				return nil, false
			}
		case int:
			list, ok := v.([]any)
			if !ok || step < 0 || step >= len(list) {
				return nil, false
			}
			v = list[step]
		default:
			return nil, false
		}
	}
	return v, true
}
