package rpc

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/signer"
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

func (s signing) Batch(ctx context.Context, r *connect.Request[signerv1.BatchRequest]) (*connect.Response[signerv1.BatchResponse], error) {
	if err := batchSize(len(r.Msg.GetItems())); err != nil {
		return nil, s.h.fail(ctx, err)
	}
	begin, in := time.Now(), r.Msg.GetItems()
	items, errs := make([]service.Item, len(in)), make([]error, len(in))
	for i, m := range in {
		if items[i], errs[i] = batched(m); errs[i] == nil && m.GetTimeoutMs() > 0 {
			items[i].Until = begin.Add(time.Duration(m.GetTimeoutMs()) * time.Millisecond)
		}
	}
	results, err := s.h.c.Service.BatchAll(ctx, caller(ctx), items)
	if err != nil {
		return nil, s.h.fail(ctx, err)
	}
	out := &signerv1.BatchResponse{Results: make([]*signerv1.BatchResult, len(in))}
	for i, one := range results {
		if errs[i] != nil {
			one.Err = errs[i]
		}
		out.Results[i] = s.batchResult(ctx, &one)
	}
	return connect.NewResponse(out), nil
}

// batched turns one item of a batch. One that cannot be is without operation.
func batched(m *signerv1.BatchItem) (item service.Item, err error) {
	switch op := m.GetOperation().(type) {
	case *signerv1.BatchItem_Sign:
		item.Sign, err = signRequest(op.Sign)
	case *signerv1.BatchItem_Frank:
		item.Frank, err = frankRequest(op.Frank)
	case *signerv1.BatchItem_Mac:
		item.MAC = macRequest(op.Mac)
	case *signerv1.BatchItem_Agree:
		item.Agree = agreeRequest(op.Agree)
	}
	return item, err
}

func (s signing) batchResult(ctx context.Context, r *service.Result) *signerv1.BatchResult {
	switch {
	case r.Err != nil:
		return &signerv1.BatchResult{Result: &signerv1.BatchResult_Failure{Failure: s.h.failure(ctx, r.Err)}}
	case r.Signed != nil:
		return &signerv1.BatchResult{Result: &signerv1.BatchResult_Signed{Signed: signed(r.Signed)}}
	case r.Frank != nil:
		return &signerv1.BatchResult{Result: &signerv1.BatchResult_Franked{Franked: franked(r.Frank)}}
	case r.MAC != nil:
		return &signerv1.BatchResult{Result: &signerv1.BatchResult_Computed{Computed: computed(r.MAC)}}
	}
	return &signerv1.BatchResult{Result: &signerv1.BatchResult_Agreed{Agreed: agreed(r.Secret)}}
}

// failure is what fail is of a call, of one item of a batch.
func (h *handler) failure(ctx context.Context, err error) *signerv1.Failure {
	e := service.Explain(err)
	h.log(ctx, e, err)
	return &signerv1.Failure{Code: codes[e.Reason].String(), Reason: string(e.Reason), Action: string(e.Action), Message: e.Message,
		RetryAfterMs: e.RetryAfter.Milliseconds(), Metadata: e.Metadata}
}
