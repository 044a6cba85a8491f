package certs_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

var level, _ = credentials.AttestationListed.Extension()

// TestLeafIsThatOfTheStandardLibrary issues certificates of every shape and has
// package x509 build them once more from what it reads in them: the to-be-signed
// octets must be the same.
func TestLeafIsThatOfTheStandardLibrary(t *testing.T) {
	profiles := map[string]certs.Profile{
		"bare":     {},
		"CRL":      {CRL: []string{crlURL}},
		"two CRLs": {CRL: []string{crlURL, crlURL + "2"}},
		"OCSP":     {OCSP: []string{ocspURL}},
		"all":      {CRL: []string{crlURL}, OCSP: []string{ocspURL, ocspURL + "/2"}, CAIssuers: []string{"http://ca.acme.example/ca.cer"}},
	}
	orders := map[string]func(*certs.Order){
		"empty subject": func(*certs.Order) {},
		"subject": func(o *certs.Order) {
			o.Subject = pkix.Name{Organization: []string{"Acme"}, CommonName: "Älice's laptop"}
		},
		"level": func(o *certs.Order) { o.Extensions = []pkix.Extension{level} },
		"hub": func(o *certs.Order) {
			var err error
			o.Names, err = certs.ProviderNames("mimi://acme.example")
			must(t, err)
		},
		"short": func(o *certs.Order) { o.Lifetime = time.Minute },
	}
	for _, scheme := range []*credentials.Scheme{credentials.ECDSAP256, credentials.ECDSAP384, credentials.Ed25519} {
		for now, when := range map[string]time.Time{"": t0, " until 2050": time.Date(2049, 12, 31, 12, 0, 0, 0, time.UTC)} {
			ca := newTestCA(t, scheme, openStore(t), at(when))
			for name, profile := range profiles {
				i, err := certs.NewIssuer(certs.Config{Key: ca.key, Certificate: ca.cert, Store: openStore(t), Now: at(when), Profile: profile})
				must(t, err)
				for what, change := range orders {
					t.Run(scheme.Name+now+"/"+name+"/"+what, func(t *testing.T) {
						o := certs.Order{Names: deviceNames(t)}
						change(&o)
						o.Request = request(t, mustKey(t, scheme), o.Names, nil)
						p, err := i.Prepare(t.Context(), o)
						must(t, err)
						if want := standardTBS(t, ca, p); !bytes.Equal(p.TBS(), want) {
							t.Errorf("got  %x\nwant %x", p.TBS(), want)
						}
					})
				}
			}
		}
	}
}

// standardTBS reads a prepared certificate and has package x509 build it.
func standardTBS(t *testing.T, ca *testCA, p *certs.Prepared) []byte {
	t.Helper()
	var outer struct{ TBS, Algorithm asn1.RawValue }
	outer.TBS.FullBytes, outer.Algorithm.FullBytes = p.TBS(), sigAlg(t, ca.cert.Raw)
	der, err := asn1.Marshal(struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}{outer.TBS, outer.Algorithm, asn1.BitString{Bytes: []byte{0}, BitLength: 8}})
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: c.SerialNumber, Subject: c.Subject, NotBefore: c.NotBefore, NotAfter: c.NotAfter, KeyUsage: c.KeyUsage,
		UnknownExtKeyUsage: c.UnknownExtKeyUsage, BasicConstraintsValid: true, SubjectKeyId: c.SubjectKeyId,
		CRLDistributionPoints: c.CRLDistributionPoints, OCSPServer: c.OCSPServer, IssuingCertificateURL: c.IssuingCertificateURL,
	}
	for _, e := range c.Extensions { // names and what the order adds
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) || e.Id.Equal(level.Id) {
			template.ExtraExtensions = append(template.ExtraExtensions, e)
		}
	}
	made, err := x509.CreateCertificate(rand.Reader, template, ca.cert, c.PublicKey, ca.key)
	must(t, err)
	again, err := x509.ParseCertificate(made)
	must(t, err)
	return again.RawTBSCertificate
}

// sigAlg returns the AlgorithmIdentifier of a certificate.
func sigAlg(t *testing.T, der []byte) []byte {
	t.Helper()
	var c struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	_, err := asn1.Unmarshal(der, &c)
	must(t, err)
	return c.Algorithm.FullBytes
}
