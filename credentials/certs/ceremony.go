package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/mimiuri"
)

// A CAOrder is a CA certificate to be made.
type CAOrder struct {
	Subject  pkix.Name     // not empty
	Lifetime time.Duration // 0 means ten years for a root, three for an issuing CA
	// Hosts are the provider hosts that the CA may serve, as name constraints.
	// An issuing CA needs at least one.
	Hosts []string
	// Profile has the URLs where the CA certificate's own revocation is
	// published. Its lifetime is not used.
	Profile Profile
}

const (
	rootLifetime      = 10 * 365 * 24 * time.Hour
	issuingCALifetime = 3 * 365 * 24 * time.Hour
)

func (o CAOrder) check() error {
	if isEmptyName(o.Subject) {
		return errors.New("a CA needs a subject")
	}
	if o.Lifetime < 0 {
		return errors.New("a CA needs a positive lifetime")
	}
	for _, host := range o.Hosts {
		if _, err := mimiuri.New(host, mimiuri.Provider); err != nil {
			return credentials.Errorf(credentials.CodeIdentityMalformed, "hosts of the CA", "%.100q: %w", host, err)
		}
	}
	return checkURLs(o.Profile)
}

// CreateRoot makes the self-signed certificate of a root key, with the same
// discipline as every other certificate. The root's key should then sign
// issuing CAs and their CRL, and nothing else.
func CreateRoot(ctx context.Context, key crypto.Signer, store Store, now func() time.Time, o CAOrder) (*x509.Certificate, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Lifetime == 0 {
		o.Lifetime = rootLifetime
	}
	ski, err := subjectKeyID(key.Public())
	if err != nil {
		return nil, err
	}
	self := &x509.Certificate{Subject: o.Subject, SubjectKeyId: ski, PublicKey: key.Public()}
	i, err := newIssuer(Config{Key: key, Certificate: self, Store: store, Now: now})
	if err != nil {
		return nil, err
	}
	template, err := caTemplate(KindRoot, o, key.Public(), i.now())
	if err != nil {
		return nil, err
	}
	template.AuthorityKeyId = ski
	p, err := i.prepare(ctx, Intent{Kind: KindRoot, Names: []string{o.Subject.String()}, Public: key.Public()}, template)
	if err != nil {
		return nil, err
	}
	return i.Issue(ctx, p)
}

// CreateIssuingCA makes the certificate of an issuing CA under the root i. The
// caller holds the new CA's key: possession is proven by a signature over the
// prepared certificate.
func (i *Issuer) CreateIssuingCA(ctx context.Context, key crypto.Signer, o CAOrder) (*x509.Certificate, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if len(o.Hosts) == 0 {
		return nil, credentials.Errorf(credentials.CodeNameConstraint, "order", "an issuing CA needs the hosts that it may serve")
	}
	if o.Lifetime == 0 {
		o.Lifetime = min(issuingCALifetime, i.cert.NotAfter.Sub(i.now()).Truncate(time.Second))
	}
	for _, host := range o.Hosts {
		if err := checkPermitted(i.cert, host, "order"); err != nil {
			return nil, err
		}
	}
	template, err := caTemplate(KindIssuingCA, o, key.Public(), i.now())
	if err != nil {
		return nil, err
	}
	p, err := i.prepare(ctx, Intent{Kind: KindIssuingCA, Names: []string{o.Subject.String()}, Public: key.Public()}, template)
	if err != nil {
		return nil, err
	}
	if err := proveCA(key, p); err != nil {
		return nil, err
	}
	return i.Issue(ctx, p)
}

// proveCA has the new CA's key sign a PKCS#10 request, which carries nothing
// but the proof that the key at hand is the one to be certified.
func proveCA(key crypto.Signer, p *Prepared) error {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return fmt.Errorf("the new CA's key: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return fmt.Errorf("the new CA's key: %w", ErrBadSignature)
	}
	if id, err := KeyIDOf(csr.PublicKey); err != nil || id != p.intent.Key {
		return errors.New("the new CA's key is not the one prepared")
	}
	return nil
}

// throwaway returns a fresh software key of a scheme, for drafts that are only
// read back.
func throwaway(s *credentials.Scheme) (crypto.Signer, error) {
	if s.Curve() == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return ecdsa.GenerateKey(s.Curve(), rand.Reader)
}

// checkURLs refuses URLs that a certificate should not carry.
func checkURLs(p Profile) error {
	for _, list := range [][]string{p.CRL, p.OCSP, p.CAIssuers} {
		for _, s := range list {
			u, err := url.Parse(s)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || len(s) > 1024 || strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) {
				return fmt.Errorf("%.100q cannot stand in a certificate: want an absolute http or https URL", s)
			}
		}
	}
	return nil
}
