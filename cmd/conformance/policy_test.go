package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// policyLines runs policy on files and returns its status and output lines.
func policyLines(t *testing.T, files ...string) (int, []string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(append([]string{"policy"}, files...), strings.NewReader(""), &stdout, &stderr)
	if stderr.Len() > 0 {
		t.Logf("stderr: %s", stderr.String())
	}
	return status, strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
}

func TestPolicyCorpus(t *testing.T) {
	status, lines := policyLines(t, "testdata/policy.json")
	if want := "22 passed, 0 failed, 0 skipped"; status != exitOK || len(lines) != 1 || lines[0] != want {
		t.Errorf("status %d, output\n%s\nwant %s", status, strings.Join(lines, "\n"), want)
	}
}

// Every case of the corpus fails when its expectations are turned round, and
// when it expects another check.
func TestPolicyCorpusTurnedRound(t *testing.T) {
	raw, err := os.ReadFile("testdata/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	turned := strings.NewReplacer(`"expect": "accept"`, `"expect": "refuse"`, `"expect": "refuse"`, `"expect": "accept"`, `"rows": [`, `"rows": ["99", `)
	other := strings.NewReplacer(`"check": "`, `"check": "un`, `"rows": [`, `"rows": ["99", `)
	for name, replacer := range map[string]*strings.Replacer{"verdicts": turned, "checks": other} {
		status, lines := policyLines(t, writePolicy(t, replacer.Replace(string(raw))))
		if last := lines[len(lines)-1]; status != exitFailed || last != "0 passed, 22 failed, 0 skipped" {
			t.Errorf("%s: status %d, %s", name, status, last)
		}
	}
}

func writePolicy(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const smallRoom = `"room":{"uri":"mimi://a.example/r/x","roles":"cooperative","participants":[{"user":"mimi://a.example/u/ann","role":2,"clients":["mimi://a.example/d/ann/1"]}]}`

func TestPolicyFailureLine(t *testing.T) {
	_, lines := policyLines(t, writePolicy(t, `{"cases":[{"id":"kick",`+smallRoom+`,"actions":[
		{"kind":"bundle","by":"mimi://a.example/d/ann/1","proposals":[{"type":"reinit"}]}]}]}`))
	want := "FAIL kick#0 want=accept got=refuse/12/capability (policy: refused by row 12, check capability (canSendMLSReinitProposal): mimi://a.example/u/ann acts)"
	if len(lines) != 2 || lines[0] != want || lines[1] != "0 passed, 1 failed, 0 skipped" {
		t.Errorf("output\n%s\nwant\n%s", strings.Join(lines, "\n"), want)
	}
}

// A case that cannot be read fails; it is never taken for a refusal.
func TestPolicyUnreadCases(t *testing.T) {
	action := func(a string) string { return smallRoom + `,"actions":[` + a + `]` }
	for name, text := range map[string]string{
		"no actions":      smallRoom,
		"no room":         `"actions":[{"kind":"delivery"}]`,
		"no kind":         action(`{}`),
		"nobody":          action(`{"kind":"bundle"}`),
		"odd expect":      action(`{"kind":"delivery","expect":"maybe"}`),
		"odd sender":      action(`{"kind":"bundle","by":{"sender":"x"}}`),
		"unknown client":  action(`{"kind":"bundle","by":"mimi://a.example/d/bob/1"}`),
		"user for client": action(`{"kind":"deed","by":"mimi://a.example/u/ann"}`),
		"odd capability":  action(`{"kind":"message","by":"mimi://a.example/u/ann","needs":["canFly"]}`),
		"odd proposal":    action(`{"kind":"bundle","by":"mimi://a.example/d/ann/1","proposals":[{"type":"x"}]}`),
		"odd hex":         action(`{"kind":"bundle","by":"mimi://a.example/d/ann/1","proposals":[{"type":"app_data_update","component":"0x25","value":"zz"}]}`),
		"odd component":   action(`{"kind":"bundle","by":"mimi://a.example/d/ann/1","proposals":[{"type":"app_data_update","component":"roles"}]}`),
		"unknown roles":   strings.Replace(action(`{"kind":"delivery"}`), "cooperative", "anarchic", 1),
		"unknown role":    strings.Replace(action(`{"kind":"delivery"}`), `"role":2`, `"role":9`, 1),
	} {
		status, lines := policyLines(t, writePolicy(t, `{"cases":[{"id":"x",`+text+`,"expect":"refuse"}]}`))
		if status != exitFailed || !strings.HasPrefix(lines[0], "FAIL x want=readable got=unread (") {
			t.Errorf("%s: status %d, %s", name, status, lines[0])
		}
	}
}

func TestPolicyUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"-v"}} {
		if status, _ := policyLines(t, args...); status != exitUsage {
			t.Errorf("%v: status %d", args, status)
		}
	}
	policy := filepath.Join("testdata", "policy.json")
	if status, _ := policyLines(t, policy, "-v"); status != exitUsage {
		t.Errorf("a flag after a file: status %d", status)
	}
	status, lines := policyLines(t, filepath.Join(t.TempDir(), "none.json"))
	if status != exitFailed || lines[0] != "0 passed, 1 failed, 0 skipped" {
		t.Errorf("no file: status %d, %v", status, lines)
	}
}

