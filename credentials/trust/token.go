package trust

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

// Bounds of a token in a credential.
const (
	MaxToken       = 64 << 10
	maxDisclosures = 256
	tokenDepth     = 16
)

// A TokenCheck is one token with its key binding.
type TokenCheck struct {
	Token []byte // an SD-JWT+KB in compact form, or a KBT
	// HolderKey is the key that cnf must confirm and the key binding must be
	// signed by: that of the leaf, or of a binding.
	HolderKey crypto.PublicKey
	// Audiences are the names that the key binding may be made for.
	Audiences []string
}

// issuerOf selects the one entry that is configured for a token: by type and
// exact iss. Nothing is fetched for a token of anybody else.
func (s *Snapshot) issuerOf(kind, iss string) (*Issuer, error) {
	if i := s.byIss[[2]string{kind, iss}]; i != nil && iss != "" {
		if !i.Serves(RoleClient) {
			return nil, credentials.Errorf(credentials.CodeIssuerRole, "iss", "issuer %q is not for %s", i.Name, roleName(RoleClient))
		}
		return i, nil
	}
	if i := s.autoDomain(kind, iss); i != nil {
		return i, nil
	}
	return nil, credentials.Errorf(credentials.CodeIssuerUnknown, "iss", "no issuer of type %s with iss %.200q is configured", kind, iss)
}

// audiencesFor adds what an entry admits: its configured names, and the
// providers that it may speak for, since a KeyPackage is made before its room
// is known.
func (i *Issuer) audiencesFor(more []string) []string {
	all := slices.Concat(more, i.config.Audiences)
	for _, g := range i.grants {
		all = append(all, "mimi://"+g.Host)
	}
	return all
}

// SDJWT verifies an SD-JWT+KB, or an ordinary JWT with a KB-JWT, all but the
// time and the status.
func (s *Snapshot) SDJWT(ctx context.Context, c TokenCheck) (*Evidence, error) {
	if len(c.Token) > MaxToken {
		return nil, credentials.Errorf(credentials.CodeMalformed, "SD-JWT", "%d octets, at most %d are read", len(c.Token), MaxToken)
	}
	limits := sdjwt.Limits{Octets: MaxToken, Disclosures: maxDisclosures, Depth: tokenDepth}
	t, err := sdjwt.Parse(string(c.Token), limits)
	if err != nil {
		return nil, err
	}
	signed, iss, typ, err := peekJWT(t.IssuerJWT())
	if err != nil {
		return nil, err
	}
	i, err := s.issuerOf(TypeSDJWT, iss)
	if err != nil {
		return nil, err
	}
	keys := &jwtKeys{issuer: i}
	policy := i.jwtPolicy(typ, c.Audiences, limits)
	policy.Issuers, policy.Now = keys, s.list.opts.Now
	v, err := sdjwt.NewVerifier(policy)
	if err != nil {
		return nil, err
	}
	got, err := v.VerifyToken(ctx, t, sdjwt.Expect{HolderKey: c.HolderKey})
	if err != nil {
		return nil, err
	}
	if err := i.checkVCT(got); err != nil {
		return nil, err
	}
	e := &Evidence{
		Issuer: i, SDJWT: got, id: tokenID(TypeSDJWT, signed), signers: keys.found.chain, KeysUntil: keys.found.until,
		NotBefore: later(later(later(got.NotBefore, got.IssuedAt), got.KeyBinding.IssuedAt), keys.found.notBefore),
		NotAfter:  earlier(earlier(got.Expires, got.KeyBinding.Expires), keys.found.notAfter),
	}
	e.lifetime(later(got.NotBefore, got.IssuedAt), got.Expires)
	e.status, _ = got.Claims.Get("status")
	level, there := got.Claims.Text(credentials.ClaimAttestation)
	return e, e.finish(level, there)
}

// peekJWT reads what of an unverified JWT says how to verify it. signed is what
// its signature covers.
func peekJWT(jwt string) (signed []byte, iss, typ string, err error) {
	j, err := jose.ParseCompact(jwt, tokenDepth+1)
	if err != nil {
		return nil, "", "", malformedJWT("issuer JWT", err)
	}
	payload, err := jose.ParseObject(j.Payload, tokenDepth+1)
	if err != nil {
		return nil, "", "", malformedJWT("payload", err)
	}
	iss, _, ok := payload.Text("iss")
	if !ok {
		return nil, "", "", credentials.Errorf(credentials.CodeClaimType, "payload.iss", "not a string")
	}
	return []byte(jwt[:strings.LastIndexByte(jwt, '.')]), iss, j.Header.Typ, nil
}

