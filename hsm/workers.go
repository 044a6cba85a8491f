package hsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// workers is the backend that hosts a module in child processes. Each worker
// has a supervisor, which starts the process, opens the tokens in it and starts
// the next when it is lost.
type workers struct {
	config  Config
	all     []*worker
	running context.Context // ends with close
	stop    context.CancelFunc
	over    sync.WaitGroup // the supervisors, and looks for keys
	gate    gate           // calls in flight, for draining

	mu      sync.Mutex // guards the fields below
	shared  map[tokenNumber]*sharedToken
	next    tokenNumber
	changed chan struct{} // closed and replaced when a worker goes up or fails to
	closing bool
}

// A worker is one place for a child process.
type worker struct {
	number int
	link   atomic.Pointer[link]  // nil while the worker is down
	fault  atomic.Pointer[error] // why the last start failed
}

// Pauses before a worker that died young is started again.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 5 * time.Second
	youngAge   = 100 * time.Millisecond // of service, not counting its start
)

// openWorkers starts the workers: one first, so that a module that does not
// load is reported once.
func openWorkers(ctx context.Context, c Config) (*workers, error) {
	if os.Getenv(workerMark) != "" {
		return nil, errors.New("hsm: a worker cannot start workers: call hsm.WorkerMain first in main, and in TestMain")
	}
	running, stop := context.WithCancel(context.Background())
	w := &workers{config: c, running: running, stop: stop, shared: make(map[tokenNumber]*sharedToken), changed: make(chan struct{})}
	for i := range c.Workers {
		w.all = append(w.all, &worker{number: i})
	}
	first, err := w.start(ctx, w.all[0])
	if err != nil {
		stop()
		return nil, err
	}
	for i, one := range w.all {
		var l *link
		if i == 0 {
			l = first
		}
		w.over.Add(1)
		go w.supervise(running, one, l)
	}
	return w, nil
}

// supervise keeps one worker running.
func (w *workers) supervise(ctx context.Context, one *worker, l *link) {
	defer w.over.Done()
	pause := time.Duration(0)
	for ctx.Err() == nil {
		born, served := time.Now(), time.Duration(0)
		if l == nil {
			l, _ = w.start(ctx, one)
		}
		if l != nil {
			served = w.run(ctx, one, l, born)
			l = nil
		}
		switch {
		case served > youngAge:
			pause = 0
		case pause == 0:
			pause = firstPause
		default:
			pause = min(2*pause, lastPause)
		}
		if sleep(ctx, pause) != nil {
			return
		}
	}
}

// start starts a process, waits until its module is loaded, and opens the
// tokens that are open in the others.
func (w *workers) start(ctx context.Context, one *worker) (*link, error) {
	l, err := startLink(one.number, w.config, w.told)
	if err == nil {
		err = w.greet(ctx, l)
	}
	if err != nil {
		if l != nil {
			l.fail(err)
			<-l.exited
		}
		one.fault.Store(&err)
		w.announce()
		return nil, err
	}
	return l, nil
}

func (w *workers) greet(ctx context.Context, l *link) error {
	c := w.config
	hello := encodeJSON(helloConfig{Path: c.Path, InitArgs: c.InitArgs, Sessions: c.Sessions,
		AdmitWeak: c.AdmitWeak, AllowFinalTry: c.AllowFinalTry, ProgressEvery: c.watchEvery()})
	_, err := result(l.ask(ctx, askHello, hello))
	return err
}

// publish opens all tokens in a worker and lets calls come to it. A token that
// is added while it does so is opened too: one added later finds the worker.
func (w *workers) publish(ctx context.Context, one *worker, l *link) error {
	opened := make(map[*sharedToken]bool)
	for {
		w.mu.Lock()
		var missing []*sharedToken
		for _, t := range w.shared {
			if !opened[t] {
				missing = append(missing, t)
			}
		}
		if len(missing) == 0 {
			one.link.Store(l)
			one.fault.Store(nil)
			w.mu.Unlock()
			w.announce()
			return nil
		}
		w.mu.Unlock()
		for _, t := range missing {
			open := func() error { return t.openIn(ctx, l, true) }
			var err error
			if w.anyUp() { // else no key is made, but some may wait to be
				_, err = t.quietly(ctx, open)
			} else {
				err = open()
			}
			if errors.Is(err, ErrWorkerLost) {
				return err
			}
			opened[t] = true
		}
	}
}

