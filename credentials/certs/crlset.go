package certs

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// CRLs are lists at hand, one or more for each CA, by which the certificates of
// a path are judged at one time. Its Revocation fits Check.Revocation.
type CRLs struct {
	Lists []*CRL
	At    time.Time
	Skew  time.Duration
}

// Revocation returns nil if a usable list says that cert is not revoked, or if
// cert is short-lived and says of itself that nobody can revoke it. One list
// that says "revoked" is enough; if none of the issuer is usable, the error is
// status-unavailable.
func (s CRLs) Revocation(_ context.Context, _ *Result, cert, issuer *x509.Certificate) error {
	if unrevocable(cert) {
		return nil
	}
	var missing error = unusable("CRL", "none is at hand for the issuer of serial %s", serialText(cert.SerialNumber))
	for _, c := range s.Lists {
		if !c.issuer.Equal(issuer) {
			continue
		}
		err := c.Check(cert, s.At, s.Skew)
		if err != nil && credentials.CodeOf(err) != credentials.CodeStatusUnavailable {
			return err
		}
		if missing != nil {
			missing = err
		}
	}
	return missing
}

// unrevocable reports whether cert lives a day at most and names neither a CRL
// nor OCSP.
func unrevocable(cert *x509.Certificate) bool {
	return !cert.IsCA && cert.NotAfter.Sub(cert.NotBefore) <= UnrevocableLifetime && len(cert.CRLDistributionPoints)+len(cert.OCSPServer) == 0
}
