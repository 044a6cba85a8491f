package strictjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/internal/strictjson"
)

type file struct {
	Version int            `json:"version"`
	Rules   []rule         `json:"rules"`
	Named   map[string]any `json:"named"`
	One     *rule          `json:"one"`
}

type rule struct {
	ID string `json:"id"`
}

func TestDecode(t *testing.T) {
	var f file
	good := `{"version":1,"rules":[{"id":"a"}],"named":{"x":{"Anything":null}},"one":{"id":"b"}}`
	if err := strictjson.Decode([]byte(good), 1000, &f); err != nil || f.Rules[0].ID != "a" || f.One.ID != "b" {
		t.Fatalf("%+v, %v", f, err)
	}
	for text, at := range map[string]string{
		`{"Version":1}`:                "",
		`{"version":1,"version":1}`:    "",
		`{"version":null}`:             "version",
		`{"rules":[{"id":"a","x":1}]}`: "rules[0]",
		`{"one":{"ID":"a"}}`:           "one",
		`{"version":"1"}`:              "version",
		`{} {}`:                        "",
		`{"version":1`:                 "",
		strings.Repeat(" ", 1001):      "",
	} {
		err := strictjson.Decode([]byte(text), 1000, new(file))
		wrong, ok := errors.AsType[*strictjson.Error](err)
		if !ok || wrong.At != at {
			t.Errorf("%.40s: %v, want an error at %q", text, err, at)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"rules":[{"id":"a"}],"named":{"x":1},"one":{"id":"b"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v, again file
		if err := strictjson.Decode(b, 1<<16, &v); err != nil {
			if !errors.As(err, new(*strictjson.Error)) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("encoding/json does not read %q: %v", b, err)
		}
	})
}
