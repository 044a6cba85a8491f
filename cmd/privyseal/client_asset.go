package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/policy"
)

// maxAttachment bounds a file that is attached, in octets.
const maxAttachment = 100 << 20

// A shownAsset is what a message says of its asset. Nothing of it was verified.
type shownAsset struct {
	Type        string `json:"content_type"`
	Filename    string `json:"filename,omitempty"`
	Description string `json:"description,omitempty"`
	Size        uint64 `json:"size,omitempty"`
}

func newClientAttach(a *app, f *clientFlags) *cobra.Command {
	var kind, description, name string
	c := &cobra.Command{Use: "attach ROOM FILE", Short: "Send a file: encrypted, and kept at the provider", Args: exactArgs(2),
		Long: "Encrypts the file with a key of its own, uploads it to the client's provider, and\n" +
			"sends the message that says where it is and how to open it. The provider learns\n" +
			"its size and nothing else.",
		RunE: func(cmd *cobra.Command, args []string) error {
			octets, err := readBounded(args[1], maxAttachment)
			if err != nil {
				return err
			}
			it := client.Attachment{Octets: octets, ContentType: kind, Filename: name, Description: description}
			if name == "" {
				it.Filename = filepath.Base(args[1])
			}
			if kind == "" {
				it.ContentType = mediaTypeOf(it.Filename)
			}
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				s, err := r.Attach(ctx, it)
				if err != nil {
					return err
				}
				return a.printSent(r, s)
			})
		}}
	c.Flags().StringVar(&kind, "type", "", "media `type` (default: by the name's ending)")
	c.Flags().StringVar(&description, "description", "", "what is in it, for who cannot see it")
	c.Flags().StringVar(&name, "name", "", "`name` to send (default: that of the file)")
	return c
}

func mediaTypeOf(name string) string {
	if t := mime.TypeByExtension(filepath.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// ways are the ways to fetch an asset, by the flag --by.
var ways = map[string]policy.DownloadPrivacyType{"proxy": policy.DownloadHubProxy, "ohttp": policy.DownloadOHTTP}

// wayOf reads --by; nil is what the room prefers.
func wayOf(by string) (*policy.DownloadPrivacyType, error) {
	if by == "" {
		return nil, nil
	}
	way, ok := ways[by]
	if !ok {
		return nil, usageError{fmt.Errorf("--by is proxy or ohttp, not %q", by)}
	}
	return &way, nil
}

func newClientFetch(a *app, f *clientFlags) *cobra.Command {
	var by, out string
	var opts client.FetchOptions
	c := &cobra.Command{Use: "fetch ROOM MESSAGE --out FILE", Short: "Fetch, check and decrypt the file of a message", Args: exactArgs(2),
		Long: "The file is fetched as the room's policy prefers, or by proxy: the client's\n" +
			"provider fetches it, so that its host does not see the client. By ohttp (Oblivious\n" +
			"HTTP) the provider passes on a sealed request to the room's hub: the hub does not\n" +
			"learn who fetches, nor the provider what.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if opts.By, err = wayOf(by); err != nil {
				return err
			}
			if err := checkNew(out); err != nil {
				return err
			}
			return a.withMessage(cmd.Context(), f, args[0], args[1], func(ctx context.Context, r *client.Room, id content.MessageID) error {
				got, err := r.Fetch(ctx, id, opts)
				if err != nil {
					return err
				}
				if out == "-" {
					_, err := a.out.Write(got.Octets)
					return err
				}
				return a.saveAsset(out, id, got)
			})
		}}
	c.Flags().StringVar(&out, "out", "", "write to this `file`, which must not be there, or to - for standard output (required)")
	c.Flags().StringVar(&by, "by", "", "`way`: proxy or ohttp (default: what the room prefers)")
	c.Flags().IntVar(&opts.Part, "part", 0, "`index` of the part, if a message has several (default: the first)")
	return c
}

// checkNew refuses to write over a file: what a stranger sent takes no name that
// is in use.
func checkNew(path string) error {
	if path == "" {
		return usageError{errors.New("--out is required: a new file, or - for standard output")}
	}
	if path == "-" {
		return nil
	}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return fmt.Errorf("%s is there already; choose another name for --out", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// A shownFetched is a file that was fetched.
type shownFetched struct {
	Message string `json:"message"`
	File    string `json:"file"`
	Type    string `json:"content_type"`
	Size    int    `json:"size"`
}

func (s *shownFetched) writeText(w io.Writer) {
	fmt.Fprintf(w, "fetched     %s, %d octets, of %.16s\n", s.File, s.Size, s.Message)
}

func (a *app) saveAsset(path string, id content.MessageID, got *client.Attachment) error {
	s, err := writeAsset(path, id, got)
	if err != nil {
		return err
	}
	return a.print(s, s.writeText)
}

func writeAsset(path string, id content.MessageID, got *client.Attachment) (*shownFetched, error) {
	if err := durable.WriteFile(path, got.Octets, 0o600); err != nil {
		return nil, err
	}
	return &shownFetched{hex.EncodeToString(id[:]), path, got.ContentType, len(got.Octets)}, nil
}

// keepAsset writes an asset into a folder, under a name that begins with the
// message's ID and is otherwise what is harmless of the sender's.
func keepAsset(dir string, id content.MessageID, got *client.Attachment) (*shownFetched, error) {
	path := filepath.Join(dir, fmt.Sprintf("%.16s-%s", hex.EncodeToString(id[:]), harmlessName(got.Filename)))
	if err := checkNew(path); err != nil {
		return nil, err
	}
	return writeAsset(path, id, got)
}

// maxHarmlessName bounds a name that a stranger gave.
const maxHarmlessName = 64

// harmlessName keeps letters, digits, '.', '-' and '_' of ASCII.
func harmlessName(name string) string {
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", r) {
			return r
		}
		return '_'
	}, name)
	if len(name) > maxHarmlessName {
		name = name[len(name)-maxHarmlessName:]
	}
	if strings.Trim(name, "._") == "" {
		return "asset"
	}
	return name
}
