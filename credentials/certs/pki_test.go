package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/internal/pgtest"
)

// t0 is the time in the tests that judge by a fixed time.
var t0 = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const (
	clientURI = "mimi://acme.example/d/alice/phone"
	userURI   = "mimi://acme.example/u/alice"
	crlURL    = "http://crl.acme.example/devices.crl"
	ocspURL   = "http://ocsp.acme.example/"
)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func mustKey(t testing.TB, scheme *credentials.Scheme) crypto.Signer {
	t.Helper()
	if scheme == credentials.Ed25519 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		return key
	}
	key, err := ecdsa.GenerateKey(scheme.Curve(), rand.Reader)
	must(t, err)
	return key
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code credentials.Code) {
	t.Helper()
	if got := credentials.CodeOf(err); got != code {
		t.Errorf("error %v, want code %s", err, code)
	}
}

func deviceNames(t testing.TB) certs.Names {
	t.Helper()
	n, err := certs.DeviceNames(clientURI, userURI)
	must(t, err)
	return n
}

func hubNames(t testing.TB) certs.Names {
	t.Helper()
	n, err := certs.ProviderNames("mimi://acme.example")
	must(t, err)
	return n
}

func TestMain(m *testing.M) { pgtest.Main(m) }

// onBoth runs a test on both engines; openStore knows by the test's name.
func onBoth(t *testing.T, test func(t *testing.T)) {
	t.Run("SQLite", test)
	t.Run("PostgreSQL", test)
}

// source returns an empty database for the test.
func source(t testing.TB) string {
	if strings.Contains(t.Name(), "/PostgreSQL") {
		return pgtest.Database(t)
	}
	return filepath.Join(t.TempDir(), "certs.db")
}

// openStore returns an empty store.
func openStore(t testing.TB) *certs.SQLStore {
	t.Helper()
	s, err := certs.OpenSQLStore(t.Context(), source(t))
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// A testCA is a root, an issuing CA and their issuers.
type testCA struct {
	rootKey, key  crypto.Signer
	rootCert      *x509.Certificate
	cert          *x509.Certificate
	root, issuing *certs.Issuer
}

func newTestCA(t testing.TB, scheme *credentials.Scheme, store certs.Store, now func() time.Time) *testCA {
	t.Helper()
	ca := &testCA{rootKey: mustKey(t, scheme), key: mustKey(t, scheme)}
	var err error
	ca.rootCert, err = certs.CreateRoot(t.Context(), ca.rootKey, store, now, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme root"}})
	must(t, err)
	ca.root, err = certs.NewIssuer(certs.Config{Key: ca.rootKey, Certificate: ca.rootCert, Store: store, Now: now})
	must(t, err)
	ca.cert, err = ca.root.CreateIssuingCA(t.Context(), ca.key, certs.CAOrder{
		Subject: pkix.Name{Organization: []string{"Acme"}, CommonName: "Acme devices"}, Hosts: []string{"acme.example"},
		Profile: certs.Profile{CRL: []string{"http://crl.acme.example/root.crl"}},
	})
	must(t, err)
	ca.issuing, err = certs.NewIssuer(certs.Config{Key: ca.key, Certificate: ca.cert, Store: store, Now: now, Profile: certs.Profile{CRL: []string{crlURL}, OCSP: []string{ocspURL}}})
	must(t, err)
	return ca
}

func (ca *testCA) entry() certs.Entry {
	return certs.Entry{Name: "acme", Anchors: []*x509.Certificate{ca.rootCert}}
}

// request returns a parsed request of key for names.
func request(t testing.TB, key crypto.Signer, names certs.Names, nonce []byte) *certs.Request {
	t.Helper()
	der, err := certs.CreateRequest(rand.Reader, key, names, nonce)
	must(t, err)
	r, err := certs.ParseRequest(der)
	must(t, err)
	return r
}

func issue(t testing.TB, i *certs.Issuer, o certs.Order) *x509.Certificate {
	t.Helper()
	p, err := i.Prepare(t.Context(), o)
	must(t, err)
	cert, err := i.Issue(t.Context(), p)
	must(t, err)
	return cert
}

// checkOf is a check of a chain for the leaf's own key.
func checkOf(t testing.TB, leafKey crypto.PublicKey, chain ...*x509.Certificate) certs.Check {
	t.Helper()
	scheme, err := credentials.SchemeOf(leafKey)
	must(t, err)
	point, err := credentials.MLSPublicKey(leafKey)
	must(t, err)
	c := certs.Check{Scheme: scheme, SignatureKey: point, At: t0}
	for _, cert := range chain {
		c.Certificates = append(c.Certificates, cert.Raw)
	}
	return c
}

func writePEM(t testing.TB, dir, name, kind string, ders ...[]byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	must(t, os.WriteFile(path, out, 0o600))
	return path
}
