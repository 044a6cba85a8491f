// Package archtest holds the tree to its drawing: imports go down, never up or
// sideways, and only one package speaks PKCS#11.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/privyseal/privyseal"

// A rule says what the packages under a folder may import of this module. A
// folder stands for itself and everything below it; the first rule that
// matches a package decides, so the narrower folder stands first.
type rule struct {
	folder string
	may    []string
}

// rules is the drawing of the house, from the top floor down.
var rules = []rule{
	{"cmd", []string{"*"}},
	{"softhsm-tests", []string{"*"}},
	{"mimi/hub", []string{"internal", "mls", "mimi", "credentials", "signer"}},
	{"mimi/client/clienttest", []string{"internal", "mls", "mimi", "credentials"}}, // a hub in memory
	{"mimi/client", []string{"internal", "mls", "mimi=", "mimi/clientapi", "mimi/content", "mimi/identity", "mimi/policy", "mimi/room", "credentials"}},
	{"mimi/room", []string{"internal", "mls", "mimi=", "mimi/policy"}},
	{"mimi/clientapi", []string{"internal", "mls", "mimi="}},
	{"mimi/identity", []string{"internal", "mls", "mimi", "credentials"}},
	{"mimi/peer", []string{"internal", "mimi="}},
	{"mimi/report", []string{"internal"}},
	{"mimi/content", []string{"internal", "mimi="}},
	{"mimi/policy", []string{"internal", "mls", "mimi=", "mimi/content"}},
	{"mimi", []string{"internal", "mls"}},
	{"signer/translog", []string{"internal", "signer=", "signer/journal"}},
	{"signer/journal", []string{"internal", "signer="}},
	{"signer/rpc/rpctest", []string{"internal", "signer"}},
	{"signer/rpc", []string{"internal", "credentials=", "signer=", "signer/access", "signer/admit", "signer/api", "signer/service"}},
	{"signer/service", []string{"internal", "signer=", "signer/access", "signer/admit", "signer/journal", "signer/policy"}},
	{"signer/client", []string{"internal", "credentials=", "signer/api"}},
	{"signer/policy", []string{"internal", "signer="}},
	{"signer/access", []string{"internal"}},
	{"signer/admit", nil},
	{"signer/api", nil},
	{"signer", []string{"internal", "signer", "credentials"}},
	{"credentials/trust", []string{"internal", "credentials"}},
	{"credentials/mlscred", []string{"internal", "credentials=", "credentials/sdjwt", "credentials/sdcwt"}},
	{"credentials/publish", []string{"internal", "credentials=", "credentials/certs", "credentials/statuslist", "credentials/registry"}},
	{"credentials/enrol", []string{"internal", "credentials=", "credentials/certs", "credentials/registry"}},
	{"credentials/registry", []string{"internal", "credentials=", "credentials/certs", "credentials/statuslist"}},
	{"credentials/certs", []string{"internal", "credentials="}},
	{"credentials/sdjwt", []string{"internal", "credentials="}},
	{"credentials/sdcwt", []string{"internal", "credentials="}},
	{"credentials/statuslist", []string{"internal", "credentials="}},
	{"credentials", []string{"internal"}},
	{"mls", []string{"internal", "mls"}},
	{"hsm/hsmtest", []string{"internal", "hsm"}},
	{"hsm", []string{"internal", "hsm"}},
	{"tpm", []string{"internal", "tpm"}},
	{"internal", []string{"internal", "credentials="}},
}

// outside names the few packages of other modules that are reserved.
var outside = map[string][]string{
	"github.com/miekg/pkcs11":         {"hsm"},
	"github.com/google/go-tpm":        {"tpm"},
	"github.com/prometheus":           {"internal/telemetry"},
	"go.opentelemetry.io":             {"internal/telemetry"},
	"github.com/thomas-vilte/mls-go":  {}, // a peer for tests only
	"github.com/rogpeppe/go-internal": {}, // tests only
	"pgregory.net/rapid":              {}, // tests only
	"C":                               {"hsm"},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

// noticeSources looks at every source file, so that the go command does not
// take the result of an older tree for that of this one.
func noticeSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	noticeSources(t)
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

// within reports whether path is folder or below it. A folder that ends in "="
// stands for itself alone.
func within(path, folder string) bool {
	if exact, ok := strings.CutSuffix(folder, "="); ok {
		return path == exact
	}
	return folder == "*" || path == folder || strings.HasPrefix(path, folder+"/")
}

func ruleFor(path string) *rule {
	for i := range rules {
		if within(path, rules[i].folder) {
			return &rules[i]
		}
	}
	return nil
}

// allowed reports whether the drawing has the import. A folder's root holds the
// words that its children import, never the reverse.
func allowed(from, to string) bool {
	r := ruleFor(from)
	if r == nil || to != from && within(to, from) && !within(to, "internal") {
		return false
	}
	return within(to, r.folder) || slices.ContainsFunc(r.may, func(f string) bool { return within(to, f) })
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range listPackages(t) {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		if ruleFor(from) == nil {
			t.Errorf("%s has no place in the drawing: add a rule for its folder", from)
			continue
		}
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, module+"/"); ours && !allowed(from, to) {
				t.Errorf("%s imports %s, which is not below it", from, to)
			}
		}
	}
}

func TestReservedImports(t *testing.T) {
	for _, p := range listPackages(t) {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			for reserved, folders := range outside {
				if !within(imp, reserved) {
					continue
				}
				if !slices.ContainsFunc(folders, func(f string) bool { return within(from, f) }) {
					t.Errorf("%s imports %s, which only %v may", from, imp, folders)
				}
			}
		}
	}
}

// TestRulesRefuse shows that the rules can fail.
func TestRulesRefuse(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{"hsm", "signer"},
		{"mls", "credentials"},
		{"credentials/sdjwt", "credentials/sdcwt"},
		{"credentials", "credentials/certs"},
		{"mimi", "mimi/hub"},
		{"mimi/content", "mimi/hub"},
		{"mimi/content", "mimi/policy"},
		{"mimi/policy", "credentials"},
		{"signer", "hsm"},
		{"signer/service", "signer/rpc"},
		{"signer/client", "signer/service"},
		{"internal/jose", "credentials/sdjwt"},
	} {
		if allowed(c.from, c.to) {
			t.Errorf("%s may import %s", c.from, c.to)
		}
	}
}
