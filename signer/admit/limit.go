package admit

import "time"

// A limiter says how many may be inside. It follows the pace at which requests
// are served, by Little's law: who comes in now leaves after (requests inside) /
// (requests served in a second). So many are let in that this is the target, or
// twice of what a request takes when nobody else is inside, if that is more: a
// device far away that works on many at once takes its time however few there
// are, and more of them inside are served sooner.
//
// Both are measured. The pace is while others wait; that they may be none for a
// moment makes it seem slower, and the factor of two leaves room for that. The
// time of a request alone is taken when it was; while that does not happen by
// itself, and matters, one is let in alone now and then.
type limiter struct {
	ceiling int
	target  time.Duration

	limit   int
	taught  bool          // a request was served
	settled bool          // there was a round in which the limit did not grow
	probing bool          // one at a time, until the time alone is known
	alone   time.Duration // a request's time with nobody else inside, the least of late; 0 if not known
	aloneAt time.Time     // when that was confirmed last

	full   time.Time // when others waited last
	round  time.Time // when the round began
	served int       // in it
}

const (
	// least inside keep a device at work that does one at a time: while it works
	// for one, the journal does for another.
	least = 2
	// firstLimit is the limit while nothing is known.
	firstLimit = 8
	// A round has so many requests, twice as many as may be inside, and takes so
	// long: what came in together is served together.
	roundRequests = 4
	roundTime     = 50 * time.Millisecond
	// A measured time alone is good for so long, and for so many times itself. A
	// probe takes twice that time, or ends without it when so many were served
	// beyond those that were inside.
	aloneFor   = 10 * time.Second
	aloneTimes = 50
	maxProbe   = 16
	// patience is how many times of its time alone a request may take inside.
	patience = 2
)

func newLimiter(o Options) limiter {
	return limiter{ceiling: o.Inside, target: o.MaxWait / insideShare, limit: min(firstLimit, o.Inside)}
}

// now is how many may be inside.
func (l *limiter) now() int {
	if l.probing {
		return 1
	}
	return l.limit
}

// done counts a request that was served at now. took is its time inside if
// nobody else was, otherwise 0. waiting says whether others wait.
func (l *limiter) done(now time.Time, took time.Duration, waiting bool) {
	l.taught = true
	if took > 0 {
		l.sample(now, took)
	}
	switch {
	case waiting:
		l.full = now
	case now.Sub(l.full) > standing:
		l.round, l.probing = time.Time{}, false
		return
	}
	if l.round.IsZero() {
		l.round, l.served = now, 0
		return
	}
	l.served++
	if l.probing {
		if l.served > l.limit+maxProbe { // what is served was never alone for all of its time
			l.probing, l.aloneAt, l.round = false, now, time.Time{}
		}
		return
	}
	lasted := now.Sub(l.round)
	if lasted < roundTime || l.served < max(2*l.limit, roundRequests) {
		return
	}
	rate := float64(l.served) / lasted.Seconds()
	l.round, l.served = now, 0
	l.follow(now, rate)
}

// growing reports whether more may soon be let in, and be served in a second, as
// far as is known.
func (l *limiter) growing() bool { return l.taught && !l.settled }

// sample takes a time alone: the least of late.
func (l *limiter) sample(now time.Time, took time.Duration) {
	if l.probing {
		l.probing, l.round = false, time.Time{} // the rate of a probe says nothing
	}
	switch {
	case l.alone == 0 || took <= l.alone || l.forgotten(now):
		l.alone, l.aloneAt = took, now
	case took <= l.alone+l.alone/4:
		l.aloneAt = now
	}
}

// follow sets the limit for a rate of requests in a second.
func (l *limiter) follow(now time.Time, rate float64) {
	want := rate * l.target.Seconds()
	if want < float64(l.ceiling) { // else it does not matter how long one takes alone
		if l.forgotten(now) {
			l.probing = true
			return
		}
		want = rate * max(l.target, patience*l.alone).Seconds()
	}
	want = min(want, float64(2*l.limit), float64(l.ceiling)) // what raises the rate shows in the next round
	was := l.limit
	l.limit = min(max(int(want+0.5), least), l.ceiling)
	l.settled = l.settled || l.limit <= was || l.limit == l.ceiling
}

// forgotten reports whether the time alone is too old to go by.
func (l *limiter) forgotten(now time.Time) bool {
	return now.Sub(l.aloneAt) > max(aloneFor, aloneTimes*l.alone)
}
