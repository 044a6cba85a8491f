package hsm

import (
	"io"
	"sync"
)

// A frameWriter lets many goroutines send frames. Whoever finds nobody writing
// writes, and goes on while others add frames: under load several frames leave
// in one system call, and a single caller pays no hand-over.
type frameWriter struct {
	w io.Writer

	mu      sync.Mutex // guards the fields below
	pending []byte
	spare   []byte
	writing bool
	err     error
}

// maxSpare is the largest buffer that is kept.
const maxSpare = 256 << 10

// send queues a frame and sees that it leaves. A frame that another goroutine
// writes may fail without this caller hearing of it; the link is dead then.
func (w *frameWriter) send(call uint32, kind frameKind, parts ...[]byte) error {
	if err := w.queue(call, kind, parts...); err != nil {
		return err
	}
	return w.flush()
}

// queue adds a frame that a later flush writes.
func (w *frameWriter) queue(call uint32, kind frameKind, parts ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = appendFrame(w.pending, call, kind, parts...)
	return w.err
}

// flush writes what is queued, unless another goroutine is at it.
func (w *frameWriter) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing {
		return w.err
	}
	w.writing = true
	for len(w.pending) > 0 && w.err == nil {
		w.writeLocked()
	}
	w.writing = false
	return w.err
}

// writeLocked writes the queue and lets others add to a new one meanwhile.
func (w *frameWriter) writeLocked() {
	out := w.pending
	w.pending = w.spare[:0]
	w.mu.Unlock()
	_, err := w.w.Write(out)
	clear(out) // it may hold a PIN or a shared secret
	w.mu.Lock()
	if w.spare = out; cap(out) > maxSpare {
		w.spare = nil
	}
	w.err = err
}
