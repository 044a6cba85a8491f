package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

// A ProviderSection runs a MIMI provider.
type ProviderSection struct {
	// Domain is the provider's name, as in mimi://DOMAIN. Required.
	Domain string `json:"domain"`
	// Host is the name and port under which other providers reach the listener
	// Peers; by default the domain.
	Host string `json:"host,omitempty"`
	// Clients and Peers are the listeners for our clients (client_auth "any")
	// and for other providers (client_auth "asked"). Clients is required.
	Clients string `json:"clients"`
	Peers   string `json:"peers,omitempty"`
	// PeerRoots is the file of the authorities that other providers'
	// certificates come from, PEM. Required with Peers.
	PeerRoots string `json:"peer_roots,omitempty"`
	// PeersAllowPrivate lists networks, such as "10.0.0.0/8", beyond the public
	// internet in which other providers may be. A provider's name or directory
	// that leads anywhere else inside is not followed.
	PeersAllowPrivate []string `json:"peers_allow_private,omitempty"`
	// PeerCertificate and PeerKey are what we show to other providers, by
	// default what the listener Peers shows.
	PeerCertificate string `json:"peer_certificate,omitempty"`
	PeerKey         string `json:"peer_key,omitempty"`
	// Trust is the file of the trust configuration. Required.
	Trust string `json:"trust"`
	// Keys are the hub's keys, one entry for each cipher suite of rooms.
	// Required.
	Keys []ProviderKeys `json:"keys"`
	// MACKey is the key of purpose frank-mac. Required.
	MACKey signer.KeyID `json:"mac_key"`
	// MACKeysBefore are those that it has replaced, for reports of what they
	// franked.
	MACKeysBefore []MACKeyBefore `json:"mac_keys_before,omitempty"`
	// AdmitBasic admits basic credentials in rooms whose operational policy does
	// not list them; OpenRegistration registers such clients without an
	// invitation. Both are for closed networks.
	AdmitBasic       bool `json:"admit_basic,omitempty"`
	OpenRegistration bool `json:"open_registration,omitempty"`
	EdgesSection
}

// host is where others reach us.
func (p *ProviderSection) host() string {
	if p.Host != "" {
		return p.Host
	}
	return p.Domain
}

// ProviderKeys are the hub's keys for one cipher suite. The certificates are
// chains in PEM, whose first names mimi://DOMAIN and nothing else.
type ProviderKeys struct {
	Suite             uint16       `json:"suite"`
	SenderKey         signer.KeyID `json:"sender_key"` // purpose hub-sender
	SenderCertificate string       `json:"sender_certificate"`
	FrankKey          signer.KeyID `json:"frank_key"` // purpose frank-sign
	FrankCertificate  string       `json:"frank_certificate"`
	// ReceiverKey is the key of purpose mls-init with which the hub reads rooms of
	// SemiPrivateMessages; without it there are none.
	ReceiverKey signer.KeyID `json:"receiver_key,omitempty"`
	// Before are the franking keys that frank_key has replaced.
	Before []FrankKeyBefore `json:"before,omitempty"`
}

func (p *ProviderSection) check(s *ServeConfig) error {
	const at = "serve.provider"
	if p == nil {
		return nil
	}
	if _, err := mimi.NewURI(p.Domain, mimi.KindProvider); err != nil {
		return configErrorf(at+".domain", "%w", err)
	}
	if err := s.checkListener(at+".clients", p.Clients); err != nil {
		return err
	}
	if s.Listeners[p.Clients].ClientAuth != "any" {
		return configErrorf(at+".clients", "the listener %q needs \"client_auth\": \"any\"", p.Clients)
	}
	if p.Peers != "" {
		if err := s.checkListener(at+".peers", p.Peers); err != nil {
			return err
		}
		if p.PeerRoots == "" {
			return configErrorf(at+".peer_roots", "is required with peers")
		}
		if _, err := parseNetworks(p.PeersAllowPrivate); err != nil {
			return configErrorf(at+".peers_allow_private", "%w", err)
		}
		if a := s.Listeners[p.Peers].ClientAuth; a != "asked" && a != "optional" {
			return configErrorf(at+".peers", "the listener %q needs \"client_auth\": \"asked\"", p.Peers)
		}
	}
	switch {
	case p.Trust == "" || len(p.Keys) == 0 || p.MACKey == "":
		return configErrorf(at, "needs trust, keys and mac_key")
	case (p.PeerCertificate == "") != (p.PeerKey == ""):
		return configErrorf(at+".peer_certificate", "goes with peer_key")
	case p.Peers == "" && (p.PeerRoots != "" || p.PeersAllowPrivate != nil || p.PeerCertificate != ""):
		return configErrorf(at+".peers", "is missing: peer_roots, peers_allow_private, peer_certificate and peer_key are for it")
	}
	for i, k := range p.Keys {
		if slices.ContainsFunc(p.Keys[:i], func(before ProviderKeys) bool { return before.Suite == k.Suite }) {
			return configErrorf(fmt.Sprintf("%s.keys[%d]", at, i), "suite %d is there twice", k.Suite)
		}
	}
	if err := p.checkFranking(at); err != nil {
		return err
	}
	return p.EdgesSection.check(at, s, p)
}

