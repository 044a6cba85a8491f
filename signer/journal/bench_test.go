package journal_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer/journal"
)

// cpuTime is the processor time of this process; PostgreSQL's is its own.
func cpuTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// cost is what a number of operations took.
type cost struct {
	wall, cpu time.Duration
	n         int
}

func (c *cost) measure(n, callers int, f func(i int) error) error {
	cpu, start := cpuTime(), time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for k := range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n || errs[k] != nil {
					return
				}
				errs[k] = f(i)
			}
		})
	}
	wg.Wait()
	c.wall += time.Since(start)
	c.cpu += cpuTime() - cpu
	c.n += n
	return errors.Join(errs...)
}

func (c *cost) perSecond() float64 { return float64(c.n) / c.wall.Seconds() }

func (c *cost) micros() float64 { return float64(c.cpu.Microseconds()) / float64(c.n) }

// A benched is a journal with a software key.
type benched struct {
	j   *journal.Journal
	key *ecdsa.PrivateKey
	run int64
}

var benchRuns atomic.Int64

func newBenched(b *testing.B, source string, opt *journal.Options) *benched {
	b.Helper()
	j, err := journal.Open(context.Background(), source, opt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { j.Close() })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return &benched{j, key, benchRuns.Add(1)}
}

// bare signs and verifies, as the service does around the journal.
func (b *benched) bare(i int) error {
	_, err := b.sign(sha256.Sum256(fmt.Append(nil, i)))
	return err
}

func (b *benched) sign(d [32]byte) ([]byte, error) {
	sig, err := ecdsa.SignASN1(rand.Reader, b.key, d[:])
	if err == nil && !ecdsa.VerifyASN1(&b.key.PublicKey, d[:], sig) {
		err = errors.New("the signature is wrong")
	}
	return sig, err
}

func (b *benched) journalled(i int) error {
	r := fullRequest(fmt.Sprint(b.run, i))
	res, err := b.j.Reserve(context.Background(), intent(r))
	if err != nil {
		return err
	}
	sig, err := b.sign([32]byte(r.Octets()))
	if err != nil {
		return err
	}
	return res.Complete(context.Background(), journal.Outcome{Result: journal.Signed, Signature: sig, Device: "token"})
}

func benchDatabases(b *testing.B, f func(b *testing.B, source string)) {
	b.Run("SQLite", func(b *testing.B) { f(b, filepath.Join(b.TempDir(), "journal.db")) })
	b.Run("PostgreSQL", func(b *testing.B) { f(b, pgtest.Database(b)) })
}

// BenchmarkSign signs bare, with two durable steps and with one,
// in turns of a tenth each. An op is one of all three. Journalled rates are against the
// bare one; processor time is of this process, without that of bare signing.
func BenchmarkSign(b *testing.B) {
	benchDatabases(b, func(b *testing.B, source string) {
		for _, callers := range []int{1, 4, 16, 64} {
			b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
				s, once := newBenched(b, source, &journal.Options{Intents: journal.IntentsAll}), newBenched(b, source, nil)
				var bare, two, one cost
				b.ResetTimer()
				for left := b.N; left > 0; {
					n := min(left, max(b.N/10, callers))
					left -= n
					err := errors.Join(bare.measure(n, callers, s.bare), two.measure(n, callers, s.journalled), one.measure(n, callers, once.journalled))
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(two.perSecond(), "signatures/s")
				b.ReportMetric(two.perSecond()/bare.perSecond(), "of-bare")
				b.ReportMetric(one.perSecond()/bare.perSecond(), "one-step-of-bare")
				b.ReportMetric(two.micros()-bare.micros(), "cpu-µs/entry")
				b.ReportMetric(one.micros()-bare.micros(), "one-step-cpu-µs/entry")
			})
		}
	})
}

// BenchmarkGuarded reserves and completes Commits, each of the next epoch.
func BenchmarkGuarded(b *testing.B) {
	benchDatabases(b, func(b *testing.B, source string) {
		s := newBenched(b, source, nil)
		var c cost
		b.ResetTimer()
		err := c.measure(b.N, 64, func(i int) error {
			return sign(context.Background(), s.j, intent(commit(b, fmt.Sprint("g", i%1000), uint64(i), "x")), fmt.Sprint(i))
		})
		var guard *journal.GuardError // two of one group may change places
		if err != nil && !errors.As(err, &guard) {
			b.Fatal(err)
		}
		b.ReportMetric(c.micros(), "cpu-µs/entry")
	})
}

// BenchmarkSize reports the octets that an entry takes in the database.
func BenchmarkSize(b *testing.B) {
	source := filepath.Join(b.TempDir(), "journal.db")
	s := newBenched(b, source, nil)
	const n = 1000
	for b.Loop() {
		var c cost
		if err := c.measure(n, 512, s.journalled); err != nil {
			b.Fatal(err)
		}
		s.run = benchRuns.Add(1)
	}
	h, err := s.j.Head(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	s.j.Close() // brings the write-ahead log home
	var size int64
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(source + suffix); err == nil {
			size += info.Size()
		}
	}
	b.ReportMetric(float64(size)/float64(h.Entries), "octets/entry")
	b.ReportMetric(float64(len(strings.TrimSpace(string(sampleEntry(b))))), "octets/entry-JSON")
}

func sampleEntry(b *testing.B) []byte {
	j, err := journal.Open(context.Background(), filepath.Join(b.TempDir(), "one.db"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	if err := sign(context.Background(), j, intent(fullRequest("x")), "s"); err != nil {
		b.Fatal(err)
	}
	e, err := j.Entry(context.Background(), 0)
	if err != nil {
		b.Fatal(err)
	}
	return e.Octets
}
