package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/identity"
)

const trustText = `The trust configuration is one strict JSON file: which issuers are believed for
which mimi:// names, where their keys come from, how their revocations are
learned, and what is made of credentials that prove nothing. The member "trust"
of the configuration names it, or --trust does. docs/trust.md has all members.

  {
    "version": 1,
    "issuers": [
      {
        "name": "acme-devices", "type": "x509", "roles": ["client"],
        "keys": {"source": "anchors", "file": "acme-root.pem"},
        "grants": [{"host": "acme.example", "paths": ["d/*/*", "u/*"]}],
        "revocation": {"mode": "hard", "methods": ["crl"], "crl": ["acme.crl"]}
      }
    ]
  }
`

func newTrust(a *app) *cobra.Command {
	c := group("trust", "Whose credentials are believed for which names", newTrustShow(a), newTrustCheck(a))
	c.Long = trustText
	return c
}

// trustFile returns the trust configuration that a flag or the configuration
// names, or "".
func (a *app) trustFile(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	c, err := a.loadConfig()
	if err != nil || c.Trust == "" {
		return "", err
	}
	return resolve(c.dir, c.Trust), nil
}

// needTrustFile is trustFile, and an error where there is none.
func (a *app) needTrustFile(flag string) (string, error) {
	path, err := a.trustFile(flag)
	if err == nil && path == "" {
		err = usageError{errors.New("no trust configuration: give --trust, or name one as \"trust\" in the configuration; see: privyseal help trust")}
	}
	return path, err
}

// An openedTrust is the trust configuration on the database in which what was
// fetched, and what is known to be revoked, outlives a call.
type openedTrust struct {
	*trust.List
	db *sqldb.DB
}

func (t *openedTrust) close() {
	t.List.Close()
	if t.db != nil {
		t.db.Close()
	}
}

// openTrust reads the trust configuration, and has package mls use its
// credential type numbers. Where there is a configuration, the database is that
// of "serve": a list or CRL that is older than what either has seen is refused
// by both. Without one, everything is fetched anew.
func (a *app) openTrust(ctx context.Context, flag string) (*openedTrust, error) {
	path, err := a.needTrustFile(flag)
	if err != nil {
		return nil, err
	}
	t := &openedTrust{}
	switch c, err := a.loadConfig(); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if t.db, err = trust.OpenDB(ctx, c.databaseSource("trust")); err != nil {
			return nil, fmt.Errorf("what was fetched for the trust configuration: %w", err)
		}
	}
	if t.List, err = trust.Open(path, trust.Options{DB: t.db}); err != nil {
		if t.db != nil {
			t.db.Close()
		}
		return nil, err
	}
	identity.UseTypeNumbers(t.Snapshot().Config.CredentialTypeNumbers)
	return t, nil
}

func newTrustShow(a *app) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "show", Short: "Read the trust configuration and say what it means", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return trustShow(a, file) },
	}
	c.Flags().StringVar(&file, "trust", "", "the trust configuration `file` (default: that of the configuration)")
	return c
}

func trustShow(a *app, file string) error {
	path, err := a.needTrustFile(file)
	if err != nil {
		return err
	}
	l, err := trust.Open(path, trust.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	c := l.Snapshot().Config
	return a.print(c, func(w io.Writer) {
		fmt.Fprintf(w, "clocks       may differ by %ds; a member gives %ds of grace\n", c.Defaults.SkewS, c.Defaults.GraceS)
		fmt.Fprintf(w, "assertions   %s%s\n", c.Basic.Mode, list(" of ", c.Basic.Hosts))
		fmt.Fprintf(w, "any domain   %v\n", c.AutoDomain)
		fmt.Fprintf(w, "unknown      %s\n", c.UnknownIssuer)
		for i, e := range c.Issuers {
			showIssuer(w, &e, l.Snapshot().Issuers()[i])
		}
	})
}

func list(before string, words []string) string {
	if len(words) == 0 {
		return ""
	}
	return before + strings.Join(words, ", ")
}

func showIssuer(w io.Writer, e *trust.IssuerConfig, i *trust.Issuer) {
	fmt.Fprintf(w, "\nissuer       %s (%s)%s\n", e.Name, e.Type, list(" ", []string{e.Iss}))
	fmt.Fprintf(w, "  for        %s\n", strings.Join(e.Roles, ", "))
	fmt.Fprintf(w, "  keys       %s%s%s\n", e.Keys.Source, list(" ", []string{e.Keys.File}), list(" ", []string{e.Keys.URI}))
	for _, g := range e.Grants {
		fmt.Fprintf(w, "  may name   mimi://%s: %s\n", g.Host, strings.Join(quoted(g.Paths), ", "))
	}
	fmt.Fprintf(w, "  lifetime   at most %v\n", i.MaxLifetime)
	fmt.Fprintf(w, "  revocation %s%s\n", i.Mode, list(" by ", e.Revocation.Methods))
	if i.Attested {
		fmt.Fprintf(w, "  attested   its devices' keys are attested%s\n", list(" at ", []string{e.MinAttestation}))
	}
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, s := range words {
		out[i] = fmt.Sprintf("%q", s)
	}
	return out
}
