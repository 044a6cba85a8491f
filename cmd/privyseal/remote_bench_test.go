package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/policy"
	"github.com/privyseal/privyseal/signer/rpc/rpctest"
	signservice "github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

func mlsOctets(label string, content []byte) []byte {
	b := new(tlsvec.Builder)
	b.String("MLS 1.0 " + label)
	b.Vector(content)
	return b.Bytes()
}

// A remoteBench is a signing service on a real device, with policy, guard and
// journal, on loopback.
type remoteBench struct {
	w      *wiring
	server *rpctest.Server
	load   load
	device string

	mu     sync.Mutex // guards stages
	stages map[signservice.Stage][]time.Duration

	slow time.Duration // of a signature of the device, beyond its own
	slot chan struct{}
}

// benchPolicy has ten rules that all have to be looked at.
func benchPolicy(t testing.TB) *policy.Policy {
	var rules []string
	for i := range 9 {
		rules = append(rules, fmt.Sprintf(`{"id":"d%d","effect":"deny","when":"mls.content_type == 'commit' && mls.epoch < %du"}`, i, i))
	}
	rules = append(rules, `{"id":"a","effect":"allow","when":"caller.tenant == 'acme' && key.purpose == 'mls-leaf'"}`)
	p, err := policy.Parse([]byte(`{"version":1,"rules":[` + strings.Join(rules, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newRemoteBench(t testing.TB, o initOptions, device string, keys int, stages bool) *remoteBench {
	t.Helper()
	return newRemoteBenchOf(t, o, device, keys, stages, func(*Config) {})
}

// newRemoteBenchOf changes the configuration before it is used.
func newRemoteBenchOf(t testing.TB, o initOptions, device string, keys int, stages bool, change func(*Config)) *remoteBench {
	t.Helper()
	b, p := newBenchParts(t, o, device, stages, change)
	p.service.SetPolicy(benchPolicy(t))
	b.serve(t, b.house(t, p), keys)
	return b
}

func (b *remoteBench) house(t testing.TB, p *signerParts) *servicetest.House {
	return &servicetest.House{T: t, Keys: b.w.store, Ring: b.w.ring, Journal: p.journal, Access: p.access, Service: p.service}
}

// newBenchParts joins what a remoteBench serves.
func newBenchParts(t testing.TB, o initOptions, device string, stages bool, change func(*Config)) (*remoteBench, *signerParts) {
	t.Helper()
	t.Cleanup(daemon.SpareHeap()) // as serve has it
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	config, err := initState(ctx, filepath.Join(t.TempDir(), "home", configName), o)
	must(err)
	config.Serve = &ServeConfig{Signer: &SignerSection{Listener: "api", CallerCA: "caller-ca"}}
	change(config)
	b := &remoteBench{device: device, stages: make(map[signservice.Stage][]time.Duration)}
	b.w, err = newWiring(ctx, config)
	must(err)
	t.Cleanup(func() { b.w.Close(ctx) })
	var hooks signservice.Hooks
	if stages {
		hooks.Stage = b.stage
	}
	p, err := newSignerParts(ctx, b.w, hooks)
	must(err)
	t.Cleanup(func() { p.Close() })
	return b, p
}

// serve serves the house on loopback to a Client that may sign with its keys.
func (b *remoteBench) serve(t testing.TB, house *servicetest.House, keys int) {
	t.Helper()
	b.server = rpctest.Start(t, house, b.device, nil)
	for i := range keys {
		house.Key(signer.KeyID(fmt.Sprintf("acme.leaf-%d", i)), signer.PurposeMLSLeaf, b.device)
	}
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	_, err := client.Enroll(context.Background(), b.server.Anonymous(), dir, b.server.Invite("acme", "bot", access.Client, "leaf-*:sign"))
	if err == nil {
		err = os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.server.Leaf().Raw}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.load = load{Server: b.server.URL, Roots: roots, Identity: dir, Keys: keys, Callers: 16}
}

func (b *remoteBench) stage(ctx context.Context, s signservice.Stage) (context.Context, func(error)) {
	begin := time.Now()
	if b.slow > 0 && s == signservice.StageDevice {
		b.slot <- struct{}{}
		time.Sleep(b.slow)
		<-b.slot
	}
	return ctx, func(error) {
		took := time.Since(begin)
		b.mu.Lock()
		b.stages[s] = append(b.stages[s], took)
		b.mu.Unlock()
	}
}

// keyring signs n messages through the Keyring, which verifies them, from so
// many goroutines, and returns the wall and CPU time.
func (b *remoteBench) keyring(t testing.TB, goroutines, n int) (wall, cpu time.Duration) {
	t.Helper()
	s, err := b.w.ring.Signer(context.Background(), "acme.leaf-0", signer.PurposeMLSLeaf)
	if err != nil {
		t.Fatal(err)
	}
	return parallel(t, goroutines, n, func(i int64) error {
		_, err := s.SignMessage(nil, loadMessage(i), nil)
		return err
	})
}

// raw has the device sign n digests, without anything of ours above it.
func (b *remoteBench) raw(t testing.TB, goroutines, n int) (wall, cpu time.Duration) {
	t.Helper()
	key, err := b.w.store.Key(context.Background(), "acme.leaf-0")
	if err != nil {
		t.Fatal(err)
	}
	open, err := b.w.devices[b.device].Open(context.Background(), key.Active().URI, key.Algorithm)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	return parallel(t, goroutines, n, func(i int64) error {
		digest := sha256.Sum256(loadMessage(i))
		_, err := open.(signer.SigningKey).SignContext(context.Background(), digest[:], crypto.SHA256)
		return err
	})
}

func parallel(t testing.TB, goroutines, n int, f func(int64) error) (wall, cpu time.Duration) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	before, begin := cpuTime(), time.Now()
	for range goroutines {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin), cpuTime() - before
}

func (b *remoteBench) remote(t testing.TB, l load) (r loaded, cpu time.Duration) {
	t.Helper()
	before := cpuTime()
	r = l.inProcess(t)
	return r, cpuTime() - before
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// loads are the ways in which signatures are asked for: single calls of 16 and of
// 64 callers, that share requests (together) and that do not (apart), and batches
// of 64 that a program makes itself, without idempotency keys and with, as single
// calls always have.
func (b *remoteBench) loads(n int) []namedLoad {
	var out []namedLoad
	for _, callers := range []int{16, 64} {
		l := b.load
		l.Callers, l.Count = callers, n
		out = append(out, namedLoad{fmt.Sprint("together-", callers), l})
		l.Apart = true
		out = append(out, namedLoad{fmt.Sprint("apart-", callers), l})
	}
	batched := b.load
	batched.Callers, batched.Count, batched.Batch = 2, n/64, 64
	keyed := batched
	keyed.Idempotent = true
	return append(out, namedLoad{"batched", batched}, namedLoad{"batched-keyed", keyed})
}

type namedLoad struct {
	name string
	load load
}

// figures are measurements by unit, over the rounds of a benchmark.
type figures map[string][]float64

func (f figures) add(unit string, v float64) { f[unit] = append(f[unit], v) }

func (f figures) report(b *testing.B) {
	for unit, all := range f {
		b.ReportMetric(median(all), unit)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRemoteTPM is the rate through the API over the saturated rate of the
// TPM itself, in turn, both with as many in flight as it takes. The raw loop is
// four callers of the driver; tpm-busy is the part of the time in which swtpm,
// which has one thread, is at work, and so is 1 where no more is to be had. A swtpm alone
// competes with us for the processor; one whose answers are held back, as a
// chip's are that takes milliseconds for a command, leaves it to us. The CPU is
// that of a signature, beside that of the TPM.
func BenchmarkRemoteTPM(b *testing.B) {
	for _, pace := range []time.Duration{0, 2 * time.Millisecond, 10 * time.Millisecond} {
		b.Run(fmt.Sprint("pace=", pace), func(b *testing.B) {
			device := tpmtest.Start(b, swtpm.Config{})
			address := device.Address()
			if pace > 0 {
				address = paced(b, address, pace)
			}
			x := newRemoteBenchOf(b, initOptions{tpm: address}, "tpm", 1, false, patient)
			n := 768
			if pace > 0 {
				n = 256
			}
			f := make(figures)
			for b.Loop() {
				busy := tpmBusy(b, device)
				wall, cpu := x.raw(b, 4, n)
				f.add("tpm-busy-raw", busy(wall))
				f.add("raw/s", float64(n)/wall.Seconds())
				f.add("driver-cpu-µs", float64(cpu.Microseconds())/float64(n))
				for _, l := range x.loads(n) {
					if l.name == "apart-64" {
						continue // more than its queue takes: some would be sent away
					}
					busy := tpmBusy(b, device)
					r, cpu := x.remote(b, l.load)
					f.add("tpm-busy-"+l.name, busy(time.Duration(r.Seconds*1e9)))
					f.add("x-raw-"+l.name, wall.Seconds()/r.Seconds)
					f.add("service-cpu-µs-"+l.name, float64(cpu.Microseconds())/float64(n))
					f.add("caller-cpu-µs-"+l.name, r.CPU*1e6/float64(n))
				}
			}
			f.report(b)
		})
	}
}

// patient lets requests wait as long as it takes: with a TPM that is held back
// those of 64 callers wait longer than the default allows.
func patient(c *Config) { c.Serve.Signer.Queue.MaxWait = Duration(10 * time.Second) }

// tpmBusy begins to measure a TPM. The function it returns ends that, and
// returns the part of the time for which the TPM was at work.
func tpmBusy(t testing.TB, device *swtpm.Server) func(wall time.Duration) float64 {
	cpu := func() time.Duration {
		d, err := device.CPUTime()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before := cpu()
	return func(wall time.Duration) float64 { return (cpu() - before).Seconds() / wall.Seconds() }
}

// paced returns the address of a TPM that is the one at address, but answers
// each command later by pace.
func paced(t testing.TB, address string, pace time.Duration) string {
	t.Helper()
	scheme, path, _ := strings.Cut(address, ":")
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial(scheme, path)
			if err != nil {
				near.Close()
				continue
			}
			go func() { io.Copy(far, near); far.Close() }()
			go func() {
				defer near.Close()
				answer := make([]byte, 4096) // one command is under way at a time
				for {
					n, err := far.Read(answer)
					if err != nil {
						return
					}
					time.Sleep(pace)
					if _, err := near.Write(answer[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "unix:" + l.Addr().String()
}

// BenchmarkRemoteSoftHSM is the CPU that the service adds to a signature, beyond
// the module, the Keyring and the verification, for single calls that share
// requests and that do not, and for batches; the module runs in the process of
// the service.
func BenchmarkRemoteSoftHSM(b *testing.B) {
	x := newRemoteBench(b, initOptions{softHSM: true}, "softhsm", 1, false)
	const n = 512
	f := make(figures)
	for b.Loop() {
		wall, base := x.keyring(b, 2, n)
		f.add("keyring-cpu-µs", float64(base.Microseconds())/n)
		for _, l := range x.loads(n) {
			r, cpu := x.remote(b, l.load)
			f.add("adds-cpu-µs-"+l.name, float64((cpu-base).Microseconds())/n)
			f.add("caller-cpu-µs-"+l.name, r.CPU*1e6/n)
			f.add("x-keyring-"+l.name, wall.Seconds()/r.Seconds)
		}
	}
	f.report(b)
}

// An eitherJournal is one of several, in turn.
type eitherJournal struct{ signservice.Journal }

// BenchmarkRemoteSteps is the CPU of the service for a signature, keyring and
// module included, with two durable steps for each and with one where the guard
// has nothing to write, in turn, and the second to the first.
func BenchmarkRemoteSteps(b *testing.B) {
	x, p := newBenchParts(b, initOptions{softHSM: true}, "softhsm", false, func(*Config) {})
	one := p.journal
	two, err := journal.Open(context.Background(), filepath.Join(b.TempDir(), "two.db"), &journal.Options{Intents: journal.IntentsAll})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { two.Close() })
	either := &eitherJournal{one}
	p.service, err = signservice.New(signservice.Config{Keys: x.w.store, Ring: x.w.ring, Journal: either, Policy: benchPolicy(b), Devices: []string{"softhsm"}})
	if err != nil {
		b.Fatal(err)
	}
	x.serve(b, x.house(b, p), 1)
	const n = 512
	f := make(figures)
	for b.Loop() {
		for _, l := range x.loads(n) {
			if l.name == "apart-64" {
				continue // on a busy machine more than its queue takes
			}
			either.Journal = two
			_, before := x.remote(b, l.load)
			either.Journal = one
			_, after := x.remote(b, l.load)
			f.add("two-µs-"+l.name, float64(before.Microseconds())/n)
			f.add("one-µs-"+l.name, float64(after.Microseconds())/n)
			f.add("x-two-"+l.name, after.Seconds()/before.Seconds())
		}
	}
	f.report(b)
}

// BenchmarkRemoteStages is the time of a request by stage with one caller.
func BenchmarkRemoteStages(b *testing.B) {
	x := newRemoteBench(b, initOptions{softHSM: true}, "softhsm", 1, true)
	l := x.load
	l.Callers, l.Count = 1, 300
	var p50, p99 []float64
	for b.Loop() {
		r, _ := x.remote(b, l)
		p50, p99 = append(p50, r.P50), append(p99, r.P99)
	}
	b.ReportMetric(median(p50), "call-p50-ms")
	b.ReportMetric(median(p99), "call-p99-ms")
	for s, took := range x.stages {
		slices.Sort(took)
		name := strings.ReplaceAll(string(s), ".", "-")
		b.ReportMetric(milliseconds(took[len(took)/2]), name+"-p50-ms")
		b.ReportMetric(milliseconds(took[len(took)*99/100]), name+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRemoteOperations is the rate and latency of what is no signature, a MAC, a
// key agreement and a frank, which is a MAC and a signature, from 1 to 64 callers of
// one Client that share requests; cpu is that of the service with the module.
func BenchmarkRemoteOperations(b *testing.B) {
	x, p := newBenchParts(b, initOptions{softHSM: true}, "softhsm", false, func(*Config) {})
	house := x.house(b, p)
	x.serve(b, house, 1)
	for name, purpose := range map[signer.KeyID]signer.Purpose{"acme.mac": signer.PurposeFrankMAC, "acme.init": signer.PurposeMLSInit, "acme.frank": signer.PurposeFrankSign} {
		house.Key(name, purpose, x.device)
	}
	rules, err := policy.Parse([]byte(`{"version":1,"rules":[{"id":"a","effect":"allow","when":"caller.tenant == 'acme'"}]}`))
	if err != nil {
		b.Fatal(err)
	}
	p.service.SetPolicy(rules)
	l := x.load
	l.Identity, l.Count = b.TempDir(), 1024
	invitation := x.server.Invite("acme", "other", access.Client, "mac:mac", "init:agree", "frank:sign")
	if _, err := client.Enroll(context.Background(), x.server.Anonymous(), l.Identity, invitation); err != nil {
		b.Fatal(err)
	}
	for _, l.Operation = range []string{"mac", "agree", "frank"} {
		for _, l.Callers = range []int{1, 4, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", l.Operation, l.Callers), func(b *testing.B) {
				f := make(figures)
				for b.Loop() {
					r, cpu := x.remote(b, l)
					f.add("calls/s", float64(l.Count)/r.Seconds)
					f.add("p50-ms", r.P50)
					f.add("p99-ms", r.P99)
					f.add("cpu-µs/call", float64(cpu.Microseconds())/float64(l.Count))
				}
				f.report(b)
			})
		}
	}
}

// BenchmarkRemoteCallers is the rate and latency of single calls from 1 to 256
// callers of one Client, sharing requests and not, in turn.
func BenchmarkRemoteCallers(b *testing.B) {
	x := newRemoteBench(b, initOptions{softHSM: true}, "softhsm", 1, false)
	for _, callers := range []int{1, 4, 16, 64, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			const n = 1024
			f := make(figures)
			for b.Loop() {
				together := x.load
				together.Callers, together.Count = callers, n
				apart := together
				apart.Apart = true
				for _, l := range []namedLoad{{"together", together}, {"apart", apart}} {
					r, _ := x.remote(b, l.load)
					f.add("sign/s-"+l.name, n/r.Seconds)
					f.add("p50-ms-"+l.name, r.P50)
					f.add("p99-ms-"+l.name, r.P99)
				}
			}
			f.report(b)
		})
	}
}
