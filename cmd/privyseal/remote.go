package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/internal/strictjson"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/client"
)

// remoteFlags are those of every "privyseal remote" command.
type remoteFlags struct {
	dir    string
	server string // instead of that of the enrolment, if it is not empty
}

func newRemote(a *app) *cobra.Command {
	var f remoteFlags
	c := group("remote", "Use keys of a signing service",
		newRemoteEnroll(a, &f), newRemoteRenew(a, &f), newRemoteWhoAmI(a, &f), newRemoteKey(a, &f), newRemoteSign(a, &f))
	c.PersistentFlags().StringVar(&f.dir, "identity", "", "folder of the caller's certificate and key (default $PRIVYSEAL_HOME/remote, then ~/.privyseal/remote)")
	return c
}

// folder returns the folder of the identity.
func (f *remoteFlags) folder() (string, error) {
	if f.dir != "" {
		return filepath.Abs(f.dir)
	}
	dir, err := home()
	return filepath.Join(dir, "remote"), err
}

// A remoteConfig is kept beside the identity.
type remoteConfig struct {
	Version int    `json:"version"`
	Server  string `json:"server"`
	Roots   string `json:"roots"` // file in the folder
}

const (
	remoteConfigFile = "remote.json"
	remoteRootsFile  = "server-ca.pem"
	maxRoots         = 1 << 20
)

// open returns a client with the identity in the folder.
func (f *remoteFlags) open() (*client.Client, *client.Identity, error) {
	dir, err := f.folder()
	if err != nil {
		return nil, nil, err
	}
	b, err := readBounded(filepath.Join(dir, remoteConfigFile), maxConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("%w; run: privyseal remote enroll", err)
	}
	var c remoteConfig
	if err := strictjson.Decode(b, maxConfig, &c); err != nil || c.Version != 1 {
		return nil, nil, fmt.Errorf("%s: not a file of this release: %v", filepath.Join(dir, remoteConfigFile), err)
	}
	if f.server != "" {
		c.Server = f.server
	}
	identity, err := client.OpenIdentity(dir)
	if err != nil {
		return nil, nil, err
	}
	remote, err := connectRemote(c.Server, filepath.Join(dir, remoteRootsFile), identity)
	return remote, identity, err
}

func connectRemote(server, roots string, identity *client.Identity) (*client.Client, error) {
	pool, err := daemon.ReadPool(roots)
	if err != nil {
		return nil, err
	}
	return newRemoteClient(server, pool, identity)
}

func newRemoteClient(server string, pool *x509.CertPool, identity *client.Identity) (*client.Client, error) {
	c := client.Config{Address: server, Roots: pool}
	if identity != nil {
		c.Certificate = identity.Certificate
	}
	remote, err := client.New(c)
	if err != nil {
		return nil, usageError{err}
	}
	return remote, nil
}

// with runs f with a client, whose certificate is renewed when it is time.
func (f *remoteFlags) with(ctx context.Context, a *app, run func(*client.Client) error) error {
	c, identity, err := f.open()
	if err != nil {
		return err
	}
	defer c.Close()
	if time.Now().After(identity.RenewAfter()) {
		if err := identity.Renew(ctx, c); err != nil {
			a.note("the certificate could not be renewed: %v", err)
		}
	}
	return run(c)
}

func newRemoteEnroll(a *app, f *remoteFlags) *cobra.Command {
	var server, roots, token string
	c := &cobra.Command{
		Use: "enroll --server URL --server-ca FILE --token-file FILE", Short: "Become a caller with a one-time token", Args: noArgs,
		Long: "Make a key, and exchange a one-time token (privyseal caller invite) for its certificate. Both are kept in the folder of the identity. The token is read from a file; - is standard input.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return remoteEnroll(cmd.Context(), a, f, server, roots, token)
		},
	}
	c.Flags().StringVar(&server, "server", "", "URL of the service, such as https://signer.example:8443 (required)")
	c.Flags().StringVar(&roots, "server-ca", "", "certificates that verify the service, PEM (required)")
	c.Flags().StringVar(&token, "token-file", "", "file with the token (required)")
	return c
}

