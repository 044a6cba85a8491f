package softhsmtests

import (
	"testing"

	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// A candidate is a module that the suites run on. Its make returns the reason
// where this machine cannot have the module.
type candidate struct {
	name string
	make func(t testing.TB) (m *hsmtest.Module, missing string)
}

var candidates = []candidate{
	{"softhsm", present(hsmtest.SoftHSM)},
	{"p11-kit", present(hsmtest.P11Kit)},
	{"nss", present(hsmtest.NSS)},
	{"tpm2-pkcs11", present(hsmtest.TPM2PKCS11)},
	{"opencryptoki", hsmtest.OpenCryptoki},
}

func present(make func(testing.TB) *hsmtest.Module) func(testing.TB) (*hsmtest.Module, string) {
	return func(t testing.TB) (*hsmtest.Module, string) { t.Helper(); return make(t), "" }
}

// eachModule runs f on every module. One that this machine cannot have is
// stated as a condition of the result: `go test -v -json` shows it as an
// attribute of the test.
func eachModule(t *testing.T, f func(t *testing.T, m *hsmtest.Module)) {
	for _, c := range candidates {
		t.Run(c.name, func(t *testing.T) {
			m, missing := c.make(t)
			if m == nil {
				t.Attr("condition", "without "+c.name)
				t.Logf("CONDITION: this result is without %s: %s", c.name, missing)
				return
			}
			f(t, m)
		})
	}
}
