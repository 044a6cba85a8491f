package sdjwt

import (
	"context"
	"crypto"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// A Verifier judges presentations by one Policy. It may be used by many
// goroutines at once if its Policy's interfaces may.
type Verifier struct{ policy Policy }

// NewVerifier returns a Verifier, or an error if the policy has a hole.
func NewVerifier(p Policy) (*Verifier, error) {
	p, err := p.complete()
	if err != nil {
		return nil, err
	}
	return &Verifier{p}, nil
}

// Expect is what one presentation must answer to.
type Expect struct {
	Nonce     string           // that was given to the presenter; "" only if the policy has AnyNonce or Nonces
	HolderKey crypto.PublicKey // the key that cnf must confirm, such as an MLS leaf's; nil to take it from cnf
}

// Verified is a token that passed every check of a Policy.
type Verified struct {
	Claims Claims

	Issuer       string // iss, or ""
	IssuerKey    crypto.PublicKey
	Kid          string
	Certificates [][]byte // of x5c, or nil
	Type         string   // typ
	VCT          string   // with the rules of SD-JWT VC

	Expires   time.Time // zero if the token does not say
	NotBefore time.Time
	IssuedAt  time.Time

	KeyBinding    *KeyBinding // nil if none was required
	StatusChecked bool
}

// Verify judges a presentation in compact or JSON serialization. An error is a
// *credentials.Error unless ctx ended or a callback failed in another way.
//
// The order is that of RFC 9901 section 7.3, with one exception: the payload
// is parsed before the signature is checked, since iss stands in it.
func (v *Verifier) Verify(ctx context.Context, presentation string, expect Expect) (*Verified, error) {
	t, err := v.parse(presentation)
	if err != nil {
		return nil, err
	}
	return v.VerifyToken(ctx, t, expect)
}

func (v *Verifier) parse(presentation string) (*Token, error) {
	if strings.HasPrefix(strings.TrimLeft(presentation, " \t\r\n"), "{") {
		return ParseJSON([]byte(presentation), v.policy.Limits)
	}
	return Parse(presentation, v.policy.Limits)
}

// VerifyToken is Verify for a presentation that is already taken apart.
func (v *Verifier) VerifyToken(ctx context.Context, t *Token, expect Expect) (*Verified, error) {
	now := v.policy.Now()
	kb, err := v.splitKeyBinding(t)
	if err != nil {
		return nil, err
	}
	issued, err := v.issuerJWT(ctx, t, now)
	if err != nil {
		return nil, err
	}
	claims, err := v.unredact(t, issued)
	if err != nil {
		return nil, err
	}
	out := issued.verified
	out.Claims = Claims{claims}
	times, err := v.checkClaims(claims, now)
	if err != nil {
		return nil, err
	}
	out.Expires, out.NotBefore, out.IssuedAt = times.expires, times.notBefore, times.issuedAt
	if v.policy.VC {
		if out.VCT, err = v.checkVC(claims, issued.plainSD); err != nil {
			return nil, err
		}
	}
	if err := v.checkCnf(claims); err != nil {
		return nil, err
	}
	if v.policy.KeyBinding == KeyBindingRequired {
		if out.KeyBinding, err = v.checkKeyBinding(t, kb, claims, issued.hash, expect, now); err != nil {
			return nil, err
		}
	}
	if err := v.checkStatus(ctx, &out); err != nil {
		return nil, err
	}
	if err := v.useNonce(ctx, out.KeyBinding); err != nil {
		return nil, err
	}
	return &out, nil
}

// splitKeyBinding is row 1: whether there must be a KB-JWT is for the policy.
func (v *Verifier) splitKeyBinding(t *Token) (*jose.JWS, error) {
	if t.kb == "" {
		if v.policy.KeyBinding == KeyBindingRequired {
			return nil, credentials.Errorf(credentials.CodeKBMissing, "", "the presentation has no KB-JWT")
		}
		return nil, nil
	}
	kb, err := jose.ParseCompact(t.kb, v.policy.Limits.Depth)
	if err != nil {
		return nil, joseError("KB-JWT", err)
	}
	return kb, nil
}

// issued is an Issuer-signed JWT whose signature is verified.
type issued struct {
	payload  *jose.Object
	hash     *hashAlg
	verified Verified
	plainSD  bool // it has _sd but not one digest
}

// issuerJWT is rows 2 to 4.
func (v *Verifier) issuerJWT(ctx context.Context, t *Token, now time.Time) (*issued, error) {
	const where = "issuer JWT"
	j, err := jose.ParseCompact(t.jwt, v.policy.Limits.Depth)
	if err != nil {
		return nil, joseError(where, err)
	}
	if err := v.checkHeader(&j.Header); err != nil {
		return nil, err
	}
	payload, err := parsePayload(j.Payload, v.policy.Limits.Depth)
	if err != nil {
		return nil, joseError("payload", err)
	}
	out := Verified{Kid: j.Header.Kid, Type: j.Header.Typ}
	if out.Issuer, _, err = textClaim(payload, "iss"); err != nil {
		return nil, err
	}
	if out.Certificates, err = j.Header.Certificates(); err != nil {
		return nil, joseError("header.x5c", err)
	}
	out.IssuerKey, err = v.policy.Issuers.IssuerKey(ctx, IssuerHint{
		Issuer: out.Issuer, Kid: out.Kid, Alg: j.Header.Alg, Chain: out.Certificates, Time: now,
	})
	if err != nil {
		return nil, err
	}
	scheme, err := credentials.SchemeOf(out.IssuerKey)
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeIssuerKey, where, "%w", err)
	}
	if !scheme.AcceptsJOSE(j.Header.Alg) {
		return nil, credentials.Errorf(credentials.CodeAlg, where, "alg %q does not fit the issuer's %s key", j.Header.Alg, scheme)
	}
	if !j.Verify(scheme, out.IssuerKey) {
		return nil, credentials.Errorf(credentials.CodeIssuerSignature, where, "the signature is not by the issuer's key")
	}
	h, err := hashOf(payload)
	if err != nil {
		return nil, err
	}
	return &issued{payload: payload, hash: h, verified: out}, nil
}

