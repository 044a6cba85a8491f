package workers_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/privyseal/privyseal/internal/workers"
)

// Tasks that wait for one another all run, however many there are, the first time
// and again, and the goroutines end: the bubble says so if one does not.
func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p workers.Pool
		for range 3 {
			const n = 100
			var here, wg sync.WaitGroup
			here.Add(n)
			for range n {
				wg.Add(1)
				p.Go(func() {
					defer wg.Done()
					here.Done()
					here.Wait()
				})
			}
			wg.Wait()
		}
		time.Sleep(2 * time.Second)
		done := make(chan bool)
		p.Go(func() { close(done) })
		<-done
		time.Sleep(2 * time.Second)
	})
}

// Each calls each number once, no more than width at a time.
func TestEach(t *testing.T) {
	var p workers.Pool
	for _, c := range []struct{ n, width int }{{0, 4}, {1, 4}, {4, 1}, {5, 4}, {100, 16}, {3, 0}} {
		called := make([]atomic.Int64, c.n)
		var at, most atomic.Int64
		p.Each(c.n, c.width, func(i int) {
			now := at.Add(1)
			for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
			}
			called[i].Add(1)
			time.Sleep(time.Microsecond)
			at.Add(-1)
		})
		for i := range called {
			if called[i].Load() != 1 {
				t.Errorf("%+v: %d was called %d times", c, i, called[i].Load())
			}
		}
		if most.Load() > int64(max(c.width, 1)) {
			t.Errorf("%+v: %d at once", c, most.Load())
		}
	}
}

//go:noinline
func deep(n int) int {
	var b [512]byte
	b[n%len(b)] = 1
	if n == 0 {
		return int(b[0])
	}
	return deep(n-1) + int(b[n%len(b)])
}

// BenchmarkStack is a task that goes 24 KiB deep, on a new goroutine and on one
// of a Pool.
func BenchmarkStack(b *testing.B) {
	var p workers.Pool
	for _, c := range []struct {
		name string
		run  func(func())
	}{{"new", func(f func()) { go f() }}, {"kept", p.Go}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				var wg sync.WaitGroup
				wg.Add(8)
				for range 8 {
					c.run(func() { defer wg.Done(); deep(44) })
				}
				wg.Wait()
			}
		})
	}
}
