package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	"github.com/privyseal/privyseal/signer/journal"
)

// An Item is one operation of a batch: one of its operations is set.
type Item struct {
	Sign  *SignRequest
	MAC   *MACRequest
	Agree *AgreeRequest
	Frank *FrankRequest
	Until time.Time // when it is not wanted any more; zero for as long as the others
}

// A Result is what became of one item of a batch: one of its members is set.
type Result struct {
	Signed *Signed
	MAC    *Made
	Secret *Made // of an agreement
	Frank  *Frank
	Err    error
}

// Made is a MAC or a shared secret, with the version of the key that made it.
type Made struct {
	Octets []byte
	Name   string // keys/NAME/versions/N
}

// batchWidth is how many items of one batch are at a device at once: half of
// what a gate lets in at once.
const batchWidth = 16

// Batch is BatchAll for signatures.
func (s *Service) Batch(ctx context.Context, c *access.Caller, in []*SignRequest) ([]Result, error) {
	items := make([]Item, len(in))
	for i := range in {
		items[i].Sign = in[i]
	}
	return s.BatchAll(ctx, c, items)
}

// BatchAll does several operations. Each has its own result, in the order of the
// items, counts for the budgets and waits for its turn at the device as if
// it had come alone; a frank is two. The journal is told of all before the
// devices work, and of franks once more when they have their MACs; and then
// of all outcomes, in one flush. Of requests with one idempotency key in one batch,
// the first is done.
func (s *Service) BatchAll(ctx context.Context, c *access.Caller, in []Item) ([]Result, error) {
	if len(in) == 0 || len(in) > MaxBatch {
		return nil, fmt.Errorf("%w: a batch of %d requests; it has 1 to %d", signer.ErrUsage, len(in), MaxBatch)
	}
	begin := s.c.Now()
	all, parts := make([]*operation, len(in)), make([]*item, 0, len(in))
	for i := range in {
		if all[i] = s.operation(c, &in[i]); all[i].err == nil {
			parts = append(parts, all[i].first)
		}
	}
	s.run(ctx, all, parts)
	var again []*item
	for _, o := range all {
		for _, it := range []*item{o.first, o.second} {
			if it != nil && it.in != nil && it.rotated(it.in, it.err) {
				again = append(again, it.anew())
			}
		}
	}
	s.run(ctx, nil, again)
	results := make([]Result, len(in))
	for i, o := range all {
		for _, it := range []*item{o.first, o.second} {
			if it != nil {
				it.done(ctx, begin, it.err)
			}
		}
		results[i] = o.result()
	}
	return results, nil
}

// An operation is an item of a batch with what a device has to do for it: one
// thing, or two one after the other.
type operation struct {
	first, second *item
	frank         *FrankRequest
	err           error
}

func (s *Service) operation(c *access.Caller, in *Item) *operation {
	o := &operation{frank: in.Frank}
	switch {
	case in.Sign != nil:
		o.first = s.signItem(c, in.Sign, in.Until)
	case in.MAC != nil:
		o.first = s.macItem(c, in.MAC, in.Until)
	case in.Agree != nil:
		o.first = s.plainItem(c, in.Agree.Key, journal.OpAgree, in.Agree.plain(), in.Until)
		o.first.checksum = in.Agree.Checksum
	case in.Frank != nil:
		if o.err = in.Frank.check(); o.err == nil {
			o.first = s.macItem(c, in.Frank.mac(), in.Until)
		}
	default:
		o.err = fmt.Errorf("%w: the item has no operation that this service knows", signer.ErrUsage)
	}
	return o
}

func (o *operation) result() Result {
	switch {
	case o.err != nil:
		return Result{Err: o.err}
	case o.first.err != nil:
		return Result{Err: o.first.err}
	case o.frank == nil:
		return o.first.released()
	case o.second.err != nil:
		return Result{Err: o.second.err}
	}
	return Result{Frank: &Frank{ServerFrank: o.first.made.Octets, IntegritySignature: o.second.out.Signature,
		MACName: o.first.made.Name, SignName: o.second.out.Name}}
}

// released is the result of an item that ended well.
func (it *item) released() Result {
	switch it.op {
	case journal.OpMAC:
		return Result{MAC: it.made}
	case journal.OpAgree:
		return Result{Secret: it.made}
	}
	return Result{Signed: it.out}
}

// run does parts, then what franks among the operations sign over their MACs, and
// completes all.
func (s *Service) run(ctx context.Context, all []*operation, parts []*item) {
	worked := s.workAll(ctx, parts)
	var second []*item
	for _, o := range all {
		if o.frank == nil || o.err != nil || o.first.err != nil {
			continue
		}
		o.second = s.signItem(o.first.c, o.frank.sign(o.first.octets), o.first.until)
		second = append(second, o.second)
	}
	s.completeAll(ctx, append(worked, s.workAll(ctx, second)...))
}

