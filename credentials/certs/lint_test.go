package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// A draft is a device certificate that the linter passes, to be spoiled.
type draft struct {
	kind  certs.Kind
	tmpl  *x509.Certificate
	uris  []string // in the certificate
	names []string // in the order
	key   crypto.PublicKey
	want  crypto.PublicKey
	noSAN bool
	sanNC bool // the alternative name is not critical
}

func newDraft(t testing.TB) *draft {
	key := p256(t).Public()
	return &draft{
		kind: certs.KindDevice, key: key, want: key, uris: []string{clientURI, userURI}, names: []string{clientURI, userURI},
		tmpl: &x509.Certificate{
			SerialNumber: new(big.Int).Lsh(big.NewInt(1), 100), NotBefore: t0, NotAfter: t0.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
			UnknownExtKeyUsage: []asn1.ObjectIdentifier{certs.OIDIMURI}, BasicConstraintsValid: true, SubjectKeyId: make([]byte, 20),
		},
	}
}

func (d *draft) caTemplate(kind certs.Kind) {
	d.kind, d.noSAN, d.names = kind, true, []string{"CN=x"}
	d.tmpl.IsCA, d.tmpl.KeyUsage, d.tmpl.Subject = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, pkix.Name{CommonName: "x"}
	d.tmpl.MaxPathLenZero, d.tmpl.PermittedURIDomains, d.tmpl.PermittedDNSDomainsCritical = true, []string{"acme.example"}, true
}

func (d *draft) ocspTemplate() {
	d.kind, d.noSAN, d.names = certs.KindOCSP, true, []string{"CN=x"}
	d.tmpl.UnknownExtKeyUsage, d.tmpl.ExtKeyUsage, d.tmpl.Subject = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, pkix.Name{CommonName: "x"}
	d.tmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: asn1.NullBytes}}
}

