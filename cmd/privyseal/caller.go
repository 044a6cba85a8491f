package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/signer/access"
	signservice "github.com/privyseal/privyseal/signer/service"
)

func newCaller(a *app) *cobra.Command {
	return group("caller", "Who may call the signing service", newCallerInvite(a), newCallerList(a), newCallerGrant(a), newCallerRevoke(a), newCallerCA(a))
}

// withSigner runs f with the parts of the signing service.
func (a *app) withSigner(ctx context.Context, f func(*signerParts) error) error {
	return a.withWiring(ctx, func(w *wiring) error {
		p, err := newSignerParts(ctx, w, signservice.Hooks{})
		if err != nil {
			return err
		}
		return errors.Join(f(p), p.Close())
	})
}

// callerFlags are those that name callers.
type callerFlags struct {
	tenant, role, out, reason string
	grants                    []string
	lifetime                  time.Duration
}

func (f *callerFlags) tenantFlag(c *cobra.Command, usage string) *cobra.Command {
	c.Flags().StringVar(&f.tenant, "tenant", "", usage)
	return c
}

func parseGrants(texts []string) (grants []access.Grant, err error) {
	for _, s := range texts {
		g, err := access.ParseGrant(s)
		if err != nil {
			return nil, usageError{err}
		}
		grants = append(grants, g)
	}
	return grants, nil
}

func newCallerInvite(a *app) *cobra.Command {
	var f callerFlags
	c := f.tenantFlag(&cobra.Command{
		Use: "invite NAME --tenant TENANT", Short: "Make a one-time token for a new caller", Args: exactArgs(1),
		Long: `Make a one-time token with which a new caller gets its first certificate:
privyseal remote enroll. Whoever has the token becomes the caller. A tenant is
there as soon as it has a caller; its keys are named TENANT.NAME on the appliance.

A grant is KEY:USE[,USE…]. KEY is the name of a key within the tenant, or a prefix
and '*'. The uses are sign, mac, agree, and raw for bare digests.`,
		RunE: func(cmd *cobra.Command, args []string) error { return callerInvite(cmd.Context(), a, args[0], &f) },
	}, "tenant of the caller (required)")
	c.Flags().StringVar(&f.role, "role", "client", "admin, operator, auditor or client")
	c.Flags().StringArrayVar(&f.grants, "grant", nil, "what the caller may do with which key, such as leaf-*:sign; may be repeated")
	c.Flags().DurationVar(&f.lifetime, "lifetime", access.DefaultInvitation, "how long the token is good, up to 168h")
	c.Flags().StringVar(&f.out, "out", "", "write the token into a new file of mode 0600 instead of standard output")
	return c
}

// callerInvite is "privyseal caller invite".
func callerInvite(ctx context.Context, a *app, name string, f *callerFlags) error {
	grants, err := parseGrants(f.grants)
	if err != nil {
		return err
	}
	return a.withSigner(ctx, func(p *signerParts) error {
		return a.giveOut(f.out, "token", func() (string, time.Time, error) {
			token, expires, err := p.access.Invite(ctx, access.Invitation{Tenant: f.tenant, Name: name, Role: access.Role(f.role), Grants: grants, Lifetime: f.lifetime})
			if err != nil {
				return "", expires, err
			}
			return token.Reveal(), expires, nil
		}, map[string]any{"tenant": f.tenant, "name": name})
	})
}

// giveOut makes a secret that is good once and gives it out, to a new file of mode
// 0600 or, without one, to standard output. what names it, also in JSON, where it
// stands beside the members of view.
func (a *app) giveOut(file, what string, make func() (string, time.Time, error), view map[string]any) error {
	var secret string
	var expires time.Time
	made := func() (_ string, err error) {
		secret, expires, err = make()
		return secret, err
	}
	if file == "" || file == "-" {
		if _, err := made(); err != nil {
			return err
		}
		view[what] = secret
	} else {
		if err := withNewSecret(file, made); err != nil {
			return err
		}
		view["file"], secret = file, ""
	}
	view["expires_at"] = expires
	a.note("the %s is good once, until %s", what, expires.Format(time.RFC3339))
	return a.print(view, func(w io.Writer) {
		if secret != "" {
			fmt.Fprintln(w, secret)
		}
	})
}