// An item is one thing that a device has to do for a batch, on its way. Once it has an err, it
// goes no further.
type item struct {
	run
	in     *SignRequest   // of a signature
	plain  *plain         // of something else
	until  time.Time      // see Item
	signer *signer.Signer // of all items with this key
	req    *signer.Request
	rule   string
	res    *journal.Reservation
	octets []byte // that the device made, or that are given out again
	result journal.Outcome

	out  *Signed
	made *Made
	err  error
}

func (s *Service) signItem(c *access.Caller, in *SignRequest, until time.Time) *item {
	return &item{run: run{s: s, c: c, key: in.Key, op: journal.OpSign, idempotency: in.IdempotencyKey, checksum: in.Checksum}, in: in, until: until}
}

func (s *Service) plainItem(c *access.Caller, key string, op journal.Operation, p *plain, until time.Time) *item {
	return &item{run: run{s: s, c: c, key: key, op: op}, plain: p, until: until}
}

func (s *Service) macItem(c *access.Caller, in *MACRequest, until time.Time) *item {
	it := s.plainItem(c, in.Key, journal.OpMAC, in.plain(), until)
	it.idempotency, it.checksum = in.IdempotencyKey, in.Checksum
	return it
}

// anew has the item go its way once more.
func (it *item) anew() *item {
	it.req, it.res, it.octets, it.result, it.err = nil, nil, nil, journal.Outcome{}, nil
	return it
}

