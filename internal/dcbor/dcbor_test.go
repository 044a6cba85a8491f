package dcbor_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/privyseal/privyseal/internal/dcbor"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The examples of RFC 8949 appendix A that have definite lengths, with their
// diagnostic notation.
var appendixA = []struct{ octets, diagnostic string }{
	{"00", "0"}, {"17", "23"}, {"1818", "24"}, {"1903e8", "1000"}, {"1a000f4240", "1000000"},
	{"1b000000e8d4a51000", "1000000000000"}, {"1bffffffffffffffff", "18446744073709551615"},
	{"3bffffffffffffffff", "-18446744073709551616"}, {"20", "-1"}, {"3863", "-100"}, {"3903e7", "-1000"},
	{"f90000", "0.0"}, {"f98000", "-0.0"}, {"f93c00", "1.0"}, {"fb3ff199999999999a", "1.1"}, {"f93e00", "1.5"},
	{"f97bff", "65504.0"}, {"fa47c35000", "100000.0"}, {"fa7f7fffff", "3.4028234663852886e+38"}, {"fb7e37e43c8800759c", "1e+300"},
	{"f90001", "5.960464477539063e-08"}, {"f90400", "6.103515625e-05"}, {"f9c400", "-4.0"}, {"fbc010666666666666", "-4.1"},
	{"f97c00", "Infinity"}, {"f97e00", "NaN"}, {"f9fc00", "-Infinity"},
	{"f4", "false"}, {"f5", "true"}, {"f6", "null"}, {"f7", "undefined"}, {"f0", "simple(16)"}, {"f8ff", "simple(255)"}, {"f83b", "simple(59)"},
	{"c11a514b67b0", "1(1363896240)"}, {"c1fb41d452d9ec200000", "1(1.3638962405e+09)"}, {"d74401020304", "23(h'01020304')"},
	{"40", "h''"}, {"4401020304", "h'01020304'"}, {"60", `""`}, {"6449455446", `"IETF"`}, {"62c3bc", `"ü"`},
	{"80", "[]"}, {"83010203", "[1, 2, 3]"}, {"8301820203820405", "[1, [2, 3], [4, 5]]"},
	{"a0", "{}"}, {"a201020304", "{1: 2, 3: 4}"}, {"a26161016162820203", `{"a": 1, "b": [2, 3]}`},
}

func TestAppendixA(t *testing.T) {
	for _, c := range appendixA {
		v, err := dcbor.Limits{Deterministic: true}.Decode(unhex(c.octets))
		if err != nil {
			t.Errorf("%s: %v", c.octets, err)
			continue
		}
		if got := v.String(); got != c.diagnostic {
			t.Errorf("%s is %s, want %s", c.octets, got, c.diagnostic)
		}
		if got := hex.EncodeToString(dcbor.Encode(v)); got != c.octets {
			t.Errorf("%s is encoded as %s", c.octets, got)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, octets string
		want         error
	}{
		{"nothing", "", dcbor.ErrTruncated},
		{"head cut", "19 03", dcbor.ErrTruncated},
		{"string cut", "44 010203", dcbor.ErrTruncated},
		{"string of 2^63 octets", "5b 8000000000000000 00", dcbor.ErrTruncated},
		{"array cut", "83 01 02", dcbor.ErrTruncated},
		{"array of 2^32 elements", "9a ffffffff 00", dcbor.ErrTruncated},
		{"map without value", "a1 01", dcbor.ErrTruncated},
		{"tag without content", "c1", dcbor.ErrTruncated},
		{"trailing octet", "01 01", dcbor.ErrTrailing},
		{"indefinite bytes", "5f 4101 ff", dcbor.ErrIndefinite},
		{"indefinite array", "9f 01 ff", dcbor.ErrIndefinite},
		{"indefinite map", "bf 01 02 ff", dcbor.ErrIndefinite},
		{"break alone", "ff", dcbor.ErrIndefinite},
		{"reserved 28", "1c", dcbor.ErrReserved},
		{"reserved 30", "fe", dcbor.ErrReserved},
		{"simple 24 in two octets", "f8 18", dcbor.ErrReserved},
		{"simple false in two octets", "f8 14", dcbor.ErrReserved},
		{"text not UTF-8", "61 ff", dcbor.ErrUTF8},
		{"surrogate", "63 eda080", dcbor.ErrUTF8},
		{"same key twice", "a2 01 00 01 00", dcbor.ErrDuplicateKey},
		{"same key in two encodings", "a2 01 00 1801 00", dcbor.ErrDuplicateKey},
		{"same key apart", "a3 02 00 01 00 02 00", dcbor.ErrDuplicateKey},
		{"same text key in two encodings", "a2 6161 00 7801 61 00", dcbor.ErrDuplicateKey},
		{"same float key in two widths", "a2 f93c00 00 fa3f800000 00", dcbor.ErrDuplicateKey},
		{"same key in two encodings, far in", "82 1817 a2 01 00 1801 00", dcbor.ErrDuplicateKey},
		{"same float key in two widths, unsorted", "a3 02 00 f93c00 00 fa3f800000 00", dcbor.ErrDuplicateKey},
		{"same simple key", "a2 f83b 00 f83b 00", dcbor.ErrDuplicateKey},
		{"same map as key in two orders", "a2 a201000200 00 a202000100 00", dcbor.ErrDuplicateKey},
		{"33 levels", strings.Repeat("81", 33) + "00", dcbor.ErrTooDeep},
		{"33 tags", strings.Repeat("c1", 33) + "00", dcbor.ErrTooDeep},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := dcbor.Decode(unhex(c.octets))
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, %v; want %v", v, err, c.want)
			}
			var syntax *dcbor.SyntaxError
			if !errors.As(err, &syntax) {
				t.Errorf("%T is no SyntaxError", err)
			}
		})
	}
}

