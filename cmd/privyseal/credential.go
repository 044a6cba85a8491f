package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer"
)

// maxCredentialFile bounds every file that is read as, or beside, a credential.
const maxCredentialFile = 1 << 20

// The types of credential that the subcommands take.
const (
	typeX509  = "x509"
	typeSDJWT = "sd-jwt"
	typeSDCWT = "sd-cwt"
)

// defaultLifetime is that of a credential whose revocation cannot be learned.
const defaultLifetime = 24 * time.Hour

func newCredential(a *app) *cobra.Command {
	return group("credential", "Issue, present, verify and revoke credentials",
		newCredentialRequest(a), newCredentialIssue(a), newCredentialInvite(a), newCredentialEnrol(a), newCredentialPresent(a), newCredentialBind(a), newCredentialVerify(a),
		newCredentialRevoke(a), newCredentialSuspend(a), newCredentialResume(a), newCredentialStatus(a), newCredentialList(a), newCredentialExport(a), newCredentialEvidence(a))
}

// byType picks the function for --type.
func byType[F any](name string, x509, sdjwt, sdcwt F) (f F, err error) {
	switch name {
	case typeX509:
		return x509, nil
	case typeSDJWT:
		return sdjwt, nil
	case typeSDCWT:
		return sdcwt, nil
	}
	return f, usageError{fmt.Errorf("--type is %s, %s or %s, not %q", typeX509, typeSDJWT, typeSDCWT, name)}
}

// holderSigner opens a key that may hold a credential: one made for that, or a
// leaf key of MLS.
func (w *wiring) holderSigner(ctx context.Context, id string) (*signer.Signer, error) {
	key, err := w.store.Key(ctx, signer.KeyID(id))
	if err != nil {
		return nil, err
	}
	switch key.Purpose {
	case signer.PurposeCredentialConfirmation, signer.PurposeMLSLeaf:
		return w.ring.Signer(ctx, key.ID, key.Purpose)
	}
	return nil, fmt.Errorf("%w: key %s has purpose %s; a holder's key has %s or %s", signer.ErrUsage,
		key.ID, key.Purpose, signer.PurposeCredentialConfirmation, signer.PurposeMLSLeaf)
}

// namedSigner opens a key to be certified for names: a holder's, or one of a hub.
func (w *wiring) namedSigner(ctx context.Context, id string, names certs.Names) (*signer.Signer, error) {
	if !names.IsHub() {
		return w.holderSigner(ctx, id)
	}
	key, err := w.store.Key(ctx, signer.KeyID(id))
	if err != nil {
		return nil, err
	}
	if key.Purpose != signer.PurposeHubSender && key.Purpose != signer.PurposeFrankSign {
		return nil, fmt.Errorf("%w: key %s has purpose %s; a hub's key has %s or %s", signer.ErrUsage,
			key.ID, key.Purpose, signer.PurposeHubSender, signer.PurposeFrankSign)
	}
	return w.ring.Signer(ctx, key.ID, key.Purpose)
}

type requestOptions struct{ holder, client, user, provider, nonce, out string }

// names are those of a client and its user, or of a provider's hub.
func (o *requestOptions) names() (certs.Names, error) {
	if o.provider == "" {
		return certs.DeviceNames(o.client, o.user)
	}
	if o.client != "" || o.user != "" {
		return certs.Names{}, usageError{errors.New("give either --provider or --client and --user")}
	}
	return certs.ProviderNames(o.provider)
}

func newCredentialRequest(a *app) *cobra.Command {
	var o requestOptions
	c := &cobra.Command{
		Use: "request --holder KEY --client URI --user URI", Short: "Prove to an issuer that we hold a key", Args: noArgs,
		Long: "Makes a PKCS#10 request for the names, signed by the holder's key over the\n" +
			"issuer's nonce. Issuers of every type take it.",
		RunE: func(cmd *cobra.Command, _ []string) error { return credentialRequest(cmd.Context(), a, &o) },
	}
	f := c.Flags()
	f.StringVar(&o.holder, "holder", "", "`key` to be certified (required)")
	f.StringVar(&o.client, "client", "", "client `URI`, mimi://host/d/... (required)")
	f.StringVar(&o.user, "user", "", "user `URI`, mimi://host/u/... (required)")
	f.StringVar(&o.provider, "provider", "", "provider `URI`, mimi://host, for a key of its hub, instead of client and user")
	f.StringVar(&o.nonce, "nonce", "", "the issuer's nonce in hexadecimal")
	f.StringVar(&o.out, "out", "", "write to this `file` instead of standard output")
	return c
}

