//go:build soak

package stack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mls"
)

// Addresses are where a provider listens.
type addresses struct{ Clients, Providers string }

// A hubView is a room as its hub has it.
type hubView struct {
	Epoch   uint64
	Context []byte
	Members int
	Pending int
	Due     int // followers that are yet to hear something
}

// runProvider is the main function of a provider's process.
func runProvider(ctx context.Context, s *settings) error {
	db, err := openPatiently(ctx, s.Source)
	if err != nil {
		return err
	}
	service, listening, err := serveProvider(s, db)
	if err != nil {
		return err
	}
	go service.Run(ctx)
	return obey(json.NewEncoder(os.Stdout), func(o *order) (any, error) {
		switch o.Do {
		case "listen":
			return listening, nil
		case "inspect":
			return inspect(ctx, service, db, o.Room)
		}
		return nil, errors.New("no such order: " + o.Do)
	})
}

// openPatiently waits for a database that is down.
func openPatiently(ctx context.Context, source string) (db *sqldb.DB, err error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if db, err = provider.OpenDB(ctx, source); err == nil {
			return db, nil
		}
	}
	return nil, err
}

func serveProvider(s *settings, db *sqldb.DB) (*provider.Service, *addresses, error) {
	roots, err := s.roots()
	if err != nil {
		return nil, nil, err
	}
	cert, err := s.TLS.certificate()
	if err != nil {
		return nil, nil, err
	}
	cfg, err := s.provider(db)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Peers, err = s.peers(roots, cert); err != nil {
		return nil, nil, err
	}
	service, err := provider.New(*cfg)
	if err != nil {
		return nil, nil, err
	}
	chains := peer.NewChains(func() *x509.CertPool { return roots })
	others, err := s.peerServer(service, chains)
	if err != nil {
		return nil, nil, err
	}
	a := new(addresses)
	clientTLS := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	if a.Clients, err = listen(service.ClientHandler(), clientTLS); err != nil {
		return nil, nil, err
	}
	a.Providers, err = listen(others, chains.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
	return service, a, err
}

// provider is the configuration of the service without its peers.
func (s *settings) provider(db *sqldb.DB) (*provider.Config, error) {
	evaluator, err := s.evaluator()
	if err != nil {
		return nil, err
	}
	keys, err := s.hubKeys()
	if err != nil {
		return nil, err
	}
	mac, franks := mimi.SoftwareMAC(s.MAC), new(mimi.FrankingKeys)
	franks.AddMAC(0, mimi.MaxTimestamp, mac)
	franks.AddSignatureKey(0, mimi.MaxTimestamp, suite, keys.Franking.SignatureKey)
	return &provider.Config{
		Domain: s.Host, DB: db, Evaluator: hub.TrustEvaluator{Evaluator: evaluator}, MAC: mac, Franks: franks,
		Keys: func(c mls.CipherSuite) *provider.Keys {
			if c != suite {
				return nil
			}
			return keys
		},
		Poll: 100 * time.Millisecond, Log: logger(),
	}, nil
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (s *settings) hubKeys() (*provider.Keys, error) {
	sender, err := s.Sender.key()
	if err != nil {
		return nil, err
	}
	franking, err := s.Franking.key()
	if err != nil {
		return nil, err
	}
	senderPublic, err := sender.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	frankingPublic, err := franking.PublicKey.Bytes()
	return &provider.Keys{
		Sender: mls.ExternalSender{SignatureKey: senderPublic, Credential: s.Sender.credential()}, SenderSigner: sender,
		Franking: mimi.FrankingAgent{SignatureKey: frankingPublic, Credential: s.Franking.credential()}, FrankSigner: franking,
	}, err
}

// peers finds other providers at the ends of links.
func (s *settings) peers(roots *x509.CertPool, cert tls.Certificate) (*peer.Client, error) {
	return peer.NewClient(peer.ClientConfig{
		Domain: s.Host, Certificate: func() (*tls.Certificate, error) { return &cert, nil }, Roots: func() *x509.CertPool { return roots },
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, network, s.Links[host])
		},
	})
}

func (s *settings) peerServer(service *provider.Service, chains *peer.Chains) (*peer.Server, error) {
	directory, err := peer.NewDirectory(s.Host, provider.Endpoints()...)
	if err != nil {
		return nil, err
	}
	server := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{s.Host: s.Host}, Directories: map[string]*peer.Directory{s.Host: directory}, Chains: chains, Log: logger(),
	})
	service.ServePeers(server)
	return server, nil
}

// listen serves on a port of loopback until the process ends.
func listen(h http.Handler, config *tls.Config) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: h, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	go server.ServeTLS(l, "", "")
	return l.Addr().String(), nil
}

func inspect(ctx context.Context, service *provider.Service, db *sqldb.DB, room string) (*hubView, error) {
	uri, err := mimi.ParseURI(room)
	if err != nil {
		return nil, err
	}
	i, err := service.Inspect(ctx, uri)
	if err != nil {
		return nil, err
	}
	v := &hubView{Epoch: i.Epoch, Context: i.Context[:], Members: len(i.Members), Pending: i.Pending}
	err = db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `SELECT count(*) FROM follower WHERE due IS NOT NULL`).Scan(&v.Due)
	})
	return v, err
}
