package signer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// TendOptions say how a Keyring looks after its devices.
type TendOptions struct {
	// Interval is how often each key is tested on each of its devices; 5
	// minutes if zero, never if negative.
	Interval time.Duration
	// Probation is the time between the self-tests of a suspect device; 5
	// seconds if zero.
	Probation time.Duration
	// Failed is told what went wrong with the store; nil tells nobody.
	Failed func(err error)
}

// How a device that is left out comes back.
const (
	firstProbe = 50 * time.Millisecond // after it was left out
	lastProbe  = 15 * time.Second      // between tries at last
	tendTick   = 50 * time.Millisecond
	// A suspect device must pass this many self-tests in a row, and is left to
	// an operator after so many falls in a day.
	probation   = 3
	maxFalls    = 3
	fallsWithin = 24 * time.Hour

	defaultInterval  = 5 * time.Minute
	defaultProbation = 5 * time.Second
)

// Tend tests every key on a schedule, spread over the interval, and tries what
// is left out until it answers. It returns when ctx ends.
//
// A device that is away, or whose object is broken, is taken in again by the
// first self-test that it passes. A suspect device must pass several; after its
// third fall within a day only ClearSuspect takes it in.
func (k *Keyring) Tend(ctx context.Context, o TendOptions) {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Probation == 0 {
		o.Probation = defaultProbation
	}
	t := &tender{ring: k, options: o, probes: make(map[probeRef]*probe), passes: make(map[string]int)}
	tick := time.NewTicker(tendTick)
	defer tick.Stop()
	for {
		t.step(ctx, time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// A tender is one Tend. Its maps are its own goroutine's; a test that hangs in
// one device runs in another.
type tender struct {
	ring    *Keyring
	options TendOptions

	queue    []KeyID // keys still to be tested in this round
	perStep  time.Duration
	nextTest time.Time
	testing  chan struct{} // closed when the scheduled test under way ends

	probes   map[probeRef]*probe
	passes   map[string]int // self-tests that a suspect device passed in a row
	nextLook time.Time      // at the suspects
}

// A probeRef is a device, or one object in it.
type probeRef struct {
	device string
	key    KeyID
}

// A probe is the next try of what is left out.
type probe struct {
	next  time.Time
	pause time.Duration
	done  chan struct{} // closed when the try under way ends; nil before the first
}

func (t *tender) step(ctx context.Context, now time.Time) {
	t.scheduled(ctx, now)
	t.leftOut(ctx, now)
	if now.After(t.nextLook) {
		t.nextLook = now.Add(t.options.Probation)
		t.suspects(ctx)
	}
}

// scheduled tests the next key of the round.
func (t *tender) scheduled(ctx context.Context, now time.Time) {
	if t.options.Interval < 0 || now.Before(t.nextTest) || !ended(t.testing) {
		return
	}
	if len(t.queue) == 0 {
		t.newRound(ctx)
	}
	t.nextTest = now.Add(t.perStep)
	if len(t.queue) == 0 {
		return
	}
	id := t.queue[0]
	t.queue = t.queue[1:]
	t.testing = t.start(func() { t.report(t.ring.SelfTest(ctx, id)) })
}

func (t *tender) newRound(ctx context.Context) {
	keys, err := t.ring.store.Keys(ctx)
	t.report(nil, err)
	for _, key := range keys {
		if key.Active() != nil {
			t.queue = append(t.queue, key.ID)
		}
	}
	t.perStep = t.options.Interval / time.Duration(max(len(t.queue), 1))
}

func (t *tender) start(f func()) chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return done
}

func ended(done chan struct{}) bool {
	if done == nil {
		return true
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// report hands on failures of the store; those of devices are in the results.
func (t *tender) report(_ []SelfTestResult, err error) {
	gone := errors.Is(err, ErrNoKey) || errors.Is(err, context.Canceled)
	if err != nil && !gone && t.options.Failed != nil {
		t.options.Failed(err)
	}
}

// leftOut tries each device, and each object, that is left out.
func (t *tender) leftOut(ctx context.Context, now time.Time) {
	out := t.ring.leftOut()
	for ref, p := range t.probes {
		if _, still := out[ref]; !still && ended(p.done) {
			delete(t.probes, ref)
		}
	}
	for ref, id := range out {
		p := t.probes[ref]
		if p == nil {
			p = &probe{next: now.Add(firstProbe), pause: firstProbe}
			t.probes[ref] = p
		}
		if now.Before(p.next) || !ended(p.done) {
			continue
		}
		p.pause = min(2*p.pause, lastProbe)
		p.next = now.Add(p.pause)
		p.done = t.start(func() {
			t.report(t.ring.selfTests(ctx, id, func(pl *place) bool { return pl.device == ref.device }))
		})
	}
}

// leftOut lists what is left out, each with a key to try it with.
func (k *Keyring) leftOut() map[probeRef]KeyID {
	out := make(map[probeRef]KeyID)
	k.mu.Lock()
	defer k.mu.Unlock()
	for ref, open := range k.open {
		for _, p := range open.set.Load().places {
			if p.route.away.Load() != nil {
				out[probeRef{device: p.device}] = ref.id
			} else if p.broken.Load() != nil {
				out[probeRef{p.device, ref.id}] = ref.id
			}
		}
	}
	return out
}

// suspects gives each suspect device a self-test.
func (t *tender) suspects(ctx context.Context) {
	list, err := t.ring.store.Suspects(ctx)
	t.report(nil, err)
	for _, s := range list {
		if t.ring.devices[s.Device] == nil {
			continue
		}
		falls, err := t.ring.store.TimesSuspect(ctx, s.Device, time.Now().Add(-fallsWithin))
		if t.report(nil, err); err != nil || falls >= maxFalls {
			continue
		}
		t.tryInnocence(ctx, s)
	}
}

// tryInnocence counts the self-tests that a suspect device passes.
func (t *tender) tryInnocence(ctx context.Context, s Suspect) {
	results, err := t.ring.selfTests(ctx, s.Key, func(p *place) bool { return p.device == s.Device })
	t.report(nil, err)
	if err != nil || len(results) == 0 || results[0].Err != nil {
		t.passes[s.Device] = 0
		return
	}
	if t.passes[s.Device]++; t.passes[s.Device] < probation {
		return
	}
	delete(t.passes, s.Device)
	err = t.ring.store.ClearSuspect(ctx, s.Device, fmt.Sprintf("it passed %d self-tests in a row", probation))
	if err != nil && !errors.Is(err, ErrNoDevice) { // another node was first
		t.report(nil, err)
		return
	}
	t.ring.hooks.back(s.Device, time.Since(s.Since))
}
