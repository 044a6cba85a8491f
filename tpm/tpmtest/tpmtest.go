// Package tpmtest starts throwaway TPMs for tests and holds the contract of a
// TPM device.
package tpmtest

import (
	"context"
	"testing"
	"time"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
)

// startTimeout bounds the start of a TPM on a machine that is busy.
const startTimeout = 60 * time.Second

// Start runs a TPM of the test's own and ends it with the test. A machine
// without swtpm fails the test and says what to run.
func Start(tb testing.TB, config swtpm.Config) *swtpm.Server {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s, err := swtpm.New(ctx, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Open starts a TPM and opens it. The device is closed with the test.
func Open(tb testing.TB) *tpm.Device {
	tb.Helper()
	return OpenConfig(tb, tpm.Config{Address: Start(tb, swtpm.Config{}).Address()})
}

// OpenConfig opens a device, which is closed with the test.
func OpenConfig(tb testing.TB, config tpm.Config) *tpm.Device {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	d, err := tpm.Open(ctx, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Errorf("close the TPM: %v", err)
		}
	})
	return d
}