func malformedJWT(where string, err error) error {
	code := credentials.CodeMalformed
	if errors.Is(err, jose.ErrDepth) {
		code = credentials.CodeDepth
	}
	return credentials.Errorf(code, where, "%w", err)
}

// jwtPolicy is what an entry asks of its tokens.
func (i *Issuer) jwtPolicy(typ string, audiences []string, limits sdjwt.Limits) sdjwt.Policy {
	p := sdjwt.Policy{
		Types: i.jwtTypes(), VC: typ == sdjwt.TypeVC, Audiences: i.audiencesFor(audiences), AnyNonce: true, Freshness: sdjwt.Unlimited,
		Skew: timeless, KBSkew: timeless, IgnoreStatus: true, Limits: limits, Required: []string{"iss", "exp"},
	}
	if p.VC {
		for _, vct := range i.config.VCT {
			p.VCTs = append(p.VCTs, vct.Text)
		}
	}
	return p
}

// checkVCT wants one of the types of credential that the entry lists, if it lists
// any, also of a JWT that is no SD-JWT VC: its typ would else be the way round.
func (i *Issuer) checkVCT(v *sdjwt.Verified) error {
	vct, _ := v.Claims.Text("vct")
	if i.config.VCT == nil || slices.ContainsFunc(i.config.VCT, func(k ClaimKey) bool { return k.Text == vct }) {
		return nil
	}
	return credentials.Errorf(credentials.CodePolicy, "payload.vct", "%.200q is not one that issuer %q is configured for", vct, i.Name)
}

func (i *Issuer) jwtTypes() []string {
	if i.config.Types == nil {
		return []string{sdjwt.TypeVC}
	}
	var types []string
	for _, t := range i.config.Types {
		types = append(types, t.Text)
	}
	return types
}

// jwtKeys finds the key of one issuer for package sdjwt.
type jwtKeys struct {
	issuer *Issuer
	found  *candidate
}

// IssuerKey implements sdjwt.IssuerKeys.
func (k *jwtKeys) IssuerKey(ctx context.Context, hint sdjwt.IssuerHint) (crypto.PublicKey, error) {
	h := keyHint{alg: hint.Alg, chain: hint.Chain}
	if hint.Kid != "" {
		h.kid = []byte(hint.Kid)
	}
	var err error
	if k.found, err = k.issuer.keys.find(ctx, h); err != nil {
		return nil, err
	}
	return k.found.public, nil
}

// SDCWT verifies a KBT with its SD-CWT, or with an ordinary CWT where the entry
// admits one, all but the time and the status.
func (s *Snapshot) SDCWT(ctx context.Context, c TokenCheck) (*Evidence, error) {
	p, err := peekKBT(c.Token)
	if err != nil {
		return nil, err
	}
	i, err := s.issuerOf(TypeSDCWT, p.iss)
	if err != nil {
		return nil, err
	}
	if err := i.checkCWTType(p.typ); err != nil {
		return nil, err
	}
	keys, audiences := &cwtKeys{issuer: i}, i.audiencesFor(c.Audiences)
	v := &sdcwt.Verifier{
		Issuers: keys, AcceptAudience: func(a string) bool { return slices.Contains(audiences, a) }, Now: s.list.opts.Now, Skew: timeless,
		Types: func(string) bool { return true }, AcceptPlain: i.config.AcceptPlainCWT, // judged by checkCWTType
		MaxToken: MaxToken, MaxDisclosures: maxDisclosures, ConfirmationKey: c.HolderKey, Profile: i.cwtProfile(),
	}
	got, err := v.Verify(ctx, c.Token)
	if err != nil {
		return nil, err
	}
	issued := later(got.NotBefore, got.Claims.Date(sdcwt.ClaimIssuedAt))
	e := &Evidence{
		Issuer: i, SDCWT: got, id: tokenID(TypeSDCWT, p.signed), signers: keys.found.chain, KeysUntil: keys.found.until,
		NotBefore: later(later(issued, got.KeyBinding.IssuedAt), keys.found.notBefore),
		NotAfter:  earlier(earlier(got.Expires, got.KeyBinding.Expires), keys.found.notAfter),
	}
	e.lifetime(issued, got.Expires)
	e.status = got.Claims.Raw(sdcwt.ClaimStatus)
	level, there := got.Claims.Text(credentials.ClaimAttestation)
	return e, e.finish(level, there)
}

// A peekedKBT is what of an unverified KBT says how to verify it.
type peekedKBT struct {
	iss    string
	typ    dcbor.Value
	signed []byte
}

