package admit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Options are the sizes of a Gate. The zero value works.
type Options struct {
	// Inside is how many requests may be inside at once; 32 if 0. It is more
	// than the device does at once, since journal and network take their time.
	// While others wait, fewer are let in as far as that costs no rate: see
	// MaxWait.
	Inside int
	// Waiting is how many requests of one tenant may wait; 256 if 0.
	Waiting int
	// MaxWait is how long a request may wait; 250 ms if 0. When some were sent
	// away for it, and the queue has been there for a tenth of a second, who would
	// wait longer than a twentieth of MaxWait is sent away too, until nobody was
	// for a second. So many are let in that what is inside takes a twelfth of
	// MaxWait, or twice its time alone if that is more.
	MaxWait time.Duration
}

func (o Options) withDefaults() Options {
	if o.Inside <= 0 {
		o.Inside = 32
	}
	if o.Waiting <= 0 {
		o.Waiting = 256
	}
	if o.MaxWait <= 0 {
		o.MaxWait = 250 * time.Millisecond
	}
	return o
}

// A Gate lets requests in, tenant by tenant in turn. Its methods may be called
// at the same time.
type Gate struct {
	what string
	opt  Options

	mu      sync.Mutex // guards the rest
	inside  int
	limit   limiter
	calm    time.Time        // since when few are inside; zero while more are
	tenants map[string]*line // those with somebody waiting
	turn    []*line          // the same, in the order of their turns
	waiting int
	pace    pace      // of those that leave
	left    time.Time // when the last one left, if others waited then
	since   time.Time // when the queue began, if it is not empty; that it was for a moment does not count
	refused time.Time // when somebody was sent away last because of the queue
}

// line are the waiting requests of one tenant, callers in turn.
type line struct {
	tenant  string
	callers []*callers
	length  int
}

type callers struct {
	name  string
	queue []*waiter
}

type waiter struct {
	in     chan struct{} // closed when it is let in
	line   *line
	of     *callers
	came   time.Time
	stays  bool // is not sent away
	inside bool
	away   error // set before in is closed: it is sent away
}

// NewGate returns a Gate; what names it in errors, such as "device token".
func NewGate(what string, opt Options) *Gate {
	opt = opt.withDefaults()
	return &Gate{what: what, opt: opt, limit: newLimiter(opt), calm: time.Now(), tenants: make(map[string]*line)}
}

// Enter waits for a turn and returns the function that must be called once at
// the end. It returns an *Overload when the wait would be, or was, too long, or
// ctx's error.
func (g *Gate) Enter(ctx context.Context, tenant, caller string) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	if g.enterFree() {
		g.mu.Unlock()
		return g.leave, nil
	}
	w, err := g.join(ctx, tenant, caller)
	g.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return g.wait(ctx, w)
}

// Again is Enter for a further part of something that was let in before: it
// waits for its turn like others, but as long as ctx, and is not sent away.
func (g *Gate) Again(ctx context.Context, tenant, caller string) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	if g.enterFree() {
		g.mu.Unlock()
		return g.leave, nil
	}
	w := g.queue(g.lineOf(tenant), caller)
	w.stays = true
	g.mu.Unlock()
	select {
	case <-w.in:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		if leave, _ := g.giveUp(w, err); leave != nil {
			leave()
		}
		return nil, err
	}
	return g.leave, nil
}

// join queues a waiter, or says that it would wait too long. The first of a
// tenant is never sent away for what others queue: its turn comes soon.
func (g *Gate) join(ctx context.Context, tenant, caller string) (*waiter, error) {
	l := g.tenants[tenant]
	length, lines := 1, len(g.turn)
	if l == nil {
		lines++
	} else {
		length += l.length
	}
	expected := time.Duration(length*lines) * g.expected()
	deadline, bound := ctx.Deadline()
	full := length > g.opt.Waiting || length > 1 && expected > g.useful()
	if full {
		g.refused = time.Now()
	}
	if full || bound && time.Until(deadline) < expected {
		return nil, g.overload(g.retryAfter(expected))
	}
	return g.queue(g.lineOf(tenant), caller), nil
}

// lineOf returns the line of a tenant, at the end of the turns if it is new.
func (g *Gate) lineOf(tenant string) *line {
	l := g.tenants[tenant]
	if l == nil {
		l = &line{tenant: tenant}
		g.tenants[tenant] = l
		g.turn = append(g.turn, l)
	}
	return l
}

// A queue takes up a burst, and callers that wait for their answers before they
// ask again. When it has been full, and neither empty for as long as standing nor
// without somebody sent away for as long as overloaded, it takes up nothing: it
// only adds to the time of everybody in it, and is kept short.
const (
	standing   = 100 * time.Millisecond
	overloaded = time.Second
)

// The shares of MaxWait that a request waits at most before a queue that is kept
// short, and then spends inside.
const (
	queueShare  = 20
	insideShare = 12
)

func (g *Gate) stands() bool {
	return g.waiting > 0 && time.Since(g.since) > standing && time.Since(g.refused) < overloaded
}

// useful is how long somebody who comes now may expect to wait.
func (g *Gate) useful() time.Duration {
	if g.stands() {
		return g.opt.MaxWait / queueShare
	}
	return g.opt.MaxWait
}

// stale reports whether a waiter has waited longer than is useful in a queue
// that is kept short: it came with the burst at the beginning, and would only
// have all after it wait as long. A tenant's only one stays.
func (g *Gate) stale(w *waiter, now time.Time) bool {
	if w.stays || w.line.length < 2 || !g.stands() {
		return false
	}
	turns := time.Duration(2*(len(g.turn)+1)) * g.pace.mean()
	return now.Sub(w.came) > max(g.opt.MaxWait/queueShare, turns)
}

