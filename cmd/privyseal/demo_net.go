package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// A demoNet is the internet of the demonstration: one authority for TLS whose
// key lives as long as the run, and servers on loopback that answer to the
// names of providers.
type demoNet struct {
	authority tls.Certificate
	roots     *x509.CertPool

	mu      sync.Mutex // guards what follows
	addrs   map[string]string
	servers []*http.Server
}

const demoTLSLifetime = 2 * time.Hour

func newDemoNet() (*demoNet, error) {
	n := &demoNet{roots: x509.NewCertPool(), addrs: make(map[string]string)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TLS authority of the demonstration"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(demoTLSLifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	n.authority = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	n.roots.AddCert(leaf)
	return n, nil
}

// certificate makes a TLS certificate for names, or for a client without any.
func (n *demoNet) certificate(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, Subject: pkix.Name{CommonName: "demonstration"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(demoTLSLifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, n.authority.Leaf, &key.PublicKey, n.authority.PrivateKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// serve starts an HTTPS server on loopback and returns its address. If it has a
// name, that leads to it from now on.
func (n *demoNet) serve(h http.Handler, name string, config *tls.Config) (string, error) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	addr := l.Addr().String()
	n.mu.Lock()
	n.servers = append(n.servers, s)
	if name != "" {
		n.addrs[name] = addr
	}
	n.mu.Unlock()
	go s.Serve(l)
	return addr, nil
}

// dial opens a connection to the server with the name in addr.
func (n *demoNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	to, known := n.addrs[host]
	n.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("the demonstration has no host %q", host)
	}
	return new(net.Dialer).DialContext(ctx, network, to)
}

// Close ends every server.
func (n *demoNet) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, s := range n.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
