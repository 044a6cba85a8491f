package certs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A CRLOrder is a certificate revocation list to be signed.
type CRLOrder struct {
	// Delta makes a delta CRL on the last full one: a critical
	// deltaCRLIndicator, and certificates taken off hold as removeFromCRL.
	Delta bool
	// Validity from thisUpdate to nextUpdate; 0 means 24 hours, a week is the
	// most.
	Validity time.Duration
	// DistributionPoint, if given, is written as a critical issuing
	// distribution point and must then be a CRL URL of the certificates.
	DistributionPoint string
	// Freshest, if given, is where full CRLs say that the newest delta is
	// (freshestCRL, RFC 5280 section 5.2.6).
	Freshest string
}

// SignCRL signs the next CRL of the issuer (RFC 5280 section 5). Its number is
// taken, with what it lists, in one durable step before the key is used; a
// number whose signing failed is not used again. The store must be the one
// that the issuer's certificates are in.
func (i *Issuer) SignCRL(ctx context.Context, store CRLStore, o CRLOrder) (*x509.RevocationList, error) {
	kinds := FullCRL
	if o.Delta {
		kinds = DeltaCRL
	}
	lists, err := i.signCRLs(ctx, store, o, kinds)
	if err != nil {
		return nil, err
	}
	return lists[0], nil
}

// SignCRLs signs the next full CRL and, with the same number and on the oldest
// full CRL that may still be in use, a delta CRL. delta is nil while there is
// no such base. It does not look at Delta.
func (i *Issuer) SignCRLs(ctx context.Context, store CRLStore, o CRLOrder) (full, delta *x509.RevocationList, err error) {
	lists, err := i.signCRLs(ctx, store, o, FullAndDelta)
	if err != nil {
		return nil, nil, err
	}
	if len(lists) > 1 {
		delta = lists[1]
	}
	return lists[0], delta, nil
}

func (i *Issuer) signCRLs(ctx context.Context, store CRLStore, o CRLOrder, kinds CRLKinds) ([]*x509.RevocationList, error) {
	if i.cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return nil, errors.New("the CA certificate does not allow cRLSign")
	}
	if o.Validity == 0 {
		o.Validity = 24 * time.Hour
	}
	if o.Validity < 0 || o.Validity > keepExpired {
		return nil, fmt.Errorf("CRL valid for %v, want at most %v", o.Validity, keepExpired)
	}
	for _, uri := range []string{o.DistributionPoint, o.Freshest} {
		if err := checkURLs(Profile{CRL: []string{uri}}); uri != "" && err != nil {
			return nil, err
		}
	}
	now := i.now().UTC().Truncate(time.Second)
	reserved, err := store.ReserveCRL(ctx, i.id, kinds, now, now.Add(o.Validity))
	if err != nil {
		return nil, fmt.Errorf("reserving a CRL number: %w", err)
	}
	var lists []*x509.RevocationList
	for _, r := range reserved {
		list, err := i.finishCRL(ctx, store, r, o)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// finishCRL signs and stores what is reserved.
func (i *Issuer) finishCRL(ctx context.Context, store CRLStore, r *Reservation, o CRLOrder) (*x509.RevocationList, error) {
	o.Delta = r.Base > 0
	list, err := i.signCRL(ctx, r, o)
	if err != nil {
		return nil, fmt.Errorf("CRL %d: %w", r.Number, err)
	}
	ctx, cancel := afterSigning(ctx)
	defer cancel()
	if err := store.PutCRL(ctx, i.id, r, list.Raw); err != nil {
		return nil, fmt.Errorf("CRL %d is signed and not released, storing it: %w", r.Number, err)
	}
	return list, nil
}

func (i *Issuer) signCRL(ctx context.Context, r *Reservation, o CRLOrder) (*x509.RevocationList, error) {
	draft, err := i.draftCRL(r, o)
	if err != nil {
		return nil, err
	}
	if err := i.lintCRL(draft, r, o); err != nil {
		return nil, err
	}
	der, _, err := i.signDER(ctx, i.key, draft.RawTBSRevocationList)
	if err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(list.RawTBSRevocationList, draft.RawTBSRevocationList) {
		return nil, errors.New("the signed CRL differs from the prepared one")
	}
	return list, nil
}

// draftCRL returns the CRL signed by the throwaway key.
func (i *Issuer) draftCRL(r *Reservation, o CRLOrder) (*x509.RevocationList, error) {
	t := &x509.RevocationList{Number: big.NewInt(r.Number), ThisUpdate: r.ThisUpdate, NextUpdate: r.NextUpdate}
	for _, e := range r.Entries {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: e.Serial, RevocationTime: e.At.Truncate(time.Second), ReasonCode: int(e.Reason),
		})
	}
	if o.Delta {
		base, err := stdasn1.Marshal(big.NewInt(r.Base))
		if err != nil {
			return nil, err
		}
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oidDeltaCRLIndicator, Critical: true, Value: base})
	}
	if o.DistributionPoint != "" {
		t.ExtraExtensions = append(t.ExtraExtensions, issuingDistributionPoint(o.DistributionPoint))
	}
	if o.Freshest != "" && !o.Delta {
		t.ExtraExtensions = append(t.ExtraExtensions, freshestCRL(o.Freshest))
	}
	parent := *i.cert
	parent.PublicKey = i.lintKey.Public()
	der, err := x509.CreateRevocationList(rand.Reader, t, &parent, i.lintKey)
	if err != nil {
		return nil, fmt.Errorf("building the CRL: %w", err)
	}
	return x509.ParseRevocationList(der)
}

