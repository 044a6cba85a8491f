package main

import (
	"context"
	"crypto"
	"encoding/base64"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/internal/tlsvec"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/client"
	signservice "github.com/privyseal/privyseal/signer/service"
)

// printProto prints a message of the API.
func (a *app) printProto(m proto.Message, text func(io.Writer)) error {
	if !a.json {
		return a.print(nil, text)
	}
	b, err := protojson.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s\n", b)
	return err
}

// remoteKeyCall is a subcommand that has one answer, a key.
func remoteKeyCall(a *app, f *remoteFlags, use, short string, call func(context.Context, *client.Client, string) (*connect.Response[signerv1.Key], error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd.Context(), a, func(c *client.Client) error {
				r, err := call(cmd.Context(), c, args[0])
				if err != nil {
					return client.Explain(err)
				}
				return a.printProto(r.Msg, func(w io.Writer) { printRemoteKeys(w, []*signerv1.Key{r.Msg}) })
			})
		},
	}
}

func newRemoteKey(a *app, f *remoteFlags) *cobra.Command {
	var reason, device string
	rotate := remoteKeyCall(a, f, "rotate NAME", "Make a new version of a key", func(ctx context.Context, c *client.Client, name string) (*connect.Response[signerv1.Key], error) {
		return c.Keys().RotateKey(ctx, connect.NewRequest(&signerv1.RotateKeyRequest{Name: name, Device: device}))
	})
	rotate.Flags().StringVar(&device, "device", "", "device of the new version; default that of the newest one")
	disable := remoteKeyCall(a, f, "disable NAME", "End signing with a key until it is rotated", func(ctx context.Context, c *client.Client, name string) (*connect.Response[signerv1.Key], error) {
		return c.Keys().DisableKey(ctx, connect.NewRequest(&signerv1.DisableKeyRequest{Name: name, Reason: reason}))
	})
	disable.Flags().StringVar(&reason, "reason", "", "kept in the key's history")
	show := remoteKeyCall(a, f, "show NAME", "Show a key", func(ctx context.Context, c *client.Client, name string) (*connect.Response[signerv1.Key], error) {
		return c.Keys().GetKey(ctx, connect.NewRequest(&signerv1.GetKeyRequest{Name: name}))
	})
	return group("key", "Keys of the tenant", newRemoteKeyList(a, f), show, newRemoteKeyCreate(a, f), rotate, disable, newRemoteKeyPublic(a, f))
}

func newRemoteKeyCreate(a *app, f *remoteFlags) *cobra.Command {
	var m signerv1.CreateKeyRequest
	c := remoteKeyCall(a, f, "create NAME", "Make a key", func(ctx context.Context, c *client.Client, name string) (*connect.Response[signerv1.Key], error) {
		m.Name = name
		return c.Keys().CreateKey(ctx, connect.NewRequest(&m))
	})
	c.Flags().StringVar(&m.Purpose, "purpose", "", "the one purpose of the key (required): "+purposeNames())
	c.Flags().StringVar(&m.Algorithm, "alg", "", "algorithm; default that of the purpose")
	c.Flags().StringVar(&m.Device, "device", "", "device; default the service's")
	c.Flags().StringToStringVar(&m.Labels, "label", nil, "labels, as name=value")
	return c
}

func newRemoteKeyList(a *app, f *remoteFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys of the tenant that you may see", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), a, func(c *client.Client) error {
				all := &signerv1.ListKeysResponse{}
				for token := ""; ; {
					r, err := c.Keys().ListKeys(cmd.Context(), connect.NewRequest(&signerv1.ListKeysRequest{PageSize: 1000, PageToken: token}))
					if err != nil {
						return client.Explain(err)
					}
					all.Keys = append(all.Keys, r.Msg.GetKeys()...)
					if token = r.Msg.GetNextPageToken(); token == "" {
						break
					}
				}
				return a.printProto(all, func(w io.Writer) { printRemoteKeys(w, all.Keys) })
			})
		},
	}
}

