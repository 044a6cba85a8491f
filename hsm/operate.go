package hsm

import (
	"context"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"
)

// An operation is what is done with a key. Its numbers go over the socket to
// workers.
type operation uint8

const (
	opSign   operation = 1 // CKM_ECDSA over a digest, CKM_EDDSA over a message
	opMAC    operation = 2 // CKM_SHA256_HMAC
	opDerive operation = 3 // CKM_ECDH1_DERIVE with the peer's point
)

func (op operation) valid() bool { return op >= opSign && op <= opDerive }

// Mechanisms without parameters are shared by all calls.
var (
	ecdsaMechanism = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}
	eddsaMechanism = []*pkcs11.Mechanism{pkcs11.NewMechanism(ckmEdDSA, nil)}
	hmacMechanism  = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256_HMAC, nil)}
)

func mechanism(m uint) []*pkcs11.Mechanism {
	switch m {
	case pkcs11.CKM_ECDSA:
		return ecdsaMechanism
	case ckmEdDSA:
		return eddsaMechanism
	}
	return hmacMechanism
}

// operate uses a key and returns what the module made, not yet looked at.
func (t *localToken) operate(ctx context.Context, op operation, k *KeyInfo, in []byte) ([]byte, error) {
	var out []byte
	err := t.run(ctx, 1, func(st *login, sh pkcs11.SessionHandle) error {
		h, err := t.handle(st, sh, k)
		if err != nil {
			return err
		}
		if op == opDerive {
			out, err = t.lib.derive(sh, h, in, k.Type.outputLength(op))
		} else {
			out, err = t.lib.sign(sh, k.Type.signMechanism(), h, in)
		}
		if err != nil {
			return t.blame(st, k, err)
		}
		return nil
	})
	return out, err
}

// handle gives the key's handle in this login, searching when it is not known.
func (t *localToken) handle(st *login, sh pkcs11.SessionHandle, k *KeyInfo) (pkcs11.ObjectHandle, error) {
	if h, ok := st.objects.lookup(k.Fingerprint); ok {
		return h, nil
	}
	if st.objects.isGone(k.Fingerprint) {
		return 0, fmt.Errorf("hsm: token %q, key %s: %w", st.info.Label, k.name(), ErrKeyGone)
	}
	changed, err := t.lookAgain(st, sh, k)
	if err != nil {
		return 0, t.blame(st, k, err)
	}
	if h, ok := st.objects.lookup(k.Fingerprint); ok {
		return h, nil
	}
	if len(changed) > 0 {
		return 0, fmt.Errorf("hsm: token %q, key %s: %w: its public key is not the one that was known", st.info.Label, k.name(), ErrKeyChanged)
	}
	return 0, t.errKeyMissing(st, k)
}

// Looks at a key before it counts as changed. A module whose database another
// process is writing to can give an object's attributes wrongly for a moment.
const (
	maxLooks  = 4
	lookPause = 5 * time.Millisecond
)

// lookAgain resolves a key from what is known, and then from the token. It
// returns the objects of the key's name that are not the key.
func (t *localToken) lookAgain(st *login, sh pkcs11.SessionHandle, k *KeyInfo) (others []KeyInfo, err error) {
	for look := range maxLooks {
		if look > 0 {
			st.objects.forget(k)
			if err := t.lib.search(sh, st.objects, k.ID, k.Label); err != nil {
				return nil, err
			}
		}
		others, err = t.resolve(st, sh, k)
		if _, found := st.objects.lookup(k.Fingerprint); err != nil || found || look > 0 && len(others) == 0 {
			return others, err
		}
		if look > 0 {
			time.Sleep(time.Duration(look) * lookPause)
		}
	}
	return others, nil
}

