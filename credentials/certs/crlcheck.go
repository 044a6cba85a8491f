package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
)

// MaxCRL is the most octets of a CRL that is read.
const MaxCRL = 32 << 20

// A CRL is a full, direct certificate revocation list whose signature has been
// verified, with a delta applied to it or not. It is safe for concurrent use.
type CRL struct {
	list     *x509.RevocationList
	base     *big.Int // of a delta CRL; nil for a full one
	issuer   *x509.Certificate
	points   []string // of its issuing distribution point; nil if it has none
	freshest []string // where its deltas are
	revoked  map[string]Revocation
}

// ParseCRL reads a CRL in DER or PEM and verifies that issuer signed it:
// same name, same key identifier, same key, and a key usage of cRLSign.
//
// A CRL that cannot be used is as good as none: every error is
// status-unavailable. That is so for deltas (see CRL.WithDelta), indirect CRLs,
// those for some reasons or kinds of certificate only, and those with unknown
// critical extensions. previous may be nil; if it is not, a CRL that is older
// than it is refused.
func ParseCRL(data []byte, issuer *x509.Certificate, previous *CRL) (*CRL, error) {
	c, err := parseList(data, issuer)
	switch {
	case err != nil:
		return nil, err
	case c.base != nil:
		return nil, unusable("CRL", "is a delta CRL")
	case previous != nil && c.older(previous):
		return nil, unusable("CRL", "number %v of %s is older than the number %v of %s that is known", c.list.Number, c.list.ThisUpdate.Format(time.RFC3339), previous.list.Number, previous.list.ThisUpdate.Format(time.RFC3339))
	}
	return c, nil
}

// parseList reads a full or a delta CRL.
func parseList(data []byte, issuer *x509.Certificate) (*CRL, error) {
	if len(data) > MaxCRL {
		return nil, unusable("CRL", "%d octets, want at most %d", len(data), MaxCRL)
	}
	if bytes.HasPrefix(data, []byte("-----BEGIN")) {
		block, rest := pem.Decode(data)
		if block == nil || block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, unusable("CRL", "not one PEM block of an X509 CRL")
		}
		data = block.Bytes
	}
	if err := checkCRLShape(data); err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, unusable("CRL", "not a CRL in DER: %w", err)
	}
	c := &CRL{list: list, issuer: issuer}
	if err := c.checkIssuer(); err != nil {
		return nil, err
	}
	if err := c.readExtensions(); err != nil {
		return nil, err
	}
	if err := c.index(); err != nil {
		return nil, err
	}
	// Of a long list the entries, and what they were read from, are let go.
	c.list = &x509.RevocationList{Number: list.Number, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate}
	return c, nil
}

func unusable(where, format string, args ...any) *credentials.Error {
	return credentials.Errorf(credentials.CodeStatusUnavailable, where, format, args...)
}

func (c *CRL) checkIssuer() error {
	list, ca := c.list, c.issuer
	if !bytes.Equal(list.RawIssuer, ca.RawSubject) || len(list.AuthorityKeyId) > 0 && len(ca.SubjectKeyId) > 0 && !bytes.Equal(list.AuthorityKeyId, ca.SubjectKeyId) {
		return unusable("CRL", "is not of the certificate's issuer")
	}
	if extension(ca.Extensions, oidKeyUsage) != nil && ca.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return unusable("CRL", "its issuer may not sign CRLs (key usage)")
	}
	if !slices.Contains(linkAlgorithms, list.SignatureAlgorithm) || weakKey(ca.PublicKey) != "" {
		return unusable("CRL", "signed with %v, or by a weak key", list.SignatureAlgorithm)
	}
	if err := ca.CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, list.Signature); err != nil {
		return unusable("CRL", "signature is not that of the issuer: %w", err)
	}
	if !list.NextUpdate.After(list.ThisUpdate) { // zero if it is left out
		return unusable("CRL", "does not say when the next one comes, or that it came before this one")
	}
	return nil
}

// readExtensions refuses what would narrow or change the meaning of the CRL.
func (c *CRL) readExtensions() error {
	for _, ext := range c.list.Extensions {
		switch {
		case ext.Id.Equal(oidDeltaCRLIndicator):
			value := cryptobyte.String(ext.Value)
			c.base = new(big.Int)
			if !value.ReadASN1Integer(c.base) || !value.Empty() || c.base.Sign() < 0 {
				return unusable("CRL", "delta CRL indicator is no number")
			}
		case ext.Id.Equal(oidIssuingDistPoint):
			points, ok := readDistributionPoint(ext.Value)
			if !ok {
				return unusable("CRL", "covers some certificates or reasons only, or is indirect")
			}
			c.points = points
		case ext.Id.Equal(oidFreshestCRL) && !ext.Critical:
			c.freshest = readFreshest(ext.Value)
		case ext.Id.Equal(oidAuthorityKeyID):
		case ext.Id.Equal(oidCRLNumber):
			value := cryptobyte.String(ext.Value)
			if !skipSerial(&value) || !value.Empty() || c.list.Number.Sign() < 0 {
				return unusable("CRL", "its number is none")
			}
		case ext.Critical:
			return unusable("CRL", "critical extension %v is unknown", ext.Id)
		}
	}
	return nil
}

// readDistributionPoint returns the URIs of an issuing distribution point that
// has nothing else.
func readDistributionPoint(value cryptobyte.String) (uris []string, ok bool) {
	var seq, point cryptobyte.String
	if !value.ReadASN1(&seq, asn1.SEQUENCE) || !value.Empty() || !seq.ReadASN1(&point, context0) || !seq.Empty() {
		return nil, false
	}
	return readPointURIs(point)
}

