package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

type bindOptions struct {
	leaf, out         string
	credentials, keys []string
	weak              bool
}

func newCredentialBind(a *app) *cobra.Command {
	var o bindOptions
	c := &cobra.Command{
		Use: "bind --leaf FILE --credential FILE --key KEY...", Short: "Bind credentials to the key of an MLS leaf", Args: noArgs,
		Long: "Makes a multi or, with --weak, a weak-multi credential of MLS: each credential is\n" +
			"bound to the leaf's signature key by a signature of its own key, which stays in\n" +
			"its device. Give --credential and --key once for each, in the same order; no two\n" +
			"may have one key. A credential is a file as \"trust check\" takes it: a chain, a\n" +
			"token that was presented to a room or provider, or a basic name. All members of a\n" +
			"group verify all bindings of a multi; of a weak-multi each those that it supports,\n" +
			"so that it is as strong as its weakest. The Credential is written in base64url.",
		RunE: func(cmd *cobra.Command, _ []string) error { return credentialBind(cmd.Context(), a, &o) },
	}
	f := c.Flags()
	f.StringVar(&o.leaf, "leaf", "", "`file` with the public key of the leaf, JWK or PEM (required)")
	f.StringArrayVar(&o.credentials, "credential", nil, "`file` with a credential (required)")
	f.StringArrayVar(&o.keys, "key", nil, "the `key` that this credential is for (required)")
	f.BoolVar(&o.weak, "weak", false, "make a weak-multi credential")
	f.StringVar(&o.out, "out", "", "write to this `file` instead of standard output")
	return c
}

func credentialBind(ctx context.Context, a *app, o *bindOptions) error {
	if o.leaf == "" || len(o.credentials) == 0 || len(o.credentials) != len(o.keys) {
		return usageError{errors.New("give --leaf, and a --key with each --credential")}
	}
	pub, err := readPublicKey(o.leaf)
	if err != nil {
		return err
	}
	leaf, err := credentials.MLSPublicKey(pub)
	if err != nil {
		return err
	}
	return a.withWiring(ctx, func(w *wiring) error {
		bindings := make([]*mls.CredentialBinding, len(o.credentials))
		for i, name := range o.credentials {
			if bindings[i], err = w.bind(ctx, a, name, o.keys[i], leaf); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		c := mls.MultiCredential(bindings...)
		if o.weak {
			c = mls.WeakMultiCredential(bindings...)
		}
		if _, err := c.Bindings(); err != nil {
			return usageError{err}
		}
		text := base64.RawURLEncoding.EncodeToString(identity.FormatCredential(&c)) + "\n"
		return a.deliver(o.out, struct {
			Credential string `json:"credential"`
		}{text[:len(text)-1]}, text)
	})
}

// bind makes one binding.
func (w *wiring) bind(ctx context.Context, a *app, name, id string, leaf []byte) (*mls.CredentialBinding, error) {
	text, err := readInput(a.in, name)
	if err != nil {
		return nil, err
	}
	c, err := parseCredential("", text)
	if err != nil {
		return nil, err
	}
	key, err := w.holderSigner(ctx, id)
	if err != nil {
		return nil, err
	}
	scheme, err := credentials.SchemeOf(key.Public())
	if err != nil {
		return nil, err
	}
	return mls.BindCredential(ctx, suites[scheme], c, key, leaf)
}
