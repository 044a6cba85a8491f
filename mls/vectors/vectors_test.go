package vectors_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/mls/vectors"
)

// The working group's vectors (mlswg/mls-implementations) come with a module
// that only tests import.
const vectorModule = "github.com/thomas-vilte/mls-go"

var moduleFolder = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", vectorModule).Output()
	return filepath.Join(strings.TrimSpace(string(out)), "testdata", "mls-interop-testvectors", "test-vectors"), err
})

// moduleFiles are the files that the module has, with their numbers of cases of
// the suites that we have and of those that we have not.
var moduleFiles = []struct {
	name            string
	passed, skipped int
}{
	{"crypto-basics", 5, 2},
	{"deserialization", 14, 0},
	{"key-schedule", 5, 2},
	{"message-protection", 5, 2},
	{"passive-client-handling-commit", 65, 26},
	{"passive-client-welcome", 40, 16},
	{"psk_secret", 55, 22},
	{"secret-tree", 15, 6},
	{"transcript-hashes", 5, 2},
	{"tree-math", 10, 0},
	{"tree-operations", 5, 0},
	{"tree-validation", 70, 28},
	{"treekem", 55, 22},
	{"welcome", 5, 2},
}

func readModuleFile(t testing.TB, name string) []byte {
	t.Helper()
	dir, err := moduleFolder()
	if err != nil {
		t.Fatalf("finding %s: %v", vectorModule, err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestWorkingGroupVectors(t *testing.T) {
	for _, f := range moduleFiles {
		t.Run(f.name, func(t *testing.T) {
			r := mustCheck(t, f.name, readModuleFile(t, f.name))
			if r.Passed != f.passed || r.Skipped != f.skipped {
				t.Errorf("passed %d, skipped %d, want %d and %d", r.Passed, r.Skipped, f.passed, f.skipped)
			}
		})
	}
}

func mustCheck(t testing.TB, name string, raw []byte) *vectors.Report {
	t.Helper()
	format, err := vectors.Format(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := vectors.Check(format, raw, vectors.Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failures {
		t.Errorf("case %d: %s", f.Case, f.Check)
	}
	return r
}

// TestVectorsExtra runs the large files of the working group that the module
// leaves out, if MLS_VECTORS names folders that have them.
func TestVectorsExtra(t *testing.T) {
	folders := filepath.SplitList(os.Getenv("MLS_VECTORS"))
	if len(folders) == 0 {
		t.Log("MLS_VECTORS is not set: messages.json, passive-client-random.json and interop/passive are not run")
		return
	}
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", folder, len(files), err)
		}
		for _, file := range files {
			t.Run(vectors.Name(file), func(t *testing.T) {
				raw, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				mustCheck(t, strings.TrimSuffix(file, ".json"), raw)
			})
		}
	}
}

// unchecked are the members whose last octet may change without harm.
var unchecked = map[string]bool{
	"psk_secret/cipher_suite":            true, // to one of the same hash
	"secret-tree/cipher_suite":           true,
	"secret-tree/sender_data/ciphertext": true, // only its beginning is a sample
	"transcript-hashes/cipher_suite":     true,
	"tree-operations/cipher_suite":       true,
	"tree-operations/proposal":           true, // of the KeyPackage's signature, which the tree leaves out
	"tree-operations/proposal_sender":    true, // of an Add
	// an optional of the format
	"passive-client-handling-commit/ratchet_tree left out": true,
	"passive-client-welcome/ratchet_tree left out":         true,
}

// TestEveryMemberIsChecked flips one bit of each value of a case of every
// format, and leaves out each member, one at a time: each must be noticed.
func TestEveryMemberIsChecked(t *testing.T) {
	for _, f := range moduleFiles {
		t.Run(f.name, func(t *testing.T) { testMembers(t, f.name, readModuleFile(t, f.name)) })
	}
}

func testMembers(t *testing.T, name string, raw []byte) {
	var cases []any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&cases); err != nil {
		t.Fatal(err)
	}
	format, err := vectors.Format(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	mutate(cases[0], "", func(path string) {
		tried++
		one, err := json.Marshal(cases[:1])
		if err != nil {
			t.Fatal(err)
		}
		r, err := vectors.Check(format, one, vectors.Options{})
		if err == nil && r.Failed == 0 && !unchecked[name+path] {
			t.Errorf("%s: a case that was changed there passes", path)
		}
	})
	if tried == 0 {
		t.Error("nothing to change")
	}
}

// mutate changes the first, middle and last value of every list, and every
// member of every object, one at a time.
func mutate(v any, path string, try func(path string)) {
	switch v := v.(type) {
	case map[string]any:
		for k, old := range v {
			delete(v, k)
			try(path + "/" + k + " left out")
			v[k] = old
			mutateAt(old, path+"/"+k, func(x any) { v[k] = x }, try)
		}
	case []any:
		for _, i := range []int{0, len(v) / 2, len(v) - 1} {
			if i >= 0 && i < len(v) {
				mutateAt(v[i], path+"/-", func(x any) { v[i] = x }, try)
			}
		}
	}
}

func mutateAt(v any, path string, set func(any), try func(string)) {
	switch old := v.(type) {
	case string:
		if old != "" {
			set(flip(old))
			try(path)
		}
	case json.Number:
		n, err := old.Int64()
		if err != nil {
			return
		}
		set(n + 1)
		try(path)
	default:
		mutate(v, path, try)
		return
	}
	set(v)
}

// flip changes the last digit of a value in hexadecimal, or of a label.
func flip(s string) string {
	last := s[len(s)-1]
	switch {
	case last == '0':
		return s[:len(s)-1] + "1"
	case strings.ContainsRune("123456789abcdef", rune(last)):
		return s[:len(s)-1] + "0"
	}
	return s + "x"
}

func TestFormat(t *testing.T) {
	for path, want := range map[string]string{
		"tree-math.json": "tree-math", "a/b/psk_secret.json.gz": "psk_secret",
		"passive-client-of-ours.json": "passive-client", "passive/commit.json": "passive-client",
		"x/interop-passive/deep/deep_random.json.gz": "passive-client", "passive/welcome.json": "welcome",
	} {
		if got, err := vectors.Format(path); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	if _, err := vectors.Format("commit.json"); !errors.Is(err, vectors.ErrFormat) {
		t.Errorf("commit.json: %v", err)
	}
}

func TestBadFiles(t *testing.T) {
	for _, file := range []string{"", "[]", "{}", "null", "[1", "[{}]x", `["text"]`} {
		r, err := vectors.Check("tree-math", []byte(file), vectors.Options{})
		if err == nil && r.Failed == 0 {
			t.Errorf("%q: %+v", file, r)
		}
	}
	if _, err := vectors.Check("nothing", []byte("[{}]"), vectors.Options{}); !errors.Is(err, vectors.ErrFormat) {
		t.Errorf("unknown format: %v", err)
	}
	for _, f := range moduleFiles {
		format, _ := vectors.Format(f.name)
		for _, suite := range []int{1, 5} {
			r, err := vectors.Check(format, fmt.Appendf(nil, `[{"cipher_suite":%d}]`, suite), vectors.Options{})
			if err == nil && r.Passed > 0 {
				t.Errorf("%s: an empty case of suite %d passes", f.name, suite)
			}
		}
		if r, err := vectors.Check(format, []byte(`[{"cipher_suite":99}]`), vectors.Options{}); err == nil && r.Passed+r.Skipped > 0 {
			t.Errorf("%s: cipher suite 99 is not a failure", f.name)
		}
	}
}

// FuzzCheck feeds files that may be anything: each is judged or refused.
func FuzzCheck(f *testing.F) {
	for i, m := range moduleFiles {
		raw := readModuleFile(f, m.name)
		var cases []json.RawMessage
		if err := json.Unmarshal(raw, &cases); err != nil {
			f.Fatal(err)
		}
		if len(cases[0]) < 1<<14 {
			f.Add(i, fmt.Appendf(nil, "[%s]", cases[0]))
		}
	}
	f.Fuzz(func(t *testing.T, which int, file []byte) {
		if which < 0 || len(file) > 1<<16 {
			return
		}
		format, err := vectors.Format(moduleFiles[which%len(moduleFiles)].name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := vectors.Check(format, file, vectors.Options{})
		if err != nil {
			return
		}
		if r.Passed+r.Failed+r.Skipped == 0 {
			t.Error("a file of no case was accepted")
		}
		for _, x := range r.Failures {
			if strings.HasPrefix(x.Check, "panic") {
				t.Error(x.Check)
			}
		}
	})
}
