package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/signer"
)

func newKeyRequest(a *app) *cobra.Command {
	var names []string
	var out string
	c := &cobra.Command{
		Use: "request ID --name HOST", Short: "Ask a CA for the TLS certificate of a key", Args: exactArgs(1),
		Long: "Makes a PKCS#10 request, signed by a key of purpose tls, for DNS names and IP\n" +
			"addresses. Any CA can answer it; the certificate goes into a listener of the\n" +
			"configuration, with key_id. For the keys of devices and hubs see credential request.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return keyRequest(cmd.Context(), a, args[0], names, out)
		},
	}
	c.Flags().StringArrayVar(&names, "name", nil, "DNS `name` or IP address; once for each (required)")
	c.Flags().StringVar(&out, "out", "", "write to this `file` instead of standard output")
	return c
}

func keyRequest(ctx context.Context, a *app, id string, names []string, out string) error {
	if len(names) == 0 {
		return usageError{errors.New("--name is required: under which name or address the server is reached")}
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: names[0]}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		key, err := w.ring.Signer(ctx, signer.KeyID(id), signer.PurposeTLS)
		if err != nil {
			return err
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			return err
		}
		text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
		return a.deliver(out, struct {
			Request string `json:"request"`
		}{text}, text)
	})
}
