//go:build soak

package tpm_test

import (
	"runtime"
	"testing"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// TestSoak70000Signatures makes more signatures on one open device than there
// are 16 bit numbers, with more keys than slots and a policy key among them,
// and compares what is open and loaded with the start.
func TestSoak70000Signatures(t *testing.T) {
	const signatures, every = 70_000, 10_000
	s := tpmtest.Start(t, swtpm.Config{})
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	var keys []*tpm.Key
	for range 4 {
		keys = append(keys, generate(t, d, tpm.KeySpec{}))
	}
	keys = append(keys, generate(t, d, tpm.KeySpec{PCRs: []int{0}}))
	use := func(n int) {
		k := keys[0]
		if n%100 == 0 { // now and then another one, so that slots change hands
			k = keys[n/100%len(keys)]
		}
		mustSign(t, k)
	}
	for n := range 1000 {
		use(n)
	}
	files, goroutines, memory := openFiles(t), runtime.NumGoroutine(), heap()
	for n := 1; n <= signatures; n++ {
		use(n)
		if n%every != 0 {
			continue
		}
		if err := d.CheckLoaded(t.Context()); err != nil {
			t.Fatalf("after %d signatures: %v", n, err)
		}
		t.Logf("%d signatures: %d files, %d goroutines, %d KiB", n, openFiles(t), runtime.NumGoroutine(), heap()>>10)
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d files open, %d at the start", n, files)
	}
	if n := settle(goroutines); n > goroutines {
		t.Errorf("%d goroutines, %d at the start", n, goroutines)
	}
	if m := heap(); m > memory+memory/4+1<<20 {
		t.Errorf("%d KiB in use, %d at the start", m>>10, memory>>10)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
