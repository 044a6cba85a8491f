package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/signer"
)

type verifyOptions struct {
	kind, file, nonce, audience, iss, holderKey, as, at string
	anchors, issuerKeys                                 []string
	noKeyBinding                                        bool
	trust                                               string
	status                                              statusOptions

	now time.Time
}

func newCredentialVerify(a *app) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use: "verify --type x509|sd-jwt|sd-cwt|mls FILE", Short: "Judge a presentation", Args: exactArgs(1),
		Long: "Verifies what \"credential present\" made, from FILE or, for -, standard input.\n" +
			"Exit code 3 and the reason's name say why it is refused. A nonce is good once:\n" +
			"give a fresh one to each presenter.\n\n" +
			"With a trust configuration, and no issuer by hand, it is judged as hubs and\n" +
			"clients judge; then it may also be of type mls, a Credential as \"credential\n" +
			"bind\" makes, with the key of its leaf as --holder-key.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			return credentialVerify(cmd.Context(), a, &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.kind, "type", "", "x509, sd-jwt, sd-cwt or, with a trust configuration, mls (required)")
	f.StringArrayVar(&o.anchors, "anchor", nil, "x509: `file` with believed root certificates in PEM")
	f.StringArrayVar(&o.issuerKeys, "issuer-key", nil, "tokens: `file` with a public key of the issuer, JWK or PEM")
	f.StringVar(&o.iss, "iss", "", "tokens: the believed issuer, exactly as its iss")
	f.StringVar(&o.audience, "audience", "", "tokens: who we are")
	f.StringVar(&o.nonce, "nonce", "", "the nonce that was given to the presenter (hexadecimal for x509)")
	f.StringVar(&o.holderKey, "holder-key", "", "`file` with the public key that the credential must be for, JWK or PEM")
	f.StringVar(&o.as, "as", "", "the client or user `URI` that the presenter must have")
	f.BoolVar(&o.noKeyBinding, "no-key-binding", false, "accept a credential that nobody proves to hold")
	f.StringVar(&o.trust, "trust", "", "believe whom this trust configuration `file` believes (default: that of the configuration, if no --anchor or --issuer-key is given)")
	f.StringArrayVar(&o.status.crls, "crl", nil, "x509: `file` with a CRL of an issuer in the chain, DER or PEM")
	f.StringVar(&o.status.list, "status-list", "", "tokens: `file` with the status list token of the issuer, JWT or CWT")
	f.StringArrayVar(&o.status.keys, "status-key", nil, "tokens: `file` with a public key of the status list, JWK or PEM (default: --issuer-key)")
	f.BoolVar(&o.status.ignore, "ignore-status", false, "tokens: do not ask whether it was revoked")
	f.StringVar(&o.at, "at", "", "judge as at this `time` (RFC 3339) instead of now")
	return c
}

func credentialVerify(ctx context.Context, a *app, o *verifyOptions) error {
	var verify func(context.Context, *verifyOptions, []byte) (*acceptance, error)
	var err error
	if o.kind != typeMLS {
		if verify, err = byType(o.kind, verifyX509, verifySDJWT, verifySDCWT); err != nil {
			return err
		}
	}
	o.now = time.Now()
	if o.at != "" {
		if o.now, err = time.Parse(time.RFC3339, o.at); err != nil {
			return usageError{fmt.Errorf("--at: %w", err)}
		}
	}
	if !o.noKeyBinding && o.nonce == "" {
		return usageError{errors.New("give the --nonce that the presenter was given, or --no-key-binding")}
	}
	if err := o.status.read(o); err != nil {
		return err
	}
	text, err := readInput(a.in, o.file)
	if err != nil {
		return err
	}
	if own, err := a.trustedVerify(ctx, o); err != nil {
		return err
	} else if own != nil {
		verify, o.status.said = own, "as the trust configuration demands"
	} else if verify == nil {
		return usageError{errors.New("--type mls needs a trust configuration: --trust, or that of the configuration")}
	}
	v, err := verify(ctx, o, text)
	if err != nil {
		return err
	}
	if o.as != "" && o.as != v.Client && o.as != v.User {
		return credentials.Errorf(credentials.CodeIdentityMismatch, "credential", "it is for %s and %s, not for %s", v.Client, v.User, o.as)
	}
	v.Status = o.status.said
	return a.print(v, v.text)
}

