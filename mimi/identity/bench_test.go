package identity_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"testing"

	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

// BenchmarkEvaluate judges a credential of each type for the first time and
// again, beside the verification of one P-256 signature: an x509 credential has
// one (of the anchor), a token two (of the issuer and of the holder).
func BenchmarkEvaluate(b *testing.B) {
	w, key := newWorld(b, nil), newKey(b)
	digest := sha256.Sum256([]byte("x"))
	sig, err := ecdsa.SignASN1(nil, key, digest[:])
	must(b, err)
	b.Run("primitive", func(b *testing.B) {
		for b.Loop() {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], sig) {
				b.Fatal("bad signature")
			}
		}
	})
	for name, c := range map[string]mls.Credential{
		"x509": w.ca.Client(b, key.Public(), client, user), "sd_jwt": w.tokens.SDJWT(b, key, hub, client, user), "sd_cwt": w.tokens.SDCWT(b, key, hub, client, user),
	} {
		q := question(b, key, c)
		q.Room = uri(b, roomName)
		evaluate := func(b *testing.B, e *identity.Evaluator) {
			if _, err := e.Evaluate(b.Context(), q); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(name+"/first", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				evaluate(b, identity.NewEvaluator(w.list, identity.EvaluatorOptions{Now: w.ck.now}))
			}
		})
		b.Run(name+"/again", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				evaluate(b, w.eval)
			}
		})
	}
}
