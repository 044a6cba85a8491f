package hsm

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"
)

// freshKeys are the keys that one worker made and the others have not seen.
// Each process has handles of its own, and finding one object takes most
// modules a look at every object. So what is asked of a fresh key goes to the
// worker that made it, until the others have looked for all that is new at once.
type freshKeys struct {
	mu      sync.Mutex       // guards the fields below
	maker   *link            // made the last key, and makes the next while it lives
	by      map[string]*link // by CKA_ID, who made the key
	planned bool             // a look is to come
	took    time.Duration    // the last look
	opening time.Duration    // of the token, in the worker that was last to open it
	at      time.Time        // when the last key was made
}

// Looks come freshPause after a key was made, and take at most a freshShare-th of
// the time. One that failed is made again after failedPause at the earliest.
const (
	freshPause  = time.Second
	freshShare  = 20
	failedPause = 10 * time.Second
)

// lookLoad is what a look counts among the calls of a worker, so that calls go
// to another.
const lookLoad = 1 << 16

// route leads to the worker that made the key of an id, if the others may not know
// it. While keys are being made, other calls had better go to the worker that makes
// them, too: when one process changes a token, SoftHSM reads its folder again in
// every other, and not once for a call but for nearly each attribute that it needs.
// With 10,000 keys C_GetTokenInfo took seconds so. How long a look takes, or took
// to open the token, says how much it is.
func (f *freshKeys) route(id []byte) route {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.planned {
		return route{}
	}
	r := route{to: f.by[string(id)]}
	if time.Since(f.at) < freshPause {
		r.ahead, r.lag = f.maker, lagOf(cmp.Or(f.took, f.opening))
	}
	return r
}

// callTime is about what a worker needs for a call.
const callTime = 200 * time.Microsecond

// lagOf is a time as a number of calls.
func lagOf(took time.Duration) int32 { return int32(min(took/callTime, lookLoad)) }

// opened notes how long it took to open the token.
func (f *freshKeys) opened(took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opening = took
}

// last is the worker that made the last key. Keys are made by one, because each
// key that another makes has SoftHSM read the whole folder of the token again.
func (f *freshKeys) last() *link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.maker
}

// add notes who made a key, and returns how long to wait for a look, or 0 if one
// is planned.
func (f *freshKeys) add(id []byte, maker *link) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.maker, f.at = maker, time.Now()
	if f.by == nil {
		f.by = make(map[string]*link)
	}
	f.by[string(id)] = maker
	if f.planned {
		return 0
	}
	f.planned = true
	return max(freshPause, freshShare*f.took)
}

// makers are the workers that made the fresh keys.
func (f *freshKeys) makers() map[*link]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	makers := make(map[*link]bool)
	for _, l := range f.by {
		makers[l] = true
	}
	return makers
}

// seen ends a look. After one that did not fail, all know the fresh keys.
// Otherwise it says how long to wait for the next look.
func (f *freshKeys) seen(took time.Duration, err error) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.took = took
	if err != nil {
		return max(failedPause, freshShare*took)
	}
	clear(f.by)
	f.planned = false
	return 0
}

// made notes that a worker made a key, and plans for the others to see it.
func (t *sharedToken) made(id []byte, maker *link) {
	if len(t.workers.all) == 1 {
		return
	}
	if pause := t.fresh.add(id, maker); pause > 0 {
		t.workers.soon(pause, t.look)
	}
}

// soon runs f after a pause, unless the workers end before.
func (w *workers) soon(pause time.Duration, f func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return
	}
	w.over.Go(func() {
		if sleep(w.running, pause) == nil {
			f(w.running)
		}
	})
}

// look has each worker find the keys that others made. A look during which keys
// were made is followed by another. A worker that starts meanwhile finds them as it
// opens the token.
func (t *sharedToken) look(ctx context.Context) {
	begin := time.Now()
	err := t.lookInAll(ctx)
	if t.workers.tokenByNumber(t.number) != t {
		return // closed
	}
	if pause := t.fresh.seen(time.Since(begin), err); pause > 0 {
		t.workers.soon(pause, t.look)
	}
}

func (t *sharedToken) lookInAll(ctx context.Context) error {
	quiet, err := t.quietly(ctx, func() error {
		makers := t.fresh.makers()
		for _, one := range t.workers.all {
			l := one.link.Load()
			if l == nil || makers[l] && len(makers) == 1 {
				continue
			}
			if err := t.lookIn(ctx, l); err != nil && !errors.Is(err, ErrWorkerLost) {
				return err
			}
		}
		return nil
	})
	if err == nil && !quiet {
		return errLateLook
	}
	return err
}

// errLateLook means that keys may have been made during a look.
var errLateLook = errors.New("hsm: keys were made during the look for new keys")

// makingWait bounds how long those who want no keys to be made wait for the keys
// that are being made.
const makingWait = 5 * time.Second

// quietly runs f while no key is made, for as long as one call may take: what goes
// through the objects of a token while a key is made has SoftHSM read the folder of
// the token again at each of them. If f takes longer, or if that could not be had,
// quiet is false.
func (t *sharedToken) quietly(ctx context.Context, f func() error) (quiet bool, err error) {
	select {
	case t.quiet <- struct{}{}:
		defer t.quiet.unlock()
	default: // somebody else has stopped the making
		return false, f()
	}
	soon, cancel := context.WithTimeout(ctx, makingWait)
	defer cancel()
	if t.making.shut(soon) != nil {
		return false, f()
	}
	open := sync.OnceFunc(t.making.reopen)
	defer open()
	late := time.AfterFunc(t.workers.config.CallTimeout, open)
	err = f()
	return late.Stop(), err
}

// lookIn may take a worker as long as opening the token, which is the same work.
func (t *sharedToken) lookIn(ctx context.Context, l *link) error {
	l.load.Add(lookLoad)
	defer l.load.Add(-lookLoad)
	_, err := result(l.ask(ctx, askLook, t.number.bytes()))
	return err
}