// A providerComponent is the provider in the process.
type providerComponent struct {
	config *ProviderSection
	wiring *wiring
	deps   deps

	db        *sqldb.DB
	service   *provider.Service
	trustDB   *sqldb.DB // what the trust list has fetched, and revocations for good
	trust     *trust.List
	evaluator *identity.Evaluator
	chains    *peer.Chains
	peers     *peer.Client
	edges     *edges

	peerHandler http.Handler  // nil: the provider is alone
	anew        chan struct{} // has a value when keys and revocations are to be fetched before they are due

	mu    sync.Mutex // guards roots
	roots *x509.CertPool
}

func newProviderComponent(ctx context.Context, w *wiring, s *ServeConfig, d deps) (daemon.Component, error) {
	if s.Provider == nil {
		return nil, nil
	}
	p := &providerComponent{config: s.Provider, wiring: w, deps: d, anew: make(chan struct{}, 1)}
	if err := p.open(ctx, s); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *providerComponent) open(ctx context.Context, s *ServeConfig) error {
	if err := p.openTrust(ctx); err != nil {
		return err
	}
	if err := p.connect(s); err != nil {
		return err
	}
	var err error
	if p.edges, err = openEdges(ctx, p.wiring.config, p.config, p.peers, p.deps.log); err != nil {
		return err
	}
	if p.db, err = provider.OpenDB(ctx, p.wiring.config.databaseSource("provider")); err != nil {
		return err
	}
	cfg, err := p.serviceConfig(ctx)
	if err != nil {
		return err
	}
	if p.service, err = provider.New(*cfg); err != nil {
		return err
	}
	p.edges.rooms = p.service
	p.peerHandler, err = p.peerServer()
	return err
}

// openTrust opens the trust configuration on a database: what is known to be
// revoked stays known when the issuer cannot be asked after a restart.
func (p *providerComponent) openTrust(ctx context.Context) error {
	uri, err := mimi.NewURI(p.config.Domain, mimi.KindProvider)
	if err != nil {
		return err
	}
	if p.trustDB, err = trust.OpenDB(ctx, p.wiring.config.databaseSource("trust")); err != nil {
		return err
	}
	if p.trust, err = trust.Open(p.trustFile(), trust.Options{DB: p.trustDB}); err != nil {
		return err
	}
	identity.UseTypeNumbers(p.trust.Snapshot().Config.CredentialTypeNumbers)
	p.evaluator = identity.NewEvaluator(p.trust, identity.EvaluatorOptions{Provider: uri})
	return nil
}

func (p *providerComponent) trustFile() string { return resolve(p.wiring.config.dir, p.config.Trust) }

// close closes what is open.
func (p *providerComponent) close() error {
	if p.trust != nil {
		p.trust.Close()
	}
	var errs []error
	if p.edges != nil {
		errs = append(errs, p.edges.close())
	}
	for _, db := range []*sqldb.DB{p.db, p.trustDB} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// peerDialTime bounds how long it takes to reach another provider.
const peerDialTime = 10 * time.Second

// connect makes what it takes to speak to other providers.
func (p *providerComponent) connect(s *ServeConfig) error {
	if p.config.Peers == "" {
		return nil
	}
	roots, err := daemon.ReadPool(resolve(p.wiring.config.dir, p.config.PeerRoots))
	if err != nil {
		return err
	}
	p.roots = roots
	p.chains = peer.NewChains(p.currentRoots)
	section := *s.Listeners[p.config.Peers]
	if p.config.PeerCertificate != "" {
		section = ListenerSection{Certificate: p.config.PeerCertificate, Key: p.config.PeerKey}
	}
	dial := p.wiring.dialPeers
	if dial == nil {
		networks, err := parseNetworks(p.config.PeersAllowPrivate)
		if err != nil {
			return configErrorf("serve.provider.peers_allow_private", "%w", err)
		}
		dial = safehttp.Dialer(networks, peerDialTime).DialContext
	}
	p.peers, err = peer.NewClient(peer.ClientConfig{
		Domain: p.config.Domain, Roots: p.currentRoots, DialContext: dial,
		Certificate: func() (*tls.Certificate, error) { return serverCertificate(context.Background(), p.wiring, &section) },
	})
	return err
}

func (p *providerComponent) currentRoots() *x509.CertPool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.roots
}

