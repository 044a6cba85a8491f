package hsm

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// generatePatience is how often a generation is tried again before the module
// is blamed: SoftHSM fails up to seven in a hundred while another Session
// searches.
const generatePatience = 4

// drawID gives a specification without an id one that no other key has.
func (s *KeySpec) drawID() {
	if len(s.ID) == 0 {
		s.ID, s.FreshID = make([]byte, freshID), true
		rand.Read(s.ID)
	}
}

// generate makes a key. When a try failed after the token had made the key,
// what it left behind is destroyed before the next.
func (t *localToken) generate(ctx context.Context, spec KeySpec) (KeyInfo, error) {
	spec.drawID()
	m := &making{token: t, spec: spec}
	err := t.run(ctx, generatePatience, m.try)
	switch info := m.info; {
	case err != nil && m.begun:
		t.run(ctx, 0, func(st *login, sh pkcs11.SessionHandle) error { return t.clearID(st, sh, spec.ID, true) })
		return KeyInfo{}, err
	case err != nil:
		return KeyInfo{}, err
	case info.Problem != "" || !info.Allows(spec.Use) || !t.config.admits(info.Weak):
		return KeyInfo{}, t.discard(ctx, info, spec.Use)
	}
	return m.info, nil
}

// A making is one key that is being generated, over all tries.
type making struct {
	token *localToken
	spec  KeySpec
	begun bool // the id was free, so what has it now is ours
	info  KeyInfo
}

// try makes the key once and reads it back.
func (m *making) try(st *login, sh pkcs11.SessionHandle) error {
	g, err := chooseGenerator(st, m.spec)
	if err != nil {
		return err
	}
	if err := m.prepare(st, sh); err != nil {
		return err
	}
	m.begun = true
	made, err := m.token.lib.generate(sh, g, m.spec)
	if err != nil {
		return err
	}
	m.info, err = m.token.readBack(st, sh, m.spec, made)
	return err
}

// prepare sees that nothing has the id. One that was drawn for this key is free
// before the first try, and is not looked for: that takes most modules longer
// the more keys there are.
func (m *making) prepare(st *login, sh pkcs11.SessionHandle) error {
	if m.spec.FreshID && !m.begun {
		return m.token.examineLogin(st, sh)
	}
	return m.token.clearID(st, sh, m.spec.ID, m.begun)
}

// chooseGenerator refuses what the token's mechanisms cannot do.
func chooseGenerator(st *login, spec KeySpec) (generator, error) {
	g, ok := generatorFor(spec.Type, st.has)
	switch {
	case !ok:
		return g, fmt.Errorf("%w: token %q makes %v, not %s", ErrUnsupported, st.info.Label, st.info.KeyTypes, spec.Type)
	case spec.Use == UseAgree && !st.has[pkcs11.CKM_ECDH1_DERIVE]:
		return g, fmt.Errorf("%w: token %q has no CKM_ECDH1_DERIVE", ErrUnsupported, st.info.Label)
	case spec.Use == UseSign && !st.has[spec.Type.signMechanism()]:
		return g, fmt.Errorf("%w: token %q does not sign with %s", ErrUnsupported, st.info.Label, spec.Type)
	}
	return g, nil
}

// generate calls C_GenerateKeyPair or C_GenerateKey, and returns the handles of
// what was made.
func (l *library) generate(sh pkcs11.SessionHandle, g generator, spec KeySpec) ([]pkcs11.ObjectHandle, error) {
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(g.mechanism, nil)}
	if spec.Use == UseMAC {
		secret, err := l.api.GenerateKey(sh, m, l.secretTemplate(g, spec))
		if err != nil {
			return nil, l.fail("C_GenerateKey", err)
		}
		return []pkcs11.ObjectHandle{secret}, nil
	}
	public, private, err := l.api.GenerateKeyPair(sh, m, l.publicTemplate(g, spec), l.privateTemplate(g, spec))
	if err != nil {
		return nil, l.fail("C_GenerateKeyPair", err)
	}
	return []pkcs11.ObjectHandle{public, private}, nil
}

// hmacKeyLength is the length of generated HMAC-SHA256 keys.
const hmacKeyLength = 32

func (l *library) secretTemplate(g generator, spec KeySpec) []*pkcs11.Attribute {
	t := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, g.keyType),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, hmacKeyLength),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	}
	return append(t, l.guardedTemplate(spec, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE)...)
}

func (l *library) privateTemplate(g generator, spec KeySpec) []*pkcs11.Attribute {
	t := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, g.keyType),
	}
	if spec.Use == UseAgree {
		t = append(t, pkcs11.NewAttribute(pkcs11.CKA_DERIVE, true))
		return append(t, l.guardedTemplate(spec, pkcs11.CKA_SIGN, pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_SIGN_RECOVER)...)
	}
	t = append(t, pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
	return append(t, l.guardedTemplate(spec, pkcs11.CKA_DERIVE, pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_SIGN_RECOVER)...)
}

// guardedTemplate is what every private and secret key has: it stays in the
// token, and is good for nothing but its use.
func (l *library) guardedTemplate(spec KeySpec, otherUses ...uint) []*pkcs11.Attribute {
	t := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ID, spec.ID),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, spec.Label),
	}
	if l.info.Kind.saysOtherUses() {
		for _, use := range otherUses {
			t = append(t, pkcs11.NewAttribute(use, false))
		}
	}
	return t
}