var badDrafts = []struct {
	name, finding string
	spoil         func(t testing.TB, d *draft)
}{
	{"short serial number", "serial number of", func(_ testing.TB, d *draft) { d.tmpl.SerialNumber = big.NewInt(1 << 60) }},
	{"long serial number", "serial number of", func(_ testing.TB, d *draft) { d.tmpl.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 159) }},
	{"another key", "certifies another key", func(t testing.TB, d *draft) { d.want = p256(t).Public() }},
	{"key on P-224", "scheme that MLS does not have", func(t testing.TB, d *draft) {
		key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
		must(t, err)
		d.key, d.want = key.Public(), key.Public()
	}},
	{"no lifetime", "ends before it begins", func(_ testing.TB, d *draft) { d.tmpl.NotAfter = d.tmpl.NotBefore }},
	{"too long a lifetime", "lifetime", func(_ testing.TB, d *draft) { d.tmpl.NotAfter = t0.Add(certs.DefaultLifetime + time.Second) }},
	{"long-lived without revocation", "neither a CRL nor OCSP", func(_ testing.TB, d *draft) { d.tmpl.NotAfter = t0.Add(25 * time.Hour) }},
	{"outlives its CA", "ends after its CA", func(_ testing.TB, d *draft) { d.tmpl.NotAfter = t0.Add(4 * 365 * 24 * time.Hour) }},
	{"no subject key identifier", "subject key identifier", func(_ testing.TB, d *draft) { d.tmpl.SubjectKeyId = nil }},
	{"unknown critical extension", "unknown critical extension", func(_ testing.TB, d *draft) { d.tmpl.ExtraExtensions = []pkix.Extension{unknownCritical} }},
	{"other names", "not that of the order", func(_ testing.TB, d *draft) { d.uris[0] = "mimi://acme.example/d/bob/phone" }},
	{"names in another order", "not that of the order", func(_ testing.TB, d *draft) { d.uris[0], d.uris[1] = d.uris[1], d.uris[0] }},
	{"names not canonical", "names: identity-malformed", func(_ testing.TB, d *draft) {
		d.uris[0], d.names[0] = "mimi://ACME.example/d/x", "mimi://ACME.example/d/x"
	}},
	{"hub as device", "not those of a device", func(_ testing.TB, d *draft) {
		d.uris, d.names = []string{"mimi://acme.example"}, []string{"mimi://acme.example"}
	}},
	{"device as hub", "not those of a hub", func(_ testing.TB, d *draft) { d.kind = certs.KindHub }},
	{"no names", "not that of the order", func(_ testing.TB, d *draft) { d.noSAN = true }},
	{"names not critical", "critical=false with subject empty=true", func(_ testing.TB, d *draft) { d.sanNC = true }},
	{"names critical beside a subject", "critical=true with subject empty=false", func(_ testing.TB, d *draft) { d.tmpl.Subject.CommonName = "x" }},
	{"more key usage", "key usage", func(_ testing.TB, d *draft) { d.tmpl.KeyUsage |= x509.KeyUsageKeyAgreement }},
	{"no key usage", "2.5.29.15 is missing", func(_ testing.TB, d *draft) { d.tmpl.KeyUsage = 0 }},
	{"more extended key usage", "id-kp-imUri alone", func(_ testing.TB, d *draft) { d.tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }},
	{"no extended key usage", "id-kp-imUri alone", func(_ testing.TB, d *draft) { d.tmpl.UnknownExtKeyUsage = nil }},
	{"CA", "is a CA", func(_ testing.TB, d *draft) { d.tmpl.IsCA = true }},
	{"unknown kind", "no profile", func(_ testing.TB, d *draft) { d.kind = "server" }},

	{"issuing CA, path length", "path length", func(_ testing.TB, d *draft) {
		d.caTemplate(certs.KindIssuingCA)
		d.tmpl.MaxPathLenZero, d.tmpl.MaxPathLen = false, 2
	}},
	{"issuing CA, no hosts", "no hosts permitted", func(_ testing.TB, d *draft) { d.caTemplate(certs.KindIssuingCA); d.tmpl.PermittedURIDomains = nil }},
	{"issuing CA, constraints not critical", "2.5.29.30", func(_ testing.TB, d *draft) {
		d.caTemplate(certs.KindIssuingCA)
		d.tmpl.PermittedDNSDomainsCritical = false
	}},
	{"issuing CA, usage", "key usage", func(_ testing.TB, d *draft) {
		d.caTemplate(certs.KindIssuingCA)
		d.tmpl.KeyUsage = x509.KeyUsageCertSign
	}},
	{"issuing CA, extended usage", "id-kp-imUri alone", func(_ testing.TB, d *draft) { d.caTemplate(certs.KindIssuingCA); d.tmpl.UnknownExtKeyUsage = nil }},
	{"issuing CA, no subject", "without a subject", func(_ testing.TB, d *draft) { d.caTemplate(certs.KindIssuingCA); d.tmpl.Subject = pkix.Name{} }},
	{"issuing CA that is none", "is not a CA", func(_ testing.TB, d *draft) {
		d.caTemplate(certs.KindIssuingCA)
		d.tmpl.IsCA, d.tmpl.MaxPathLenZero, d.tmpl.PermittedURIDomains = false, false, nil
	}},
	{"root by another", "not issued by itself", func(_ testing.TB, d *draft) { d.caTemplate(certs.KindRoot) }},

	{"OCSP, usage", "id-kp-OCSPSigning alone", func(_ testing.TB, d *draft) { d.ocspTemplate(); d.tmpl.ExtKeyUsage = nil }},
	{"OCSP, no nocheck", "ocsp-nocheck", func(_ testing.TB, d *draft) { d.ocspTemplate(); d.tmpl.ExtraExtensions = nil }},
	{"OCSP, names", "no alternative name", func(_ testing.TB, d *draft) { d.ocspTemplate(); d.noSAN = false }},
	{"OCSP, lifetime", "for more than", func(_ testing.TB, d *draft) { d.ocspTemplate(); d.tmpl.NotAfter = t0.Add(31 * 24 * time.Hour) }},
}

func TestLint(t *testing.T) {
	ca := newTestCA(t, credentials.ECDSAP256, openStore(t), at(t0))
	bare, err := certs.NewIssuer(certs.Config{Key: ca.key, Certificate: ca.cert, Store: openStore(t), Now: at(t0)})
	must(t, err)
	lint := func(d *draft) error {
		if !d.noSAN {
			d.tmpl.ExtraExtensions = append(d.tmpl.ExtraExtensions, san(t, !d.sanNC, d.uris, nil))
		}
		return bare.Lint(d.kind, create(t, d.tmpl, ca.cert, d.key, ca.key), d.want, d.names)
	}
	must(t, lint(newDraft(t)))
	issuing, responder := newDraft(t), newDraft(t)
	issuing.caTemplate(certs.KindIssuingCA)
	must(t, lint(issuing))
	responder.ocspTemplate()
	must(t, lint(responder))
	for _, tt := range badDrafts {
		t.Run(tt.name, func(t *testing.T) {
			d := newDraft(t)
			tt.spoil(t, d)
			err := lint(d)
			var e *certs.LintError
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.finding) {
				t.Errorf("%v, want a *LintError with %q", err, tt.finding)
			}
		})
	}
	// Issued by another CA than the one that will sign.
	d := newDraft(t)
	d.tmpl.ExtraExtensions = []pkix.Extension{san(t, true, d.uris, nil)}
	err = bare.Lint(d.kind, create(t, d.tmpl, ca.rootCert, d.key, ca.rootKey), d.want, d.names)
	if err == nil || !strings.Contains(err.Error(), "authority key identifier") || !strings.Contains(err.Error(), "issuer name") {
		t.Errorf("another issuer: %v", err)
	}
}
