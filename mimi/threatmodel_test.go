package mimi_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/threat-model.md names tests as evidence; each of them exists.
func TestThreatModelNamesRealTests(t *testing.T) {
	text, err := os.ReadFile("../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := make(map[string]string)
	named := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 50 {
		t.Fatalf("only %d tests are named", len(named))
	}
	for _, n := range named {
		if _, read := sources[n[1]]; !read {
			sources[n[1]] = testSource(t, filepath.Join("..", n[1]))
		}
		if !strings.Contains(sources[n[1]], "\nfunc "+n[2]+"(") {
			t.Errorf("package %s has no %s", n[1], n[2])
		}
	}
}

func testSource(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range names {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(source)
	}
	return b.String()
}
