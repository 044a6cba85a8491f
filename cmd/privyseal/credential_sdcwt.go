package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
)

// An SD-CWT is written in base64url, without padding, on one line.

func issueSDCWT(ctx context.Context, w *wiring, o *issueOptions, p possession) (*issued, error) {
	return textSDCWT(w.issueToken(ctx, o, p, registry.SDCWT, signSDCWT))
}

// textSDCWT writes what was issued as text.
func textSDCWT(made *issued, err error) (*issued, error) {
	if err == nil {
		made.Credential = jose.EncodeBase64([]byte(made.Credential))
	}
	return made, err
}

func signSDCWT(ctx context.Context, t *tokenOrder) ([]byte, error) {
	claims, err := t.cwtClaims()
	if err != nil {
		return nil, err
	}
	cnf, err := credentials.CWTConfirmation(t.possession.request.PublicKey())
	if err != nil {
		return nil, err
	}
	if claims[int64(sdcwt.ClaimCnf)], err = sdcwt.CBOR(cnf); err != nil {
		return nil, err
	}
	if ref, ok := t.record.Reference(); ok {
		if claims[int64(sdcwt.ClaimStatus)], err = sdcwt.CBOR(ref.CBOR()); err != nil {
			return nil, err
		}
	}
	issuer := sdcwt.Issuer{Key: t.key, KeyID: []byte(t.key.kid), Profile: sdcwt.DeviceProfile()}
	return issuer.Issue(ctx, claims)
}

// cwtClaims returns the claims under their CWT keys, with what --redact names
// marked.
func (t *tokenOrder) cwtClaims() (sdcwt.Claims, error) {
	b, err := json.Marshal(t.jsonClaims())
	if err != nil {
		return nil, err
	}
	parsed, err := jose.ParseObject(string(b), maxClaimsDepth)
	if err != nil {
		return nil, err
	}
	paths, err := parsePaths(t.redact)
	if err != nil {
		return nil, err
	}
	claims := sdcwt.Claims{
		int64(sdcwt.ClaimIssuer): t.iss, int64(sdcwt.ClaimCWTID): t.record.ID.Octets(),
		int64(sdcwt.ClaimIssuedAt): t.record.NotBefore.Unix(), int64(sdcwt.ClaimNotBefore): t.record.NotBefore.Unix(), int64(sdcwt.ClaimExpires): t.record.NotAfter.Unix(),
	}
	unused := len(paths)
	for _, m := range parsed.Members {
		key, ok := cwtKeys[m.Name]
		if !ok {
			key = m.Name
		}
		value := cwtValue(m.Value, []any{m.Name}, paths, &unused)
		if redacted(paths, []any{m.Name}, &unused) {
			key = sdcwt.Redact(key)
		}
		claims[key] = value
	}
	if unused > 0 {
		return nil, usageError{errors.New("--redact names a claim that is not there")}
	}
	return claims, nil
}

// maxClaimsDepth bounds what is nested in --claims.
const maxClaimsDepth = 12

// cwtKeys are the claims that have a number.
var cwtKeys = map[string]any{claimClient: int64(sdcwt.ClaimSubject), "vct": int64(sdcwt.ClaimVCT)}

// cwtValue returns a JSON value among native Go values.
func cwtValue(v any, at []any, paths []sdjwt.Path, unused *int) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // JSON was checked
		return f
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			here := append(slices.Clone(at), i)
			out[i] = cwtValue(e, here, paths, unused)
			if redacted(paths, here, unused) {
				out[i] = sdcwt.Redact(out[i])
			}
		}
		return out
	case *jose.Object:
		out := make(map[any]any, len(v.Members))
		for _, m := range v.Members {
			here := append(slices.Clone(at), m.Name)
			var key any = m.Name
			value := cwtValue(m.Value, here, paths, unused)
			if redacted(paths, here, unused) {
				key = sdcwt.Redact(key)
			}
			out[key] = value
		}
		return out
	}
	return v
}

func redacted(paths []sdjwt.Path, at []any, unused *int) bool {
	ok := slices.ContainsFunc(paths, func(p sdjwt.Path) bool { return samePath(p, at) })
	if ok {
		*unused--
	}
	return ok
}

