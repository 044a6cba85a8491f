package hsm

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// limits are how long calls may take before their worker counts as hung.
type limits struct {
	start, call time.Duration
}

func (c Config) limits() limits { return limits{start: c.StartTimeout, call: c.CallTimeout} }

// watchEvery is the time between looks at the calls of a worker, and between the
// signs of progress that it sends.
func (c Config) watchEvery() time.Duration {
	return max(min(c.StartTimeout, c.CallTimeout)/8, time.Millisecond)
}

// A callClock says until when a call may take. A worker that goes through many
// objects sends tellProgress on the way, and has its limit anew from there. For
// one function of the module that takes long by itself, which says nothing before
// it ends, the processor time of the worker speaks, and only where that is to be
// expected: when the module or a token opens, or the token is searched for new
// keys.
type callClock struct {
	slow  bool
	allow time.Duration
	limit time.Time
	cpu   time.Duration // of the worker, when the limit was set; slow calls only
	more  int           // how often the limit may still be set anew for processor time
}

const (
	quitLimit    = time.Hour // whoever asks a worker to quit has a limit of his own
	computes     = 100       // a worker computes if it does so for one part in so many of the time
	mostComputed = 9
)

func (l limits) begin(kind frameKind, pid int) callClock {
	c := callClock{slow: kind.slow(), allow: l.call}
	switch {
	case c.slow:
		c.allow, c.more = l.start, mostComputed
		c.cpu, _ = processorTime(pid)
	case kind == askQuit:
		c.allow = quitLimit
	}
	c.limit = time.Now().Add(c.allow)
	return c
}

// watch kills the worker when a call has not been answered in time: a call that
// hangs in vendor code can only be ended with its process.
func (l *link) watch() {
	tick := time.NewTicker(Config{StartTimeout: l.limits.start, CallTimeout: l.limits.call}.watchEvery())
	defer tick.Stop()
	for {
		select {
		case <-l.dead:
			return
		case now := <-tick.C:
			if err := l.overdue(now); err != nil {
				l.fail(err)
				return
			}
		}
	}
}

// overdue says which call hangs. Those that were asked behind a slow one wait for
// it, with one Session, and have their time when it has ended.
func (l *link) overdue(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	slow := l.firstSlow()
	for number, c := range l.calls {
		if !now.After(c.clock.limit) || slow > 0 && number > slow {
			continue
		}
		if !c.clock.slow {
			return fmt.Errorf("a call hangs in the module, without a sign of progress for %v (Config.CallTimeout, timeout); the process was killed", c.clock.allow)
		}
		if !l.computed(&c.clock, now) {
			return fmt.Errorf("the module hangs as it opens or looks for keys, without a sign of progress for %v; "+
				"the process was killed: see that the token answers, or give it more time (Config.StartTimeout, start_timeout)", c.clock.allow)
		}
	}
	return nil
}

// firstSlow is the number of the first slow call, 0 if there is none. The caller
// holds mu.
func (l *link) firstSlow() (first uint32) {
	for number, c := range l.calls {
		if c.clock.slow && (first == 0 || number < first) {
			first = number
		}
	}
	return first
}

// computed sets the limit of a slow call anew if the worker has computed since it
// was set.
func (l *link) computed(c *callClock, now time.Time) bool {
	cpu, err := processorTime(l.cmd.Process.Pid)
	if err != nil || c.more == 0 || cpu-c.cpu < c.allow/computes {
		return false
	}
	c.more--
	c.cpu, c.limit = cpu, now.Add(c.allow)
	return true
}

// progressed gives the call that goes on, and those behind it, their time anew.
func (l *link) progressed(number uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.extend(number)
}

// ended takes a call that was answered out of the books; nil if there is none.
func (l *link) ended(number uint32) *call {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls[number]
	if c != nil && c.clock.slow {
		l.extend(number)
	}
	delete(l.calls, number)
	return c
}

// extend sets the limits of calls anew, from a number on. The caller holds mu.
func (l *link) extend(from uint32) {
	now := time.Now()
	for number, c := range l.calls {
		if number >= from {
			c.clock.limit = now.Add(c.clock.allow)
		}
	}
}

// processorTime is what a process has computed.
func processorTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED of the kernel's clock numbers
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	return time.Duration(t.Nano()), err
}

// progressKey finds the function that is told of progress in a context.
type progressKey struct{}

func withProgress(ctx context.Context, tell func()) context.Context {
	return context.WithValue(ctx, progressKey{}, tell)
}

// progressed says that a call has done one of many steps.
func progressed(ctx context.Context) {
	if tell, ok := ctx.Value(progressKey{}).(func()); ok {
		tell()
	}
}

// progress is a context under which a call tells the program that it goes on.
func (s *workerServer) progress(call uint32) context.Context {
	last := time.Now()
	return withProgress(context.Background(), func() {
		if now := time.Now(); now.Sub(last) >= s.progressEvery {
			last = now
			s.out.send(call, tellProgress)
		}
	})
}