func (p *providerComponent) serviceConfig(ctx context.Context) (*provider.Config, error) {
	receivers := make(receiverKeys)
	secrets, err := p.secrets(ctx, p.config, receivers)
	if err != nil {
		return nil, err
	}
	node, err := nodeID(p.wiring.config)
	if err != nil {
		return nil, err
	}
	cfg := &provider.Config{
		Domain: p.config.Domain, DB: p.db, Evaluator: hub.TrustEvaluator{Evaluator: p.evaluator},
		Keys: secrets.Keys, MAC: secrets.MAC, Franks: secrets.Franks, ReceiverKey: receivers.find,
		AdmitBasic: p.config.AdmitBasic, OpenRegistration: p.config.OpenRegistration, Log: p.deps.log,
		Consent: p.edges, Limiter: p.edges, Extra: p.edges.clientRoutes(), Departing: p.edges.departing, NodeID: node,
	}
	if p.peers != nil {
		cfg.Peers = p.peers
	}
	return cfg, nil
}

// secrets are the hub's keys as a section has them.
func (p *providerComponent) secrets(ctx context.Context, section *ProviderSection, receivers receiverKeys) (*provider.Secrets, error) {
	bySuite := make(map[mls.CipherSuite]*provider.Keys)
	franks := new(mimi.FrankingKeys)
	for _, k := range section.Keys {
		keys, err := p.hubKeys(ctx, &k)
		if err != nil {
			return nil, configErrorf("serve.provider.keys", "suite %d: %w", k.Suite, err)
		}
		bySuite[mls.CipherSuite(k.Suite)] = keys
		franks.AddSignatureKey(0, mimi.MaxTimestamp, mls.CipherSuite(k.Suite), keys.Franking.SignatureKey)
		if keys.Receiver, err = p.receiver(ctx, &k, keys, receivers); err != nil {
			return nil, configErrorf("serve.provider.keys", "suite %d: receiver_key: %w", k.Suite, err)
		}
		if err := p.franksBefore(ctx, &k, keys, franks); err != nil {
			return nil, configErrorf("serve.provider.keys", "suite %d: %w", k.Suite, err)
		}
	}
	// The devices are asked when a message is franked, and not before.
	mac, err := p.wiring.ring.MAC(context.WithoutCancel(ctx), section.MACKey, signer.PurposeFrankMAC)
	if err != nil {
		return nil, err
	}
	franks.AddMAC(0, mimi.MaxTimestamp, mac)
	if err := p.macsBefore(ctx, section, franks); err != nil {
		return nil, configErrorf("serve.provider.mac_keys_before", "%w", err)
	}
	// Franks follow each other without end, so one look at their keys serves those of 10 ms.
	return &provider.Secrets{Keys: func(s mls.CipherSuite) *provider.Keys { return bySuite[s] }, MAC: mac.Burst(), Franks: franks}, nil
}

func (p *providerComponent) hubKeys(ctx context.Context, k *ProviderKeys) (*provider.Keys, error) {
	ctx = context.WithoutCancel(ctx)
	sender, err := p.wiring.ring.Signer(ctx, k.SenderKey, signer.PurposeHubSender)
	if err != nil {
		return nil, err
	}
	frank, err := p.wiring.ring.Signer(ctx, k.FrankKey, signer.PurposeFrankSign)
	if err != nil {
		return nil, err
	}
	out := &provider.Keys{SenderSigner: sender, FrankSigner: frank.Burst()}
	if out.Sender.SignatureKey, out.Sender.Credential, err = p.hubCredential(k.SenderCertificate, sender, mls.CipherSuite(k.Suite)); err != nil {
		return nil, err
	}
	out.Franking.SignatureKey, out.Franking.Credential, err = p.hubCredential(k.FrankCertificate, frank, mls.CipherSuite(k.Suite))
	return out, err
}

// hubCredential pairs a certificate chain with its key, as MLS has them.
func (p *providerComponent) hubCredential(path string, key *signer.Signer, suite mls.CipherSuite) ([]byte, mls.Credential, error) {
	chain, err := readChain(resolve(p.wiring.config.dir, path))
	if err != nil {
		return nil, mls.Credential{}, err
	}
	if !credentials.SamePublicKey(chain[0].PublicKey, key.Public()) {
		return nil, mls.Credential{}, fmt.Errorf("%s is not for the key that it stands with", path)
	}
	public, err := mls.SignaturePublicKey(suite, key.Public())
	return public, chainCredential(chain), err
}

