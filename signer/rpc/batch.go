package rpc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/service"
)

func (s signing) BatchSign(ctx context.Context, r *connect.Request[signerv1.BatchSignRequest]) (*connect.Response[signerv1.BatchSignResponse], error) {
	if err := batchSize(len(r.Msg.GetRequests())); err != nil {
		return nil, s.h.fail(ctx, err)
	}
	in := make([]*service.SignRequest, len(r.Msg.GetRequests()))
	for i, m := range r.Msg.GetRequests() {
		in[i] = batchedSign(m)
	}
	out := &signerv1.BatchSignResponse{Results: make([]*signerv1.BatchSignResult, len(in))}
	results, err := s.h.c.Service.Batch(ctx, caller(ctx), in)
	for i, one := range results {
		if one.Err != nil {
			out.Results[i] = &signerv1.BatchSignResult{Result: &signerv1.BatchSignResult_Failure{Failure: s.h.failure(ctx, one.Err)}}
			continue
		}
		out.Results[i] = &signerv1.BatchSignResult{Result: &signerv1.BatchSignResult_Signed{Signed: signed(one.Signed)}}
	}
	return answer(ctx, s.h, out, err)
}

func batchSize(n int) error {
	if n == 0 || n > service.MaxBatch {
		return fmt.Errorf("%w: a batch of %d items; it has 1 to %d", signer.ErrUsage, n, service.MaxBatch)
	}
	return nil
}

// batchedSign turns one request of a batch. One that cannot be fails alone, as a
// request without input.
func batchedSign(m *signerv1.SignRequest) *service.SignRequest {
	one, err := signRequest(m)
	if err != nil {
		return &service.SignRequest{Key: m.GetKey()}
	}
	return one
}

// batchWidth is how many items of one batch that are not signatures are under
// way at once. Signatures are the service's to arrange.
const batchWidth = 16

func (s signing) Batch(ctx context.Context, r *connect.Request[signerv1.BatchRequest]) (*connect.Response[signerv1.BatchResponse], error) {
	if err := batchSize(len(r.Msg.GetItems())); err != nil {
		return nil, s.h.fail(ctx, err)
	}
	c, begin, in := caller(ctx), time.Now(), r.Msg.GetItems()
	out := &signerv1.BatchResponse{Results: make([]*signerv1.BatchResult, len(in))}
	var signs []int
	var requests []*service.SignRequest
	var others sync.WaitGroup
	slots := make(chan struct{}, batchWidth)
	for i, m := range in {
		var until time.Time
		if n := m.GetTimeoutMs(); n > 0 {
			until = begin.Add(time.Duration(n) * time.Millisecond)
		}
		if op, ok := m.GetOperation().(*signerv1.BatchItem_Sign); ok {
			one := batchedSign(op.Sign)
			one.Until = until
			signs, requests = append(signs, i), append(requests, one)
			continue
		}
		others.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out.Results[i] = s.item(ctx, c, until, m)
		})
	}
	if len(requests) > 0 {
		results, err := s.h.c.Service.Batch(ctx, c, requests)
		for k, i := range signs {
			out.Results[i] = s.batched(ctx, results, k, err)
		}
	}
	others.Wait()
	return connect.NewResponse(out), nil
}

// batched is the result of one signature of a batch that failed as a whole, if
// err is not nil.
func (s signing) batched(ctx context.Context, all []service.Result, k int, err error) *signerv1.BatchResult {
	if err == nil {
		err = all[k].Err
	}
	if err != nil {
		return s.failed(ctx, err)
	}
	return &signerv1.BatchResult{Result: &signerv1.BatchResult_Signed{Signed: signed(all[k].Signed)}}
}

func (s signing) failed(ctx context.Context, err error) *signerv1.BatchResult {
	return &signerv1.BatchResult{Result: &signerv1.BatchResult_Failure{Failure: s.h.failure(ctx, err)}}
}

// item does one item that is not a signature, until then if that is not zero. A
// panic is the item's failure: it is not on the goroutine of the call, where it
// would be the call's.
func (s signing) item(ctx context.Context, c *access.Caller, until time.Time, m *signerv1.BatchItem) (out *signerv1.BatchResult) {
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	defer func() {
		if p := recover(); p != nil {
			out = s.failed(ctx, fmt.Errorf("panic in an item of a batch: %v", p))
		}
	}()
	out, err := s.operation(ctx, c, m)
	if err != nil {
		return s.failed(ctx, err)
	}
	return out
}

func (s signing) operation(ctx context.Context, c *access.Caller, m *signerv1.BatchItem) (*signerv1.BatchResult, error) {
	if err := ctx.Err(); err != nil { // its turn came too late
		return nil, err
	}
	switch op := m.GetOperation().(type) {
	case *signerv1.BatchItem_Frank:
		r, err := s.frank(ctx, c, op.Frank)
		return &signerv1.BatchResult{Result: &signerv1.BatchResult_Franked{Franked: r}}, err
	case *signerv1.BatchItem_Mac:
		r, err := s.mac(ctx, c, op.Mac)
		return &signerv1.BatchResult{Result: &signerv1.BatchResult_Computed{Computed: r}}, err
	case *signerv1.BatchItem_Agree:
		r, err := s.agree(ctx, c, op.Agree)
		return &signerv1.BatchResult{Result: &signerv1.BatchResult_Agreed{Agreed: r}}, err
	}
	return nil, fmt.Errorf("%w: the item has no operation that this service knows", signer.ErrUsage)
}

// failure is what fail is of a call, of one item of a batch.
func (h *handler) failure(ctx context.Context, err error) *signerv1.Failure {
	e := service.Explain(err)
	h.log(ctx, e, err)
	return &signerv1.Failure{Code: codes[e.Reason].String(), Reason: string(e.Reason), Action: string(e.Action), Message: e.Message,
		RetryAfterMs: e.RetryAfter.Milliseconds(), Metadata: e.Metadata}
}
