package certs

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	maxSerialOctets = 20     // RFC 5280 section 4.1.2.2; also of a CRL number (section 5.2.3)
	maxExtensions   = 64     // of a CRL, or of one entry
	utcTimeOctets   = 13     // YYMMDDHHMMSSZ
	generalOctets   = 4 + 11 // YYYYMMDDHHMMSSZ
)

// checkCRLShape holds a CRL to the grammar of RFC 5280 section 5.1. Package
// x509 passes over what it does not expect, so that a list of revoked
// certificates under another tag would be an empty list.
//
//	CertificateList ::= SEQUENCE {
//	     tbsCertList TBSCertList, signatureAlgorithm AlgorithmIdentifier,
//	     signatureValue BIT STRING }
//	TBSCertList ::= SEQUENCE {
//	     version Version, signature AlgorithmIdentifier, issuer Name,
//	     thisUpdate Time, nextUpdate Time OPTIONAL,
//	     revokedCertificates SEQUENCE OF SEQUENCE {
//	          userCertificate CertificateSerialNumber, revocationDate Time,
//	          crlEntryExtensions Extensions OPTIONAL } OPTIONAL,
//	     crlExtensions [0] EXPLICIT Extensions OPTIONAL }
//
// An empty list of revoked certificates, which should be left out, is common.
func checkCRLShape(der cryptobyte.String) error {
	var outer, tbs, exts, list cryptobyte.String
	var revoked, extended bool
	if !der.ReadASN1(&outer, asn1.SEQUENCE) || !der.Empty() || !outer.ReadASN1(&tbs, asn1.SEQUENCE) || !outer.SkipASN1(asn1.SEQUENCE) ||
		!outer.ReadASN1BitStringAsBytes(new([]byte)) || !outer.Empty() {
		return unusable("CRL", "not a CRL in DER")
	}
	if !tbs.SkipASN1(asn1.INTEGER) || !tbs.SkipASN1(asn1.SEQUENCE) || !tbs.SkipASN1(asn1.SEQUENCE) || !skipTime(&tbs) ||
		isTime(tbs) && !skipTime(&tbs) || !tbs.ReadOptionalASN1(&list, &revoked, asn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&exts, &extended, context0) || !tbs.Empty() {
		return unusable("CRL", "not a list of revoked certificates in DER")
	}
	if extended && (!skipExtensions(&exts) || !exts.Empty()) {
		return unusable("CRL", "its extensions cannot be read, or one is there twice")
	}
	for !list.Empty() {
		if !skipEntry(&list) {
			return unusable("CRL", "a revoked certificate cannot be read")
		}
	}
	return nil
}

func skipEntry(list *cryptobyte.String) bool {
	var entry cryptobyte.String
	return list.ReadASN1(&entry, asn1.SEQUENCE) && skipSerial(&entry) && skipTime(&entry) &&
		(entry.Empty() || skipExtensions(&entry) && entry.Empty())
}

// skipSerial passes a serial or CRL number of at most 20 octets.
func skipSerial(s *cryptobyte.String) bool {
	var n cryptobyte.String
	return s.ReadASN1(&n, asn1.INTEGER) && (len(n) <= maxSerialOctets || len(n) == maxSerialOctets+1 && n[0] == 0)
}

func isTime(s cryptobyte.String) bool {
	return s.PeekASN1Tag(asn1.UTCTime) || s.PeekASN1Tag(asn1.GeneralizedTime)
}

// skipTime passes a time with seconds, in UTC (RFC 5280 section 4.1.2.5).
// Package x509 has it that the digits are a time.
func skipTime(s *cryptobyte.String) bool {
	var text cryptobyte.String
	var tag asn1.Tag
	return s.ReadAnyASN1(&text, &tag) && (tag == asn1.UTCTime && len(text) == utcTimeOctets || tag == asn1.GeneralizedTime && len(text) == generalOctets)
}

// skipExtensions passes a list of extensions that has one at least and none
// twice (RFC 5280 section 4.2).
func skipExtensions(s *cryptobyte.String) bool {
	var list cryptobyte.String
	if !s.ReadASN1(&list, asn1.SEQUENCE) || list.Empty() {
		return false
	}
	var seen []string
	for !list.Empty() {
		var ext, id cryptobyte.String
		if !list.ReadASN1(&ext, asn1.SEQUENCE) || !ext.ReadASN1(&id, asn1.OBJECT_IDENTIFIER) ||
			ext.PeekASN1Tag(asn1.BOOLEAN) && !ext.ReadASN1Boolean(new(bool)) || !ext.SkipASN1(asn1.OCTET_STRING) || !ext.Empty() ||
			slices.Contains(seen, string(id)) || len(seen) == maxExtensions {
			return false
		}
		seen = append(seen, string(id))
	}
	return true
}
