package softhsmtests

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
)

var update = flag.Bool("update", false, "write what was observed into docs/pkcs11-deviations.md")

const deviationsFile = "../docs/pkcs11-deviations.md"

// A behaviour is one row of the table of deviations: what is done to a module
// without our driver, and its answer in the words of the table.
type behaviour struct {
	name string // of the subtest, and the last column
	what string // first column
	ask  func(t *testing.T, r *raw) string
}

var behaviours = []behaviour{
	{"ecdsa", "P-256 key pairs and CKM_ECDSA", asksFor(pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKM_ECDSA)},
	{"ecdsa-hashing", "CKM_ECDSA_SHA256", asksFor(pkcs11.CKM_ECDSA_SHA256)},
	{"ed25519", "Ed25519", asksFor(0x1055, 0x1057)},
	{"ecdh", "CKM_ECDH1_DERIVE", asksFor(pkcs11.CKM_ECDH1_DERIVE)},
	{"montgomery", "CKM_EC_MONTGOMERY_KEY_PAIR_GEN", asksFor(0x1056)},
	{"hmac", "HMAC-SHA256 with a generated secret", askHMAC},
	{"generations", "key generations per C_Initialize", askGenerations},
	{"digest-length", "CKM_ECDSA of 5 octets", askDigestLength},
	{"local", "CKA_LOCAL of a key generated here", askGenerated(pkcs11.CKA_LOCAL)},
	{"always-sensitive", "CKA_ALWAYS_SENSITIVE of it", askGenerated(pkcs11.CKA_ALWAYS_SENSITIVE)},
	{"never-extractable", "CKA_NEVER_EXTRACTABLE of it", askGenerated(pkcs11.CKA_NEVER_EXTRACTABLE)},
	{"imported", "CKA_NEVER_EXTRACTABLE of an imported secret", askImported},
	{"value", "reading CKA_VALUE of a sensitive key", askValue},
	{"set-extractable", "setting CKA_EXTRACTABLE to true", askSet(pkcs11.CKA_EXTRACTABLE, true)},
	{"set-sensitive", "setting CKA_SENSITIVE to false", askSet(pkcs11.CKA_SENSITIVE, false)},
	{"sign-false", "signing with CKA_SIGN set to false", askSignFalse},
	{"wrap", "wrapping a key with CKA_EXTRACTABLE false", askWrap},
	{"private-point", "CKA_EC_POINT of the private key", askPrivatePoint},
	{"destroyed", "signing with a destroyed key", askDestroyed},
	{"other-process", "a key that another process made meanwhile", askOtherProcess},
	{"session-closed", "signing on a closed Session", askSessionClosed},
	{"logged-out", "signing after C_Logout", askLoggedOut},
	{"logged-in-again", "the old handle after a new login", askLoggedInAgain},
	{"finalized", "signing after C_Finalize", askFinalized},
	{"wrong-pin-logged-in", "a wrong PIN while logged in", askWrongPINLoggedIn},
	{"removed", "signing once the token is taken away", askRemoved},
	{"restored", "the least that helps once it is back", askRestored},
	{"reinitialized", "signing once another process has initialised the token anew", askReinitialized},
	{"killed", "signing once the daemon is dead", askKilled},
	{"restarted", "the least that helps once it runs again", askRestarted},
	{"wrong-pin", "a wrong PIN, again and again", askWrongPIN}, // last: it may lock the token
}

// notHere marks what cannot happen to a module.
const notHere = "-"

