package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNodeID(t *testing.T) {
	c := &Config{dir: t.TempDir(), State: "state"}
	first, err := nodeID(c)
	if err != nil || first == "" {
		t.Fatalf("%q %v", first, err)
	}
	if again, err := nodeID(c); err != nil || again != first {
		t.Errorf("%q became %q, %v", first, again, err)
	}
	if err := os.WriteFile(filepath.Join(c.stateDir(), "node-id"), []byte("two words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := nodeID(c); err == nil {
		t.Errorf("%q is taken for a name", id)
	}
}
