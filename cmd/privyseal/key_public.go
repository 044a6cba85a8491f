package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
)

func newKeyPublic(a *app) *cobra.Command {
	var format string
	var version int
	c := &cobra.Command{
		Use: "public ID", Short: "Print the public key alone, as verifiers want it", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return keyPublic(cmd.Context(), a, args[0], version, format)
		},
	}
	c.Flags().StringVar(&format, "format", "pem", "pem or jwk")
	c.Flags().IntVar(&version, "version", 0, "version of the key; default the active one")
	return c
}

func keyPublic(ctx context.Context, a *app, id string, number int, format string) error {
	return a.withWiring(ctx, func(w *wiring) error {
		key, v, err := w.version(ctx, id, number)
		if err != nil {
			return err
		}
		if len(v.Public) == 0 {
			return fmt.Errorf("%w: key %s has no public key", signer.ErrUsage, id)
		}
		text, err := formatPublic(v, format)
		if err != nil {
			return err
		}
		return a.print(struct {
			Key    signer.KeyID `json:"key"`
			KID    string       `json:"kid"`
			Public string       `json:"public"`
		}{key.ID, v.KID, text}, func(w io.Writer) { io.WriteString(w, text) })
	})
}

func formatPublic(v *signer.Version, format string) (string, error) {
	switch format {
	case "pem":
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: v.Public})), nil
	case "jwk":
		pub, err := v.PublicKey()
		if err != nil {
			return "", err
		}
		jwk, err := signer.JWK(pub)
		if err != nil {
			return "", err
		}
		return string(jose.AppendJSON(nil, jwk)) + "\n", nil
	}
	return "", usageError{fmt.Errorf("--format is pem or jwk, not %q", format)}
}
