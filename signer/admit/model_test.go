package admit_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/privyseal/privyseal/signer/admit"
)

// A modelDevice takes a time for each request, and does so many at once.
type modelDevice struct {
	mu    sync.Mutex // guards each
	each  time.Duration
	lanes chan struct{}
}

func (d *modelDevice) takes(each time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.each = each
}

func (d *modelDevice) work() {
	d.lanes <- struct{}{}
	d.mu.Lock()
	each := d.each
	d.mu.Unlock()
	time.Sleep(each)
	<-d.lanes
}

// An arrival is a request that came.
type arrival struct {
	at, took, inside time.Duration
	shed             bool
}

// offer has requests come at a rate for a time, whether or not those before were
// answered. A journal takes 3 ms before and after the device, for any number of
// requests together.
func offer(t *testing.T, g *admit.Gate, d *modelDevice, rate float64, lasts time.Duration) []arrival {
	var mu sync.Mutex // guards all
	var all []arrival
	var wg sync.WaitGroup
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Now()
	for time.Since(begin) < lasts {
		wg.Go(func() {
			a, _ := visit(t, g, d, begin)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, a)
		})
		time.Sleep(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
	}
	wg.Wait()
	return all
}

// visit is one request to the device, with the journal before and after it.
func visit(t *testing.T, g *admit.Gate, d *modelDevice, begin time.Time) (arrival, error) {
	const journal = 3 * time.Millisecond
	came := time.Now()
	leave, err := g.Enter(t.Context(), "a", "x")
	a := arrival{at: came.Sub(begin), shed: err != nil}
	if err == nil {
		entered := time.Now()
		time.Sleep(journal)
		d.work()
		time.Sleep(journal)
		a.inside = time.Since(entered)
		g.Served(a.inside)
		leave()
	}
	a.took = time.Since(came)
	return a, err
}

// figures are what came of the arrivals within a time.
type figures struct {
	rate          float64 // served in a second
	p50, p99      time.Duration
	inside, shed  time.Duration // p50 inside, p99 until sent away
	served, aways int
}

func figuresOf(all []arrival, from, to time.Duration) (f figures) {
	var took, inside, shed []time.Duration
	for _, a := range all {
		switch {
		case a.at < from || a.at >= to:
		case a.shed:
			shed = append(shed, a.took)
		default:
			took, inside = append(took, a.took), append(inside, a.inside)
		}
	}
	at := func(x []time.Duration, percent int) time.Duration {
		if len(x) == 0 {
			return 0
		}
		slices.Sort(x)
		return x[len(x)*percent/100]
	}
	return figures{rate: float64(len(took)) / (to - from).Seconds(), p50: at(took, 50), p99: at(took, 99),
		inside: at(inside, 50), shed: at(shed, 99), served: len(took), aways: len(shed)}
}

// TestLimitFollowsDevice holds the gate to a model of devices, on a clock of its
// own: what is let in keeps its latency, and no rate is lost for it.
func TestLimitFollowsDevice(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		each  time.Duration
		lanes int
		rate  float64 // asked for
		// Once it has settled: the rate at least, and p99 at most.
		least float64
		most  time.Duration
	}{
		{"one at a time, 5 ms", 5 * ms, 1, 2000, 190, 60 * ms},
		{"one at a time, 5 ms, with room", 5 * ms, 1, 120, 115, 60 * ms},
		{"one at a time, 0.5 ms", ms / 2, 1, 5000, 1900, 60 * ms},
		{"one at a time, 50 ms", 50 * ms, 1, 200, 18.5, 300 * ms},
		{"all at once, 5 ms", 5 * ms, 1000, 6000, 32 / 0.011 * 0.95, 45 * ms},
		{"all at once, 100 ms away", 100 * ms, 1000, 3000, 32 / 0.106 * 0.93, 350 * ms},
		{"all at once, 1 s away", 1000 * ms, 1000, 300, 32 / 1.006 * 0.9, 2300 * ms},
		{"eight at once, 100 ms", 100 * ms, 8, 800, 80 * 0.9, 400 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := admit.NewGate("the device", admit.Options{})
				d := &modelDevice{each: c.each, lanes: make(chan struct{}, c.lanes)}
				lasts := max(12*time.Second, 150*c.each)
				all := offer(t, g, d, c.rate, lasts)
				f := figuresOf(all, lasts/5, lasts-2*c.each)
				t.Logf("%.0f served in a second, %d sent away; p50 %v, inside %v, p99 %v", f.rate, f.aways, f.p50, f.inside, f.p99)
				if f.rate < c.least || f.p99 > c.most {
					t.Errorf("%.1f served in a second, p99 %v; want %.1f at least, %v at most", f.rate, f.p99, c.least, c.most)
				}
			})
		})
	}
}

