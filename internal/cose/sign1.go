// Package cose parses, verifies and makes COSE_Sign1 messages (RFC 9052
// section 4.2) over octets as they were received: nothing is encoded again
// before a signature is verified.
package cose

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// Header labels (RFC 9052 section 3.1, RFC 9360, RFC 9528, RFC 9596, RFC 9597).
const (
	HeaderAlg       = 1
	HeaderCrit      = 2
	HeaderKid       = 4
	HeaderKCWT      = 13
	HeaderCWTClaims = 15
	HeaderTyp       = 16
	HeaderX5Bag     = 32
	HeaderX5Chain   = 33
	HeaderX5T       = 34
	HeaderX5U       = 35
)

// TagSign1 is the CBOR tag of a COSE_Sign1.
const TagSign1 = 18

// Errors of ParseSign1, Alg and Crit that a caller tells apart.
var (
	ErrAlg  = errors.New("alg is missing from the protected header, or not an integer of a supported scheme")
	ErrCrit = errors.New("crit names a header parameter that is not understood here, or is malformed")
)

// A Sign1 is a parsed COSE_Sign1:
//
//	COSE_Sign1 = #6.18([ protected: bstr .cbor header_map, unprotected: header_map,
//	                     payload: bstr, signature: bstr ])
type Sign1 struct {
	Protected        dcbor.Value // a map, empty if the bstr is
	ProtectedOctets  []byte      // content of the bstr as received
	Unprotected      dcbor.Value
	UnprotectedIndex int // where the unprotected map begins in Octets
	Payload          []byte
	Signature        []byte
	Octets           []byte // the whole item with its tag
}

// DecodeSign1 decodes data, which must be a tagged COSE_Sign1 and nothing else.
func DecodeSign1(data []byte, limits dcbor.Limits) (*Sign1, error) {
	v, err := limits.Decode(data)
	if err != nil {
		return nil, err
	}
	return ParseSign1(v, limits)
}

// ParseSign1 parses an item that is already decoded. limits are those of the
// protected header.
func ParseSign1(v dcbor.Value, limits dcbor.Limits) (*Sign1, error) {
	tag, content, ok := v.Tagged()
	if !ok || tag != TagSign1 {
		return nil, errors.New("want a COSE_Sign1 with tag 18")
	}
	parts, ok := content.Elements()
	if !ok || len(parts) != 4 {
		return nil, errors.New("want an array of 4")
	}
	s := &Sign1{Unprotected: parts[1], Octets: v.Raw()}
	protected, ok0 := parts[0].Bytes()
	payload, ok2 := parts[2].Bytes()
	signature, ok3 := parts[3].Bytes()
	if !ok0 || !ok2 || !ok3 || parts[1].Kind() != dcbor.Map {
		return nil, errors.New("want [bstr, map, bstr, bstr]")
	}
	s.ProtectedOctets, s.Payload, s.Signature = protected, payload, signature
	s.UnprotectedIndex = len(v.Raw()) - len(parts[3].Raw()) - len(parts[2].Raw()) - len(parts[1].Raw())
	if err := s.parseProtected(limits); err != nil {
		return nil, err
	}
	return s, s.noLabelTwice()
}

func (s *Sign1) parseProtected(limits dcbor.Limits) error {
	if len(s.ProtectedOctets) == 0 {
		s.Protected = dcbor.NewMap()
		return nil
	}
	var err error
	if s.Protected, err = limits.Decode(s.ProtectedOctets); err != nil {
		return fmt.Errorf("protected header: %w", err)
	}
	if s.Protected.Kind() != dcbor.Map {
		return fmt.Errorf("protected header is a %s, want a map", s.Protected.Kind())
	}
	return nil
}

func (s *Sign1) noLabelTwice() error {
	for label := range s.Unprotected.Pairs() {
		if s.Protected.Get(label).Exists() {
			return fmt.Errorf("label %v is in both headers", label)
		}
	}
	return nil
}

// Header returns a parameter of either header.
func (s *Sign1) Header(label int64) dcbor.Value {
	if v := s.Protected.GetInt(label); v.Exists() {
		return v
	}
	return s.Unprotected.GetInt(label)
}

// KeyID returns kid from either header, or nil.
func (s *Sign1) KeyID() ([]byte, error) {
	v := s.Header(HeaderKid)
	kid, ok := v.Bytes()
	if v.Exists() && !ok {
		return nil, fmt.Errorf("kid is a %s, want a byte string", v.Kind())
	}
	return kid, nil
}

