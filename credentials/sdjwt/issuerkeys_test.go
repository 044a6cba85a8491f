package sdjwt_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// certify returns a certificate for pub by the CA, or by itself if ca is nil.
func certify(t testing.TB, pub crypto.PublicKey, ca *x509.Certificate, caKey crypto.Signer, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	edit(c)
	if ca == nil {
		ca = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, pub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func isCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
}

func TestCertifiedKeys(t *testing.T) {
	rootKey, midKey, key := ecKey(t, elliptic.P384()), ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	root := certify(t, rootKey.Public(), nil, rootKey, isCA)
	mid := certify(t, midKey.Public(), root, rootKey, isCA)
	leaf := func(edit func(*x509.Certificate)) []byte { return certify(t, key.Public(), mid, midKey, edit).Raw }
	byURI := func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "https", Host: "issuer.example"}} }
	pool, other := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(root)
	other.AddCert(certify(t, key.Public(), nil, key, isCA))
	for name, c := range map[string]struct {
		chain [][]byte
		keys  sdjwt.CertifiedKeys
		iss   string
		want  credentials.Code
	}{
		"URI":            {[][]byte{leaf(byURI), mid.Raw}, sdjwt.CertifiedKeys{Roots: pool}, issuerName, ""},
		"DNS":            {[][]byte{leaf(func(c *x509.Certificate) { c.DNSNames = []string{"issuer.example"} }), mid.Raw}, sdjwt.CertifiedKeys{Roots: pool}, issuerName, ""},
		"no iss":         {[][]byte{leaf(byURI), mid.Raw}, sdjwt.CertifiedKeys{Roots: pool}, "", ""},
		"with the root":  {[][]byte{leaf(byURI), mid.Raw, root.Raw}, sdjwt.CertifiedKeys{Roots: pool}, issuerName, ""},
		"own match":      {[][]byte{leaf(func(*x509.Certificate) {}), mid.Raw}, sdjwt.CertifiedKeys{Roots: pool, Match: func(string, *x509.Certificate) bool { return true }}, issuerName, ""},
		"no chain":       {nil, sdjwt.CertifiedKeys{Roots: pool}, issuerName, credentials.CodeIssuerKey},
		"no middle":      {[][]byte{leaf(byURI)}, sdjwt.CertifiedKeys{Roots: pool}, issuerName, credentials.CodeChain},
		"other root":     {[][]byte{leaf(byURI), mid.Raw}, sdjwt.CertifiedKeys{Roots: other}, issuerName, credentials.CodeChain},
		"no roots":       {[][]byte{leaf(byURI), mid.Raw}, sdjwt.CertifiedKeys{}, issuerName, credentials.CodeChain},
		"no certificate": {[][]byte{{1, 2, 3}}, sdjwt.CertifiedKeys{Roots: pool}, issuerName, credentials.CodeChain},
		"expired": {[][]byte{leaf(func(c *x509.Certificate) { byURI(c); c.NotAfter = now.Add(-time.Minute) }), mid.Raw},
			sdjwt.CertifiedKeys{Roots: pool}, issuerName, credentials.CodeChain},
		"other name": {[][]byte{leaf(byURI), mid.Raw}, sdjwt.CertifiedKeys{Roots: pool}, "https://other.example", credentials.CodeIssuerUnknown},
		"key usage": {[][]byte{leaf(func(c *x509.Certificate) { byURI(c); c.KeyUsage = x509.KeyUsageKeyAgreement }), mid.Raw},
			sdjwt.CertifiedKeys{Roots: pool}, issuerName, credentials.CodeKeyUsage},
	} {
		i := &sdjwt.Issuer{Key: key, Name: c.iss, Certificates: c.chain}
		token := issue(t, i, sdjwt.Request{Claims: []byte(`{"vct":"urn:x"}`)})
		p := boundPolicy(key.Public())
		p.Issuers, p.KeyBinding = c.keys, sdjwt.KeyBindingNotRequired
		got, err := newVerifier(t, p).Verify(context.Background(), token, sdjwt.Expect{})
		if credentials.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err == nil && len(got.Certificates) != len(c.chain) {
			t.Errorf("%s: %d certificates", name, len(got.Certificates))
		}
	}
}
