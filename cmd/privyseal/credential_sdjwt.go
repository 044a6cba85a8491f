package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/signer"
)

// The claims in which a device credential has its names.
const (
	claimClient = "sub"
	claimUser   = "mimi_user"
)

// reservedClaims are set by us and not taken from --claims.
var reservedClaims = []string{"iss", claimClient, claimUser, "vct", "jti", "iat", "nbf", "exp", "cnf", "status", credentials.ClaimAttestation}

func issueSDJWT(ctx context.Context, w *wiring, o *issueOptions, p possession) (*issued, error) {
	return w.issueToken(ctx, o, p, registry.SDJWT, signSDJWT)
}

func signSDJWT(ctx context.Context, t *tokenOrder) ([]byte, error) {
	claims := t.jsonClaims()
	if ref, ok := t.record.Reference(); ok {
		claims["status"] = json.RawMessage(ref.JSON())
	}
	claims["jti"] = string(t.record.ID)
	text, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	redact, err := parsePaths(t.redact)
	if err != nil {
		return nil, err
	}
	issuer := sdjwt.Issuer{Key: t.key, Name: t.iss, Kid: t.key.kid}
	token, err := issuer.Issue(ctx, sdjwt.Request{
		Claims: text, Redact: redact, Holder: t.possession.request.PublicKey(), IssuedAt: t.record.NotBefore, Expires: t.record.NotAfter,
	})
	if err != nil {
		return nil, err
	}
	return []byte(token.String()), nil
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
