package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
)

// retries is how often a request is decided anew because another node was
// first.
const retries = 20

// Submit takes an application message for a room of ours: it decides, has it
// franked, stores it, and answers.
func (s *Service) Submit(ctx context.Context, from hub.From, room mimi.URI, q *mimi.SubmitMessageRequest) (*mimi.SubmitMessageResponse, error) {
	e, err := s.room(ctx, room)
	if err != nil {
		return nil, err
	}
	for range retries {
		p, err := s.submitOnce(ctx, e, from, q)
		if !errors.Is(err, hub.ErrStale) {
			return p, err
		}
	}
	return nil, hub.ErrStale
}

func (s *Service) submitOnce(ctx context.Context, e *entry, from hub.From, q *mimi.SubmitMessageRequest) (*mimi.SubmitMessageResponse, error) {
	hash := hashOf(q.AppMessage.Bytes())
	sub, t, err := s.decideMessage(ctx, e, from, q, hash)
	if err != nil || t == nil {
		return sub.response(), err
	}
	frank, err := s.frank(ctx, sub)
	if err != nil { // the device's, or the caller had gone before
		e.queue.withdraw(t, err)
		return nil, err
	}
	t.event = stored{Event: sub.Event(frank), hash: hash, deaf: t.event.deaf}
	if err := e.queue.settle(ctx, t); err != nil {
		return s.afterFailure(ctx, t, hash, err)
	}
	return sub.Response, nil
}

// response is that of a submission that goes no further.
func (d *decided) response() *mimi.SubmitMessageResponse {
	if d == nil || d.Submission == nil {
		return nil
	}
	return d.Response
}

// decided is a submission, or the answer that an earlier one got.
type decided struct{ *hub.Submission }

// decideMessage has the room decide, and puts an accepted message into the
// queue.
func (s *Service) decideMessage(ctx context.Context, e *entry, from hub.From, q *mimi.SubmitMessageRequest, hash []byte) (*decided, *ticket, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := s.fresh(ctx, e); err != nil {
		return nil, nil, err
	}
	if q.AppMessage.Epoch > e.room.Epoch() { // another node may have gone on
		e.queue.drain()
		if err := s.current(ctx, e); err != nil {
			return nil, nil, err
		}
	}
	if q.AppMessage.Epoch != e.room.Epoch() || e.queue.has(hash) {
		if p, err := s.sameMessage(ctx, e.id, hash); p != nil || err != nil {
			return &decided{&hub.Submission{Response: p}}, nil, err
		}
	}
	sub, err := e.room.Submit(from, q)
	if err != nil || !sub.Accepted {
		return &decided{sub}, nil, err
	}
	t := &ticket{room: e.id, version: e.row.version, followed: e.room.Followed(), hash: string(hash), begun: time.Now(), done: make(chan error, 1)}
	t.event.Timestamp = sub.Context.AcceptedTimestamp
	t.event.deaf = e.deafProviders()
	e.queue.add(t)
	return &decided{sub}, t, nil
}

// sameMessage returns the answer that the same message got before, or nil.
func (s *Service) sameMessage(ctx context.Context, room int64, hash []byte) (*mimi.SubmitMessageResponse, error) {
	ts, body, err := s.repeated(ctx, room, hash)
	if err != nil || body == nil {
		return nil, err
	}
	f, err := mimi.ParseFanout(body)
	if err != nil {
		return nil, err
	}
	return &mimi.SubmitMessageResponse{Protocol: mimi.ProtocolMLS10, StatusCode: mimi.SubmitAccepted, AcceptedTimestamp: ts, Frank: f[0].Frank}, nil
}