// TestLimitFollowsChange has a device become ten times slower, and fast again,
// while ten times too much is asked of it.
func TestLimitFollowsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admit.NewGate("the device", admit.Options{})
		d := &modelDevice{each: 5 * time.Millisecond, lanes: make(chan struct{}, 1)}
		go func() {
			time.Sleep(20 * time.Second)
			d.takes(50 * time.Millisecond)
			time.Sleep(20 * time.Second)
			d.takes(5 * time.Millisecond)
		}()
		all := offer(t, g, d, 1000, 60*time.Second)
		for _, c := range []struct {
			name     string
			from, to time.Duration
			least    float64
			most     time.Duration
		}{
			{"the beginning of the overload", 0, 5 * time.Second, 180, 200 * time.Millisecond},
			{"fast", 5 * time.Second, 20 * time.Second, 190, 60 * time.Millisecond},
			{"as it becomes slow", 20 * time.Second, 21 * time.Second, 15, 700 * time.Millisecond},
			{"slow", 31 * time.Second, 40 * time.Second, 18, 300 * time.Millisecond},
			{"as it becomes fast", 40 * time.Second, 41 * time.Second, 130, 400 * time.Millisecond},
			{"fast again", 41 * time.Second, 59 * time.Second, 190, 60 * time.Millisecond},
		} {
			f := figuresOf(all, c.from, c.to)
			t.Logf("%-32s %.0f served in a second; p50 %v, inside %v, p99 %v; sent away within %v", c.name, f.rate, f.p50, f.inside, f.p99, f.shed)
			if f.rate < c.least || f.p99 > c.most {
				t.Errorf("%s: %.1f served in a second, p99 %v; want %.1f at least, %v at most", c.name, f.rate, f.p99, c.least, c.most)
			}
		}
	})
}

// wave has callers come at once, each of whom asks again when it has its answer,
// and returns what came of it. Until cold has passed, everything takes ten times
// as long: connections, statements and keys are used for the first time.
func wave(t *testing.T, g *admit.Gate, d *modelDevice, callers int, cold, lasts time.Duration) []arrival {
	var mu sync.Mutex // guards all
	var all []arrival
	var wg sync.WaitGroup
	each := d.each
	if cold > 0 {
		d.takes(10 * each)
		wg.Go(func() { time.Sleep(cold); d.takes(each) })
	}
	begin := time.Now()
	random := rand.New(rand.NewPCG(1, 2))
	for range callers {
		late := time.Duration(random.IntN(int(10 * time.Millisecond)))
		wg.Go(func() {
			time.Sleep(late)
			for time.Since(begin) < lasts {
				a, err := visit(t, g, d, begin)
				mu.Lock()
				all = append(all, a)
				mu.Unlock()
				if over, ok := errors.AsType[*admit.Overload](err); ok {
					time.Sleep(over.RetryAfter)
				}
			}
		})
	}
	wg.Wait()
	return all
}

// TestFirstWave has callers come at once to a gate that knows nothing, each of
// whom asks again when it has its answer: a queue that is shorter than MaxWait
// sends nobody away.
func TestFirstWave(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name           string
		each           time.Duration
		lanes, callers int
		cold           time.Duration
	}{
		{"0.5 ms, 256 callers", ms / 2, 1, 256, 0},
		{"0.5 ms, 256 callers, 20 ms cold", ms / 2, 1, 256, 20 * ms},
		{"0.5 ms, 256 callers, 50 ms cold", ms / 2, 1, 256, 50 * ms},
		{"two at once, 1 ms, 256 callers, 30 ms cold", ms, 2, 256, 30 * ms},
		{"0.5 ms, 100 callers, 100 ms cold", ms / 2, 1, 100, 100 * ms},
		{"5 ms, 40 callers", 5 * ms, 1, 40, 0},
		{"5 ms, 40 callers, 50 ms cold", 5 * ms, 1, 40, 50 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := admit.NewGate("the device", admit.Options{})
				d := &modelDevice{each: c.each, lanes: make(chan struct{}, c.lanes)}
				all := wave(t, g, d, c.callers, c.cold, 2*time.Second)
				f := figuresOf(all, 0, 2*time.Second)
				t.Logf("%.0f served in a second, %d sent away; p50 %v, p99 %v", f.rate, f.aways, f.p50, f.p99)
				if capacity := float64(c.lanes) / c.each.Seconds(); f.aways > 0 || f.rate < 0.9*capacity {
					t.Errorf("%d sent away, %.0f served in a second; the device does %.0f", f.aways, f.rate, capacity)
				}
			})
		})
	}
}
