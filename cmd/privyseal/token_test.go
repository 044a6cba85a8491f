package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/signer"
)

// call runs the program in this process.
func call(t *testing.T, config string, args ...string) (status int, out, err string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status = run(t.Context(), append([]string{"--config", config}, args...), streams{strings.NewReader(""), &stdout, &stderr})
	return status, stdout.String(), stderr.String()
}

// TestTrust has a device become suspect: doctor says so and names the command
// that ends it, which wants a reason and keeps it.
func TestTrust(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home", configName)
	config, err := initState(t.Context(), path, initOptions{})
	if err != nil {
		t.Fatal(err)
	}
	store, err := signer.OpenKeyStore(t.Context(), filepath.Join(config.stateDir(), storeName), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.MarkSuspect(t.Context(), "token", "leaf", 1, "a signature did not verify"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"token", "doctor"}, exitProblem, "privyseal token trust token --reason"},
		{[]string{"token", "trust", "token"}, exitLocal, "--reason"},
		{[]string{"token", "trust", "other", "--reason", "x"}, exitLocal, "is not suspect"},
		{[]string{"token", "trust", "token", "--reason", "new firmware"}, exitOK, "may sign again"},
		{[]string{"token", "trust", "token", "--reason", "twice"}, exitLocal, "is not suspect"},
	} {
		status, out, stderr := call(t, path, c.args...)
		if status != c.status || !strings.Contains(out+stderr, c.want) {
			t.Errorf("%q: status %d, want %d with %q:\n%s%s", c.args, status, c.status, c.want, out, stderr)
		}
	}
	history, err := store.History(t.Context(), "leaf")
	if err != nil || len(history) != 2 || !strings.Contains(history[1].Detail, "new firmware") {
		t.Errorf("history %+v, %v", history, err)
	}
}

// TestStreams: results on standard output alone, everything else on standard
// error alone.
func TestStreams(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.json")
	for _, args := range [][]string{{"key", "list"}, {"nonsense"}, {"key", "show"}, {"--json", "key", "list"}, {"key", "create", "x", "--nonsense"}} {
		if status, out, stderr := call(t, none, args...); status != exitLocal || out != "" || stderr == "" {
			t.Errorf("%q: status %d, out %q, err %q", args, status, out, stderr)
		}
	}
	for _, args := range [][]string{{"version"}, {"--json", "version"}, {"help", "exit-codes"}, {"help", "config"}, {"--help"}, {"key"}} {
		if status, out, stderr := call(t, none, args...); status != exitOK || out == "" || stderr != "" {
			t.Errorf("%q: status %d, out %q, err %q", args, status, out, stderr)
		}
	}
}
