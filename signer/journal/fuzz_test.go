package journal_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
)

// FuzzParseEntry reads entries from anywhere: what is accepted keeps its
// octets, and its parts say what the octets say.
func FuzzParseEntry(f *testing.F) {
	j := open(f, filepath.Join(f.TempDir(), "j.db"))
	for name, r := range map[string]*signer.Request{
		"commit": commit(f, "g", 1, "a"), "list": statusJWT(f, "https://a/1", 5, "L"), "raw": rawRequest(f, "x"),
	} {
		if err := sign(f.Context(), j, intent(r), name); err != nil {
			f.Fatal(err)
		}
	}
	for e, err := range j.Entries(f.Context(), 0) {
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Octets)
		f.Add(bytes.Replace(e.Octets, []byte(`"key":`), []byte(`"Key":`), 1))
		f.Add(append(e.Octets[:len(e.Octets):len(e.Octets)], ' '))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		e, err := journal.ParseEntry(octets)
		if err != nil {
			return
		}
		if !bytes.Equal(e.Octets, octets) || e.Commitment() != journal.Commitment(octets) {
			t.Errorf("%q changed", octets)
		}
		if bytes.Contains(octets, []byte(`"Key":`)) && e.Intent.Key != "" && len(e.Intent.Summary) == 0 {
			t.Errorf("%q has two spellings", octets)
		}
	})
}

// FuzzClaims gives the guard octets of every shape.
func FuzzClaims(f *testing.F) {
	for _, r := range []*signer.Request{
		commit(f, "g", 1, "a"), message(f, "g", 1, "a"), statusJWT(f, "https://a/1", 5, "L"),
		statusCWT(f, "https://a/1", 5, "L"), checkpoint(f, "log.example", 5, "r"),
	} {
		f.Add(r.Octets())
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		r, err := signer.ParseRequest(octets)
		if err != nil {
			return
		}
		claims, err := journal.Claims("t", "k", r)
		if err != nil {
			return
		}
		for _, c := range claims {
			if c.Kind == "" || c.Scope == [32]byte{} || c.Content != nil && len(c.Content) != 32 {
				t.Errorf("claim %+v", c)
			}
		}
	})
}
