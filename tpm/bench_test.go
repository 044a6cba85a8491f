package tpm_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// bare is a loop over go-tpm as anybody would write it: one kept connection, a
// lock around it, the key loaded once, go-tpm's reused session.
type bare struct {
	mu      sync.Mutex // a TPM does one command at a time, and a session too
	conn    net.Conn
	buf     []byte
	key     tpm2.NamedHandle
	session tpm2.Session
}

// Send is the transport.
func (b *bare) Send(command []byte) ([]byte, error) {
	if _, err := b.conn.Write(command); err != nil {
		return nil, err
	}
	return tpm.ReadAnswer(b.conn, b.buf)
}

// newBare makes a P-256 signing key under the storage root key and a session:
// salted and encrypting, or just the password.
func newBare(tb testing.TB, address string, salted bool) *bare {
	tb.Helper()
	conn, err := net.Dial("unix", address[len("unix:"):])
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	b := &bare{conn: conn, buf: make([]byte, 4096)}
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(b)
	if err != nil {
		tb.Fatal(err)
	}
	auth := []byte("01234567890123456789012345678901")
	parent := tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name}
	made, err := tpm2.Create{
		ParentHandle: parent,
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: auth}}},
		InPublic:     tpm2.New2B(bareTemplate),
	}.Execute(b)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := tpm2.Load{ParentHandle: parent, InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(b)
	if err != nil {
		tb.Fatal(err)
	}
	b.key = tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}
	b.session = tpm2.PasswordAuth(auth)
	if salted {
		public, err := srk.OutPublic.Contents()
		if err != nil {
			tb.Fatal(err)
		}
		b.session, _, err = tpm2.HMACSession(b, tpm2.TPMAlgSHA256, 16, tpm2.Auth(auth),
			tpm2.Salted(srk.ObjectHandle, *public), tpm2.AESEncryption(128, tpm2.EncryptIn))
		if err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

var bareTemplate = tpm2.TPMTPublic{
	Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		CurveID: tpm2.TPMECCNistP256,
	}),
}

func (b *bare) sign(digest []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: b.key.Handle, Name: b.key.Name, Auth: b.session},
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(b)
	return err
}

// A contender signs once.
type contender struct {
	name string
	sign func(i int) error
}

// driverContender signs with n keys of a device in turn.
func driverContender(tb testing.TB, name string, config tpm.Config, n int) contender {
	tb.Helper()
	config.Address = tpmtest.Start(tb, swtpm.Config{}).Address()
	d := tpmtest.OpenConfig(tb, config)
	keys := make([]*tpm.Key, n)
	for i := range keys {
		keys[i] = generate(tb, d, tpm.KeySpec{})
	}
	digest := make([]byte, 32)
	return contender{name, func(i int) error {
		_, err := keys[i%n].Sign(nil, digest, nil)
		return err
	}}
}

func bareContender(tb testing.TB, name string, salted bool) contender {
	tb.Helper()
	b := newBare(tb, tpmtest.Start(tb, swtpm.Config{}).Address(), salted)
	digest := make([]byte, 32)
	return contender{name, func(int) error { return b.sign(digest) }}
}

// BenchmarkReport runs the contenders in turn, round after round, so that all
// of them meet the same noise, and prints the medians as a table. Every
// contender has a TPM of its own; only one works at a time.
//
//	go test -run '^$' -bench Report -benchtime 1x ./tpm
func BenchmarkReport(b *testing.B) {
	contenders := []contender{
		bareContender(b, "bare go-tpm, password", false),
		bareContender(b, "bare go-tpm, salted and encrypting", true),
		driverContender(b, "driver, plain sessions", tpm.Config{PlainSessions: true}, 1),
		driverContender(b, "driver, salted and encrypting", tpm.Config{}, 1),
		driverContender(b, "driver, 3 keys", tpm.Config{}, 3),
		driverContender(b, "driver, 8 keys in 3 slots", tpm.Config{}, 8),
	}
	const rounds, perRound = 7, 300
	for b.Loop() {
		for _, callers := range []int{1, 2, 4, 8, 16} {
			report(b, contenders, callers, rounds, perRound)
		}
	}
}

// BenchmarkCPU is the CPU time of this process for a signature, and how busy
// the TPM was kept: its CPU time over the time that passed. Callers wait with a
// context that can end, as those of the services do; the bare loop does not.
//
//	go test -run '^$' -bench BenchmarkCPU -benchtime 1x ./tpm
func BenchmarkCPU(b *testing.B) {
	s := tpmtest.Start(b, swtpm.Config{})
	bare := newBare(b, s.Address(), true)
	driven := tpmtest.Start(b, swtpm.Config{})
	d := tpmtest.OpenConfig(b, tpm.Config{Address: driven.Address()})
	k, m := generate(b, d, tpm.KeySpec{}), generate(b, d, tpm.KeySpec{Kind: tpm.MACSHA256})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	digest := make([]byte, 32)
	contenders := []struct {
		name    string
		tpm     *swtpm.Server
		callers int
		contender
	}{
		{"bare-1", s, 1, contender{sign: func(int) error { return bare.sign(digest) }}},
		{"sign-1", driven, 1, contender{sign: func(int) error { _, err := k.SignContext(ctx, digest, nil); return err }}},
		{"sign-4", driven, 4, contender{sign: func(int) error { _, err := k.SignContext(ctx, digest, nil); return err }}},
		{"sign-32", driven, 32, contender{sign: func(int) error { _, err := k.SignContext(ctx, digest, nil); return err }}},
		{"mac-32", driven, 32, contender{sign: func(int) error { _, err := m.MAC(ctx, digest); return err }}},
	}
	const n, rounds = 1000, 5
	figures := make(map[string][]float64)
	for b.Loop() {
		for range rounds {
			for _, c := range contenders {
				busy, own := must(b, c.tpm.CPUTime), ownCPU(b)
				f, err := measure(c.contender, c.callers, n)
				if err != nil {
					b.Fatal(err)
				}
				own, busy = ownCPU(b)-own, must(b, c.tpm.CPUTime)-busy
				note := func(unit string, v float64) { figures[unit+c.name] = append(figures[unit+c.name], v) }
				note("cpu-µs-", float64(own.Nanoseconds())/1e3/n)
				note("tpm-cpu-µs-", float64(busy.Nanoseconds())/1e3/n)
				note("tpm-busy-", busy.Seconds()/(f.perCall.Seconds()*n))
			}
		}
	}
	for unit, all := range figures {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], unit)
	}
	b.ReportMetric(0, "ns/op")
}

