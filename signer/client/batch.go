package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
)

// Bounds of what shares a request.
const (
	maxItems = 64       // calls in one request
	maxItem  = 32 << 10 // octets of a call; a larger one is a request of its own
	// flightsBalanced is how many requests of a lane are under way while the
	// service keeps pace: one that it works on, and one that is on its way.
	flightsBalanced = 2
	// patience is how long a call waits for a request of its lane to come back.
	// After that it goes without, so that one slow call in a request does not
	// keep those behind it; but never are more than flightsMost under way.
	patience    = 50 * time.Millisecond
	flightsMost = 8
)

// A batcher has calls that are made at once share requests, as a group commit
// has writes share a flush. A call that finds no other under way goes at once,
// as a request of its own; those that come meanwhile wait and go as one request
// when one comes back, or when they have become as many as are under way.
//
// Calls wait only for calls to the same device, which are in one lane.
type batcher struct {
	off atomic.Bool // the service has no Batch

	mu    sync.Mutex // guards lanes and all that is in them
	lanes map[string]*lane
}

// A lane is the calls to one device.
type lane struct {
	name    string
	waiting []*waiter
	flights int // requests under way
	aloft   int // calls in them
}

// A waiter is a call that waits for its request.
type waiter struct {
	ctx    context.Context
	item   *signerv1.BatchItem
	begin  time.Time
	done   chan landing // has room for one
	flight *flight      // nil while it waits, and if it goes alone
}

// A flight is a request with several calls.
type flight struct {
	calls  []*waiter
	cancel context.CancelFunc
	aboard int // calls whose callers still wait; guarded by batcher.mu
}

// A landing is what comes of waiting: the call's result, or that it is to go
// alone.
type landing struct {
	alone  bool
	result *signerv1.BatchResult
	err    error
}

func newBatcher() *batcher { return &batcher{lanes: make(map[string]*lane)} }

// lane returns the lane of that name. It is kept while it is in use.
func (b *batcher) lane(name string) *lane {
	l := b.lanes[name]
	if l == nil {
		l = &lane{name: name}
		b.lanes[name] = l
	}
	return l
}

// enter lets a call into a lane: nil says that it goes alone at once, which
// ends with land.
func (b *batcher) enter(ctx context.Context, c *Client, name string, item func() *signerv1.BatchItem) (*lane, *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lane(name)
	if len(l.waiting) == 0 && l.room(1) {
		l.flights++
		l.aloft++
		return l, nil
	}
	w := &waiter{ctx: ctx, item: item(), begin: time.Now(), done: make(chan landing, 1)}
	l.waiting = append(l.waiting, w)
	b.start(c, l)
	return l, w
}

// room reports whether n waiting calls may go.
func (l *lane) room(n int) bool {
	return l.flights == 0 || l.flights < flightsBalanced && n*l.flights >= l.aloft
}

// late reports whether the call that has waited longest goes without room.
func (l *lane) late() bool {
	return l.flights < flightsMost && time.Since(l.waiting[0].begin) >= patience
}

// land counts a request with n calls as come back.
func (b *batcher) land(c *Client, l *lane, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.flights--
	l.aloft -= n
	b.start(c, l)
	if l.flights == 0 {
		delete(b.lanes, l.name)
	}
}

// start has waiting calls go, as many as may. The caller holds mu.
func (b *batcher) start(c *Client, l *lane) {
	for len(l.waiting) > 0 && (l.room(len(l.waiting)) || l.late()) {
		n := min(len(l.waiting), maxItems)
		calls := slices.Clone(l.waiting[:n])
		l.waiting = slices.Delete(l.waiting, 0, n)
		l.flights++
		l.aloft += n
		if n == 1 {
			calls[0].done <- landing{alone: true}
			continue
		}
		f := &flight{calls: calls, aboard: n}
		for _, w := range calls {
			w.flight = f
		}
		var ctx context.Context
		ctx, f.cancel = context.WithDeadline(context.Background(), f.deadline())
		go b.fly(ctx, c, l, f)
	}
}

// deadline is the latest of the calls'. Each has one.
func (f *flight) deadline() (latest time.Time) {
	for _, w := range f.calls {
		if d, ok := w.ctx.Deadline(); ok && d.After(latest) {
			latest = d
		}
	}
	return latest
}

// fly makes the request and hands out its results.
func (b *batcher) fly(ctx context.Context, c *Client, l *lane, f *flight) {
	defer f.cancel()
	m := &signerv1.BatchRequest{Items: make([]*signerv1.BatchItem, len(f.calls))}
	now := time.Now()
	for i, w := range f.calls {
		if d, ok := w.ctx.Deadline(); ok {
			w.item.TimeoutMs = uint32(max(d.Sub(now).Milliseconds(), 1))
		}
		m.Items[i] = w.item
	}
	r, err := c.signing.Batch(ctx, connect.NewRequest(m))
	switch {
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		b.off.Store(true)
	case err != nil:
		err = Explain(err)
	case len(r.Msg.GetResults()) != len(f.calls):
		err = fmt.Errorf("%w: %d results for %d calls", ErrCorrupt, len(r.Msg.GetResults()), len(f.calls))
	}
	for i, w := range f.calls {
		if err != nil {
			w.done <- landing{err: err, alone: b.off.Load()}
			continue
		}
		w.done <- landing{result: r.Msg.GetResults()[i]}
	}
	b.land(c, l, len(f.calls))
}

