package journal

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/privyseal/privyseal/signer"
)

// TestStoredForms: what databases have of old releases was digested in these
// forms.
func TestStoredForms(t *testing.T) {
	if got, want := scope(KindCommit, "k\x00\"é", ""), sha256.Sum256([]byte("10:mls-commit5:k\x00\"é0:")); got != want {
		t.Errorf("scope %x, want %x", got, want)
	}
	if got, want := digest([]byte("ab"), nil), sha256.Sum256([]byte("2:ab0:")); string(got) != string(want[:]) {
		t.Errorf("digest %x, want %x", got, want)
	}
	in := &Intent{Key: "k\"\x01é\xff", Version: 12, Purpose: signer.PurposeMLSLeaf}
	d := sha256.Sum256([]byte("x"))
	if got, want := in.bind(d), sha256.Sum256(fmt.Appendf(nil, "%q %d %q %q %x", in.Key, in.Version, in.Purpose, OpSign, d)); got != want {
		t.Errorf("bound to %x, want %x", got, want)
	}
	if got, want := commitmentOf(7, []byte("{}"), []byte("[]")), Commitment(entryOctets(7, []byte("{}"), []byte("[]"))); got != want {
		t.Errorf("commitment %x, want %x", got, want)
	}
}
