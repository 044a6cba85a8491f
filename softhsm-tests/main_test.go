// Package softhsmtests runs the contracts of the device drivers, and whole
// flows, on the real modules: SoftHSM in this process and in workers, SoftHSM
// behind p11-kit, NSS softokn, tpm2-pkcs11 over a software TPM, and openCryptoki
// where its daemon starts.
package softhsmtests

import (
	"os"
	"testing"

	"github.com/privyseal/privyseal/hsm"
)

func TestMain(m *testing.M) {
	hsm.WorkerMain(workerLayer)
	os.Exit(m.Run())
}