// issuingDistributionPoint encodes
//
//	IssuingDistributionPoint ::= SEQUENCE {
//	     distributionPoint [0] DistributionPointName OPTIONAL, … }
func issuingDistributionPoint(uri string) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addPointName(b, uri) })
	return pkix.Extension{Id: oidIssuingDistPoint, Critical: true, Value: b.BytesOrPanic()}
}

// freshestCRL encodes
//
//	FreshestCRL ::= SEQUENCE OF DistributionPoint
//	DistributionPoint ::= SEQUENCE {
//	     distributionPoint [0] DistributionPointName OPTIONAL, … }
func freshestCRL(uri string) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addPointName(b, uri) })
	})
	return pkix.Extension{Id: oidFreshestCRL, Value: b.BytesOrPanic()}
}

// addPointName writes the field
//
//	distributionPoint [0] DistributionPointName
//	DistributionPointName ::= CHOICE { fullName [0] GeneralNames, … }
func addPointName(b *cryptobyte.Builder, uri string) {
	b.AddASN1(context0, func(b *cryptobyte.Builder) {
		b.AddASN1(context0, func(b *cryptobyte.Builder) {
			b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(uri)) })
		})
	})
}

// lintCRL reads a draft back.
func (i *Issuer) lintCRL(draft *x509.RevocationList, r *Reservation, o CRLOrder) error {
	var l linter
	l.want(draft.Number != nil && draft.Number.IsInt64() && draft.Number.Int64() == r.Number, "CRL number %v, reserved %d", draft.Number, r.Number)
	l.want(bytes.Equal(draft.RawIssuer, i.cert.RawSubject), "issuer name is not the subject of the CA certificate")
	l.want(bytes.Equal(draft.AuthorityKeyId, i.cert.SubjectKeyId), "authority key identifier is not the issuer's")
	l.want(draft.ThisUpdate.Equal(r.ThisUpdate) && draft.NextUpdate.Equal(r.NextUpdate), "times are not those reserved")
	l.want(len(draft.RevokedCertificateEntries) == len(r.Entries), "%d entries, want %d", len(draft.RevokedCertificateEntries), len(r.Entries))
	for n, e := range draft.RevokedCertificateEntries {
		l.want(n < len(r.Entries) && e.SerialNumber.Cmp(r.Entries[n].Serial) == 0 && Reason(e.ReasonCode) == r.Entries[n].Reason, "entry %d is not the one reserved", n)
	}
	l.want((extension(draft.Extensions, oidDeltaCRLIndicator) != nil) == o.Delta, "delta indicator with delta=%t", o.Delta)
	l.want((extension(draft.Extensions, oidIssuingDistPoint) != nil) == (o.DistributionPoint != ""), "issuing distribution point")
	if len(l.findings) > 0 {
		return &LintError{Findings: l.findings}
	}
	return nil
}
