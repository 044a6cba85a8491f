package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/signer"
)

// A clientRecord is the file client.json in a client's folder. Paths are
// absolute, but for those of files in the folder.
type clientRecord struct {
	Version    int          `json:"version"`
	Provider   string       `json:"provider"`
	ProviderCA string       `json:"provider_ca,omitempty"`
	Trust      string       `json:"trust"`
	Mode       client.Mode  `json:"mode"`
	Key        signer.KeyID `json:"key"`
	Device     string       `json:"device,omitempty"`
	StateKey   signer.KeyID `json:"state_key,omitempty"`     // to which the key of the state is encrypted
	InitKeys   bool         `json:"init_keys"`               // init keys of KeyPackages in the device
	Credential string       `json:"credential,omitempty"`    // its kind; empty for x509
	Audience   string       `json:"audience,omitempty"`      // of a token's key binding; empty for the client's provider
	Disclose   []string     `json:"disclose,omitempty"`      // paths of a token's claims that members see
	Lifetime   string       `json:"leaf_lifetime,omitempty"` // of the leaf keys of mode bound
	Signer     string       `json:"signer,omitempty"`        // URL of the signing service; empty for that of the enrolment
	Identity   string       `json:"identity,omitempty"`      // folder of the caller at the signing service
}

// Files in a client's folder.
const (
	clientRecordFile = "client.json"
	clientTLSFile    = "tls.pem"
	clientStateFile  = "state.db"
	clientTrustFile  = "trust.db"
)

func loadClientRecord(dir string) (*clientRecord, error) {
	path := filepath.Join(dir, clientRecordFile)
	b, err := readBounded(path, maxCredentialFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no client %s; run: privyseal client register --help", filepath.Base(dir))
	}
	if err != nil {
		return nil, err
	}
	r := new(clientRecord)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != 1 {
		return nil, fmt.Errorf("%s has version %d; this release knows 1", path, r.Version)
	}
	return r, nil
}

// openClient opens a client of which the folder holds record, credential and
// TLS key. done ends what the client needs beside itself.
func (w *wiring) openClient(ctx context.Context, dir string, r *clientRecord) (_ *client.Client, done func(), err error) {
	list, db, err := openClientTrust(ctx, dir, r)
	if err != nil {
		return nil, nil, err
	}
	c, end, err := w.openJudged(ctx, dir, r, list)
	if err != nil {
		list.Close()
		return nil, nil, errors.Join(err, db.Close())
	}
	stop := followTrust(ctx, list, c)
	return c, func() { stop(); end(); list.Close(); db.Close() }, nil
}

func (w *wiring) openJudged(ctx context.Context, dir string, r *clientRecord, list *trust.List) (_ *client.Client, done func(), err error) {
	cfg, done, err := w.clientConfig(ctx, dir, r)
	if err != nil {
		return nil, nil, err
	}
	cfg.Judge = client.TrustJudge{Evaluator: identity.NewEvaluator(list, identity.EvaluatorOptions{})}
	c, err := client.Open(ctx, *cfg)
	if err != nil {
		done()
	}
	return c, done, err
}

// openClientTrust opens the client's trust configuration on a database in its
// folder: one call need not fetch what the call before has, and remembers what
// is revoked.
func openClientTrust(ctx context.Context, dir string, r *clientRecord) (*trust.List, *sqldb.DB, error) {
	db, err := trust.OpenDB(ctx, filepath.Join(dir, clientTrustFile))
	if err != nil {
		return nil, nil, err
	}
	list, err := trust.Open(r.Trust, trust.Options{DB: db})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	identity.UseTypeNumbers(list.Snapshot().Config.CredentialTypeNumbers)
	return list, db, nil
}

