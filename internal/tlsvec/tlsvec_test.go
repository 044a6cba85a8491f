package tlsvec_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// RFC 9420, section 2.1.2, table 2 gives the four examples of RFC 9000.
func TestLength(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want int
	}{
		{"one octet", []byte{0x25}, 37},
		{"two octets", []byte{0x7b, 0xbd}, 15293},
		{"four octets", []byte{0x9d, 0x7f, 0x3e, 0x7d}, 494878333},
		{"largest of one", []byte{0x3f}, 63},
		{"smallest of two", []byte{0x40, 0x40}, 64},
		{"smallest of four", []byte{0x80, 0x00, 0x40, 0x00}, 16384},
	} {
		r := tlsvec.NewReader(c.in)
		if got := r.Length(); got != c.want || r.Done() != nil {
			t.Errorf("%s: got %d, %v; want %d", c.name, got, r.Err(), c.want)
		}
		if out := tlsvec.AppendLength(nil, c.want); !bytes.Equal(out, c.in) {
			t.Errorf("%s: re-encoded as %x", c.name, out)
		}
	}
}

func TestLengthRefused(t *testing.T) {
	for name, in := range map[string][]byte{
		"prefix 3":             {0xc0, 0, 0, 0, 0, 0, 0, 0},
		"37 in two octets":     {0x40, 0x25},
		"16383 in four octets": {0x80, 0x00, 0x3f, 0xff},
		"cut":                  {0x9d, 0x7f, 0x3e},
		"empty":                {},
	} {
		r := tlsvec.NewReader(in)
		r.Length()
		var e *tlsvec.Error
		if !errors.As(r.Err(), &e) {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestErrorNamesOffset(t *testing.T) {
	// A vector that holds a vector which announces more than there is.
	r := tlsvec.NewReader([]byte{0x03, 0x01, 0xaa, 0x07})
	sub := r.Sub()
	sub.Vector()
	sub.Vector()
	r.End(sub)
	var e *tlsvec.Error
	if !errors.As(r.Err(), &e) || e.Offset != 3 {
		t.Fatalf("got %v, want an error at octet 3", r.Err())
	}
}

func TestHugeVectorAllocatesNothing(t *testing.T) {
	in := []byte{0xbf, 0xff, 0xff, 0xff, 1}
	n := testing.AllocsPerRun(10, func() { tlsvec.NewReader(in).Vector() })
	if n > 8 {
		t.Errorf("%v allocations for a refused vector", n)
	}
}

func TestBuilder(t *testing.T) {
	var b tlsvec.Builder
	b.Nested(func(b *tlsvec.Builder) {
		for range 70 {
			b.Uint8(7)
		}
	})
	b.Optional(true)
	b.Uint16(0x0102)
	b.Vector([]byte("ab"))
	r := tlsvec.NewReader(b.Bytes())
	n := 0
	r.Each(func(r *tlsvec.Reader) {
		if r.Uint8() == 7 {
			n++
		}
	})
	if !r.Optional() || r.Uint16() != 0x0102 || string(r.Vector()) != "ab" || r.Done() != nil || n != 70 {
		t.Fatalf("round trip failed: %v", r.Err())
	}
}

func TestTrailing(t *testing.T) {
	r := tlsvec.NewReader([]byte{1, 2})
	r.Uint8()
	if r.Done() == nil {
		t.Fatal("a trailing octet was accepted")
	}
}

func TestOptionalRefused(t *testing.T) {
	r := tlsvec.NewReader([]byte{2})
	if r.Optional() || r.Err() == nil {
		t.Fatal("presence octet 2 was accepted")
	}
}

// FuzzVectors reads a list of vectors and writes it again: what is accepted
// re-encodes to the same octets, what is refused has a typed error.
func FuzzVectors(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{3, 1, 0xaa, 0})
	f.Add([]byte{0x40, 0x40})
	f.Add([]byte{0xbf, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := tlsvec.NewReader(in)
		var out tlsvec.Builder
		out.Nested(func(b *tlsvec.Builder) {
			r.Each(func(r *tlsvec.Reader) { b.Vector(r.Vector()) })
		})
		if err := r.Done(); err != nil {
			var e *tlsvec.Error
			if !errors.As(err, &e) || e.Offset > len(in) {
				t.Fatalf("untyped error or bad offset: %v", err)
			}
			return
		}
		if !bytes.Equal(out.Bytes(), in) {
			t.Fatalf("%x re-encoded as %x", in, out.Bytes())
		}
	})
}
