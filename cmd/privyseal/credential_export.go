package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
)

// An export is a text: one record a line in JSON, then one line with a JWS in
// compact form, {"signature":"..."}, over the number of the records and the
// SHA-256 of their lines.

// exportType is the typ of the JWS.
const exportType = "credential-export+jwt"

// An exportClaims is the payload of the JWS.
type exportClaims struct {
	Issuer  string `json:"iss"`
	At      int64  `json:"iat"`
	Records int    `json:"records"`
	SHA256  string `json:"sha256"` // of the lines, each with its newline
	Filter  string `json:"filter"` // what was asked for; "" for everything
}

type exportLine struct {
	Signature string `json:"signature"`
}

func newCredentialExport(a *app) *cobra.Command {
	var o listOptions
	var verify, key, out string
	c := o.flags(&cobra.Command{
		Use: "export --out FILE | --verify FILE --issuer-key FILE", Short: "Write a signed list of what was issued, or verify one", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verify != "" {
				return exportVerify(a, verify, key)
			}
			return exportWrite(cmd.Context(), a, &o, out)
		},
	})
	c.Flags().StringVar(&out, "out", "", "write to this `file`")
	c.Flags().StringVar(&verify, "verify", "", "verify this `file`")
	c.Flags().StringVar(&key, "issuer-key", "", "with --verify: `file` with the issuer's public key, JWK or PEM")
	return c
}

func (o *listOptions) filter() (f registry.Filter, err error) {
	f = registry.Filter{Client: o.client, User: o.user, Holder: o.holder, Unfinished: o.unfinished}
	if o.kind != "" {
		if f.Type, err = registry.ParseType(o.kind); err != nil {
			return f, usageError{err}
		}
	}
	switch s := registry.State(o.state); s {
	case "", registry.Valid, registry.Suspended, registry.Revoked:
		f.State = s
	default:
		return f, usageError{fmt.Errorf("--state is valid, suspended or revoked, not %q", o.state)}
	}
	if o.attestation != "" {
		if f.MinAttestation, err = credentials.ParseAttestationLevel(o.attestation); err != nil {
			return f, usageError{err}
		}
	}
	return f, nil
}

// exportWrite writes an export, signed by the key of tokens.
func exportWrite(ctx context.Context, a *app, o *listOptions, out string) (err error) {
	f, err := o.filter()
	if err != nil {
		return err
	}
	if out == "" {
		return usageError{errors.New("--out is required")}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		s := w.config.issuer()
		if s.TokenKey == "" {
			return configErrorf("issuer.token_key", "is required to sign an export")
		}
		key, err := w.deviceKey(ctx, s.TokenKey, signer.PurposeCredentialIssuer)
		if err != nil {
			return err
		}
		return w.withBook(ctx, func(b *registry.Store) (err error) {
			if err := checkNew(out); err != nil {
				return err
			}
			file, err := durable.Create(filepath.Dir(out), 0o600) // a part of an export is none
			if err != nil {
				return err
			}
			defer file.Abort()
			e := &exporter{w: bufio.NewWriter(file), hash: sha256.New()}
			if err := e.records(ctx, b, f); err != nil {
				return err
			}
			if err := e.sign(ctx, key, s.URL, o.describe()); err != nil {
				return err
			}
			if err := errors.Join(e.w.Flush(), file.CommitNew(out)); err != nil {
				return err
			}
			return a.print(map[string]any{"records": e.n, "file": out}, func(w io.Writer) {
				fmt.Fprintf(w, "%d record(s) in %s\n", e.n, out)
			})
		})
	})
}

// describe says what was asked for.
func (o *listOptions) describe() string {
	var parts []string
	for _, p := range []struct{ name, value string }{
		{"type", o.kind}, {"state", o.state}, {"client", o.client}, {"user", o.user}, {"holder", o.holder}, {"attestation", o.attestation},
	} {
		if p.value != "" {
			parts = append(parts, p.name+"="+p.value)
		}
	}
	if o.unfinished {
		parts = append(parts, "unfinished")
	}
	return strings.Join(parts, " ")
}

