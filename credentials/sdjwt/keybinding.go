package sdjwt

import (
	"context"
	"crypto"
	"errors"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// maxNonce bounds the nonce of a KB-JWT in octets.
const maxNonce = 256

// A KeyBinding is a verified KB-JWT.
type KeyBinding struct {
	HolderKey crypto.PublicKey
	Audience  string
	Nonce     string
	IssuedAt  time.Time
	Expires   time.Time // zero if it does not say
}

// checkCnf looks at a cnf that nobody needs: it must not give a private key
// away.
func (v *Verifier) checkCnf(claims *jose.Object) error {
	cnf, there := claims.Get("cnf")
	if !there || v.policy.KeyBinding == KeyBindingRequired {
		return nil
	}
	if _, err := credentials.JWTCnfRFC7800(cnf); credentials.CodeOf(err) == credentials.CodeCnfPrivateKey {
		return err
	}
	if _, ok := cnf.(*jose.Object); !ok {
		return credentials.Errorf(credentials.CodeCnfUnsupported, "cnf", "not an object")
	}
	return nil
}

// holderKey is the first half of row 10: the key comes from cnf, or from the
// caller where cnf has a thumbprint only, and both must agree.
func (v *Verifier) holderKey(claims *jose.Object, expected crypto.PublicKey) (crypto.PublicKey, *credentials.Scheme, error) {
	value, there := claims.Get("cnf")
	if !there {
		return nil, nil, credentials.Errorf(credentials.CodeClaimMissing, "payload", `no "cnf": this credential cannot be bound to a key`)
	}
	parse := credentials.JWTCnfFrom
	if v.policy.LooseCnf {
		parse = credentials.JWTCnfRFC7800
	}
	cnf, err := parse(value)
	if err != nil {
		return nil, nil, err
	}
	if expected == nil {
		if cnf.Key == nil {
			return nil, nil, credentials.Errorf(credentials.CodeCnfUnsupported, "cnf", "a thumbprint alone, and the holder's key is not known from elsewhere")
		}
		return cnf.Key, cnf.Scheme, nil
	}
	scheme, err := credentials.SchemeOf(expected)
	if err != nil {
		return nil, nil, credentials.Errorf(credentials.CodeCnfCurve, "cnf", "%w", err)
	}
	mls, err := credentials.MLSPublicKey(expected)
	if err != nil {
		return nil, nil, credentials.Errorf(credentials.CodeCnfCurve, "cnf", "%w", err)
	}
	return expected, scheme, cnf.Match(mls, scheme)
}

// checkKeyBinding is rows 10 to 12.
func (v *Verifier) checkKeyBinding(t *Token, kb *jose.JWS, claims *jose.Object, h *hashAlg, expect Expect, now time.Time) (*KeyBinding, error) {
	const where = "KB-JWT"
	key, scheme, err := v.holderKey(claims, expect.HolderKey)
	if err != nil {
		return nil, err
	}
	if !scheme.AcceptsJOSE(kb.Header.Alg) || !slices.Contains(v.policy.Algorithms, kb.Header.Alg) {
		return nil, credentials.Errorf(credentials.CodeAlg, where, "alg %q does not fit the holder's %s key or is not allowed", kb.Header.Alg, scheme)
	}
	if err := kb.Header.CheckCritical(); err != nil {
		return nil, joseError(where, err)
	}
	if !kb.Verify(scheme, key) {
		return nil, credentials.Errorf(credentials.CodeKBTSignature, where, "the signature is not by the holder's key")
	}
	if kb.Header.Typ != typeKB {
		return nil, credentials.Errorf(credentials.CodeKBTTyp, where, "typ %q, want %q", kb.Header.Typ, typeKB)
	}
	payload, err := jose.ParseObject(kb.Payload, v.policy.Limits.Depth)
	if err != nil {
		return nil, joseError(where, err)
	}
	out := &KeyBinding{HolderKey: key}
	if err := v.checkKBTimes(payload, now, out); err != nil {
		return nil, err
	}
	if err := v.checkTransaction(payload, expect, out); err != nil {
		return nil, err
	}
	if got, _, _ := payload.Text("sd_hash"); got != h.digest([]byte(t.prefix)) {
		return nil, credentials.Errorf(credentials.CodeSDHash, where, "sd_hash is not the hash of the SD-JWT before the KB-JWT")
	}
	return out, nil
}

// checkKBTimes checks iat, which is required, and exp and nbf as in any JWT.
func (v *Verifier) checkKBTimes(payload *jose.Object, now time.Time, out *KeyBinding) error {
	const where = "KB-JWT"
	times, err := checkTimes(payload, where, now, v.policy.KBSkew)
	if err != nil {
		return credentials.Errorf(credentials.CodeKBTTime, where, "%w", err)
	}
	iat, there, err := numericDate(payload, where, "iat")
	if err != nil || !there {
		return credentials.Errorf(credentials.CodeKBTTime, where, "no iat")
	}
	if age := seconds(now) - iat; v.policy.Freshness >= 0 && age > v.policy.Freshness.Seconds() {
		return credentials.Errorf(credentials.CodeKBTTime, where, "made %.0f seconds ago, at most %.0f are accepted", age, v.policy.Freshness.Seconds())
	}
	out.IssuedAt, out.Expires = times.issuedAt, times.expires
	return nil
}

// checkTransaction checks nonce and aud.
func (v *Verifier) checkTransaction(payload *jose.Object, expect Expect, out *KeyBinding) error {
	const where = "KB-JWT"
	nonce, there, ok := payload.Text("nonce")
	if !there || !ok {
		return credentials.Errorf(credentials.CodeNonce, where, "no nonce, or not a string")
	}
	switch asked := expect.Nonce != ""; {
	case asked && nonce != expect.Nonce:
		return credentials.Errorf(credentials.CodeNonce, where, "not the nonce that was given to the presenter")
	case !asked && v.policy.Nonces == nil && !v.policy.AnyNonce:
		return credentials.Errorf(credentials.CodeNonce, where, "no nonce was given to the presenter, and the policy accepts no other")
	case !asked && (nonce == "" || len(nonce) > maxNonce):
		return credentials.Errorf(credentials.CodeNonce, where, "nonce of %d octets, want 1 to %d", len(nonce), maxNonce)
	}
	aud, there, ok := payload.Text("aud")
	if !there || !ok || !v.policy.AnyAudience && !slices.Contains(v.policy.Audiences, aud) {
		return credentials.Errorf(credentials.CodeAudience, where, "aud is not one of our names %q", v.policy.Audiences)
	}
	out.Nonce, out.Audience = nonce, aud
	return nil
}

// useNonce is last, so that only a valid presentation uses a nonce up.
func (v *Verifier) useNonce(ctx context.Context, kb *KeyBinding) error {
	if kb == nil || v.policy.Nonces == nil {
		return nil
	}
	until := kb.IssuedAt.Add(v.policy.Freshness + v.policy.KBSkew)
	if v.policy.Freshness < 0 {
		until = time.Time{}
	}
	err := v.policy.Nonces.Use(ctx, kb.Nonce, until)
	if err == nil || ctx.Err() != nil {
		return err
	}
	var refused *credentials.Error
	if errors.As(err, &refused) {
		return err
	}
	return credentials.Errorf(credentials.CodeNonce, "KB-JWT", "%w", err)
}
