package translog_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/translog"
)

// FuzzVerifyProof looks for text that is a proof and is not the proof that was
// made.
func FuzzVerifyProof(f *testing.F) {
	h := newHouse(f, signer.P256, filepath.Join(f.TempDir(), "j.db"))
	sigs := h.sign("a", 5)
	h.publish()
	e := must[*journal.Entry](f)(h.journal.Find(f.Context(), sigs[3]))
	proof := must[[]byte](f)(translog.Prove(f.Context(), h.src(), h.keys, e))
	f.Add(proof)
	f.Add(proof[:len(proof)/2])
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := translog.VerifyProof(text, h.keys)
		if err == nil && p.Entry.Commitment() != e.Commitment() {
			t.Errorf("a proof was made up: %q", text)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	key := must[*ecdsa.PrivateKey](f)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	vkey := must[string](f)(translog.VerifierKey(origin, key.Public()))
	keys := must[*translog.Keys](f)(translog.ParseKeys(vkey))
	text := origin + "\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
	s := must[note.Signer](f)(translog.NewSigner(origin, key.Public(), func(text []byte) ([]byte, error) {
		d := sha256.Sum256(text)
		return ecdsa.SignASN1(rand.Reader, key, d[:])
	}))
	f.Add(must[[]byte](f)(note.Sign(&note.Note{Text: text}, s)))
	f.Add(must[[]byte](f)(note.Sign(&note.Note{Text: text + "extension\n"}, s)))
	f.Add([]byte(text))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := keys.Open(raw)
		if err == nil && (c.Origin != origin || c.Size != 0) {
			t.Errorf("%q is a checkpoint of %s with %d entries", raw, c.Origin, c.Size)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	for _, seed := range []string{"", "# none\n", "a+00000000+AA==\n", "log+b81ef6ef+AlkwEw=="} {
		f.Add(seed)
	}
	key := must[*ecdsa.PrivateKey](f)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	f.Add(must[string](f)(translog.VerifierKey(origin, key.Public())))
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := translog.ParseKeys(text); err == nil && k.Origin == "" {
			t.Errorf("%q gives keys of no log", text)
		}
	})
}

func TestParseKeysRefuses(t *testing.T) {
	a := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	one := must[string](t)(translog.VerifierKey("one.example", a.Public()))
	two := must[string](t)(translog.VerifierKey("two.example", a.Public()))
	for name, text := range map[string]string{"nothing": "\n# x\n", "two logs": one + "\n" + two, "half": one[:len(one)/2]} {
		if _, err := translog.ParseKeys(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := translog.ParseKeys("# old and new\n" + one + "\n\n" + one + "\n"); err != nil {
		t.Error(err)
	}
	p384 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	if _, err := translog.VerifierKey("one.example", p384.Public()); err == nil {
		t.Error("P-384 is accepted, which no verifier reads")
	}
}