// frank makes the frank of an accepted message, outside of every lock: it waits
// for a device, as long as the device may take. A message whose sender goes meanwhile
// is stored: the sender, who does not know, gets this answer when it asks again. So no
// device has to run what could be left behind on a goroutine of its own, at the price
// of two wake-ups for each MAC and each signature.
func (s *Service) frank(ctx context.Context, sub *decided) (*mimi.Frank, error) {
	if sub.Tag == nil {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	secrets := s.secrets.Load()
	k := secrets.Keys(sub.Suite)
	if k == nil {
		return nil, errors.New("provider: no franking key for the room's cipher suite")
	}
	signer := k.frankSigner(sub.Agent)
	if signer == nil { // nobody could verify a frank of another key
		s.franking.note(s.cfg.Log, "franking", fmt.Errorf("%s is franked with a key that the configuration does not have any more", sub.Context.RoomURI))
		return nil, nil
	}
	f := mimi.Franker{CipherSuite: sub.Suite, MAC: secrets.MAC, Signer: signer}
	return f.Frank(ctx, *sub.Tag, &sub.Context)
}

// afterFailure finds out whether a message that could not be stored is there
// already: it was sent twice at once, or its first answer was lost.
func (s *Service) afterFailure(ctx context.Context, t *ticket, hash []byte, err error) (*mimi.SubmitMessageResponse, error) {
	if !sqldb.IsUnique(err) {
		return nil, err
	}
	if p, err := s.sameMessage(ctx, t.room, hash); p != nil || err != nil {
		return p, err
	}
	return nil, hub.ErrStale
}

// A ticket is an accepted message on its way to the store.
type ticket struct {
	room     int64
	version  int64
	followed bool // by other providers
	hash     string
	event    stored
	begun    time.Time
	ready    bool // franked
	gone     bool // withdrawn
	done     chan error
}

// A queue has the messages of a room until they are stored in the order of
// their timestamps, whatever the order in which the device franks them. The
// service's writer stores them.
type queue struct {
	entry *entry
	w     *writer
	dirty bool // guarded by the writer
	apart int  // see apartFor; the writer's own

	mu       sync.Mutex // guards what follows
	tickets  []*ticket
	flushing bool
	reload   bool // the room in memory may be ahead of the store, or behind it
	empty    *sync.Cond
}

func (q *queue) add(t *ticket) {
	q.w.accepted()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tickets = append(q.tickets, t)
}

func (q *queue) has(hash []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.tickets, func(t *ticket) bool { return t.hash == string(hash) })
}

func (q *queue) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.tickets) == 0 && !q.flushing
}

// withdraw takes out a message that could not be franked.
func (q *queue) withdraw(t *ticket, err error) {
	q.mu.Lock()
	t.gone = true
	t.done <- err
	q.mu.Unlock()
	q.w.withdrawn(q)
}

// settle marks a message as franked and returns when it is stored.
func (q *queue) settle(ctx context.Context, t *ticket) error {
	q.mu.Lock()
	t.ready = true
	q.mu.Unlock()
	q.w.franked(q, time.Since(t.begun))
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin takes what can be stored now, or nil.
func (q *queue) begin() *outgoing {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.head()
	if len(list) == 0 {
		q.tellEmpty()
		return nil
	}
	q.flushing = true
	return &outgoing{queue: q, tickets: list}
}

// end tells those who wait for a list, and reports whether more can be stored.
func (q *queue) end(list *outgoing) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, t := range list.tickets {
		t.done <- outcomeOf(list.err, i)
	}
	q.flushing = false
	q.tellEmpty()
	return len(q.tickets) > 0 && (q.tickets[0].ready || q.tickets[0].gone)
}

func (q *queue) tellEmpty() {
	if q.empty != nil && len(q.tickets) == 0 {
		q.empty.Broadcast()
	}
}

// head takes the tickets that can be stored now: franked ones of one version
// that nothing stands before.
func (q *queue) head() (list []*ticket) {
	n := 0
	for ; n < len(q.tickets); n++ {
		t := q.tickets[n]
		if t.gone {
			continue
		}
		if !t.ready || len(list) > 0 && t.version != list[0].version || len(list) == 128 {
			break
		}
		list = append(list, t)
	}
	q.tickets = slices.Delete(q.tickets, 0, n)
	return list
}

// outcomes is an error that differs by ticket.
type outcomes []error

func (o outcomes) Error() string { return errors.Join(o...).Error() }

func outcomeOf(err error, i int) error {
	var each outcomes
	if errors.As(err, &each) {
		return each[i]
	}
	return err
}

// lost makes the room be loaded again after a write that failed. The lock may
// be held by somebody who waits for the queue, so the mark is left for whoever
// takes it next.
func (s *Service) lost(e *entry, err error) {
	e.queue.mu.Lock()
	defer e.queue.mu.Unlock()
	e.queue.reload = true
	if !errors.Is(err, hub.ErrStale) && !sqldb.IsUnique(err) {
		s.cfg.Log.Error("messages could not be stored", "room", e.uri.String(), "err", err)
	}
}

// drain waits until every accepted message of the room is stored or failed. The
// caller holds the room's lock, so that none is added.
func (q *queue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.empty == nil {
		q.empty = sync.NewCond(&q.mu)
	}
	for len(q.tickets) > 0 || q.flushing {
		q.empty.Wait()
	}
}

// stale reports, once, whether the room has to be loaded again.
func (q *queue) stale() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := q.reload
	q.reload = false
	return was
}