// Mounts are the client API, and the endpoints for other providers.
func (p *providerComponent) Mounts() []daemon.Mount {
	m := []daemon.Mount{{Listener: p.config.Clients, Pattern: clientapi.Prefix + "/", Handler: p.service.ClientHandler()}}
	m = append(m, p.edges.mounts(p.config)...)
	if p.peerHandler == nil {
		return m
	}
	return append(m, daemon.Mount{Listener: p.config.Peers, Pattern: "/", Handler: p.peerHandler})
}

// peerServer has the endpoints for other providers; nil without Peers.
func (p *providerComponent) peerServer() (http.Handler, error) {
	if p.peers == nil {
		return nil, nil
	}
	host := p.config.host()
	directory, err := peer.NewDirectory(host, append(provider.Endpoints(), p.edges.endpoints()...)...)
	if err != nil {
		return nil, fmt.Errorf("the directory for other providers: %w", err)
	}
	s := peer.NewServer(peer.ServerConfig{
		Hosts:       map[string]string{p.config.Domain: p.config.Domain, hostOnly(host): p.config.Domain},
		Directories: map[string]*peer.Directory{p.config.Domain: directory}, Chains: p.chains, Log: p.deps.log,
		Admit: p.edges.guard.Admit,
	})
	p.service.ServePeers(s)
	p.edges.routes(s)
	return s, nil
}

func hostOnly(hostport string) string {
	for i := range hostport {
		if hostport[i] == ':' {
			return hostport[:i]
		}
	}
	return hostport
}

// Run delivers, and follows what becomes of credentials.
func (p *providerComponent) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { p.edges.run(ctx) })
	wg.Go(func() { p.again(ctx, "trust", p.trust.Run) })
	wg.Go(func() { p.fetchAnew(ctx) })
	wg.Go(func() {
		p.again(ctx, "credentials", func(ctx context.Context) error { return p.service.Follow(ctx, p.evaluator) })
	})
	err := p.service.Run(ctx)
	wg.Wait()
	return errors.Join(err, p.close())
}

// fetchAnew fetches keys and revocations after a reload, whether they are due or
// not: who reloads after a revocation waits for no interval.
func (p *providerComponent) fetchAnew(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.anew:
		}
		for _, i := range p.trust.Snapshot().Issuers() {
			if err := p.trust.Refresh(ctx, i.Name); err != nil && ctx.Err() == nil {
				p.deps.log.Warn("what the trust configuration names was not all fetched anew", "issuer", i.Name, "err", err)
			}
		}
	}
}

// again runs what should not end, and starts it anew when it does. It is logged
// when that begins, not each time that it is tried.
func (p *providerComponent) again(ctx context.Context, what string, run func(context.Context) error) {
	failed := 0
	for ctx.Err() == nil {
		begun := time.Now()
		err := run(ctx)
		if time.Since(begun) > time.Minute {
			failed = 0
		}
		if failed++; err != nil && ctx.Err() == nil && failed == 1 {
			p.deps.log.Error("it ended and is started again, until it stays", "what", what, slog.Any("err", err))
		}
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
		}
	}
}

// Health asks the database.
func (p *providerComponent) Health(ctx context.Context) []daemon.Check {
	c := daemon.Check{Name: "provider database", Status: daemon.Up, Critical: true}
	if err := p.service.Check(ctx); err != nil {
		c.Status, c.Detail = daemon.Down, err.Error()
	}
	return []daemon.Check{c}
}

// Reload reads the trust configuration, the authorities of peers and the franking
// keys again, and has keys and revocations fetched anew.
func (p *providerComponent) Reload(ctx context.Context) (func(), error) {
	var roots *x509.CertPool
	if p.config.Peers != "" {
		var err error
		if roots, err = daemon.ReadPool(resolve(p.wiring.config.dir, p.config.PeerRoots)); err != nil {
			return nil, err
		}
	}
	if err := p.checkTrust(); err != nil {
		return nil, err
	}
	rekey, err := p.reloadFranking(ctx)
	if err != nil {
		return nil, err
	}
	return func() {
		rekey()
		if err := p.trust.Reload(); err != nil {
			p.deps.log.Error("the trust configuration changed while it was read; the old one stays", "err", err)
		}
		if roots != nil {
			p.mu.Lock()
			p.roots = roots
			p.mu.Unlock()
			p.chains.Forget()
		}
		select {
		case p.anew <- struct{}{}:
		default: // it is to be done already
		}
	}, nil
}

// checkTrust reads the trust configuration, and refuses what takes a restart.
func (p *providerComponent) checkTrust() error {
	next, err := trust.Open(p.trustFile(), trust.Options{})
	if err != nil {
		return err
	}
	defer next.Close()
	if next.Snapshot().Config.CredentialTypeNumbers != p.trust.Snapshot().Config.CredentialTypeNumbers {
		return fmt.Errorf("%s: credential_type_numbers has changed, which takes a restart", p.trustFile())
	}
	return nil
}
