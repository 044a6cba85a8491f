package main

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
)

func newCredentialEvidence(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "evidence ID", Short: "Show what a credential's attestation level rests on, verified again", Args: exactArgs(1),
		Long: "Prints the evidence that was kept with the record of a credential, after its\n" +
			"signatures and that it is about the credential's key are verified again. A statement\n" +
			"about a key in a PKCS#11 token is verified with the versions of issuer.token_key and\n" +
			"with serve.issuer.enrol.appliances.",
		RunE: func(cmd *cobra.Command, args []string) error { return credentialEvidence(cmd.Context(), a, args[0]) },
	}
}

func credentialEvidence(ctx context.Context, a *app, text string) error {
	id, err := registry.ParseID(text)
	if err != nil {
		return usageError{err}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		r, evidence, err := w.keptEvidence(ctx, id)
		if err != nil {
			return err
		}
		if err := w.checkKept(ctx, r, evidence); err != nil {
			return refusedError{fmt.Errorf("credential %s: %w", id, err)}
		}
		view := struct {
			ID       registry.ID `json:"id"`
			Level    string      `json:"attestation"`
			Verified bool        `json:"verified"`
			Evidence string      `json:"evidence"`
		}{id, r.Level, true, string(evidence)}
		a.note("verified: %s, about key %s", r.Level, r.Holder)
		return a.print(view, func(w io.Writer) { fmt.Fprintln(w, view.Evidence) })
	})
}

// keptEvidence returns the record of a credential, and what was kept with it.
func (w *wiring) keptEvidence(ctx context.Context, id registry.ID) (r *registry.Record, evidence []byte, err error) {
	err = w.withBook(ctx, func(b *registry.Store) error {
		if r, err = b.Get(ctx, id); err != nil {
			return err
		}
		evidence, err = b.Evidence(ctx, id)
		return err
	})
	return r, evidence, err
}

// checkKept verifies evidence of a credential, and that it is about its key.
func (w *wiring) checkKept(ctx context.Context, r *registry.Record, evidence []byte) (err error) {
	var key crypto.PublicKey
	switch {
	case len(evidence) == 0:
		return errors.New("nothing was kept with it")
	case r.Attestation > credentials.AttestationStated:
		key, err = keptProof(evidence)
	default:
		key, err = w.keptStatement(ctx, string(evidence))
	}
	if err != nil {
		return err
	}
	sum, err := credentials.JWKThumbprint(key)
	if err == nil && base64.RawURLEncoding.EncodeToString(sum) != r.Holder {
		err = errors.New("the evidence is about another key")
	}
	return err
}

func keptProof(evidence []byte) (crypto.PublicKey, error) {
	e, err := tpm.ParseEvidence(evidence)
	if err != nil {
		return nil, err
	}
	proof, err := checkCertification(evidence, e.Nonce, nil)
	if err != nil {
		return nil, err
	}
	if proof.verified.Key == nil {
		return nil, errors.New("it is about a key without a public key")
	}
	return proof.verified.Key, nil
}

func (w *wiring) keptStatement(ctx context.Context, text string) (crypto.PublicKey, error) {
	if strings.HasPrefix(text, "{") {
		return nil, errors.New("it is a module's bare answer, which nobody signed: the issuer had no token_key")
	}
	keys, err := w.statementKeys(ctx)
	if err != nil {
		return nil, err
	}
	s, err := enrol.OpenStatement(text, keys)
	if err != nil {
		return nil, err
	}
	return s.Key, nil
}

// statementKeys are the keys whose statements are believed: all versions of
// our own token key, and the appliances of the configuration.
func (w *wiring) statementKeys(ctx context.Context) (keys []crypto.PublicKey, err error) {
	if s := w.config.Serve; s != nil && s.Issuer != nil && s.Issuer.Enrol != nil {
		if keys, err = w.applianceKeys(s.Issuer.Enrol.Appliances); err != nil {
			return nil, err
		}
	}
	id := w.config.issuer().TokenKey
	if id == "" {
		return keys, nil
	}
	key, err := w.store.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	for i := range key.Versions {
		pub, err := key.Versions[i].PublicKey()
		if err != nil {
			continue // a version that was never finished
		}
		keys = append(keys, pub)
	}
	return keys, nil
}

// statedEvidence is what is kept of a module's answers about a key of ours: a
// statement by the token key, or the bare answers where an issuer has none.
func (w *wiring) statedEvidence(ctx context.Context, a enrol.Attributes, p *possession) ([]byte, error) {
	s := w.config.issuer()
	if s.TokenKey == "" {
		return json.Marshal(a)
	}
	key, err := w.deviceKey(ctx, s.TokenKey, signer.PurposeCredentialIssuer)
	if err != nil {
		return nil, err
	}
	st := enrol.Statement{Audience: s.URL, Nonce: p.nonce, IssuedAt: a.ReadAt, Key: p.request.PublicKey(), Attributes: a}
	text, err := st.Sign(ctx, key)
	return []byte(text), err
}