// Alg returns the protected alg. It must be the number of a known scheme.
func (s *Sign1) Alg() (int64, error) {
	alg, ok := s.Protected.GetInt(HeaderAlg).Int()
	known := slices.ContainsFunc(credentials.Schemes(), func(c *credentials.Scheme) bool { return c.AcceptsCOSE(alg) })
	if !ok || !known {
		return 0, ErrAlg
	}
	return alg, nil
}

// Crit checks crit: absent, or a non-empty array of labels that are all in the
// protected header and among understood.
func (s *Sign1) Crit(understood ...int64) error {
	if s.Unprotected.GetInt(HeaderCrit).Exists() {
		return ErrCrit
	}
	crit := s.Protected.GetInt(HeaderCrit)
	if !crit.Exists() {
		return nil
	}
	labels, ok := crit.Elements()
	if !ok || len(labels) == 0 {
		return ErrCrit
	}
	for _, label := range labels {
		n, ok := label.Int()
		if !ok || !slices.Contains(understood, n) || !s.Protected.Get(label).Exists() {
			return ErrCrit
		}
	}
	return nil
}

// X5Chain returns the certificates of x5chain in the protected header: one byte
// string or an array of them (RFC 9360).
func (s *Sign1) X5Chain() ([][]byte, error) {
	v := s.Protected.GetInt(HeaderX5Chain)
	if !v.Exists() {
		return nil, nil
	}
	if one, ok := v.Bytes(); ok {
		return [][]byte{one}, nil
	}
	list, ok := v.Elements()
	if !ok || len(list) < 2 || len(list) > maxX5Chain {
		return nil, errors.New("x5chain is neither a byte string nor an array of 2 to 8")
	}
	chain := make([][]byte, len(list))
	for i, c := range list {
		if chain[i], ok = c.Bytes(); !ok {
			return nil, errors.New("x5chain has an element that is no byte string")
		}
	}
	return chain, nil
}

const maxX5Chain = 8

// Verify reports whether the signature is by pub, and alg one for that key.
func (s *Sign1) Verify(pub crypto.PublicKey) bool {
	alg, err := s.Alg()
	if err != nil {
		return false
	}
	scheme, err := credentials.SchemeOf(pub)
	if err != nil || !scheme.AcceptsCOSE(alg) {
		return false
	}
	return scheme.VerifyRaw(pub, toBeSigned(s.ProtectedOctets, s.Payload), s.Signature)
}

// toBeSigned returns the Sig_structure of RFC 9052 section 4.4:
//
//	[ "Signature1", body_protected: bstr, external_aad: h'', payload: bstr ]
func toBeSigned(protected, payload []byte) []byte {
	b := make([]byte, 0, len(protected)+len(payload)+32)
	b = append(b, "\x84\x6aSignature1"...)
	b = dcbor.AppendBytes(b, protected)
	b = append(b, 0x40)
	return dcbor.AppendBytes(b, payload)
}

// Sign makes a COSE_Sign1. protected must not have alg, which is set to the
// fully specified number of key's scheme. A key in a device is given the
// context.
func Sign(ctx context.Context, key crypto.Signer, protected, unprotected dcbor.Value, payload []byte) ([]byte, error) {
	scheme, err := credentials.SchemeOf(key.Public())
	if err != nil {
		return nil, err
	}
	if protected.GetInt(HeaderAlg).Exists() {
		return nil, errors.New("cose: alg is set from the key")
	}
	members := make([]dcbor.Value, 0, 2*protected.Size()+2)
	members = append(members, dcbor.NewInt(HeaderAlg), dcbor.NewInt(scheme.COSE))
	for label, value := range protected.Pairs() {
		members = append(members, label, value)
	}
	header := dcbor.Encode(dcbor.NewMap(members...))
	signature, err := scheme.SignRawContext(ctx, key, toBeSigned(header, payload))
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(header)+unprotected.MaxEncoded()+len(payload)+len(signature)+32)
	out = append(out, 0xd2, 0x84)
	out = dcbor.AppendBytes(out, header)
	out = unprotected.Append(out)
	out = dcbor.AppendBytes(out, payload)
	return dcbor.AppendBytes(out, signature), nil
}

// WithUnprotected returns the message with another unprotected header. All
// other octets stay as received.
func (s *Sign1) WithUnprotected(unprotected dcbor.Value) []byte {
	out := make([]byte, 0, len(s.Octets))
	out = append(out, s.Octets[:s.UnprotectedIndex]...)
	out = unprotected.Append(out)
	return append(out, s.Octets[s.UnprotectedIndex+len(s.Unprotected.Raw()):]...)
}
