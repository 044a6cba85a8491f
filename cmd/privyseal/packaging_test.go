package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// maxExposure is the most that systemd may find exposed, of 10.
const maxExposure = 2.0

// TestUnit has systemd's own tools read the unit, with a binary in its place,
// and judge its sandbox, with and without a TPM. make unit runs it.
func TestUnit(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing; run: apt-get install systemd")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "packaging", "privyseal.service"))
	if err != nil {
		t.Fatal(err)
	}
	tpm, err := os.ReadFile(filepath.Join("..", "..", "packaging", "privyseal.service.d", "tpm.conf"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), "/usr/bin/privyseal ", self+" ")
	for name, unit := range map[string]string{"alone": changed, "with a TPM": changed + "\n" + string(tpm)} {
		t.Run(name, func(t *testing.T) { judgeUnit(t, tool, unit) })
	}
}

func judgeUnit(t *testing.T, tool, text string) {
	unit := filepath.Join(t.TempDir(), "privyseal.service")
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), tool, "verify", "--man=no", unit).CombinedOutput(); err != nil || strings.Contains(string(out), "privyseal.service:") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), tool, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no verdict in\n%s", out)
	}
	if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > maxExposure {
		t.Errorf("exposure %s, at most %v\n%s", m[1], maxExposure, out)
	}
}

// TestErrorTables holds the table of help to both drivers: each row says what
// to do, and codes that must never be tried again are the operator's.
func TestErrorTables(t *testing.T) {
	remedies := make(map[string]string)
	for _, r := range errorRows() {
		if r.code == "" || r.class == "" || r.remedy == "" {
			t.Errorf("%+v", r)
		}
		if r.where == "PKCS#11" {
			remedies[r.code] = r.remedy
		}
	}
	for code, want := range map[string]string{
		"CKR_PIN_INCORRECT": "operator", "CKR_PIN_LOCKED": "operator", "CKR_DEVICE_REMOVED": "retry", "CKR_SESSION_HANDLE_INVALID": "retry",
		"CKR_USER_NOT_LOGGED_IN": "login", "CKR_MECHANISM_INVALID": "request", "CKR_FUNCTION_FAILED": "retry",
	} {
		if remedies[code] != want {
			t.Errorf("%s: %q, want %q", code, remedies[code], want)
		}
	}
	if len(remedies) < 30 {
		t.Errorf("only %d codes", len(remedies))
	}
}
