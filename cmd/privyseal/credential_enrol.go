package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/daemon"
	problems "github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
)

type inviteOptions struct {
	kind, client, user, least, out string
	lifetime, code                 time.Duration
}

func newCredentialInvite(a *app) *cobra.Command {
	var o inviteOptions
	c := &cobra.Command{
		Use: "invite --type x509|sd-jwt|sd-cwt --client URI --user URI", Short: "Make a one-time code with which a device enrols", Args: noArgs,
		Long: "Makes a one-time code for privyseal credential enrol. The device that has it, and\n" +
			"proves where its key is kept, gets a credential for these names from\n" +
			"privyseal serve. Authenticate the account first.",
		RunE: func(cmd *cobra.Command, _ []string) error { return credentialInvite(cmd.Context(), a, &o) },
	}
	f := c.Flags()
	f.StringVar(&o.kind, "type", "", "x509, sd-jwt or sd-cwt (required)")
	f.StringVar(&o.client, "client", "", "client `URI` of the account (required)")
	f.StringVar(&o.user, "user", "", "user `URI` of the account (required)")
	f.StringVar(&o.least, "min-attestation", credentials.AttestationListed.String(), "the `level` that the device must prove: none (certificates only), stated, tpm-listed or tpm-certified")
	f.DurationVar(&o.lifetime, "lifetime", defaultLifetime, "lifetime of the credential; more than 24h needs a way to learn of revocation")
	f.DurationVar(&o.code, "code-lifetime", enrol.DefaultCodeLifetime, "how long the code is good, up to 168h")
	f.StringVar(&o.out, "out", "", "write the code into a new file of mode 0600 instead of standard output")
	return c
}

func (o *inviteOptions) invitation() (in enrol.Invitation, err error) {
	in = enrol.Invitation{Type: registry.Type(o.kind), Lifetime: o.lifetime}
	if _, err := registry.ParseType(o.kind); err != nil {
		return in, usageError{err}
	}
	if in.Least, err = credentials.ParseAttestationLevel(o.least); err != nil {
		return in, usageError{fmt.Errorf("--min-attestation is none, stated, tpm-listed or tpm-certified, not %.40q", o.least)}
	}
	if in.Unattested = in.Least == credentials.AttestationNone; in.Unattested && in.Type != registry.X509 {
		return in, usageError{errors.New("--min-attestation none is for --type x509")}
	}
	in.Names, err = certs.DeviceNames(o.client, o.user)
	return in, err
}

