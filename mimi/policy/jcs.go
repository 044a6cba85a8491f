package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// canonicalJSON returns a JSON text in the JSON Canonicalization Scheme
// (RFC 8785). It fails for numbers that a double cannot hold exactly as integers,
// which RFC 8785 excludes: two of them would be the same.
func canonicalJSON(raw []byte) ([]byte, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false
	}
	return appendCanonical(nil, v)
}

func appendCanonical(dst []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), true
	case bool:
		return strconv.AppendBool(dst, v), true
	case string:
		return appendCanonicalText(dst, v), true
	case json.Number:
		return appendCanonicalNumber(dst, v)
	case []any:
		return appendCanonicalArray(dst, v)
	case map[string]any:
		return appendCanonicalObject(dst, v)
	}
	return nil, false
}

func appendCanonicalArray(dst []byte, v []any) (_ []byte, ok bool) {
	dst = append(dst, '[')
	for i, element := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, ok = appendCanonical(dst, element); !ok {
			return nil, false
		}
	}
	return append(dst, ']'), true
}

// appendCanonicalObject sorts names by their UTF-16 code units.
func appendCanonicalObject(dst []byte, v map[string]any) (_ []byte, ok bool) {
	names := slices.SortedFunc(maps.Keys(v), func(a, b string) int {
		return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
	})
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendCanonicalText(dst, name), ':')
		if dst, ok = appendCanonical(dst, v[name]); !ok {
			return nil, false
		}
	}
	return append(dst, '}'), true
}

// appendCanonicalNumber writes a double as ECMAScript does, which encoding/json
// does too but for negative zero.
func appendCanonicalNumber(dst []byte, n json.Number) ([]byte, bool) {
	f, err := n.Float64()
	if err != nil {
		return nil, false
	}
	if !strings.ContainsAny(string(n), ".eE") && (f >= 1<<53 || f <= -1<<53) {
		return nil, false
	}
	if f == 0 {
		return append(dst, '0'), true
	}
	b, err := json.Marshal(f)
	return append(dst, b...), err == nil
}

var canonicalEscapes = map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}

func appendCanonicalText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		if escape, ok := canonicalEscapes[r]; ok {
			dst = append(dst, escape...)
		} else if r < 0x20 {
			dst = fmt.Appendf(dst, `\u%04x`, r)
		} else {
			dst = append(dst, string(r)...)
		}
	}
	return append(dst, '"')
}
