package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/signer"
)

// The claims in which a device credential has its names.
const (
	claimClient = "sub"
	claimUser   = "mimi_user"
)

// reservedClaims are set by us and not taken from --claims.
var reservedClaims = []string{"iss", claimClient, claimUser, "vct", "jti", "iat", "nbf", "exp", "cnf", "status"}

func issueSDJWT(ctx context.Context, w *wiring, o *issueOptions, p possession) (*issued, error) {
	if !strings.HasPrefix(o.iss, "https://") {
		return nil, usageError{fmt.Errorf("--iss is the issuer's https URL, not %q", o.iss)}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	claims, err := deviceClaims(o, p.names)
	if err != nil {
		return nil, err
	}
	redact, err := parsePaths(o.redact)
	if err != nil {
		return nil, err
	}
	key, err := w.ring.Signer(ctx, signer.KeyID(o.issuerKey), signer.PurposeCredentialIssuer)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	expires := now.Add(o.lifetime).Truncate(time.Second)
	issuer := sdjwt.Issuer{Key: key, Name: o.iss, Kid: key.KID()}
	token, err := issuer.Issue(ctx, sdjwt.Request{
		Claims: claims, Redact: redact, Holder: p.request.PublicKey(), IssuedAt: now, Expires: expires,
	})
	if err != nil {
		return nil, err
	}
	return &issued{
		Type: typeSDJWT, Credential: token.String(), Client: p.names.Client.String(), User: p.names.User.String(),
		Issuer: o.iss, IssuerKey: key.KID(), NotAfter: expires,
	}, nil
}

// check does for a token what certs.Issuer does for a certificate: the request
// must ask for the account's names, over the nonce that was given out.
func (p *possession) check() error {
	if p.request.Names() != p.names {
		return credentials.Errorf(credentials.CodeIdentityUnauthorized, "request", "it asks for other names than those of the account")
	}
	if string(p.request.Nonce()) != string(p.nonce) {
		return credentials.Errorf(credentials.CodeNonce, "request", "it is not over the nonce that was given out")
	}
	return nil
}

// deviceClaims returns the claims of a device credential with those of
// --claims.
func deviceClaims(o *issueOptions, names certs.Names) ([]byte, error) {
	vct := o.vct
	if vct == "" {
		vct = strings.TrimSuffix(o.iss, "/") + "/vct/mimi-device/1"
	}
	jti := make([]byte, 16)
	rand.Read(jti)
	claims := map[string]any{
		claimClient: names.Client.String(), claimUser: names.User.String(),
		"vct": vct, "jti": base64.RawURLEncoding.EncodeToString(jti),
	}
	if o.claims != "" {
		more, err := readClaims(o.claims)
		if err != nil {
			return nil, err
		}
		maps.Copy(claims, more)
	}
	return json.Marshal(claims)
}

func readClaims(name string) (map[string]any, error) {
	b, err := readBounded(name, maxCredentialFile)
	if err != nil {
		return nil, err
	}
	raw := make(map[string]json.RawMessage)
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, usageError{fmt.Errorf("%s is no JSON object: %w", name, err)}
	}
	claims := make(map[string]any, len(raw))
	for k, v := range raw {
		claims[k] = v
	}
	for _, name := range reservedClaims {
		if _, ok := claims[name]; ok {
			return nil, usageError{fmt.Errorf("claim %q is set by the issuer and cannot be in --claims", name)}
		}
	}
	return claims, nil
}

func parsePaths(texts []string) ([]sdjwt.Path, error) {
	var paths []sdjwt.Path
	for _, t := range texts {
		p, err := sdjwt.ParsePath(t)
		if err != nil {
			return nil, usageError{fmt.Errorf("path %s: %w", t, err)}
		}
		paths = append(paths, p)
	}
	return paths, nil
}

func presentSDJWT(ctx context.Context, o *presentOptions, text []byte, key *signer.Signer) (string, error) {
	if o.audience == "" || o.nonce == "" {
		return "", usageError{fmt.Errorf("an SD-JWT is presented to an --audience with its --nonce")}
	}
	disclose, err := parsePaths(o.disclose)
	if err != nil {
		return "", err
	}
	c, err := sdjwt.OpenCredential(strings.TrimSpace(string(text)), sdjwt.Limits{})
	if err != nil {
		return "", err
	}
	token, err := c.Present(ctx, sdjwt.Presentation{
		Disclose: disclose, DiscloseAll: o.all, Key: key, Audience: o.audience, Nonce: o.nonce,
	})
	if err != nil {
		return "", err
	}
	return token.String(), nil
}
