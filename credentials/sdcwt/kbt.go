package sdcwt

import (
	"crypto/subtle"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A kbt is a Key Binding Token whose shape was checked and nothing else.
//
//	kbt = #6.18([ bstr .cbor { 1: alg, 16: 294 / "application/kb+cwt", 13: sd-cwt, * },
//	              { * }, bstr .cbor { 3: aud, ( ? 4, ? 5, 6: iat ) // ( 7: cti ), ? 39: bstr, * }, signature ])
//
// The SD-CWT is an embedded item, not a byte string.
type kbt struct {
	sign1   *cose.Sign1
	payload dcbor.Value
	token   *token
}

// parseKBT is steps 1 to 4.
func (v *Verifier) parseKBT(data []byte) (*kbt, error) {
	limits := limitsOf(v.MaxToken)
	outer, err := cose.DecodeSign1(data, limits)
	if err != nil {
		return nil, malformed("KBT", err)
	}
	k := &kbt{sign1: outer}
	kcwt, err := k.header()
	if err != nil {
		return nil, err
	}
	inner, err := cose.ParseSign1(kcwt, limits)
	if err != nil {
		return nil, malformed("SD-CWT", err)
	}
	if k.token, err = parseToken(inner, limits, v.accepts); err != nil {
		return nil, err
	}
	if k.payload, err = limits.Decode(outer.Payload); err != nil {
		return nil, malformed("KBT payload", err)
	}
	if k.payload.Kind() != dcbor.Map {
		return nil, credentials.Errorf(credentials.CodeMalformed, "KBT payload", "a %s, want a map", k.payload.Kind())
	}
	return k, safe(k.payload, "KBT payload")
}

// header checks step 2 and returns the kcwt parameter.
func (k *kbt) header() (kcwt dcbor.Value, err error) {
	const where = "KBT header"
	protected, unprotected := k.sign1.Protected, k.sign1.Unprotected
	typ := protected.GetInt(cose.HeaderTyp)
	if name, _ := typ.Text(); !typ.IsInt(contentFormatKBT) && name != mediaTypeKBT {
		return kcwt, credentials.Errorf(credentials.CodeKBTTyp, where, "typ is %v, want %d or %q", typ, contentFormatKBT, mediaTypeKBT)
	}
	if err := checkAlgAndCrit(k.sign1, where); err != nil {
		return kcwt, err
	}
	if k.sign1.Header(cose.HeaderCWTClaims).Exists() {
		return kcwt, credentials.Errorf(credentials.CodeKBTCWTClaims, where, "a KBT has no CWT Claims header")
	}
	kcwt = protected.GetInt(cose.HeaderKCWT)
	if n, _, ok := kcwt.Tagged(); !ok || n != cose.TagSign1 {
		return kcwt, credentials.Errorf(credentials.CodeKCWTMissing, where, "no SD-CWT with tag 18 in kcwt (13)")
	}
	if err := safeHeader(protected, where, cose.HeaderKCWT); err != nil {
		return kcwt, err
	}
	return kcwt, safeHeader(unprotected, where)
}

// keyBinding judges the claims of the KBT, whose signature is already verified
// (steps 11 to 14).
func (v *Verifier) keyBinding(k *kbt, t *token) (*KeyBinding, error) {
	if err := k.claims(); err != nil {
		return nil, err
	}
	life, err := lifetimeOf(k.payload.GetInt, "KBT")
	if err != nil {
		return nil, err
	}
	cwt, err := lifetimeOf(t.claim, "claims")
	if err != nil {
		return nil, err
	}
	if err := v.kbtTime(life, cwt); err != nil {
		return nil, err
	}
	nonce, _ := k.payload.GetInt(ClaimCNonce).Bytes()
	if v.Nonce != nil && subtle.ConstantTimeCompare(nonce, v.Nonce) != 1 {
		return nil, credentials.Errorf(credentials.CodeNonce, "KBT", "cnonce is not the one that was asked for")
	}
	if err := v.audience(k.payload.GetInt(ClaimAudience), "KBT", true); err != nil {
		return nil, err
	}
	if err := v.audience(t.claim(ClaimAudience), "SD-CWT", false); err != nil {
		return nil, err
	}
	id, _ := k.payload.GetInt(ClaimCWTID).Bytes()
	aud, _ := k.payload.GetInt(ClaimAudience).Text()
	return &KeyBinding{
		Audience: aud, IssuedAt: life.iat.time(), Expires: life.exp.time(),
		CWTID: id, Nonce: nonce, Claims: ClaimsSet{k.payload}, Encrypted: len(t.encrypted),
	}, nil
}

// claims checks which claims a KBT has (step 11).
func (k *kbt) claims() error {
	has := func(key int64) bool { return k.payload.GetInt(key).Exists() }
	refuse := func(why string) error { return credentials.Errorf(credentials.CodeKBTClaims, "KBT", "%s", why) }
	switch {
	case has(ClaimIssuer) || has(ClaimSubject):
		return refuse("iss and sub must not be in it")
	case !has(ClaimAudience):
		return refuse("aud is missing")
	case !has(ClaimIssuedAt) && !has(ClaimCWTID):
		return refuse("neither iat nor cti is in it")
	case !has(ClaimIssuedAt) && (has(ClaimExpires) || has(ClaimNotBefore)):
		return refuse("exp or nbf without iat")
	}
	for _, key := range []int64{ClaimCWTID, ClaimCNonce} {
		if c := k.payload.GetInt(key); c.Exists() && c.Kind() != dcbor.Bytes {
			return refuse("cti or cnonce is no byte string")
		}
	}
	return nil
}

// kbtTime checks step 12. Without iat there is no age; then only a nonce that
// was asked for shows that the KBT is fresh.
func (v *Verifier) kbtTime(life, cwt lifetime) error {
	refuse := func(why string) error { return credentials.Errorf(credentials.CodeKBTTime, "KBT", "%s", why) }
	now := v.now()
	switch {
	case !life.order():
		return refuse("want nbf <= iat < exp")
	case !life.inside(cwt):
		return refuse("it would be valid when the SD-CWT is not")
	case life.at(now, v.Skew) != "":
		return refuse(string(life.at(now, v.Skew)))
	case v.MaxAge == 0:
		return nil
	case !life.iat.set && v.Nonce == nil:
		return refuse("its age is unknown, and no nonce was asked for")
	case !dateOf(now.Add(-v.MaxAge - v.Skew)).notAfter(life.iat):
		return refuse("older than " + v.MaxAge.String())
	}
	return nil
}
