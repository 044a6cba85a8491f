package trust

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"net/url"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// certifiedKeys takes an issuer's key from the certificates in a token (x5c,
// x5chain), which must lead to an anchor of its entry and be for its iss.
type certifiedKeys struct{ issuer *Issuer }

const whereChain = "certificates of the token"

func (c *certifiedKeys) find(_ context.Context, hint keyHint) (*candidate, error) {
	path, err := c.path(hint.chain)
	if err != nil {
		return nil, err
	}
	scheme, err := credentials.SchemeOf(path[0].PublicKey)
	if err != nil || !c.issuer.fits(hint.alg)(scheme) {
		return nil, noKey("the certified key does not fit the algorithm")
	}
	k := &candidate{public: path[0].PublicKey, chain: path}
	for _, cert := range path {
		k.notBefore, k.notAfter = later(k.notBefore, cert.NotBefore), earlier(k.notAfter, cert.NotAfter)
	}
	return k, nil
}

func (c *certifiedKeys) all(ctx context.Context, hint keyHint) ([]crypto.PublicKey, error) {
	k, err := c.find(ctx, hint)
	if err != nil {
		return nil, err
	}
	return []crypto.PublicKey{k.public}, nil
}

func (c *certifiedKeys) refresh(context.Context) error { return nil }

// path returns the chain from the certificate that signed to an anchor.
func (c *certifiedKeys) path(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 {
		return nil, noKey("this issuer signs with certificates, and the token has none")
	}
	if len(ders) > certs.MaxCertificates {
		return nil, credentials.Errorf(credentials.CodeMalformed, whereChain, "%d certificates, at most %d are read", len(ders), certs.MaxCertificates)
	}
	roots, inner := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range c.issuer.anchors.Anchors {
		roots.AddCert(a)
	}
	for _, i := range c.issuer.anchors.Intermediates {
		inner.AddCert(i)
	}
	var leaf *x509.Certificate
	for n, der := range ders {
		if len(der) > certs.MaxCertificate {
			return nil, credentials.Errorf(credentials.CodeMalformed, whereChain, "certificate %d has %d octets", n, len(der))
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, credentials.Errorf(credentials.CodeMalformed, whereChain, "certificate %d: %w", n, err)
		}
		if n == 0 {
			leaf = cert
			continue
		}
		// Before anything is verified with it: whoever sends it has chosen it.
		if err := certs.CheckAuthorityKey(cert.PublicKey); err != nil {
			return nil, err
		}
		if c.pinned(cert) {
			roots.AddCert(cert)
		} else {
			inner.AddCert(cert)
		}
	}
	return c.verify(leaf, roots, inner)
}

// pinned reports whether a certificate is that of a pinned root.
func (c *certifiedKeys) pinned(cert *x509.Certificate) bool {
	id := certs.KeyID(sha256.Sum256(cert.RawSubjectPublicKeyInfo))
	for _, pin := range c.issuer.anchors.Pins {
		if pin == id {
			return cert.CheckSignatureFrom(cert) == nil
		}
	}
	return false
}

// verify builds the path at a time within the leaf's life; whether that time is
// now is judged with the rest of the evidence.
func (c *certifiedKeys) verify(leaf *x509.Certificate, roots, inner *x509.CertPool) ([]*x509.Certificate, error) {
	paths, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inner, CurrentTime: leaf.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeChain, whereChain, "they lead to no anchor of issuer %q: %w", c.issuer.Name, err)
	}
	for _, cert := range paths[0][1:] {
		if err := certs.CheckAuthorityKey(cert.PublicKey); err != nil {
			return nil, err
		}
	}
	if err := certs.CheckURIConstraints(paths[0]); err != nil {
		return nil, err
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 || leaf.IsCA {
		return nil, credentials.Errorf(credentials.CodeKeyUsage, whereChain, "the first is not for digital signatures")
	}
	if !speaksFor(leaf, c.issuer.config.Iss) {
		return nil, credentials.Errorf(credentials.CodeIssuerUnknown, whereChain, "the first does not speak for %q", c.issuer.config.Iss)
	}
	return paths[0], nil
}

// speaksFor wants iss among the URIs of a certificate, or the host of an https
// iss among its DNS names.
func speaksFor(leaf *x509.Certificate, iss string) bool {
	for _, u := range leaf.URIs {
		if u.String() == iss {
			return true
		}
	}
	u, err := url.Parse(iss)
	return err == nil && u.Scheme == "https" && leaf.VerifyHostname(u.Hostname()) == nil
}

// later and earlier take zero as no bound.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
