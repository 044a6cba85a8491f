package tpm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// operations are what the faults are put into. Each begins with nothing of its
// own loaded.
var operations = []struct {
	name string
	prep func(*testing.T, *tpm.Device) func(context.Context) error
}{
	{"sign", func(t *testing.T, d *tpm.Device) func(context.Context) error {
		k := generate(t, d, tpm.KeySpec{})
		return func(ctx context.Context) error { return errors.Join(k.Close(), sign(t, ctx, k)) }
	}},
	{"sign by policy", func(t *testing.T, d *tpm.Device) func(context.Context) error {
		k := generate(t, d, tpm.KeySpec{PCRs: []int{23}})
		return func(ctx context.Context) error { return errors.Join(k.Close(), sign(t, ctx, k)) }
	}},
	{"generate", func(t *testing.T, d *tpm.Device) func(context.Context) error {
		return func(ctx context.Context) error {
			k, err := d.GenerateKey(ctx, tpm.KeySpec{PCRs: []int{7}})
			if err != nil {
				return err
			}
			return errors.Join(sign(t, ctx, k), k.Close())
		}
	}},
	{"mac", func(t *testing.T, d *tpm.Device) func(context.Context) error {
		k := generate(t, d, tpm.KeySpec{Kind: tpm.MACSHA256})
		data := make([]byte, 3000)
		want, err := k.MAC(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context) error {
			got, err := k.MAC(ctx, data)
			if err == nil && !bytes.Equal(got, want) {
				t.Fatal("a wrong MAC left the driver")
			}
			return errors.Join(err, k.Close())
		}
	}},
	{"certify", func(t *testing.T, d *tpm.Device) func(context.Context) error {
		ak := generate(t, d, tpm.KeySpec{Kind: tpm.AttestP256})
		k := generate(t, d, tpm.KeySpec{})
		return func(ctx context.Context) error {
			v := tpm.Verifier{Nonce: []byte(rand.Text())}
			e, err := d.Attest(ctx, ak, k, v.Nonce, tpm.AttestOptions{PCRs: []int{1}})
			if err != nil {
				return err
			}
			_, err = v.Verify(e)
			return errors.Join(err, k.Close(), ak.Close())
		}
	}},
}

// TestFaults lets every single command of every operation fail in every way:
// the operation succeeds on its second try or fails with a type, no wrong
// result leaves the driver, and nothing stays loaded that nobody knows of.
func TestFaults(t *testing.T) {
	faults := map[string]tpmtest.Fault{
		"before":    tpmtest.FailBefore,
		"after":     tpmtest.FailAfter,
		"empty":     tpmtest.Answer(nil),
		"garbage":   tpmtest.Answer(bytes.Repeat([]byte{0xa5}, 300)),
		"too short": tpmtest.Cut(12, true),
		"cut off":   tpmtest.Cut(20, false),
		"retry":     tpmtest.Code(uint32(tpm2.TPMRCRetry)),
		"testing":   tpmtest.Code(uint32(tpm2.TPMRCTesting)),
		"failure":   tpmtest.Code(uint32(tpm2.TPMRCFailure)),
		"memory":    tpmtest.Code(uint32(tpm2.TPMRCObjectMemory)),
		"lost":      tpmtest.Code(uint32(tpm2.TPMRCReferenceH0)),
	}
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			s := tpmtest.Start(t, swtpm.Config{})
			layer := new(tpmtest.Faults)
			config := tpm.Config{Address: s.Address(), Wrap: layer.Wrap}
			config.SetSleep(func(time.Duration) {})
			d := tpmtest.OpenConfig(t, config)
			run := op.prep(t, d)
			before := layer.Count()
			if err := run(t.Context()); err != nil {
				t.Fatal(err)
			}
			commands := layer.Count() - before
			for name, fault := range faults {
				for n := 1; n <= commands; n++ {
					checkFault(t, d, layer, n, fault, run, fmt.Sprintf("%s at command %d of %d", name, n, commands))
				}
			}
		})
	}
}

func checkFault(t *testing.T, d *tpm.Device, layer *tpmtest.Faults, n int, fault tpmtest.Fault, run func(context.Context) error, what string) {
	t.Helper()
	layer.At(n, fault)
	err := run(context.Background())
	layer.Clear()
	var e *tpm.Error
	if err != nil && !errors.As(err, &e) && !errors.Is(err, tpm.ErrEvidence) {
		t.Errorf("%s: error without a type: %v", what, err)
	}
	if err := run(context.Background()); err != nil {
		t.Errorf("after %s: %v", what, err)
	}
	if err := d.CheckLoaded(context.Background()); err != nil {
		t.Errorf("after %s: %v", what, err)
	}
}

// TestFlippedBits flips bits in the answers to all commands of a signature.
func TestFlippedBits(t *testing.T) {
	const step = 41
	for _, op := range operations[:3] {
		t.Run(op.name, func(t *testing.T) {
			s := tpmtest.Start(t, swtpm.Config{})
			layer := new(tpmtest.Faults)
			d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address(), Wrap: layer.Wrap})
			run := op.prep(t, d)
			before := layer.Count()
			if err := run(t.Context()); err != nil {
				t.Fatal(err)
			}
			commands := layer.Count() - before
			for n := 1; n <= commands; n++ {
				for bit := n; bit < 8*120; bit += step {
					checkFault(t, d, layer, n, tpmtest.Flip(bit), run, fmt.Sprintf("bit %d flipped in answer %d of %d", bit, n, commands))
				}
			}
		})
	}
}

// TestDamagedForEver: when every answer is damaged the caller is told.
func TestDamagedForEver(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	layer := new(tpmtest.Faults)
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address(), Wrap: layer.Wrap})
	k := generate(t, d, tpm.KeySpec{})
	for _, bit := range []int{8 * 20, 8 * 40, 8 * 60, 8 * 80} {
		layer.When(uint32(tpm2.TPMCCSign), tpmtest.Flip(bit))
		wantError(t, sign(t, t.Context(), k), tpm.ClassGone, tpm.ErrMalformed)
		layer.Clear()
		mustSign(t, k)
	}
	layer.When(uint32(tpm2.TPMCCSign), tpmtest.Code(uint32(tpm2.TPMRCRetry)))
	wantError(t, sign(t, t.Context(), k), tpm.ClassRetry, tpm2.TPMRCRetry)
	layer.Clear()
	mustSign(t, k)
}

// newFaulty opens a TPM behind a layer of faults.
func newFaulty(t testing.TB) (*tpm.Device, *tpmtest.Faults) {
	t.Helper()
	layer := new(tpmtest.Faults)
	config := tpm.Config{Address: tpmtest.Start(t, swtpm.Config{}).Address(), Wrap: layer.Wrap}
	config.SetSleep(func(time.Duration) {})
	return tpmtest.OpenConfig(t, config), layer
}