func TestNotDeterministic(t *testing.T) {
	for _, octets := range []string{"1801", "190001", "1a00000001", "1b0000000000000001", "5801 00", "7801 61", "9801 00", "b801 01 00",
		"d801 00", "fa3f800000", "fb3ff0000000000000", "f97e01", "a2 02 00 01 00", "a2 6161 00 01 00"} {
		if _, err := dcbor.Decode(unhex(octets)); err != nil {
			t.Errorf("%s: %v", octets, err)
		}
		if v, err := (dcbor.Limits{Deterministic: true}).Decode(unhex(octets)); !errors.Is(err, dcbor.ErrNotDeterministic) {
			t.Errorf("%s: got %v, %v", octets, v, err)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		limits dcbor.Limits
		octets string
		want   error
	}{
		{dcbor.Limits{Size: 3}, "83010203", dcbor.ErrTooLarge},
		{dcbor.Limits{Size: 4}, "83010203", nil},
		{dcbor.Limits{Depth: 1}, "8180", dcbor.ErrTooDeep},
		{dcbor.Limits{Depth: 2}, "8180", nil},
		{dcbor.Limits{Items: 2}, "83010203", dcbor.ErrTooLarge},
		{dcbor.Limits{Items: 3}, "83010203", nil},
		{dcbor.Limits{Elements: 2}, "83010203", dcbor.ErrTooLarge},
		{dcbor.Limits{Pairs: 1}, "a201020304", dcbor.ErrTooLarge},
		{dcbor.Limits{Pairs: 2}, "a201020304", nil},
	} {
		if _, err := c.limits.Decode(unhex(c.octets)); !errors.Is(err, c.want) {
			t.Errorf("%+v %s: got %v, want %v", c.limits, c.octets, err, c.want)
		}
	}
}

// Every announced element is paid for by an octet of the input, however the
// announcements are nested.
func TestAllocationIsBounded(t *testing.T) {
	bomb := bytes.Repeat([]byte{0x99, 0xff, 0x00}, 20000)
	if n := testing.AllocsPerRun(10, func() { dcbor.Decode(bomb) }); n > 40 {
		t.Errorf("%v allocations for a refused input", n)
	}
}

func TestMapsAreSorted(t *testing.T) {
	v := dcbor.NewMap(
		dcbor.NewSimple(59), dcbor.NewArray(), dcbor.NewText("a"), dcbor.NewInt(1), dcbor.NewInt(-1), dcbor.NewInt(2),
		dcbor.NewInt(100), dcbor.NewInt(3), dcbor.NewInt(8), dcbor.NewInt(4), dcbor.NewText("aa"), dcbor.NewInt(5))
	const want = "a6080418640320026161016261610" + "5f83b80"
	if got := hex.EncodeToString(dcbor.Encode(v)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRawIsAsReceived(t *testing.T) {
	v, err := dcbor.Decode(unhex("a2 6161 9801 190005 1a00000007 40"))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(v.GetText("a").Raw()); got != "9801190005" {
		t.Errorf("array is %s", got)
	}
	if got := hex.EncodeToString(v.GetInt(7).Raw()); got != "40" {
		t.Errorf("bytes are %s", got)
	}
	if got := hex.EncodeToString(dcbor.Encode(v)); got != "a207406161"+"8105" {
		t.Errorf("encoded as %s", got)
	}
}

func TestNative(t *testing.T) {
	v, err := dcbor.FromNative(map[any]any{
		1: "a", -2: []any{true, nil, 1.5, []byte{1}}, "k": map[string]any{"x": uint64(math.MaxUint64)},
		dcbor.Tagged{Number: 58, Content: 5}: dcbor.Tagged{Number: 60, Content: []byte{2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{1: "a", -2: [true, null, 1.5, h'01'], "k": {"x": 18446744073709551615}, 58(5): 60(h'02')}`
	sorted, err := dcbor.Decode(dcbor.Encode(v))
	if err != nil || sorted.String() != want {
		t.Errorf("got %s, %v", sorted, err)
	}
	again, err := dcbor.FromNative(sorted.Get(dcbor.NewText("k")).Native())
	if err != nil || !again.Equal(sorted.GetText("k")) {
		t.Errorf("got %v, %v", again, err)
	}
	for _, bad := range []any{struct{}{}, map[any]any{1: 1, uint(1): 2}, "\xff", dcbor.Value{}, []any{make(chan int)}} {
		if v, err := dcbor.FromNative(bad); err == nil {
			t.Errorf("%T became %v", bad, v)
		}
	}
}

// peer is another decoder, set as strictly as it can be.
var peer = func() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 32, MaxArrayElements: 65536, MaxMapPairs: 4096}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

func FuzzDecode(f *testing.F) {
	for _, c := range appendixA {
		f.Add(unhex(c.octets))
	}
	f.Add(unhex("a2 01 00 1801 00"))
	f.Add(unhex("d2 84 43 a10126 a1 04 42 3131 40 40"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := dcbor.Decode(data)
		if err != nil {
			var syntax *dcbor.SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset > len(data) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if !bytes.Equal(v.Raw(), data) {
			t.Fatalf("raw is %x", v.Raw())
		}
		if err := peer.Wellformed(data); err != nil {
			t.Fatalf("the peer says: %v", err)
		}
		once := dcbor.Encode(v)
		again, err := dcbor.Limits{Deterministic: true, Size: len(once) + 1}.Decode(once)
		if err != nil {
			t.Fatalf("%x is encoded as %x: %v", data, once, err)
		}
		if !bytes.Equal(dcbor.Encode(again), once) || !again.Equal(v) {
			t.Fatalf("%x does not come back", once)
		}
		if strict, err := (dcbor.Limits{Deterministic: true}).Decode(data); err == nil && !bytes.Equal(dcbor.Encode(strict), data) {
			t.Fatalf("deterministic %x is encoded as %x", data, dcbor.Encode(strict))
		}
		_ = v.String()
		_ = v.Native()
	})
}

func TestMaxEncoded(t *testing.T) {
	for _, c := range appendixA {
		v, err := dcbor.Decode(unhex(c.octets))
		if err != nil {
			t.Fatal(err)
		}
		most := v.MaxEncoded()
		if n := len(dcbor.Encode(v)); n > most || n < most && !strings.ContainsAny(c.diagnostic, ".+NI") {
			t.Errorf("%s: %d octets, MaxEncoded says %d", c.octets, n, most)
		}
		if whole := dcbor.NewArray(dcbor.Verbatim(unhex(c.octets)), dcbor.NewText("text"), dcbor.NewTag(300, v)); len(dcbor.Encode(whole)) > whole.MaxEncoded() {
			t.Errorf("an array around %s is longer than MaxEncoded", c.octets)
		}
	}
}

// An Arena gives the same Values again and again, of which nothing is left.
func TestArena(t *testing.T) {
	var a dcbor.Arena
	for range 3 {
		var all []dcbor.Value
		for _, c := range appendixA {
			v, err := dcbor.Limits{}.DecodeIn(&a, unhex(c.octets))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, v, a.Tag(7, v))
		}
		for i, c := range appendixA {
			if got := all[2*i].String(); got != c.diagnostic {
				t.Errorf("%s became %s", c.diagnostic, got)
			}
			if got := all[2*i+1].String(); got != "7("+c.diagnostic+")" {
				t.Errorf("the tag around %s became %s", c.diagnostic, got)
			}
		}
		for i, v := range a.Make(3000) {
			if v.Exists() {
				t.Fatalf("value %d of Make exists", i)
			}
		}
		a.Reset()
	}
}
