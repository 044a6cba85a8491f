package sdjwt

import (
	"context"
	"crypto"
	"crypto/x509"
	"net/url"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// An IssuerHint is what a token says about its own issuer. Nothing of it is
// verified when it is used to find the key.
type IssuerHint struct {
	Issuer string    // iss, or "" if the token has none
	Kid    string    // kid, or ""
	Alg    string    // alg
	Chain  [][]byte  // certificates of x5c, leaf first, or nil
	Time   time.Time // the verifier's clock
}

// IssuerKeys finds the key of an issuer. The verifier, not the token, decides
// for each issuer how that is done; see IssuerTable.
//
// An implementation answers with a *credentials.Error: issuer-unknown if the
// issuer is not believed, issuer-key (which may be tried again) if its key
// cannot be had, chain if its certificates do not lead to an anchor.
type IssuerKeys interface {
	IssuerKey(ctx context.Context, hint IssuerHint) (crypto.PublicKey, error)
}

// An IssuerTable gives each issuer, by its exact iss, its own mechanism. The
// entry "" serves tokens without iss.
type IssuerTable map[string]IssuerKeys

// IssuerKey implements IssuerKeys.
func (t IssuerTable) IssuerKey(ctx context.Context, hint IssuerHint) (crypto.PublicKey, error) {
	keys := t[hint.Issuer]
	if keys == nil {
		return nil, credentials.Errorf(credentials.CodeIssuerUnknown, "payload.iss", "no issuer %q is configured", hint.Issuer)
	}
	return keys.IssuerKey(ctx, hint)
}

// An IssuerKey is one configured key of an issuer.
type IssuerKey struct {
	Kid    string // "" for a key that serves whatever the token calls it
	Public crypto.PublicKey
}

// StaticKeys are the configured keys of one issuer.
type StaticKeys []IssuerKey

// IssuerKey implements IssuerKeys. A token without kid is served if the issuer
// has one key only.
func (s StaticKeys) IssuerKey(_ context.Context, hint IssuerHint) (crypto.PublicKey, error) {
	if len(s) == 1 && (hint.Kid == "" || s[0].Kid == "") {
		return s[0].Public, nil
	}
	for _, k := range s {
		if hint.Kid != "" && k.Kid == hint.Kid {
			return k.Public, nil
		}
	}
	return nil, credentials.Errorf(credentials.CodeIssuerKey, "header.kid", "none of the issuer's %d keys is called %q", len(s), hint.Kid)
}

// CertifiedKeys takes the issuer's key from the x5c header of the token, whose
// chain must lead to an anchor.
type CertifiedKeys struct {
	Roots *x509.CertPool
	// Match says whether a leaf certificate may sign for an iss. The default
	// wants iss among the URIs of the leaf, or the host of an https iss among
	// its DNS names. A token without iss is matched too, with "".
	Match func(iss string, leaf *x509.Certificate) bool
}

// IssuerKey implements IssuerKeys.
func (c CertifiedKeys) IssuerKey(_ context.Context, hint IssuerHint) (crypto.PublicKey, error) {
	const where = "header.x5c"
	if len(hint.Chain) == 0 {
		return nil, credentials.Errorf(credentials.CodeIssuerKey, where, "this issuer signs with certificates, and there are none")
	}
	leaf, intermediates, err := parseChain(hint.Chain)
	if err != nil {
		return nil, err
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: c.Roots, Intermediates: intermediates, CurrentTime: hint.Time,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil || c.Roots == nil {
		return nil, credentials.Errorf(credentials.CodeChain, where, "the certificates lead to no anchor: %w", err)
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, credentials.Errorf(credentials.CodeKeyUsage, where, "the leaf is not for digital signatures")
	}
	match := c.Match
	if match == nil {
		match = matchSubjectAltName
	}
	if !match(hint.Issuer, leaf) {
		return nil, credentials.Errorf(credentials.CodeIssuerUnknown, where, "the leaf does not speak for iss %q", hint.Issuer)
	}
	return leaf.PublicKey, nil
}

func parseChain(chain [][]byte) (leaf *x509.Certificate, intermediates *x509.CertPool, err error) {
	intermediates = x509.NewCertPool()
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, credentials.Errorf(credentials.CodeChain, "header.x5c", "certificate %d: %w", i, err)
		}
		if i == 0 {
			leaf = cert
			continue
		}
		intermediates.AddCert(cert)
	}
	return leaf, intermediates, nil
}

func matchSubjectAltName(iss string, leaf *x509.Certificate) bool {
	if iss == "" {
		return true
	}
	for _, u := range leaf.URIs {
		if u.String() == iss {
			return true
		}
	}
	u, err := url.Parse(iss)
	return err == nil && u.Scheme == "https" && leaf.VerifyHostname(u.Hostname()) == nil
}
