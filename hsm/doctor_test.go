package hsm_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// wants looks for a finding with a text and a next step.
func wants(t *testing.T, found []hsm.Finding, level hsm.Level, text, step string) {
	t.Helper()
	for _, f := range found {
		if f.Level == level && strings.Contains(f.Text, text) && strings.Contains(f.NextStep, step) {
			return
		}
	}
	t.Errorf("no %s with %q and the step %q in %+v", level, text, step, found)
}

func TestDiagnose(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	c := m.Config(hsmtest.Workers(1))
	u := m.ParsedURI(t)
	tok := m.Open(t, hsmtest.Workers(1))
	for range 2 {
		if _, err := tok.Generate(t.Context(), hsm.KeySpec{Type: hsm.P256, Use: hsm.UseSign, Label: "one"}); err != nil {
			t.Fatal(err)
		}
	}
	found := hsm.Diagnose(t.Context(), c, u, nil)
	wants(t, found, hsm.LevelOK, "logged in; 2 keys", "")
	wants(t, found, hsm.LevelNote, "files", "hardware")
	for _, f := range found {
		if f.Level == hsm.LevelProblem || f.Level == hsm.LevelWarning {
			t.Errorf("on a good token: %+v", f)
		}
		if f.Level != hsm.LevelOK && f.NextStep == "" {
			t.Errorf("no next step: %+v", f)
		}
	}
	wrong := hsm.PINValue(hsm.NewPIN([]byte("77777777")))
	wants(t, hsm.Diagnose(t.Context(), c, u, wrong), hsm.LevelProblem, "CKR_PIN_INCORRECT", "PIN source")
	wants(t, hsm.Diagnose(t.Context(), c, u, nil), hsm.LevelWarning, "a wrong PIN was given", "which program")
	wants(t, hsm.Diagnose(t.Context(), c, hsm.URI{Token: "none"}, nil), hsm.LevelProblem, "token not found", "token list")
	open := hsm.PINFile(filepath.Join(t.TempDir(), "none"))
	wants(t, hsm.Diagnose(t.Context(), c, u, open), hsm.LevelProblem, "no such file", "chmod 600")
	c.Path = filepath.Join(t.TempDir(), "none.so")
	wants(t, hsm.Diagnose(t.Context(), c, u, nil), hsm.LevelProblem, "no such file", "list-modules")
}
