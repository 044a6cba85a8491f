package service

import (
	"context"
	"fmt"
	"sync"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
)

// A Result is what became of one item of a batch: one of its members is set.
type Result struct {
	Signed *Signed
	Err    error
}

// batchWidth is how many items of one batch are under way at once: enough to
// share the flushes of the journal, and half of what a gate lets in at once.
const batchWidth = 16

// Batch signs several requests. Each has its own result, in the order of the
// requests; each counts for the budgets and waits for its turn as if it had
// come alone.
func (s *Service) Batch(ctx context.Context, c *access.Caller, in []*SignRequest) ([]Result, error) {
	if len(in) == 0 || len(in) > MaxBatch {
		return nil, fmt.Errorf("%w: a batch of %d requests; it has 1 to %d", signer.ErrUsage, len(in), MaxBatch)
	}
	results := make([]Result, len(in))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(batchWidth, len(in)) {
		wg.Go(func() {
			for i := range next {
				results[i].Signed, results[i].Err = s.Sign(ctx, c, in[i])
			}
		})
	}
	for i := range in {
		next <- i
	}
	close(next)
	wg.Wait()
	return results, nil
}