// The help names every row and every check that a verdict may have.
func TestPolicyHelpIsWhole(t *testing.T) {
	source, err := os.ReadFile("../../mimi/policy/refusal.go")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if status := run([]string{"policy", "--help"}, nil, &text, &text); status != exitOK {
		t.Fatalf("status %d", status)
	}
	names := regexp.MustCompile(`(Row|Check) = "([^"]+)"`).FindAllSubmatch(source, -1)
	if len(names) < 50 {
		t.Fatalf("%d rows and checks were found", len(names))
	}
	for _, m := range names {
		if !regexp.MustCompile(`(?m)^(  |.{46})` + string(m[2]) + ` `).Match(text.Bytes()) {
			t.Errorf("%s %q is not in the help", m[1], m[2])
		}
	}
}

// One case is read in every form that means the same.
func TestPolicyForms(t *testing.T) {
	room := func(roles, more string) string {
		return `"room":{"uri":"mimi://a.example/r/x","roles":` + roles + more + `,"participants":[{"user":"mimi://a.example/u/ann","role":2,"clients":["mimi://a.example/d/ann/1"]}]}`
	}
	pairs := `[{"role_index":0,"role_name":"none"},{"role_index":2,"role_name":"user","role_capabilities":["canAddParticipant"],"authorized_role_changes":[[0,[2]]]}]`
	structs := `[{"role_index":0,"role_name":"none"},{"role_index":2,"role_name":"user","role_capabilities":[0],"authorized_role_changes":[{"from_role_index":0,"target_role_indexes":[2]}]}]`
	act := `"actions":[{"kind":"bundle","by":"mimi://a.example/d/ann/1","proposals":[{"type":"participants","add":[{"user":"mimi://b.example/u/bob","role":2}]}],"verdict":"valid","rows":[1]},
		{"kind":"message","by":"mimi://a.example/u/ann","expect":"deny","row":13,"check":"capability"}]`
	for name, text := range map[string]string{
		"a case alone":     `{"id":7,` + room(pairs, "") + `,` + act + `}`,
		"a list":           `[{"id":7,` + room(structs, "") + `,` + act + `}]`,
		"a file":           `{"cases":[{"id":7,` + room(structs, `,"components":{"message_expiration_policy":"02"}`) + `,` + act + `}]}`,
		"components":       `{"id":7,` + room(pairs, `,"components":{"0x0030":"0x02"}`) + `,` + act + `}`,
		"unknown members":  `{"id":7,"comment":{},` + room(pairs, `,"note":[1]`) + `,` + act + `}`,
		"lines of objects": `{"id":7,` + room(pairs, "") + `,` + act + `}` + "\n",
	} {
		status, lines := policyLines(t, "-v", writePolicy(t, text))
		want := []string{
			"7#0 accept/1",
			"7#1 refuse/13/capability (policy: refused by row 13, check capability (canSendMessage): mimi://a.example/u/ann acts)",
			"1 passed, 0 failed, 0 skipped",
		}
		if status != exitOK || !slices.Equal(lines, want) {
			t.Errorf("%s: status %d\n%s", name, status, strings.Join(lines, "\n"))
		}
	}
	one := `{"id":7,` + room(pairs, "") + `,` + act + `}`
	if _, lines := policyLines(t, writePolicy(t, one+"\n"+one+"\n")); lines[len(lines)-1] != "2 passed, 0 failed, 0 skipped" {
		t.Errorf("two lines: %v", lines)
	}
	for name, text := range map[string]string{"no case": `{"x":1}`, "an empty list": `[]`, "half a second": one + `{`, "text": `"x"`} {
		if status, lines := policyLines(t, writePolicy(t, text)); status != exitFailed || lines[len(lines)-1] != "0 passed, 1 failed, 0 skipped" {
			t.Errorf("%s: status %d, %v", name, status, lines)
		}
	}
}