func peekKBT(data []byte) (*peekedKBT, error) {
	limits := dcbor.Limits{Size: MaxToken, Items: MaxToken, Pairs: MaxToken, Elements: MaxToken}
	bad := func(where string, err error) error {
		code := credentials.CodeMalformed
		if errors.Is(err, dcbor.ErrTooDeep) {
			code = credentials.CodeDepth
		}
		return credentials.Errorf(code, where, "%w", err)
	}
	outer, err := cose.DecodeSign1(data, limits)
	if err != nil {
		return nil, bad("KBT", err)
	}
	kcwt := outer.Protected.GetInt(cose.HeaderKCWT)
	if tag, _, ok := kcwt.Tagged(); !ok || tag != cose.TagSign1 {
		return nil, credentials.Errorf(credentials.CodeKCWTMissing, "KBT header", "no SD-CWT in kcwt (13)")
	}
	inner, err := cose.ParseSign1(kcwt, limits)
	if err != nil {
		return nil, bad("SD-CWT", err)
	}
	payload, err := limits.Decode(inner.Payload)
	if err != nil {
		return nil, bad("SD-CWT payload", err)
	}
	iss := payload.GetInt(sdcwt.ClaimIssuer)
	if !iss.Exists() {
		iss = inner.Protected.GetInt(cose.HeaderCWTClaims).GetInt(sdcwt.ClaimIssuer)
	}
	name, ok := iss.Text()
	if iss.Exists() && !ok {
		return nil, credentials.Errorf(credentials.CodeClaimType, "claims", "iss is a %s, want text", iss.Kind())
	}
	p := &peekedKBT{iss: name, typ: inner.Protected.GetInt(cose.HeaderTyp)}
	p.signed = slices.Concat(dcbor.Encode(inner.Protected), []byte{0xff}, inner.Payload)
	return p, nil
}

// Types of CWTs: the numbers of CoAP content formats and the media types.
const (
	formatSDCWT = 293
	formatKBT   = 294
	formatCWT   = 61
	mediaSDCWT  = "application/sd-cwt"
	mediaCWT    = "application/cwt"
)

// checkCWTType wants the type of the token to be one that the entry admits; the
// number and the name of a type are the same.
func (i *Issuer) checkCWTType(typ dcbor.Value) error {
	name, isText := typ.Text()
	for _, alias := range []struct {
		format int64
		media  string
	}{{formatSDCWT, mediaSDCWT}, {formatCWT, mediaCWT}} {
		if typ.IsInt(alias.format) {
			name, isText = alias.media, true
		}
	}
	if i.config.AcceptPlainCWT && (!typ.Exists() || name == mediaCWT) {
		return nil
	}
	if i.config.Types == nil && name == mediaSDCWT {
		return nil
	}
	for _, t := range i.config.Types {
		if t.IsInt && (typ.IsInt(t.Int) || t.Int == formatSDCWT && name == mediaSDCWT) || !t.IsInt && isText && t.Text == name {
			return nil
		}
	}
	return credentials.Errorf(credentials.CodeSDCWTTyp, "SD-CWT header", "typ %v is not one that issuer %q is configured for", typ, i.Name)
}

func (i *Issuer) cwtProfile() *sdcwt.Profile {
	p := &sdcwt.Profile{Required: []int64{sdcwt.ClaimIssuer, sdcwt.ClaimExpires, sdcwt.ClaimCnf}}
	if i.requireCTI {
		p.Required = append(p.Required, sdcwt.ClaimCWTID)
	}
	for _, v := range i.config.VCT {
		p.VCT = append(p.VCT, v.name())
	}
	return p
}

// cwtKeys finds the key of one issuer for package sdcwt.
type cwtKeys struct {
	issuer *Issuer
	found  *candidate
}

// IssuerKeys implements sdcwt.IssuerKeys.
func (k *cwtKeys) IssuerKeys(ctx context.Context, id sdcwt.IssuerID) ([]crypto.PublicKey, error) {
	var err error
	if k.found, err = k.issuer.keys.find(ctx, keyHint{kid: bytes.Clone(id.KeyID), chain: id.X5Chain}); err != nil {
		return nil, err
	}
	return []crypto.PublicKey{k.found.public}, nil
}

// finish reads the level of attestation and holds what the entry asks.
func (e *Evidence) finish(level string, there bool) error {
	if there {
		var err error
		if e.Attestation, err = credentials.ParseAttestationLevel(level); err != nil {
			return err
		}
	}
	return e.checkIssuing()
}
