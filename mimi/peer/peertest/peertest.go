// Package peertest is a small internet of providers for tests: a certificate
// authority, servers on loopback that answer to the names of providers, and
// clients that find them there.
package peertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/peer"
)

// A Net is the internet of one test.
type Net struct {
	CA    *x509.Certificate
	Roots *x509.CertPool
	key   *ecdsa.PrivateKey

	mu    sync.Mutex // guards addrs and dials
	addrs map[string]string
	dials int
}

// New returns an empty internet.
func New(tb testing.TB) *Net {
	tb.Helper()
	n := &Net{addrs: make(map[string]string), Roots: x509.NewCertPool()}
	n.key = newKey(tb)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "providers of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	n.CA = sign(tb, template, template, n.key, n.key)
	n.Roots.AddCert(n.CA)
	return n
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func sign(tb testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// Certificate returns a certificate of the CA for names, good for an hour.
func (n *Net) Certificate(tb testing.TB, names ...string) tls.Certificate {
	tb.Helper()
	return n.CertificateUntil(tb, time.Now().Add(time.Hour), names...)
}

// CertificateUntil is Certificate with its end.
func (n *Net) CertificateUntil(tb testing.TB, end time.Time, names ...string) tls.Certificate {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	key := newKey(tb)
	leaf := sign(tb, &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: end, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, n.CA, key, n.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// Serve starts an HTTPS server for names and returns its address. Its
// certificate has the names; it asks callers for theirs.
func (n *Net) Serve(tb testing.TB, h http.Handler, names ...string) string {
	tb.Helper()
	return n.ServeAs(tb, h, n.Certificate(tb, names...), names...)
}

// ServeAs is Serve with a certificate of the caller's choice.
func (n *Net) ServeAs(tb testing.TB, h http.Handler, cert tls.Certificate, names ...string) string {
	tb.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(discard{}, "", 0)
	s.TLS = n.Chains().TLS(&tls.Config{Certificates: []tls.Certificate{cert}})
	s.StartTLS()
	tb.Cleanup(s.Close)
	addr := s.Listener.Addr().String()
	for _, name := range names {
		n.Name(name, addr)
	}
	return addr
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// Chains returns a verifier on the CA.
func (n *Net) Chains() *peer.Chains {
	return peer.NewChains(func() *x509.CertPool { return n.Roots })
}

// Name makes a host name lead to an address; an empty address to nothing.
func (n *Net) Name(host, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[host] = addr
}

// Dials returns how many connections were asked for.
func (n *Net) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// DialContext opens a connection to the server that has the name in addr.
func (n *Net) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	to := n.addrs[host]
	n.dials++
	n.mu.Unlock()
	if to == "" {
		return nil, fmt.Errorf("no server has the name %s", host)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, to)
}

// Client returns a client of a provider, with a certificate for its domain.
func (n *Net) Client(tb testing.TB, domain string) *peer.Client {
	tb.Helper()
	return n.ClientAs(tb, domain, n.Certificate(tb, domain))
}

// ClientAs is Client with a certificate of the caller's choice.
func (n *Net) ClientAs(tb testing.TB, domain string, cert tls.Certificate) *peer.Client {
	tb.Helper()
	c, err := peer.NewClient(peer.ClientConfig{
		Domain:      domain,
		Certificate: func() (*tls.Certificate, error) { return &cert, nil },
		Roots:       func() *x509.CertPool { return n.Roots },
		DialContext: n.DialContext,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}