func credentialRequest(ctx context.Context, a *app, o *requestOptions) error {
	names, err := o.names()
	if err != nil {
		return err
	}
	nonce, err := hex.DecodeString(o.nonce)
	if err != nil {
		return usageError{fmt.Errorf("--nonce: %w", err)}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		key, err := w.namedSigner(ctx, o.holder, names)
		if err != nil {
			return err
		}
		der, err := certs.CreateRequest(rand.Reader, key, names, nonce)
		if err != nil {
			return err
		}
		text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
		return a.deliver(o.out, struct {
			Request string `json:"request"`
		}{text}, text)
	})
}

// deliver writes a credential to a file or to standard output. What goes to a
// file can be a bearer of personal data, so that only its owner may read it.
func (a *app) deliver(out string, v any, text string) error {
	if out == "" {
		return a.print(v, func(w io.Writer) { io.WriteString(w, strings.TrimSuffix(text, "\n")+"\n") })
	}
	if err := durable.WriteFile(out, []byte(strings.TrimSuffix(text, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	a.note("written to %s", out)
	return nil
}

type issueOptions struct {
	requestOptions
	kind, issuerKey, request string
	lifetime                 time.Duration
	iss, vct, claims         string
	redact                   []string
	attest                   bool
}

func newCredentialIssue(a *app) *cobra.Command {
	var o issueOptions
	c := &cobra.Command{
		Use: "issue --type x509|sd-jwt|sd-cwt --issuer-key KEY --client URI --user URI (--holder KEY | --request FILE)", Short: "Issue a credential to a device", Args: noArgs,
		Long: "Issues to a key of this key store (--holder), whose possession is proven over a\n" +
			"fresh nonce, or to whoever made a PKCS#10 request (--request, with the --nonce\n" +
			"that was given out). The names are those of the account that you have\n" +
			"authenticated; a request for other names is refused.",
		RunE: func(cmd *cobra.Command, _ []string) error { return credentialIssue(cmd.Context(), a, &o) },
	}
	f := c.Flags()
	f.StringVar(&o.kind, "type", "", "x509, sd-jwt or sd-cwt (required)")
	f.StringVar(&o.issuerKey, "issuer-key", "", "`key` of purpose x509-ca or credential-issuer (tokens: default issuer.token_key of the configuration)")
	f.StringVar(&o.client, "client", "", "client `URI` of the account (required)")
	f.StringVar(&o.user, "user", "", "user `URI` of the account (required)")
	f.StringVar(&o.provider, "provider", "", "certificates: provider `URI`, mimi://host, for a key of its hub, instead of client and user")
	f.StringVar(&o.holder, "holder", "", "`key` of the holder, in this key store")
	f.StringVar(&o.request, "request", "", "PKCS#10 request in PEM: a `file`, or - for standard input")
	f.StringVar(&o.nonce, "nonce", "", "with --request: the nonce that was given out, in hexadecimal")
	f.DurationVar(&o.lifetime, "lifetime", defaultLifetime, "lifetime; more than 24h needs a way to learn of revocation")
	f.BoolVar(&o.attest, "attest", false, "with --holder: ask the key's device for evidence, and write the level that it supports into the credential")
	f.StringVar(&o.iss, "iss", "", "tokens: the issuer's https `URL` (default: issuer.url of the configuration)")
	f.StringVar(&o.vct, "vct", "", "tokens: the credential's type (default ISS/vct/mimi-device/1)")
	f.StringVar(&o.claims, "claims", "", "tokens: `file` with further claims, a JSON object")
	f.StringArrayVar(&o.redact, "redact", nil, "tokens: JSON `path` of a claim to make selectively disclosable, such as [\"email\"]")
	f.StringVar(&o.out, "out", "", "write to this `file` instead of standard output")
	return c
}

func credentialIssue(ctx context.Context, a *app, o *issueOptions) error {
	issue, err := byType(o.kind, issueX509, issueSDJWT, issueSDCWT)
	if err != nil {
		return err
	}
	if (o.holder == "") == (o.request == "") {
		return usageError{errors.New("give either --holder or --request")}
	}
	names, err := o.names()
	if err != nil {
		return err
	}
	if names.IsHub() && (o.kind != typeX509 || o.attest) {
		return usageError{errors.New("a hub has a certificate: --provider is for --type x509, without --attest")}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		p, err := w.provePossession(ctx, a.in, o, names)
		if err != nil {
			return err
		}
		if o.attest {
			if err := w.attest(ctx, o, &p); err != nil {
				return err
			}
		}
		made, err := issue(ctx, w, o, p)
		if err != nil {
			return err
		}
		return a.deliver(o.out, made, made.Credential)
	})
}

// A possession is a verified request for authorised names.
type possession struct {
	request *certs.Request
	names   certs.Names
	nonce   []byte

	level    credentials.AttestationLevel
	evidence []byte
	along    registry.Along // changes in the commit that writes the credential down
}

// provePossession has the holder's key sign a request over a fresh nonce, or
// reads the request that somebody else made.
func (w *wiring) provePossession(ctx context.Context, stdin io.Reader, o *issueOptions, names certs.Names) (p possession, err error) {
	p.names = names
	var der []byte
	if o.holder != "" {
		key, err := w.namedSigner(ctx, o.holder, names)
		if err != nil {
			return p, err
		}
		p.nonce = certs.NewNonce()
		der, err = certs.CreateRequest(rand.Reader, key, names, p.nonce)
		if err != nil {
			return p, err
		}
	} else {
		if p.nonce, err = hex.DecodeString(o.nonce); err != nil {
			return p, usageError{fmt.Errorf("--nonce: %w", err)}
		}
		if der, err = readPEM(stdin, o.request, "CERTIFICATE REQUEST"); err != nil {
			return p, err
		}
	}
	p.request, err = certs.ParseRequest(der)
	return p, err
}

// An issued credential, as it is printed.
type issued struct {
	ID         string    `json:"id"`
	Type       string    `json:"type"`
	Credential string    `json:"credential"` // PEM chain, or compact SD-JWT
	Client     string    `json:"client"`
	User       string    `json:"user"`
	Serial     string    `json:"serial,omitempty"`
	Issuer     string    `json:"issuer,omitempty"`
	IssuerKey  string    `json:"issuer_key,omitempty"` // JWK thumbprint
	NotAfter   time.Time `json:"not_after"`
	Level      string    `json:"attestation"`
	chain      [][]byte  // of a certificate, without the root
}

func issueX509(ctx context.Context, w *wiring, o *issueOptions, p possession) (made *issued, err error) {
	err = w.withBook(ctx, func(b *registry.Store) error {
		made, err = w.certify(ctx, b, o, p)
		return err
	})
	return made, err
}

// certify issues a certificate and writes it into the book.
func (w *wiring) certify(ctx context.Context, b *registry.Store, o *issueOptions, p possession) (*issued, error) {
	issuer, chain, err := w.openIssuer(ctx, signer.KeyID(o.issuerKey), b)
	if err != nil {
		return nil, err
	}
	made, err := (&openedCA{issuer: issuer, chain: chain}).certify(ctx, o, p)
	if err == nil {
		made.Credential = enrol.ChainText(made.chain)
	}
	return made, err
}

func rawChain(chain []*x509.Certificate) (all [][]byte) {
	for _, c := range chain {
		all = append(all, c.Raw)
	}
	return all
}

// certify issues a certificate. It writes no text of it.
func (ca *openedCA) certify(ctx context.Context, o *issueOptions, p possession) (*issued, error) {
	note := registry.Attachment{ID: registry.NewCertificateID(time.Now()), Attestation: p.level, Evidence: p.evidence, Along: p.along}
	order := certs.Order{Request: p.request, Names: p.names, Nonce: p.nonce, Lifetime: o.lifetime, Attachment: note}
	if ext, ok := p.level.Extension(); ok {
		order.Extensions = append(order.Extensions, ext)
	}
	leaf, err := ca.issuer.Certify(ctx, order)
	if err != nil {
		return nil, err
	}
	// The last of the chain is the root, which verifiers have.
	sent := append([]*x509.Certificate{leaf}, ca.chain[:len(ca.chain)-1]...)
	return &issued{
		ID: string(note.ID), Type: typeX509, Client: p.names.Client.String(), User: p.names.User.String(),
		Serial: fmt.Sprintf("%x", leaf.SerialNumber), NotAfter: leaf.NotAfter, Level: p.level.String(), chain: rawChain(sent),
	}, nil
}

type presentOptions struct {
	kind, credential, key, audience, nonce, out string
	disclose                                    []string
	all                                         bool
}

func newCredentialPresent(a *app) *cobra.Command {
	var o presentOptions
	c := &cobra.Command{
		Use: "present --type x509|sd-jwt|sd-cwt --credential FILE --key KEY --nonce NONCE", Short: "Show a credential to one verifier", Args: noArgs,
		Long: "An SD-JWT or SD-CWT is presented with the chosen disclosures and a Key Binding Token\n" +
			"for the verifier's audience and nonce; an SD-CWT is written in base64url. A certificate is presented with a PKCS#10 request\n" +
			"over the verifier's nonce, in hexadecimal, which proves possession of its key.",
		RunE: func(cmd *cobra.Command, _ []string) error { return credentialPresent(cmd.Context(), a, &o) },
	}
	f := c.Flags()
	f.StringVar(&o.kind, "type", "", "x509, sd-jwt or sd-cwt (required)")
	f.StringVar(&o.credential, "credential", "", "the credential: a `file`, or - for standard input (required)")
	f.StringVar(&o.key, "key", "", "the holder's `key` (required)")
	f.StringVar(&o.nonce, "nonce", "", "the verifier's nonce (required)")
	f.StringVar(&o.audience, "audience", "", "tokens: the verifier (required)")
	f.StringArrayVar(&o.disclose, "disclose", nil, "tokens: JSON `path` of a claim to show, such as [\"email\"]")
	f.BoolVar(&o.all, "disclose-all", false, "tokens: show every claim")
	f.StringVar(&o.out, "out", "", "write to this `file` instead of standard output")
	return c
}

func credentialPresent(ctx context.Context, a *app, o *presentOptions) error {
	present, err := byType(o.kind, presentX509, presentSDJWT, presentSDCWT)
	if err != nil {
		return err
	}
	text, err := readInput(a.in, o.credential)
	if err != nil {
		return err
	}
	return a.withWiring(ctx, func(w *wiring) error {
		key, err := w.holderSigner(ctx, o.key)
		if err != nil {
			return err
		}
		shown, err := present(ctx, o, text, key)
		if err != nil {
			return err
		}
		return a.deliver(o.out, struct {
			Presentation string `json:"presentation"`
		}{shown}, shown)
	})
}

func presentX509(_ context.Context, o *presentOptions, text []byte, key *signer.Signer) (string, error) {
	chain, err := parseCertificates(text)
	if err != nil {
		return "", err
	}
	nonce, err := hex.DecodeString(o.nonce)
	if err != nil || len(nonce) == 0 {
		return "", usageError{errors.New("--nonce is the verifier's nonce in hexadecimal")}
	}
	if !credentials.SamePublicKey(chain[0].PublicKey, key.Public()) {
		return "", credentials.Errorf(credentials.CodeCnfLeafMismatch, "certificate", "it is for another key than %s", o.key)
	}
	names, err := namesOf(chain[0])
	if err != nil {
		return "", err
	}
	proof, err := certs.CreateRequest(rand.Reader, key, names, nonce)
	if err != nil {
		return "", err
	}
	return strings.Join(pemChain(chain), "") + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: proof})), nil
}