// workAll has the devices do what they can, device by device, and returns what
// is to be completed.
func (s *Service) workAll(ctx context.Context, all []*item) (worked []*item) {
	signers := make(map[*signer.Signer]*signer.Signer)
	byDevice := make(map[string][]*item)
	for _, it := range all {
		if it.err = it.begin(ctx); it.err != nil {
			continue
		}
		if own := it.found.signer; it.in != nil {
			if signers[own] == nil {
				signers[own] = own.Burst()
			}
			it.signer = signers[own]
		}
		byDevice[it.found.v.Device] = append(byDevice[it.found.v.Device], it)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards worked
	at := func(device string, items []*item) {
		items = s.workAt(ctx, device, items)
		mu.Lock()
		defer mu.Unlock()
		worked = append(worked, items...)
	}
	for device, items := range byDevice {
		if len(byDevice) == 1 {
			at(device, items)
			return worked
		}
		wg.Go(func() { at(device, items) })
	}
	wg.Wait()
	return worked
}

// begin finds the key of an item and takes from the budgets.
func (it *item) begin(ctx context.Context) error {
	if err := it.checkInput(); err != nil {
		return err
	}
	if it.late() {
		return context.DeadlineExceeded
	}
	if it.plain != nil {
		return it.take(ctx, it.plain.use, it.plain.want, 0)
	}
	return it.take(ctx, it.in.use(), signer.UseSign, it.in.Version)
}

func (it *item) checkInput() error {
	if it.plain != nil {
		return it.plain.check(it.checksum)
	}
	return it.in.Input.check(it.checksum)
}

// workAt has a device work for the items whose keys are in it, and returns those
// that are to be completed. They wait for one turn before the journal learns of
// them, and then each for its own: what was let in is not sent away any more.
func (s *Service) workAt(ctx context.Context, device string, items []*item) []*item {
	gate := s.gate(device)
	leave, err := s.enter(ctx, gate, items[0].c)
	if err != nil {
		for _, it := range items {
			it.err = err
		}
		return nil
	}
	var refusals sync.WaitGroup
	defer refusals.Wait()
	for _, it := range items {
		if it.sentence(ctx); it.err != nil {
			refusals.Go(func() { it.refused(ctx, it.req, it.input(), it.err) })
		}
	}
	items = s.reserveAll(ctx, items)
	leave()
	s.look(ctx, items)
	s.workers.Each(len(items), batchWidth, func(i int) { items[i].work(ctx, gate) })
	return items
}

func (it *item) input() *Input {
	if it.plain != nil {
		return &Input{parts: [][]byte{it.plain.input}}
	}
	return &it.in.Input
}

// look has the keys of several signatures looked at in one read.
func (s *Service) look(ctx context.Context, items []*item) {
	var bursts []*signer.Signer
	seen := make(map[*signer.Signer]bool)
	for _, it := range items {
		if it.signer != nil && !seen[it.signer] {
			seen[it.signer] = true
			bursts = append(bursts, it.signer)
		}
	}
	if len(bursts) > 1 { // one looks by itself, and shares that with other requests
		s.c.Ring.Look(ctx, bursts)
	}
}

func (s *Service) enter(ctx context.Context, gate *admit.Gate, c *access.Caller) (leave func(), err error) {
	err = s.stage(ctx, StageAdmit, func(ctx context.Context) (err error) {
		leave, err = gate.Enter(ctx, c.Tenant, c.Name)
		return err
	})
	return leave, err
}

// reserveAll reserves what is left and returns what a device has to sign.
func (s *Service) reserveAll(ctx context.Context, items []*item) []*item {
	intents, left := make([]journal.Intent, 0, len(items)), make([]*item, 0, len(items))
	for _, it := range items {
		if it.err == nil {
			intents, left = append(intents, it.told()), append(left, it)
		}
	}
	if len(left) == 0 {
		return nil
	}
	_ = s.stage(ctx, StageReserve, func(ctx context.Context) (first error) {
		for i, r := range s.c.Journal.ReserveAll(ctx, intents) {
			it := left[i]
			it.res, it.err = r.Reservation, r.Err
			if first == nil {
				first = r.Err
			}
		}
		return first
	})
	reserved := left[:0]
	for _, it := range left {
		switch {
		case it.err != nil:
		case it.res.Replay() != nil:
			it.answer(it.res.Replay().Signature, 0)
		default:
			reserved = append(reserved, it)
		}
	}
	return reserved
}

// told is the intent of the item.
func (it *item) told() journal.Intent {
	if it.plain == nil {
		return it.signIntent(it.req, it.rule)
	}
	intent := it.intent(it.rule)
	intent.Input = it.plain.input
	return intent
}

// answer makes the answer of what may be released; reservation is 0 for a replay.
func (it *item) answer(octets []byte, reservation int64) {
	it.octets = octets
	if it.plain != nil {
		it.made = &Made{Octets: octets, Name: it.name()}
		return
	}
	it.out, it.err = it.signed(it.in, octets, reservation)
}

// late reports whether the item is not wanted any more.
func (it *item) late() bool { return !it.until.IsZero() && !it.s.c.Now().Before(it.until) }

// sentence parses and judges the item.
func (it *item) sentence(ctx context.Context) {
	defer it.recovered()
	if it.plain != nil {
		it.rule, it.err = it.decidePlain(ctx, len(it.plain.input))
		return
	}
	it.req, it.rule, it.err = it.judge(ctx, it.in)
}

// recovered makes a panic the failure of one item: it may be on a goroutine where
// it would end the process.
func (it *item) recovered() {
	if p := recover(); p != nil {
		it.err = fmt.Errorf("panic in an item of a batch: %v", p)
		it.result = it.outcome(it.op, nil, "", it.err)
	}
}

// work waits for a turn and has the device work.
func (it *item) work(ctx context.Context, gate *admit.Gate) {
	defer it.recovered()
	if !it.until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, it.until)
		defer cancel()
	}
	leave, err := gate.Again(ctx, it.c.Tenant, it.c.Name)
	if err != nil { // no device has seen it
		it.err = err
		it.result = journal.Outcome{Result: journal.NotSigned, Device: it.found.v.Device, ErrorClass: string(Explain(err).Reason)}
		return
	}
	defer leave()
	begin := time.Now()
	var device string
	it.err = it.s.stage(ctx, StageDevice, func(ctx context.Context) (err error) {
		it.octets, device, err = it.device(ctx)
		return err
	})
	if it.err == nil {
		gate.Served(time.Since(begin))
	}
	it.result = it.outcome(it.op, it.octets, device, it.err)
}

// device does what the item asks for.
func (it *item) device(ctx context.Context) (octets []byte, device string, err error) {
	if it.plain != nil {
		return it.plain.work(ctx, it.found)
	}
	sig, err := it.signer.Issue(ctx, it.req)
	if err != nil {
		return nil, "", err
	}
	return sig.Octets, sig.Device, nil
}

// completeAll completes what was reserved and makes the answers.
func (s *Service) completeAll(ctx context.Context, items []*item) {
	if len(items) == 0 {
		return
	}
	done := make([]journal.Completion, len(items))
	for i, it := range items {
		done[i] = journal.Completion{Reservation: it.res, Outcome: it.result}
	}
	_ = s.complete(ctx, func(ctx context.Context) (first error) {
		for i, err := range s.c.Journal.CompleteAll(ctx, done) {
			it := items[i]
			switch again, ok := errors.AsType[*journal.RepeatedError](err); {
			case ok && it.err == nil:
				it.answer(again.Outcome.Signature, 0)
			case err != nil:
				it.err = errors.Join(it.err, err)
			case it.err == nil:
				it.answer(it.octets, it.res.Number())
			}
			if first == nil {
				first = err
			}
		}
		return first
	})
}
