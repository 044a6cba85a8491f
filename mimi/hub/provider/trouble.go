package provider

import (
	"log/slog"
	"sync"
	"time"
)

// A trouble is something that works or does not. It is logged when that changes,
// and not each time that it is tried.
type trouble struct {
	mu    sync.Mutex // guards what follows
	since time.Time  // zero while it works
	times int
}

func (t *trouble) note(log *slog.Logger, what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil && t.since.IsZero():
		t.since, t.times = time.Now(), 1
		log.Error("it fails and is tried again", "what", what, "err", err)
	case err != nil:
		t.times++
	case !t.since.IsZero():
		log.Info("it works again", "what", what, "failed", t.times, "for", time.Since(t.since).Round(time.Millisecond))
		t.since = time.Time{}
	}
}
