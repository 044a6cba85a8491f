package sdcwt_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A sample of work: what we do, and the primitives in it alone.
type sample struct{ ours, primitives func() }

// ratio runs both sides in alternating rounds and reports the median of the
// ratios of their times, so that a machine that slows down slows both, and the
// ratio of all the processor time, that of the collector included.
func (s sample) ratio(b *testing.B) {
	const batch = 20
	b.ReportAllocs()
	var ratios []float64
	var ours time.Duration
	var cpu [2]time.Duration
	rounds := 0
	for b.Loop() {
		var took [2]time.Duration
		for i, f := range []func(){s.ours, s.primitives} {
			start, before := time.Now(), cpuTime(b)
			for range batch {
				f()
			}
			took[i] = time.Since(start)
			cpu[i] += cpuTime(b) - before
		}
		ours += took[0]
		rounds++
		ratios = append(ratios, float64(took[0])/float64(took[1]))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "x-primitives")
	b.ReportMetric(float64(cpu[0])/float64(cpu[1]), "x-cpu")
	b.ReportMetric(float64(ours.Microseconds())/float64(rounds*batch), "us/token")
	b.ReportMetric(0, "ns/op")
}

// cpuTime returns the processor time of this process, which other load does not
// change much.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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

// A primitives is what issuing a token cannot avoid: to draw the salts, to hash
// each disclosure and to sign the Sig_structure.
type primitives struct {
	items  [][]byte
	signed []byte
	salts  []byte
}

func primitivesOf(b *testing.B, token []byte) primitives {
	b.Helper()
	s, err := cose.DecodeSign1(token, dcbor.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	var p primitives
	members, _ := s.Unprotected.GetInt(17).Elements()
	for _, m := range members {
		p.items = append(p.items, m.Raw())
	}
	p.salts = make([]byte, 16*len(members))
	p.signed = dcbor.Encode(dcbor.NewArray(dcbor.NewText("Signature1"),
		dcbor.NewBytes(s.ProtectedOctets), dcbor.NewBytes(nil), dcbor.NewBytes(s.Payload)))
	return p
}

func (p primitives) hash() {
	for _, item := range p.items {
		sha256.Sum256(item)
	}
}

// BenchmarkIssue compares issuing with its primitives.
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
			p := primitivesOf(b, token)
			sample{func() {
				if _, err := issuer.IssueCBOR(context.Background(), claims); err != nil {
					b.Fatal(err)
				}
			}, func() {
				rand.Read(p.salts)
				p.hash()
				digest := sha256.Sum256(p.signed)
				if _, err := k.issuer.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
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
			p, outer := primitivesOf(b, token), make([]byte, len(kbt))
			sigs := [2][]byte{}
			for i, x := range []struct {
				key *ecdsa.PrivateKey
				msg []byte
			}{{k.issuer, p.signed}, {k.holder, outer}} {
				if sigs[i], err = credentials.ECDSAP256.Sign(rand.Reader, x.key, x.msg); err != nil {
					b.Fatal(err)
				}
			}
			sample{func() {
				if _, err := v.Verify(ctx, kbt); err != nil {
					b.Fatal(err)
				}
			}, func() {
				p.hash()
				if !credentials.ECDSAP256.Verify(k.issuer.Public(), p.signed, sigs[0]) || !credentials.ECDSAP256.Verify(k.holder.Public(), outer, sigs[1]) {
					b.Fatal("a signature does not verify")
				}
			}}.ratio(b)
		})
	}
}
