package signer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Whoever asks sees what was true when it asked, or later.
func TestSharedReadsAreFresh(t *testing.T) {
	var s sharedReads[int, int64]
	var truth, reads atomic.Int64
	const askers, times = 16, 500
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for range times {
				least := truth.Add(1)
				got, err := s.read(context.Background(), 1, func() (int64, error) {
					reads.Add(1)
					return truth.Load(), nil
				})
				if err != nil || got < least {
					t.Errorf("%d, %v; it was %d before it was asked for", got, err, least)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := reads.Load(); n > askers*times {
		t.Errorf("%d reads for %d callers", n, askers*times)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) != 0 {
		t.Errorf("%d keys are left behind", len(s.all))
	}
}

// Those who come while a read is under way share the next one, and only that.
func TestSharedReadsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sharedReads[string, int]
		var reads int // one at a time
		gate := make(chan struct{})
		ask := func() (int, error) {
			return s.read(t.Context(), "k", func() (int, error) {
				reads++
				n := reads
				<-gate
				return n, nil
			})
		}
		var got [10]int
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() { got[i], _ = ask() })
			synctest.Wait() // the first read is under way before the second asks
		}
		close(gate)
		wg.Wait()
		if got[0] != 1 || reads != 2 {
			t.Errorf("the first got read %d, and there were %d", got[0], reads)
		}
		for _, n := range got[1:] {
			if n != 2 {
				t.Errorf("one who came later got read %d", n)
			}
		}
	})
}

func TestSharedReadsEndWithTheirCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sharedReads[string, int]
		gate := make(chan struct{})
		stuck := func() (int, error) { <-gate; return 7, errors.New("away") }
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var gone, stays error
		wg.Go(func() { _, gone = s.read(ctx, "k", stuck) })
		synctest.Wait()
		wg.Go(func() { _, stays = s.read(t.Context(), "k", stuck) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !errors.Is(gone, context.Canceled) {
			t.Errorf("the one that was canceled: %v", gone)
		}
		close(gate)
		wg.Wait()
		if stays == nil || errors.Is(stays, context.Canceled) {
			t.Errorf("the other: %v", stays)
		}
	})
}
