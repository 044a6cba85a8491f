package provider

import (
	"context"
	"errors"
	"slices"
	"sync"

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
	if err != nil {
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
	if q.AppMessage.Epoch != e.room.Epoch() || e.queue.has(hash) {
		if p, err := s.sameMessage(ctx, e.id, hash); p != nil || err != nil {
			return &decided{&hub.Submission{Response: p}}, nil, err
		}
	}
	sub, err := e.room.Submit(from, q)
	if err != nil || !sub.Accepted {
		return &decided{sub}, nil, err
	}
	t := &ticket{room: e.id, version: e.row.version, hash: string(hash), done: make(chan error, 1)}
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
// for a device.
func (s *Service) frank(ctx context.Context, sub *decided) (*mimi.Frank, error) {
	if sub.Tag == nil {
		return nil, nil
	}
	k := s.cfg.Keys(sub.Suite)
	if k == nil {
		return nil, errors.New("provider: no franking key for the room's cipher suite")
	}
	f := mimi.Franker{CipherSuite: sub.Suite, MAC: s.cfg.MAC, Signer: k.FrankSigner}
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
	room    int64
	version int64
	hash    string
	event   stored
	ready   bool // franked
	gone    bool // withdrawn
	done    chan error
}

// A queue stores the messages of a room in the order of their timestamps,
// whatever the order in which the device franks them. What is ready at one time
// is stored together.
type queue struct {
	entry   *entry
	service *Service

	mu       sync.Mutex // guards what follows
	tickets  []*ticket
	flushing bool
	reload   bool // the room in memory may be ahead of the store, or behind it
	empty    *sync.Cond
}

func (q *queue) add(t *ticket) {
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
	q.flush()
}

// settle marks a message as franked and returns when it is stored.
func (q *queue) settle(ctx context.Context, t *ticket) error {
	q.mu.Lock()
	t.ready = true
	q.mu.Unlock()
	q.flush()
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flush stores what is ready at the head of the queue, until nothing is. One
// caller does it for all.
func (q *queue) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.flushing {
		return
	}
	q.flushing = true
	for {
		list := q.head()
		if len(list) == 0 {
			break
		}
		q.mu.Unlock()
		err := q.service.flushMessages(q.entry, list)
		q.mu.Lock()
		for i, t := range list {
			t.done <- outcomeOf(err, i)
		}
	}
	q.flushing = false
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

// flushMessages stores messages together; if one of them is there already, each
// by itself.
func (s *Service) flushMessages(e *entry, list []*ticket) error {
	ctx := context.Background() // the messages belong to several callers
	err := s.storeMessages(ctx, e, list)
	if sqldb.IsUnique(err) && len(list) > 1 {
		each := make(outcomes, len(list))
		for i := range list {
			each[i] = s.storeMessages(ctx, e, list[i:i+1])
		}
		err = each
	}
	if err == nil {
		s.announce(list[0].room)
		return nil
	}
	s.lost(e, err)
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
