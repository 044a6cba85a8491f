package policy

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// Limits of component values that we take from outside.
const (
	MaxComponent = 1 << 20 // octets of one component's value

	maxRoles    = 256
	maxList     = 4096 // elements of a list of numbers or links
	maxName     = 1024 // octets of a name
	maxText     = 16 << 10
	maxURI      = 2048
	maxEntries  = 1024 // preauthorisation entries, bots, providers
	maxClaims   = 32
	maxClaimID  = 1024
	maxClaimLen = 16 << 10
	maxDomain   = 255
)

// A ParseError says why octets are not a value of a struct.
type ParseError struct {
	Struct string // name in the draft
	Err    error  // a *tlsvec.Error with the offset, or the rule that the value breaks
}

func (e *ParseError) Error() string { return fmt.Sprintf("policy: %s: %v", e.Struct, e.Err) }

func (e *ParseError) Unwrap() error { return e.Err }

// An InvalidError says which rule a decoded value breaks.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return e.Reason }

func invalid(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }

// parse decodes a whole value and checks the rules that concern it alone.
func parse[T any](name string, data []byte, read func(*tlsvec.Reader) T, check func(*T) error) (*T, error) {
	if len(data) > MaxComponent {
		return nil, &ParseError{name, invalid("%d octets, want at most %d", len(data), MaxComponent)}
	}
	r := tlsvec.NewReader(data)
	v := read(r)
	if err := r.Done(); err != nil {
		return nil, &ParseError{name, err}
	}
	if err := check(&v); err != nil {
		return nil, &ParseError{name, err}
	}
	return &v, nil
}

func noRule[T any](*T) error { return nil }

// marshal returns what append writes.
func marshal(append func(*tlsvec.Builder)) []byte {
	var b tlsvec.Builder
	append(&b)
	return b.Bytes()
}

func appendList[T any](b *tlsvec.Builder, list []T, append func(*tlsvec.Builder, T)) {
	b.Nested(func(b *tlsvec.Builder) {
		for _, v := range list {
			append(b, v)
		}
	})
}

// readList reads a vector of at most most elements. An empty vector is nil.
func readList[T any](r *tlsvec.Reader, most int, read func(*tlsvec.Reader) T) (list []T) {
	r.Each(func(r *tlsvec.Reader) {
		if len(list) == most {
			r.Fail(fmt.Sprintf("more than %d elements", most))
			return
		}
		list = append(list, read(r))
	})
	return list
}

func appendUint8[T ~uint8](b *tlsvec.Builder, v T)   { b.Uint8(uint8(v)) }
func appendUint16[T ~uint16](b *tlsvec.Builder, v T) { b.Uint16(uint16(v)) }
func appendUint32[T ~uint32](b *tlsvec.Builder, v T) { b.Uint32(uint32(v)) }

func readUint16[T ~uint16](r *tlsvec.Reader) T { return T(r.Uint16()) }
func readUint32[T ~uint32](r *tlsvec.Reader) T { return T(r.Uint32()) }

// readEnum reads a uint8 that is at most last.
func readEnum[T ~uint8](r *tlsvec.Reader, what string, last T) T {
	v := T(r.Uint8())
	if v > last {
		r.Fail(fmt.Sprintf("%s %d is unknown", what, v))
	}
	return v
}

func appendBool(b *tlsvec.Builder, v bool) { b.Optional(v) }

func readBool(r *tlsvec.Reader) bool {
	v := r.Uint8()
	if v > 1 {
		r.Fail("boolean is neither 0 nor 1")
	}
	return v == 1
}

// appendOptional writes optional<uint32>.
func appendOptional(b *tlsvec.Builder, v *uint32) {
	b.Optional(v != nil)
	if v != nil {
		b.Uint32(*v)
	}
}

func readOptional(r *tlsvec.Reader) *uint32 {
	if !r.Optional() {
		return nil
	}
	v := r.Uint32()
	return &v
}

// readOpaque reads opaque data<V> of at most most octets.
func readOpaque(r *tlsvec.Reader, most int) []byte {
	v := r.Vector()
	if len(v) > most {
		r.Fail(fmt.Sprintf("%d octets, want at most %d", len(v), most))
	}
	return v
}

// readText reads text: UTF-8 without NUL.
func readText(r *tlsvec.Reader, most int) string {
	s := string(readOpaque(r, most))
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		r.Fail("text is not UTF-8 without NUL")
	}
	return s
}

func appendText(b *tlsvec.Builder, s string) { b.String(s) }

// readURI reads a Uri: absolute, or empty.
//
//	struct { opaque uri<V>; } Uri;
func readURI(r *tlsvec.Reader) string {
	s := readText(r, maxURI)
	if s == "" {
		return s
	}
	if u, err := url.Parse(s); err != nil || u.Scheme == "" {
		r.Fail("not an absolute URI")
	}
	return s
}

// appendMaybeURI writes "Uri x<V>", a vector of no or one Uri, each with its own
// length.
func appendMaybeURI(b *tlsvec.Builder, uri string) {
	b.Nested(func(b *tlsvec.Builder) {
		if uri != "" {
			b.String(uri)
		}
	})
}

func readMaybeURI(r *tlsvec.Reader) string {
	list := readList(r, 1, readURI)
	if len(list) == 0 {
		return ""
	}
	if list[0] == "" {
		r.Fail("empty URI in a vector of URIs")
	}
	return list[0]
}

// readDomain reads a DomainName: a lower-case name of A-labels.
//
//	struct { opaque domain<V>; } DomainName;
func readDomain(r *tlsvec.Reader) string {
	s := string(readOpaque(r, maxDomain))
	if !validDomain(s) {
		r.Fail("not a lower-case domain name")
	}
	return s
}

func validDomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
