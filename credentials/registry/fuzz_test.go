package registry_test

import (
	"testing"

	"github.com/privyseal/privyseal/credentials/registry"
)

// FuzzParse reads identifiers and types, which come from command lines and from
// URLs: what is read is written as it was.
func FuzzParse(f *testing.F) {
	for _, s := range []string{string(registry.NewID()), "x509", "sd-jwt", "", "0", "00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := registry.ParseID(s); err == nil && (string(id) != s || len(id.Octets()) != 16) {
			t.Fatalf("%q was read as %q of %d octets", s, id, len(id.Octets()))
		}
		if typ, err := registry.ParseType(s); err == nil && string(typ) != s {
			t.Fatalf("%q was read as %q", s, typ)
		}
	})
}