// samePath compares a path of ours, whose indices are any integer type.
func samePath(a, b []any) bool {
	return slices.EqualFunc(a, b, func(x, y any) bool { return fmt.Sprint(x) == fmt.Sprint(y) })
}

func presentSDCWT(ctx context.Context, o *presentOptions, text []byte, key *signer.Signer) (string, error) {
	if o.audience == "" || o.nonce == "" {
		return "", usageError{errors.New("an SD-CWT is presented to an --audience with its --nonce")}
	}
	octets, err := readSDCWT(text)
	if err != nil {
		return "", err
	}
	c, err := sdcwt.ParseCredential(octets)
	if err != nil {
		return "", err
	}
	paths, err := parsePaths(o.disclose)
	if err != nil {
		return "", err
	}
	kbt, err := c.Present(ctx, key, sdcwt.Presentation{
		Audience: o.audience, IssuedAt: time.Now(), Nonce: []byte(o.nonce), Disclose: chosen(o.all, paths),
	})
	if err != nil {
		return "", err
	}
	return jose.EncodeBase64(kbt), nil
}

// chosen discloses what a path names, with what it is inside of and what is
// inside of it.
func chosen(all bool, paths []sdjwt.Path) func(*sdcwt.Disclosure) bool {
	if all {
		return sdcwt.All
	}
	return func(d *sdcwt.Disclosure) bool {
		at := d.Path()
		return slices.ContainsFunc(paths, func(p sdjwt.Path) bool {
			n := min(len(p), len(at))
			return samePath(p[:n], at[:n])
		})
	}
}

func readSDCWT(text []byte) ([]byte, error) {
	octets, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, "SD-CWT", "not base64url on one line: %w", err)
	}
	return octets, nil
}

func verifySDCWT(ctx context.Context, o *verifyOptions, text []byte) (*acceptance, error) {
	octets, err := readSDCWT(text)
	if err != nil {
		return nil, err
	}
	v, err := o.cwtVerifier()
	if err != nil {
		return nil, err
	}
	if v.ConfirmationKey, err = o.expectHolder(); err != nil {
		return nil, err
	}
	var r *sdcwt.Verified
	if o.noKeyBinding {
		r, err = v.VerifyIssued(ctx, octets)
	} else {
		r, err = v.Verify(ctx, octets)
	}
	if err != nil {
		return nil, err
	}
	return acceptCWT(r)
}

func (o *verifyOptions) cwtVerifier() (*sdcwt.Verifier, error) {
	if o.iss == "" || len(o.issuerKeys) == 0 {
		return nil, usageError{errors.New("--iss and --issuer-key are required: whom to believe, and by which key")}
	}
	if o.audience == "" && !o.noKeyBinding {
		return nil, usageError{errors.New("--audience is required: who we are")}
	}
	issuer := &sdcwt.StaticIssuer{Issuer: o.iss}
	for _, name := range o.issuerKeys {
		pub, err := readPublicKey(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		issuer.Keys = append(issuer.Keys, sdcwt.StaticKey{Public: pub})
	}
	v := &sdcwt.Verifier{
		Issuers: issuer, Audience: []string{o.audience}, Now: func() time.Time { return o.now }, Profile: sdcwt.DeviceProfile(), Status: o.status.cwt(),
	}
	if !o.noKeyBinding {
		v.Nonce = []byte(o.nonce)
	}
	return v, nil
}

// acceptCWT reads the names out of a verified token.
func acceptCWT(r *sdcwt.Verified) (*acceptance, error) {
	client, _ := r.Claims.Text(int64(sdcwt.ClaimSubject))
	user, _ := r.Claims.Text(claimUser)
	names, err := certs.DeviceNames(client, user)
	if err != nil {
		return nil, err
	}
	v := &acceptance{
		Accepted: true, Type: typeSDCWT, Client: names.Client.String(), User: names.User.String(), Issuer: r.Issuer, Bound: r.KeyBinding != nil,
		NotBefore: r.NotBefore, NotAfter: r.Expires,
	}
	if r.ConfirmationKey != nil {
		if v.KID, err = signer.JWKThumbprint(r.ConfirmationKey); err != nil {
			return nil, err
		}
	}
	v.Level, _ = r.Claims.Text(credentials.ClaimAttestation)
	v.Claims, err = json.Marshal(r.Claims.String())
	return v, err
}