func must(tb testing.TB, f func() (time.Duration, error)) time.Duration {
	tb.Helper()
	d, err := f()
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func ownCPU(tb testing.TB) time.Duration {
	return must(tb, func() (time.Duration, error) {
		var u syscall.Rusage
		err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
	})
}

type figure struct {
	perCall time.Duration // wall time divided by calls
	allocs  float64
	octets  float64
}

func report(b *testing.B, contenders []contender, callers, rounds, perRound int) {
	b.Helper()
	figures := make([][]figure, len(contenders))
	for range rounds {
		for i, c := range contenders {
			f, err := measure(c, callers, perRound)
			if err != nil {
				b.Fatalf("%s: %v", c.name, err)
			}
			figures[i] = append(figures[i], f)
		}
	}
	fmt.Fprintf(os.Stdout, "\n| P-256 signatures, %d callers | us per signature | to bare password | to bare salted | allocations | octets |\n|---|---:|---:|---:|---:|---:|\n", callers)
	for i, c := range contenders {
		m := median(figures[i])
		fmt.Fprintf(os.Stdout, "| %s | %.0f | %.2f | %.2f | %.0f | %.0f |\n", c.name, float64(m.perCall.Nanoseconds())/1000,
			ratio(figures[0], figures[i]), ratio(figures[1], figures[i]), m.allocs, m.octets)
	}
}

// measure lets callers sign until there are n signatures.
func measure(c contender, callers, n int) (figure, error) {
	var before, after runtime.MemStats
	var group sync.WaitGroup
	errs := make(chan error, callers)
	runtime.ReadMemStats(&before)
	start := time.Now()
	for caller := range callers {
		group.Go(func() {
			for i := caller; i < n; i += callers {
				if err := c.sign(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	close(errs)
	return figure{
		perCall: took / time.Duration(n),
		allocs:  float64(after.Mallocs-before.Mallocs) / float64(n),
		octets:  float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
	}, <-errs
}

func median(f []figure) figure {
	sorted := slices.SortedFunc(slices.Values(f), func(a, b figure) int { return int(a.perCall - b.perCall) })
	return sorted[len(sorted)/2]
}

// ratio is the median of how much faster than the reference a contender was in
// the same round; 1 is as fast.
func ratio(reference, f []figure) float64 {
	ratios := make([]float64, len(f))
	for i := range f {
		ratios[i] = float64(reference[i].perCall) / float64(f[i].perCall)
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// BenchmarkOverhead is what the driver itself adds to a signature: the time that
// is not spent between a command and its answer.
func BenchmarkOverhead(b *testing.B) {
	layer := new(tpmtest.Faults)
	var inTPM time.Duration
	timed := func(next tpm.Transport) tpm.Transport { return &stopwatch{layer.Wrap(next), &inTPM} }
	d := tpmtest.OpenConfig(b, tpm.Config{Address: tpmtest.Start(b, swtpm.Config{}).Address(), Wrap: timed})
	k := generate(b, d, tpm.KeySpec{})
	digest := make([]byte, 32)
	mustSign(b, k)
	inTPM = 0
	b.ReportAllocs()
	start := time.Now()
	for b.Loop() {
		if _, err := k.Sign(nil, digest, nil); err != nil {
			b.Fatal(err)
		}
	}
	total := time.Since(start)
	b.ReportMetric(float64((total-inTPM).Nanoseconds())/1000/float64(b.N), "us-outside-TPM/op")
	b.ReportMetric(float64(inTPM.Nanoseconds())/1000/float64(b.N), "us-in-TPM/op")
}

// A stopwatch adds up the time that commands take.
type stopwatch struct {
	next  tpm.Transport
	total *time.Duration
}

// Send times the command.
func (s *stopwatch) Send(command []byte) ([]byte, error) {
	start := time.Now()
	defer func() { *s.total += time.Since(start) }()
	return s.next.Send(command)
}

// BenchmarkOpen is the time from nothing to a device that can be used.
func BenchmarkOpen(b *testing.B) {
	s := tpmtest.Start(b, swtpm.Config{})
	for b.Loop() {
		d, err := tpm.Open(b.Context(), tpm.Config{Address: s.Address()})
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRecovery is the time from the death of the TPM to the next
// signature, the start of swtpm included.
func BenchmarkRecovery(b *testing.B) {
	s := tpmtest.Start(b, swtpm.Config{})
	d := tpmtest.OpenConfig(b, tpm.Config{Address: s.Address()})
	k := generate(b, d, tpm.KeySpec{})
	for b.Loop() {
		if err := s.Kill(); err != nil {
			b.Fatal(err)
		}
		if err := s.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		mustSign(b, k)
	}
}