func newRemoteKeyPublic(a *app, f *remoteFlags) *cobra.Command {
	var format string
	var version int32
	c := &cobra.Command{
		Use: "public NAME", Short: "Print a public key", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd.Context(), a, func(c *client.Client) error {
				r, err := c.Keys().GetPublicKey(cmd.Context(), connect.NewRequest(&signerv1.GetPublicKeyRequest{Name: args[0], Version: version}))
				if err != nil {
					return client.Explain(err)
				}
				text := map[string]string{"pem": r.Msg.GetPem(), "jwk": r.Msg.GetJwk() + "\n",
					"cose": base64.StdEncoding.EncodeToString(r.Msg.GetCoseKey()) + "\n"}[format]
				if text == "" {
					return usageError{fmt.Errorf("--format is pem, jwk or cose, not %q", format)}
				}
				return a.printProto(r.Msg, func(w io.Writer) { io.WriteString(w, text) })
			})
		},
	}
	c.Flags().StringVar(&format, "format", "pem", "pem, jwk, or cose for a COSE_Key in base64")
	c.Flags().Int32Var(&version, "version", 0, "version of the key; default the active one")
	return c
}

// signFlags say what a file holds.
type signFlags struct {
	mlsLabel string
	digest   bool
	out      string
}

func newRemoteSign(a *app, f *remoteFlags) *cobra.Command {
	var s signFlags
	c := &cobra.Command{
		Use: "sign NAME FILE", Short: "Sign a file with a key of the service", Args: exactArgs(2),
		Long: `Sign a file with a key of the service and verify the signature here.

The file holds the to-be-signed octets of a shape that the service knows: a JWS
signing input, a Sig_structure, a TBSCertificate and so on. With --mls-label it
holds the content of an MLS signature; with --digest any octets, of which only the
digest is sent, which needs a key of purpose raw. - is standard input. The signature
is printed in base64; ECDSA is DER.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return remoteSign(cmd.Context(), a, f, args[0], args[1], &s)
		},
	}
	c.Flags().StringVar(&s.mlsLabel, "mls-label", "", `label of an MLS signature, without "MLS 1.0 "`)
	c.Flags().BoolVar(&s.digest, "digest", false, "sign the digest of the file")
	c.Flags().StringVar(&s.out, "out", "", "write the signature, as it is, into this file")
	return c
}

// remoteSign is "privyseal remote sign".
func remoteSign(ctx context.Context, a *app, f *remoteFlags, name, path string, s *signFlags) error {
	message, err := a.readInput(path, signservice.MaxCRL)
	if err != nil {
		return err
	}
	if s.mlsLabel != "" {
		b := new(tlsvec.Builder)
		b.String("MLS 1.0 " + s.mlsLabel)
		b.Vector(message)
		message = b.Bytes()
	}
	return f.with(ctx, a, func(c *client.Client) error {
		key, err := c.Signer(ctx, name)
		if err != nil {
			return err
		}
		if (key.Key().GetPurpose() == "raw") != s.digest {
			return usageError{fmt.Errorf("key %s has purpose %s; --digest is for keys of purpose raw, and those sign nothing else", name, key.Key().GetPurpose())}
		}
		sig, err := crypto.SignMessage(key.WithContext(ctx), nil, message, crypto.Hash(0))
		if err != nil {
			return err
		}
		return a.printSignature(s.out, sig)
	})
}

// readInput reads a file, or standard input for "-".
func (a *app) readInput(path string, most int64) ([]byte, error) {
	if path == "-" {
		return readAll(a.in, "standard input", most)
	}
	return readBounded(path, most)
}

// printSignature writes a signature to a file, or prints it.
func (a *app) printSignature(path string, sig []byte) error {
	if path != "" {
		return durable.WriteFile(path, sig, 0o644)
	}
	text := base64.StdEncoding.EncodeToString(sig)
	return a.print(map[string]string{"signature": text}, func(w io.Writer) { fmt.Fprintln(w, text) })
}