func (g *Gate) queue(l *line, caller string) *waiter {
	w := &waiter{in: make(chan struct{}), line: l, came: time.Now()}
	if g.waiting == 0 && w.came.Sub(g.refused) > standing {
		g.since = w.came
	}
	for _, c := range l.callers {
		if c.name == caller {
			w.of = c
		}
	}
	if w.of == nil {
		w.of = &callers{name: caller}
		l.callers = append(l.callers, w.of)
	}
	w.of.queue = append(w.of.queue, w)
	l.length++
	g.waiting++
	return w
}

// retryAfter spreads those who were sent away over the time that the queue
// takes, at least a tenth of a second.
func (g *Gate) retryAfter(expected time.Duration) time.Duration {
	return min(max(expected, g.opt.MaxWait, 100*time.Millisecond), 5*time.Second)
}

func (g *Gate) wait(ctx context.Context, w *waiter) (func(), error) {
	timer := time.NewTimer(g.opt.MaxWait)
	defer timer.Stop()
	var err error
	select {
	case <-w.in:
		if w.away != nil {
			return nil, w.away
		}
		return g.leave, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = g.overload(g.opt.MaxWait)
	}
	return g.giveUp(w, err)
}

func (g *Gate) overload(after time.Duration) *Overload {
	return &Overload{What: fmt.Sprintf("the tenant's share of %s", g.what), RetryAfter: after}
}

// giveUp ends a wait with an error, unless its turn came meanwhile.
func (g *Gate) giveUp(w *waiter, err error) (func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case w.inside:
		return g.leave, nil
	case w.away != nil:
		return nil, w.away
	}
	g.drop(w)
	return nil, err
}

// drop takes a waiter out of its queue, and with the last one the queue.
func (g *Gate) drop(w *waiter) {
	l := w.line
	w.of.queue = slices.DeleteFunc(w.of.queue, func(q *waiter) bool { return q == w })
	if len(w.of.queue) == 0 {
		l.callers = slices.DeleteFunc(l.callers, func(c *callers) bool { return c == w.of })
	}
	if len(l.callers) == 0 {
		g.turn = slices.DeleteFunc(g.turn, func(t *line) bool { return t == l })
		delete(g.tenants, l.tenant)
	}
	l.length--
	g.waiting--
}

// leave makes room for the next.
func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.measure(now)
	if g.inside--; g.inside <= 1 && g.calm.IsZero() {
		g.calm = now
	}
	for g.inside < g.limit.now() {
		w := g.next()
		if w == nil {
			return
		}
		stale := g.stale(w, now)
		w.line.length--
		g.waiting--
		if stale {
			w.away = g.overload(g.retryAfter(0))
		} else {
			w.inside = true
			g.enter()
		}
		close(w.in)
	}
}

// enterFree lets one in if there is room and nobody waits.
func (g *Gate) enterFree() bool {
	free := g.inside < g.limit.now() && g.waiting == 0
	if free {
		g.enter()
	}
	return free
}

func (g *Gate) enter() {
	if g.inside++; g.inside > 1 {
		g.calm = time.Time{}
	}
}

// Served tells that a request which was let in has been served, and how long it
// was inside. It is called before leave, and not for what was refused or failed:
// how many are let in follows from it.
func (g *Gate) Served(took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.calm.IsZero() || now.Sub(g.calm) < took {
		took = 0
	}
	g.limit.done(now, took, g.waiting > 0)
}

// measure takes the time since the one before left, if the gate was full all
// that time; otherwise the pace says less with each that leaves.
func (g *Gate) measure(now time.Time) {
	if g.waiting == 0 {
		g.pace.fade()
		g.left = time.Time{}
		return
	}
	if !g.left.IsZero() {
		g.pace.add(now.Sub(g.left))
	}
	g.left = now
}

// expected is the time between two turns, as far as it can be relied on: 0 while
// little was measured, and while more are let in from round to round. What comes
// then may be a first wave, which cannot be told from too much; the queue takes
// it up, as far as there is room.
func (g *Gate) expected() time.Duration {
	if g.limit.growing() || !g.pace.known() {
		return 0
	}
	return g.pace.mean()
}

// A pace is the time between two that leave while others wait: the mean of the
// last paceCount at least, and of paceTime at least. Those that share a flush
// leave together, so that a few would say nothing.
type pace struct {
	took  time.Duration
	count int
}

const (
	paceTime  = 100 * time.Millisecond
	paceCount = 16
)

func (p *pace) add(gap time.Duration) {
	p.took += gap
	p.count++
	if p.took > 2*paceTime && p.count > 2*paceCount {
		p.took, p.count = p.took/2, p.count/2
	}
}

// fade is for one that leaves while nobody waits.
func (p *pace) fade() { p.took -= p.took / 16 }

func (p *pace) known() bool { return p.took >= paceTime && p.count > 1 }

func (p *pace) mean() time.Duration { return p.took / time.Duration(max(p.count, 1)) }

// next takes the first waiter of the caller whose turn it is, of the tenant
// whose turn it is, and sends both to the end. It returns nil if nobody waits.
func (g *Gate) next() *waiter {
	if len(g.turn) == 0 {
		return nil
	}
	l := g.turn[0]
	c := l.callers[0]
	w := c.queue[0]
	c.queue[0] = nil // for the garbage collector
	c.queue, l.callers, g.turn = c.queue[1:], l.callers[1:], g.turn[1:]
	if len(c.queue) > 0 {
		l.callers = append(l.callers, c)
	}
	if len(l.callers) > 0 {
		g.turn = append(g.turn, l)
	} else {
		delete(g.tenants, l.tenant)
	}
	return w
}

// Load returns how many are inside and how many wait.
func (g *Gate) Load() (inside, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside, g.waiting
}
