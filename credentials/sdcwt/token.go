package sdcwt

import (
	"errors"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A token is an SD-CWT whose shape was checked and nothing else: steps 1, 3 and
// 4 of a verification.
//
//	sd-cwt = #6.18([ bstr .cbor { 1: alg, 16: typ, ? 4: kid, ? 15: claims, ? 170: int, ? 172: uint16, * },
//	                 { ? 17: [ + bstr .cbor salted ], ? 171: [ + encrypted ], * },
//	                 bstr .cbor payload, signature bstr ])
type token struct {
	sign1       *cose.Sign1
	hash        Hash
	aead        AEAD
	payload     dcbor.Value
	header      dcbor.Value // CWT Claims (15), or the zero Value
	disclosures []dcbor.Value
	encrypted   []encrypted
	shape       *claimsShape
}

func isTooDeep(err error) bool { return errors.Is(err, dcbor.ErrTooDeep) }

func malformed(where string, err error) error {
	return credentials.Errorf(codeOfDecoding(err, credentials.CodeMalformed), where, "%w", err)
}

// limitsOf returns the limits of decoding a token of at most size octets.
func limitsOf(size int) dcbor.Limits {
	if size == 0 {
		size = maxToken
	}
	return dcbor.Limits{Size: size, Items: size, Pairs: size, Elements: size}
}

// understood are the header labels that crit may name.
var understood = []int64{cose.HeaderAlg, cose.HeaderCrit, cose.HeaderKid, cose.HeaderKCWT, cose.HeaderCWTClaims, cose.HeaderTyp, cose.HeaderX5Chain, headerSDAlg, headerSDAEAD}

// parseToken checks step 3 and 4. accepts says which types are taken beside
// that of an SD-CWT.
func parseToken(s *cose.Sign1, limits dcbor.Limits, accepts func(dcbor.Value) bool) (*token, error) {
	const where = "SD-CWT header"
	if !isType(s.Protected.GetInt(cose.HeaderTyp), accepts) {
		return nil, credentials.Errorf(credentials.CodeSDCWTTyp, where, "typ is %v, want %d or %q", s.Protected.GetInt(cose.HeaderTyp), contentFormatSDCWT, mediaTypeSDCWT)
	}
	if err := checkAlgAndCrit(s, where); err != nil {
		return nil, err
	}
	t := &token{sign1: s}
	if err := t.readHeaders(where); err != nil {
		return nil, err
	}
	var err error
	if t.payload, err = limits.Decode(s.Payload); err != nil {
		return nil, malformed("SD-CWT payload", err)
	}
	t.shape = newClaimsShape(t.hash, len(t.disclosures))
	if err := t.shape.claimsMap(t.payload); err != nil {
		return nil, err
	}
	if t.header = s.Protected.GetInt(cose.HeaderCWTClaims); t.header.Exists() {
		return t, t.shape.claimsMap(t.header)
	}
	return t, nil
}

func isType(typ dcbor.Value, accepts func(dcbor.Value) bool) bool {
	if typ.IsInt(contentFormatSDCWT) {
		return true
	}
	name, _ := typ.Text()
	return name == mediaTypeSDCWT || accepts != nil && accepts(typ)
}

func checkAlgAndCrit(s *cose.Sign1, where string) error {
	if _, err := s.Alg(); err != nil {
		return credentials.Errorf(credentials.CodeAlg, where, "%w", err)
	}
	if err := s.Crit(understood...); err != nil {
		return credentials.Errorf(credentials.CodeCrit, where, "%w", err)
	}
	return nil
}

func (t *token) readHeaders(where string) error {
	s := t.sign1
	var err error
	if s.Unprotected.GetInt(headerSDAlg).Exists() || s.Unprotected.GetInt(headerSDAEAD).Exists() {
		return credentials.Errorf(credentials.CodeSDAlg, where, "sd_alg or sd_aead outside the protected header")
	}
	if t.hash, err = hashFrom(s.Protected.GetInt(headerSDAlg)); err != nil {
		return err
	}
	if t.aead, err = aeadFrom(s.Protected.GetInt(headerSDAEAD)); err != nil {
		return err
	}
	if s.Protected.GetInt(headerSDClaims).Exists() || s.Protected.GetInt(headerSDEncrypted).Exists() {
		return credentials.Errorf(credentials.CodeSDClaimsEmpty, where, "disclosures in the protected header")
	}
	if t.disclosures, err = readDisclosures(s.Unprotected.GetInt(headerSDClaims), where); err != nil {
		return err
	}
	if t.encrypted, err = readEncrypted(s.Unprotected.GetInt(headerSDEncrypted), where); err != nil {
		return err
	}
	if _, err := s.KeyID(); err != nil {
		return malformed(where, err)
	}
	if err := safeHeader(s.Protected, where, cose.HeaderCWTClaims); err != nil {
		return err
	}
	return safeHeader(s.Unprotected, where)
}

// readDisclosures returns the members of sd_claims: a non-empty array of byte
// strings.
func readDisclosures(v dcbor.Value, where string) ([]dcbor.Value, error) {
	if !v.Exists() {
		return nil, nil
	}
	members, ok := v.Elements()
	if !ok || len(members) == 0 {
		return nil, credentials.Errorf(credentials.CodeSDClaimsEmpty, where, "sd_claims is no array with at least one member")
	}
	for _, m := range members {
		if m.Kind() != dcbor.Bytes {
			return nil, credentials.Errorf(credentials.CodeSDClaimsEmpty, where, "sd_claims has a %s, want byte strings", m.Kind())
		}
	}
	return members, nil
}

// claim returns a claim of the payload, or else of the CWT Claims header.
func (t *token) claim(key int64) dcbor.Value {
	if v := t.payload.GetInt(key); v.Exists() || !t.header.Exists() {
		return v
	}
	return t.header.GetInt(key)
}

// mayBeRedacted reports whether a claim that is not in the clear can be among
// the redacted ones.
func (t *token) mayBeRedacted() bool {
	redacted := dcbor.NewSimple(simpleRedactedKeys)
	return t.payload.Get(redacted).Size() > 0 || t.header.Exists() && t.header.Get(redacted).Size() > 0
}