// said writes an answer: ok when there is no error, the code otherwise.
func said(err error, ok string) string {
	var code pkcs11.Error
	switch {
	case err == nil:
		return ok
	case errors.As(err, &code):
		if name := strings.TrimSpace(err.Error()[strings.LastIndexByte(err.Error(), ':')+1:]); strings.HasPrefix(name, "CKR_") {
			return name
		}
		return fmt.Sprintf("CKR 0x%x", uint(code))
	}
	return err.Error()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func asksFor(mechanisms ...uint) func(*testing.T, *raw) string {
	return func(t *testing.T, r *raw) string {
		return yes(!slices.ContainsFunc(mechanisms, func(m uint) bool { return !r.has(m) }))
	}
}

func askHMAC(t *testing.T, r *raw) string {
	if !r.has(pkcs11.CKM_SHA256_HMAC) {
		return "no"
	}
	key, err := r.generateSecret("hmac")
	if err != nil {
		return "listed, but " + said(err, "")
	}
	if err := r.SignInit(r.Session, mechanism(pkcs11.CKM_SHA256_HMAC), key); err != nil {
		return said(err, "")
	}
	mac, err := r.Sign(r.Session, []byte("message"))
	return said(err, yes(len(mac) == 32))
}

func askGenerations(t *testing.T, r *raw) string {
	for i := range 4 {
		if _, err := r.generate(fmt.Sprint("generation ", i)); err != nil {
			return fmt.Sprintf("%d, then %s", i, said(err, ""))
		}
	}
	return "any"
}

func askDigestLength(t *testing.T, r *raw) string {
	if !r.has(pkcs11.CKM_ECDSA) {
		return notHere
	}
	return said(r.signOn(r.Session, r.key(t, "digest"), 5), "signs")
}

func (r *raw) value(o pkcs11.ObjectHandle, kind uint) ([]byte, error) {
	a, err := r.GetAttributeValue(r.Session, o, []*pkcs11.Attribute{attr(kind, nil)})
	if err != nil {
		return nil, err
	}
	return a[0].Value, nil
}

func (r *raw) truth(o pkcs11.ObjectHandle, kind uint) string {
	v, err := r.value(o, kind)
	return said(err, fmt.Sprint(bytes.Equal(v, []byte{1})))
}

func askGenerated(kind uint) func(*testing.T, *raw) string {
	return func(t *testing.T, r *raw) string { return r.truth(r.key(t, fmt.Sprint("attribute ", kind)), kind) }
}

func askImported(t *testing.T, r *raw) string {
	key, err := r.ImportSecret("imported", bytes.Repeat([]byte{7}, 32))
	if err != nil {
		return "no import: " + said(err, "")
	}
	return r.truth(key, pkcs11.CKA_NEVER_EXTRACTABLE)
}

func askValue(t *testing.T, r *raw) string {
	_, err := r.value(r.key(t, "value"), pkcs11.CKA_VALUE)
	return said(err, "is given out")
}

func askSet(kind uint, to bool) func(*testing.T, *raw) string {
	return func(t *testing.T, r *raw) string {
		key := r.key(t, fmt.Sprint("set ", kind))
		return said(r.SetAttributeValue(r.Session, key, []*pkcs11.Attribute{attr(kind, to)}), "accepted")
	}
}

func askSignFalse(t *testing.T, r *raw) string {
	key := r.key(t, "sign-false")
	if err := r.SetAttributeValue(r.Session, key, []*pkcs11.Attribute{attr(pkcs11.CKA_SIGN, false)}); err != nil {
		return "cannot be set: " + said(err, "")
	}
	return said(r.sign(key), "signs")
}

func askWrap(t *testing.T, r *raw) string {
	const ckmAESKeyWrapPad = 0x210a
	if !r.has(ckmAESKeyWrapPad) {
		return "no CKM_AES_KEY_WRAP_PAD"
	}
	wrapping, err := r.GenerateKey(r.Session, mechanism(pkcs11.CKM_AES_KEY_GEN), []*pkcs11.Attribute{
		attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_VALUE_LEN, 32), attr(pkcs11.CKA_WRAP, true), attr(pkcs11.CKA_ENCRYPT, true),
	})
	if err != nil {
		return said(err, "")
	}
	_, err = r.WrapKey(r.Session, mechanism(ckmAESKeyWrapPad), wrapping, r.key(t, "wrap"))
	return said(err, "wraps it")
}

func askPrivatePoint(t *testing.T, r *raw) string {
	if !r.has(pkcs11.CKM_ECDSA) {
		return notHere
	}
	point, err := r.value(r.key(t, "point"), pkcs11.CKA_EC_POINT)
	return said(err, fmt.Sprintf("%d octets", len(point)))
}

func askDestroyed(t *testing.T, r *raw) string {
	key := r.key(t, "destroyed")
	other, err := r.OpenRW()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.DestroyObject(other, key); err != nil {
		return "cannot be destroyed: " + said(err, "")
	}
	return said(r.sign(key), "signs")
}

