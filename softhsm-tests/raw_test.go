package softhsmtests

import (
	"errors"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// A raw is a module without our driver, with what the questions of this
// package need.
type raw struct {
	*hsmtest.Raw
	m     *hsmtest.Module
	signs uint // the mechanism of its keys
}

// load initialises the module and opens a Session on its token, logged in.
func load(t *testing.T, m *hsmtest.Module) *raw {
	t.Helper()
	r := &raw{Raw: m.Load(t), m: m}
	if r.signs = pkcs11.CKM_ECDSA; !r.has(r.signs) {
		r.signs = pkcs11.CKM_SHA256_HMAC
	}
	return r
}

// restart finalises and initialises the module.
func (r *raw) restart(t *testing.T) {
	t.Helper()
	if err := r.Start(); err != nil {
		t.Fatalf("initialise, open and log in: %v", err)
	}
}

func attr(kind uint, value any) *pkcs11.Attribute { return pkcs11.NewAttribute(kind, value) }

func mechanism(m uint) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, nil)}
}

// p256 is CKA_EC_PARAMS of the curve.
var p256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// private is the template of a key that is used to sign and stays inside.
func private(label string) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, false), attr(pkcs11.CKA_SIGN, true),
		attr(pkcs11.CKA_LABEL, label), attr(pkcs11.CKA_ID, []byte(label)),
	}
}

func (r *raw) generatePair(label string) (pkcs11.ObjectHandle, error) {
	public := []*pkcs11.Attribute{
		attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_EC_PARAMS, p256), attr(pkcs11.CKA_VERIFY, true),
		attr(pkcs11.CKA_LABEL, label), attr(pkcs11.CKA_ID, []byte(label)),
	}
	_, priv, err := r.GenerateKeyPair(r.Session, mechanism(pkcs11.CKM_EC_KEY_PAIR_GEN), public, private(label))
	return priv, err
}

func (r *raw) generateSecret(label string) (pkcs11.ObjectHandle, error) {
	template := append(private(label), attr(pkcs11.CKA_VALUE_LEN, 32))
	return r.GenerateKey(r.Session, mechanism(pkcs11.CKM_GENERIC_SECRET_KEY_GEN), template)
}

// generate makes a P-256 key, or an HMAC key where there is no P-256.
func (r *raw) generate(label string) (pkcs11.ObjectHandle, error) {
	if r.signs == pkcs11.CKM_ECDSA {
		return r.generatePair(label)
	}
	return r.generateSecret(label)
}

// key is generate for a test that needs the key.
func (r *raw) key(t *testing.T, label string) pkcs11.ObjectHandle {
	t.Helper()
	key, err := r.generate(label)
	if err != nil {
		t.Fatalf("generate: %v", err)
	}
	return key
}

// lookup finds the key again by its label.
func (r *raw) lookup(label string) (pkcs11.ObjectHandle, error) {
	class := uint(pkcs11.CKO_PRIVATE_KEY)
	if r.signs != pkcs11.CKM_ECDSA {
		class = pkcs11.CKO_SECRET_KEY
	}
	template := []*pkcs11.Attribute{attr(pkcs11.CKA_CLASS, class), attr(pkcs11.CKA_LABEL, label)}
	if err := r.FindObjectsInit(r.Session, template); err != nil {
		return 0, err
	}
	found, _, err := r.FindObjects(r.Session, 1)
	if err := errors.Join(err, r.FindObjectsFinal(r.Session)); err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, errNoKey
	}
	return found[0], nil
}

var errNoKey = errors.New("not found")

func (r *raw) has(m uint) bool {
	list, _ := r.GetMechanismList(r.Slot)
	for _, x := range list {
		if x.Mechanism == m {
			return true
		}
	}
	return false
}

func (r *raw) sign(key pkcs11.ObjectHandle) error { return r.signOn(r.Session, key, 32) }

func (r *raw) signOn(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, octets int) error {
	if err := r.SignInit(s, mechanism(r.signs), key); err != nil {
		return err
	}
	_, err := r.Sign(s, make([]byte, octets))
	return err
}
