package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// maxLocal is the most certificates that are added from an entry's own
// intermediates and anchors to what was sent.
const maxLocal = 4

// checkLinks is rule 3: each certificate is certified by the next one. There is
// no other order to be found: RFC 9420 section 5.3 fixes it.
func checkLinks(chain []*x509.Certificate) error {
	for n := range chain[:len(chain)-1] {
		if !named(chain[n], chain[n+1]) {
			return credentials.Errorf(credentials.CodeChain, where(n), "is not issued by the certificate after it (%s)", where(n+1))
		}
		if err := checkLink(chain[n], chain[n+1], n); err != nil {
			return err
		}
	}
	return nil
}

// named reports whether child names parent as its issuer.
func named(child, parent *x509.Certificate) bool {
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return false
	}
	return len(child.AuthorityKeyId) == 0 || len(parent.SubjectKeyId) == 0 || bytes.Equal(child.AuthorityKeyId, parent.SubjectKeyId)
}

// checkLink verifies the signature of child, which is certificate n of its
// path, by parent.
func checkLink(child, parent *x509.Certificate, n int) error {
	if reason := weakKey(parent.PublicKey); reason != "" {
		return credentials.Errorf(credentials.CodeAlg, where(n+1), "%s", reason)
	}
	if !slices.Contains(linkAlgorithms, child.SignatureAlgorithm) {
		return credentials.Errorf(credentials.CodeAlg, where(n), "signed with %v, want ECDSA, Ed25519 or RSA with SHA-256 or better", child.SignatureAlgorithm)
	}
	if err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature); err != nil {
		return credentials.Errorf(credentials.CodeChain, where(n), "signature is not that of its issuer: %w", err)
	}
	return nil
}

// linkAlgorithms are those that a CA may sign with. Package x509 cannot be
// left to choose: Certificate.CheckSignature takes SHA-1.
var linkAlgorithms = []x509.SignatureAlgorithm{
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519,
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
}

// CheckAuthorityKey says why the key of a CA is not strong enough, or may cost too
// much to verify with, or returns nil.
func CheckAuthorityKey(pub crypto.PublicKey) error {
	if reason := weakKey(pub); reason != "" {
		return credentials.Errorf(credentials.CodeAlg, "certificates", "%s", reason)
	}
	return nil
}

// weakKey is rule 5: it says why a CA key is not strong enough, or may cost
// too much to verify with.
func weakKey(pub any) string {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < 2048 {
			return "RSA key of fewer than 2048 bits"
		} else if n > 8192 {
			return "RSA key of more than 8192 bits"
		}
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P224() {
			return "ECDSA key on P-224"
		}
	case ed25519.PublicKey:
	default:
		return "key of an unknown algorithm"
	}
	return ""
}

// findPath completes what was sent to the anchor of exactly one entry.
func (v *Verifier) findPath(sent []*x509.Certificate) (*Entry, []*x509.Certificate, error) {
	var entry *Entry
	var path []*x509.Certificate
	var refused error
	for _, e := range v.entries {
		p, err := e.complete(sent)
		switch {
		case err != nil:
			refused = err
		case p != nil && entry != nil:
			return nil, nil, credentials.Errorf(credentials.CodeIssuerUnknown, "certificates", "the chain leads to issuer entries %q and %q, want one", entry.Name, e.Name)
		case p != nil:
			entry, path = e, p
		}
	}
	if entry != nil {
		return entry, path, nil
	}
	if refused == nil {
		refused = credentials.Errorf(credentials.CodeIssuerUnknown, where(len(sent)-1), "%w (issuer %.200q)", errNoEntry, sent[len(sent)-1].Issuer)
	}
	return nil, nil, refused
}

// complete returns the path from the leaf to an anchor of e, nil if there is
// none. Its error is that of a link to a CA of e that does not hold.
func (e *Entry) complete(sent []*x509.Certificate) ([]*x509.Certificate, error) {
	for n, c := range sent {
		if n > 0 && e.isAnchor(c) {
			return sent[: n+1 : n+1], nil
		}
	}
	return e.climb(sent[:len(sent):len(sent)], maxLocal)
}

// climb goes from the end of path to an anchor, over at most depth
// certificates of the entry itself.
func (e *Entry) climb(path []*x509.Certificate, depth int) (_ []*x509.Certificate, refused error) {
	if depth == 0 {
		return nil, nil
	}
	last := path[len(path)-1]
	for _, a := range e.Anchors {
		if !named(last, a) || last.Equal(a) {
			continue
		}
		if err := checkLink(last, a, len(path)-1); err != nil {
			refused = err
			continue
		}
		return append(path, a), nil
	}
	for _, i := range e.Intermediates {
		if !named(last, i) || contains(path, i) {
			continue
		}
		if err := checkLink(last, i, len(path)-1); err != nil {
			refused = err
			continue
		}
		if p, err := e.climb(append(path[:len(path):len(path)], i), depth-1); p != nil {
			return p, nil
		} else if err != nil {
			refused = err
		}
	}
	return nil, refused
}

