package content_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/mimi/content"
)

const room = "mimi://example.com/r/engineering_team"

type example struct {
	name, sender, id string
	encoded          []byte
}

func examples(t testing.TB) []example {
	t.Helper()
	data, err := os.ReadFile("testdata/draft-08/examples.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []example
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			t.Fatalf("line with %d fields", len(f))
		}
		encoded, err := hex.DecodeString(f[3])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, example{f[0], f[1], f[2], encoded})
	}
	if len(all) != 14 {
		t.Fatalf("%d examples, want 14", len(all))
	}
	return all
}

func TestPublishedExamples(t *testing.T) {
	for _, ex := range examples(t) {
		m, err := content.Parse(ex.encoded)
		if err != nil {
			t.Errorf("%s: %v", ex.name, err)
			continue
		}
		id, err := content.ComputeID(ex.sender, room, ex.encoded, m.Salt)
		if err != nil || id.String() != ex.id {
			t.Errorf("%s: ID %v, want %s (%v)", ex.name, id, ex.id, err)
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, ex.encoded) {
			t.Errorf("%s: encodes to %x (%v)", ex.name, again, err)
		}
		if s, ok := m.Extensions.SenderURI(); !ok || s != ex.sender {
			t.Errorf("%s: sender %q", ex.name, s)
		}
		if r, ok := m.Extensions.RoomURI(); !ok || r != room {
			t.Errorf("%s: room %q", ex.name, r)
		}
	}
}

func TestPrefixesAreRefused(t *testing.T) {
	for _, ex := range examples(t) {
		for n := range ex.encoded {
			if _, err := content.Parse(ex.encoded[:n]); err == nil {
				t.Fatalf("%s: the first %d octets were accepted", ex.name, n)
			}
		}
		if _, err := content.Parse(append(bytes.Clone(ex.encoded), 0)); err == nil {
			t.Fatalf("%s: a trailing octet was accepted", ex.name)
		}
	}
}

func TestPartIndex(t *testing.T) {
	for _, ex := range examples(t) {
		if ex.name != "multipart-3" {
			continue
		}
		m, err := content.Parse(ex.encoded)
		if err != nil {
			t.Fatal(err)
		}
		last := -1
		for i := range m.Body.Walk() {
			if i != last+1 {
				t.Errorf("part index %d after %d", i, last)
			}
			last = i
		}
		if last != 10 {
			t.Errorf("last part index %d, want 10", last)
		}
		if m.Body.ResolveCID(content.CID(0)) != nil {
			t.Error("a MultiPart can be referred to")
		}
		for i, p := range m.Body.Walk() {
			_, single := p.Content.(*content.SinglePart)
			_, external := p.Content.(*content.ExternalPart)
			if (m.Body.ResolveCID(content.CID(i)) == p) != (single || external) {
				t.Errorf("part %d resolves wrongly", i)
			}
		}
		for _, bad := range []string{"cid:99@local.invalid", "cid:+3@local.invalid", "cid:03@local.invalid", "cid:-1@local.invalid", "cid:3@example.com", "3"} {
			if m.Body.ResolveCID(bad) != nil {
				t.Errorf("%s resolves", bad)
			}
		}
	}
}

// A valid message, item by item, for the table of refusals to spoil.
func items() []dcbor.Value {
	return []dcbor.Value{
		dcbor.NewBytes(make([]byte, 16)), dcbor.NewNull(), dcbor.NewBytes(nil), dcbor.NewNull(), dcbor.NewNull(),
		dcbor.NewMap(), part(1, single()...),
	}
}

func part(disposition int64, rest ...dcbor.Value) dcbor.Value {
	return dcbor.NewArray(append([]dcbor.Value{dcbor.NewInt(disposition), dcbor.NewText("")}, rest...)...)
}

func single() []dcbor.Value {
	return []dcbor.Value{dcbor.NewInt(1), dcbor.NewText("text/plain;charset=utf-8"), dcbor.NewBytes([]byte("hi"))}
}