func (l *library) publicTemplate(g generator, spec KeySpec) []*pkcs11.Attribute {
	t := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, g.keyType),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, curveOf(spec.Type).oid),
		pkcs11.NewAttribute(pkcs11.CKA_ID, spec.ID),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, spec.Label),
	}
	if spec.Use == UseSign {
		t = append(t, pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true))
	}
	return t
}

// clearID sees that nothing has the id, and destroys what does when it is ours.
func (t *localToken) clearID(st *login, sh pkcs11.SessionHandle, id []byte, ours bool) error {
	if err := t.examineLogin(st, sh); err != nil {
		return err
	}
	handles, err := t.lib.find(sh, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, id)}, maxObjects)
	if err != nil {
		return err
	}
	if len(handles) > 0 && !ours {
		return fmt.Errorf("%w: token %q, id %x", ErrKeyExists, st.info.Label, id)
	}
	for _, h := range handles {
		if err := t.lib.destroy(st, sh, h); err != nil {
			return err
		}
	}
	return nil
}

// readBack describes the key that was made, by the handles that the module gave
// for it. An id that was not drawn for it is searched for too: another program
// may have made a key of the same id meanwhile.
func (t *localToken) readBack(st *login, sh pkcs11.SessionHandle, spec KeySpec, made []pkcs11.ObjectHandle) (KeyInfo, error) {
	for _, h := range made {
		st.objects.reuse(h)
		if err := t.lib.scanObject(sh, h, st.objects); err != nil {
			return KeyInfo{}, err
		}
	}
	found := st.objects.match(URI{ID: spec.ID})
	if !spec.FreshID || len(found) == 0 {
		if err := t.lib.search(sh, st.objects, spec.ID, spec.Label); err != nil {
			return KeyInfo{}, err
		}
		found = st.objects.match(URI{ID: spec.ID})
	}
	if len(found) != 1 {
		return KeyInfo{}, fmt.Errorf("%w: the token made a key, and shows %d of its id", ErrBadOutput, len(found))
	}
	return t.lib.describe(sh, st.objects, found[0].name, found[0].handle)
}

// discard destroys a key that is not as it was asked for, and says so.
func (t *localToken) discard(ctx context.Context, k KeyInfo, use Use) error {
	err := weakKeyError(k)
	switch {
	case k.Problem != "":
		err = fmt.Errorf("%w: the token made a key that cannot be used: %s", ErrBadOutput, k.Problem)
	case !k.Allows(use):
		err = fmt.Errorf("%w: the token made a key without the use %q", ErrBadOutput, use)
	}
	if gone := t.destroy(ctx, &k); gone != nil {
		err = fmt.Errorf("%w (and it could not be destroyed: %w)", err, gone)
	}
	return err
}

// weakKeyError says which attributes are missing.
func weakKeyError(k KeyInfo) error {
	return fmt.Errorf("%w: key %s is weak in %s; list them in AdmitWeak if you accept that",
		ErrWeakKey, k.name(), strings.Join(k.Weak, ", "))
}

// destroy removes a key and its public half, in this order: a key whose public
// half is left over is found again and finished by the next try.
func (t *localToken) destroy(ctx context.Context, k *KeyInfo) error {
	begun := false
	return t.run(ctx, 1, func(st *login, sh pkcs11.SessionHandle) error {
		if !begun {
			if _, err := t.handle(st, sh, k); err != nil {
				return err
			}
			begun = true
		}
		return t.destroyAll(st, sh, k)
	})
}

// destroyAll destroys the objects of the key that are still there.
func (t *localToken) destroyAll(st *login, sh pkcs11.SessionHandle, k *KeyInfo) error {
	if err := t.examineLogin(st, sh); err != nil {
		return err
	}
	halves, err := t.publicHalves(st, sh, k)
	if err != nil {
		return err
	}
	if _, ok := st.objects.lookup(k.Fingerprint); !ok {
		if _, err := t.resolve(st, sh, k); err != nil {
			return err
		}
	}
	if h, ok := st.objects.lookup(k.Fingerprint); ok {
		if err := t.lib.destroy(st, sh, h); err != nil {
			return err
		}
	}
	for _, h := range halves {
		if err := t.lib.destroy(st, sh, h); err != nil {
			return err
		}
	}
	st.objects.forget(k)
	return nil
}

// publicHalves lists the public objects of the key's id that hold its point.
func (t *localToken) publicHalves(st *login, sh pkcs11.SessionHandle, k *KeyInfo) ([]pkcs11.ObjectHandle, error) {
	c := curveOf(k.Type)
	if c == nil {
		return nil, nil
	}
	var halves []pkcs11.ObjectHandle
	for _, h := range st.objects.publics(string(k.ID)) {
		v, err := t.lib.attributes(sh, h, pkcs11.CKA_EC_POINT)
		if classOf(err) == ClassKeyGone {
			continue
		}
		if err != nil {
			return nil, err
		}
		if point, err := c.parsePoint(v[0]); err == nil && bytes.Equal(point, k.Public) {
			halves = append(halves, h)
		}
	}
	return halves, nil
}
