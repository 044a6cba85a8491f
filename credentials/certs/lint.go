package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// A LintError says that a certificate about to be signed breaks the profile.
// Nothing was signed and nothing stored. It is a fault of the configuration
// or of this program, not of the requester.
type LintError struct {
	Findings []string
}

func (e *LintError) Error() string {
	return "certificate breaks the profile and was not signed: " + strings.Join(e.Findings, "; ")
}

// A linter collects what is wrong with one draft.
type linter struct {
	cert     *x509.Certificate
	findings []string
}

func (l *linter) want(ok bool, format string, args ...any) {
	if !ok {
		l.findings = append(l.findings, fmt.Sprintf(format, args...))
	}
}

// lint reads a draft back and checks it against the profile and the order.
func (i *Issuer) lint(kind Kind, draft *x509.Certificate, pub crypto.PublicKey, names []string) error {
	l := &linter{cert: draft}
	l.common(i, pub)
	switch kind {
	case KindDevice, KindHub:
		l.leaf(kind, i.profile, names)
	case KindRoot, KindIssuingCA:
		l.ca(kind)
	case KindOCSP:
		l.ocspResponder()
	default:
		l.want(false, "no profile for kind %q", kind)
	}
	if len(l.findings) > 0 {
		return &LintError{Findings: l.findings}
	}
	return nil
}

// common holds what is true of every certificate.
func (l *linter) common(i *Issuer, pub crypto.PublicKey) {
	c := l.cert
	serial, ok := serialOf(c.RawTBSCertificate)
	l.want(ok && serial.Cmp(c.SerialNumber) == 0, "two parsers read two serial numbers")
	l.want(c.Version == 3, "version %d", c.Version)
	l.want(c.SerialNumber.Sign() > 0 && c.SerialNumber.BitLen() > 64 && c.SerialNumber.BitLen() < 160, "serial number of %d bits", c.SerialNumber.BitLen())
	l.want(credentials.SamePublicKey(c.PublicKey, pub), "certifies another key")
	_, err := credentials.SchemeOf(c.PublicKey)
	l.want(err == nil, "key of a scheme that MLS does not have")
	l.want(c.NotAfter.After(c.NotBefore), "ends before it begins")
	l.want(len(c.SubjectKeyId) == 20, "subject key identifier of %d octets", len(c.SubjectKeyId))
	l.want(bytes.Equal(c.AuthorityKeyId, i.cert.SubjectKeyId), "authority key identifier is not the issuer's")
	if i.cert.Raw != nil {
		l.want(bytes.Equal(c.RawIssuer, i.cert.RawSubject), "issuer name is not the subject of the CA certificate")
		l.want(!c.NotAfter.After(i.cert.NotAfter), "ends after its CA")
	}
	for _, ext := range c.Extensions {
		known := hasOID(profileExtensions, ext.Id)
		l.want(known || !ext.Critical, "unknown critical extension %v", ext.Id)
	}
	l.want(len(c.UnhandledCriticalExtensions) == 0, "critical extensions %v cannot be read back", c.UnhandledCriticalExtensions)
}

// leaf holds the profile of device and hub certificates.
func (l *linter) leaf(kind Kind, p Profile, names []string) {
	c := l.cert
	l.leafNames(kind, names)
	l.criticalIs(oidKeyUsage, true)
	l.want(c.KeyUsage == x509.KeyUsageDigitalSignature, "key usage %b", c.KeyUsage)
	l.want(len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 1 && c.UnknownExtKeyUsage[0].Equal(OIDIMURI), "extended key usage is not id-kp-imUri alone")
	l.want(!c.IsCA, "is a CA")
	lifetime := c.NotAfter.Sub(c.NotBefore)
	l.want(lifetime <= p.maxLifetime(), "lifetime %v, at most %v", lifetime, p.maxLifetime())
	l.want(lifetime <= UnrevocableLifetime || len(c.CRLDistributionPoints)+len(c.OCSPServer) > 0, "neither a CRL nor OCSP for a lifetime of %v", lifetime.Round(time.Second))
}

func (l *linter) leafNames(kind Kind, names []string) {
	alt, err := readAltNames(l.cert.Extensions, "draft")
	l.want(err == nil, "subject alternative name: %v", err)
	l.want(slices.Equal(alt.uris, names) && len(alt.dns) == 0 && alt.others == 0, "subject alternative name is not that of the order")
	empty := len(l.cert.Subject.Names) == 0
	l.want(alt.critical == empty, "subject alternative name critical=%t with subject empty=%t", alt.critical, empty)
	n, err := namesOf(alt.uris, "draft")
	l.want(err == nil, "names: %v", err)
	l.want(n.IsHub() == (kind == KindHub), "names are not those of a %s", kind)
}

// ca holds the profile of CA certificates.
func (l *linter) ca(kind Kind) {
	c := l.cert
	l.criticalIs(oidKeyUsage, true)
	l.criticalIs(oidBasicConstraints, true)
	l.want(c.BasicConstraintsValid && c.IsCA, "is not a CA")
	l.want(c.KeyUsage == x509.KeyUsageCertSign|x509.KeyUsageCRLSign, "key usage %b", c.KeyUsage)
	l.want(len(c.Subject.Names) > 0, "CA without a subject")
	if kind == KindRoot {
		l.want(c.MaxPathLen == 1, "path length %d", c.MaxPathLen)
		l.want(bytes.Equal(c.RawIssuer, c.RawSubject), "root is not issued by itself")
		return
	}
	l.want(c.MaxPathLen == 0 && c.MaxPathLenZero, "path length %d", c.MaxPathLen)
	l.want(len(c.PermittedURIDomains) > 0, "no hosts permitted")
	l.criticalIs(oidNameConstraints, true)
	l.want(len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 1 && c.UnknownExtKeyUsage[0].Equal(OIDIMURI), "extended key usage is not id-kp-imUri alone")
}

func (l *linter) criticalIs(id encodedOID, critical bool) {
	ext := extension(l.cert.Extensions, id)
	l.want(ext != nil && ext.Critical == critical, "extension %v is missing, or its critical flag is not %t", id, critical)
}

// ocspResponder holds the profile of a delegated OCSP responder.
func (l *linter) ocspResponder() {
	c := l.cert
	l.criticalIs(oidKeyUsage, true)
	l.want(c.KeyUsage == x509.KeyUsageDigitalSignature, "key usage %b", c.KeyUsage)
	l.want(len(c.UnknownExtKeyUsage) == 0 && slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}), "extended key usage is not id-kp-OCSPSigning alone")
	l.want(!c.IsCA, "is a CA")
	l.want(extension(c.Extensions, oidOCSPNoCheck) != nil, "no id-pkix-ocsp-nocheck")
	l.want(c.NotAfter.Sub(c.NotBefore) <= ocspResponderLifetime, "OCSP responder for more than %v", ocspResponderLifetime)
	l.want(extension(c.Extensions, oidSubjectAltName) == nil, "an OCSP responder has no alternative name")
}
