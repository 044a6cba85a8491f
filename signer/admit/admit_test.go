package admit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/privyseal/privyseal/signer/admit"
)

var start = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func overload(t testing.TB, err error) *admit.Overload {
	t.Helper()
	o, ok := errors.AsType[*admit.Overload](err)
	if !ok || o.RetryAfter <= 0 {
		t.Fatalf("%v, want an Overload with a time to retry", err)
	}
	return o
}

func TestBudgetOfEachScope(t *testing.T) {
	b := admit.NewBudget(admit.Rates{Tenant: admit.Rate{PerSecond: 10}, Caller: admit.Rate{PerSecond: 5}, Key: admit.Rate{PerSecond: 3},
		Tenants: map[string]admit.Rate{"large": {PerSecond: 100, Burst: 4}}})
	take := func(at time.Duration, tenant, caller, key string) error {
		return b.Take(start.Add(at), tenant, caller, key, 1)
	}
	for range 3 {
		if err := take(0, "a", "x", "k1"); err != nil {
			t.Fatal(err)
		}
	}
	if o := overload(t, take(0, "a", "x", "k1")); o.What != "the budget of the key" || o.RetryAfter > 334*time.Millisecond {
		t.Errorf("the fourth: %v", o)
	}
	// What the key refused did not count for the caller: two are left.
	for range 2 {
		if err := take(0, "a", "x", "k2"); err != nil {
			t.Fatal(err)
		}
	}
	if o := overload(t, take(0, "a", "x", "k2")); o.What != "the budget of the caller" {
		t.Errorf("the sixth: %v", o)
	}
	if err := take(0, "b", "x", "k1"); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	if err := take(400*time.Millisecond, "a", "x", "k1"); err != nil {
		t.Errorf("after the time it was told: %v", err)
	}
	for i := range 4 {
		if err := take(0, "large", fmt.Sprint(i), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	overload(t, take(0, "large", "z", "z"))
	if err := admit.NewBudget(admit.Rates{}).Take(start, "a", "b", "c", 1000); err != nil {
		t.Errorf("without bounds: %v", err)
	}
}

// TestBudgetNeverExceeds draws requests and holds what passed to the rate.
func TestBudgetNeverExceeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := admit.Rate{PerSecond: float64(rapid.IntRange(1, 50).Draw(t, "rate")), Burst: rapid.IntRange(1, 20).Draw(t, "burst")}
		b := admit.NewBudget(admit.Rates{Tenant: r})
		now, passed := start, 0
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "ms")) * time.Millisecond)
			if b.Take(now, "a", "b", "c", 1) == nil {
				passed++
			}
		}
		if most := float64(r.Burst) + now.Sub(start).Seconds()*r.PerSecond + 1e-6; float64(passed) > most {
			t.Fatalf("%d passed, at most %.2f may", passed, most)
		}
	})
}

// TestGateSharesAlike has one tenant ask with ten times as many callers as
// another; both get about half while both want more.
func TestGateSharesAlike(t *testing.T) {
	g := admit.NewGate("the device", admit.Options{Inside: 2, Waiting: 1000, MaxWait: time.Minute})
	ctx, stop := context.WithCancel(t.Context())
	var served [2]atomic.Int64
	var wg sync.WaitGroup
	for tenant, callers := range []int{40, 4} {
		for i := range callers {
			wg.Go(func() {
				for ctx.Err() == nil {
					leave, err := g.Enter(ctx, fmt.Sprint(tenant), fmt.Sprint(i))
					if err != nil {
						return
					}
					time.Sleep(500 * time.Microsecond)
					leave()
					served[tenant].Add(1)
				}
			})
		}
	}
	for served[0].Load()+served[1].Load() < 1000 {
		time.Sleep(time.Millisecond)
	}
	stop()
	wg.Wait()
	a, b := served[0].Load(), served[1].Load()
	if b < a*8/10 || a < b*8/10 {
		t.Errorf("the tenant with 40 callers was served %d times, that with 4 %d times", a, b)
	}
	if inside, waiting := g.Load(); inside != 0 || waiting != 0 {
		t.Errorf("%d inside and %d waiting at the end", inside, waiting)
	}
}

// TestGateCallersShareAlike: within a tenant, a caller with many requests does
// not keep out one with few.
func TestGateCallersShareAlike(t *testing.T) {
	g := admit.NewGate("the device", admit.Options{Inside: 1, MaxWait: time.Minute})
	leave, err := g.Enter(t.Context(), "a", "first")
	if err != nil {
		t.Fatal(err)
	}
	order := make(chan string, 21)
	var wg sync.WaitGroup
	ask := func(caller string) {
		_, before := g.Load()
		wg.Go(func() {
			leave, err := g.Enter(context.Background(), "a", caller)
			if err != nil {
				t.Error(err)
				return
			}
			order <- caller
			leave()
		})
		for _, waiting := g.Load(); waiting == before; _, waiting = g.Load() {
			time.Sleep(time.Millisecond)
		}
	}
	for range 20 {
		ask("greedy")
	}
	ask("modest")
	leave()
	wg.Wait()
	close(order)
	place := 0
	for caller := range order {
		place++
		if caller == "modest" && place > 2 {
			t.Errorf("the modest caller came %d. of 21", place)
		}
	}
}