func multi(semantics int64, parts ...dcbor.Value) dcbor.Value {
	return part(1, dcbor.NewInt(3), dcbor.NewInt(semantics), dcbor.NewArray(parts...))
}

func external(change func([]dcbor.Value)) dcbor.Value {
	text, octets := dcbor.NewText("x"), dcbor.NewBytes([]byte{1})
	v := []dcbor.Value{dcbor.NewInt(2), text, text, dcbor.NewInt(0), dcbor.NewInt(0), dcbor.NewInt(1),
		octets, octets, octets, dcbor.NewInt(1), octets, text, text}
	if change != nil {
		change(v)
	}
	return part(6, v...)
}

func nested(levels int) dcbor.Value {
	if levels == 1 {
		return part(1, single()...)
	}
	return multi(2, nested(levels-1), part(0, dcbor.NewInt(0)))
}

func many(n int) dcbor.Value {
	parts := make([]dcbor.Value, n)
	for i := range parts {
		parts[i] = part(1, single()...)
	}
	return multi(2, parts...)
}

func ext(key, value dcbor.Value) dcbor.Value { return dcbor.NewMap(key, value) }

func TestRefusals(t *testing.T) {
	id := make([]byte, 32)
	id[0] = 1
	private := dcbor.NewInt(-1)
	null, zero := dcbor.NewNull(), dcbor.NewInt(0)
	for _, c := range []struct {
		name string
		item int
		v    dcbor.Value
		want content.Code // "" for accepted
	}{
		{"as it is", 0, items()[0], ""},
		{"salt of 15", 0, dcbor.NewBytes(make([]byte, 15)), content.CodeSalt},
		{"salt of 17", 0, dcbor.NewBytes(make([]byte, 17)), content.CodeSalt},
		{"salt of text", 0, dcbor.NewText("0123456789abcdef"), content.CodeShape},
		{"replaces", 1, dcbor.NewBytes(id), ""},
		{"replaces of 31", 1, dcbor.NewBytes(id[:31]), content.CodeMessageID},
		{"replaces of another hash", 1, dcbor.NewBytes(make([]byte, 32)), content.CodeHashAlgorithm},
		{"replaces is zero", 1, zero, content.CodeShape},
		{"replaces is false", 1, dcbor.NewBool(false), content.CodeShape},
		{"topic at the limit", 2, dcbor.NewBytes(make([]byte, 4096)), ""},
		{"topic beyond", 2, dcbor.NewBytes(make([]byte, 4097)), content.CodeTopicID},
		{"topic null", 2, null, content.CodeShape},
		{"expires", 3, dcbor.NewArray(dcbor.NewBool(true), dcbor.NewUint(1<<32-1)), ""},
		{"expires beyond 32 bits", 3, dcbor.NewArray(dcbor.NewBool(true), dcbor.NewUint(1<<32)), content.CodeExpires},
		{"expires negative", 3, dcbor.NewArray(dcbor.NewBool(true), dcbor.NewInt(-1)), content.CodeShape},
		{"expires without relative", 3, dcbor.NewArray(dcbor.NewInt(1)), content.CodeShape},
		{"expires relative is 1", 3, dcbor.NewArray(dcbor.NewInt(1), dcbor.NewInt(1)), content.CodeShape},
		{"expires is a number", 3, dcbor.NewInt(5), content.CodeShape},
		{"inReplyTo of 33", 4, dcbor.NewBytes(make([]byte, 33)), content.CodeMessageID},
		{"extensions is null", 5, null, content.CodeShape},
		{"extension key zero", 5, ext(zero, zero), content.CodeExtensionKey},
		{"extension key empty", 5, ext(dcbor.NewText(""), zero), content.CodeExtensionKey},
		{"extension key of 255", 5, ext(dcbor.NewText(strings.Repeat("k", 255)), zero), ""},
		{"extension key of 256", 5, ext(dcbor.NewText(strings.Repeat("k", 256)), zero), content.CodeExtensionKey},
		{"extension key of bytes", 5, ext(dcbor.NewBytes([]byte{1}), zero), content.CodeExtensionKey},
		{"extension key 2^53-1", 5, ext(dcbor.NewUint(1<<53-1), zero), ""},
		{"extension key 2^53", 5, ext(dcbor.NewUint(1<<53), zero), content.CodeExtensionKey},
		{"extension key -(2^53-1)", 5, ext(dcbor.NewInt(-(1<<53 - 1)), zero), ""},
		{"extension key -2^53", 5, ext(dcbor.NewInt(-(1 << 53)), zero), content.CodeExtensionKey},
		{"extension key true", 5, ext(dcbor.NewBool(true), zero), content.CodeExtensionKey},
		{"sender is bytes", 5, ext(dcbor.NewInt(1), dcbor.NewBytes(nil)), content.CodeShape},
		{"room is a number", 5, ext(dcbor.NewInt(2), zero), content.CodeShape},
		{"four levels", 5, ext(private, dcbor.NewArray(dcbor.NewArray(dcbor.NewTag(32, dcbor.NewText("http://example.com"))))), ""},
		{"five levels", 5, ext(private, dcbor.NewArray(dcbor.NewArray(dcbor.NewArray(dcbor.NewArray())))), content.CodeExtensionDepth},
		{"five levels through a tag", 5, ext(private, dcbor.NewArray(dcbor.NewArray(dcbor.NewTag(32, dcbor.NewTag(33, dcbor.NewText("")))))), content.CodeExtensionDepth},
		{"nested key of bytes", 5, ext(private, ext(dcbor.NewBytes([]byte{1}), zero)), ""},
		{"nested key zero", 5, ext(private, ext(zero, zero)), ""},
		{"nested key null", 5, ext(private, ext(null, zero)), content.CodeExtensionKey},
		{"nested key 2^53", 5, ext(private, ext(dcbor.NewUint(1<<53), zero)), content.CodeExtensionKey},
		{"bignum that fits", 5, ext(private, dcbor.NewTag(2, dcbor.NewBytes(make([]byte, 8)))), content.CodeNotDeterministic},
		{"bignum with a leading zero", 5, ext(private, dcbor.NewTag(2, dcbor.NewBytes(make([]byte, 9)))), content.CodeNotDeterministic},
		{"extension value of more than 4096 octets", 5, ext(private, dcbor.NewBytes(make([]byte, 70_000))), ""}, // -08 has no bound
		{"bignum of text", 5, ext(private, dcbor.NewTag(3, dcbor.NewText("x"))), content.CodeExtensionValue},
		{"bignum", 5, ext(private, dcbor.NewTag(2, dcbor.NewBytes(bytes.Repeat([]byte{1}, 9)))), ""},
		{"disposition unknown", 6, part(255, single()...), ""},
		{"disposition beyond", 6, part(256, single()...), content.CodeDisposition},
		{"null part", 6, part(2, zero), ""},
		{"null part with content", 6, part(2, append([]dcbor.Value{zero}, single()[1:]...)...), content.CodeShape},
		{"single without content", 6, part(1, single()[:2]...), content.CodeShape},
		{"single with text", 6, part(1, dcbor.NewInt(1), dcbor.NewText("a/b"), dcbor.NewText("c")), content.CodeShape},
		{"cardinality 4", 6, part(1, dcbor.NewInt(4)), content.CodeCardinality},
		{"part of two items", 6, dcbor.NewArray(zero, dcbor.NewText("")), content.CodeShape},
		{"part is a map", 6, dcbor.NewMap(), content.CodeShape},
		{"external", 6, external(nil), ""},
		{"external size is text", 6, external(func(v []dcbor.Value) { v[4] = dcbor.NewText("1") }), content.CodeShape},
		{"external AEAD beyond", 6, external(func(v []dcbor.Value) { v[5] = dcbor.NewInt(1 << 16) }), content.CodeRange},
		{"external hash beyond", 6, external(func(v []dcbor.Value) { v[9] = dcbor.NewInt(256) }), content.CodeRange},
		{"external expires beyond", 6, external(func(v []dcbor.Value) { v[3] = dcbor.NewInt(1 << 32) }), content.CodeRange},
		{"external tagged url", 6, external(func(v []dcbor.Value) { v[2] = dcbor.NewTag(32, dcbor.NewText("https://a")) }), content.CodeShape},
		{"semantics 3", 6, multi(3, part(1, single()...), part(1, single()...)), content.CodePartSemantics},
		{"one part", 6, multi(0, part(1, single()...)), content.CodePartCount},
		{"four levels of parts", 6, nested(4), ""},
		{"five levels of parts", 6, nested(5), content.CodePartDepth},
		{"1024 parts", 6, many(1023), ""},
		{"1025 parts", 6, many(1024), content.CodePartCount},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := items()
			all[c.item] = c.v
			checkParse(t, dcbor.Encode(dcbor.NewArray(all...)), c.want)
		})
	}
}

