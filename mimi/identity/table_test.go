package identity_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/mimi/identity"
)

// docs/trust.md lists every rule with the names of errors that belong to it, and
// the tests that it names exist.
func TestTableOfRules(t *testing.T) {
	doc, err := os.ReadFile("../../docs/trust.md")
	must(t, err)
	tests := map[string]bool{}
	define := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, dir := range []string{"../../credentials", ".", "../policy", "../client", "../hub"} {
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range define.FindAllStringSubmatch(string(text), -1) {
				tests[m[1]] = true
			}
			return err
		}))
	}
	row := regexp.MustCompile("(?m)^\\| ([a-z]+) \\| (`[^|;]+)[^|]*\\| ([^|]+) \\|$")
	name := regexp.MustCompile("`([a-z-]+)`")
	listed := map[credentials.Code]bool{}
	var rules []identity.Rule
	for _, m := range row.FindAllStringSubmatch(string(doc), -1) {
		rule := identity.Rule(m[1])
		rules = append(rules, rule)
		for _, n := range name.FindAllStringSubmatch(m[2], -1) {
			code := credentials.Code(n[1])
			if identity.RuleOf()[code] != rule {
				t.Errorf("%s is listed under %s, and is of %q", code, rule, identity.RuleOf()[code])
			}
			listed[code] = true
		}
		for test := range strings.SplitSeq(m[3], ", ") {
			if !tests[test] {
				t.Errorf("%s names %s, which does not exist", rule, test)
			}
		}
	}
	for code, rule := range identity.RuleOf() {
		if !listed[code] {
			t.Errorf("%s of %s is not listed", code, rule)
		}
	}
	if len(rules) != len(identity.Rules) {
		t.Errorf("rules %v, want %v", rules, identity.Rules)
	}
}
