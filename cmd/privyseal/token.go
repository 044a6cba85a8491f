package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/hsm"
)

func newToken(a *app) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the configured devices and the tokens behind them", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return tokenList(cmd.Context(), a) },
	}
	var why string
	trust := &cobra.Command{
		Use: "trust DEVICE", Short: "Let a suspect device sign again", Args: exactArgs(1),
		Long: `A device that returned a signature which did not verify is suspect, and signs
nothing until somebody has looked into it and says so here. The reason is kept.`,
		RunE: func(cmd *cobra.Command, args []string) error { return tokenTrust(cmd.Context(), a, args[0], why) },
	}
	trust.Flags().StringVar(&why, "reason", "", "why the device is trusted again (required)")
	return group("token", "Tokens and TPMs", list, newDoctor(a), trust)
}

// A tokenView is one device, or one token behind a device's module.
type tokenView struct {
	Device       string   `json:"device"`
	Kind         string   `json:"kind"`
	State        string   `json:"state"`
	Configured   bool     `json:"configured"` // this token is the device
	Label        string   `json:"label,omitempty"`
	Serial       string   `json:"serial,omitempty"`
	Manufacturer string   `json:"manufacturer,omitempty"`
	Model        string   `json:"model,omitempty"`
	URI          string   `json:"uri,omitempty"`
	Algorithms   []string `json:"algorithms,omitempty"`
	Error        string   `json:"error,omitempty"`
}

// tokenList is "privyseal token list". It does not log in.
func tokenList(ctx context.Context, a *app) error {
	views := []tokenView{}
	err := a.withWiring(ctx, func(w *wiring) error {
		for _, name := range w.config.names() {
			views = append(views, viewDevice(ctx, w.devices[name], name)...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return a.print(views, func(out io.Writer) {
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "DEVICE\tKIND\tSTATE\tLABEL\tSERIAL\tURI")
		for _, v := range views {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Device, v.Kind, v.State, dash(v.Label), dash(v.Serial), dash(v.URI))
		}
		t.Flush()
	})
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func viewDevice(ctx context.Context, d openDevice, name string) []tokenView {
	switch d := d.(type) {
	case *pkcs11Device:
		return d.views(ctx)
	case *tpmDevice:
		v := tokenView{Device: name, Kind: kindTPM, State: "ready", Configured: true, URI: d.config.Address}
		if _, err := d.open(ctx); err != nil {
			v.State, v.Error = "unavailable", err.Error()
		}
		return []tokenView{v}
	}
	return nil
}

// views lists all tokens of the module.
func (d *pkcs11Device) views(ctx context.Context) []tokenView {
	infos, err := d.tokens(ctx)
	if err != nil {
		return []tokenView{{Device: d.name, Kind: kindPKCS11, State: "unavailable", Configured: true, URI: d.config.Token, Error: err.Error()}}
	}
	u, _, err := d.uriAndPIN()
	if err != nil {
		return []tokenView{{Device: d.name, Kind: kindPKCS11, State: "misconfigured", Configured: true, Error: err.Error()}}
	}
	var views []tokenView
	found := false
	for _, i := range infos {
		v := tokenView{
			Device: "-", Kind: kindPKCS11, State: tokenState(i), Label: i.Label, Serial: i.Serial,
			Manufacturer: i.Manufacturer, Model: i.Model, URI: i.URI().String(),
		}
		if v.Configured = u.MatchesToken(i); v.Configured {
			v.Device, found = d.name, true
		}
		for _, k := range i.KeyTypes {
			v.Algorithms = append(v.Algorithms, string(k))
		}
		views = append(views, v)
	}
	if !found {
		views = append(views, tokenView{Device: d.name, Kind: kindPKCS11, State: "absent", Configured: true, URI: d.config.Token})
	}
	return views
}

func (d *pkcs11Device) tokens(ctx context.Context) ([]hsm.TokenInfo, error) {
	m, err := d.openModule(ctx)
	if err != nil {
		return nil, err
	}
	infos, err := m.Tokens(ctx)
	return infos, d.wrap("list tokens", err)
}

// tokenState is one word for what stands between a token and its use.
func tokenState(i hsm.TokenInfo) string {
	switch {
	case !i.Initialized:
		return "uninitialised"
	case i.UserPINLocked:
		return "pin-locked"
	case !i.UserPINSet && i.LoginRequired:
		return "no-user-pin"
	case i.UserPINFinalTry:
		return "pin-final-try"
	case i.UserPINCountLow:
		return "pin-count-low"
	}
	return "ready"
}

// tokenTrust is "privyseal token trust".
func tokenTrust(ctx context.Context, a *app, name, why string) error {
	if strings.TrimSpace(why) == "" {
		return usageError{fmt.Errorf("say with --reason why the device is trusted again")}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		if err := w.store.ClearSuspect(ctx, name, why); err != nil {
			return err
		}
		return a.print(map[string]string{"device": name, "reason": why}, func(w io.Writer) { fmt.Fprintf(w, "device %s may sign again\n", name) })
	})
}
