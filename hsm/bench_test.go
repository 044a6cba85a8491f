package hsm_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// benchCallers are the numbers of goroutines that sign at once.
var benchCallers = []int{1, 2, 4, 8, 16}

const (
	benchRounds = 5
	benchSlice  = 400 * time.Millisecond
)

// A form is one way to sign with the benchmark's key.
type form struct {
	name string
	sign func(caller int) error
}

// BenchmarkSign compares a bare loop of C_SignInit and C_Sign on miekg/pkcs11,
// with a Session per caller, with this driver in-process and in one and two
// workers. All sign with the same key of the same SoftHSM token. The forms take
// turns within each round, and the figures are medians over the rounds.
func BenchmarkSign(b *testing.B) {
	forms := signForms(b)
	rates := make(map[string]map[int][]float64)
	for _, f := range forms {
		rates[f.name] = make(map[int][]float64)
		rate(b, 2, 50*time.Millisecond, f.sign) // warm up
	}
	b.ResetTimer()
	for range benchRounds {
		for _, callers := range benchCallers {
			for _, f := range forms {
				rates[f.name][callers] = append(rates[f.name][callers], rate(b, callers, benchSlice, f.sign))
			}
		}
	}
	b.StopTimer()
	printRates(b, forms, rates)
}

// rate counts signatures per second of callers that sign one after the other.
func rate(b *testing.B, callers int, d time.Duration, sign func(int) error) float64 {
	b.Helper()
	var done atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range callers {
		wg.Go(func() {
			for time.Since(begin) < d {
				if err := sign(i); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds()
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// printRates prints a table for docs/performance.md and reports the ratios.
func printRates(b *testing.B, forms []form, rates map[string]map[int][]float64) {
	var t strings.Builder
	fmt.Fprintf(&t, "\n| P-256 signatures/s (of the bare loop) |")
	for _, c := range benchCallers {
		fmt.Fprintf(&t, " %d callers |", c)
	}
	fmt.Fprintf(&t, "\n|---|%s\n", strings.Repeat("---|", len(benchCallers)))
	best := make(map[string]float64)
	for _, f := range forms {
		fmt.Fprintf(&t, "| %s |", f.name)
		for _, c := range benchCallers {
			m := median(rates[f.name][c])
			best[f.name] = max(best[f.name], m)
			fmt.Fprintf(&t, " %.0f (%.2fx) |", m, m/median(rates[forms[0].name][c]))
		}
		fmt.Fprintln(&t)
	}
	fmt.Println(t.String())
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(best[forms[0].name], "bare/s")
	for _, f := range forms[1:] {
		b.ReportMetric(best[f.name]/best[forms[0].name], strings.ReplaceAll(f.name, " ", "-")+"/bare")
	}
}

// signForms opens the same token in all ways.
func signForms(b *testing.B) []form {
	m := hsmtest.SoftHSM(b)
	var raw *pkcs11.Ctx
	tok := m.Open(b, hsmtest.Sessions(slices.Max(benchCallers)),
		hsmtest.Wrap(func(a hsm.API) hsm.API { raw = a.(*pkcs11.Ctx); return a }))
	info := generate(b, tok, hsm.P256, hsm.UseSign)
	forms := []form{
		{"bare miekg loop", bareSigner(b, raw, tok, info)},
		{"in-process", driverSigner(b, tok, info)},
		{"1 worker", driverSigner(b, m.Open(b, hsmtest.Workers(1)), info)},
		{"2 workers", driverSigner(b, m.Open(b, hsmtest.Workers(2)), info)},
	}
	return forms
}

func driverSigner(b *testing.B, t *hsm.Token, info hsm.KeyInfo) func(int) error {
	key, err := t.Signer(context.Background(), t.KeyURI(info))
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("benchmark"))
	return func(int) error {
		_, err := key.Sign(nil, digest[:], crypto.SHA256)
		return err
	}
}

// bareSigner is what a program without a driver would do at best: Sessions and
// a handle of its own, and nothing checked.
func bareSigner(b *testing.B, p *pkcs11.Ctx, t *hsm.Token, info hsm.KeyInfo) func(int) error {
	tokenInfo, err := t.Info(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	var sessions []pkcs11.SessionHandle
	for range slices.Max(benchCallers) {
		sh, err := p.OpenSession(tokenInfo.Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			b.Fatal(err)
		}
		sessions = append(sessions, sh)
	}
	key := bareFind(b, p, sessions[0], info.ID)
	digest := sha256.Sum256([]byte("benchmark"))
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}
	return func(caller int) error {
		if err := p.SignInit(sessions[caller], mechanism, key); err != nil {
			return err
		}
		_, err := p.Sign(sessions[caller], digest[:])
		return err
	}
}

func bareFind(b *testing.B, p *pkcs11.Ctx, sh pkcs11.SessionHandle, id []byte) pkcs11.ObjectHandle {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, id)}
	if err := p.FindObjectsInit(sh, template); err != nil {
		b.Fatal(err)
	}
	defer p.FindObjectsFinal(sh)
	found, _, err := p.FindObjects(sh, 1)
	if err != nil || len(found) != 1 {
		b.Fatal("the benchmark's key was not found:", err)
	}
	return found[0]
}

// BenchmarkSignAllocations reports what one signature allocates and takes.
func BenchmarkSignAllocations(b *testing.B) {
	for _, f := range signForms(b) {
		b.Run(strings.ReplaceAll(f.name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f.sign(0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen measures how long it takes to load the module, log in and find
// the keys, with 1,000 keys on the token; with 10,000 when HSM_BENCH_KEYS says
// so, which takes a while to set up. Beside it stands the first use of a key,
// and one signature more.
func BenchmarkOpen(b *testing.B) {
	keys := 1000
	if s := os.Getenv("HSM_BENCH_KEYS"); s != "" {
		if _, err := fmt.Sscan(s, &keys); err != nil {
			b.Fatalf("HSM_BENCH_KEYS: %v", err)
		}
	}
	m := hsmtest.SoftHSM(b)
	last := fillToken(b, m, keys)
	ctx := context.Background()
	var open, bare, first, later []float64
	m.Setenv(b)
	b.ResetTimer()
	for range max(b.N, 3) {
		bare = append(bare, bareOpen(b, m))
		begin := time.Now()
		mod, err := hsm.Open(ctx, hsm.Config{Path: m.Path})
		if err != nil {
			b.Fatal(err)
		}
		tok, err := mod.OpenToken(ctx, m.ParsedURI(b), nil)
		if err != nil {
			b.Fatal(err)
		}
		open = append(open, time.Since(begin).Seconds())
		first = append(first, seconds(driverSignerCall(b, tok, last)))
		later = append(later, seconds(driverSignerCall(b, tok, last)))
		if err := mod.Close(ctx); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(open), "s-open")
	b.ReportMetric(median(open)/median(bare), "open/bare")
	fmt.Printf("\n| keys | bare initialise, login and find all | open | first use of a key | next signature |\n|---|---|---|---|---|\n")
	fmt.Printf("| %d | %.3f s | %.3f s (%.2fx) | %.2f ms | %.2f ms |\n\n", keys,
		median(bare), median(open), median(open)/median(bare), 1000*median(first), 1000*median(later))
}

func seconds(f func() error) float64 {
	begin := time.Now()
	if err := f(); err != nil {
		panic(err)
	}
	return time.Since(begin).Seconds()
}

// driverSignerCall finds the key and signs once.
func driverSignerCall(b *testing.B, t *hsm.Token, info hsm.KeyInfo) func() error {
	return func() error {
		key, err := t.Signer(context.Background(), t.KeyURI(info))
		if err != nil {
			return err
		}
		digest := sha256.Sum256([]byte("benchmark"))
		_, err = key.Sign(nil, digest[:], crypto.SHA256)
		return err
	}
}

// BenchmarkGenerate measures how long a key takes where the token has 100,
// 1,000 and 5,000: with an id that is drawn for it, which is the same for all,
// and with an id that the caller gives, for which the token is searched. The
// bare C_GenerateKeyPair of the module stands beside them.
func BenchmarkGenerate(b *testing.B) {
	m := hsmtest.SoftHSM(b)
	fmt.Printf("\n| keys | bare C_GenerateKeyPair | drawn id | given id |\n|---|---|---|---|\n")
	there := 0
	for _, keys := range []int{100, 1000, 5000} {
		bareFill(b, m, there, keys)
		there = keys
		generateBeside(b, m, keys)
	}
	b.ReportMetric(0, "ns/op")
}

// generateRounds is how many keys of each kind a median is of.
const generateRounds = 7

func generateBeside(b *testing.B, m *hsmtest.Module, keys int) {
	bare := bareFill(b, m, 1<<20+keys, 1<<20+keys+generateRounds) / generateRounds
	tok := m.Open(b, hsmtest.Workers(1))
	var drawn, given []float64
	for i := range generateRounds {
		spec := hsm.KeySpec{Type: hsm.P256, Use: hsm.UseSign, Label: "bench"}
		drawn = append(drawn, seconds(func() error { _, err := tok.Generate(b.Context(), spec); return err }))
		spec.ID = fmt.Appendf(nil, "given %d of %d", i, keys)
		given = append(given, seconds(func() error { _, err := tok.Generate(b.Context(), spec); return err }))
	}
	fmt.Printf("| %d | %.2f ms | %.2f ms | %.2f ms |\n", keys, 1000*bare, 1000*median(drawn), 1000*median(given))
	b.ReportMetric(1000*median(drawn), fmt.Sprintf("ms-at-%d", keys))
}

// fillToken puts n keys on the token and returns the last. All but that one are
// made without the driver.
func fillToken(b *testing.B, m *hsmtest.Module, n int) hsm.KeyInfo {
	bareFill(b, m, 0, n-1)
	return generate(b, m.Open(b, hsmtest.Workers(1)), hsm.P256, hsm.UseSign)
}

// bareFill makes the keys of numbers from first to end, and says in how many
// seconds.
func bareFill(b *testing.B, m *hsmtest.Module, first, end int) float64 {
	r := m.Load(b)
	if err := r.Start(); err != nil {
		b.Fatal(err)
	}
	defer r.Stop()
	p256 := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}
	begin := time.Now()
	for i := first; i < end; i++ {
		id := fmt.Appendf(nil, "key %012d", i)
		both := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "filler"),
		}
		public := append(slices.Clone(both), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256))
		private := append(slices.Clone(both), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
		if _, _, err := r.GenerateKeyPair(r.Session, mechanism, public, private); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(begin).Seconds()
}

// bareOpen does what every program has to do before it can sign: C_Initialize,
// C_Login and one search for everything, with the id and label of each object.
func bareOpen(b *testing.B, m *hsmtest.Module) float64 {
	begin := time.Now()
	r := m.Load(b)
	if err := r.Start(); err != nil {
		b.Fatal(err)
	}
	defer r.Stop()
	bareScan(b, r)
	return time.Since(begin).Seconds()
}

func bareScan(b *testing.B, r *hsmtest.Raw) {
	if err := r.FindObjectsInit(r.Session, nil); err != nil {
		b.Fatal(err)
	}
	var all []pkcs11.ObjectHandle
	for {
		some, _, err := r.FindObjects(r.Session, 1024)
		if err != nil {
			b.Fatal(err)
		}
		if all = append(all, some...); len(some) == 0 {
			break
		}
	}
	if err := r.FindObjectsFinal(r.Session); err != nil {
		b.Fatal(err)
	}
	for _, h := range all {
		template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, nil), pkcs11.NewAttribute(pkcs11.CKA_ID, nil), pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)}
		if _, err := r.GetAttributeValue(r.Session, h, template); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWorkerKilled measures how long a token with 10 keys is away when
// its only worker is killed: from the kill to the next signature.
func BenchmarkWorkerKilled(b *testing.B) {
	m := hsmtest.SoftHSM(b)
	tok := m.Open(b, hsmtest.Workers(1))
	var info hsm.KeyInfo
	for range 10 {
		info = generate(b, tok, hsm.P256, hsm.UseSign)
	}
	sign := driverSigner(b, tok, info)
	var took []float64
	b.ResetTimer()
	for range max(b.N, 9) {
		if err := sign(0); err != nil {
			b.Fatal(err)
		}
		killWorkers(b)
		begin := time.Now()
		if err := sign(0); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin).Seconds())
		time.Sleep(200 * time.Millisecond)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(1000*median(took), "ms-away")
	fmt.Printf("\nThe only worker killed: the next signature is there after %.1f ms (median of %d).\n\n", 1000*median(took), len(took))
}