// readFreshest returns the URIs of FreshestCRL ::= SEQUENCE OF
// DistributionPoint. A point that is for some reasons only, or of another
// issuer, is left out.
func readFreshest(value cryptobyte.String) (uris []string) {
	var list cryptobyte.String
	if !value.ReadASN1(&list, asn1.SEQUENCE) || !value.Empty() {
		return nil
	}
	for !list.Empty() {
		var dp, point cryptobyte.String
		if !list.ReadASN1(&dp, asn1.SEQUENCE) {
			return nil
		}
		if !dp.ReadASN1(&point, context0) || !dp.Empty() {
			continue
		}
		more, _ := readPointURIs(point)
		uris = append(uris, more...)
	}
	return uris
}

// readPointURIs returns the URIs of a DistributionPointName that is a full name.
func readPointURIs(point cryptobyte.String) (uris []string, ok bool) {
	var names cryptobyte.String
	if !point.ReadASN1(&names, context0) || !point.Empty() {
		return nil, false
	}
	for !names.Empty() {
		var name cryptobyte.String
		var tag asn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return nil, false
		}
		if tag == tagURI {
			uris = append(uris, string(name))
		}
	}
	return uris, len(uris) > 0
}

// older reports whether previous is not to be replaced by c. A CA that has
// begun to number its CRLs goes on.
func (c *CRL) older(previous *CRL) bool {
	if previous.list.Number != nil && (c.list.Number == nil || c.list.Number.Cmp(previous.list.Number) < 0) {
		return true
	}
	return c.list.ThisUpdate.Before(previous.list.ThisUpdate)
}

func (c *CRL) index() error {
	c.revoked = make(map[string]Revocation, len(c.list.RevokedCertificateEntries))
	for _, e := range c.list.RevokedCertificateEntries {
		serial := serialText(e.SerialNumber)
		if err := checkEntry(serial, &e); err != nil {
			return err
		}
		if _, twice := c.revoked[serial]; twice {
			return unusable("CRL", "entry %s is there twice", serial)
		}
		c.revoked[serial] = Revocation{At: e.RevocationTime, Reason: Reason(e.ReasonCode)}
	}
	return nil
}

// checkEntry refuses what would narrow or change the meaning of an entry. One
// with a reason that is not known, or that only a delta may give, is revoked.
func checkEntry(serial string, e *x509.RevocationListEntry) error {
	const enum = 3 // octets of an ENUMERATED below 128
	for _, ext := range e.Extensions {
		switch {
		case ext.Id.Equal(oidReasonCode):
			if len(ext.Value) != enum {
				return unusable("CRL", "the reason of entry %s cannot be read", serial)
			}
		case ext.Critical:
			return unusable("CRL", "entry %s has the unknown critical extension %v", serial, ext.Id)
		}
	}
	return nil
}

// Freshest returns the URIs at which the CRL says that its deltas are (RFC 5280
// section 5.2.6).
func (c *CRL) Freshest() []string { return c.freshest }

// Number returns the CRL number, or nil.
func (c *CRL) Number() *big.Int { return c.list.Number }

// Validity returns the times of this update and of the next.
func (c *CRL) Validity() (thisUpdate, nextUpdate time.Time) {
	return c.list.ThisUpdate, c.list.NextUpdate
}

// Check returns nil if the CRL says at the given time that cert, issued by the
// CRL's issuer, is not revoked. Its errors are revoked, suspended (on hold) and
// status-unavailable (the CRL is too old or does not cover cert). skew is what
// clocks may differ by.
func (c *CRL) Check(cert *x509.Certificate, at time.Time, skew time.Duration) error {
	if err := c.covers(cert, at, skew); err != nil {
		return err
	}
	if r, ok := c.revoked[serialText(cert.SerialNumber)]; ok {
		return r.refusal("CRL", cert.SerialNumber)
	}
	return nil
}

// covers says why the CRL says nothing about cert at a time, or returns nil.
func (c *CRL) covers(cert *x509.Certificate, at time.Time, skew time.Duration) error {
	if !named(cert, c.issuer) {
		return unusable("CRL", "is not of the certificate's issuer")
	}
	if err := checkFresh("CRL", c.list.ThisUpdate, c.list.NextUpdate, at, skew); err != nil {
		return err
	}
	if c.points != nil && !slices.ContainsFunc(cert.CRLDistributionPoints, func(p string) bool { return slices.Contains(c.points, p) }) {
		return unusable("CRL", "is of another distribution point than the certificate names")
	}
	return nil
}

// checkFresh wants thisUpdate ≤ at + skew and at < nextUpdate.
func checkFresh(where string, thisUpdate, nextUpdate, at time.Time, skew time.Duration) error {
	switch {
	case thisUpdate.After(at.Add(skew)):
		return unusable(where, "begins %s", thisUpdate.Format(time.RFC3339))
	case !at.Before(nextUpdate):
		return unusable(where, "was to be replaced at %s", nextUpdate.Format(time.RFC3339))
	}
	return nil
}

func (r Revocation) refusal(where string, serial *big.Int) error {
	code := credentials.CodeRevoked
	if r.Reason == CertificateHold {
		code = credentials.CodeSuspended
	}
	return credentials.Errorf(code, where, "serial %s at %s, %v", serialText(serial), r.At.UTC().Format(time.RFC3339), r.Reason)
}
