package hsm

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// lookEvery is the number of calls after which a worker's size is looked at.
const lookEvery = 1024

// errRetired is what a call gets that came to a worker which takes no more.
// Nothing was asked of it.
var errRetired = fmt.Errorf("%w: it is being replaced", ErrWorkerLost)

// renew ends a worker that has grown more than it may, after the calls in
// flight, and reports whether it did. Only one is away at a time.
func (w *workers) renew(ctx context.Context, one *worker, l *link) bool {
	grown := l.resident() - l.size
	if w.config.WorkerGrowth < 0 || grown < w.config.WorkerGrowth || !w.withdraw(one) {
		return false
	}
	w.config.Observe(Event{Kind: EventWorkerEnds, Module: w.config.Path, Worker: one.number,
		Err: fmt.Errorf("hsm: worker %d has grown by %d MiB and is replaced", one.number, grown>>20)})
	l.retire(ctx)
	last, cancel := context.WithTimeout(context.Background(), w.config.CallTimeout)
	defer cancel()
	l.stop(last)
	return true
}

// withdraw unpublishes a worker if all others are up.
func (w *workers) withdraw(one *worker) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.all {
		if other != one && other.link.Load() == nil {
			return false
		}
	}
	one.link.Store(nil)
	return true
}

// retirePoll is the time between looks at the calls of a worker that retires.
const retirePoll = 2 * time.Millisecond

// retire takes no more calls and waits for those in flight. One that hangs is
// ended by watch, and with it the link.
func (l *link) retire(ctx context.Context) {
	for {
		l.mu.Lock()
		l.retired = true
		idle := len(l.calls) == 0 || l.err != nil
		l.mu.Unlock()
		if idle || sleep(ctx, retirePoll) != nil {
			return
		}
	}
}

// resident returns the memory of the worker in octets, 0 if that cannot be told.
func (l *link) resident() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", l.cmd.Process.Pid))
	fields := strings.Fields(string(b))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
