package softhsmtests

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// TestSweep makes every call of a token's life fail in turn: on SoftHSM with
// several codes, before and after the call took effect; on the slower modules
// with one.
func TestSweep(t *testing.T) {
	eachModule(t, func(t *testing.T, m *hsmtest.Module) {
		how := hsmtest.Sweeping{OneSide: true}
		if m.Name == "softhsm" {
			how = hsmtest.Sweeping{CodesPerCall: 2}
		}
		hsmtest.Sweep(t, m, how)
	})
}

// newSigner makes a P-256 key.
func newSigner(t testing.TB, tok *hsm.Token, label string) *hsm.Key {
	t.Helper()
	info, err := tok.Generate(t.Context(), hsm.KeySpec{Type: hsm.P256, Use: hsm.UseSign, Label: label})
	if err != nil {
		t.Fatal(err)
	}
	key, err := tok.Signer(t.Context(), tok.KeyURI(info))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var message = []byte("a message")

func digest() []byte {
	sum := sha256.Sum256(message)
	return sum[:]
}

var errBadSignature = errors.New("a signature left the driver that does not verify")

// sign signs the message and verifies the signature.
func sign(ctx context.Context, key *hsm.Key) error {
	sig, err := key.SignContext(ctx, digest(), crypto.SHA256)
	if err == nil && !hsmtest.Verifies(key.Public(), hsm.P256, message, sig) {
		return errBadSignature
	}
	return err
}

// A login that fails in the middle of the token's life must not be repeated
// with the PIN that was refused, however often the key is used.
func TestPINRefusedDuringRepair(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	var faults hsmtest.Faults
	tok := m.Open(t, hsmtest.Wrap(faults.Wrap))
	key := newSigner(t, tok, "key")
	faults.Reset()
	broken := false
	faults.Choose(func(c hsmtest.Call) *hsmtest.Fault {
		switch {
		case c.Function == "C_Login":
			return &hsmtest.Fault{Code: pkcs11.CKR_PIN_INCORRECT}
		case c.Function == "C_SignInit" && !broken:
			broken = true
			return &hsmtest.Fault{Code: pkcs11.CKR_USER_NOT_LOGGED_IN}
		}
		return nil
	})
	for range 5 {
		if err := sign(t.Context(), key); !errors.Is(err, hsm.ErrPINRefused) {
			t.Errorf("with a refused PIN: %v", err)
		}
	}
	faults.Choose(nil)
	if err := sign(t.Context(), key); !errors.Is(err, hsm.ErrPINRefused) {
		t.Errorf("with the PIN that was refused before: %v", err)
	}
	if n := faults.Count("C_Login"); n != 1 {
		t.Errorf("C_Login was called %d times", n)
	}
	for _, problem := range faults.Problems() {
		t.Error(problem)
	}
	m.WriteFile(t, "pin", "00000000")
	for range 2 {
		if err := sign(t.Context(), key); !errors.Is(err, hsm.ErrPINRefused) {
			t.Errorf("with another wrong PIN: %v", err)
		}
	}
	if n := faults.Count("C_Login"); n != 2 {
		t.Errorf("C_Login was called %d times for two PINs", n)
	}
}

// A device that hangs holds its Session; who waits for one gives up when the
// context does, and finds the pool whole afterwards.
func TestWaitersLeaveAHangingDevice(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	var faults hsmtest.Faults
	tok := m.Open(t, hsmtest.Wrap(faults.Wrap), hsmtest.Sessions(1))
	key := newSigner(t, tok, "key")
	inside, free := make(chan struct{}), make(chan struct{})
	faults.Fail("C_Sign", 1, hsmtest.Fault{Before: func() { close(inside); <-free }})
	hung := make(chan error, 1)
	go func() { hung <- sign(context.WithoutCancel(t.Context()), key) }()
	<-inside
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := sign(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a waiter behind a hanging device: %v", err)
		}
		cancel()
	}
	close(free)
	if err := errors.Join(<-hung, sign(t.Context(), key)); err != nil {
		t.Errorf("once the device goes on: %v", err)
	}
}

// A token is not closed under a call, which would crash the module.
func TestCloseWaitsForCalls(t *testing.T) {
	var faults hsmtest.Faults
	tok := hsmtest.Token(t, hsmtest.Wrap(faults.Wrap))
	key := newSigner(t, tok, "key")
	inside, free := make(chan struct{}), make(chan struct{})
	faults.Fail("C_Sign", 1, hsmtest.Fault{Before: func() { close(inside); <-free }})
	hung := make(chan error, 1)
	go func() { hung <- sign(context.WithoutCancel(t.Context()), key) }()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := tok.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closing with a call in flight: %v", err)
	}
	if n := faults.Count("C_CloseSession") + faults.Count("C_Finalize"); n > 0 {
		t.Errorf("%d Sessions or modules were closed under a call", n)
	}
	close(free)
	if err := <-hung; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := sign(t.Context(), key); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("a call after closing: %v", err)
	}
}

// FlipSignatures is what the signer's verification before release is tested
// with; the driver itself hands on what the token returns.
func TestFlippedSignaturesDoNotVerify(t *testing.T) {
	key := newSigner(t, hsmtest.Token(t, hsmtest.Wrap(hsmtest.FlipSignatures)), "key")
	for range 10 {
		if err := sign(t.Context(), key); !errors.Is(err, errBadSignature) {
			t.Errorf("signed by a device that flips a bit: %v", err)
		}
	}
}

// Signing searches nothing: the handle is known, and a token with 1,000 keys
// is opened with one search.
func TestThousandKeys(t *testing.T) {
	const keys = 1000
	m := hsmtest.SoftHSM(t)
	r := load(t, m)
	for i := range keys {
		if _, err := r.generatePair(labelOf(i)); err != nil {
			t.Fatal(err)
		}
	}
	r.Stop()
	var faults hsmtest.Faults
	begin := time.Now()
	tok := m.Open(t, hsmtest.Wrap(faults.Wrap))
	t.Logf("module and token with %d key pairs open in %v, %d calls", keys, time.Since(begin), len(faults.Calls()))
	if n := faults.Count("C_FindObjectsInit"); n != 1 {
		t.Errorf("opening searched %d times", n)
	}
	faults.Reset()
	begin = time.Now()
	key, err := tok.Signer(t.Context(), hsm.URI{Object: labelOf(keys / 2), ID: []byte(labelOf(keys / 2))})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a key found in %v", time.Since(begin))
	begin = time.Now()
	for range 100 {
		if err := sign(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a signature with verification in %v", time.Since(begin)/100)
	if n := faults.Count("C_FindObjectsInit"); n != 0 {
		t.Errorf("finding and signing searched %d times", n)
	}
	if n := faults.Count("C_Sign"); n != 100 {
		t.Errorf("100 signatures took %d calls of C_Sign", n)
	}
	begin = time.Now()
	all, err := tok.Keys(t.Context())
	if err != nil || len(all) != keys {
		t.Errorf("%d keys listed, %v", len(all), err)
	}
	t.Logf("%d keys listed with their attributes in %v", len(all), time.Since(begin))
}

func labelOf(i int) string { return fmt.Sprintf("key %04d", i) }
