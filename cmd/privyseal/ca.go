package main

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer"
)

// A caRecord is what is kept about a CA beside its key: its certificate with
// those above it, and the URLs that its certificates carry.
type caRecord struct {
	Key       signer.KeyID `json:"key"`
	Chain     []string     `json:"chain"` // PEM, the CA's own first, the root last
	CRL       []string     `json:"crl,omitempty"`
	OCSP      []string     `json:"ocsp,omitempty"`
	CAIssuers []string     `json:"ca_issuers,omitempty"`
}

func caPath(c *Config, key signer.KeyID) string {
	return filepath.Join(c.stateDir(), "ca", string(key)+".json")
}

// loadCA reads the record of a CA with its certificates.
func loadCA(c *Config, key signer.KeyID) (*caRecord, []*x509.Certificate, error) {
	path := caPath(c, key)
	b, err := readBounded(path, maxCredentialFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("key %s has no CA certificate; run: privyseal ca create --key %s", key, key)
	}
	if err != nil {
		return nil, nil, err
	}
	r := new(caRecord)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	var chain []*x509.Certificate
	for _, text := range r.Chain {
		got, err := parseCertificates([]byte(text))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		chain = append(chain, got...)
	}
	if len(chain) == 0 {
		return nil, nil, fmt.Errorf("%s has no certificate", path)
	}
	return r, chain, nil
}

func (r *caRecord) profile() certs.Profile {
	return certs.Profile{CRL: r.CRL, OCSP: r.OCSP, CAIssuers: r.CAIssuers}
}

// openIssuer joins a CA key with its certificate and the certificate store.
func (w *wiring) openIssuer(ctx context.Context, key signer.KeyID, store certs.Store) (*certs.Issuer, []*x509.Certificate, error) {
	r, chain, err := loadCA(w.config, key)
	if err != nil {
		return nil, nil, err
	}
	s, err := w.deviceKey(ctx, key, signer.PurposeX509CA)
	if err != nil {
		return nil, nil, err
	}
	i, err := certs.NewIssuer(certs.Config{Key: s, Certificate: chain[0], Store: store, Profile: r.profile()})
	return i, chain, err
}

type caOptions struct {
	key, issuer, name string
	hosts             []string
	lifetime          time.Duration
	crl, ocsp, ca     []string
}

func newCA(a *app) *cobra.Command {
	var o caOptions
	create := &cobra.Command{
		Use: "create --key KEY [--issuer KEY --host HOST...]", Short: "Make the certificate of a CA key", Args: noArgs,
		Long: "Makes a root certificate for a key of purpose x509-ca or, with --issuer, the\n" +
			"certificate of an issuing CA for the named provider hosts. The root should sign\n" +
			"issuing CAs and nothing else.",
		RunE: func(cmd *cobra.Command, _ []string) error { return caCreate(cmd.Context(), a, &o) },
	}
	f := create.Flags()
	f.StringVar(&o.key, "key", "", "`key` of purpose x509-ca (required)")
	f.StringVar(&o.issuer, "issuer", "", "`key` of the CA that certifies this one; without it the certificate is a root")
	f.StringVar(&o.name, "name", "", "common name of the CA (default: the key)")
	f.StringArrayVar(&o.hosts, "host", nil, "provider `host` that the CA may serve; may be repeated")
	f.DurationVar(&o.lifetime, "lifetime", 0, "lifetime (default ten years for a root, three for an issuing CA)")
	f.StringArrayVar(&o.crl, "crl", nil, "`URL` of the CRL for certificates that it issues")
	f.StringArrayVar(&o.ocsp, "ocsp", nil, "`URL` of the OCSP responder for certificates that it issues")
	f.StringArrayVar(&o.ca, "ca-issuers", nil, "`URL` of its own certificate in DER")
	show := &cobra.Command{
		Use: "show KEY", Short: "Print the certificate of a CA and those above it", Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return caShow(a, signer.KeyID(args[0])) },
	}
	return group("ca", "Certificates of CA keys", create, show, newCACRL(a))
}

func caCreate(ctx context.Context, a *app, o *caOptions) error {
	if o.key == "" {
		return usageError{errors.New("--key is required: a key of purpose x509-ca; see: privyseal key create --help")}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		chain, err := w.createCA(ctx, o)
		if err != nil {
			return err
		}
		return a.printCA(signer.KeyID(o.key), chain)
	})
}

// createCA makes a CA certificate and its record.
func (w *wiring) createCA(ctx context.Context, o *caOptions) ([]*x509.Certificate, error) {
	key, err := signer.ParseKeyID(o.key)
	if err != nil {
		return nil, err
	}
	path := caPath(w.config, key)
	if _, err := os.Stat(path); err == nil {
		return nil, fmt.Errorf("key %s has a CA certificate; see: privyseal ca show %s", key, key)
	}
	s, err := w.ring.Signer(ctx, key, signer.PurposeX509CA)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	err = w.withBook(ctx, func(b *registry.Store) error {
		chain, err = w.certifyCA(ctx, s, b, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := caRecord{Key: key, Chain: pemChain(chain), CRL: o.crl, OCSP: o.ocsp, CAIssuers: o.ca}
	b, err := json.MarshalIndent(&r, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return chain, durable.WriteFile(path, b, 0o600)
}

func (w *wiring) certifyCA(ctx context.Context, key *signer.Signer, store certs.Store, o *caOptions) ([]*x509.Certificate, error) {
	name := o.name
	if name == "" {
		name = o.key
	}
	order := certs.CAOrder{Subject: pkix.Name{CommonName: name}, Lifetime: o.lifetime, Hosts: o.hosts}
	if o.issuer == "" {
		root, err := certs.CreateRoot(ctx, key, store, time.Now, order)
		return []*x509.Certificate{root}, err
	}
	above, chain, err := w.openIssuer(ctx, signer.KeyID(o.issuer), store)
	if err != nil {
		return nil, err
	}
	made, err := above.CreateIssuingCA(ctx, key, order)
	return append([]*x509.Certificate{made}, chain...), err
}

func caShow(a *app, key signer.KeyID) error {
	if _, err := signer.ParseKeyID(string(key)); err != nil {
		return err
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	_, chain, err := loadCA(c, key)
	if err != nil {
		return err
	}
	return a.printCA(key, chain)
}

func (a *app) printCA(key signer.KeyID, chain []*x509.Certificate) error {
	texts := pemChain(chain)
	result := struct {
		Key      signer.KeyID `json:"key"`
		Subject  string       `json:"subject"`
		NotAfter time.Time    `json:"not_after"`
		Chain    []string     `json:"chain"`
	}{key, chain[0].Subject.String(), chain[0].NotAfter, texts}
	return a.print(result, func(w io.Writer) {
		for _, t := range texts {
			io.WriteString(w, t)
		}
	})
}

func pemChain(chain []*x509.Certificate) []string {
	texts := make([]string, len(chain))
	for i, c := range chain {
		texts[i] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return texts
}