// resolve describes the objects of the key's name; one that is the key enters
// the index under its fingerprint.
func (t *localToken) resolve(st *login, sh pkcs11.SessionHandle, k *KeyInfo) ([]KeyInfo, error) {
	var infos []KeyInfo
	for _, o := range st.objects.match(k.URI()) {
		if o.name.label != k.Label {
			continue
		}
		info, err := t.lib.describe(sh, st.objects, o.name, o.handle)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// blame names the key in an error and forgets its handle when that is what
// failed, so that the next try searches.
func (t *localToken) blame(st *login, k *KeyInfo, err error) error {
	e, ok := err.(*Error)
	if !ok {
		return err
	}
	e.Key = k.name()
	if e.Class == ClassKeyGone {
		st.objects.forget(k)
	}
	return e
}

func (l *library) sign(sh pkcs11.SessionHandle, m uint, h pkcs11.ObjectHandle, in []byte) ([]byte, error) {
	if err := l.api.SignInit(sh, mechanism(m), h); err != nil {
		return nil, l.fail("C_SignInit", err)
	}
	out, err := l.api.Sign(sh, in)
	if err != nil {
		return nil, l.fail("C_Sign", err)
	}
	return out, nil
}

// derive computes the shared secret of ECDH. The secret passes through a
// Session object that can be read, which is destroyed before derive returns:
// HPKE needs the value. Closing the Session destroys it too, so a failure to
// destroy is reported and ends the Session.
func (l *library) derive(sh pkcs11.SessionHandle, h pkcs11.ObjectHandle, peer []byte, size int) ([]byte, error) {
	params := pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, peer)
	secret, err := l.api.DeriveKey(sh, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, params)}, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, size),
	})
	if err != nil {
		return nil, l.fail("C_DeriveKey", err)
	}
	value, err := l.readAttributes(sh, secret, []uint{pkcs11.CKA_VALUE})
	if gone := l.api.DestroyObject(sh, secret); gone != nil && err == nil {
		clear(value[0])
		err = l.fail("C_DestroyObject", gone)
	}
	if err != nil {
		return nil, derived(err)
	}
	return value[0], nil
}

// derived makes the failure of a call on the derived object a reason to try
// again: its handle says nothing about the key.
func derived(err error) error {
	if e, ok := err.(*Error); ok && e.Class == ClassKeyGone {
		e.Class = ClassRetry
	}
	return err
}

// keys lists every key on the token as it is now.
func (t *localToken) keys(ctx context.Context) ([]KeyInfo, error) {
	return t.lookUp(ctx, URI{}, true)
}

// find lists the keys that the URI names.
func (t *localToken) find(ctx context.Context, u URI) ([]KeyInfo, error) {
	found, err := t.lookUp(ctx, u, false)
	if err != nil || len(found) > 0 {
		return found, err
	}
	return t.lookUp(ctx, u, true)
}

// lookUp describes the matching keys, after a search on the token if asked.
func (t *localToken) lookUp(ctx context.Context, u URI, search bool) ([]KeyInfo, error) {
	var infos []KeyInfo
	err := t.run(ctx, 1, func(st *login, sh pkcs11.SessionHandle) error {
		infos = nil
		if search {
			if err := t.searchAll(ctx, st, sh, u); err != nil {
				return err
			}
		}
		for _, o := range st.objects.match(u) {
			info, err := t.lib.describe(sh, st.objects, o.name, o.handle)
			if classOf(err) == ClassKeyGone {
				st.objects.forget(&KeyInfo{Class: o.name.class, ID: []byte(o.name.id), Label: o.name.label})
				continue
			}
			if err != nil {
				return err
			}
			infos = append(infos, info)
			progressed(ctx)
		}
		return nil
	})
	return infos, err
}

// searchAll brings the index up to date: all of it when the URI names nothing.
func (t *localToken) searchAll(ctx context.Context, st *login, sh pkcs11.SessionHandle, u URI) error {
	if err := t.examineLogin(st, sh); err != nil {
		return err
	}
	if u.NamesObject() {
		return t.lib.search(sh, st.objects, u.ID, u.Object)
	}
	now, err := t.lib.scan(ctx, sh)
	if err != nil {
		return err
	}
	st.objects.replace(now)
	return nil
}

// lookForNew brings the index up to date with what others added, in one search.
func (t *localToken) lookForNew(ctx context.Context) error {
	return t.run(ctx, 1, func(st *login, sh pkcs11.SessionHandle) error {
		if err := t.examineLogin(st, sh); err != nil {
			return err
		}
		return t.lib.searchNew(ctx, sh, st.objects)
	})
}

// examineLogin finds out about a lost login, of which a search says nothing: it
// finds no private object then.
func (t *localToken) examineLogin(st *login, sh pkcs11.SessionHandle) error {
	info, err := t.lib.api.GetSessionInfo(sh)
	if err != nil {
		return t.lib.fail("C_GetSessionInfo", err)
	}
	if st.user && !isUserState(info.State) {
		return t.lib.fail("C_GetSessionInfo", pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN))
	}
	return nil
}