// An acceptance is an accepted credential, as it is printed.
type acceptance struct {
	Accepted  bool            `json:"accepted"`
	Type      string          `json:"type"`
	Client    string          `json:"client"`
	User      string          `json:"user"`
	Issuer    string          `json:"issuer"`
	KID       string          `json:"kid"` // JWK thumbprint of the holder's key
	Bound     bool            `json:"possession_proven"`
	NotBefore time.Time       `json:"not_before"`
	NotAfter  time.Time       `json:"not_after"`
	Level     string          `json:"attestation,omitempty"` // as the issuer says
	Status    string          `json:"status"`
	Claims    json.RawMessage `json:"claims,omitempty"`
}

func (v *acceptance) text(w io.Writer) {
	fmt.Fprintf(w, "accepted    %s\nclient      %s\nuser        %s\nissuer      %s\nholder key  %s\n", v.Type, v.Client, v.User, v.Issuer, v.KID)
	if v.Bound {
		fmt.Fprintln(w, "possession  proven")
	} else {
		fmt.Fprintln(w, "possession  not proven")
	}
	if v.Level != "" {
		fmt.Fprintf(w, "attestation %s\n", v.Level)
	}
	fmt.Fprintf(w, "status      %s\n", v.Status)
	fmt.Fprintf(w, "valid       %s to %s\n", v.NotBefore.UTC().Format(time.RFC3339), v.NotAfter.UTC().Format(time.RFC3339))
	if len(v.Claims) > 0 {
		fmt.Fprintf(w, "claims      %s\n", v.Claims)
	}
}

// expectHolder reads --holder-key, or returns nil.
func (o *verifyOptions) expectHolder() (crypto.PublicKey, error) {
	if o.holderKey == "" {
		return nil, nil
	}
	return readPublicKey(o.holderKey)
}