// followTrust fetches what is due of keys and revocations, and has the client
// judge anew when something has changed, until stop is called.
func followTrust(ctx context.Context, list *trust.List, c *client.Client) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	changes, unwatch := list.Watch()
	var wg sync.WaitGroup
	wg.Go(func() { _ = list.Run(ctx) }) // it ends with ctx; what cannot be fetched shows in verdicts
	wg.Go(func() {
		for {
			select {
			case <-changes:
				c.Recheck()
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); wg.Wait(); unwatch() }
}

// clientConfig has all but the judge. done ends the client's connection with
// its signing service, if it has one.
func (w *wiring) clientConfig(ctx context.Context, dir string, r *clientRecord) (_ *client.Config, done func(), err error) {
	t, err := clientTLS(dir, r.ProviderCA)
	if err != nil {
		return nil, nil, err
	}
	custody, done, err := w.clientCustody(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	if custody.Credential, err = clientCredential(ctx, dir, r, custody.Key); err != nil {
		done()
		return nil, nil, err
	}
	return &client.Config{State: filepath.Join(dir, clientStateFile), Custody: *custody, Provider: r.Provider, TLS: t}, done, nil
}

// clientCustody finds a client's keys, in a device or a signing service.
func (w *wiring) clientCustody(ctx context.Context, r *clientRecord) (_ *client.Custody, done func(), err error) {
	if r.Mode != client.Remote {
		custody, err := w.deviceCustody(ctx, r)
		return custody, func() {}, err
	}
	c, done, err := openSigner(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	custody, err := remoteCustody(ctx, c, r)
	if err != nil {
		done()
	}
	return custody, done, err
}

func (w *wiring) deviceCustody(ctx context.Context, r *clientRecord) (*client.Custody, error) {
	purpose := signer.PurposeMLSLeaf
	if r.Mode == client.Bound {
		purpose = signer.PurposeCredentialConfirmation
	}
	key, err := w.ring.Signer(ctx, r.Key, purpose)
	if err != nil {
		return nil, err
	}
	custody := &client.Custody{Mode: r.Mode, Key: key}
	if r.Lifetime != "" {
		if custody.LeafLifetime, err = time.ParseDuration(r.Lifetime); err != nil {
			return nil, fmt.Errorf("%s: leaf_lifetime: %w", clientRecordFile, err)
		}
	}
	if r.InitKeys && r.Mode != client.Bound {
		custody.Agreements = ringAgreements{w.ring, r.Device}
	}
	if r.StateKey != "" {
		x, err := w.ring.KeyExchanger(ctx, r.StateKey, signer.PurposeMLSInit)
		if err != nil {
			return nil, err
		}
		if custody.Seal, err = hpke.NewDHKEMPrivateKey(x.WithContext(ctx)); err != nil {
			return nil, err
		}
	}
	return custody, nil
}

// ringAgreements makes init keys in a device of the keyring.
type ringAgreements struct {
	ring   *signer.Keyring
	device string
}

func (g ringAgreements) Generate(ctx context.Context, name string) (ecdh.KeyExchanger, error) {
	_, err := g.ring.Create(ctx, signer.NewKey{ID: signer.KeyID(name), Purpose: signer.PurposeMLSInit, Device: g.device})
	if err != nil {
		return nil, err
	}
	return g.Open(ctx, name)
}

func (g ringAgreements) Open(ctx context.Context, name string) (ecdh.KeyExchanger, error) {
	// The key is used after this call has ended.
	return g.ring.KeyExchanger(context.WithoutCancel(ctx), signer.KeyID(name), signer.PurposeMLSInit)
}

func (g ringAgreements) Destroy(ctx context.Context, name string) error {
	err := g.ring.Destroy(ctx, signer.KeyID(name), 1)
	if errors.Is(err, signer.ErrNoKey) {
		return nil
	}
	return err
}

// clientTLS reads the client's TLS key, and whom it believes to be its
// provider: the authorities in a file, or those of the system.
func clientTLS(dir, ca string) (*tls.Config, error) {
	path := filepath.Join(dir, clientTLSFile)
	own, err := readPrivate(path, maxCredentialFile)
	if err != nil {
		return nil, fmt.Errorf("the client's TLS key: %w", err)
	}
	pair, err := tls.X509KeyPair(own, own)
	if err != nil {
		return nil, fmt.Errorf("the client's TLS key: %s: %w", path, err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	if ca == "" {
		return t, nil
	}
	text, err := readBounded(ca, maxCredentialFile)
	if err != nil {
		return nil, err
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", ca)
	}
	return t, nil
}

type registerOptions struct {
	record           clientRecord
	key, credential  string
	invitation, mode string
	softwareInit     bool
	stateKeyFile     bool
	leafLifetime     time.Duration
}

func newClientRegister(a *app) *cobra.Command {
	var o registerOptions
	c := &cobra.Command{
		Use: "register NAME --provider URL --key KEY --credential FILE --trust FILE", Short: "Make a client known at its provider", Args: exactArgs(1),
		Long: "Makes the folder of a client, with a TLS key of its own, registers the client at\n" +
			"its provider and uploads KeyPackages. Run it again, with the same key, when there\n" +
			"is a new credential: every room gets it.\n\n" +
			"The credential is a chain of certificates, an SD-JWT or an SD-CWT, as credential\n" +
			"issue writes them. Of a token the members of rooms see whom it names and the claims\n" +
			"that --disclose names; its key binding is made here, by the client's key, and made\n" +
			"anew in time.\n\n" +
			"In mode device (the default) the key has purpose mls-leaf and signs for the client\n" +
			"itself. In mode bound it has purpose credential-confirmation and binds a leaf key\n" +
			"in software, which is replaced every day. In mode remote it is a key of a signing\n" +
			"service, of which privyseal remote enroll has made you a caller; to make init keys\n" +
			"there you need the role admin and the grant init-*:agree, and without them\n" +
			"--software-init-keys.",
		RunE: func(cmd *cobra.Command, args []string) error { return clientRegister(cmd.Context(), a, args[0], &o) },
	}
	f := c.Flags()
	f.StringVar(&o.record.Provider, "provider", "", "`URL` of the provider, https://host[:port] (required)")
	f.StringVar(&o.record.ProviderCA, "provider-ca", "", "`file` with the authorities of the provider's TLS certificate (default: the system's)")
	f.StringVar(&o.key, "key", "", "`key` of the client (required)")
	f.StringVar(&o.credential, "credential", "", "`file` with the credential for the key (required)")
	f.StringArrayVar(&o.record.Disclose, "disclose", nil, "tokens: JSON `path` of a further claim that members of rooms may see, such as [\"email\"]")
	f.StringVar(&o.record.Audience, "audience", "", "tokens: `name` for which the key binding is made (default: the client's provider)")
	f.DurationVar(&o.leafLifetime, "leaf-lifetime", 0, "mode bound: how long a leaf key is used; it is replaced when a third is left (default 24h)")
	f.StringVar(&o.record.Trust, "trust", "", "`file` with the trust configuration (required)")
	f.StringVar(&o.mode, "mode", string(client.Device), "`mode` of custody: device, bound or remote")
	f.StringVar(&o.record.Signer, "signer", "", "`URL` of the signing service of mode remote (default: that of the enrolment)")
	f.StringVar(&o.record.Identity, "identity", "", "`folder` of the caller's certificate and key for mode remote (default: as for privyseal remote)")
	f.StringVar(&o.invitation, "invitation-file", "", "`file` with an invitation of the provider")
	f.BoolVar(&o.softwareInit, "software-init-keys", false, "keep the init keys of KeyPackages in the sealed state, for devices with little room")
	f.BoolVar(&o.stateKeyFile, "state-key-file", false, "keep the key of the state in a file beside it instead of the device")
	return c
}

func clientRegister(ctx context.Context, a *app, name string, o *registerOptions) error {
	if err := o.complete(); err != nil {
		return err
	}
	return a.withWiring(ctx, func(w *wiring) error {
		dir, err := clientDir(w.config, name)
		if err != nil {
			return err
		}
		if err := w.prepareClient(ctx, name, dir, o); err != nil {
			return err
		}
		return w.withClient(ctx, dir, func(ctx context.Context, c *client.Client) error { return a.register(ctx, c, o) })
	})
}

// complete checks the options and makes paths absolute.
func (o *registerOptions) complete() (err error) {
	if o.record.Provider == "" || o.key == "" || o.credential == "" || o.record.Trust == "" {
		return usageError{errors.New("--provider, --key, --credential and --trust are required")}
	}
	o.record.Version, o.record.Key, o.record.Mode = 1, signer.KeyID(o.key), client.Mode(o.mode)
	if o.record.Mode != client.Device && o.record.Mode != client.Bound && o.record.Mode != client.Remote {
		return usageError{fmt.Errorf("--mode is device, bound or remote, not %q", o.mode)}
	}
	o.record.InitKeys = !o.softwareInit && o.record.Mode != client.Bound
	switch {
	case o.leafLifetime == 0:
	case o.record.Mode != client.Bound || o.leafLifetime < 0:
		return usageError{errors.New("--leaf-lifetime is for --mode bound, and longer than zero")}
	default:
		o.record.Lifetime = o.leafLifetime.String()
	}
	if err := o.completeRemote(); err != nil {
		return err
	}
	for _, path := range []*string{&o.record.ProviderCA, &o.record.Trust} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

// prepareClient makes the client's folder, or completes one that an earlier
// attempt has left. The record is written last.
func (w *wiring) prepareClient(ctx context.Context, name, dir string, o *registerOptions) error {
	text, err := readBounded(o.credential, maxCredentialFile)
	if err != nil {
		return err
	}
	if o.record.Credential, err = credentialKind(text); err != nil {
		return fmt.Errorf("%s: %w", o.credential, err)
	}
	if o.record.Credential == typeX509 && (len(o.record.Disclose) > 0 || o.record.Audience != "") {
		return usageError{errors.New("--disclose and --audience are for tokens")}
	}
	if err := sameClient(dir, &o.record); err != nil {
		return err
	}
	if err := w.findDevice(ctx, &o.record); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if !o.stateKeyFile {
		var err error
		if o.record.StateKey, err = w.stateKey(ctx, name, o.record.Device); err != nil {
			return err
		}
	}
	if err := keepCredential(dir, o.record.Credential, text); err != nil {
		return fmt.Errorf("%s: %w", o.credential, err)
	}
	if err := makeClientTLS(filepath.Join(dir, clientTLSFile)); err != nil {
		return err
	}
	record, err := json.MarshalIndent(o.record, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, clientRecordFile), append(record, '\n'), 0o600)
}

// sameClient refuses to take another key for a client that has a state: its rooms
// have the old one.
func sameClient(dir string, r *clientRecord) error {
	if _, err := os.Stat(filepath.Join(dir, clientStateFile)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	old, err := loadClientRecord(dir)
	if err != nil {
		return err
	}
	if old.Key != r.Key || old.Mode != r.Mode {
		return usageError{fmt.Errorf("client %s has key %s in mode %s; a client keeps them: register a second one by another name, which can join the rooms, or remove %s if this one is in none", filepath.Base(dir), old.Key, old.Mode, dir)}
	}
	return nil
}

// findDevice notes which device has the key of a client.
func (w *wiring) findDevice(ctx context.Context, r *clientRecord) error {
	if r.Mode == client.Remote {
		return nil
	}
	key, err := w.store.Key(ctx, r.Key)
	if err != nil {
		return err
	}
	r.Device, err = deviceOf(key)
	return err
}

func deviceOf(key *signer.Key) (string, error) {
	v := key.Active()
	if v == nil {
		return "", fmt.Errorf("key %s has no active version", key.ID)
	}
	return v.Device, nil
}

// stateKey finds or makes the agreement key of the device to which the key of
// the state is encrypted.
func (w *wiring) stateKey(ctx context.Context, name, device string) (signer.KeyID, error) {
	id := signer.KeyID("client-" + name + "-state")
	_, err := w.store.Key(ctx, id)
	if errors.Is(err, signer.ErrNoKey) {
		_, err = w.ring.Create(ctx, signer.NewKey{ID: id, Purpose: signer.PurposeMLSInit, Device: device})
	}
	return id, err
}

// makeClientTLS makes the client's TLS key with a certificate of its own, if
// it is not there. The provider looks at the key alone.
func makeClientTLS(path string) error {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "privyseal client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	return durable.WriteFile(path, text, 0o600)
}

func (a *app) register(ctx context.Context, c *client.Client, o *registerOptions) error {
	var invitation []byte
	if o.invitation != "" {
		var err error
		if invitation, err = readInput(a.in, o.invitation); err != nil {
			return err
		}
	}
	reg, err := c.Register(ctx, bytes.TrimSpace(invitation))
	if err != nil {
		return err
	}
	return a.printRegistration(ctx, c, reg, o.record.Mode)
}

func (a *app) printRegistration(ctx context.Context, c *client.Client, reg *clientapi.Registration, mode client.Mode) error {
	var left uint32
	for _, n := range reg.KeyPackages {
		left += n.Left
	}
	w, err := showWho(ctx, c)
	if err != nil {
		return err
	}
	v := map[string]any{
		"client": w.Client, "user": w.User, "level": w.Level, "issuer": w.Issuer, "credential": w.Credential, "valid_until": w.Until,
		"leaf_key_until": w.LeafKey, "mode": mode, "sealed_by": c.SealedBy(), "key_packages": left,
	}
	return a.print(v, func(out io.Writer) {
		w.writeText(out)
		fmt.Fprintf(out, "mode        %s\nstate key   %s\nKeyPackages %d\n", mode, c.SealedBy(), left)
	})
}
