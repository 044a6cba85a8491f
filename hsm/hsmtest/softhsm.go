package hsmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The PINs of throwaway tokens. They protect nothing.
const (
	UserPIN = "24681357"
	soPIN   = "13572468"
)

// SoftHSM returns SoftHSM 2 with its own configuration and one token.
//
// SoftHSM reads SOFTHSM2_CONF from the environment of the process when it is
// initialised, so a process has one configuration at a time: load it in a
// worker, or call Setenv first and have no second one at the same time.
func SoftHSM(t testing.TB) *Module {
	t.Helper()
	m := newModule(t, "softhsm", needFile(t, "softhsm/libsofthsm2.so"), "privyseal-test", UserPIN)
	tokens := filepath.Join(m.Dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := m.WriteFile(t, "softhsm2.conf", fmt.Sprintf(
		"directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n"+
			"slots.removable = false\nslots.mechanisms = ALL\nlibrary.reset_on_fork = false\n", tokens))
	m.Env = []string{"SOFTHSM2_CONF=" + conf}
	m.AddToken(t, m.Label)
	away := filepath.Join(m.Dir, "away")
	m.Remove = func(t testing.TB) { t.Helper(); rename(t, tokens, away); mkdir(t, tokens) }
	m.Restore = func(t testing.TB) { t.Helper(); removeAll(t, tokens); rename(t, away, tokens) }
	m.Reinit = func(t testing.TB) {
		t.Helper()
		m.run(t, "softhsm2-util", "--init-token", "--token", m.Label, "--label", m.Label, "--so-pin", soPIN, "--pin", UserPIN)
	}
	return m
}

// AddToken makes a further token beside the first, with the same PIN. Only
// SoftHSM has room for one.
func (m *Module) AddToken(t testing.TB, label string) {
	t.Helper()
	m.run(t, "softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", soPIN, "--pin", UserPIN)
}

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func removeAll(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func chmod(t testing.TB, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
