package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer"
)

func newCACRL(a *app) *cobra.Command {
	var out, delta string
	c := &cobra.Command{
		Use: "crl KEY --out FILE [--delta FILE]", Short: "Sign the next CRL of a CA", Args: exactArgs(1),
		Long: "Signs the next full CRL and, where there is a base for it, the delta CRL with the\n" +
			"same number, stores both for serving, and writes them in DER. \"privyseal serve\"\n" +
			"does this by itself; a root that is kept offline is asked like this.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return caCRL(cmd.Context(), a, signer.KeyID(args[0]), out, delta)
		},
	}
	c.Flags().StringVar(&out, "out", "", "write the full CRL to this `file`")
	c.Flags().StringVar(&delta, "delta", "", "write the delta CRL to this `file`")
	return c
}

func caCRL(ctx context.Context, a *app, key signer.KeyID, out, delta string) error {
	if _, err := signer.ParseKeyID(string(key)); err != nil {
		return err
	}
	return a.withWiring(ctx, func(w *wiring) error {
		return w.withBook(ctx, func(b *registry.Store) error { return w.signCRL(ctx, a, b, key, out, delta) })
	})
}

func (w *wiring) signCRL(ctx context.Context, a *app, b *registry.Store, key signer.KeyID, out, delta string) error {
	record, _, err := loadCA(w.config, key)
	if err != nil {
		return err
	}
	issuer, _, err := w.openIssuer(ctx, key, b)
	if err != nil {
		return err
	}
	full, d, err := issuer.SignCRLs(ctx, b.Certificates(), record.crlOrder(w.config.issuer()))
	if err != nil {
		return err
	}
	if out != "" {
		if err := durable.WriteFile(out, full.Raw, 0o644); err != nil {
			return err
		}
	}
	if delta != "" {
		if d == nil {
			return fmt.Errorf("this is the first CRL, which a delta could build on; there is none yet")
		}
		if err := durable.WriteFile(delta, d.Raw, 0o644); err != nil {
			return err
		}
	}
	return a.print(map[string]any{"number": full.Number, "entries": len(full.RevokedCertificateEntries), "next_update": full.NextUpdate}, func(w io.Writer) {
		fmt.Fprintf(w, "CRL %v: %d certificate(s), next update %s\n", full.Number, len(full.RevokedCertificateEntries), full.NextUpdate.Format("2006-01-02T15:04:05Z07:00"))
	})
}
