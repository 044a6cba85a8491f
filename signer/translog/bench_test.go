package translog_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/translog"
)

// manyEntries is how many the large journal has; PRIVYSEAL_BENCH_ENTRIES says
// otherwise.
const manyEntries = 1_000_000

// BenchmarkLarge finds, proves and verifies with a large journal and its log,
// which it makes first.
func BenchmarkLarge(b *testing.B) {
	n := manyEntries
	if s := os.Getenv("PRIVYSEAL_BENCH_ENTRIES"); s != "" {
		n = must[int](b)(strconv.Atoi(s))
	}
	h := &house{t: b, source: filepath.Join(b.TempDir(), "journal.db"), dir: filepath.Join(b.TempDir(), "log")}
	h.benchKey()
	h.journal = must[*journal.Journal](b)(journal.Open(context.Background(), h.source, nil))
	defer h.journal.Close()
	start := time.Now()
	h.fill(n)
	filling := time.Since(start)
	h.options.Dir, h.options.Interval = h.dir, 100*time.Millisecond
	h.log = must[*translog.Log](b)(translog.Open(context.Background(), h.journal, h.options))
	defer h.log.Close(context.Background())
	start = time.Now()
	for must[int](b)(h.log.Feed(context.Background())) > 0 {
	}
	feeding := time.Since(start)
	h.publish()
	micros := func(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(n) }
	b.Run("Find", func(b *testing.B) {
		h.benchFind(b, n)
		b.ReportMetric(micros(filling), "filling-µs/entry")
	})
	b.Run("Prove", func(b *testing.B) {
		h.benchProve(b, n)
		b.ReportMetric(micros(feeding), "feeding-µs/entry")
		b.ReportMetric(float64(dirSize(b, h.dir))/float64(n), "log-octets/entry")
	})
	b.Run("VerifyProof", func(b *testing.B) { h.benchVerify(b, n) })
}

// benchKey makes the log's key.
func (h *house) benchKey() {
	key := must[*ecdsa.PrivateKey](h.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	h.options.Signer = must[note.Signer](h.t)(translog.NewSigner(origin, key.Public(), func(text []byte) ([]byte, error) {
		d := sha256.Sum256(text)
		return ecdsa.SignASN1(rand.Reader, key, d[:])
	}))
	h.keys = must[*translog.Keys](h.t)(translog.ParseKeys(must[string](h.t)(translog.VerifierKey(origin, key.Public()))))
}

// fill writes entries from many callers, so that commits are full.
func (h *house) fill(n int) {
	const callers = 512
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := h.entry(i); err != nil {
					h.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func (h *house) entry(i int) error {
	d := sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))
	r, err := signer.DigestRequest(crypto.SHA256, d[:])
	if err != nil {
		return err
	}
	res, err := h.journal.Reserve(context.Background(), journal.Intent{Tenant: "acme", Caller: "app", Key: "k", Version: 1,
		Purpose: signer.PurposeRaw, Request: r, Rule: "allow", PolicyVersion: "v1"})
	if err != nil {
		return err
	}
	return res.Complete(context.Background(), journal.Outcome{Result: journal.Signed, Signature: benchSignature(i), Device: "token"})
}

func benchSignature(i int) []byte { return fmt.Append(nil, "signature ", i) }

func (h *house) benchFind(b *testing.B, n int) {
	for i := 0; b.Loop(); i = (i + 7919) % n {
		must[*journal.Entry](b)(h.journal.Find(context.Background(), benchSignature(i)))
	}
}

func (h *house) prove(b *testing.B, i int) []byte {
	e := must[*journal.Entry](b)(h.journal.Find(context.Background(), benchSignature(i)))
	return must[[]byte](b)(translog.Prove(context.Background(), h.src(), h.keys, e))
}

func (h *house) benchProve(b *testing.B, n int) {
	for i := 0; b.Loop(); i = (i + 7919) % n {
		h.prove(b, i)
	}
}

func (h *house) benchVerify(b *testing.B, n int) {
	proof := h.prove(b, n/2)
	for b.Loop() {
		must[*translog.Proof](b)(translog.VerifyProof(proof, h.keys))
	}
	b.ReportMetric(float64(len(proof)), "octets/proof")
}

func dirSize(b *testing.B, dir string) (size int64) {
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}
