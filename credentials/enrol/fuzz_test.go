package enrol_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/privyseal/privyseal/credentials/enrol"
)

// FuzzRequests: what either decoder takes is within its bounds, and is the same
// when it is written and read again.
func FuzzRequests(f *testing.F) {
	for _, s := range []string{
		`{"code":"pvsenrol_AAAA"}`,
		`{"code":"x","tpm":{"ek":"AA==","ek_certificates":["MAA="],"ak":"AA=="}}`,
		`{"session":"S","request":"MAA=","answer":"AA==","evidence":{"format":"privyseal-tpm-evidence-1"}}`,
		`{"session":"S","request":"MAA=","statement":"e30.e30.AA"}`,
		`{"session":"S","request":"MAA=","answer":"AA==","evidence":null}`,
		`{"code":null}`, `{"Code":"x"}`, `{"code":"x"} {}`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := enrol.ParseBegin(b); err == nil {
			again(t, r, enrol.ParseBegin)
		}
		if r, err := enrol.ParseFinish(b); err == nil {
			again(t, r, enrol.ParseFinish)
		}
	})
}

func again[R any](t *testing.T, r *R, parse func([]byte) (*R, error)) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 128<<10 {
		return // escapes in the evidence made it longer
	}
	twice, err := parse(b)
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	c, err := json.Marshal(twice)
	if err != nil || !reflect.DeepEqual(b, c) {
		t.Errorf("%s became %s (%v)", b, c, err)
	}
}

// FuzzOpenStatement: nobody is believed, so that nothing opens.
func FuzzOpenStatement(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9.e30.AA")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := enrol.OpenStatement(s, nil); err == nil {
			t.Errorf("%q opens", s)
		}
	})
}
