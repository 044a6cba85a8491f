package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// A CWT is octets: one that ends in what would be white space keeps its end. A
// JWT loses the line feed of an editor.
func TestStatusListFile(t *testing.T) {
	cwt := []byte{0xd2, 0x84, 0x41, 0x20, '\n'}
	for name, c := range map[string]struct{ file, want []byte }{
		"CWT": {cwt, cwt},
		"JWT": {[]byte(" eyJhbGciOiJFUzI1NiJ9.e30.AA\n"), []byte("eyJhbGciOiJFUzI1NiJ9.e30.AA")},
	} {
		path := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		s := statusOptions{list: path}
		if err := s.read(new(verifyOptions)); err != nil || !bytes.Equal(s.token, c.want) {
			t.Errorf("%s: %q, %v, want %q", name, s.token, err, c.want)
		}
	}
}
