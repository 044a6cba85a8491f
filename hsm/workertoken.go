package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A sharedToken is a token that is open in every worker.
type sharedToken struct {
	workers *workers
	number  tokenNumber
	uri     URI
	pin     PINSource
	desk    pinDesk
	fresh   freshKeys
	making  gate // keys that are being made; shut by quietly
	quiet   turnstile

	mu   sync.Mutex // guards seen
	seen map[*link]bool
}

// open opens a token in one worker, where a wrong PIN shows, and then in the
// others.
func (w *workers) open(ctx context.Context, u URI, pin PINSource) (tokenBackend, error) {
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.gate.leave()
	var t *sharedToken
	var first *link
	for {
		var err error
		if first, err = w.choose(ctx, route{}); err != nil {
			return nil, err
		}
		t = w.addToken(u, pin)
		if err = t.openIn(ctx, first, false); err == nil {
			break
		}
		w.removeToken(t)
		if err != errRetired {
			return nil, err
		}
	}
	var rest sync.WaitGroup
	for _, one := range w.all {
		if l := one.link.Load(); l != nil && l != first {
			rest.Go(func() { t.openIn(ctx, l, true) })
		}
	}
	rest.Wait()
	return t, nil
}

func (w *workers) addToken(u URI, pin PINSource) *sharedToken {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	t := &sharedToken{workers: w, number: w.next, uri: u.TokenOnly(), pin: pin, seen: make(map[*link]bool)}
	t.desk.turn, t.quiet = newTurnstile(), newTurnstile()
	w.shared[t.number] = t
	return t
}

func (w *workers) removeToken(t *sharedToken) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.shared, t.number)
}

func (w *workers) tokenByNumber(n tokenNumber) *sharedToken {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shared[n]
}

// openIn opens the token in one worker, once.
func (t *sharedToken) openIn(ctx context.Context, l *link, lazy bool) error {
	t.mu.Lock()
	if t.seen[l] {
		t.mu.Unlock()
		return nil
	}
	for old := range t.seen { // forget the dead
		select {
		case <-old.dead:
			delete(t.seen, old)
		default:
		}
	}
	t.seen[l] = true
	t.mu.Unlock()
	begin := time.Now()
	_, err := result(l.ask(ctx, askOpen, openRequest{t.number, lazy, t.uri}.bytes()))
	if err != nil {
		t.mu.Lock()
		delete(t.seen, l)
		t.mu.Unlock()
		return err
	}
	t.fresh.opened(time.Since(begin))
	return nil
}

func (t *sharedToken) health(ctx context.Context) (Health, error) {
	var h Health
	err := t.workers.askJSON(ctx, t.fresh.route(nil), &h, true, askHealth, t.number.bytes())
	h.Workers = len(t.workers.all)
	for _, one := range t.workers.all {
		if one.link.Load() != nil {
			h.WorkersUp++
		}
	}
	return h, err
}

func (t *sharedToken) keys(ctx context.Context) ([]KeyInfo, error) {
	var keys []KeyInfo
	return keys, t.workers.askJSON(ctx, t.fresh.route(nil), &keys, true, askKeys, t.number.bytes())
}

func (t *sharedToken) find(ctx context.Context, u URI) ([]KeyInfo, error) {
	u.ModulePath, u.ModuleName, u.PINSource = "", "", ""
	out, _, err := t.workers.ask(ctx, t.fresh.route(u.ID), true, askFind, t.number.bytes(), []byte(u.String()))
	if err != nil {
		return nil, err
	}
	var keys []KeyInfo
	err = decodeJSON(out, &keys)
	return keys, err
}

// generate asks one worker, once: a worker that is lost may have made the key.
// Its id is chosen here, so that what a lost worker made can be found.
func (t *sharedToken) generate(ctx context.Context, spec KeySpec) (KeyInfo, error) {
	spec.drawID()
	if err := t.making.enter(ctx); err != nil {
		return KeyInfo{}, err
	}
	defer t.making.leave()
	out, maker, err := t.workers.ask(ctx, route{to: t.fresh.last()}, false, askGenerate, t.number.bytes(), encodeJSON(spec))
	if errors.Is(err, ErrWorkerLost) {
		return KeyInfo{}, fmt.Errorf("%w; the key of id %x may have been made: look before you try again", err, spec.ID)
	}
	if err != nil {
		return KeyInfo{}, err
	}
	t.made(spec.ID, maker)
	var k KeyInfo
	err = decodeJSON(out, &k)
	return k, err
}

// destroy may be asked twice: that the key is gone is what was wanted.
func (t *sharedToken) destroy(ctx context.Context, k *KeyInfo) error {
	_, _, err := t.workers.ask(ctx, t.fresh.route(k.ID), false, askDestroy, t.number.bytes(), encodeJSON(k))
	if !errors.Is(err, ErrWorkerLost) {
		return err
	}
	_, _, err = t.workers.ask(ctx, t.fresh.route(nil), false, askDestroy, t.number.bytes(), encodeJSON(k))
	if errors.Is(err, ErrKeyGone) {
		return nil
	}
	return err
}

// operate uses a key in the least loaded worker that knows it. Signing twice does no harm, so
// a call whose worker was lost is asked of another, once.
func (t *sharedToken) operate(ctx context.Context, op operation, k *KeyInfo, in []byte) ([]byte, error) {
	w := t.workers
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.gate.leave()
	r := operateRequest{token: t.number, op: op, key: k.Fingerprint}
	var header [operateHeader]byte
	r.appendHeader(header[:0])
	for try := 0; ; try++ {
		l, err := w.choose(ctx, t.fresh.route(k.ID))
		if err != nil {
			return nil, err
		}
		out, err := t.operateIn(ctx, l, k, header[:], in)
		if err == errRetired { // nothing was asked
			try--
			continue
		}
		if err == nil || try > 0 || !errors.Is(err, ErrWorkerLost) {
			return out, err
		}
		w.unpublish(l)
	}
}

// operateIn names the key to a worker that does not know it.
func (t *sharedToken) operateIn(ctx context.Context, l *link, k *KeyInfo, header, in []byte) ([]byte, error) {
	out, err := result(l.ask(ctx, askOperate, header, in))
	if err != errUnknownKey {
		return out, err
	}
	if _, err := result(l.ask(ctx, askKnow, t.number.bytes(), encodeJSON(k))); err != nil {
		return nil, err
	}
	return result(l.ask(ctx, askOperate, header, in))
}

// close closes the token in every worker.
func (t *sharedToken) close(ctx context.Context) error {
	t.workers.removeToken(t)
	var first error
	for _, one := range t.workers.all {
		l := one.link.Load()
		if l == nil {
			continue
		}
		_, err := result(l.ask(ctx, askClose, t.number.bytes()))
		if err != nil && !errors.Is(err, ErrWorkerLost) && !errors.Is(err, ErrClosed) && first == nil {
			first = err
		}
	}
	return first
}