func credentialInvite(ctx context.Context, a *app, o *inviteOptions) error {
	in, err := o.invitation()
	if err != nil {
		return err
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	if err := checkPrivateDir(c.stateDir()); err != nil {
		return err
	}
	return a.giveOut(o.out, "code", func() (string, time.Time, error) {
		code, expires, err := c.invite(ctx, in, o.code)
		if err != nil {
			return "", expires, err
		}
		return code.Reveal(), expires, nil
	}, map[string]any{})
}

// invite keeps an invitation in the issuer's book.
func (c *Config) invite(ctx context.Context, in enrol.Invitation, lifetime time.Duration) (*enrol.Code, time.Time, error) {
	book, err := registry.Open(ctx, c.databaseSource(issuerPart))
	if err != nil {
		return nil, time.Time{}, err
	}
	store, err := enrol.NewStore(ctx, book, nil)
	if err != nil {
		return nil, time.Time{}, errors.Join(err, book.Close())
	}
	code, expires, err := store.Invite(ctx, in, lifetime)
	return code, expires, errors.Join(err, book.Close())
}

type enrolOptions struct{ url, serverCA, codeFile, holder, applianceKey, client, user, out string }

func newCredentialEnrol(a *app) *cobra.Command {
	var o enrolOptions
	c := &cobra.Command{
		Use: "enrol URL --code-file FILE --holder KEY", Short: "Get a credential from an issuer", Args: exactArgs(1),
		Long: "Enrols the holder's key with the issuer at URL, with a one-time code (privyseal\n" +
			"credential invite). A key in a TPM is proven by the TPM: its endorsement key, its\n" +
			"attestation key, and a certification of the key. Of a key in a PKCS#11 token the\n" +
			"module's answers are stated, signed by --appliance-key.\n\n" +
			"With --client and --user, nothing is proven but possession of the key: a code that\n" +
			"was made with --min-attestation none gets a certificate for these names in one\n" +
			"request (EST simpleenroll, RFC 7030).",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.url = args[0]
			return credentialEnrol(cmd.Context(), a, &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.serverCA, "server-ca", "", "certificates that verify the issuer's server, PEM: a `file` (default those of the system)")
	f.StringVar(&o.codeFile, "code-file", "", "the code: a `file`, or - for standard input (required)")
	f.StringVar(&o.holder, "holder", "", "`key` of the holder, in this key store (required)")
	f.StringVar(&o.applianceKey, "appliance-key", "", "for a key in a PKCS#11 token: `key` of purpose credential-issuer that signs the statement")
	f.StringVar(&o.client, "client", "", "enrol without attestation: the client `URI` that was invited")
	f.StringVar(&o.user, "user", "", "enrol without attestation: the user `URI` that was invited")
	f.StringVar(&o.out, "out", "", "write to this `file` instead of standard output")
	return c
}

func credentialEnrol(ctx context.Context, a *app, o *enrolOptions) error {
	if o.codeFile == "" || o.holder == "" {
		return usageError{errors.New("--code-file and --holder are required")}
	}
	if o.simple() && (o.client == "" || o.user == "" || o.applianceKey != "") {
		return usageError{errors.New("--client and --user are given together, without --appliance-key")}
	}
	code, err := a.readToken(o.codeFile)
	if err != nil {
		return err
	}
	client, err := o.open()
	if err != nil {
		return err
	}
	defer client.Close()
	return a.withWiring(ctx, func(w *wiring) error {
		made, err := w.enrol(ctx, o, client, code)
		if err != nil {
			return enrolError(err)
		}
		a.note("enrolled as %s, attestation %s, until %s", made.ID, made.Attestation, made.NotAfter.UTC().Format(time.RFC3339))
		return a.deliver(o.out, made, made.Credential)
	})
}

// simple reports whether nothing but possession is proven.
func (o *enrolOptions) simple() bool { return o.client+o.user != "" }

func (w *wiring) enrol(ctx context.Context, o *enrolOptions, c *enrol.Client, code string) (*enrol.Issued, error) {
	if o.simple() {
		return w.enrolSimply(ctx, o, c, code)
	}
	e, err := w.newEnrollee(ctx, o)
	if err != nil {
		return nil, err
	}
	return e.enrol(ctx, c, code)
}

// enrolSimply makes the one request.
func (w *wiring) enrolSimply(ctx context.Context, o *enrolOptions, c *enrol.Client, code string) (*enrol.Issued, error) {
	names, err := certs.DeviceNames(o.client, o.user)
	if err != nil {
		return nil, usageError{err}
	}
	holder, err := w.holderSigner(ctx, o.holder)
	if err != nil {
		return nil, err
	}
	request, err := certs.CreateRequest(rand.Reader, holder, names, nil)
	if err != nil {
		return nil, err
	}
	return c.Simple(ctx, code, request)
}

func (o *enrolOptions) open() (*enrol.Client, error) {
	var roots *x509.CertPool
	if o.serverCA != "" {
		var err error
		if roots, err = daemon.ReadPool(o.serverCA); err != nil {
			return nil, err
		}
	}
	c, err := enrol.NewClient(o.url, roots)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// enrolError tells a refusal of the issuer from its other errors.
func enrolError(err error) error {
	p, ok := errors.AsType[*problems.Problem](err)
	switch {
	case ok && p.Status == http.StatusForbidden:
		return refusedError{fmt.Errorf("%s: %s", p.Code, p.Detail)}
	case ok:
		return remoteError{err}
	}
	return err
}

// An enrollee is a key that enrols, with what proves where it is kept.
type enrollee struct {
	wiring    *wiring
	key       *signer.Key
	holder    *signer.Signer
	device    *tpmDevice // nil for a key in a token
	ek        *tpm.EndorsementKey
	appliance *deviceKey
}

func (w *wiring) newEnrollee(ctx context.Context, o *enrolOptions) (e *enrollee, err error) {
	e = &enrollee{wiring: w}
	if e.holder, err = w.holderSigner(ctx, o.holder); err != nil {
		return nil, err
	}
	e.key = e.holder.Key()
	if d, ok := w.devices[e.key.Active().Device].(*tpmDevice); ok {
		e.device = d
		return e, nil
	}
	if o.applianceKey == "" {
		return nil, usageError{fmt.Errorf("key %s is in a PKCS#11 token: give the --appliance-key that signs what its module states", o.holder)}
	}
	e.appliance, err = w.deviceKey(ctx, signer.KeyID(o.applianceKey), signer.PurposeCredentialIssuer)
	return e, err
}

// enrol makes both steps.
func (e *enrollee) enrol(ctx context.Context, c *enrol.Client, code string) (*enrol.Issued, error) {
	begin := &enrol.BeginRequest{Code: code}
	var err error
	if e.device != nil {
		if begin.TPM, err = e.introduce(ctx); err != nil {
			return nil, err
		}
	}
	return c.Enrol(ctx, begin, e.answer)
}

// answer proves what an issuer asks for.
func (e *enrollee) answer(ctx context.Context, challenge *enrol.Challenge) (finish *enrol.FinishRequest, err error) {
	finish = &enrol.FinishRequest{Session: challenge.Session}
	if finish.Request, err = e.request(challenge); err != nil {
		return nil, err
	}
	return finish, e.prove(ctx, challenge, finish)
}

// introduce returns what the TPM shows of itself: the endorsement key that has
// a certificate, or the first.
func (e *enrollee) introduce(ctx context.Context) (*enrol.TPM, error) {
	t, err := e.device.open(ctx)
	if err != nil {
		return nil, err
	}
	ak, err := e.device.attestationKey(ctx)
	if err != nil {
		return nil, err
	}
	if e.ek = endorsement(ctx, t); e.ek == nil {
		keys, err := t.EndorsementKeys(ctx)
		if err != nil {
			return nil, e.device.wrap("endorsement key", err)
		}
		e.ek = &keys[0]
	}
	shown := &enrol.TPM{EK: e.ek.Public, AK: ak.PublicArea()}
	if len(e.ek.Certificate) > 0 {
		shown.EKCertificates = [][]byte{e.ek.Certificate}
	}
	return shown, nil
}

// request asks for the names that were invited, over the issuer's nonce.
func (e *enrollee) request(c *enrol.Challenge) ([]byte, error) {
	names, err := certs.DeviceNames(c.Client, c.User)
	if err != nil {
		return nil, err
	}
	return certs.CreateRequest(rand.Reader, e.holder, names, c.Nonce)
}

func (e *enrollee) prove(ctx context.Context, c *enrol.Challenge, f *enrol.FinishRequest) (err error) {
	if e.device == nil {
		f.Statement, err = e.state(ctx, c)
		return err
	}
	if f.Answer, err = e.activate(ctx, c.Credential); err != nil {
		return err
	}
	proof, err := e.wiring.ring.Attest(ctx, e.key.ID, e.key.Active().Number, c.Nonce)
	if err != nil {
		return err
	}
	f.Evidence = proof.Proof.Statement
	return nil
}

func (e *enrollee) activate(ctx context.Context, c *enrol.Credential) ([]byte, error) {
	t, err := e.device.open(ctx)
	if err != nil {
		return nil, err
	}
	ak, err := e.device.attestationKey(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := t.ActivateCredential(ctx, e.ek, ak, &tpm.Credential{Blob: c.Blob, Secret: c.Secret})
	return answer, e.device.wrap("activate", err)
}

// state asks the module for the key's attributes and has them signed.
func (e *enrollee) state(ctx context.Context, c *enrol.Challenge) (string, error) {
	got, err := e.wiring.ring.Attest(ctx, e.key.ID, e.key.Active().Number, nil)
	if err != nil {
		return "", err
	}
	if got.Claim == nil {
		return "", fmt.Errorf("device %s makes no claim about key %s", e.key.Active().Device, e.key.ID)
	}
	s := enrol.Statement{Audience: c.Audience, Nonce: c.Nonce, IssuedAt: time.Now(), Key: e.holder.Public(), Attributes: enrol.Attributes(*got.Claim)}
	return s.Sign(ctx, e.appliance)
}
