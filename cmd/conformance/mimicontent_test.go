package main

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMIMIContent(t *testing.T) {
	data, err := os.ReadFile("../../mimi/content/testdata/draft-08/examples.txt")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(strings.SplitN(string(data), "\n", 2)[0])
	encoded, err := hex.DecodeString(f[3])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "original.cbor"), filepath.Join(dir, "cut.cbor")
	for name, b := range map[string][]byte{good: encoded, bad: encoded[:9]} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const room = "mimi://example.com/r/engineering_team"
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--reencode", good}, exitOK, good + " ok\n"},
		{[]string{"--sender", f[1], "--room", room, good}, exitOK, good + " ok id=" + f[2] + "\n"},
		{[]string{good, bad}, exitFailed, good + " ok\n" + bad + " refused (malformed)\n"},
		{[]string{filepath.Join(dir, "absent")}, exitFailed, filepath.Join(dir, "absent") + " refused (unreadable)\n"},
		{nil, exitUsage, ""},
		{[]string{"--sender", f[1], good}, exitUsage, ""}, // a message ID is over both
		{[]string{"--no-such-flag"}, exitUsage, ""},
	} {
		var stdout, stderr bytes.Buffer
		if got := run(append([]string{"mimi-content"}, c.args...), nil, &stdout, &stderr); got != c.status {
			t.Errorf("%v: exit status %d, want %d: %s", c.args, got, c.status, &stderr)
		}
		if stdout.String() != c.want {
			t.Errorf("%v printed %q, want %q", c.args, &stdout, c.want)
		}
	}
}
