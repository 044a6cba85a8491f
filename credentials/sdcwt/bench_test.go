package sdcwt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
)

// A sample of work: what we do, and the primitives in it alone.
type sample struct{ ours, primitives func() }

// ratio runs both sides in alternating rounds and reports the median of the
// ratios of their times, so that a machine that slows down slows both.
func (s sample) ratio(b *testing.B) {
	const batch = 20
	var ratios []float64
	var ours time.Duration
	rounds := 0
	for b.Loop() {
		var took [2]time.Duration
		for i, f := range []func(){s.ours, s.primitives} {
			start := time.Now()
			for range batch {
				f()
			}
			took[i] = time.Since(start)
		}
		ours += took[0]
		rounds++
		ratios = append(ratios, float64(took[0])/float64(took[1]))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "x-primitives")
	b.ReportMetric(float64(ours.Microseconds())/float64(rounds*batch), "us/token")
	b.ReportMetric(0, "ns/op")
}

type benchKeys struct{ issuer, holder *ecdsa.PrivateKey }

func newBenchKeys(b *testing.B) benchKeys {
	b.Helper()
	var k benchKeys
	var err error
	for _, to := range []**ecdsa.PrivateKey{&k.issuer, &k.holder} {
		if *to, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
	return k
}

func (k benchKeys) claims(b *testing.B, redacted int) []byte {
	claims := baseClaims(b)
	claims[8] = cnfOf(b, k.holder.Public())
	for i := range redacted {
		claims[sdcwt.Redact(1000+i)] = fmt.Sprintf("value %d of a claim", i)
	}
	out, err := sdcwt.EncodeClaims(claims)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

var benchSizes = []int{0, 10, 100, 300}

// BenchmarkIssue compares issuing with one signature over as many octets, one
// draw of the salts and one hash for each redacted claim.
func BenchmarkIssue(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := newBenchKeys(b)
			claims := k.claims(b, n)
			issuer := &sdcwt.Issuer{Key: k.issuer, MaxDisclosures: 1000}
			token, err := issuer.IssueCBOR(context.Background(), claims)
			if err != nil {
				b.Fatal(err)
			}
			signed, entry, salts := make([]byte, len(token)-50*n), make([]byte, 45), make([]byte, 16*n)
			sample{func() {
				if _, err := issuer.IssueCBOR(context.Background(), claims); err != nil {
					b.Fatal(err)
				}
			}, func() {
				rand.Read(salts)
				for range n {
					sha256.Sum256(entry)
				}
				if _, err := credentials.ECDSAP256.Sign(rand.Reader, k.issuer, signed); err != nil {
					b.Fatal(err)
				}
			}}.ratio(b)
		})
	}
}

// BenchmarkVerify compares verifying a KBT that discloses everything with two
// verifications of signatures and one hash for each disclosure.
func BenchmarkVerify(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := newBenchKeys(b)
			ctx := context.Background()
			token, err := (&sdcwt.Issuer{Key: k.issuer, MaxDisclosures: 1000}).IssueCBOR(ctx, k.claims(b, n))
			if err != nil {
				b.Fatal(err)
			}
			c, err := sdcwt.ParseCredential(token)
			if err != nil {
				b.Fatal(err)
			}
			kbt, err := c.Present(ctx, k.holder, sdcwt.Presentation{Audience: exampleAud, IssuedAt: exampleNow, Disclose: sdcwt.All})
			if err != nil {
				b.Fatal(err)
			}
			v := exampleVerifier()
			v.Issuers = &sdcwt.StaticIssuer{Issuer: exampleIssuer, Keys: []sdcwt.StaticKey{{Public: k.issuer.Public()}}}
			v.MaxDisclosures = 1000
			inner, outer, entry := make([]byte, len(token)-50*n), make([]byte, len(kbt)), make([]byte, 45)
			sigs := [2][]byte{}
			for i, x := range []struct {
				key *ecdsa.PrivateKey
				msg []byte
			}{{k.issuer, inner}, {k.holder, outer}} {
				if sigs[i], err = credentials.ECDSAP256.Sign(rand.Reader, x.key, x.msg); err != nil {
					b.Fatal(err)
				}
			}
			sample{func() {
				if _, err := v.Verify(ctx, kbt); err != nil {
					b.Fatal(err)
				}
			}, func() {
				for range n {
					sha256.Sum256(entry)
				}
				if !credentials.ECDSAP256.Verify(k.issuer.Public(), inner, sigs[0]) || !credentials.ECDSAP256.Verify(k.holder.Public(), outer, sigs[1]) {
					b.Fatal("a signature does not verify")
				}
			}}.ratio(b)
		})
	}
}
