package hsmtest

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
)

// A Raw is a module in this process without our driver. It shows what the
// module itself does, and does to the driver what another program would.
type Raw struct {
	*pkcs11.Ctx
	Slot    uint
	Session pkcs11.SessionHandle

	m       *Module
	running bool
}

// Load initialises the module in this process and logs in on a Session. It is
// finalised when the test ends.
func (m *Module) Load(t testing.TB) *Raw {
	t.Helper()
	m.Setenv(t)
	r := &Raw{Ctx: pkcs11.New(m.Path), m: m}
	if r.Ctx == nil {
		t.Fatalf("%s cannot be loaded", m.Path)
	}
	t.Cleanup(r.Stop)
	if err := r.Start(); err != nil {
		t.Fatalf("initialise %s and log in: %v", m.Name, err)
	}
	return r
}

// Share returns the module that the driver is going to use in this process,
// and the change that lets it be seen: both then have the same Sessions and the
// same login. To load the module a second time is not the same: p11-kit gives
// each who loads it a connection of its own.
func (m *Module) Share() (*Raw, Change) {
	r := &Raw{m: m}
	return r, Wrap(func(api hsm.API) hsm.API {
		r.Ctx = api.(*pkcs11.Ctx)
		return api
	})
}

// Start finalises the module if it runs, initialises it, and logs in.
func (r *Raw) Start() error {
	r.Stop()
	if err := r.initialize(); err != nil {
		return err
	}
	r.running = true
	if err := r.FindSlot(); err != nil {
		return err
	}
	return r.Reopen()
}

func (r *Raw) initialize() error {
	if r.m.InitArgs == "" {
		return r.Initialize()
	}
	args := append([]byte(r.m.InitArgs), 0)
	return r.Initialize(pkcs11.InitializeWithReserved(unsafe.Pointer(&args[0])))
}

// Stop finalises the module.
func (r *Raw) Stop() {
	if r.running {
		r.Finalize()
	}
	r.running = false
}

var errNoToken = errors.New("the token is in no slot")

// FindSlot looks for the token's slot.
func (r *Raw) FindSlot() error {
	slots, err := r.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if info, err := r.GetTokenInfo(slot); err == nil && info.Label == r.m.Label {
			r.Slot = slot
			return nil
		}
	}
	return errNoToken
}

// Reopen opens a Session and logs in, if that is not so already.
func (r *Raw) Reopen() (err error) {
	if r.Session, err = r.OpenRW(); err != nil {
		return err
	}
	return r.LogIn()
}

// OpenRW opens a Session.
func (r *Raw) OpenRW() (pkcs11.SessionHandle, error) {
	return r.OpenSession(r.Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
}

// LogIn logs the user in, if that is not so already.
func (r *Raw) LogIn() error {
	err := r.Login(r.Session, pkcs11.CKU_USER, UserPIN)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		return nil
	}
	return err
}

// ImportSecret stores a secret that is known outside the token.
func (r *Raw) ImportSecret(label string, value []byte) (pkcs11.ObjectHandle, error) {
	return r.CreateObject(r.Session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(label)),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, value),
	})
}
