package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// Files of a client's credential: as the issuer gave it, and as a token is put
// into leaves, with a key binding.
const (
	clientCredentialFile = "credential.pem"
	clientTokenFile      = "credential.token"
	clientBindingFile    = "credential.mls"
)

// credentialKind tells from its text what a credential is.
func credentialKind(text []byte) (string, error) {
	s := strings.TrimSpace(string(text))
	switch {
	case strings.HasPrefix(s, "-----BEGIN"):
		return typeX509, nil
	case strings.HasPrefix(s, "eyJ"):
		return typeSDJWT, nil
	}
	if octets, err := readSDCWT(text); err == nil {
		if _, err := sdcwt.ParseCredential(octets); err == nil {
			return typeSDCWT, nil
		}
	}
	return "", credentials.Errorf(credentials.CodeMalformed, "credential", "it is neither a chain of certificates in PEM, an SD-JWT nor an SD-CWT in base64url, as credential issue writes them")
}

func credentialFile(kind string) string {
	if kind == "" || kind == typeX509 {
		return clientCredentialFile
	}
	return clientTokenFile
}

// keepCredential puts a credential, of which the kind is known, into the
// client's folder.
func keepCredential(dir, kind string, text []byte) error {
	if kind == typeX509 {
		if _, err := parseCertificates(text); err != nil {
			return err
		}
	}
	return durable.WriteFile(filepath.Join(dir, credentialFile(kind)), text, 0o600)
}

// clientCredential reads the credential of a client for its key, which signs the
// key binding of a token.
func clientCredential(ctx context.Context, dir string, r *clientRecord, key crypto.Signer) (none mls.Credential, _ error) {
	path := filepath.Join(dir, credentialFile(r.Credential))
	text, err := readBounded(path, maxCredentialFile)
	if err != nil {
		return none, err
	}
	switch r.Credential {
	case "", typeX509:
		chain, err := parseCertificates(text)
		if err != nil {
			return none, fmt.Errorf("%s: %w", path, err)
		}
		return x509Credential(chain, r, key)
	case typeSDJWT, typeSDCWT:
		return boundToken(ctx, dir, r, text, key, time.Now())
	}
	return none, fmt.Errorf("%s: credential is %q; this release knows %s, %s and %s", clientRecordFile, r.Credential, typeX509, typeSDJWT, typeSDCWT)
}

func x509Credential(chain []*x509.Certificate, r *clientRecord, key crypto.Signer) (none mls.Credential, _ error) {
	if !credentials.SamePublicKey(chain[0].PublicKey, key.Public()) {
		return none, credentials.Errorf(credentials.CodeCnfLeafMismatch, "certificate", "it is for another key than %s", r.Key)
	}
	return chainCredential(chain), nil
}

// chainCredential is a chain of certificates as MLS has it.
func chainCredential(chain []*x509.Certificate) mls.Credential {
	der := make([][]byte, len(chain))
	for i, c := range chain {
		der[i] = c.Raw
	}
	return mls.X509Credential(der)
}

// A keyBinding is a token with a key binding, as leaves have it. It is kept: a
// new one is another credential, which the client commits in every room.
type keyBinding struct {
	Source []byte    `json:"source"` // SHA-256 of what it was made of
	Body   []byte    `json:"body"`
	Made   time.Time `json:"made"`
	Until  time.Time `json:"until"`
}

// due reports whether a third or less of its time is left, or of that of the
// credential.
func (b *keyBinding) due(now time.Time) bool {
	return now.After(b.Until.Add(-b.Until.Sub(b.Made) / 3))
}

// boundToken returns the credential of a token with the key binding that is
// kept, or a new one.
func boundToken(ctx context.Context, dir string, r *clientRecord, text []byte, key crypto.Signer, now time.Time) (none mls.Credential, _ error) {
	source, err := bindingSource(r, text, key)
	if err != nil {
		return none, err
	}
	path := filepath.Join(dir, clientBindingFile)
	b, err := loadBinding(path)
	if err != nil {
		return none, err
	}
	t, err := openToken(r, text)
	if err != nil {
		return none, err
	}
	if !t.until.IsZero() && !now.Before(t.until) {
		return none, credentials.Errorf(credentials.CodeExpired, "token", "it ended at %s; get another from its issuer and register again", t.until.UTC().Format(time.RFC3339))
	}
	if b == nil || !slices.Equal(b.Source, source) || b.due(now) && b.Until.Before(t.until) {
		if b, err = t.bind(ctx, r, key, now); err != nil {
			return none, err
		}
		b.Source = source
		encoded, err := json.Marshal(b)
		if err != nil {
			return none, err
		}
		if err := durable.WriteFile(path, encoded, 0o600); err != nil {
			return none, err
		}
	}
	return mls.Credential{Type: t.kind, Body: b.Body}, nil
}

