package sdjwt_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// benchSizes are the numbers of redacted claims.
var benchSizes = []int{0, 10, 100, 300}

// A benchJob is a token with n redacted claims, all disclosed, and the
// primitives that making and checking it cannot avoid.
type benchJob struct {
	issuer    *sdjwt.Issuer
	req       sdjwt.Request
	verifier  *sdjwt.Verifier
	shown     string
	pub, own  crypto.PublicKey
	jwt, kb   string // signing inputs
	sigs      [2][]byte
	texts     [][]byte
	prefix    []byte
	signInput []byte
	salts     []byte
}

func newBenchJob(b *testing.B, n int) *benchJob {
	key, holder := ecKey(b, elliptic.P256()), ecKey(b, elliptic.P256())
	claims := []byte(`{"vct":"urn:example:person"`)
	j := &benchJob{issuer: issuerOf(key), pub: key.Public(), own: holder.Public()}
	for i := range n {
		claims = fmt.Appendf(claims, `,"claim_%d":"the value of claim %d"`, i, i)
		j.req.Redact = append(j.req.Redact, sdjwt.Path{fmt.Sprintf("claim_%d", i)})
	}
	j.req.Claims, j.req.Holder, j.req.IssuedAt, j.req.Expires = append(claims, '}'), holder.Public(), now, now.Add(time.Hour)
	p := boundPolicy(key.Public())
	p.Limits.Disclosures = 1 << 10
	j.issuer.Limits = p.Limits
	j.verifier = newVerifier(b, p)
	cred, err := sdjwt.OpenCredential(issue(b, j.issuer, j.req), p.Limits)
	if err != nil {
		b.Fatal(err)
	}
	shown, err := cred.Present(context.Background(), sdjwt.Presentation{DiscloseAll: true, Key: holder, Audience: audience, Nonce: nonce, IssuedAt: now})
	if err != nil {
		b.Fatal(err)
	}
	j.shown = shown.String()
	j.jwt, j.sigs[0] = splitJWT(b, shown.IssuerJWT())
	j.kb, j.sigs[1] = splitJWT(b, shown.KeyBindingJWT())
	for _, d := range shown.Disclosures() {
		j.texts = append(j.texts, []byte(d))
	}
	j.prefix = []byte(strings.TrimSuffix(j.shown, shown.KeyBindingJWT()))
	j.signInput, j.salts = []byte(j.jwt), make([]byte, 16*n)
	return j
}

func splitJWT(b *testing.B, jwt string) (input string, sig []byte) {
	i := strings.LastIndexByte(jwt, '.')
	var raw []byte
	var err error
	if raw, err = rawURL(jwt[i+1:]); err != nil {
		b.Fatal(err)
	}
	return jwt[:i], raw
}

// issuePrimitives draws the salts, and makes the hashes of the Disclosures and
// one signature.
func (j *benchJob) issuePrimitives(b *testing.B) {
	rand.Read(j.salts)
	for _, text := range j.texts {
		sum := sha256.Sum256(text)
		_ = sum
	}
	digest := sha256.Sum256(j.signInput)
	if _, err := j.issuer.Key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		b.Fatal(err)
	}
}

// verifyPrimitives checks two signatures and makes the hashes.
func (j *benchJob) verifyPrimitives(b *testing.B) {
	for _, text := range j.texts {
		sum := sha256.Sum256(text)
		_ = sum
	}
	sum := sha256.Sum256(j.prefix)
	_ = sum
	if !credentials.ECDSAP256.VerifyRaw(j.pub, []byte(j.jwt), j.sigs[0]) || !credentials.ECDSAP256.VerifyRaw(j.own, []byte(j.kb), j.sigs[1]) {
		b.Fatal("a primitive refused")
	}
}

func (j *benchJob) issue(b *testing.B) {
	if _, err := j.issuer.Issue(context.Background(), j.req); err != nil {
		b.Fatal(err)
	}
}

func (j *benchJob) verify(b *testing.B) {
	if _, err := j.verifier.Verify(context.Background(), j.shown, sdjwt.Expect{Nonce: nonce}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkIssue and BenchmarkVerify run the whole and its primitives by turns
// in one run, and report the median of the rounds' ratios as "x-primitives", and
// the ratio of all the processor time, that of the collector included, as "x-cpu".
func BenchmarkIssue(b *testing.B) {
	interleave(b, (*benchJob).issue, (*benchJob).issuePrimitives)
}

func BenchmarkVerify(b *testing.B) {
	interleave(b, (*benchJob).verify, (*benchJob).verifyPrimitives)
}

func interleave(b *testing.B, whole, primitives func(*benchJob, *testing.B)) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("redacted=%d", n), func(b *testing.B) {
			j := newBenchJob(b, n)
			var ratios, wholes []float64
			var cpu [2]time.Duration
			b.ReportAllocs()
			for b.Loop() {
				const batch = 8
				start, before := time.Now(), cpuTime(b)
				for range batch {
					whole(j, b)
				}
				middle, between := time.Now(), cpuTime(b)
				for range batch {
					primitives(j, b)
				}
				w, p := middle.Sub(start), time.Since(middle)
				cpu[0], cpu[1] = cpu[0]+between-before, cpu[1]+cpuTime(b)-between
				ratios = append(ratios, float64(w)/float64(p))
				wholes = append(wholes, float64(w.Nanoseconds())/batch/1e3)
			}
			b.ReportMetric(median(ratios), "x-primitives")
			b.ReportMetric(float64(cpu[0])/float64(cpu[1]), "x-cpu")
			b.ReportMetric(median(wholes), "µs/token")
		})
	}
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

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
