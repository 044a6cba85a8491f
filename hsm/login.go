package hsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// logIn finds the token, opens the Session that keeps the login, logs in and
// reads the token's index. The caller holds fix and every place of the pool.
func (t *localToken) logIn(ctx context.Context, places []*session) error {
	info, err := t.locate(ctx, places)
	if err != nil {
		return err
	}
	var pin PIN
	if info.LoginRequired && !info.ProtectedPath {
		defer t.verdict(false)
		if pin, err = t.readPIN(ctx, info); err != nil {
			return err
		}
	}
	if err := t.lib.gate.enter(ctx); err != nil {
		return err
	}
	defer t.lib.gate.leave()
	st := &login{epoch: t.lib.epoch.Load(), info: info, user: info.LoginRequired}
	if st.keeper, err = t.lib.api.OpenSession(info.Slot, sessionFlags(info)); err != nil {
		return t.lib.fail("C_OpenSession", err)
	}
	if err := t.begin(ctx, st, pin); err != nil {
		t.lib.api.CloseSession(st.keeper)
		return t.place(err, info)
	}
	t.state.Store(st)
	return nil
}

// locate drops the old Sessions and finds the slot in which the token is now.
func (t *localToken) locate(ctx context.Context, places []*session) (TokenInfo, error) {
	if err := t.lib.gate.enter(ctx); err != nil {
		return TokenInfo{}, err
	}
	defer t.lib.gate.leave()
	t.dropSessions(places)
	t.state.Store(nil)
	tokens, err := t.lib.tokens()
	if err != nil {
		return TokenInfo{}, err
	}
	return chooseToken(t.uri, tokens)
}

// readPIN looks at the token's flags before it asks for the PIN.
func (t *localToken) readPIN(ctx context.Context, info TokenInfo) (PIN, error) {
	if err := t.mayLogIn(info); err != nil {
		return PIN{}, err
	}
	if t.pin == nil {
		return PIN{}, fmt.Errorf("%w: token %q wants a PIN: add pin-source to its URI", ErrPINSource, info.Label)
	}
	pin, err := t.askPIN(ctx, info)
	if err != nil && !errors.Is(err, ErrPINRefused) {
		return PIN{}, err
	}
	if err != nil || refusedPINs.has(t.refusalName(info), pin) {
		return PIN{}, t.refused(info, "this PIN was refused before and is not tried again until it changes")
	}
	return pin, nil
}

func (t *localToken) askPIN(ctx context.Context, info TokenInfo) (PIN, error) {
	if source, ok := t.pin.(judgedPIN); ok {
		return source.want(ctx, t.refusalName(info))
	}
	return t.pin.PIN(ctx)
}

// verdict tells the source of the PIN what became of it.
func (t *localToken) verdict(refused bool) {
	if source, ok := t.pin.(judgedPIN); ok {
		source.verdict(refused)
	}
}

// refusalName names a token in the memory of refused PINs.
func (t *localToken) refusalName(info TokenInfo) string {
	return t.lib.path + "\x00" + info.Manufacturer + "\x00" + info.Serial + "\x00" + info.Label
}

func (t *localToken) refused(info TokenInfo, advice string) *Error {
	e := newError(t.lib.path, t.lib.info.Kind, "C_Login", pkcs11.Error(pkcs11.CKR_PIN_INCORRECT))
	e.Slot, e.Token, e.Advice = info.Slot, info.Label, advice+": correct the PIN source"
	return e
}

// mayLogIn refuses logins that would fail, or lock the PIN.
func (t *localToken) mayLogIn(info TokenInfo) error {
	what := fmt.Sprintf("token %q serial %s slot %d", info.Label, info.Serial, info.Slot)
	switch {
	case info.UserPINLocked:
		return fmt.Errorf("%w: %s: the security officer must set a new PIN (pkcs11-tool --init-pin --login --login-type so)", ErrPINLocked, what)
	case !info.UserPINSet:
		return fmt.Errorf("%w: %s: the security officer must set one (pkcs11-tool --init-pin --login --login-type so)", ErrPINNotSet, what)
	case info.UserPINFinalTry && !t.config.AllowFinalTry:
		return fmt.Errorf("%w: %s: log in once by hand with the right PIN, or allow the final try in the configuration", ErrPINFinalTry, what)
	}
	return nil
}

// begin logs the keeper in and builds the index.
func (t *localToken) begin(ctx context.Context, st *login, pin PIN) error {
	if st.user {
		if err := t.sendPIN(st, pin); err != nil {
			return err
		}
	}
	var err error
	if st.has, err = t.lib.mechanisms(st.info.Slot); err != nil {
		return err
	}
	st.info.KeyTypes = keyTypes(st.has)
	st.objects, err = t.lib.scan(ctx, st.keeper)
	return err
}

