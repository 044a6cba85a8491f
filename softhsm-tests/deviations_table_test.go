package softhsmtests

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// The table stands between these lines of the file.
const (
	tableBegin = "<!-- table: written by go test ./softhsm-tests -run TestModuleDeviations -update -->"
	tableEnd   = "<!-- end of table -->"
)

// TestModuleDeviations asks every module for every behaviour in
// docs/pkcs11-deviations.md. The file is the expectation: a module that answers
// otherwise than it says there fails the test named in the row.
func TestModuleDeviations(t *testing.T) {
	documented := readTable(t)
	observed := map[string]map[string]string{}
	eachModule(t, func(t *testing.T, m *hsmtest.Module) {
		answers := map[string]string{}
		observed[m.Name] = answers
		for _, b := range behaviours {
			t.Run(b.name, func(t *testing.T) {
				answers[b.name] = b.ask(t, load(t, m))
				if want := documented[m.Name][b.name]; answers[b.name] != want && !*update {
					t.Errorf("%s: %s: %q, but %s says %q", m.Name, b.what, answers[b.name], deviationsFile, want)
				}
			})
		}
	})
	if *update {
		writeTable(t, documented, observed)
	}
}

// readTable returns the documented answers by module and behaviour. Every
// behaviour must have its row.
func readTable(t *testing.T) map[string]map[string]string {
	t.Helper()
	_, table, _ := splitTable(t)
	documented := map[string]map[string]string{}
	for _, c := range candidates {
		documented[c.name] = map[string]string{}
	}
	for _, line := range strings.Split(strings.TrimSpace(table), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != len(candidates)+2 {
			continue
		}
		name := strings.Trim(cells[len(cells)-1], "` ")
		for i, c := range candidates {
			documented[c.name][name] = strings.TrimSpace(cells[i+1])
		}
	}
	for _, b := range behaviours {
		if _, ok := documented[candidates[0].name][b.name]; !ok && !*update {
			t.Errorf("%s has no row for %s", deviationsFile, b.name)
		}
	}
	return documented
}

// splitTable returns the file around the table and the table.
func splitTable(t *testing.T) (before, table, after string) {
	t.Helper()
	file, err := os.ReadFile(deviationsFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(file), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q", deviationsFile, tableBegin, tableEnd)
	}
	return before, table, after
}

// writeTable writes what was observed; a module that is not here keeps its
// column.
func writeTable(t *testing.T, documented, observed map[string]map[string]string) {
	t.Helper()
	before, _, after := splitTable(t)
	header := []string{"what is done"}
	for _, c := range candidates {
		header = append(header, c.name)
		if observed[c.name] == nil {
			observed[c.name] = documented[c.name]
		}
	}
	header = append(header, "subtest")
	var b strings.Builder
	row := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	row(header)
	row(slices.Repeat([]string{"---"}, len(header)))
	for _, x := range behaviours {
		cells := []string{x.what}
		for _, c := range candidates {
			cells = append(cells, observed[c.name][x.name])
		}
		row(append(cells, "`"+x.name+"`"))
	}
	content := before + tableBegin + "\n\n" + b.String() + "\n" + tableEnd + after
	if err := os.WriteFile(deviationsFile, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
