package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
)

type targetOptions struct {
	client, user, holder, reason string
	noPublish                    bool
	wait                         time.Duration // for the leaves to be gone; 0 does not wait
}

func (o *targetOptions) flags(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	f.StringVar(&o.client, "client", "", "every credential of this client `URI`, in every format")
	f.StringVar(&o.user, "user", "", "every credential of this user `URI`")
	f.StringVar(&o.holder, "holder", "", "every credential for the key with this JWK `thumbprint`")
	f.BoolVar(&o.noPublish, "no-publish", false, "leave publishing to a running \"privyseal serve\"")
	return c
}

func (o *targetOptions) target(args []string) (t registry.Target, err error) {
	t = registry.Target{Client: o.client, User: o.user, Holder: o.holder}
	if len(args) > 0 {
		t.ID, err = registry.ParseID(args[0])
	}
	given := 0
	for _, s := range []string{string(t.ID), t.Client, t.User, t.Holder} {
		if s != "" {
			given++
		}
	}
	switch {
	case err == nil && given != 1:
		err = errors.New("name one target: an ID, --client, --user or --holder")
	case err == nil && o.wait < 0:
		err = errors.New("--wait cannot be negative")
	}
	if err != nil {
		return t, usageError{err}
	}
	return t, nil
}

func newCredentialRevoke(a *app) *cobra.Command {
	var o targetOptions
	c := &cobra.Command{
		Use: "revoke ID | --client URI | --user URI | --holder KID", Short: "Revoke credentials for good", Args: cobra.MaximumNArgs(1),
		Long: "Revokes in one step everywhere that the credentials appear: in CRLs, OCSP answers\n" +
			"and status lists. It is durable when the command ends; then the CRLs and lists\n" +
			"that the configuration names are signed and published too.\n\n" +
			"With --wait it ends when the provider of the configuration (serve.provider) has the\n" +
			"credentials in none of its rooms any more, nor in rooms of other providers that it can\n" +
			"follow, and names for each room the epoch in which they were gone. What is still\n" +
			"there after the time is listed, with exit code 3.",
		RunE: func(cmd *cobra.Command, args []string) error {
			reason, err := certs.ParseReason(o.reason)
			if err != nil {
				return usageError{err}
			}
			return changeStatus(cmd.Context(), a, &o, args, func(b *registry.Store, ctx context.Context, t registry.Target) ([]registry.Change, error) {
				return b.Revoke(ctx, t, reason)
			})
		},
	}
	c.Flags().StringVar(&o.reason, "reason", "unspecified", "`reason` of RFC 5280, such as keyCompromise or superseded")
	c.Flags().DurationVar(&o.wait, "wait", 0, "wait so long for the credentials to be gone from rooms (2m if no time is given)")
	c.Flags().Lookup("wait").NoOptDefVal = "2m"
	return o.flags(c)
}

func newCredentialSuspend(a *app) *cobra.Command {
	var o targetOptions
	return o.flags(&cobra.Command{
		Use: "suspend ID | --client URI | --user URI | --holder KID", Short: "Take credentials out of use for a while", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeStatus(cmd.Context(), a, &o, args, (*registry.Store).Suspend)
		},
	})
}

func newCredentialResume(a *app) *cobra.Command {
	var o targetOptions
	return o.flags(&cobra.Command{
		Use: "resume ID | --client URI | --user URI | --holder KID", Short: "Take credentials off suspension", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeStatus(cmd.Context(), a, &o, args, (*registry.Store).Resume)
		},
	})
}

// changeStatus changes the state of credentials and publishes it.
func changeStatus(ctx context.Context, a *app, o *targetOptions, args []string, change func(*registry.Store, context.Context, registry.Target) ([]registry.Change, error)) error {
	t, err := o.target(args)
	if err != nil {
		return err
	}
	return a.withWiring(ctx, func(w *wiring) error {
		return w.withBook(ctx, func(b *registry.Store) error {
			if err := o.checkWait(w.config); err != nil {
				return err
			}
			changes, err := change(b, ctx, t)
			if err != nil {
				return refusal(err)
			}
			published, err := w.publishNow(ctx, b, o.noPublish)
			if err != nil {
				return errors.Join(a.printChanges(changes, false, nil), fmt.Errorf("changed and durable, but not published yet (a running serve tries again): %w", err))
			}
			rooms, err := o.awaitRemoval(ctx, w, b, t)
			return errors.Join(a.printChanges(changes, published, rooms), err)
		})
	})
}

// refusal marks what the book refuses.
func refusal(err error) error {
	for _, e := range []error{registry.ErrRevoked, registry.ErrNoStatus, registry.ErrNotSuspending} {
		if errors.Is(err, e) {
			return refusedError{err}
		}
	}
	return err
}

// publishNow signs and stores what the configuration names.
func (w *wiring) publishNow(ctx context.Context, b *registry.Store, not bool) (bool, error) {
	s := w.config.issuer()
	if not || len(s.CAs) == 0 && s.StatusKey == "" {
		return false, nil
	}
	i, err := w.openIssuance(ctx, b)
	if err != nil {
		return false, err
	}
	return true, i.publisher.Publish(ctx)
}

