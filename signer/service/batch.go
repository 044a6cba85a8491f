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

// A Result is what became of one item of a batch: one of its members is set.
type Result struct {
	Signed *Signed
	Err    error
}

// batchWidth is how many items of one batch are at a device at once: half of
// what a gate lets in at once.
const batchWidth = 16

// Batch signs several requests. Each has its own result, in the order of the
// requests, counts for the budgets and waits for its turn at the device as if
// it had come alone. The journal is told of all before the devices work, and
// again when the last has ended: two flushes in all. Of requests with one
// idempotency key in one batch, the first is signed.
func (s *Service) Batch(ctx context.Context, c *access.Caller, in []*SignRequest) ([]Result, error) {
	if len(in) == 0 || len(in) > MaxBatch {
		return nil, fmt.Errorf("%w: a batch of %d requests; it has 1 to %d", signer.ErrUsage, len(in), MaxBatch)
	}
	begin := s.c.Now()
	all := make([]*item, len(in))
	for i, one := range in {
		all[i] = &item{run: run{s: s, c: c, key: one.Key, op: journal.OpSign, idempotency: one.IdempotencyKey, checksum: one.Checksum}, in: one}
	}
	s.signAll(ctx, all)
	var again []*item
	for _, it := range all {
		if it.rotated(it.in, it.err) {
			again = append(again, it)
		}
	}
	s.signAll(ctx, again)
	results := make([]Result, len(in))
	for i, it := range all {
		it.done(ctx, begin, it.err)
		results[i] = Result{it.out, it.err}
	}
	return results, nil
}

// An item is one request of a batch on its way. Once it has an err, it goes no
// further.
type item struct {
	run
	in     *SignRequest
	signer *signer.Signer // of all items with this key
	req    *signer.Request
	rule   string
	res    *journal.Reservation
	result journal.Outcome

	out *Signed
	err error
}

// signAll signs what can be signed, device by device.
func (s *Service) signAll(ctx context.Context, all []*item) {
	signers := make(map[*signer.Signer]*signer.Signer)
	byDevice := make(map[string][]*item)
	for _, it := range all {
		if it.err = it.begin(ctx); it.err != nil {
			continue
		}
		own := it.found.signer
		if signers[own] == nil {
			signers[own] = own.Burst()
		}
		it.signer = signers[own]
		byDevice[it.found.v.Device] = append(byDevice[it.found.v.Device], it)
	}
	var wg sync.WaitGroup
	for device, items := range byDevice {
		if len(byDevice) == 1 {
			s.signAt(ctx, device, items)
			return
		}
		wg.Go(func() { s.signAt(ctx, device, items) })
	}
	wg.Wait()
}

// begin finds the key of an item and takes from the budgets.
func (it *item) begin(ctx context.Context) error {
	if err := it.in.Input.check(it.in.Checksum); err != nil {
		return err
	}
	if it.late() {
		return context.DeadlineExceeded
	}
	return it.take(ctx, it.in.use(), signer.UseSign, it.in.Version)
}

// signAt signs the items whose keys are in one device. They wait for one turn
// before the journal learns of them, and then each for its own: what was let in
// is not sent away any more.
func (s *Service) signAt(ctx context.Context, device string, items []*item) {
	gate := s.gate(device)
	leave, err := s.enter(ctx, gate, items[0].c)
	if err != nil {
		for _, it := range items {
			it.err = err
		}
		return
	}
	var refusals sync.WaitGroup
	defer refusals.Wait()
	for _, it := range items {
		if it.sentence(ctx); it.err != nil {
			refusals.Go(func() { it.refused(ctx, it.req, &it.in.Input, it.err) })
		}
	}
	items = s.reserveAll(ctx, items)
	leave()
	s.workers.Each(len(items), batchWidth, func(i int) { items[i].work(ctx, gate) })
	s.completeAll(ctx, items)
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
			intents, left = append(intents, it.signIntent(it.req, it.rule)), append(left, it)
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
			it.out, it.err = it.signed(it.in, it.res.Replay().Signature, 0)
		default:
			reserved = append(reserved, it)
		}
	}
	return reserved
}

// late reports whether the item is not wanted any more.
func (it *item) late() bool { return !it.in.Until.IsZero() && !it.s.c.Now().Before(it.in.Until) }

// sentence parses and judges the item.
func (it *item) sentence(ctx context.Context) {
	defer it.recovered()
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

// work waits for a turn and has the device sign.
func (it *item) work(ctx context.Context, gate *admit.Gate) {
	defer it.recovered()
	if !it.in.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, it.in.Until)
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
	var sig signer.Signature
	it.err = it.s.stage(ctx, StageDevice, func(ctx context.Context) error {
		made, err := it.signer.Issue(ctx, it.req)
		if err == nil {
			sig = *made
		}
		return err
	})
	if it.err == nil {
		gate.Served(time.Since(begin))
	}
	it.result = it.outcome(it.op, sig.Octets, sig.Device, it.err)
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
			if again, ok := errors.AsType[*journal.RepeatedError](err); ok && it.err == nil {
				it.out, it.err = it.signed(it.in, again.Outcome.Signature, 0)
				continue
			}
			if err != nil {
				it.err = errors.Join(it.err, err)
			}
			if first == nil {
				first = err
			}
		}
		return first
	})
	for _, it := range items {
		if it.err == nil && it.out == nil {
			it.out, it.err = it.signed(it.in, it.result.Signature, it.res.Number())
		}
	}
}
