package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer/translog"
	"github.com/privyseal/privyseal/signer/translog/witness"
)

type witnessFlags struct {
	listen, dir, name string
	vkeys             []string
}

func newAuditWitness(a *app) *cobra.Command {
	f := &witnessFlags{}
	c := &cobra.Command{Use: "witness", Short: "Cosign the checkpoints of other machines' logs (C2SP tlog-witness, plain HTTP)", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return auditWitness(cmd.Context(), a, f) }}
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8089", "address; put a TLS proxy before it")
	c.Flags().StringVar(&f.dir, "dir", "", "folder of its key and state")
	c.Flags().StringVar(&f.name, "name", "", "its name, such as witness.example.com/w1; for a new key")
	c.Flags().StringArrayVar(&f.vkeys, "vkey", nil, "file with the verifier keys of a log; may be repeated")
	c.MarkFlagRequired("dir")
	c.MarkFlagRequired("vkey")
	return c
}

func auditWitness(ctx context.Context, a *app, f *witnessFlags) error {
	key, err := witnessKey(f.dir, f.name)
	if err != nil {
		return err
	}
	logs, err := witnessedLogs(f.vkeys)
	if err != nil {
		return err
	}
	w, err := witness.New(f.dir, key, logs...)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "witness %s\naddress http://%s\n", key.vkey, l.Addr())
	srv := &http.Server{Handler: w, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { srv.Shutdown(context.WithoutCancel(ctx)) })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func witnessedLogs(files []string) (logs []*translog.Keys, err error) {
	for _, path := range files {
		text, err := readBounded(path, maxCredentialFile)
		if err != nil {
			return nil, err
		}
		k, err := translog.ParseKeys(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		logs = append(logs, k)
	}
	return logs, nil
}

// A cosigner is a witness's key.
type cosigner struct {
	*fnote.Signer
	vkey string // type 0x04, as policies name it
}

// newCosigner reads a key of the form PRIVATE+KEY+NAME+ID+BASE64, of Ed25519.
func newCosigner(secret string) (*cosigner, error) {
	s, err := fnote.NewSignerForCosignatureV1(secret)
	if err != nil {
		return nil, err
	}
	parts := strings.SplitN(secret, "+", 5) // the last one may have a + in it
	key, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(key) != 1+ed25519.SeedSize {
		return nil, errors.New("the witness's key is not one of Ed25519")
	}
	pub := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey)
	plain, err := note.NewEd25519VerifierKey(s.Name(), pub)
	if err != nil {
		return nil, err
	}
	vkey, err := fnote.VKeyToCosignatureV1(plain)
	return &cosigner{s, vkey}, err
}

// witnessKey reads the witness's key, or makes one.
func witnessKey(dir, name string) (*cosigner, error) {
	path := filepath.Join(dir, "witness.key")
	text, err := readPrivate(path, maxCredentialFile)
	if errors.Is(err, fs.ErrNotExist) {
		return makeWitnessKey(path, name)
	}
	if err != nil {
		return nil, err
	}
	return newCosigner(strings.TrimSpace(string(text)))
}

func makeWitnessKey(path, name string) (*cosigner, error) {
	if name == "" {
		return nil, usageError{errors.New("a new witness needs a --name")}
	}
	secret, _, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return nil, err
	}
	return newCosigner(secret)
}
