package hsm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// findBatch is how many handles one C_FindObjects asks for.
const findBatch = 1024

// maxObjects bounds a search; a module that goes on for ever is broken.
const maxObjects = 1 << 20

// find collects the handles that fit the template. It always ends in
// C_FindObjectsFinal, without which the Session stays stuck in its search.
func (l *library) find(sh pkcs11.SessionHandle, template []*pkcs11.Attribute, most int) ([]pkcs11.ObjectHandle, error) {
	if err := l.api.FindObjectsInit(sh, template); err != nil {
		return nil, l.fail("C_FindObjectsInit", err)
	}
	found, err := l.collect(sh, most)
	if final := l.api.FindObjectsFinal(sh); final != nil && err == nil {
		err = l.fail("C_FindObjectsFinal", final)
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (l *library) collect(sh pkcs11.SessionHandle, most int) ([]pkcs11.ObjectHandle, error) {
	var found []pkcs11.ObjectHandle
	for len(found) < most {
		batch, _, err := l.api.FindObjects(sh, min(findBatch, most-len(found)))
		if err != nil {
			return nil, l.fail("C_FindObjects", err)
		}
		if len(batch) == 0 {
			break
		}
		found = append(found, batch...)
	}
	return found, nil
}

// attributes reads several attributes of an object in one call or, where the
// module has not all of them, one by one. What the object does not have is nil.
func (l *library) attributes(sh pkcs11.SessionHandle, o pkcs11.ObjectHandle, types ...uint) ([][]byte, error) {
	values, err := l.readAttributes(sh, o, types)
	if err == nil || !isMissingAttribute(err) {
		return values, err
	}
	if len(types) == 1 {
		return [][]byte{nil}, nil
	}
	values = make([][]byte, len(types))
	for i, t := range types {
		one, err := l.attributes(sh, o, t)
		if err != nil {
			return nil, err
		}
		values[i] = one[0]
	}
	return values, nil
}

func (l *library) readAttributes(sh pkcs11.SessionHandle, o pkcs11.ObjectHandle, types []uint) ([][]byte, error) {
	request := make([]*pkcs11.Attribute, len(types))
	for i, t := range types {
		request[i] = &pkcs11.Attribute{Type: t}
	}
	answer, err := l.api.GetAttributeValue(sh, o, request)
	if err != nil {
		return nil, l.fail("C_GetAttributeValue", err)
	}
	if len(answer) != len(types) {
		return nil, fmt.Errorf("%w: C_GetAttributeValue gave %d attributes for %d", ErrBadOutput, len(answer), len(types))
	}
	values := make([][]byte, len(types))
	for i, a := range answer {
		values[i] = a.Value
	}
	return values, nil
}

func isMissingAttribute(err error) bool {
	return errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)) ||
		errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_SENSITIVE)) ||
		errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_VALUE_INVALID))
}

// isTrue reads a CK_BBOOL.
func isTrue(value []byte) bool { return len(value) == 1 && value[0] != 0 }

// ulong reads a CK_ULONG.
func ulong(value []byte) (uint, bool) {
	switch len(value) {
	case 8:
		return uint(binary.NativeEndian.Uint64(value)), true
	case 4:
		return uint(binary.NativeEndian.Uint32(value)), true
	}
	return 0, false
}

// An objectName is what a key object is found by.
type objectName struct {
	class KeyClass
	id    string
	label string
}

// scan reads class, id and label of every object on the token, once.
func (l *library) scan(ctx context.Context, sh pkcs11.SessionHandle) (*index, error) {
	handles, err := l.find(sh, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}, maxObjects)
	if err != nil {
		return nil, err
	}
	x := newIndex(len(handles))
	for _, h := range handles {
		if err := l.scanObject(sh, h, x); err != nil {
			return nil, err
		}
		progressed(ctx)
	}
	return x, nil
}

// scanObject adds one object to the index. An object that was destroyed since
// the search is passed over.
func (l *library) scanObject(sh pkcs11.SessionHandle, h pkcs11.ObjectHandle, x *index) error {
	v, err := l.attributes(sh, h, pkcs11.CKA_CLASS, pkcs11.CKA_ID, pkcs11.CKA_LABEL)
	if classOf(err) == ClassKeyGone {
		return nil
	}
	if err != nil {
		return err
	}
	class, ok := ulong(v[0])
	if !ok {
		return nil
	}
	switch class {
	case pkcs11.CKO_PRIVATE_KEY:
		x.add(objectName{ClassPrivate, string(v[1]), string(v[2])}, h)
	case pkcs11.CKO_SECRET_KEY:
		x.add(objectName{ClassSecret, string(v[1]), string(v[2])}, h)
	case pkcs11.CKO_PUBLIC_KEY:
		x.addPublic(string(v[1]), h)
	}
	return nil
}

// search looks for the objects that a URI or a key names and adds those that
// the index lacks, which another program may have made.
func (l *library) search(sh pkcs11.SessionHandle, x *index, id []byte, label string) error {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	if len(id) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	} else if label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	}
	handles, err := l.find(sh, template, maxObjects)
	if err != nil {
		return err
	}
	for _, h := range handles {
		if err := l.scanObject(sh, h, x); err != nil {
			return err
		}
	}
	return nil
}

// searchNew adds the objects whose handles the index lacks.
func (l *library) searchNew(ctx context.Context, sh pkcs11.SessionHandle, x *index) error {
	handles, err := l.find(sh, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}, maxObjects)
	if err != nil {
		return err
	}
	known := x.known()
	for _, h := range handles {
		if known[h] {
			continue
		}
		if err := l.scanObject(sh, h, x); err != nil {
			return err
		}
		progressed(ctx)
	}
	return nil
}