func contains(path []*x509.Certificate, c *x509.Certificate) bool {
	for _, p := range path {
		if p.Equal(c) {
			return true
		}
	}
	return false
}

// checkPath is rules 4 and 5 (RFC 5280 section 6), for a path whose signatures
// have been verified and whose last certificate is an anchor.
func (v *Verifier) checkPath(path []*x509.Certificate, at time.Time) error {
	for n, c := range path {
		if err := v.checkTime(c, at, where(n)); err != nil {
			return err
		}
	}
	if err := checkCAs(path); err != nil {
		return err
	}
	if err := CheckURIConstraints(path); err != nil {
		return err
	}
	for n, c := range path {
		if err := checkExtensions(c, n); err != nil {
			return err
		}
	}
	if reason := weakKey(path[len(path)-1].PublicKey); reason != "" {
		return credentials.Errorf(credentials.CodeAlg, where(len(path)-1), "%s", reason)
	}
	if needsFullPathRules(path) {
		return verifyFull(path, at)
	}
	return nil
}

func (v *Verifier) checkTime(c *x509.Certificate, at time.Time, where string) error {
	switch {
	case at.Add(v.skew).Before(c.NotBefore):
		return credentials.Errorf(credentials.CodeNotYetValid, where, "begins %s", c.NotBefore.Format(time.RFC3339))
	case at.Add(-v.skew).After(c.NotAfter):
		return credentials.Errorf(credentials.CodeExpired, where, "ended %s", c.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// checkCAs checks every certificate above the leaf for being that of a CA whose
// path length allows the CAs below it.
func checkCAs(path []*x509.Certificate) error {
	below := 0 // intermediates between the CA and the leaf that are not self-issued
	for n, c := range path[1:] {
		switch {
		case c.Version != 3 || !c.BasicConstraintsValid || !c.IsCA:
			return credentials.Errorf(credentials.CodeChain, where(n+1), "is not a CA certificate")
		case extension(c.Extensions, oidKeyUsage) != nil && c.KeyUsage&x509.KeyUsageCertSign == 0:
			return credentials.Errorf(credentials.CodeChain, where(n+1), "key usage without keyCertSign")
		case hasPathLen(c) && below > c.MaxPathLen:
			return credentials.Errorf(credentials.CodeChain, where(n+1), "path length %d, %d CAs below it", c.MaxPathLen, below)
		}
		if !bytes.Equal(c.RawSubject, c.RawIssuer) {
			below++
		}
	}
	return nil
}

func hasPathLen(c *x509.Certificate) bool { return c.MaxPathLen > 0 || c.MaxPathLenZero }

// CheckURIConstraints applies the URI name constraints of every CA of a path, from
// the leaf to the anchor, to all below it, as RFC 5280 has them: package x509
// takes a host for its subdomains too.
func CheckURIConstraints(path []*x509.Certificate) error {
	for n, ca := range path[1:] {
		for m, c := range path[:n+1] {
			if err := checkConstraints(ca, c, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkConstraints applies the URI constraints of ca to certificate n below it.
// A self-issued intermediate is exempt (RFC 5280 section 6.1.3).
func checkConstraints(ca, c *x509.Certificate, n int) error {
	if n > 0 && bytes.Equal(c.RawSubject, c.RawIssuer) {
		return nil
	}
	alt, err := readAltNames(c.Extensions, where(n))
	if err != nil {
		return err
	}
	return checkURIConstraints(ca, alt.uris, where(n))
}

// checkExtensions refuses critical extensions that nobody has read. Subject
// alternative names are read here whatever they hold.
func checkExtensions(c *x509.Certificate, n int) error {
	for _, id := range c.UnhandledCriticalExtensions {
		if !id.Equal(oidSubjectAltName) {
			return credentials.Errorf(credentials.CodeCriticalExtension, where(n), "extension %v is critical and unknown", id)
		}
	}
	return nil
}

// verifyFull has package x509 judge a path as well, for the rules that are not
// applied above. The path is given to it whole, so it has nothing to choose.
func verifyFull(path []*x509.Certificate, at time.Time) error {
	roots, inner := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(path[len(path)-1])
	for _, c := range path[1 : len(path)-1] {
		inner.AddCert(c)
	}
	leaf := *path[0]
	leaf.UnhandledCriticalExtensions = nil // judged by checkExtensions
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inner, CurrentTime: clamp(at, path), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && (invalid.Reason == x509.CANotAuthorizedForThisName || invalid.Reason == x509.UnconstrainedName || invalid.Reason == x509.TooManyConstraints || invalid.Reason == x509.NameConstraintsWithoutSANs):
		return credentials.Errorf(credentials.CodeNameConstraint, "certificates", "%w", err)
	default:
		return credentials.Errorf(credentials.CodeChain, "certificates", "%w", err)
	}
}

// clamp moves at into the validity of every certificate; the skew has been
// granted already.
func clamp(at time.Time, path []*x509.Certificate) time.Time {
	for _, c := range path {
		if at.Before(c.NotBefore) {
			at = c.NotBefore
		}
	}
	for _, c := range path {
		at = minTime(at, c.NotAfter)
	}
	return at
}
