// Package identitytest makes authorities, devices and the trust configuration
// that believes them, for tests of whatever asks an identity.Evaluator.
package identitytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

// A CA is a root that certifies devices and hubs directly.
type CA struct {
	Key         *ecdsa.PrivateKey
	Certificate *x509.Certificate
	// CRL and OCSP are written into certificates.
	CRL, OCSP []string
	now       func() time.Time
}

// NewCA makes a root.
func NewCA(tb testing.TB, name string, now func() time.Time) *CA {
	tb.Helper()
	if now == nil {
		now = time.Now
	}
	ca := &CA{Key: NewKey(tb), now: now}
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: name}, NotBefore: now().Add(-time.Hour), NotAfter: now().AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca.Certificate = create(tb, template, template, &ca.Key.PublicKey, ca.Key)
	return ca
}

// NewKey makes a P-256 key.
func NewKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func serial(tb testing.TB) *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		tb.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}

func create(tb testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Issue certifies a key for mimi: URIs: a client and its user, or a provider
// alone. It lives so long from an instant before now.
func (ca *CA) Issue(tb testing.TB, pub crypto.PublicKey, lifetime time.Duration, uris ...string) *x509.Certificate {
	tb.Helper()
	notBefore := ca.now().Add(-time.Minute)
	t := &x509.Certificate{
		SerialNumber: serial(tb), NotBefore: notBefore, NotAfter: notBefore.Add(lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{certs.OIDIMURI}, CRLDistributionPoints: ca.CRL, OCSPServer: ca.OCSP,
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			tb.Fatal(err)
		}
		t.URIs = append(t.URIs, u)
	}
	return create(tb, t, ca.Certificate, pub, ca.Key)
}

// Day is the longest life of a certificate that cannot be revoked.
const Day = 24 * time.Hour

// Client certifies a client of a user and returns its MLS credential.
func (ca *CA) Client(tb testing.TB, pub crypto.PublicKey, client, user string) mls.Credential {
	tb.Helper()
	return mls.X509Credential([][]byte{ca.Issue(tb, pub, Day, client, user).Raw})
}

// Hub certifies a provider, such as "mimi://hub.example".
func (ca *CA) Hub(tb testing.TB, pub crypto.PublicKey, provider string) mls.Credential {
	tb.Helper()
	return mls.X509Credential([][]byte{ca.Issue(tb, pub, Day, provider).Raw})
}

// Issuer is an entry of a trust configuration in JSON terms.
type Issuer = map[string]any

// Entry returns the configuration entry that believes the CA for devices and
// hubs of the hosts, without revocation. Its anchor is written to dir.
func (ca *CA) Entry(tb testing.TB, dir, name string, hosts ...string) Issuer {
	tb.Helper()
	file := filepath.Join(dir, name+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw}), 0o600); err != nil {
		tb.Fatal(err)
	}
	var grants []any
	for _, h := range hosts {
		grants = append(grants, map[string]any{"host": h, "paths": []string{"d/*/*", "d/*", "u/*", "p/*", ""}})
	}
	return Issuer{
		"name": name, "type": "x509", "roles": []string{"client", "hub"}, "keys": map[string]any{"source": "anchors", "file": name + ".pem"},
		"grants": grants, "revocation": map[string]any{"mode": "none"},
	}
}

// WriteConfig writes a trust configuration into dir, with further members, and
// returns its path.
func WriteConfig(tb testing.TB, dir string, more map[string]any, issuers ...Issuer) string {
	tb.Helper()
	config := map[string]any{"version": 1, "issuers": append([]Issuer{}, issuers...)}
	for k, v := range more {
		config[k] = v
	}
	text, err := json.Marshal(config)
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "trust.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Open reads a trust configuration and returns it with an Evaluator.
func Open(tb testing.TB, path string, now func() time.Time) (*trust.List, *identity.Evaluator) {
	tb.Helper()
	l, err := trust.Open(path, trust.Options{Now: now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.Close)
	return l, identity.NewEvaluator(l, identity.EvaluatorOptions{Now: now})
}

// NewEvaluator makes one CA that is believed for devices and hubs of the hosts,
// and the Evaluator that believes it.
func NewEvaluator(tb testing.TB, hosts ...string) (*CA, *identity.Evaluator) {
	tb.Helper()
	dir, ca := tb.TempDir(), NewCA(tb, "Test root", nil)
	_, e := Open(tb, WriteConfig(tb, dir, nil, ca.Entry(tb, dir, "test", hosts...)), nil)
	return ca, e
}
