package signer_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/signer"
)

// TestKeysPage walks through the keys of a prefix: all of them, once, in the
// order of their octets, and none of another.
func TestKeysPage(t *testing.T) {
	s, err := signer.OpenKeyStore(t.Context(), storeSource(t, t.TempDir()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var want []signer.KeyID
	for _, name := range []string{"a", "a-b", "a_b", "ab", "b", "z9", "zz"} {
		want = append(want, signer.KeyID("acme."+name))
	}
	for i, id := range append([]signer.KeyID{"acme", "acme-2.a", "acme2.a", "ac", "zz.a"}, want...) {
		key := &signer.Key{ID: id, Purpose: signer.PurposeMLSLeaf, Algorithm: signer.P256}
		if err := s.Reserve(t.Context(), key, fmt.Sprintf("dev-%d", i), signer.NewObjectID()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for most := 1; most <= len(want)+1; most++ {
		var got []signer.KeyID
		for after, more := signer.KeyID(""), true; more; {
			page, err := s.KeysPage(t.Context(), "acme.", after, most)
			if err != nil || len(page) > most {
				t.Fatalf("%d keys of %d, %v", len(page), most, err)
			}
			for _, k := range page {
				got, after = append(got, k.ID), k.ID
			}
			more = len(page) == most
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", most, got)
		}
	}
}
