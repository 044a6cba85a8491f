package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	mrand "math/rand/v2"
	"sync/atomic"
	"time"
)

// Bounds of the time between two attempts.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 5 * time.Second
)

// retry makes attempts until one succeeds, fails for good, or there are no
// more. It waits as long as the service says, and longer each time.
func (c *Client) retry(ctx context.Context, attempt func(context.Context) error) error {
	pause := firstPause
	for n := 1; ; n++ {
		err := attempt(ctx)
		if err == nil || n == c.c.Attempts || ctx.Err() != nil {
			return err
		}
		wait, again := waitFor(err, pause)
		if !again {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
		pause = min(2*pause, maxPause)
	}
}

// waitFor says whether and when to try again. The pause is spread, so that
// those who were sent away together do not come back together.
func waitFor(err error, pause time.Duration) (time.Duration, bool) {
	if errors.Is(err, ErrCorrupt) {
		return 0, true
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Action != Retry {
		return 0, false
	}
	spread := pause/2 + mrand.N(pause)
	return max(min(e.RetryAfter, maxPause), 0) + spread, true
}

// idempotency makes the idempotency keys of one Client: 128 random bits, and a
// number that counts up. So keys that come one after another are neighbours in
// the journal's index, and a commit changes one page of it instead of many.
type idempotency struct {
	client string
	last   atomic.Uint64
}

func newIdempotency() *idempotency {
	b := make([]byte, 16)
	rand.Read(b)
	return &idempotency{client: hex.EncodeToString(b)}
}

// next returns a key that no other call has.
func (i *idempotency) next() string { return fmt.Sprintf("%s-%016x", i.client, i.last.Add(1)) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) *uint32 {
	sum := crc32.Checksum(b, castagnoli)
	return &sum
}

func intact(b []byte, sum uint32) bool { return crc32.Checksum(b, castagnoli) == sum }
