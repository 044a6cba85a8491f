package hsmtest

import (
	"path/filepath"
	"strconv"
	"testing"
)

// TPM2PKCS11 returns libtpm2_pkcs11 over a software TPM of its own.
//
// Kill stops the TPM as a power cut would, and Restart powers it up over the
// same state.
func TPM2PKCS11(t testing.TB) *Module {
	t.Helper()
	m := newModule(t, "tpm2-pkcs11", needFile(t, "pkcs11/libtpm2_pkcs11.so"), "privyseal-tpm", UserPIN)
	store := filepath.Join(m.Dir, "store")
	mkdir(t, store)
	tpm := newSWTPM(t, m.Dir)
	m.Env = []string{
		"TPM2_PKCS11_STORE=" + store,
		"TPM2_PKCS11_TCTI=" + tpm.tcti(),
		"TPM2TOOLS_TCTI=" + tpm.tcti(),
		"TSS2_LOG=all+NONE", "TPM2_PKCS11_LOG_LEVEL=0", // what it prints says no more than the CKR
	}
	tpm.start(t)
	m.MaxTries = func(t testing.TB, n int) {
		t.Helper()
		m.run(t, "tpm2_dictionarylockout", "--setup-parameters", "--clear-lockout",
			"--max-tries="+strconv.Itoa(n), "--recovery-time=10", "--lockout-recovery-time=1")
	}
	// A killed TPM counts the stop against its dictionary attack protection
	// once a protected key was used; tests stop it more often than its owner.
	m.MaxTries(t, 1000)
	m.run(t, "pkcs11-tool", "--module", m.Path, "--slot-index", "0", "--init-token", "--label", m.Label, "--so-pin", soPIN)
	m.run(t, "pkcs11-tool", "--module", m.Path, "--token-label", m.Label, "--login", "--login-type", "so",
		"--so-pin", soPIN, "--init-pin", "--new-pin", UserPIN)
	m.Kill = func(testing.TB) { tpm.kill() }
	m.Restart = func(t testing.TB) { t.Helper(); tpm.start(t) }
	return m
}
