package content

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/dcbor"
)

// Registered extension keys.
const (
	extSenderURI = 1
	extRoomURI   = 2
)

// An ExtensionKey is a non-zero integer of at most MaxExtInteger either way,
// or, where Int is zero, a text of 1 to MaxExtKey octets. Negative integers and
// texts are for private use.
type ExtensionKey struct {
	Int  int64
	Text string
}

func (k ExtensionKey) String() string {
	if k.Int != 0 {
		return fmt.Sprint(k.Int)
	}
	return fmt.Sprintf("%q", k.Text)
}

// Extensions are the extension fields of a message: for each key, one data item
// in core deterministic CBOR.
//
//	extensions = { ? 1: tstr (senderUri), ? 2: tstr (roomUri),
//	               * (int / tstr .size (1..255)) => any }
type Extensions map[ExtensionKey][]byte

// NewExtensions returns the two extension fields that every sender sets: its
// user URI and the room's.
func NewExtensions(senderURI, roomURI string) Extensions {
	return Extensions{
		{Int: extSenderURI}: dcbor.Encode(dcbor.NewText(senderURI)),
		{Int: extRoomURI}:   dcbor.Encode(dcbor.NewText(roomURI)),
	}
}

// SenderURI returns the user URI that the sender states, if it does.
func (e Extensions) SenderURI() (string, bool) { return e.text(extSenderURI) }

// RoomURI returns the room URI that the sender states, if it does.
func (e Extensions) RoomURI() (string, bool) { return e.text(extRoomURI) }

func (e Extensions) text(key int64) (string, bool) {
	item, ok := e[ExtensionKey{Int: key}]
	if !ok {
		return "", false
	}
	v, err := dcbor.Decode(item)
	if err != nil {
		return "", false
	}
	return v.Text()
}

// value returns the extension map as an item.
func (e Extensions) value() (dcbor.Value, error) {
	pairs := make([]dcbor.Value, 0, 2*len(e))
	for k, item := range e {
		if _, err := (dcbor.Limits{Size: MaxMessage, Deterministic: true}).Decode(item); err != nil {
			return dcbor.Value{}, &Error{Code: CodeExtensionValue, Where: "mimiExtensions[" + k.String() + "]", Detail: err.Error(), Err: err}
		}
		key := dcbor.NewInt(k.Int)
		if k.Int == 0 {
			key = dcbor.NewText(k.Text)
		}
		pairs = append(pairs, key, dcbor.Verbatim(item))
	}
	return dcbor.NewMap(pairs...), nil
}

func parseExtensions(v dcbor.Value) (Extensions, error) {
	if v.Kind() != dcbor.Map {
		return nil, refuse(CodeShape, "mimiExtensions", "%s, want a map", v.Kind())
	}
	e := make(Extensions, v.Size())
	for key, val := range v.Pairs() {
		k, err := extensionKey(key)
		if err != nil {
			return nil, err
		}
		where := "mimiExtensions[" + k.String() + "]"
		if (k.Int == extSenderURI || k.Int == extRoomURI) && val.Kind() != dcbor.Text {
			return nil, refuse(CodeShape, where, "%s, want text", val.Kind())
		}
		if err := checkAny(val, where, 2); err != nil {
			return nil, err
		}
		e[k] = val.Raw()
	}
	return e, nil
}

func extensionKey(key dcbor.Value) (ExtensionKey, error) {
	if s, ok := key.Text(); ok {
		if len(s) < 1 || len(s) > MaxExtKey {
			return ExtensionKey{}, refuse(CodeExtensionKey, "mimiExtensions", "text key of %d octets, want 1 to %d", len(s), MaxExtKey)
		}
		return ExtensionKey{Text: s}, nil
	}
	if n, ok := key.Int(); ok && n != 0 && n >= -MaxExtInteger && n <= MaxExtInteger {
		return ExtensionKey{Int: n}, nil
	}
	return ExtensionKey{}, refuse(CodeExtensionKey, "mimiExtensions", "key is %s, want text or a non-zero integer within ±(2^53-1)", key.Kind())
}

// checkAny checks an item of an extension field. level is that of the item if
// it is a tag, map or array.
func checkAny(v dcbor.Value, where string, level int) error {
	switch v.Kind() {
	case dcbor.Array, dcbor.Map, dcbor.Tag:
		if level > MaxExtDepth {
			return refuse(CodeExtensionDepth, where, "more than %d levels of tags, maps and arrays", MaxExtDepth)
		}
	}
	if n, content, ok := v.Tagged(); ok {
		if err := checkBignum(n, content, where); err != nil {
			return err
		}
		return checkAny(content, where, level+1)
	}
	if elements, ok := v.Elements(); ok {
		for _, e := range elements {
			if err := checkAny(e, where, level+1); err != nil {
				return err
			}
		}
	}
	for key, val := range v.Pairs() {
		if err := checkNestedKey(key, where); err != nil {
			return err
		}
		if err := checkAny(val, where, level+1); err != nil {
			return err
		}
	}
	return nil
}

func checkNestedKey(key dcbor.Value, where string) error {
	if key.Kind() == dcbor.Text || key.Kind() == dcbor.Bytes {
		return nil
	}
	if n, ok := key.Int(); ok && n >= -MaxExtInteger && n <= MaxExtInteger {
		return nil
	}
	return refuse(CodeExtensionKey, where, "nested map key is %s, want text, bytes or an integer within ±(2^53-1)", key.Kind())
}

// checkBignum refuses a bignum (RFC 8949 section 3.4.3) that a shorter item
// would hold.
func checkBignum(tag uint64, content dcbor.Value, where string) error {
	if tag != 2 && tag != 3 {
		return nil
	}
	b, ok := content.Bytes()
	if !ok {
		return refuse(CodeExtensionValue, where, "bignum holds %s, want bytes", content.Kind())
	}
	if len(b) <= 8 || b[0] == 0 {
		return refuse(CodeNotDeterministic, where, "bignum fits an integer or has leading zeros")
	}
	return nil
}
