package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/signer"
)

// A tokenOrder is a token that is written down and about to be signed.
type tokenOrder struct {
	*issueOptions
	possession
	key    *deviceKey
	more   map[string]any // of --claims
	record *registry.Record
}

// A tokenSigner signs a token that is written down.
type tokenSigner func(context.Context, *tokenOrder) ([]byte, error)

// issueToken opens the book for token.
func (w *wiring) issueToken(ctx context.Context, o *issueOptions, p possession, typ registry.Type, sign tokenSigner) (made *issued, err error) {
	err = w.withBook(ctx, func(b *registry.Store) error {
		made, err = w.token(ctx, b, o, p, typ, sign)
		return err
	})
	return made, err
}

// token writes a token down, with an index on the status list if the
// configuration has one, signs it, and notes that it was signed.
func (w *wiring) token(ctx context.Context, b *registry.Store, o *issueOptions, p possession, typ registry.Type, sign tokenSigner) (*issued, error) {
	if err := w.tokenDefaults(o); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	key, err := w.deviceKey(ctx, signer.KeyID(o.issuerKey), signer.PurposeCredentialIssuer)
	if err != nil {
		return nil, err
	}
	return w.writeToken(ctx, b, &tokenOrder{issueOptions: o, possession: p, key: key}, typ, sign)
}

func (w *wiring) writeToken(ctx context.Context, b *registry.Store, t *tokenOrder, typ registry.Type, sign tokenSigner) (*issued, error) {
	if t.claims != "" { // before anything is written down
		var err error
		if t.more, err = readClaims(t.claims); err != nil {
			return nil, err
		}
	}
	list, err := w.listFor(ctx, b, t.issueOptions)
	if err != nil {
		return nil, err
	}
	if longest := defaultLifetime; list == "" && t.lifetime > longest {
		return nil, credentials.Errorf(credentials.CodePolicy, "order", "lifetime %v, want at most %v; a longer one needs a status list (issuer.status_key)", t.lifetime, longest)
	}
	now := time.Now().Truncate(time.Second)
	t.record, err = b.Begin(ctx, registry.Draft{
		Type: typ, Issuer: t.iss, IssuerKey: t.key.public, Names: t.names, Holder: t.possession.request.PublicKey(),
		NotBefore: now, NotAfter: now.Add(t.lifetime), List: list, Attestation: t.level, Evidence: t.evidence, Along: t.along,
	})
	if err != nil {
		return nil, err
	}
	token, err := sign(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := b.Finish(context.WithoutCancel(ctx), t.record.ID, token); err != nil {
		return nil, fmt.Errorf("credential %s is signed and not released: %w", t.record.ID, err)
	}
	return &issued{
		ID: string(t.record.ID), Type: string(typ), Credential: string(token), Client: t.names.Client.String(), User: t.names.User.String(),
		Issuer: t.iss, IssuerKey: t.key.kid, NotAfter: t.record.NotAfter, Level: t.level.String(),
	}, nil
}

// tokenDefaults takes the issuer and its key from the configuration where the
// flags do not say.
func (w *wiring) tokenDefaults(o *issueOptions) error {
	s := w.config.issuer()
	if o.iss == "" {
		o.iss = s.URL
	}
	if o.issuerKey == "" {
		o.issuerKey = string(s.TokenKey)
	}
	switch {
	case !strings.HasPrefix(o.iss, "https://"):
		return usageError{fmt.Errorf("--iss is the issuer's https URL, not %q", o.iss)}
	case o.issuerKey == "":
		return usageError{errors.New("--issuer-key is required: a key of purpose credential-issuer")}
	}
	return nil
}

// listFor returns the status list of the issuer's tokens, which it makes if it
// is not there yet; "" for an issuer that has none.
func (w *wiring) listFor(ctx context.Context, b *registry.Store, o *issueOptions) (string, error) {
	s := w.config.issuer()
	if s.StatusKey == "" || o.iss != s.URL {
		return "", nil
	}
	i, err := w.openIssuance(ctx, b)
	if err != nil {
		return "", err
	}
	return i.list.URI, nil
}

// jsonClaims returns the claims of a device credential that every token format
// has, with those of --claims.
func (t *tokenOrder) jsonClaims() map[string]any {
	vct := t.vct
	if vct == "" {
		vct = strings.TrimSuffix(t.iss, "/") + "/vct/mimi-device/1"
	}
	claims := map[string]any{claimClient: t.names.Client.String(), claimUser: t.names.User.String(), "vct": vct}
	if t.level > credentials.AttestationNone {
		claims[credentials.ClaimAttestation] = t.level.String()
	}
	maps.Copy(claims, t.more)
	return claims
}
