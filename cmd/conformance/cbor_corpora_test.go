package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The corpora in testdata are those of the packages' own cases; see the flag
// -write-corpus of their tests.
var cborCorpora = map[string]string{"sdcwt": "sdcwt.json", "statuslist": "statuslist.json"}

func TestSDCWTAndStatusListCorpora(t *testing.T) {
	for command, name := range cborCorpora {
		t.Run(command, func(t *testing.T) {
			var out, diagnostics bytes.Buffer
			status := run([]string{command, filepath.Join("testdata", name)}, strings.NewReader(""), &out, &diagnostics)
			if status != exitOK || !strings.Contains(out.String(), " passed, 0 failed, 0 skipped\n") || strings.HasPrefix(out.String(), "0 ") {
				t.Errorf("exit status %d\n%s%s", status, out.String(), diagnostics.String())
			}
		})
	}
}

// A corpus that expects the opposite, or other values, fails.
func TestSDCWTAndStatusListCorporaCanFail(t *testing.T) {
	for command, name := range cborCorpora {
		raw, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		var corpus map[string]any
		if err := json.Unmarshal(raw, &corpus); err != nil {
			t.Fatal(err)
		}
		cases := corpus["cases"].([]any)
		for _, c := range cases {
			c := c.(map[string]any)
			switch {
			case c["claims"] != nil:
				c["claims"] = "a0"
			case c["statuses"] != nil:
				c["statuses"] = []int{}
			case c["expect"] == "accept":
				c["expect"] = "refuse"
			default:
				c["expect"] = "accept"
			}
		}
		file := filepath.Join(t.TempDir(), name)
		changed, err := json.Marshal(corpus)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		var out, diagnostics bytes.Buffer
		status := run([]string{command, file}, strings.NewReader(""), &out, &diagnostics)
		if n := strings.Count(out.String(), "FAIL "); status != exitFailed || n != len(cases) {
			t.Errorf("%s: exit status %d, %d of %d cases fail\n%s", command, status, n, len(cases), diagnostics.String())
		}
	}
}
