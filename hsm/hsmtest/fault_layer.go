package hsmtest

import (
	"bytes"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
)

// faultLayer hands every function of hsm.API through Faults.do.
type faultLayer struct {
	api hsm.API
	f   *Faults
}

func (l *faultLayer) do(function string, call func() error) error {
	return l.f.do(Call{Function: function}, call)
}

// one is do for a function with a result, which is lost with an error.
func one[T any](l *faultLayer, function string, call func() (T, error)) (T, error) {
	var v, none T
	err := l.do(function, func() (err error) { v, err = call(); return err })
	if err != nil {
		return none, err
	}
	return v, nil
}

func (l *faultLayer) Initialize(opts ...pkcs11.InitializeOption) error {
	return l.do("C_Initialize", func() error { return l.api.Initialize(opts...) })
}

func (l *faultLayer) Finalize() error {
	return l.do("C_Finalize", func() error {
		err := l.api.Finalize()
		if err == nil {
			l.f.book(func() { clear(l.f.sessions) })
		}
		return err
	})
}

func (l *faultLayer) GetInfo() (pkcs11.Info, error) {
	return one(l, "C_GetInfo", l.api.GetInfo)
}

func (l *faultLayer) GetSlotList(present bool) ([]uint, error) {
	return one(l, "C_GetSlotList", func() ([]uint, error) { return l.api.GetSlotList(present) })
}

func (l *faultLayer) GetSlotInfo(slot uint) (pkcs11.SlotInfo, error) {
	return one(l, "C_GetSlotInfo", func() (pkcs11.SlotInfo, error) { return l.api.GetSlotInfo(slot) })
}

func (l *faultLayer) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	return one(l, "C_GetTokenInfo", func() (pkcs11.TokenInfo, error) { return l.api.GetTokenInfo(slot) })
}

func (l *faultLayer) GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error) {
	return one(l, "C_GetMechanismList", func() ([]*pkcs11.Mechanism, error) { return l.api.GetMechanismList(slot) })
}

func (l *faultLayer) OpenSession(slot, flags uint) (pkcs11.SessionHandle, error) {
	sh, err := one(l, "C_OpenSession", func() (pkcs11.SessionHandle, error) { return l.api.OpenSession(slot, flags) })
	if err == nil {
		l.f.book(func() { l.f.sessions[sh] = idle })
	}
	return sh, err
}

// CloseSession takes the Session off the books even when the module reports an
// error: the driver has done its part.
func (l *faultLayer) CloseSession(sh pkcs11.SessionHandle) error {
	err := l.do("C_CloseSession", func() error { return l.api.CloseSession(sh) })
	l.f.book(func() { delete(l.f.sessions, sh) })
	return err
}

func (l *faultLayer) GetSessionInfo(sh pkcs11.SessionHandle) (pkcs11.SessionInfo, error) {
	return one(l, "C_GetSessionInfo", func() (pkcs11.SessionInfo, error) { return l.api.GetSessionInfo(sh) })
}

func (l *faultLayer) Login(sh pkcs11.SessionHandle, user uint, pin string) error {
	err := l.do("C_Login", func() error { return l.api.Login(sh, user, pin) })
	l.f.loginResult(pinDigest(pin), err)
	return err
}

func (l *faultLayer) FindObjectsInit(sh pkcs11.SessionHandle, template []*pkcs11.Attribute) error {
	began := false
	err := l.do("C_FindObjectsInit", func() error {
		err := l.api.FindObjectsInit(sh, template)
		began = err == nil
		return err
	})
	l.f.begin(sh, searching, began)
	return err
}

func (l *faultLayer) FindObjects(sh pkcs11.SessionHandle, most int) (found []pkcs11.ObjectHandle, more bool, err error) {
	err = l.do("C_FindObjects", func() (err error) { found, more, err = l.api.FindObjects(sh, most); return err })
	if err != nil {
		return nil, false, err
	}
	return found, more, nil
}

func (l *faultLayer) FindObjectsFinal(sh pkcs11.SessionHandle) error {
	return l.do("C_FindObjectsFinal", func() error { defer l.f.end(sh); return l.api.FindObjectsFinal(sh) })
}

func (l *faultLayer) GetAttributeValue(sh pkcs11.SessionHandle, o pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	return one(l, "C_GetAttributeValue", func() ([]*pkcs11.Attribute, error) { return l.api.GetAttributeValue(sh, o, a) })
}

func (l *faultLayer) DestroyObject(sh pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	return l.do("C_DestroyObject", func() error { return l.api.DestroyObject(sh, o) })
}

func (l *faultLayer) GenerateKey(sh pkcs11.SessionHandle, m []*pkcs11.Mechanism, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	return one(l, "C_GenerateKey", func() (pkcs11.ObjectHandle, error) { return l.api.GenerateKey(sh, m, template) })
}

func (l *faultLayer) GenerateKeyPair(sh pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pub, priv pkcs11.ObjectHandle, err error) {
	err = l.do("C_GenerateKeyPair", func() (err error) {
		pub, priv, err = l.api.GenerateKeyPair(sh, m, public, private)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return pub, priv, nil
}

func (l *faultLayer) SignInit(sh pkcs11.SessionHandle, m []*pkcs11.Mechanism, o pkcs11.ObjectHandle) error {
	began := false
	err := l.do("C_SignInit", func() error {
		err := l.api.SignInit(sh, m, o)
		began = err == nil
		return err
	})
	l.f.begin(sh, signing, began)
	return err
}

func (l *faultLayer) Sign(sh pkcs11.SessionHandle, message []byte) ([]byte, error) {
	return one(l, "C_Sign", func() ([]byte, error) { defer l.f.end(sh); return l.api.Sign(sh, message) })
}

func (l *faultLayer) DeriveKey(sh pkcs11.SessionHandle, m []*pkcs11.Mechanism, base pkcs11.ObjectHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	return one(l, "C_DeriveKey", func() (pkcs11.ObjectHandle, error) { return l.api.DeriveKey(sh, m, base, template) })
}

// FlipSignatures is a layer for hsm.Config.Wrap under which every signature
// and MAC has its last bit turned over: a device that went bad and does not
// say so. What signs with such a device must notice before it hands anything
// out.
func FlipSignatures(api hsm.API) hsm.API { return flipLayer{api} }

type flipLayer struct{ hsm.API }

func (l flipLayer) Sign(sh pkcs11.SessionHandle, message []byte) ([]byte, error) {
	sig, err := l.API.Sign(sh, message)
	if err != nil || len(sig) == 0 {
		return sig, err
	}
	flipped := bytes.Clone(sig)
	flipped[len(flipped)-1] ^= 1
	return flipped, nil
}
