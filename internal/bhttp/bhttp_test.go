package bhttp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/internal/bhttp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The messages of RFC 9458 appendix A, which omit all empty sections.
const (
	vectorRequest  = "00034745540568747470730b6578616d706c652e636f6d012f"
	vectorResponse = "0140c8"
)

func TestVectors(t *testing.T) {
	q, err := bhttp.ParseRequest(unhex(t, vectorRequest))
	if err != nil || q.Method != "GET" || q.URL() != "https://example.com/" {
		t.Fatalf("%+v, %v", q, err)
	}
	if b, err := q.Marshal(); err != nil || hex.EncodeToString(b) != vectorRequest {
		t.Errorf("%x, %v", b, err)
	}
	p, err := bhttp.ParseResponse(unhex(t, vectorResponse))
	if err != nil || p.Status != 200 {
		t.Fatalf("%+v, %v", p, err)
	}
	if b, err := p.Marshal(); err != nil || hex.EncodeToString(b) != vectorResponse {
		t.Errorf("%x, %v", b, err)
	}
}

func str(s string) string { return string(rune(len(s))) + s }

// What the two framings say of one message is the same.
func TestFramings(t *testing.T) {
	control := str("POST") + str("https") + str("a.example") + str("/x")
	header, trailer := str("a")+str("1")+str("b")+str("")+str("a")+str("2"), str("c")+str("3")
	want := &bhttp.Request{
		Method: "POST", Scheme: "https", Authority: "a.example", Path: "/x",
		Header: []bhttp.Field{{"a", "1"}, {"b", ""}, {"a", "2"}}, Content: []byte("hello"), Trailer: []bhttp.Field{{"c", "3"}},
	}
	known := "\x00" + control + str(header) + str("hello") + str(trailer)
	for name, s := range map[string]string{
		"known":                  known,
		"known, padded":          known + strings.Repeat("\x00", 100),
		"known, long integers":   "\x40\x00" + control + "\x80\x00\x00" + str(header) + str("hello") + str(trailer),
		"indeterminate":          "\x02" + control + header + "\x00" + str("hel") + str("lo") + "\x00" + trailer + "\x00",
		"indeterminate, padded":  "\x02" + control + header + "\x00" + str("hello") + "\x00" + trailer + "\x00\x00\x00",
		"indeterminate, longest": "\x02" + control + header + "\x00" + "\xc0\x00\x00\x00\x00\x00\x00\x05hello" + "\x00" + trailer + "\x00",
	} {
		if got, err := bhttp.ParseRequest([]byte(s)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if b, err := want.Marshal(); err != nil || string(b) != known {
		t.Errorf("%q, %v", b, err)
	}
	for name, s := range map[string]string{
		"known":         "\x01" + "\x40\x66" + str(header) + "\x40\x67" + str("") + "\x40\xc8" + str(header) + str("hello"),
		"indeterminate": "\x03" + "\x40\x66" + header + "\x00" + "\x40\xc8" + header + "\x00" + str("hello") + "\x00",
	} {
		got, err := bhttp.ParseResponse([]byte(s))
		if err != nil || got.Status != 200 || got.Get("a") != "1" || got.Get("z") != "" || string(got.Content) != "hello" {
			t.Errorf("response, %s: %+v, %v", name, got, err)
		}
	}
	short, err := bhttp.ParseRequest(bhttp.Pad(unhex(t, vectorRequest), 64))
	if err != nil || short.Path != "/" || len(short.Header) != 0 {
		t.Errorf("a padded short message: %+v, %v", short, err)
	}
}

func TestRefused(t *testing.T) {
	control := "\x00" + str("GET") + str("https") + str("a.example") + str("/")
	many := strings.Repeat(str("a")+str("1"), bhttp.MaxFields+1)
	for name, s := range map[string]string{
		"nothing": "", "a response": "\x01\x40\xc8", "framing 4": "\x04", "cut control data": control[:len(control)-1],
		"cut header": control + "\x05" + str("a"), "name beyond the section": control + str("\x05ab"), "no value": control + str(str("a")),
		"cut content": control + "\x00\x05abc", "padding that is not": control + "\x00\x00\x00\x01", "empty name": control + str("\x00\x00"),
		"upper-case name": control + str(str("A")+str("1")), "a space in a name": control + str(str("a b")+str("1")), "pseudo field": control + str(str(":path")+str("/")),
		"connection field": control + str(str("connection")+str("x")), "transfer-encoding": control + str(str("transfer-encoding")+str("chunked")),
		"line break in a value": control + str(str("a")+str("1\r\nb: 2")), "space before a value": control + str(str("a")+str(" 1")),
		"space in the method": "\x00" + str("G T") + str("https") + str("a") + str("/"), "no method": "\x00" + str("") + str("https") + str("a") + str("/"),
		"line break in the path": "\x00" + str("GET") + str("https") + str("a") + str("/\n"),
		"too many fields":        "\x02" + control[1:] + many + "\x00", "endless fields": "\x02" + control[1:] + str("a") + str("1"), "endless content": "\x02" + control[1:] + "\x00" + str("abc"),
		"length beyond memory": control + "\x00\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		if q, err := bhttp.ParseRequest([]byte(s)); !errors.Is(err, bhttp.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, q, err)
		}
	}
	for name, s := range map[string]string{
		"a request": "\x00", "status 0": "\x01\x00", "status 600": "\x01\x42\x58", "informational alone": "\x01\x40\x64", "cut status": "\x01\x40",
		"endless informational": "\x01" + strings.Repeat("\x40\x64\x00", 17) + "\x40\xc8",
	} {
		if p, err := bhttp.ParseResponse([]byte(s)); !errors.Is(err, bhttp.ErrMalformed) {
			t.Errorf("response, %s: %+v, %v", name, p, err)
		}
	}
	for name, q := range map[string]*bhttp.Request{
		"no method": {}, "bad field": {Method: "GET", Header: []bhttp.Field{{"A", "b"}}}, "many": {Method: "GET", Header: make([]bhttp.Field, 200)},
	} {
		if _, err := q.Marshal(); err == nil {
			t.Errorf("written: %s", name)
		}
	}
	if _, err := (&bhttp.Response{Status: 100}).Marshal(); err == nil {
		t.Error("written: an informational response alone")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, vectorRequest))
	f.Add(unhex(f, vectorResponse))
	f.Add([]byte("\x02\x04POST\x05https\x01a\x01/\x01a\x011\x00\x03abc\x00\x01b\x00\x00\x00"))
	f.Add([]byte("\x03\x40\x66\x01a\x011\x00\x40\xc8\x00\x03abc\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := bhttp.ParseRequest(b); err == nil {
			enc, err := q.Marshal()
			if err != nil {
				t.Fatalf("cannot write what was read: %v", err)
			}
			again, err := bhttp.ParseRequest(enc)
			if err != nil || !same(q.Header, again.Header) || !same(q.Trailer, again.Trailer) || !bytes.Equal(q.Content, again.Content) || q.URL() != again.URL() {
				t.Fatalf("%+v became %+v, %v", q, again, err)
			}
		} else if !errors.Is(err, bhttp.ErrMalformed) {
			t.Fatal(err)
		}
		if p, err := bhttp.ParseResponse(b); err == nil {
			enc, err := p.Marshal()
			if err != nil {
				t.Fatalf("cannot write what was read: %v", err)
			}
			if again, err := bhttp.ParseResponse(enc); err != nil || again.Status != p.Status || !bytes.Equal(p.Content, again.Content) {
				t.Fatalf("%+v became %+v, %v", p, again, err)
			}
		} else if !errors.Is(err, bhttp.ErrMalformed) {
			t.Fatal(err)
		}
	})
}

func same(a, b []bhttp.Field) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}
