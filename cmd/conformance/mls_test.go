package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// vectorFile copies a file of the working group into the test's folder, under
// another name.
func vectorFile(t *testing.T, name, as string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/thomas-vilte/mls-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "testdata", "mls-interop-testvectors", "test-vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	return writeVectors(t, as, raw)
}

func writeVectors(t *testing.T, as string, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), as)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(as, ".gz") {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(raw)
		w.Close()
		raw = b.Bytes()
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func runMLSTest(args ...string) (status int, stdout, stderr string) {
	var out, diag bytes.Buffer
	status = run(append([]string{"mls"}, args...), nil, &out, &diag)
	return status, out.String(), diag.String()
}

func TestMLSVectorFiles(t *testing.T) {
	status, out, diag := runMLSTest(
		vectorFile(t, "tree-math.json", "tree-math.json"),
		vectorFile(t, "crypto-basics.json", "crypto-basics.json.gz"),
		vectorFile(t, "passive-client-welcome.json", "interop-passive/welcome_join.json.gz"))
	want := "tree-math passed=10 failed=0 skipped=0\n" +
		"crypto-basics passed=5 failed=0 skipped=2\n" +
		"welcome_join passed=40 failed=0 skipped=16\n" +
		"55 passed, 0 failed, 18 skipped\n"
	if status != exitOK || out != want || diag != "" {
		t.Errorf("status %d, output\n%sdiagnostics %q", status, out, diag)
	}
}

func TestMLSFailures(t *testing.T) {
	bad := writeVectors(t, "deserialization.json", []byte(`[{"vlbytes_header":"00","length":0},{"vlbytes_header":"01","length":2}]`))
	for _, c := range []struct {
		name       string
		args       []string
		status     int
		out, wrong string
	}{
		{"a wrong case", []string{bad}, exitFailed, "deserialization passed=1 failed=1 skipped=0\n1 passed, 1 failed, 0 skipped\n", ""},
		{"named", []string{"-v", bad}, exitFailed, "  case 1: length: got 1, want 2\n", ""},
		{"no case", []string{writeVectors(t, "welcome.json", []byte("[]"))}, exitFailed, "welcome passed=0 failed=1 skipped=0\n", "no case"},
		{"unknown format", []string{writeVectors(t, "commit.json", []byte("[{}]"))}, exitFailed, "commit passed=0 failed=1 skipped=0\n", "not a format"},
		{"unreadable", []string{filepath.Join(t.TempDir(), "welcome.json")}, exitFailed, "welcome passed=0 failed=1 skipped=0\n", "no such file"},
		{"not gzip", []string{bad[:len(bad)-len("deserialization.json")] + "welcome.json.gz"}, exitFailed, "failed=1", ""},
		{"no file", nil, exitUsage, "", "usage"},
		{"no such flag", []string{"-x", bad}, exitUsage, "", "flag provided but not defined"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, out, diag := runMLSTest(c.args...)
			if status != c.status || !strings.Contains(out, c.out) || !strings.Contains(diag, c.wrong) {
				t.Errorf("status %d, output %q, diagnostics %q", status, out, diag)
			}
		})
	}
}