// namesOf returns the names of a device certificate, in either order.
func namesOf(c *x509.Certificate) (certs.Names, error) {
	var client, user string
	for _, u := range c.URIs {
		if strings.HasPrefix(u.Path, "/d/") {
			client = u.String()
		} else {
			user = u.String()
		}
	}
	return certs.DeviceNames(client, user)
}

// readInput reads a file, or standard input for "-", of bounded size.
func readInput(stdin io.Reader, name string) ([]byte, error) {
	switch name {
	case "":
		return nil, usageError{errors.New("no file was named; use - for standard input")}
	case "-":
		return readAll(stdin, "standard input", maxCredentialFile)
	}
	return readBounded(name, maxCredentialFile)
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path, limit)
}

func readAll(r io.Reader, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d octets", name, limit)
	}
	return b, err
}

// readPEM reads a file that is one PEM block of a type.
func readPEM(stdin io.Reader, name, want string) ([]byte, error) {
	b, err := readInput(stdin, name)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != want || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, fmt.Errorf("%s is not one PEM block of type %q", name, want)
	}
	return block.Bytes, nil
}

// parseCertificates reads PEM blocks of certificates and nothing else.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	blocks, err := pemBlocks(text)
	if err != nil {
		return nil, err
	}
	chain := make([]*x509.Certificate, 0, len(blocks))
	for _, b := range blocks {
		if b.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block of type %q, want CERTIFICATE", b.Type)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, credentials.Errorf(credentials.CodeMalformed, "certificate", "%w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// maxBlocks bounds the PEM blocks of one file.
const maxBlocks = 64

func pemBlocks(text []byte) (blocks []*pem.Block, err error) {
	for len(strings.TrimSpace(string(text))) > 0 {
		b, rest := pem.Decode(text)
		if b == nil || len(blocks) == maxBlocks {
			return nil, credentials.Errorf(credentials.CodeMalformed, "PEM", "text that is no PEM block, or more than %d blocks", maxBlocks)
		}
		blocks, text = append(blocks, b), rest
	}
	if len(blocks) == 0 {
		return nil, credentials.Errorf(credentials.CodeMalformed, "PEM", "no PEM block")
	}
	return blocks, nil
}

// readPublicKey reads a public key: PEM ("PUBLIC KEY") or a JWK.
func readPublicKey(name string) (crypto.PublicKey, error) {
	b, err := readBounded(name, maxCredentialFile)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(b); block != nil {
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
	key, _, err := credentials.ParseJWK(b)
	return key, err
}
