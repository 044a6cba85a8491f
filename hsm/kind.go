package hsm

import (
	"path/filepath"
	"strings"
)

// A Kind is a family of modules that answer the same event with the same code.
type Kind string

// The kinds whose habits have been measured; every other module is KindOther.
const (
	KindOther   Kind = "other"
	KindSoftHSM Kind = "softhsm"
	KindNSS     Kind = "nss"          // NSS softokn
	KindP11Kit  Kind = "p11-kit"      // p11-kit-client in front of another module
	KindTPM2    Kind = "tpm2-pkcs11"  // libtpm2_pkcs11
	KindOpenCK  Kind = "opencryptoki" // openCryptoki soft token
)

// kindOf recognises a module by its file and by what it says about itself. The
// file comes first because p11-kit-client repeats the words of the module
// behind it.
func kindOf(path string, info ModuleInfo) Kind {
	name := strings.ToLower(filepath.Base(path))
	about := strings.ToLower(info.Manufacturer + " " + info.Description)
	for _, k := range []struct {
		kind Kind
		word string
	}{
		{KindP11Kit, "p11-kit"},
		{KindSoftHSM, "softhsm"},
		{KindNSS, "softokn"},
		{KindTPM2, "tpm2_pkcs11"},
		{KindOpenCK, "opencryptoki"},
	} {
		if strings.Contains(name, k.word) || strings.Contains(about, k.word) {
			return k.kind
		}
	}
	switch {
	case strings.Contains(about, "mozilla"):
		return KindNSS
	case strings.Contains(about, "tpm2"):
		return KindTPM2
	}
	return KindOther
}

// saysOtherUses reports whether a template may say CKA_DERIVE=false and the
// like. libtpm2_pkcs11 refuses templates that so much as name CKA_DERIVE.
func (k Kind) saysOtherUses() bool { return k != KindTPM2 }