func askOtherProcess(t *testing.T, r *raw) string {
	other := r.m.Open(t, hsmtest.Workers(1))
	k := hsm.P256
	if r.signs != pkcs11.CKM_ECDSA {
		k = hsm.HMACSHA256
	}
	if _, err := other.Generate(t.Context(), hsm.KeySpec{Type: k, Label: "other", Use: k.Uses()[0]}); err != nil {
		t.Fatal(err)
	}
	key, err := r.lookup("other")
	if err != nil {
		return said(err, "")
	}
	return said(r.sign(key), "is found and signs")
}

func askSessionClosed(t *testing.T, r *raw) string {
	key := r.key(t, "closed")
	other, err := r.OpenRW()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.CloseSession(other); err != nil {
		t.Fatal(err)
	}
	return said(r.signOn(other, key, 32), "signs")
}

func askLoggedOut(t *testing.T, r *raw) string {
	key := r.key(t, "logout")
	if err := r.Logout(r.Session); err != nil {
		return "cannot log out: " + said(err, "")
	}
	return said(r.sign(key), "signs")
}

func askLoggedInAgain(t *testing.T, r *raw) string {
	key := r.key(t, "login")
	if err := errors.Join(r.Logout(r.Session), r.LogIn()); err != nil {
		return said(err, "")
	}
	return said(r.sign(key), "signs")
}

func askFinalized(t *testing.T, r *raw) string {
	key := r.key(t, "finalized")
	r.Stop()
	return said(r.sign(key), "signs")
}

func askWrongPIN(t *testing.T, r *raw) string {
	if r.m.MaxTries != nil {
		r.Stop()
		r.m.MaxTries(t, 3) // as a TPM has it by default
		defer func() { r.Stop(); r.m.MaxTries(t, 1000) }()
		r.restart(t)
	}
	if err := r.Logout(r.Session); err != nil {
		t.Fatal(err)
	}
	count, last := 0, ""
	for range 6 {
		answer := said(r.Login(r.Session, pkcs11.CKU_USER, "00000000"), "accepted")
		if count > 0 && answer != last {
			return fmt.Sprintf("%d times %s, then %s", count, last, answer)
		}
		count, last = count+1, answer
	}
	return "always " + last
}

func askWrongPINLoggedIn(t *testing.T, r *raw) string {
	return said(r.Login(r.Session, pkcs11.CKU_USER, "00000000"), "accepted")
}

func askRemoved(t *testing.T, r *raw) string {
	if r.m.Remove == nil {
		return notHere
	}
	key := r.key(t, "removed")
	r.m.Remove(t)
	defer r.m.Restore(t)
	return said(r.sign(key), "signs")
}

func askRestored(t *testing.T, r *raw) string {
	if r.m.Remove == nil {
		return notHere
	}
	key := r.key(t, "restored")
	r.m.Remove(t)
	r.sign(key)
	r.m.Restore(t)
	return r.leastThatHelps("restored", key)
}

// leastThatHelps tries the ways back in the order of their cost.
func (r *raw) leastThatHelps(label string, key pkcs11.ObjectHandle) string {
	found := func() error {
		key, err := r.lookup(label)
		if err != nil {
			return err
		}
		return r.sign(key)
	}
	for _, way := range []struct {
		name string
		go_  func() error
	}{
		{"nothing", func() error { return r.sign(key) }},
		{"find the key again", found},
		{"C_Login", func() error { return errors.Join(r.LogIn(), found()) }},
		{"C_OpenSession and C_Login", func() error { return errors.Join(r.Reopen(), found()) }},
		{"C_Finalize and C_Initialize", func() error { return errors.Join(r.Start(), found()) }},
	} {
		if way.go_() == nil {
			return way.name
		}
	}
	return "none of our ways"
}

func askReinitialized(t *testing.T, r *raw) string {
	if r.m.Reinit == nil {
		return notHere
	}
	key := r.key(t, "reinitialized")
	r.m.Reinit(t)
	return said(r.sign(key), "signs")
}

func askKilled(t *testing.T, r *raw) string {
	if r.m.Kill == nil {
		return notHere
	}
	key := r.key(t, "killed")
	r.m.Kill(t)
	defer r.m.Restart(t)
	return said(r.sign(key), "signs")
}

func askRestarted(t *testing.T, r *raw) string {
	if r.m.Kill == nil {
		return notHere
	}
	key := r.key(t, "restarted")
	r.m.Kill(t)
	r.sign(key)
	r.m.Restart(t)
	return r.leastThatHelps("restarted", key)
}