var evidence = []uint{
	pkcs11.CKA_KEY_TYPE, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE,
	pkcs11.CKA_ALWAYS_SENSITIVE, pkcs11.CKA_NEVER_EXTRACTABLE, pkcs11.CKA_LOCAL, pkcs11.CKA_SIGN, pkcs11.CKA_DERIVE,
}

// privateEvidence is evidence, and CKA_EC_PARAMS in the same call; a key that is
// not on a curve has its attributes read one by one.
var privateEvidence = append(slices.Clone(evidence), pkcs11.CKA_EC_PARAMS)

// describe reads what KeyInfo holds.
func (l *library) describe(sh pkcs11.SessionHandle, x *index, name objectName, h pkcs11.ObjectHandle) (KeyInfo, error) {
	if info, ok := x.described(h); ok {
		return info, nil
	}
	wanted := evidence
	if name.class == ClassPrivate {
		wanted = privateEvidence
	}
	v, err := l.attributes(sh, h, wanted...)
	if err != nil {
		return KeyInfo{}, err
	}
	info := KeyInfo{Class: name.class, ID: []byte(name.id), Label: name.label}
	info.Attributes = Attributes{
		Token: isTrue(v[1]), Private: isTrue(v[2]), Sensitive: isTrue(v[3]),
		Extractable:     v[4] == nil || isTrue(v[4]),
		AlwaysSensitive: isTrue(v[5]), NeverExtractable: isTrue(v[6]), Local: isTrue(v[7]),
		Sign: isTrue(v[8]), Derive: isTrue(v[9]),
	}
	info.Weak = info.Attributes.Weak()
	keyType, _ := ulong(v[0])
	check, err := l.identify(sh, x, h, keyType, v[len(evidence):], &info)
	if err != nil {
		return KeyInfo{}, err
	}
	info.Fingerprint = fingerprint(info.Class, info.Type, info.ID, info.Label, check)
	x.setDescribed(h, info)
	return info, nil
}

// identify fills in type and public point, or says what the problem with the
// key is; params has the CKA_EC_PARAMS of a private key. It returns what tells the
// key from another of the same name.
func (l *library) identify(sh pkcs11.SessionHandle, x *index, h pkcs11.ObjectHandle, keyType uint, params [][]byte, info *KeyInfo) ([]byte, error) {
	switch {
	case info.Class == ClassSecret && (keyType == pkcs11.CKK_GENERIC_SECRET || keyType == ckkSHA256HMAC):
		info.Type = HMACSHA256
		return l.checkValue(sh, h, info)
	case info.Class == ClassPrivate && (keyType == pkcs11.CKK_EC || keyType == ckkECEdwards || keyType == ckkECMontgomery):
		return l.readPoint(sh, x, h, params[0], info)
	}
	info.Problem = fmt.Sprintf("CKA_KEY_TYPE 0x%X is not used by this program", keyType)
	return nil, nil
}

// checkMessage is what a secret key authenticates to give its check value, so
// that another key under the same name is noticed.
const checkMessage = "privyseal hsm key check value 1"

func (l *library) checkValue(sh pkcs11.SessionHandle, h pkcs11.ObjectHandle, info *KeyInfo) ([]byte, error) {
	if !info.Attributes.Sign {
		info.Problem = "CKA_SIGN is false"
		return nil, nil
	}
	value, err := l.sign(sh, pkcs11.CKM_SHA256_HMAC, h, []byte(checkMessage))
	switch classOf(err) {
	case ClassCaller, ClassUnsupported:
		code, _ := ckr(err)
		info.Problem = "the token does not compute HMAC-SHA256 with it: " + code.String()
		return nil, nil
	}
	return value, err
}

// readPoint finds the public point: on the public object of the same id or,
// where the module puts it there, on the private one.
func (l *library) readPoint(sh pkcs11.SessionHandle, x *index, h pkcs11.ObjectHandle, params []byte, info *KeyInfo) ([]byte, error) {
	c := curveFromParams(params)
	if c == nil {
		info.Problem = fmt.Sprintf("the curve %x is not used by this program", params)
		return params, nil
	}
	info.Type = c.keyType
	points, err := l.points(sh, x, h, c, info)
	if err != nil {
		return nil, err
	}
	for _, value := range points {
		point, err := c.parsePoint(value)
		if err != nil {
			info.Problem = err.Error()
			return value, nil
		}
		if info.Public != nil && !bytes.Equal(info.Public, point) {
			info.Public, info.Problem = nil, "several public keys have this id"
			return nil, nil
		}
		info.Public = point
	}
	if info.Public == nil {
		info.Problem = "the public key is not on the token"
	}
	return info.Public, nil
}

// points reads every CKA_EC_POINT that may belong to a private key.
func (l *library) points(sh pkcs11.SessionHandle, x *index, h pkcs11.ObjectHandle, c *curve, info *KeyInfo) ([][]byte, error) {
	var points [][]byte
	for _, o := range x.publics(string(info.ID)) {
		v, err := l.attributes(sh, o, pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT)
		if classOf(err) == ClassKeyGone {
			continue
		}
		if err != nil {
			return nil, err
		}
		if curveFromParams(v[0]) == c && v[1] != nil {
			points = append(points, v[1])
		}
	}
	if len(points) > 0 {
		return points, nil
	}
	v, err := l.attributes(sh, h, pkcs11.CKA_EC_POINT)
	if err != nil || len(v[0]) == 0 {
		return nil, err
	}
	return v, nil
}