func TestGateEnds(t *testing.T) {
	g := admit.NewGate("the device", admit.Options{Inside: 1, Waiting: 2, MaxWait: 50 * time.Millisecond})
	leave, err := g.Enter(t.Context(), "a", "x")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err = g.Enter(t.Context(), "a", "x")
	overload(t, err)
	if waited := time.Since(begin); waited < 50*time.Millisecond {
		t.Errorf("sent away after %v", waited)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := g.Enter(ctx, "a", "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { g.Enter(t.Context(), "a", "x") })
	}
	for _, waiting := g.Load(); waiting < 2; _, waiting = g.Load() {
		time.Sleep(time.Millisecond)
	}
	begin = time.Now()
	_, err = g.Enter(t.Context(), "a", "x")
	overload(t, err)
	if waited := time.Since(begin); waited > 20*time.Millisecond {
		t.Errorf("sent away from a full queue only after %v", waited)
	}
	wg.Wait()
	leave()
	if inside, waiting := g.Load(); inside != 0 || waiting != 0 {
		t.Errorf("%d inside and %d waiting at the end", inside, waiting)
	}
	leave, err = g.Enter(t.Context(), "b", "y")
	if err != nil {
		t.Fatalf("after all left: %v", err)
	}
	leave()
}

// TestGateKeepsNoStandingQueue: a burst is waited for; of ten times what the
// device can do, what is let in waits a tenth, and the device is never idle.
func TestGateKeepsNoStandingQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pace = 5 * time.Millisecond
		g := admit.NewGate("the device", admit.Options{Inside: 1})
		var device sync.Mutex
		var done, away int
		var worst time.Duration // of those that came after the first half second
		var mu sync.Mutex       // guards the three
		begin := time.Now()
		ask := func() {
			came := time.Now()
			leave, err := g.Enter(t.Context(), "a", "x")
			waited := time.Since(came)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				if away++; waited > 0 && came.Sub(begin) > time.Second/2 {
					t.Errorf("sent away after %v", waited)
				}
				return
			}
			if done++; came.Sub(begin) > time.Second/2 {
				worst = max(worst, waited)
			}
			mu.Unlock()
			device.Lock()
			time.Sleep(pace)
			device.Unlock()
			leave()
			mu.Lock()
		}
		var wg sync.WaitGroup
		for range 40 { // a burst of 200 ms
			wg.Go(ask)
		}
		wg.Wait()
		if away > 0 {
			t.Errorf("%d of a burst were sent away", away)
		}
		done, begin = 0, time.Now()
		for range 4000 { // for 2 s
			wg.Go(ask)
			time.Sleep(pace / 10)
		}
		wg.Wait()
		if worst > 40*time.Millisecond {
			t.Errorf("somebody who was let in had waited %v", worst)
		}
		if least := int(2 * time.Second / pace * 9 / 10); done < least {
			t.Errorf("%d were served, want %d", done, least)
		}
	})
}

// TestGateCounts has many come and give up at random; never are more inside
// than may be, and nobody is lost.
func TestGateCounts(t *testing.T) {
	const inside = 3
	g := admit.NewGate("the device", admit.Options{Inside: inside, MaxWait: 3 * time.Millisecond})
	var now, most, done atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 50 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+(i+j)%5)*time.Millisecond)
				if leave, err := g.Enter(ctx, fmt.Sprint(i%5), fmt.Sprint(i)); err == nil {
					n := now.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					time.Sleep(100 * time.Microsecond)
					now.Add(-1)
					done.Add(1)
					leave()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > inside || done.Load() == 0 {
		t.Errorf("%d were inside at once, %d got in", most.Load(), done.Load())
	}
	if i, w := g.Load(); i != 0 || w != 0 {
		t.Errorf("%d inside and %d waiting at the end", i, w)
	}
}

func BenchmarkEnter(b *testing.B) {
	g := admit.NewGate("the device", admit.Options{})
	budget := admit.NewBudget(admit.Rates{Tenant: admit.Rate{PerSecond: 1e9}, Caller: admit.Rate{PerSecond: 1e9}, Key: admit.Rate{PerSecond: 1e9}})
	b.ReportAllocs()
	for b.Loop() {
		if err := budget.Take(time.Now(), "a", "b", "c", 1); err != nil {
			b.Fatal(err)
		}
		leave, err := g.Enter(context.Background(), "a", "b")
		if err != nil {
			b.Fatal(err)
		}
		leave()
	}
}

// TestGateAgain: what was let in before waits for its turn beyond MaxWait and
// behind a full queue, and ends with its context.
func TestGateAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admit.NewGate("the device", admit.Options{Inside: 1, Waiting: 1, MaxWait: 50 * time.Millisecond})
		leave, err := g.Enter(t.Context(), "a", "x")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				leave, err := g.Again(t.Context(), "a", "x")
				if err != nil {
					t.Errorf("sent away: %v", err)
					return
				}
				leave()
			})
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := g.Again(ctx, "a", "x"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after its deadline: %v", err)
			}
		})
		synctest.Wait()
		_, err = g.Enter(t.Context(), "a", "y")
		overload(t, err)
		time.Sleep(2 * time.Second)
		if inside, waiting := g.Load(); inside != 1 || waiting != 3 {
			t.Errorf("%d inside and %d waiting", inside, waiting)
		}
		leave()
		wg.Wait()
		if inside, waiting := g.Load(); inside != 0 || waiting != 0 {
			t.Errorf("%d inside and %d waiting at the end", inside, waiting)
		}
	})
}
