package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/privyseal/privyseal/internal/durable"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	for _, text := range []string{"old", "new"} {
		if err := durable.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("file holds %q (%v), want %q", got, err, text)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%d names in the folder (%v), want 1", len(names), err)
	}
}

// What cannot be finished leaves what was there.
func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken") // a folder that is not empty cannot be replaced by a file
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(taken, []byte("new"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if err := durable.WriteFile(filepath.Join(dir, "absent", "x"), nil, 0o600); err == nil {
		t.Error("a file was written into a folder that is not there")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%d names are left (%v), want 1", len(names), err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	f, err := durable.Create(dir, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one ", "two"} {
		if _, err := f.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "name")
	if err := f.Commit(path); err != nil {
		t.Fatal(err)
	}
	f.Abort()
	if b, err := os.ReadFile(path); err != nil || string(b) != "one two" {
		t.Errorf("file holds %q (%v)", b, err)
	}
	aborted, err := durable.Create(dir, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	aborted.Abort()
	if _, err := durable.Create(dir, 0o600); err != nil { // as a crash leaves it
		t.Fatal(err)
	}
	if err := durable.RemoveUnfinished(dir); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%d names in the folder (%v), want 1", len(names), err)
	}
}