func (a *app) printChanges(changes []registry.Change, published bool, rooms []roomLeft) error {
	if changes == nil {
		changes = []registry.Change{}
	}
	return a.print(struct {
		Changes   []registry.Change `json:"changes"`
		Published bool              `json:"published"`
		Rooms     []roomLeft        `json:"rooms,omitempty"`
	}{changes, published, rooms}, func(w io.Writer) {
		for _, c := range changes {
			fmt.Fprintf(w, "%s  %-6s  %s\n", c.Credential, c.Record.Type, describe(c.State, c.Reason))
		}
		if len(changes) == 0 {
			fmt.Fprintln(w, "nothing to change")
		} else if published {
			fmt.Fprintln(w, "published")
		} else {
			fmt.Fprintln(w, "not published by this command")
		}
		for _, r := range rooms {
			fmt.Fprintln(w, r)
		}
	})
}

func describe(s registry.State, reason string) string {
	if reason == "" {
		return string(s)
	}
	return string(s) + ", " + reason
}

func newCredentialStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status ID", Short: "Show what was issued and what became of it", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return credentialStatus(cmd.Context(), a, args[0]) },
	}
}

func credentialStatus(ctx context.Context, a *app, name string) error {
	id, err := registry.ParseID(name)
	if err != nil {
		return usageError{err}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		return w.withBook(ctx, func(b *registry.Store) error {
			r, err := b.Get(ctx, id)
			if err != nil {
				return err
			}
			history, err := b.History(ctx, id)
			if err != nil {
				return err
			}
			return a.print(struct {
				*registry.Record
				History []registry.Change `json:"history,omitempty"`
			}{r, history}, func(w io.Writer) { recordText(w, r, history) })
		})
	})
}

func recordText(w io.Writer, r *registry.Record, history []registry.Change) {
	state := describe(r.State, r.Reason)
	if r.Unfinished() {
		state += " (may have been signed, was given to nobody)"
	}
	fmt.Fprintf(w, "id          %s\ntype        %s, %s\nstate       %s\nissuer      %s\n", r.ID, r.Type, r.Kind, state, r.Issuer)
	for _, l := range []struct{ name, value string }{
		{"client", r.Client}, {"user", r.User}, {"subject", r.Subject}, {"holder key", r.Holder}, {"serial", r.Serial}, {"list", r.List},
	} {
		if l.value != "" {
			fmt.Fprintf(w, "%-11s %s\n", l.name, l.value)
		}
	}
	if r.List != "" {
		fmt.Fprintf(w, "index       %d\n", r.Index)
	}
	fmt.Fprintf(w, "attestation %s\nvalid       %s to %s\n", r.Level, r.NotBefore.Format(time.RFC3339), r.NotAfter.Format(time.RFC3339))
	for _, c := range history {
		said := "not published yet"
		if !c.Published.IsZero() {
			said = fmt.Sprintf("published after %v", c.Published.Sub(c.At).Round(time.Millisecond))
		}
		fmt.Fprintf(w, "%s  %s; %s\n", c.At.Format(time.RFC3339), describe(c.State, c.Reason), said)
	}
}

type listOptions struct {
	kind, state, client, user, holder, attestation, after string
	unfinished                                            bool
	size                                                  int
}

func (o *listOptions) flags(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	f.StringVar(&o.kind, "type", "", "x509, sd-jwt or sd-cwt")
	f.StringVar(&o.state, "state", "", "valid, suspended or revoked")
	f.StringVar(&o.client, "client", "", "client `URI`")
	f.StringVar(&o.user, "user", "", "user `URI`")
	f.StringVar(&o.holder, "holder", "", "JWK `thumbprint` of the holder's key")
	f.StringVar(&o.attestation, "attestation", "", "this `level` or a higher one: stated, tpm-listed, tpm-certified")
	f.BoolVar(&o.unfinished, "unfinished", false, "only what may have been signed and was given to nobody")
	return c
}

func newCredentialList(a *app) *cobra.Command {
	var o listOptions
	c := o.flags(&cobra.Command{
		Use: "list", Short: "List what was issued", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return credentialList(cmd.Context(), a, &o) },
	})
	c.Flags().StringVar(&o.after, "after", "", "`cursor` that the page before ended with")
	c.Flags().IntVar(&o.size, "limit", 100, "most records of a page")
	return c
}

func credentialList(ctx context.Context, a *app, o *listOptions) error {
	f, err := o.filter()
	if err != nil {
		return err
	}
	return a.withWiring(ctx, func(w *wiring) error {
		return w.withBook(ctx, func(b *registry.Store) error {
			records, next, err := b.List(ctx, f, registry.Page{After: o.after, Size: o.size})
			if err != nil {
				return usageError{err}
			}
			if records == nil {
				records = []*registry.Record{}
			}
			return a.print(struct {
				Credentials []*registry.Record `json:"credentials"`
				Next        string             `json:"next,omitempty"`
			}{records, next}, func(w io.Writer) {
				for _, r := range records {
					fmt.Fprintf(w, "%s  %-6s  %-9s  %s  %s%s\n", r.ID, r.Type, r.State, r.NotAfter.Format(time.RFC3339), r.Client, r.Subject)
				}
				if next != "" {
					fmt.Fprintf(w, "more: --after %s\n", next)
				}
			})
		})
	})
}