// run publishes a worker, waits until it is lost, and says how long it served.
func (w *workers) run(ctx context.Context, one *worker, l *link, born time.Time) time.Duration {
	err := w.publish(ctx, one, l)
	up := time.Now()
	if err == nil {
		w.config.Observe(Event{Kind: EventWorkerUp, Module: w.config.Path, Worker: one.number, Took: time.Since(born)})
		l.size = l.resident()
	}
	for waiting := true; waiting; {
		select {
		case <-l.dead:
			waiting = false
		case <-ctx.Done():
			waiting = false
		case <-l.look:
			if w.renew(ctx, one, l) {
				return time.Since(up)
			}
		}
	}
	one.link.Store(nil)
	if ctx.Err() != nil {
		last, cancel := context.WithTimeout(context.Background(), w.config.CallTimeout)
		defer cancel()
		l.stop(last)
		return 0
	}
	served := time.Since(up)
	err = l.failure()
	<-l.exited
	w.config.Observe(Event{Kind: EventWorkerLost, Module: w.config.Path, Worker: one.number, Err: err})
	return served
}

// announce wakes those who wait for a worker.
func (w *workers) announce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

// A route says which worker a call should go to. The zero value has no wishes.
type route struct {
	to    *link // this one, if it is up
	ahead *link // the others are behind this one, if it is not nil,
	lag   int32 // by so many calls: what they must do before they can answer one
}

// choose gives the worker that the route names, if it is up, or else the one with
// the fewest calls before it, waiting while none is up. When every worker has
// failed to start, that is the error.
func (w *workers) choose(ctx context.Context, r route) (*link, error) {
	if r.to != nil && w.all[r.to.number].link.Load() == r.to {
		return r.to, nil
	}
	for {
		if l := w.leastLoaded(r); l != nil {
			return l, nil
		}
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if l := w.leastLoaded(r); l != nil {
			return l, nil
		}
		if err := w.allFailed(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrWorkerLost, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (w *workers) anyUp() bool { return w.leastLoaded(route{}) != nil }

func (w *workers) leastLoaded(r route) *link {
	var best *link
	var least int32
	for _, one := range w.all {
		l := one.link.Load()
		if l == nil {
			continue
		}
		load := l.load.Load()
		if r.ahead != nil && r.ahead != l {
			load += r.lag
		}
		if best == nil || load < least {
			best, least = l, load
		}
	}
	return best
}

func (w *workers) allFailed() error {
	var last error
	for _, one := range w.all {
		fault := one.fault.Load()
		if fault == nil {
			return nil
		}
		last = *fault
	}
	return last
}

// ask puts a question to a worker, and says which one was asked last. One that may
// be asked twice is, when the first worker was lost.
func (w *workers) ask(ctx context.Context, r route, twice bool, kind frameKind, parts ...[]byte) ([]byte, *link, error) {
	if err := w.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer w.gate.leave()
	for try := 0; ; try++ {
		l, err := w.choose(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		out, err := result(l.ask(ctx, kind, parts...))
		if err == errRetired { // nothing was asked
			try--
			continue
		}
		if err == nil || !twice || try > 0 || !errors.Is(err, ErrWorkerLost) {
			return out, l, err
		}
		w.unpublish(l)
	}
}

// unpublish keeps the second try from the worker that was just lost, in case
// its supervisor has not seen it yet.
func (w *workers) unpublish(l *link) { w.all[l.number].link.CompareAndSwap(l, nil) }

func (w *workers) enter(ctx context.Context) error {
	w.mu.Lock()
	closing := w.closing
	w.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if closing {
		return fmt.Errorf("hsm: module %s: %w", w.config.Path, ErrClosed)
	}
	return w.gate.enter(ctx)
}

func (w *workers) info(ctx context.Context) (ModuleInfo, error) {
	tokens, err := w.tokens(ctx)
	if err != nil || len(tokens) == 0 {
		return ModuleInfo{Path: w.config.Path, Kind: kindOf(w.config.Path, ModuleInfo{})}, err
	}
	return tokens[0].Module, nil
}

func (w *workers) tokens(ctx context.Context) ([]TokenInfo, error) {
	var tokens []TokenInfo
	return tokens, w.askJSON(ctx, route{}, &tokens, true, askTokens)
}

func (w *workers) askJSON(ctx context.Context, r route, into any, twice bool, kind frameKind, parts ...[]byte) error {
	out, _, err := w.ask(ctx, r, twice, kind, parts...)
	if err != nil {
		return err
	}
	return decodeJSON(out, into)
}

// close drains the calls in flight and ends the workers.
func (w *workers) close(ctx context.Context) error {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	err := w.gate.shut(ctx)
	w.stop()
	w.over.Wait()
	if err != nil {
		return fmt.Errorf("hsm: module %s was ended with calls in flight: %w", w.config.Path, err)
	}
	w.gate.reopen()
	return nil
}