func verifyX509(ctx context.Context, o *verifyOptions, text []byte) (*acceptance, error) {
	blocks, err := pemBlocks(text)
	if err != nil {
		return nil, err
	}
	var proof []byte
	check := certs.Check{AnyKey: true, At: o.now}
	for _, b := range blocks {
		switch {
		case b.Type == "CERTIFICATE":
			check.Certificates = append(check.Certificates, b.Bytes)
		case b.Type == "CERTIFICATE REQUEST" && proof == nil:
			proof = b.Bytes
		default:
			return nil, credentials.Errorf(credentials.CodeMalformed, "presentation", "PEM block of type %q", b.Type)
		}
	}
	v, err := o.certVerifier()
	if err != nil {
		return nil, err
	}
	check.Revocation = o.status.x509()
	r, err := v.Verify(ctx, check)
	if err != nil {
		return nil, err
	}
	leaf := r.Chain[0]
	level, err := credentials.AttestationOf(leaf)
	if err != nil {
		return nil, err
	}
	if err := o.checkHolder(leaf.PublicKey); err != nil {
		return nil, err
	}
	if !o.noKeyBinding {
		if err := o.checkPossession(proof, leaf.PublicKey); err != nil {
			return nil, err
		}
	}
	kid, err := signer.JWKThumbprint(leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	return &acceptance{
		Accepted: true, Type: typeX509, Client: r.Client.String(), User: r.User.String(), Issuer: leaf.Issuer.String(), KID: kid,
		Level: levelName(level), Bound: !o.noKeyBinding, NotBefore: r.NotBefore, NotAfter: r.NotAfter,
	}, nil
}

func (o *verifyOptions) certVerifier() (*certs.Verifier, error) {
	if len(o.anchors) == 0 {
		return nil, usageError{errors.New("--anchor is required: a file with the believed root certificates")}
	}
	entry := certs.Entry{Name: "anchors"}
	for _, name := range o.anchors {
		b, err := readBounded(name, maxCredentialFile)
		if err != nil {
			return nil, err
		}
		roots, err := parseCertificates(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		entry.Anchors = append(entry.Anchors, roots...)
	}
	return certs.NewVerifier(0, entry)
}

func (o *verifyOptions) checkHolder(pub crypto.PublicKey) error {
	want, err := o.expectHolder()
	if err != nil || want == nil {
		return err
	}
	if !credentials.SamePublicKey(want, pub) {
		return credentials.Errorf(credentials.CodeCnfLeafMismatch, "certificate", "it is for another key than the holder's")
	}
	return nil
}

// checkPossession verifies the PKCS#10 request over our nonce.
func (o *verifyOptions) checkPossession(proof []byte, pub crypto.PublicKey) error {
	nonce, err := hex.DecodeString(o.nonce)
	if err != nil {
		return usageError{fmt.Errorf("--nonce: %w", err)}
	}
	if proof == nil {
		return credentials.Errorf(credentials.CodeKBMissing, "presentation", "there is no CERTIFICATE REQUEST over the nonce")
	}
	r, err := certs.ParseRequest(proof)
	switch {
	case err != nil:
		return err
	case !credentials.SamePublicKey(r.PublicKey(), pub):
		return credentials.Errorf(credentials.CodeCnfLeafMismatch, "presentation", "the proof of possession is by another key than the certificate's")
	case !bytes.Equal(r.Nonce(), nonce):
		return credentials.Errorf(credentials.CodeNonce, "presentation", "the proof of possession is over another nonce")
	}
	return nil
}

func verifySDJWT(ctx context.Context, o *verifyOptions, text []byte) (*acceptance, error) {
	v, err := o.tokenVerifier()
	if err != nil {
		return nil, err
	}
	holder, err := o.expectHolder()
	if err != nil {
		return nil, err
	}
	r, err := v.Verify(ctx, strings.TrimSpace(string(text)), sdjwt.Expect{Nonce: o.nonce, HolderKey: holder})
	if err != nil {
		return nil, err
	}
	return acceptToken(r)
}

// acceptToken reads the names out of a verified token.
func acceptToken(r *sdjwt.Verified) (*acceptance, error) {
	client, _ := r.Claims.Text(claimClient)
	user, _ := r.Claims.Text(claimUser)
	names, err := certs.DeviceNames(client, user)
	if err != nil {
		return nil, err
	}
	v := &acceptance{
		Accepted: true, Type: typeSDJWT, Client: names.Client.String(), User: names.User.String(), Issuer: r.Issuer,
		NotBefore: r.IssuedAt, NotAfter: r.Expires, Claims: r.Claims.JSON(),
	}
	v.Level, _ = r.Claims.Text(credentials.ClaimAttestation)
	if r.KeyBinding != nil {
		v.Bound = true
		if v.KID, err = signer.JWKThumbprint(r.KeyBinding.HolderKey); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (o *verifyOptions) tokenVerifier() (*sdjwt.Verifier, error) {
	if o.iss == "" || len(o.issuerKeys) == 0 {
		return nil, usageError{errors.New("--iss and --issuer-key are required: whom to believe, and by which key")}
	}
	var keys sdjwt.StaticKeys
	for _, name := range o.issuerKeys {
		pub, err := readPublicKey(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, sdjwt.IssuerKey{Public: pub})
	}
	p := sdjwt.Policy{
		Status:  o.status.jwt(),
		Issuers: sdjwt.IssuerTable{o.iss: keys}, VC: true, Required: []string{"iat", "exp", claimClient, claimUser},
		Now: func() time.Time { return o.now },
	}
	if o.noKeyBinding {
		p.KeyBinding = sdjwt.KeyBindingNotRequired
	}
	if o.audience != "" {
		p.Audiences = []string{o.audience}
	}
	return sdjwt.NewVerifier(p)
}