// parsePayload reads a payload with redacted claims. What stands for them may
// lie one deeper than the claims themselves; the unredactor counts again.
func parsePayload(text string, depth int) (*jose.Object, error) {
	return jose.ParseObject(text, depth+1)
}

func (v *Verifier) checkHeader(h *jose.Header) error {
	const where = "issuer JWT header"
	if !slices.Contains(v.policy.Algorithms, h.Alg) {
		return credentials.Errorf(credentials.CodeAlg, where, "alg %q is not one of %q", h.Alg, v.policy.Algorithms)
	}
	if err := h.CheckCritical(); err != nil {
		return joseError(where, err)
	}
	if v.policy.AnyType && !v.policy.VC {
		if strings.EqualFold(strings.TrimPrefix(h.Typ, "application/"), typeKB) {
			return credentials.Errorf(credentials.CodeSDJWTTyp, where, "a KB-JWT stands in the place of the Issuer-signed JWT")
		}
		return nil
	}
	if !slices.Contains(v.policy.Types, h.Typ) {
		return credentials.Errorf(credentials.CodeSDJWTTyp, where, "typ %q is not one of %q", h.Typ, v.policy.Types)
	}
	return nil
}

// unredact is rows 5 to 8.
func (v *Verifier) unredact(t *Token, i *issued) (*jose.Object, error) {
	u := &unredactor{permanent: v.policy.Permanent, depth: v.policy.Limits.Depth}
	all, err := u.parseDisclosures(t, i.hash)
	if err != nil {
		return nil, err
	}
	claims, err := u.run(i.payload, all)
	if err != nil {
		return nil, err
	}
	i.plainSD = u.hasSD && len(u.seen) == 0
	return claims, nil
}

// checkClaims is row 9.
func (v *Verifier) checkClaims(claims *jose.Object, now time.Time) (validity, error) {
	times, err := checkTimes(claims, "payload", now, v.policy.Skew)
	if err != nil && !(v.policy.IssuedAhead && credentials.CodeOf(err) == credentials.CodeIssuedInFuture) {
		return times, err
	}
	for _, name := range []string{"iss", "sub", "jti"} {
		if _, _, err := textClaim(claims, name); err != nil {
			return times, err
		}
	}
	if err := v.checkAudience(claims); err != nil {
		return times, err
	}
	for _, name := range v.policy.Required {
		if !claims.Has(name) {
			return times, credentials.Errorf(credentials.CodeClaimMissing, "payload", "%q is required", name)
		}
	}
	return times, nil
}

// textClaim returns a claim that must be a string if it is there.
func textClaim(o *jose.Object, name string) (s string, there bool, err error) {
	s, there, ok := o.Text(name)
	if !ok {
		return "", true, credentials.Errorf(credentials.CodeClaimType, "payload."+name, "not a string")
	}
	return s, there, nil
}

// checkAudience checks the aud claim of the Issuer-signed JWT (RFC 7519
// section 4.1.3): who is not named must refuse.
func (v *Verifier) checkAudience(claims *jose.Object) error {
	const where = "payload.aud"
	aud, there := claims.Get("aud")
	if !there {
		return nil
	}
	list, ok := aud.([]any)
	if !ok {
		list = []any{aud}
	}
	ours := false
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return credentials.Errorf(credentials.CodeClaimType, where, "neither a string nor an array of strings")
		}
		ours = ours || slices.Contains(v.policy.Audiences, s)
	}
	if !ours && !v.policy.AnyAudience {
		return credentials.Errorf(credentials.CodeAudience, where, "none of our names %q is in it", v.policy.Audiences)
	}
	return nil
}

// checkStatus is row 13.
func (v *Verifier) checkStatus(ctx context.Context, out *Verified) error {
	status, there := out.Claims.Get("status")
	if !there || v.policy.IgnoreStatus {
		return nil
	}
	if v.policy.Status == nil {
		return credentials.Errorf(credentials.CodePolicy, "payload.status", "the token has a status and the policy says neither how to check it nor to ignore it")
	}
	out.StatusChecked = true
	return v.policy.Status(ctx, StatusReference{Issuer: out.Issuer, Key: out.IssuerKey, Status: status})
}