func bindingSource(r *clientRecord, text []byte, key crypto.Signer) ([]byte, error) {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal([]any{r.Credential, r.Audience, r.Disclose, string(text), public})
	sum := sha256.Sum256(b)
	return sum[:], err
}

func loadBinding(path string) (*keyBinding, error) {
	b, err := readBounded(path, maxCredentialFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	k := new(keyBinding)
	if err == nil {
		err = json.Unmarshal(b, k)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it, and it is made anew", path, err)
	}
	return k, nil
}

// An openedToken is a token of either kind.
type openedToken struct {
	kind   mls.CredentialType
	client string    // that it names
	until  time.Time // zero if it does not end
	body   func(context.Context, mlscred.Binding) ([]byte, error)
}

// openToken opens a token. What it discloses to the members of rooms is whom it
// names, and what the record says beside that.
func openToken(r *clientRecord, text []byte) (*openedToken, error) {
	paths, err := parsePaths(r.Disclose)
	if err != nil {
		return nil, err
	}
	if r.Credential == typeSDCWT {
		return openSDCWT(text, paths)
	}
	return openSDJWT(text, paths)
}

// namingClaims are those in which a token of ours has its names.
var namingClaims = []string{claimClient, claimUser}

func openSDJWT(text []byte, paths []sdjwt.Path) (*openedToken, error) {
	s := strings.TrimSpace(string(text))
	if !strings.Contains(s, "~") {
		s += "~" // an ordinary JWT with a cnf
	}
	c, err := sdjwt.OpenCredential(s, sdjwt.Limits{})
	if err != nil {
		return nil, err
	}
	for _, p := range c.Disclosable() {
		if len(p) == 1 && slices.ContainsFunc(namingClaims, func(name string) bool { return samePath(p, []any{name}) }) &&
			!slices.ContainsFunc(paths, func(q sdjwt.Path) bool { return samePath(p, q) }) {
			paths = append(paths, p)
		}
	}
	client, _ := c.Claims().Text(claimClient)
	t := &openedToken{kind: mls.CredentialSDJWT, client: client, body: func(ctx context.Context, b mlscred.Binding) ([]byte, error) {
		return mlscred.SDJWT(ctx, c, b, true, paths...)
	}}
	if raw, ok := c.Claims().Get("exp"); ok {
		var seconds float64
		if json.Unmarshal(raw, &seconds) == nil && seconds < 1<<40 {
			t.until = time.Unix(int64(seconds), 0)
		}
	}
	return t, nil
}

func openSDCWT(text []byte, paths []sdjwt.Path) (*openedToken, error) {
	octets, err := readSDCWT(text)
	if err != nil {
		return nil, err
	}
	c, err := sdcwt.ParseCredential(octets)
	if err != nil {
		return nil, err
	}
	client, _ := c.Claims().Text(sdcwt.ClaimSubject)
	disclosed := chosen(false, append(slices.Clone(paths), sdjwt.Path{claimUser}, sdjwt.Path{int64(sdcwt.ClaimSubject)}))
	return &openedToken{kind: mls.CredentialSDCWT, client: client, until: c.Claims().Date(sdcwt.ClaimExpires), body: func(ctx context.Context, b mlscred.Binding) ([]byte, error) {
		return mlscred.SDCWT(ctx, c, b, disclosed)
	}}, nil
}

// bind has the key sign a key binding for the client's own provider, which every
// hub takes, or for another audience.
func (t *openedToken) bind(ctx context.Context, r *clientRecord, key crypto.Signer, now time.Time) (*keyBinding, error) {
	audience := r.Audience
	if audience == "" {
		client, err := mimi.ParseURI(t.client)
		if err != nil || client.Kind() != mimi.KindClient {
			return nil, credentials.Errorf(credentials.CodeIdentityMissing, "token", "its subject %q is no client of the form mimi://host/d/...; if its issuer names the client elsewhere, say for whom the key binding is with --audience mimi://HOST", t.client)
		}
		audience = client.Provider().String()
	}
	body, err := t.body(ctx, mlscred.Binding{Key: key, Audience: audience, Now: func() time.Time { return now }})
	if err != nil {
		return nil, err
	}
	b := &keyBinding{Body: body, Made: now, Until: now.Add(mlscred.DefaultLifetime)}
	if !t.until.IsZero() && t.until.Before(b.Until) {
		b.Until = t.until
	}
	return b, nil
}