// sendPIN calls C_Login once. That another Session of this program logged in
// already is as good. A refused PIN is remembered.
func (t *localToken) sendPIN(st *login, pin PIN) error {
	err := t.lib.api.Login(st.keeper, pkcs11.CKU_USER, pin.reveal())
	if err == nil || errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		t.verdict(false)
		return nil
	}
	e := t.lib.fail("C_Login", err)
	if e.Is(ErrPINRefused) || e.Is(ErrPINLocked) {
		refusedPINs.add(t.refusalName(st.info), pin)
		t.verdict(true)
		t.lib.tell(Event{Kind: EventPINRefused, Token: st.info.Label, Err: e})
	}
	return e
}

// place names slot and token in an error.
func (t *localToken) place(err error, info TokenInfo) error {
	var e *Error
	if errors.As(err, &e) {
		e.Slot, e.Token = info.Slot, info.Label
	}
	return err
}

// errKeyMissing is what a search that found nothing returns.
func (t *localToken) errKeyMissing(st *login, k *KeyInfo) *Error {
	e := newError(t.lib.path, t.lib.info.Kind, "C_FindObjects", pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID))
	e.Slot, e.Token, e.Key = st.info.Slot, st.info.Label, k.name()
	e.missing = k
	return e
}

// afterKeyGone decides what a vanished key means, because modules give one code
// for a destroyed key, a lost login and a token that was taken away. An error
// of a call on a handle is answered by searching again; a search that found
// nothing by looking at the login and at the token.
func (t *localToken) afterKeyGone(ctx context.Context, seen *login, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.missing == nil {
		return nil
	}
	switch why := t.examine(ctx, seen); {
	case why == nil:
		seen.objects.setGone(e.missing.Fingerprint)
		return err
	case classOf(why) == ClassLogin:
		return t.relogin(ctx, seen, err)
	case classOf(why) == 0:
		return why
	}
	return t.restart(ctx, seen, err)
}

// examine asks whether the login still stands and the token is still there with
// its keys. Error codes do not tell.
func (t *localToken) examine(ctx context.Context, st *login) error {
	if err := t.lib.gate.enter(ctx); err != nil {
		return err
	}
	defer t.lib.gate.leave()
	if st.epoch != t.lib.epoch.Load() {
		return t.lib.fail("C_GetSessionInfo", pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN))
	}
	s, err := t.lib.api.GetSessionInfo(st.keeper)
	if err != nil || st.user && !isUserState(s.State) {
		return t.lib.fail("C_GetSessionInfo", pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN))
	}
	return t.examineToken(st)
}

// examineToken looks at the token itself. The caller is inside the gate.
func (t *localToken) examineToken(st *login) error {
	if _, err := t.present(st); err != nil {
		return err
	}
	return t.examineKeys(st)
}

// present asks the token about itself, and whether it is still the same.
func (t *localToken) present(st *login) (TokenInfo, error) {
	info, err := t.lib.tokenInfo(st.info.Slot)
	if err != nil || info.Serial != st.info.Serial || !info.Initialized {
		return TokenInfo{}, t.lib.fail("C_GetTokenInfo", pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT))
	}
	return info, nil
}

// examineKeys searches the token for keys, if it had some.
func (t *localToken) examineKeys(st *login) error {
	if st.objects.empty() {
		return nil
	}
	some, err := t.someKeys(st)
	if err != nil {
		return err
	}
	if !some {
		return t.lib.fail("C_FindObjects", pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT))
	}
	return nil
}

// examineKey looks at one key, and searches where it does not answer.
func (t *localToken) examineKey(st *login, sh pkcs11.SessionHandle) error {
	h, class, ok := st.objects.some()
	if !ok {
		return nil
	}
	v, err := t.lib.attributes(sh, h, pkcs11.CKA_CLASS)
	if err == nil {
		if now, ok := ulong(v[0]); ok && now == class {
			return nil
		}
	}
	if err := t.examineKeys(st); err != nil {
		return err
	}
	if classOf(err) == ClassKeyGone { // another program destroyed it
		st.objects.forgetHandle(h)
	}
	return nil
}

// someKeys searches for any private or secret key, on a Session of its own.
func (t *localToken) someKeys(st *login) (bool, error) {
	sh, err := t.lib.api.OpenSession(st.info.Slot, sessionFlags(st.info))
	if err != nil {
		return false, t.lib.fail("C_OpenSession", err)
	}
	defer t.lib.api.CloseSession(sh)
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY} {
		found, err := t.lib.find(sh, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		}, 1)
		if err != nil || len(found) > 0 {
			return len(found) > 0, err
		}
	}
	return false, nil
}

func isUserState(state uint) bool {
	return state == pkcs11.CKS_RO_USER_FUNCTIONS || state == pkcs11.CKS_RW_USER_FUNCTIONS
}
