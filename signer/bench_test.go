package signer_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
)

// signForms returns three ways to sign message: with the bare software key,
// through the Keyring without the check before release, and with it.
func signForms(b *testing.B, a signer.Algorithm, message []byte) map[string]func() error {
	f := newBench(b)
	f.create("leaf", signer.PurposeMLSLeaf, a)
	verified := f.signer("leaf", signer.PurposeMLSLeaf)
	if _, err := f.ring.Create(b.Context(), signer.NewKey{ID: "fast", Purpose: signer.PurposeMLSLeaf, Algorithm: a, Device: "soft", Unverified: true}); err != nil {
		b.Fatal(err)
	}
	released := f.signer("fast", signer.PurposeMLSLeaf)
	return map[string]func() error{
		"bare":           bareSigner(b, f, verified)(message),
		"keyring":        func() error { _, err := released.SignMessage(nil, message, nil); return err },
		"keyring+verify": func() error { _, err := verified.SignMessage(nil, message, nil); return err },
	}
}

var forms = []string{"bare", "keyring", "keyring+verify"}

// BenchmarkSignForms signs in the three ways in turn, so that they meet the
// same noise, and reports the median of each and what the Keyring and the
// check before release add to a signature.
func BenchmarkSignForms(b *testing.B) {
	for _, a := range []signer.Algorithm{signer.P256, signer.P384, signer.Ed25519} {
		b.Run(string(a), func(b *testing.B) {
			sign := signForms(b, a, samples(b)[signer.ShapeMLS])
			took := make(map[string][]time.Duration)
			for b.Loop() {
				for _, form := range forms {
					begin := time.Now()
					if err := sign[form](); err != nil {
						b.Fatal(err)
					}
					took[form] = append(took[form], time.Since(begin))
				}
			}
			median := func(form string) float64 {
				slices.Sort(took[form])
				return float64(took[form][len(took[form])/2].Nanoseconds()) / 1e3
			}
			b.ReportMetric(median("bare"), "bare-µs")
			b.ReportMetric(median("keyring")-median("bare"), "keyring-adds-µs")
			b.ReportMetric(median("keyring+verify")-median("keyring"), "verify-adds-µs")
			b.ReportMetric(median("keyring+verify")/median("bare"), "x-bare")
			b.ReportMetric(0, "ns/op") // of all three together: means nothing
		})
	}
}

// BenchmarkSignAllocs counts the allocations of each form.
func BenchmarkSignAllocs(b *testing.B) {
	sign := signForms(b, signer.P256, samples(b)[signer.ShapeMLS])
	for _, form := range forms {
		b.Run(form, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := sign[form](); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSignParallel signs through the Keyring from all cores at once.
func BenchmarkSignParallel(b *testing.B) {
	sign := signForms(b, signer.P256, samples(b)[signer.ShapeMLS])
	for _, form := range forms {
		b.Run(form, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := sign[form](); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// bareSigner signs with the device key of s, without Keyring and store.
func bareSigner(b *testing.B, f *bench, s *signer.Signer) func([]byte) func() error {
	key, err := f.device.Open(b.Context(), s.Key().Active().URI, s.Key().Algorithm)
	if err != nil {
		b.Fatal(err)
	}
	sk := key.(crypto.Signer)
	return func(message []byte) func() error {
		return func() error {
			_, err := crypto.SignMessage(sk, rand.Reader, message, s.Scheme().Hash)
			return err
		}
	}
}

// BenchmarkParseRequest is the cost of classifying, by shape.
func BenchmarkParseRequest(b *testing.B) {
	for shape, octets := range samples(b) {
		b.Run(string(shape), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(octets)))
			for b.Loop() {
				if _, err := signer.ParseRequest(octets); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCreate is the cost of the records of a key: two durable steps.
func BenchmarkCreate(b *testing.B) {
	f := newBench(b)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		id := signer.KeyID("k-" + signer.NewObjectID().String())
		if _, err := f.ring.Create(ctx, signer.NewKey{ID: id, Purpose: signer.PurposeTLS, Device: "soft"}); err != nil {
			b.Fatal(err)
		}
	}
}
