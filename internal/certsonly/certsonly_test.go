package certsonly_test

import (
	"bytes"
	"testing"

	"github.com/privyseal/privyseal/internal/certsonly"
)

// FuzzParse: what is taken is the same when it is written again, and no proper
// prefix of it is taken.
func FuzzParse(f *testing.F) {
	for _, all := range [][][]byte{{{0x30, 0}}, {{0x30, 1, 0}, {0x30, 0}}, {}} {
		der, err := certsonly.Encode(all)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := certsonly.Parse(b)
		if err != nil {
			return
		}
		if der, err := certsonly.Encode(all); err != nil || !bytes.Equal(der, b) {
			t.Errorf("%x is written as %x, %v", b, der, err)
		}
		for n := range b {
			if _, err := certsonly.Parse(b[:n]); err == nil {
				t.Errorf("%d octets of %x are taken", n, b)
			}
		}
	})
}
