package certs

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// Limits of the profile.
const (
	DefaultLifetime = 90 * 24 * time.Hour
	Backdate        = 5 * time.Minute // of notBefore, for clocks that are behind
	// UnrevocableLifetime is the longest lifetime of a certificate that says
	// nowhere how its revocation can be learned.
	UnrevocableLifetime = 24 * time.Hour
)

// A Profile is what an Issuer puts into every device and hub certificate. The
// zero Profile has a lifetime of 90 days at most, and needs CRL or OCSP for
// more than a day.
type Profile struct {
	MaxLifetime time.Duration // 0 means DefaultLifetime
	CRL         []string      // URLs of the CRL distribution point
	OCSP        []string      // URLs of the OCSP responder
	CAIssuers   []string      // URLs of the issuer's certificate in DER
}

func (p Profile) maxLifetime() time.Duration {
	if p.MaxLifetime > 0 {
		return p.MaxLifetime
	}
	return DefaultLifetime
}

// lifetime returns the lifetime for an order that wishes for d, 0 being the
// longest allowed.
func (p Profile) lifetime(d time.Duration) (time.Duration, error) {
	longest := p.maxLifetime()
	if len(p.CRL)+len(p.OCSP) == 0 {
		longest = min(longest, UnrevocableLifetime)
	}
	switch {
	case d == 0:
		return longest, nil
	case d < 0 || d > longest:
		return 0, credentials.Errorf(credentials.CodePolicy, "order", "lifetime %v, want at most %v (more than %v needs a CRL or OCSP URL)", d, longest, UnrevocableLifetime)
	}
	return d, nil
}

// leafTemplate is the profile of device and hub certificates.
//
//	| Field            | Value                                            |
//	| version, serial  | 3; 126 random bits                               |
//	| validity         | backdated 5 minutes; at most MaxLifetime         |
//	| subject          | empty, or for humans; never used for identity    |
//	| SAN              | one client and one user URI, or mimi://<host>    |
//	| KU               | critical, digitalSignature only                  |
//	| EKU              | id-kp-imUri only                                 |
//	| BasicConstraints | CA:FALSE                                         |
//	| AKI, SKI         | present                                          |
//	| CRLDP, AIA       | as configured                                    |
func leafTemplate(o Order, p Profile, now time.Time, lifetime time.Duration) (*x509.Certificate, error) {
	ski, err := subjectKeyIDOf(o.Request.spki)
	if err != nil {
		return nil, err
	}
	san, err := altNameExtension(o.Names.URIs(), isEmptyName(o.Subject))
	if err != nil {
		return nil, err
	}
	notBefore := now.Add(-Backdate).Truncate(time.Second).UTC()
	return &x509.Certificate{
		Subject:               o.Subject,
		NotBefore:             notBefore,
		NotAfter:              notBefore.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{OIDIMURI},
		BasicConstraintsValid: true,
		SubjectKeyId:          ski,
		CRLDistributionPoints: p.CRL,
		OCSPServer:            p.OCSP,
		IssuingCertificateURL: p.CAIssuers,
		ExtraExtensions:       append([]pkix.Extension{san}, o.Extensions...),
	}, nil
}

func isEmptyName(n pkix.Name) bool { return len(n.ToRDNSequence()) == 0 }

// caTemplate is the profile of CA certificates. A root has path length 1 and
// no name constraints of its own unless hosts are given; an issuing CA has
// path length 0, the hosts it may serve, and id-kp-imUri.
func caTemplate(kind Kind, o CAOrder, pub any, now time.Time) (*x509.Certificate, error) {
	ski, err := subjectKeyID(pub)
	if err != nil {
		return nil, err
	}
	notBefore := now.Add(-Backdate).Truncate(time.Second).UTC()
	t := &x509.Certificate{
		Subject:               o.Subject,
		NotBefore:             notBefore,
		NotAfter:              notBefore.Add(o.Lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1,
		SubjectKeyId:          ski,
	}
	if len(o.Hosts) > 0 {
		t.PermittedURIDomains = slices.Clone(o.Hosts)
		t.PermittedDNSDomainsCritical = true // the flag of the whole extension
	}
	if kind == KindIssuingCA {
		t.MaxPathLen, t.MaxPathLenZero = 0, true
		t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{OIDIMURI}
		t.CRLDistributionPoints, t.OCSPServer, t.IssuingCertificateURL = o.Profile.CRL, o.Profile.OCSP, o.Profile.CAIssuers
	}
	return t, nil
}

// newSerial returns a serial number of 16 octets. Its first bits are 01, so that it
// is positive and always of that length; then there are 46 bits with the time in
// milliseconds, so that rows of certificates are written side by side, and 80 random
// bits.
func newSerial(now time.Time, random func([]byte)) *big.Int {
	b := make([]byte, 16)
	random(b[6:])
	at := uint64(now.UnixMilli())&(1<<46-1) | 1<<46
	for i := range 6 {
		b[i] = byte(at >> (8 * (5 - i)))
	}
	return new(big.Int).SetBytes(b)
}
