package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

// demoSuite is what every room of the demonstration uses: tokens and TPMs all
// have P-256.
const demoSuite = mls.P256AES128SHA256P256

var demoHosts = []string{"a.example", "b.example", "c.example"}

// demoRoomsCA certifies the clients and hubs of all three providers.
const demoRoomsCA = "rooms-ca"

// A demoProvider is one provider: hub of its rooms, follower of others.
type demoProvider struct {
	host      string
	service   *provider.Service
	trust     *trust.List
	evaluator *identity.Evaluator
	clients   string // URL of the API for its own clients
	stop      func() error
}

// providers starts three providers, each with its hub keys in the token.
func (d *demo) providers(ctx context.Context) (err error) {
	if d.net, err = newDemoNet(); err != nil {
		return err
	}
	if err := d.roomsAuthority(ctx); err != nil {
		return err
	}
	d.hosts = make(map[string]*demoProvider)
	for _, host := range demoHosts {
		if d.hosts[host], err = d.startProvider(ctx, host); err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
	}
	d.did("three providers on loopback", "%s, mutual TLS", strings.Join(demoHosts, ", "))
	d.did("franking MAC, franking and hub keys of each", "in the token; each message is stored and franked before it is acknowledged")
	return nil
}

// roomsAuthority makes the CA of the rooms, publishes its CRL and writes the
// trust configuration that everybody goes by.
func (d *demo) roomsAuthority(ctx context.Context) error {
	if _, err := d.createKey(ctx, signer.NewKey{ID: demoRoomsCA, Purpose: signer.PurposeX509CA, Device: "softhsm"}); err != nil {
		return err
	}
	crls, err := d.serveCRL()
	if err != nil {
		return err
	}
	chain, err := d.createCA(ctx, &caOptions{
		key: demoRoomsCA, issuer: "root", name: "Demo Rooms CA", hosts: demoHosts, crl: []string{crls + "/" + demoRoomsCA + ".crl"},
	})
	if err != nil {
		return err
	}
	d.rooms.chain = chain
	if err := d.publishCRL(ctx); err != nil {
		return err
	}
	return d.writeTrust(crls+"/root.crl", crls+"/"+demoRoomsCA+".crl")
}

func (d *demo) createKey(ctx context.Context, k signer.NewKey) (*signer.Key, error) {
	return d.ring.Create(ctx, k)
}

// writeTrust believes the rooms' CA for the three hosts, as long as its CRL is
// fresh and does not have the certificate.
func (d *demo) writeTrust(crls ...string) error {
	if _, err := d.save("tls-roots.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.net.authority.Certificate[0]})); err != nil {
		return err
	}
	root := d.rooms.chain[len(d.rooms.chain)-1]
	if _, err := d.save("trust-root.pem", []byte(pemChain([]*x509.Certificate{root})[0])); err != nil {
		return err
	}
	var grants []any
	for _, h := range demoHosts {
		grants = append(grants, map[string]any{"host": h, "paths": []string{"d/*/*", "u/*", ""}})
	}
	config, err := json.MarshalIndent(map[string]any{
		"version": 1,
		"fetch":   map[string]any{"allow_private": []string{"127.0.0.0/8"}, "ca_file": "tls-roots.pem"},
		"issuers": []any{map[string]any{
			"name": demoRoomsCA, "type": "x509", "roles": []string{"client", "hub"},
			"keys": map[string]any{"source": "anchors", "file": "trust-root.pem"}, "grants": grants,
			"revocation": map[string]any{"mode": "hard", "methods": []string{"crl"}, "crl": crls},
		}},
	}, "", "  ")
	if err != nil {
		return err
	}
	_, err = d.save("trust.json", config)
	return err
}

// startProvider makes the keys and certificates of a provider and serves it.
func (d *demo) startProvider(ctx context.Context, host string) (*demoProvider, error) {
	p := &demoProvider{host: host}
	keys, mac, franks, err := d.hubKeys(ctx, host)
	if err != nil {
		return nil, err
	}
	if p.trust, err = trust.Open(filepath.Join(d.dir, "trust.json"), trust.Options{}); err != nil {
		return nil, err
	}
	uri, err := mimi.NewURI(host, mimi.KindProvider)
	if err != nil {
		return nil, err
	}
	p.evaluator = identity.NewEvaluator(p.trust, identity.EvaluatorOptions{Provider: uri})
	db, err := provider.OpenDB(ctx, filepath.Join(d.dir, host+".db"))
	if err != nil {
		return nil, err
	}
	identityOf, err := d.net.certificate(host)
	if err != nil {
		return nil, err
	}
	peers, err := peer.NewClient(peer.ClientConfig{
		Domain: host, DialContext: d.net.dial, Roots: func() *x509.CertPool { return d.net.roots },
		Certificate: func() (*tls.Certificate, error) { return &identityOf, nil },
	})
	if err != nil {
		return nil, err
	}
	p.service, err = provider.New(provider.Config{
		Domain: host, DB: db, Evaluator: hub.TrustEvaluator{Evaluator: p.evaluator}, MAC: mac, Franks: franks, Peers: peers,
		Keys: func(s mls.CipherSuite) *provider.Keys {
			if s != demoSuite {
				return nil
			}
			return keys
		},
		Poll: 20 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	if err := d.servePeers(p, identityOf); err != nil {
		return nil, err
	}
	if err := d.serveClients(p, identityOf); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { p.service.Run(run) })
	done.Go(func() { p.service.Follow(run, p.evaluator) })
	p.stop = func() error {
		cancel()
		done.Wait()
		peers.Close()
		p.trust.Close()
		return db.Close()
	}
	return p, nil
}

func (d *demo) servePeers(p *demoProvider, cert tls.Certificate) error {
	directory, err := peer.NewDirectory(p.host, provider.Endpoints()...)
	if err != nil {
		return err
	}
	chains := peer.NewChains(func() *x509.CertPool { return d.net.roots })
	s := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{p.host: p.host}, Directories: map[string]*peer.Directory{p.host: directory}, Chains: chains,
	})
	p.service.ServePeers(s)
	_, err = d.net.serve(s, p.host, chains.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
	return err
}

