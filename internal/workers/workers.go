// Package workers runs short tasks on goroutines that stay for the next one.
package workers

import (
	"sync"
	"time"
)

// idle is how long a goroutine waits for its next task.
const idle = time.Second

// A Pool has goroutines that did a task of late and wait for another. A goroutine
// begins with a small stack, which doubles each time it is full and is copied
// then: for a call through SQLite or a PKCS#11 module four times, 20 us of
// processor time, and the last of them from the heap. One that stays has its
// stack. The zero value works; its methods may be called at the same time.
type Pool struct {
	once  sync.Once
	tasks chan func()
}

// Go runs f on a goroutine that waits, or on a new one: it is never queued. A
// panic of f is as one on a goroutine of its own.
func (p *Pool) Go(f func()) {
	p.once.Do(func() { p.tasks = make(chan func()) })
	select {
	case p.tasks <- f:
	default:
		go p.work(f)
	}
}

// Each calls f with 0 to n-1, up to width at once, the calling goroutine among
// those that do so, and returns when the last has ended.
func (p *Pool) Each(n, width int, f func(i int)) {
	var mu sync.Mutex // guards next
	next := 0
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1
	}
	var wg sync.WaitGroup
	work := func() {
		for i := take(); i < n; i = take() {
			f(i)
		}
	}
	for range min(width, n) - 1 {
		wg.Add(1)
		p.Go(func() { defer wg.Done(); work() })
	}
	work()
	wg.Wait()
}

func (p *Pool) work(f func()) {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		f()
		f = nil // what it holds may go
		timer.Reset(idle)
		select {
		case f = <-p.tasks:
		case <-timer.C:
			return
		}
	}
}
