package softhsmtests

import (
	"testing"

	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// TestToken holds every module to the contract of a token, in this process.
func TestToken(t *testing.T) {
	eachModule(t, func(t *testing.T, m *hsmtest.Module) { hsmtest.TestToken(t, m) })
}

// TestTokenInWorkers holds every module to the same contract in worker
// processes.
func TestTokenInWorkers(t *testing.T) {
	eachModule(t, func(t *testing.T, m *hsmtest.Module) { hsmtest.TestToken(t, m, m.InWorkers()) })
}

// TestRecovery does to every module what happens to tokens.
func TestRecovery(t *testing.T) {
	eachModule(t, func(t *testing.T, m *hsmtest.Module) { hsmtest.TestRecovery(t, m) })
}

// TestRecoveryInWorkers does what can be done from outside a worker.
func TestRecoveryInWorkers(t *testing.T) {
	eachModule(t, func(t *testing.T, m *hsmtest.Module) { hsmtest.TestRecovery(t, m, m.InWorkers()) })
}
