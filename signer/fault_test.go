package signer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// faultyStore makes a step of the store fail before or after it took effect.
type faultyStore struct {
	*signer.KeyStore
	fault func(step string, after bool) error
}

func (s *faultyStore) step(name string, f func() error) error {
	if err := s.fault(name, false); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return s.fault(name, true)
}

func (s *faultyStore) Reserve(ctx context.Context, k *signer.Key, device string, o signer.ObjectID) error {
	return s.step("reserve", func() error { return s.KeyStore.Reserve(ctx, k, device, o) })
}

func (s *faultyStore) ReserveNext(ctx context.Context, id signer.KeyID, device string, o signer.ObjectID) (n int, err error) {
	err = s.step("reserve-next", func() error {
		n, err = s.KeyStore.ReserveNext(ctx, id, device, o)
		return err
	})
	return n, err
}

func (s *faultyStore) Activate(ctx context.Context, id signer.KeyID, n int, made *signer.Made) error {
	return s.step("activate", func() error { return s.KeyStore.Activate(ctx, id, n, made) })
}

func (s *faultyStore) Abandon(ctx context.Context, id signer.KeyID, n int, why string) error {
	return s.step("abandon", func() error { return s.KeyStore.Abandon(ctx, id, n, why) })
}

func (s *faultyStore) BeginDestroy(ctx context.Context, id signer.KeyID, n int) error {
	return s.step("begin-destroy", func() error { return s.KeyStore.BeginDestroy(ctx, id, n) })
}

func (s *faultyStore) FinishDestroy(ctx context.Context, id signer.KeyID, n int) error {
	return s.step("finish-destroy", func() error { return s.KeyStore.FinishDestroy(ctx, id, n) })
}

func (s *faultyStore) MarkSuspect(ctx context.Context, device string, id signer.KeyID, n int, reason string) error {
	return s.step("suspect", func() error { return s.KeyStore.MarkSuspect(ctx, device, id, n, reason) })
}

// points counts the places where a fault may strike, and strikes at one.
type points struct {
	at   int // strike at this one; 0 never
	seen int
	// dead makes everything after it fail too, as when the process has died.
	dead   bool
	struck string
	kill   func()
}

var errFault = errors.New("fault")

func (p *points) hit(name string) error {
	p.seen++
	if p.seen == p.at {
		p.struck = name
		if p.kill != nil {
			p.kill()
		}
	}
	if p.seen == p.at || p.dead && p.at > 0 && p.seen > p.at {
		return errFault
	}
	return nil
}

// wire puts p between the Keyring, its store and its device.
func (p *points) wire(store *signer.KeyStore, device *signertest.Device) *signer.Keyring {
	device.Fault = func(s signertest.Step, ph signertest.Phase) error {
		return p.hit(fmt.Sprintf("device %s %s", ph, s))
	}
	faulty := &faultyStore{KeyStore: store, fault: func(step string, after bool) error {
		return p.hit(fmt.Sprintf("store %s after=%v", step, after))
	}}
	return signer.NewKeyringWithSteps(faulty, map[string]signer.Device{"soft": device})
}

// scenario makes a key, rotates it, signs, and destroys the old version; it
// goes on after errors, as an operator would.
func scenario(ctx context.Context, ring *signer.Keyring, message []byte) (sig []byte, pub any, errs error) {
	if _, err := ring.Create(ctx, signer.NewKey{ID: "leaf", Purpose: signer.PurposeMLSLeaf, Device: "soft"}); err != nil {
		errs = errors.Join(errs, err)
	}
	if _, err := ring.Rotate(ctx, "leaf", ""); err != nil {
		errs = errors.Join(errs, err)
	}
	s, err := ring.Signer(ctx, "leaf", signer.PurposeMLSLeaf)
	if err == nil {
		pub = s.Public()
		sig, err = s.SignMessage(nil, message, nil)
	}
	errs = errors.Join(errs, err)
	return sig, pub, errors.Join(errs, ring.Destroy(ctx, "leaf", 1))
}

// TestFaultsEverywhere strikes at each point of the scenario, once with the
// rest going on and once with nothing working any more. Then the devices are
// back: after Reconcile the whole state is sound, and the key can be made to
// sign.
func TestFaultsEverywhere(t *testing.T) {
	total := 0
	for _, dead := range []bool{false, true} {
		for at := 0; ; at += stride(t) {
			p := &points{at: at, dead: dead}
			b := newBench(t)
			message := samples(t)[signer.ShapeMLS]
			ring := p.wire(b.store, b.device)
			sig, pub, err := scenario(t.Context(), ring, message)
			if at == 0 {
				if err != nil {
					t.Fatalf("without a fault: %v", err)
				}
				total = p.seen
			} else if err == nil && p.seen >= at {
				t.Errorf("fault at %q was swallowed", p.struck)
			}
			if sig != nil && !signer.P256.Scheme().Verify(pub, message, sig) {
				t.Errorf("fault at %q: a wrong signature left", p.struck)
			}
			b.device.Fault = nil
			recoverState(t, b, p.struck)
			b.store.Close()
			if at > 0 && p.struck == "" {
				break
			}
		}
	}
	if total < 15 {
		t.Errorf("the scenario has only %d points", total)
	}
}

// recoverState does what a new process does, and checks the outcome.
func recoverState(t *testing.T, b *bench, struck string) {
	t.Helper()
	b.ring = signer.NewKeyring(b.store, b.devices())
	found, err := b.ring.Reconcile(t.Context(), time.Now(), 0)
	if err != nil {
		t.Fatalf("fault at %q: %v", struck, err)
	}
	for _, f := range found {
		if f.Err != nil {
			t.Errorf("fault at %q: %s/%d is not settled: %v", struck, f.Key, f.Version, f.Err)
		}
	}
	if again, err := b.ring.Unsettled(t.Context(), time.Now(), 0); err != nil || len(again) != 0 {
		t.Errorf("fault at %q: still unsettled %+v, %v", struck, again, err)
	}
	b.check()
	s, err := b.ring.Signer(t.Context(), "leaf", signer.PurposeMLSLeaf)
	if errors.Is(err, signer.ErrNoKey) || errors.Is(err, signer.ErrKeyState) {
		return // it was never made, or is destroyed: sound
	}
	if err != nil {
		t.Errorf("fault at %q: %v", struck, err)
		return
	}
	if _, err := s.SignMessage(nil, samples(t)[signer.ShapeMLS], nil); err != nil {
		t.Errorf("fault at %q: signing afterwards: %v", struck, err)
	}
}