type exporter struct {
	w    *bufio.Writer
	hash hash.Hash
	n    int
}

func (e *exporter) records(ctx context.Context, b *registry.Store, f registry.Filter) error {
	enc := json.NewEncoder(io.MultiWriter(e.w, e.hash)) // ends each with a newline
	page := registry.Page{}
	for {
		records, next, err := b.List(ctx, f, page)
		if err != nil {
			return err
		}
		for _, r := range records {
			if err := enc.Encode(r); err != nil {
				return err
			}
			e.n++
		}
		if page.After = next; next == "" {
			return nil
		}
	}
}

func (e *exporter) sign(ctx context.Context, key *deviceKey, iss, filter string) error {
	scheme, err := credentials.SchemeOf(key.Public())
	if err != nil {
		return err
	}
	payload, err := json.Marshal(exportClaims{iss, time.Now().Unix(), e.n, hex.EncodeToString(e.hash.Sum(nil)), filter})
	if err != nil {
		return err
	}
	header := jose.NewObject().Add("alg", scheme.JOSE).Add("kid", key.kid).Add("typ", exportType)
	token, err := jose.Sign(ctx, scheme, key, jose.AppendJSON(nil, header), payload)
	if err != nil {
		return err
	}
	return json.NewEncoder(e.w).Encode(exportLine{token})
}

// maxExportLine bounds a line of an export.
const maxExportLine = 64 << 10

func exportVerify(a *app, name, key string) error {
	if key == "" {
		return usageError{errors.New("--issuer-key is required: a file with the issuer's public key")}
	}
	pub, err := readPublicKey(key)
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	claims, err := verifyExport(f, pub)
	if err != nil {
		return refusedError{fmt.Errorf("%s: %w", name, err)}
	}
	return a.print(claims, func(w io.Writer) {
		fmt.Fprintf(w, "verified: %d record(s) of %s, exported %s\n", claims.Records, claims.Issuer, time.Unix(claims.At, 0).UTC().Format(time.RFC3339))
	})
}

// verifyExport reads an export and returns what its signature says, if that is
// so and the signature is by pub.
func verifyExport(r io.Reader, pub crypto.PublicKey) (*exportClaims, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxExportLine)
	sum, n, last := sha256.New(), -1, []byte(nil)
	for ; lines.Scan(); n++ {
		if last != nil {
			sum.Write(append(last, '\n'))
		}
		last = append([]byte(nil), lines.Bytes()...)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	var line exportLine
	if last == nil || json.Unmarshal(last, &line) != nil || line.Signature == "" {
		return nil, errors.New("the last line is no signature; the export is cut off")
	}
	claims, err := openExport(line.Signature, pub)
	if err != nil {
		return nil, err
	}
	if claims.Records != n || claims.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
		return nil, errors.New("the records are not those that were signed")
	}
	return claims, nil
}

// openExport verifies the JWS.
func openExport(token string, pub crypto.PublicKey) (*exportClaims, error) {
	scheme, err := credentials.SchemeOf(pub)
	if err != nil {
		return nil, err
	}
	j, err := jose.ParseCompact(token, 2)
	if err != nil {
		return nil, err
	}
	if err := j.Header.CheckCritical(); err != nil {
		return nil, err
	}
	if j.Header.Typ != exportType || j.Header.Alg != scheme.JOSE {
		return nil, fmt.Errorf("the signature has typ %.40q and alg %.40q, want %q and %q", j.Header.Typ, j.Header.Alg, exportType, scheme.JOSE)
	}
	if !scheme.VerifyRaw(pub, []byte(j.SigningInput), j.Signature) {
		return nil, errors.New("the signature is not by that key")
	}
	claims := new(exportClaims)
	return claims, json.Unmarshal([]byte(j.Payload), claims)
}
