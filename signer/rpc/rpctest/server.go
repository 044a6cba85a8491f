// Package rpctest serves a signing service on loopback for tests, over mutual
// TLS, with callers enrolled as in life.
package rpctest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/rpc"
	"github.com/privyseal/privyseal/signer/service/servicetest"
)

// A Server is a service that can be called.
type Server struct {
	*servicetest.House
	URL       string
	Roots     *x509.CertPool
	Authority *access.Authority

	http *http.Server
	tls  *tls.Config
	leaf *x509.Certificate
}

// Start serves h, with change, if not nil, adjusting the handler. The key
// caller-ca, which it makes in the device of that name, signs the callers'
// certificates.
func Start(t testing.TB, h *servicetest.House, device string, change func(*rpc.Config)) *Server {
	t.Helper()
	s := &Server{House: h, Roots: x509.NewCertPool()}
	h.Key("caller-ca", signer.PurposeX509CA, device)
	var err error
	s.Authority, err = access.NewAuthority(h.Access, 0, func(ctx context.Context) (crypto.Signer, error) {
		return h.Service.HouseSigner(ctx, "caller-ca", signer.PurposeX509CA, "caller-ca")
	})
	s.must(err)
	c := rpc.Config{Service: h.Service, Access: h.Access, Authority: s.Authority, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	cert := s.certificate()
	s.tls = rpc.TLSConfig(func() (*tls.Certificate, error) { return cert, nil }, s.Authority.Pool)
	s.listen("127.0.0.1:0", rpc.NewHandler(c))
	t.Cleanup(s.Stop)
	return s
}

func (s *Server) listen(address string, h http.Handler) {
	s.T.Helper()
	l, err := net.Listen("tcp", address)
	s.must(err)
	s.URL = "https://" + l.Addr().String()
	server := rpc.NewServer(h, s.tls, slog.New(slog.DiscardHandler))
	s.http = server
	go server.ServeTLS(l, "", "")
}

// Stop ends the server and its connections.
func (s *Server) Stop() { s.http.Close() }

// Restart ends all connections and serves again on the same port.
func (s *Server) Restart() {
	s.T.Helper()
	address, h := s.URL[len("https://"):], s.http.Handler
	s.http.Close()
	s.listen(address, h)
}

// certificate makes a self-signed certificate for loopback.
func (s *Server) certificate() *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	s.must(err)
	leaf, err := x509.ParseCertificate(der)
	s.must(err)
	s.Roots.AddCert(leaf)
	s.leaf = leaf
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Invite returns a token; grants are as access.ParseGrant has them.
func (s *Server) Invite(tenant, name string, role access.Role, grants ...string) string {
	s.T.Helper()
	token, _, err := s.Access.Invite(context.Background(), access.Invitation{Tenant: tenant, Name: name, Role: role,
		Grants: servicetest.Client(s.T, tenant, name, grants...).Grants})
	s.must(err)
	return token.Reveal()
}

// Anonymous returns a client without a certificate.
func (s *Server) Anonymous() *client.Client {
	s.T.Helper()
	c, err := client.New(client.Config{Address: s.URL, Roots: s.Roots})
	s.must(err)
	s.T.Cleanup(c.Close)
	return c
}

// Caller invites and enrolls a caller and returns its client.
func (s *Server) Caller(tenant, name string, role access.Role, grants ...string) *client.Client {
	s.T.Helper()
	return s.Client(s.Identity(tenant, name, role, grants...), nil)
}

// Identity invites and enrolls a caller.
func (s *Server) Identity(tenant, name string, role access.Role, grants ...string) *client.Identity {
	s.T.Helper()
	i, err := client.Enroll(context.Background(), s.Anonymous(), s.T.TempDir(), s.Invite(tenant, name, role, grants...))
	s.must(err)
	return i
}

// Client returns a client with an identity; change, if not nil, adjusts it.
func (s *Server) Client(i *client.Identity, change func(*client.Config)) *client.Client {
	s.T.Helper()
	config := client.Config{Address: s.URL, Roots: s.Roots, Certificate: i.Certificate}
	if change != nil {
		change(&config)
	}
	c, err := client.New(config)
	s.must(err)
	s.T.Cleanup(c.Close)
	return c
}

func (s *Server) must(err error) {
	s.T.Helper()
	if err != nil {
		s.T.Fatal(err)
	}
}

// Leaf returns the server's own certificate.
func (s *Server) Leaf() *x509.Certificate { return s.leaf }
