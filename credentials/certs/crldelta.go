package certs

import (
	"crypto/x509"
	"maps"
	"slices"
	"time"
)

// ParseDeltaCRL reads a delta CRL in DER or PEM and verifies it as ParseCRL
// does. previous may be nil; if it is not, a delta that is older than it is
// refused. Every error is status-unavailable.
func ParseDeltaCRL(data []byte, issuer *x509.Certificate, previous *CRL) (*CRL, error) {
	d, err := parseList(data, issuer)
	switch {
	case err != nil:
		return nil, err
	case d.base == nil:
		return nil, unusable("delta CRL", "is a full CRL")
	case d.list.Number == nil:
		return nil, unusable("delta CRL", "has no number")
	case previous != nil && d.older(previous):
		return nil, unusable("delta CRL", "number %v is older than the number %v that is known", d.list.Number, previous.list.Number)
	}
	return d, nil
}

// Applies says why a delta does not complete c (RFC 5280 section 5.2.4), or
// returns nil. Its base may be any full CRL not newer than c. The error is
// status-unavailable: also for a delta of another scope, for one that builds on
// a newer CRL than c, and for one that is older than c.
func (c *CRL) Applies(d *CRL) error {
	switch {
	case c.list.Number == nil:
		return unusable("delta CRL", "its base has no number")
	case !slices.Equal(c.points, d.points):
		return unusable("delta CRL", "is of another distribution point than its base")
	case c.list.Number.Cmp(d.base) < 0:
		return unusable("delta CRL", "builds on number %v, at hand is %v; fetch the full CRL", d.base, c.list.Number)
	case d.older(c):
		return unusable("delta CRL", "number %v is older than the %v at hand", d.list.Number, c.list.Number)
	}
	return nil
}

// CheckWith is Check by c and a delta that applies to it together. The times
// are those of the delta.
func (c *CRL) CheckWith(d *CRL, cert *x509.Certificate, at time.Time, skew time.Duration) error {
	if err := c.Applies(d); err != nil {
		return err
	}
	if err := d.covers(cert, at, skew); err != nil {
		return err
	}
	serial := serialText(cert.SerialNumber)
	if r, ok := d.revoked[serial]; ok && r.Reason != RemoveFromCRL {
		return r.refusal("delta CRL", cert.SerialNumber)
	} else if ok {
		return nil
	}
	if r, ok := c.revoked[serial]; ok {
		return r.refusal("CRL", cert.SerialNumber)
	}
	return nil
}

// WithDelta reads a delta CRL in DER or PEM, verifies it as ParseDeltaCRL does,
// and returns what c and the delta say together. c stays as it is. The number
// and the times are those of the delta from then on, so that a later one may
// follow. Every error is status-unavailable.
func (c *CRL) WithDelta(data []byte) (*CRL, error) {
	d, err := ParseDeltaCRL(data, c.issuer, nil)
	if err != nil {
		return nil, err
	}
	if err := c.Applies(d); err != nil {
		return nil, err
	}
	merged := &CRL{list: d.list, issuer: c.issuer, points: c.points, revoked: maps.Clone(c.revoked)}
	for serial, r := range d.revoked {
		if r.Reason == RemoveFromCRL {
			delete(merged.revoked, serial)
		} else {
			merged.revoked[serial] = r
		}
	}
	return merged, nil
}