func newCallerList(a *app) *cobra.Command {
	var f callerFlags
	return f.tenantFlag(&cobra.Command{
		Use: "list", Short: "List the callers", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withSigner(cmd.Context(), func(p *signerParts) error {
				all, err := p.access.Callers(cmd.Context(), f.tenant)
				if err != nil {
					return err
				}
				return a.print(append([]*access.Caller{}, all...), func(w io.Writer) { printCallers(w, all) })
			})
		},
	}, "of this tenant only")
}

func printCallers(w io.Writer, all []*access.Caller) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TENANT\tNAME\tROLE\tSTATE\tCERTIFICATE UNTIL\tGRANTS")
	for _, c := range all {
		until := "-"
		if !c.NotAfter.IsZero() {
			until = c.NotAfter.Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Tenant, c.Name, c.Role, c.State, until, dash(formatGrants(c.Grants)))
	}
	t.Flush()
}

func formatGrants(grants []access.Grant) string {
	var out []string
	for _, g := range grants {
		var uses []string
		for _, u := range g.Uses {
			uses = append(uses, string(u))
		}
		out = append(out, g.Key+":"+strings.Join(uses, ","))
	}
	return strings.Join(out, " ")
}

func newCallerGrant(a *app) *cobra.Command {
	var f callerFlags
	c := f.tenantFlag(&cobra.Command{
		Use: "grant NAME --tenant TENANT", Short: "Replace the grants of a caller", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			grants, err := parseGrants(f.grants)
			if err != nil {
				return err
			}
			return a.withSigner(cmd.Context(), func(p *signerParts) error {
				if err := p.access.SetGrants(cmd.Context(), f.tenant, args[0], grants); err != nil {
					return err
				}
				view := struct {
					Tenant string         `json:"tenant"`
					Name   string         `json:"name"`
					Grants []access.Grant `json:"grants"`
				}{f.tenant, args[0], nonNil(grants)}
				return a.print(view, func(w io.Writer) {
					fmt.Fprintf(w, "%s of tenant %s: %s\n", view.Name, view.Tenant, dash(formatGrants(grants)))
				})
			})
		},
	}, "tenant of the caller (required)")
	c.Flags().StringArrayVar(&f.grants, "grant", nil, "as for invite; none takes them all away")
	return c
}

func newCallerRevoke(a *app) *cobra.Command {
	var f callerFlags
	c := f.tenantFlag(&cobra.Command{
		Use: "revoke NAME --tenant TENANT", Short: "End the access of a caller", Args: exactArgs(1),
		Long: "End the access of a caller: its certificates and invitations are worth nothing from now on. A service that runs notices within two seconds, on open connections too.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withSigner(cmd.Context(), func(p *signerParts) error {
				c, err := p.access.Revoke(cmd.Context(), f.tenant, args[0], f.reason)
				if err != nil {
					return err
				}
				return a.print(c, func(w io.Writer) { fmt.Fprintf(w, "%s of tenant %s is revoked\n", c.Name, c.Tenant) })
			})
		},
	}, "tenant of the caller (required)")
	c.Flags().StringVar(&f.reason, "reason", "", "kept with the caller")
	return c
}

func newCallerCA(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ca", Short: "Print the certificate of the CA of callers", Args: noArgs,
		Long: "Print the certificate of the CA that signs the certificates of callers, in PEM, and make it if there is none yet, which needs the device of its key.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withSigner(cmd.Context(), func(p *signerParts) error {
				root, err := p.authority.Root(cmd.Context())
				if err != nil {
					return err
				}
				text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
				return a.print(map[string]string{"certificate": text}, func(w io.Writer) { io.WriteString(w, text) })
			})
		},
	}
}