// wait waits for the request of w.
func (b *batcher) wait(c *Client, l *lane, w *waiter) (landing, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case r := <-w.done:
			return r, nil
		case <-late.C:
			b.mu.Lock()
			b.start(c, l)
			b.mu.Unlock()
		case <-w.ctx.Done():
			return b.giveUp(c, l, w)
		}
	}
}

// giveUp takes w out of its lane or its request. A request that nobody waits
// for is cancelled.
func (b *batcher) giveUp(c *Client, l *lane, w *waiter) (landing, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := w.flight; f != nil {
		if f.aboard--; f.aboard == 0 {
			f.cancel()
		}
		return landing{}, gone(w.ctx)
	}
	if i := slices.Index(l.waiting, w); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		return landing{}, gone(w.ctx)
	}
	return <-w.done, nil // it was its turn to go alone: its own context ends that
}

// gone is the error of a call whose context has ended.
func gone(ctx context.Context) error {
	code := connect.CodeCanceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	return Explain(connect.NewError(code, ctx.Err()))
}

// An operation is one that may share a request with others.
type operation[Req, Res any, M message[Req]] struct {
	alone  func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error)
	item   func(M) *signerv1.BatchItem
	result func(*signerv1.BatchResult) *Res
}

// A message is a pointer to one of the API's.
type message[T any] interface {
	*T
	proto.Message
}

func (c *Client) signs() operation[signerv1.SignRequest, signerv1.SignResponse, *signerv1.SignRequest] {
	return operation[signerv1.SignRequest, signerv1.SignResponse, *signerv1.SignRequest]{c.signing.Sign, func(m *signerv1.SignRequest) *signerv1.BatchItem {
		return &signerv1.BatchItem{Operation: &signerv1.BatchItem_Sign{Sign: m}}
	}, (*signerv1.BatchResult).GetSigned}
}

func (c *Client) franks() operation[signerv1.FrankRequest, signerv1.FrankResponse, *signerv1.FrankRequest] {
	return operation[signerv1.FrankRequest, signerv1.FrankResponse, *signerv1.FrankRequest]{c.signing.Frank, func(m *signerv1.FrankRequest) *signerv1.BatchItem {
		return &signerv1.BatchItem{Operation: &signerv1.BatchItem_Frank{Frank: m}}
	}, (*signerv1.BatchResult).GetFranked}
}

func (c *Client) macs() operation[signerv1.MacRequest, signerv1.MacResponse, *signerv1.MacRequest] {
	return operation[signerv1.MacRequest, signerv1.MacResponse, *signerv1.MacRequest]{c.signing.Mac, func(m *signerv1.MacRequest) *signerv1.BatchItem {
		return &signerv1.BatchItem{Operation: &signerv1.BatchItem_Mac{Mac: m}}
	}, (*signerv1.BatchResult).GetComputed}
}

func (c *Client) agrees() operation[signerv1.AgreeRequest, signerv1.AgreeResponse, *signerv1.AgreeRequest] {
	return operation[signerv1.AgreeRequest, signerv1.AgreeResponse, *signerv1.AgreeRequest]{c.signing.Agree, func(m *signerv1.AgreeRequest) *signerv1.BatchItem {
		return &signerv1.BatchItem{Operation: &signerv1.BatchItem_Agree{Agree: m}}
	}, (*signerv1.BatchResult).GetAgreed}
}

// attempt makes one attempt within the Timeout, alone or with others of the
// lane.
func attempt[Req, Res any, M message[Req]](ctx context.Context, c *Client, lane string, op operation[Req, Res, M], m M) (*Res, error) {
	b := c.batches
	if b == nil || b.off.Load() || proto.Size(m) > maxItem {
		return once(ctx, c, op.alone, m)
	}
	ctx, cancel := context.WithTimeout(ctx, c.c.Timeout)
	defer cancel()
	// The item is a copy: it may be sent when the caller has gone and its octets
	// are those of something else.
	l, w := b.enter(ctx, c, lane, func() *signerv1.BatchItem { return op.item(proto.CloneOf(m)) })
	if w == nil {
		defer b.land(c, l, 1)
		return once(ctx, c, op.alone, m)
	}
	r, err := b.wait(c, l, w)
	if err != nil {
		return nil, err
	}
	if r.alone {
		if w.flight == nil {
			defer b.land(c, l, 1)
		}
		return once(ctx, c, op.alone, m)
	}
	if r.err != nil {
		return nil, r.err
	}
	if f := r.result.GetFailure(); f != nil {
		return nil, explainFailure(f)
	}
	if out := op.result(r.result); out != nil {
		return out, nil
	}
	return nil, fmt.Errorf("%w: the result of a call is of another kind", ErrCorrupt)
}

// deviceLane is the lane of the device of a key's active version.
func deviceLane(k *signerv1.Key) string {
	for _, v := range k.GetVersions() {
		if v.GetNumber() == k.GetActiveVersion() {
			return "device " + v.GetDevice()
		}
	}
	return keyLane(k.GetName())
}

// keyLane is the lane of a key whose device is not known here.
func keyLane(name string) string { return "key " + name }
