package certs_test

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// BenchmarkIssue compares issuing with its primitives, in interleaved rounds
// of one run: a signature by the CA key, its verification and two durable
// writes, which callers at the same time share, by 1 and by 16 callers. It reports the median of the ratios of time,
// issuing over primitives (x_primitives), and of issuing over one signature
// and one verification without any disk (x_crypto). Issuing writes twice too,
// before and after signing, and builds a draft and checks it.
func BenchmarkIssue(b *testing.B) {
	for _, callers := range []int{1, 16} {
		b.Run(map[int]string{1: "callers=1", 16: "callers=16"}[callers], func(b *testing.B) { benchmarkIssue(b, callers) })
	}
}

func benchmarkIssue(b *testing.B, callers int) {
	store := openStore(b)
	ca := newTestCA(b, credentials.ECDSAP256, store, time.Now)
	order := certs.Order{Request: request(b, p256(b), deviceNames(b), nil), Names: deviceNames(b)}
	bare := newBareStore(b)
	tbs := ca.cert.RawTBSCertificate
	crypt := func() error {
		sig, err := credentials.ECDSAP256.Sign(rand.Reader, ca.key, tbs)
		if err == nil && !credentials.ECDSAP256.Verify(ca.key.Public(), tbs, sig) {
			err = certs.ErrBadSignature
		}
		return err
	}
	issueOne := func() error {
		p, err := ca.issuing.Prepare(context.Background(), order)
		if err == nil {
			_, err = ca.issuing.Issue(context.Background(), p)
		}
		return err
	}
	primitives := func() error {
		if err := bare.write(tbs); err != nil {
			return err
		}
		if err := crypt(); err != nil {
			return err
		}
		return bare.write(tbs)
	}
	const perRound = 32
	var overPrimitives, overCrypto []float64
	var issuing time.Duration
	b.ReportAllocs()
	for b.Loop() {
		p, c := round(b, callers, perRound, primitives), round(b, callers, perRound, crypt)
		i := round(b, callers, perRound, issueOne)
		issuing += i
		overPrimitives = append(overPrimitives, float64(i)/float64(p))
		overCrypto = append(overCrypto, float64(i)/float64(c))
	}
	b.ReportMetric(median(overPrimitives), "x_primitives")
	b.ReportMetric(median(overCrypto), "x_crypto")
	b.ReportMetric(float64(perRound*len(overCrypto))/issuing.Seconds(), "certs/s")
}

// round returns the time that n calls by so many callers take.
func round(b *testing.B, callers, n int, do func() error) time.Duration {
	b.Helper()
	start := time.Now()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range n / callers {
				if err := do(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// A bareStore is the plainest durable write: one row, in a commit that writes at
// the same time share.
type bareStore struct{ db *sqldb.DB }

func newBareStore(b *testing.B) *bareStore {
	table := &fstest.MapFile{Data: []byte(`CREATE TABLE bare (id AUTOKEY, der BLOB NOT NULL) STRICT;`)}
	db, err := sqldb.Open(b.Context(), filepath.Join(b.TempDir(), "bare.db"), sqldb.Options{Name: "bare", Migrations: fstest.MapFS{"migrations/0001_bare.sql": table}})
	must(b, err)
	b.Cleanup(func() { db.Close() })
	return &bareStore{db}
}

func (s *bareStore) write(der []byte) error {
	return s.db.Batch(context.Background(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(context.Background(), `INSERT INTO bare (der) VALUES (?)`, der)
		return err
	})
}

// BenchmarkVerify compares the verification of a chain of three with its two
// signatures.
func BenchmarkVerify(b *testing.B) {
	ca := newTestCA(b, credentials.ECDSAP256, openStore(b), time.Now)
	key := p256(b)
	cert := issue(b, ca.issuing, certs.Order{Request: request(b, key, deviceNames(b), nil), Names: deviceNames(b)})
	v, err := certs.NewVerifier(0, ca.entry())
	must(b, err)
	check := checkOf(b, key.Public(), cert, ca.cert)
	check.At = time.Now()
	verify := func() error {
		_, err := v.Verify(context.Background(), check)
		return err
	}
	signatures := func() error {
		if !credentials.ECDSAP256.Verify(ca.key.Public(), cert.RawTBSCertificate, cert.Signature) ||
			!credentials.ECDSAP256.Verify(ca.rootKey.Public(), ca.cert.RawTBSCertificate, ca.cert.Signature) {
			return certs.ErrBadSignature
		}
		return nil
	}
	var ratios []float64
	b.ReportAllocs()
	for b.Loop() {
		s := round(b, 1, 32, signatures)
		ratios = append(ratios, float64(round(b, 1, 32, verify))/float64(s))
	}
	b.ReportMetric(median(ratios), "x_signatures")
}
