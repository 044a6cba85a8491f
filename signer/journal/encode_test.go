package journal

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// texts has the text in each text of a record, or in one of them alone.
func texts(v any, text string, only int) {
	fields, n := reflect.ValueOf(v).Elem(), 0
	for i := range fields.NumField() {
		if f := fields.Field(i); f.Kind() == reflect.String {
			if only < 0 || n == only {
				f.SetString(text)
			}
			n++
		}
	}
}

// TestEncodeAsJSON: a record has the octets that encoding/json gives it,
// whichever of its members are there.
func TestEncodeAsJSON(t *testing.T) {
	check := func(got []byte, err error, record any) {
		t.Helper()
		want, wantErr := encode(record)
		if (err != nil) != (wantErr != nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%q, %v; want %q, %v", got, err, want, wantErr)
		}
	}
	for _, text := range []string{"", "a", "a b~!", `"`, `\`, "<&>", "\x00", "\x1f", "\x7f", "é", "\u2028", "\xff", "</script>", "acme.leaf-0"} {
		for only := -1; only < 20; only++ {
			for _, summary := range []string{"", "{}", "null", "{\"a\": \"<b>\",\n\"c\":[1, 2]}", "{\"\u2028\":\"\xff\"}", "{", "{} {}", `"\u003c"`} {
				for _, claims := range []int{0, 1, 3} {
					r := &IntentRecord{Version: only, Summary: json.RawMessage(summary)}
					texts(r, text, only)
					for i := range claims {
						r.Claims = append(r.Claims, ClaimRecord{})
						texts(&r.Claims[i], text, only-i)
					}
					got, err := r.encode()
					check(got, err, r)
				}
			}
			o := new(OutcomeRecord)
			texts(o, text, only)
			got, err := o.encode()
			check(got, err, o)
		}
	}
}

// BenchmarkEncode is an intent as a message of a room has it.
func BenchmarkEncode(b *testing.B) {
	r := &IntentRecord{Time: "2026-11-28T12:00:00.000000Z", Tenant: "acme", Caller: "bot", Key: "acme.leaf-0", Version: 1, Purpose: "mls-leaf",
		Operation: OpSign, Shape: "mls", Type: "FramedContentTBS", Digest: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		Claims: []ClaimRecord{{Kind: KindCommit, Name: "acme.leaf-0 726f6f6d", Number: "1"}}, Rule: "a", PolicyVersion: "0123456789abcdef",
		IdempotencyKey: "0123456789abcdef0123456789abcdef-0123456789abcdef", RequestChecksum: "crc32c:01234567",
		Summary: json.RawMessage(`{"content_type":"application","epoch":1,"group":"726f6f6d","leaf":"","sender":"member"}`)}
	for name, f := range map[string]func() ([]byte, error){"by hand": r.encode, "encoding/json": func() ([]byte, error) { return encode(r) }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
