package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/signer"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/client"
)

// manyKeysEnv adds a size to BenchmarkRemoteKeys: 10000 takes five minutes on a
// quiet machine, three of them to make the keys.
const manyKeysEnv = "PRIVYSEAL_BENCH_KEYS"

// BenchmarkRemoteKeys is what a service with many keys in its device costs beside
// the same service asked for one key: a signature by a key in its turn, a page of
// the list, one key of it, and a new key. SoftHSM is in workers, as many as serve
// starts. The keys of a size are made before it is measured, two at once, and what
// is used the first time is counted by itself. Opening is that of another process
// beside it, from nothing to its first signature; memory is the workers'.
func BenchmarkRemoteKeys(b *testing.B) {
	x := newRemoteBenchOf(b, initOptions{softHSM: true}, "softhsm", 1, false, hostInWorkers)
	c := x.client(b)
	sizes := []int{1, 100, 1000}
	if text := os.Getenv(manyKeysEnv); text != "" {
		var most int
		if _, err := fmt.Sscan(text, &most); err != nil || most <= 1000 {
			b.Fatalf("%s is a number above 1000, not %q", manyKeysEnv, text)
		}
		sizes = append(sizes, most)
	}
	have := 1
	for _, keys := range sizes {
		before := withWorkersCPU(b)
		making, first := x.fill(b, have, keys)
		makingCPU := withWorkersCPU(b) - before
		x.load.Keys = keys
		had := have
		have = keys
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			f := make(figures)
			if making > 0 {
				f.add("ms-to-make-a-key", making)
				f.add("ms-to-make-one-of-first", first)
				f.add("cpu-ms-to-make-a-key", milliseconds(makingCPU)/float64(keys-had))
			}
			one, all := x.load, x.load
			all.Count = max(1024, keys)
			one.Keys, one.Count = 1, all.Count
			r, _ := x.remote(b, all)
			f.add("ms-first-use", r.Seconds*1000*float64(all.Callers)/float64(all.Count))
			for range 3 { // until nearly each worker has used nearly each key
				x.remote(b, all)
			}
			for b.Loop() {
				r, oneCPU := x.signing(b, one)
				many, manyCPU := x.signing(b, all)
				f.add("sign/s", float64(all.Count)/many.Seconds)
				f.add("cpu-µs/sign", float64(manyCPU.Microseconds())/float64(all.Count))
				f.add("x-time-of-one-key", many.Seconds/r.Seconds)
				f.add("x-cpu-of-one-key", manyCPU.Seconds()/oneCPU.Seconds())
				f.add("p50-ms", many.P50)
				f.add("p99-ms", many.P99)
				begin := time.Now()
				page, err := c.Keys().ListKeys(context.Background(), connect.NewRequest(&signerv1.ListKeysRequest{PageSize: 100}))
				if err != nil || len(page.Msg.GetKeys()) != min(keys, 100) {
					b.Fatalf("%d keys listed: %v", len(page.Msg.GetKeys()), err)
				}
				f.add("ms-page-of-100", milliseconds(time.Since(begin)))
				begin = time.Now()
				if _, err := c.Keys().GetKey(context.Background(), connect.NewRequest(&signerv1.GetKeyRequest{Name: x.load.keyName(keys - 1)})); err != nil {
					b.Fatal(err)
				}
				f.add("ms-one-key", milliseconds(time.Since(begin)))
				begin = time.Now()
				if _, err := x.w.devices[x.device].Info(context.Background()); err != nil {
					b.Fatal(err)
				}
				f.add("ms-look-at-health", milliseconds(time.Since(begin)))
				f.add("MB-workers", workersMemory(b))
				ended := endedCPU(b)
				f.add("s-open", x.open(b).Seconds())
				f.add("cpu-s-open-workers", (endedCPU(b) - ended).Seconds())
			}
			f.report(b)
		})
	}
}

// client is a caller in this process.
func (b *remoteBench) client(t testing.TB) *client.Client {
	t.Helper()
	identity, err := client.OpenIdentity(b.load.Identity)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := daemon.ReadPool(b.load.Roots)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Config{Address: b.load.Server, Roots: pool, Certificate: identity.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fill makes the keys of numbers from have to want, two at once, and returns the
// time of one in milliseconds: over all, and over the first hundred of them.
func (b *remoteBench) fill(t testing.TB, have, want int) (each, first float64) {
	t.Helper()
	var took [2]time.Duration
	counts := [2]int{min(100, want-have), max(0, want-have-100)}
	for i, n := range counts {
		took[i], _ = parallel(t, 2, n, func(i int64) error {
			_, err := b.w.ring.Create(context.Background(), signer.NewKey{
				ID: signer.KeyID(fmt.Sprintf("acme.leaf-%d", have-1+int(i))), Purpose: signer.PurposeMLSLeaf, Device: b.device})
			return err
		})
		have += n
	}
	if counts[0] == 0 {
		return 0, 0
	}
	return milliseconds(took[0]+took[1]) / float64(counts[0]+counts[1]), milliseconds(took[0]) / float64(counts[0])
}

// signing runs the load, and returns the processor time of the service and its
// workers without that of the callers' asking for each key first.
func (b *remoteBench) signing(t testing.TB, l load) (loaded, time.Duration) {
	t.Helper()
	asking := l
	asking.Count = 1
	begin := withWorkersCPU(t)
	b.remote(t, asking)
	asked := withWorkersCPU(t)
	r, _ := b.remote(t, l)
	return r, withWorkersCPU(t) - asked - (asked - begin)
}

// open starts what serve starts for its devices, beside the service, until it has
// signed, and ends it.
func (b *remoteBench) open(t testing.TB) time.Duration {
	t.Helper()
	ctx := context.Background()
	begin := time.Now()
	w, err := newWiring(ctx, b.w.config)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	key, err := w.ring.Signer(ctx, "acme.leaf-0", signer.PurposeMLSLeaf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.SignMessage(nil, loadMessage(1), nil); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// workerPIDs lists the workers of this process, which has no other children when
// it is called.
func workerPIDs(t testing.TB) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// workersMemory is what the workers have resident, in MB.
func workersMemory(t testing.TB) float64 {
	t.Helper()
	var pages int
	for _, pid := range workerPIDs(t) {
		var size, resident int
		statm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		fmt.Sscan(string(statm), &size, &resident)
		pages += resident
	}
	return float64(pages) * float64(os.Getpagesize()) / 1e6
}

// withWorkersCPU is the processor time of this process and of its workers.
func withWorkersCPU(t testing.TB) time.Duration {
	t.Helper()
	cpu := cpuTime()
	for _, pid := range workerPIDs(t) {
		cpu += processCPU(t, pid)
	}
	return cpu
}

// endedCPU is the processor time of the children that have ended.
func endedCPU(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