func checkParse(t *testing.T, encoded []byte, want content.Code) {
	t.Helper()
	m, err := content.Parse(encoded)
	var e *content.Error
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want == "":
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, encoded) {
			t.Errorf("encodes to other octets (%v)", err)
		}
	case !errors.As(err, &e) || e.Code != want:
		t.Errorf("got %v, want %s", err, want)
	}
}

// Encodings of an acceptable message that are not the one to be used.
func TestRefusedEncodings(t *testing.T) {
	good := hex.EncodeToString(dcbor.Encode(dcbor.NewArray(items()...)))
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	for _, c := range []struct {
		name, encoded string
		want          content.Code
	}{
		{"long array head", "9807" + good[2:], content.CodeNotDeterministic},
		{"long string head", swap("50000000", "5810000000"), content.CodeNotDeterministic},
		{"indefinite array", "9f" + good[2:] + "ff", content.CodeNotDeterministic},
		{"long integer", swap("a085016001", "a08518016001"), content.CodeNotDeterministic},
		{"keys in another order", swap("a08501", "a220001800008501"), content.CodeNotDeterministic},
		{"keys of the older canonical order", swap("a08501", "a22000181800"+"8501"), content.CodeNotDeterministic},
		{"key twice", swap("a08501", "a2200020008501"), content.CodeMalformed},
		{"long float", swap("a08501", "a120fa3fc000008501"), content.CodeNotDeterministic},
		{"NaN with a payload", swap("a08501", "a120f97e018501"), content.CodeNotDeterministic},
		{"text that is not UTF-8", swap("a08501600", "a0850161ff0"), content.CodeMalformed},
		{"empty", "", content.CodeMalformed},
		{"six items", "86" + good[2:], content.CodeMalformed},
		{"a map", "a0", content.CodeShape},
	} {
		encoded, err := hex.DecodeString(c.encoded)
		if err != nil {
			t.Fatal(c.name, err)
		}
		t.Run(c.name, func(t *testing.T) { checkParse(t, encoded, c.want) })
	}
	if _, err := content.Parse(make([]byte, content.MaxMessage+1)); !errors.Is(err, &content.Error{Code: content.CodeTooLarge}) {
		t.Errorf("too large: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, ex := range examples(f) {
		f.Add(ex.encoded)
	}
	f.Add(dcbor.Encode(dcbor.NewArray(items()...)))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		m, err := content.Parse(encoded)
		if err != nil {
			if !errors.As(err, new(*content.Error)) {
				t.Fatalf("error without type: %v", err)
			}
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, encoded) {
			t.Fatalf("accepted octets encode to %x (%v)", again, err)
		}
	})
}

func FuzzParseStatusReport(f *testing.F) {
	seed, _ := content.EncodeStatusReport([]content.MessageStatus{{ID: content.MessageID{1, 2}, Status: content.StatusRead}})
	f.Add(seed)
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, encoded []byte) {
		report, err := content.ParseStatusReport(encoded)
		if err != nil {
			if !errors.As(err, new(*content.Error)) {
				t.Fatalf("error without type: %v", err)
			}
			return
		}
		if again, err := content.EncodeStatusReport(report); err != nil || !bytes.Equal(again, encoded) {
			t.Fatalf("accepted octets encode to %x (%v)", again, err)
		}
	})
}