func (d *demo) serveClients(p *demoProvider, cert tls.Certificate) error {
	addr, err := d.net.serve(p.service.ClientHandler(), "", &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
	})
	p.clients = "https://" + addr
	return err
}

// hubKeys makes a provider's keys in the token and has them certified.
func (d *demo) hubKeys(ctx context.Context, host string) (*provider.Keys, mimi.MAC, *mimi.FrankingKeys, error) {
	sender, chain, err := d.certifiedHubKey(ctx, host, "sender", signer.PurposeHubSender)
	if err != nil {
		return nil, nil, nil, err
	}
	franking, frankingChain, err := d.certifiedHubKey(ctx, host, "frank", signer.PurposeFrankSign)
	if err != nil {
		return nil, nil, nil, err
	}
	macID := signer.KeyID(host + ".mac")
	if _, err := d.createKey(ctx, signer.NewKey{ID: macID, Purpose: signer.PurposeFrankMAC, Device: "softhsm"}); err != nil {
		return nil, nil, nil, err
	}
	mac, err := d.ring.MAC(ctx, macID, signer.PurposeFrankMAC)
	if err != nil {
		return nil, nil, nil, err
	}
	senderKey, err := mlsPublicKey(sender)
	if err != nil {
		return nil, nil, nil, err
	}
	frankingKey, err := mlsPublicKey(franking)
	if err != nil {
		return nil, nil, nil, err
	}
	franks := new(mimi.FrankingKeys)
	franks.AddMAC(0, mimi.MaxTimestamp, mac)
	franks.AddSignatureKey(0, mimi.MaxTimestamp, demoSuite, frankingKey)
	return &provider.Keys{
		Sender: mls.ExternalSender{SignatureKey: senderKey, Credential: mls.X509Credential(chain)}, SenderSigner: sender,
		Franking:    mimi.FrankingAgent{SignatureKey: frankingKey, Credential: mls.X509Credential(frankingChain)},
		FrankSigner: franking,
	}, mac, franks, nil
}

func (d *demo) certifiedHubKey(ctx context.Context, host, what string, purpose signer.Purpose) (*signer.Signer, [][]byte, error) {
	id := signer.KeyID(host + "." + what)
	if _, err := d.createKey(ctx, signer.NewKey{ID: id, Purpose: purpose, Device: "softhsm"}); err != nil {
		return nil, nil, err
	}
	key, err := d.ring.Signer(ctx, id, purpose)
	if err != nil {
		return nil, nil, err
	}
	names, err := certs.ProviderNames("mimi://" + host)
	if err != nil {
		return nil, nil, err
	}
	chain, err := d.certify(ctx, key, names)
	return key, chain, err
}

// certify has the rooms' CA certify a key that signed for itself, and returns
// the chain without the root.
func (d *demo) certify(ctx context.Context, key crypto.Signer, names certs.Names) (chain [][]byte, err error) {
	der, err := certs.CreateRequest(rand.Reader, key, names, nil)
	if err != nil {
		return nil, err
	}
	request, err := certs.ParseRequest(der)
	if err != nil {
		return nil, err
	}
	err = d.withBook(ctx, func(b *registry.Store) error {
		issuer, above, err := d.openIssuer(ctx, demoRoomsCA, b.Certificates())
		if err != nil {
			return err
		}
		prepared, err := issuer.Prepare(ctx, certs.Order{Request: request, Names: names, Lifetime: 30 * 24 * time.Hour})
		if err != nil {
			return err
		}
		leaf, err := issuer.Issue(ctx, prepared)
		if err != nil {
			return err
		}
		for _, c := range append([]*x509.Certificate{leaf}, above[:len(above)-1]...) {
			chain = append(chain, c.Raw)
		}
		return nil
	})
	return chain, err
}

// closeRooms ends the clients, the providers and the servers.
func (d *demo) closeRooms() error {
	var errs []error
	for _, p := range d.people {
		errs = append(errs, p.Close())
	}
	errs = append(errs, d.appliance.close())
	for _, p := range d.hosts {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	if d.net != nil {
		errs = append(errs, d.net.Close())
	}
	return errors.Join(errs...)
}
