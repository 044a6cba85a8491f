package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
)

// The names of the demonstration.
const (
	demoClient   = "mimi://a.example/d/alice/laptop"
	demoUser     = "mimi://a.example/u/alice"
	demoIssuer   = "https://issuer.a.example"
	demoVerifier = "https://hub.a.example"
	demoWorkers  = 2
)

func newDemo(a *app) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "demo", Short: "The main job, end to end, on throw-away software devices", Args: noArgs,
		Long: "Makes a SoftHSM token and a software TPM, keys in both, an X.509 certificate, an\n" +
			"SD-JWT and an SD-CWT for a device whose key is in the TPM, verifies everything with\n" +
			"our verifiers and with openssl, revokes the device, and shows what is refused. The\n" +
			"devices are software and protect nothing; everything else is what runs in production.",
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), a, dir) },
	}
	c.Flags().StringVar(&dir, "dir", "", "new `folder` to keep everything in (default: one for temporary files)")
	return c
}

// A demo is one run. Each part leaves what the next ones need.
type demo struct {
	*wiring
	dir  string
	tpm  *swtpm.Server
	site *demoSite

	leafChain  [][]byte // DER, as presented
	presented  string   // SD-JWT+KB
	nonce      string
	tokenNonce *sdjwt.MemoryNonces

	net       *demoNet
	hosts     map[string]*demoProvider
	people    []*person
	appliance *appliance
	rooms     demoRooms

	steps []demoStep
	last  time.Time // of the newest step
	tell  func(demoStep)
}

// A demoStep is one line of the report.
type demoStep struct {
	Part   string `json:"part"`
	What   string `json:"what"`
	Detail string `json:"detail,omitempty"`
	TookMS int64  `json:"took_ms"` // since the line before
	// Refused is set where what was tried had to be refused, and was.
	Refused bool `json:"refused,omitempty"`
}

// demoParts are the parts in their order.
var demoParts = []struct {
	name string
	run  func(*demo, context.Context) error
}{
	{"Devices", (*demo).devices},
	{"Keys", (*demo).keys},
	{"Evidence", (*demo).evidence},
	{"X.509", (*demo).certificate},
	{"Published", (*demo).publish},
	{"SD-JWT", (*demo).token},
	{"SD-CWT", (*demo).cwt},
	{"Refused", (*demo).refusals},
	{"Revoked", (*demo).revocation},
	{"Providers", (*demo).providers},
	{"Rooms", (*demo).talk},
	{"Second device", (*demo).secondDevice},
	{"Abuse", (*demo).abuseReports},
	{"Ban", (*demo).ban},
	{"Removal", (*demo).removal},
	{"Journal", (*demo).journalled},
}

func runDemo(ctx context.Context, a *app, dir string) (err error) {
	begin := time.Now()
	if dir, err = demoDir(dir); err != nil {
		return err
	}
	d := &demo{dir: dir, last: begin, tell: func(s demoStep) { a.demoLine(s) }}
	defer func() { err = errors.Join(err, d.Close(ctx)) }()
	for _, p := range demoParts {
		if !a.json {
			fmt.Fprintf(a.out, "\n%s\n", p.name)
		}
		n := len(d.steps)
		if err := p.run(d, ctx); err != nil {
			return fmt.Errorf("demo, %s: %w (everything is in %s)", p.name, err, dir)
		}
		for i := n; i < len(d.steps); i++ {
			d.steps[i].Part = p.name
		}
	}
	took := time.Since(begin).Round(10 * time.Millisecond)
	if err := d.writeReport(begin, took); err != nil {
		return err
	}
	return a.print(struct {
		Dir   string     `json:"dir"`
		Took  string     `json:"took"`
		Steps []demoStep `json:"steps"`
	}{dir, took.String(), d.steps}, func(w io.Writer) {
		fmt.Fprintf(w, "\nReport on one page: %[1]s/report.html and report.txt\nEverything is in %[1]s: the key store (keys.db), the book of credentials (issuer.db),\n"+
			"the token (softhsm/), the TPM and its wrapped keys (swtpm/, tpm/), certificates, tokens\n"+
			"and evidence. The devices are software: who has this folder has the keys.\nRemove it with: rm -r %[1]s\nTook %[2]s.\n", dir, took)
	})
}

func (a *app) demoLine(s demoStep) {
	if a.json {
		return
	}
	fmt.Fprintf(a.out, "  %-49s %s\n", s.What, s.Detail)
}

// demoDir makes the folder of a run.
func demoDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "privyseal-demo-")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o700)
}

// Close ends the devices and leaves the files.
func (d *demo) Close(ctx context.Context) error {
	errs := []error{d.closeRooms()}
	if d.site != nil {
		errs = append(errs, d.site.Close())
	}
	if d.wiring != nil {
		errs = append(errs, d.wiring.Close(ctx))
	}
	if d.tpm != nil {
		errs = append(errs, d.tpm.Close())
	}
	return errors.Join(errs...)
}

// did reports a step.
func (d *demo) did(what, format string, args ...any) {
	d.step(demoStep{What: what, Detail: fmt.Sprintf(format, args...)})
}

// refused reports a step that had to be refused, and was.
func (d *demo) refused(what, format string, args ...any) {
	d.step(demoStep{What: what, Detail: fmt.Sprintf(format, args...), Refused: true})
}

func (d *demo) step(s demoStep) {
	now := time.Now()
	s.TookMS, d.last = now.Sub(d.last).Milliseconds(), now
	d.steps = append(d.steps, s)
	d.tell(s)
}

// save writes a file of the run and returns its path.
func (d *demo) save(name string, content []byte) (string, error) {
	path := filepath.Join(d.dir, name)
	return path, durable.WriteFile(path, content, 0o600)
}

