package certs

import (
	"maps"
	"slices"
)

// WithDelta reads a delta CRL in DER or PEM, verifies it as ParseCRL does, and
// returns what c and the delta say together (RFC 5280 section 5.2.4). c stays as
// it is. The number and the times are those of the delta from then on, so that
// a later one may follow; its base may be any full CRL not newer than c.
//
// Every error is status-unavailable: also for a delta of another scope, for one
// that builds on a newer CRL than c, and for one that is older than c.
func (c *CRL) WithDelta(data []byte) (*CRL, error) {
	d, err := parseList(data, c.issuer)
	if err != nil {
		return nil, err
	}
	if err := c.takes(d); err != nil {
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

// takes says why a delta does not apply, or returns nil.
func (c *CRL) takes(d *CRL) error {
	switch {
	case d.base == nil:
		return unusable("delta CRL", "is a full CRL")
	case c.list.Number == nil || d.list.Number == nil:
		return unusable("delta CRL", "it or its base has no number")
	case !slices.Equal(c.points, d.points):
		return unusable("delta CRL", "is of another distribution point than its base")
	case c.list.Number.Cmp(d.base) < 0:
		return unusable("delta CRL", "builds on number %v, at hand is %v; fetch the full CRL", d.base, c.list.Number)
	case d.older(c):
		return unusable("delta CRL", "number %v is older than the %v at hand", d.list.Number, c.list.Number)
	}
	return nil
}
