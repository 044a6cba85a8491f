package admit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Rate is how many requests may come in a second over time, and how many at
// once. The zero Rate has no bound.
type Rate struct {
	PerSecond float64
	Burst     int // PerSecond, at least 1, if 0
}

func (r Rate) limiter() *rate.Limiter {
	burst := r.Burst
	if burst == 0 {
		burst = max(int(r.PerSecond), 1)
	}
	return rate.NewLimiter(rate.Limit(r.PerSecond), burst)
}

// Rates are the bounds of each tenant, caller and key.
type Rates struct {
	Tenant, Caller, Key Rate
	// Tenants has those of tenants that differ from Tenant.
	Tenants map[string]Rate
}

// maxBudgets bounds what is remembered of late. What was used longest ago is
// full again by then, unless rates are tiny.
const maxBudgets = 1 << 16

// A Budget counts requests against Rates. Its methods may be called at the same
// time.
type Budget struct {
	rates Rates

	mu   sync.Mutex // guards used and old
	used map[budgetKey]*rate.Limiter
	old  map[budgetKey]*rate.Limiter // the generation before
}

type budgetKey struct {
	scope        byte // 't', 'c', 'k'
	tenant, name string
}

// NewBudget returns a Budget.
func NewBudget(r Rates) *Budget {
	return &Budget{rates: r, used: make(map[budgetKey]*rate.Limiter)}
}

// Take takes n requests from the budgets of the tenant, the caller and the key,
// from all of them or, with an *Overload, from none.
func (b *Budget) Take(now time.Time, tenant, caller, key string, n int) error {
	tenantRate, own := b.rates.Tenants[tenant]
	if !own {
		tenantRate = b.rates.Tenant
	}
	taken := make([]*rate.Reservation, 0, 3)
	for _, x := range []struct {
		what string
		rate Rate
		key  budgetKey
	}{
		{"the budget of the tenant", tenantRate, budgetKey{'t', tenant, ""}},
		{"the budget of the caller", b.rates.Caller, budgetKey{'c', tenant, caller}},
		{"the budget of the key", b.rates.Key, budgetKey{'k', tenant, key}},
	} {
		if x.rate.PerSecond == 0 {
			continue
		}
		r := b.of(x.key, x.rate).ReserveN(now, n)
		if r.OK() && r.DelayFrom(now) == 0 {
			taken = append(taken, r)
			continue
		}
		wait := time.Second // more at once than the burst: never, but let them learn of it
		if r.OK() {
			wait = r.DelayFrom(now)
			r.CancelAt(now)
		}
		for _, t := range taken {
			t.CancelAt(now)
		}
		return &Overload{What: x.what, RetryAfter: wait}
	}
	return nil
}

func (b *Budget) of(k budgetKey, r Rate) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.used[k]
	if ok {
		return l
	}
	if l, ok = b.old[k]; !ok {
		l = r.limiter()
	}
	if len(b.used) >= maxBudgets/2 {
		b.old, b.used = b.used, make(map[budgetKey]*rate.Limiter)
	}
	b.used[k] = l
	return l
}