// devices makes the token and the TPM, and the configuration with both.
func (d *demo) devices(ctx context.Context) (err error) {
	if d.tpm, err = swtpm.New(ctx, swtpm.Config{Dir: filepath.Join(d.dir, "swtpm"), Endorsement: true}); err != nil {
		return err
	}
	c, err := initState(ctx, filepath.Join(d.dir, configName), initOptions{softHSM: true, tpm: d.tpm.Address()})
	if err != nil {
		return err
	}
	c.Devices["softhsm"].Workers = demoWorkers
	c.Issuer = &IssuerSection{
		URL: demoIssuer, TokenKey: "issuer", StatusKey: "status", CAs: map[string]*CASection{"devices": {Key: "issuing-ca"}},
		Attestation: &AttestationSection{EKRoots: "tpm-roots.pem", EKIntermediates: "tpm-issuer.pem"},
	}
	if d.site, err = newDemoSite(); err != nil {
		return err
	}
	if d.wiring, err = newWiring(ctx, c); err != nil {
		return err
	}
	for _, name := range c.names() {
		info, err := d.wiring.devices[name].Info(ctx)
		if err != nil {
			return err
		}
		if info.Kind == signer.KindTPM {
			d.did("software TPM 2.0 (swtpm)", "%s", info.URI)
		} else {
			d.did("SoftHSM token in two worker processes", "%s serial %s", info.Label, info.Serial)
		}
	}
	return nil
}

// keys makes every key of the run in its device.
func (d *demo) keys(ctx context.Context) error {
	for _, n := range []signer.NewKey{
		{ID: "root", Purpose: signer.PurposeX509CA, Device: "softhsm"},
		{ID: "issuing-ca", Purpose: signer.PurposeX509CA, Device: "softhsm"},
		{ID: "issuer", Purpose: signer.PurposeCredentialIssuer, Device: "softhsm"},
		{ID: "status", Purpose: signer.PurposeStatus, Device: "softhsm"},
		{ID: "alice-laptop", Purpose: signer.PurposeMLSLeaf, Device: "tpm"},
		{ID: "stranger", Purpose: signer.PurposeMLSLeaf, Device: "tpm"},
	} {
		key, err := d.ring.Create(ctx, n)
		if err != nil {
			return err
		}
		d.did(fmt.Sprintf("%s (%s, %s)", n.ID, n.Purpose, key.Algorithm), "%s; %s", n.Device, wordOf(key.Active().Evidence))
	}
	return nil
}

// wordOf says what the device says of a key, and with what weight.
func wordOf(e *signer.Evidence) string {
	var says []string
	add := func(is bool, what string) {
		if is {
			says = append(says, what)
		}
	}
	switch {
	case e == nil:
		return "no evidence"
	case e.Proof != nil:
		add(e.Proof.SensitiveDataOrigin, "made in it")
		add(e.Proof.FixedTPM, "fixedTPM")
		add(e.Proof.FixedParent, "fixedParent")
		return "proof: " + strings.Join(says, ", ")
	}
	add(e.Claim.AlwaysSensitive, "ALWAYS_SENSITIVE")
	add(e.Claim.NeverExtractable, "NEVER_EXTRACTABLE")
	add(e.Claim.Local, "LOCAL")
	return "claim: " + strings.Join(says, ", ")
}

// evidence has the TPM prove where the device's key is, in the two steps that
// it takes: the maker's certificate vouches for the endorsement key, which
// vouches for the attestation key, which certifies the device's key over a
// fresh nonce. All of it is verified in software.
func (d *demo) evidence(ctx context.Context) error {
	nonce := make([]byte, 32)
	rand.Read(nonce)
	key, err := d.ring.Attest(ctx, "alice-laptop", 1, nonce)
	if err != nil {
		return err
	}
	if _, err := d.save("alice-laptop.evidence.json", key.Proof.Statement); err != nil {
		return err
	}
	e, err := tpm.ParseEvidence(key.Proof.Statement)
	if err != nil {
		return err
	}
	v, err := d.evidenceVerifier(nonce)
	if err != nil {
		return err
	}
	if v.AKName, err = d.activate(ctx, "tpm", e); err != nil {
		return err
	}
	d.did("attestation key is in the TPM of that maker", "endorsement certificate and activated credential")
	got, err := v.Verify(e)
	if err != nil {
		return err
	}
	a := got.Attributes
	d.did("key certified over our nonce", "made in the TPM %v, fixedTPM %v, fixedParent %v", a.SensitiveDataOrigin, a.FixedTPM, a.FixedParent)
	v.Nonce = make([]byte, 32)
	if _, err := v.Verify(e); !errors.Is(err, tpm.ErrEvidence) {
		return fmt.Errorf("evidence over another nonce: %w", errAccepted(err))
	}
	d.did("the same evidence for another nonce", "refused")
	return nil
}

func (d *demo) evidenceVerifier(nonce []byte) (*tpm.Verifier, error) {
	roots, err := d.tpm.Roots()
	if err != nil {
		return nil, err
	}
	v := &tpm.Verifier{Nonce: nonce, EKRoots: roots}
	v.EKIntermediates, err = d.tpmIntermediates()
	return v, err
}

// errAccepted is the error of a refusal that did not come, or came for another
// reason.
func errAccepted(err error) error {
	if err == nil {
		return errors.New("it was accepted")
	}
	return err
}

// names returns the names of the device.
func demoNames() (certs.Names, error) { return certs.DeviceNames(demoClient, demoUser) }

// possession has the device's key prove itself to an issuer.
func (d *demo) possession(ctx context.Context) (possession, error) {
	names, err := demoNames()
	if err != nil {
		return possession{}, err
	}
	return d.provePossession(ctx, nil, &issueOptions{requestOptions: requestOptions{holder: "alice-laptop"}}, names)
}
