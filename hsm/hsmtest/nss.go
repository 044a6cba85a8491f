package hsmtest

import (
	"path/filepath"
	"testing"
)

// NSS returns the NSS softokn module over a database of its own. It takes its
// configuration as a string in C_Initialize's pReserved.
func NSS(t testing.TB) *Module {
	t.Helper()
	m := newModule(t, "nss", needFile(t, "libsoftokn3.so", "nss/libsoftokn3.so"), "NSS Certificate DB", UserPIN)
	db := filepath.Join(m.Dir, "db")
	mkdir(t, db)
	m.run(t, "certutil", "-N", "-d", "sql:"+db, "-f", m.PINFile)
	m.InitArgs = "configdir='sql:" + db + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
	return m
}