// remoteEnroll is "privyseal remote enroll".
func remoteEnroll(ctx context.Context, a *app, f *remoteFlags, server, roots, tokenFile string) error {
	if server == "" || roots == "" || tokenFile == "" {
		return usageError{fmt.Errorf("--server, --server-ca and --token-file are required")}
	}
	token, err := a.readToken(tokenFile)
	if err != nil {
		return err
	}
	dir, err := f.folder()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	c, err := connectRemote(server, roots, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	identity, err := client.Enroll(ctx, c, dir, token)
	if err != nil {
		return err
	}
	if err := keepRemote(dir, server, roots); err != nil {
		return err
	}
	leaf := identity.Leaf()
	view := map[string]string{"tenant": strings.Join(leaf.Subject.Organization, ""), "name": leaf.Subject.CommonName, "identity": dir, "not_after": leaf.NotAfter.UTC().Format(time.RFC3339)}
	return a.print(view, func(w io.Writer) {
		fmt.Fprintf(w, "you are %s of tenant %s; the certificate in %s is good until %s\n", view["name"], view["tenant"], dir, view["not_after"])
	})
}

func (a *app) readToken(path string) (string, error) {
	const most = 4096
	b, err := a.readInput(path, most)
	return strings.TrimSpace(string(b)), err
}

func keepRemote(dir, server, roots string) error {
	b, err := readBounded(roots, maxRoots)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, remoteRootsFile), b, 0o644); err != nil {
		return err
	}
	text, err := json.MarshalIndent(remoteConfig{1, server, remoteRootsFile}, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, remoteConfigFile), append(text, '\n'), 0o644)
}

func newRemoteRenew(a *app, f *remoteFlags) *cobra.Command {
	return &cobra.Command{
		Use: "renew", Short: "Get a new certificate now", Args: noArgs,
		Long: "Get a certificate for a new key now. Every other command does so by itself when two thirds of the certificate's life are over.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, identity, err := f.open()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := identity.Renew(cmd.Context(), c); err != nil {
				return err
			}
			until := identity.Leaf().NotAfter.UTC().Format(time.RFC3339)
			return a.print(map[string]string{"not_after": until}, func(w io.Writer) { fmt.Fprintf(w, "good until %s\n", until) })
		},
	}
}

func newRemoteWhoAmI(a *app, f *remoteFlags) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Ask the service who calls", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), a, func(c *client.Client) error {
				r, err := c.Access().WhoAmI(cmd.Context(), connect.NewRequest(&signerv1.WhoAmIRequest{}))
				if err != nil {
					return client.Explain(err)
				}
				m := r.Msg
				return a.printProto(m, func(w io.Writer) {
					fmt.Fprintf(w, "%s of tenant %s, role %s\n", m.GetName(), m.GetTenant(), m.GetRole())
					for _, g := range m.GetGrants() {
						fmt.Fprintf(w, "may %s with %s\n", strings.Join(g.GetUses(), ", "), g.GetKey())
					}
				})
			})
		},
	}
}

func printRemoteKeys(w io.Writer, keys []*signerv1.Key) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPURPOSE\tALGORITHM\tVERSION\tDEVICE\tEVIDENCE\tKID")
	for _, k := range keys {
		version, device, evidence, kid := "-", "-", "-", "-"
		for _, v := range k.GetVersions() {
			if v.GetNumber() == k.GetActiveVersion() {
				version, device, evidence, kid = fmt.Sprint(v.GetNumber()), v.GetDevice(), dash(v.GetEvidence()), dash(v.GetKid())
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.GetName(), k.GetPurpose(), k.GetAlgorithm(), version, device, evidence, kid)
	}
	t.Flush()
}
