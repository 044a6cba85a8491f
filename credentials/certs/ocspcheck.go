package certs

import (
	"bytes"
	"crypto/subtle"
	"crypto/x509"
	stdasn1 "encoding/asn1"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
)

// maxAgeWithoutNext is how old an answer may be that does not say when the next
// one comes.
const maxAgeWithoutNext = 24 * time.Hour

// An OCSPCheck is one OCSP answer to be judged.
type OCSPCheck struct {
	Response     []byte            // DER
	Certificate  *x509.Certificate // that was asked about
	Issuer       *x509.Certificate // its CA
	Nonce        []byte            // that was sent, or nil
	RequireNonce bool              // refuse an answer that leaves the nonce out
	At           time.Time
	Skew         time.Duration
	// Delegate decides whether the certificate of a delegated responder is
	// revoked, unless it says that nobody need ask (id-pkix-ocsp-nocheck). nil
	// refuses a responder that does not say so.
	Delegate func(cert *x509.Certificate) error
}

// An OCSPResult is what an answer that can be used says of its own life.
type OCSPResult struct {
	ThisUpdate, NextUpdate time.Time // NextUpdate is never zero
	HasNonce               bool      // it was made for this request
}

// CheckOCSP judges an answer (RFC 6960 section 3.2): signature, responder, the
// certificate it is about, time, nonce, status. It returns an error of code
// revoked, suspended, nonce (another nonce than the one sent), or
// status-unavailable for everything else, "unknown" included: an answer that
// cannot be used never means good. An answer without the nonce is accepted on
// its freshness unless RequireNonce is set. There is a result with revoked and
// suspended too: whoever keeps answers has to know which of two is newer.
func CheckOCSP(c OCSPCheck) (*OCSPResult, error) {
	answer, err := parseOCSPResponse(c.Response)
	if err != nil {
		return nil, err
	}
	if err := answer.checkSigner(&c); err != nil {
		return nil, err
	}
	if answer.id.serial.Cmp(c.Certificate.SerialNumber) != 0 || !answer.id.of(c.Issuer) || !named(c.Certificate, c.Issuer) {
		return nil, unusable("OCSP response", "is about another certificate")
	}
	if answer.nextUpdate.IsZero() {
		answer.nextUpdate = answer.producedAt.Add(maxAgeWithoutNext)
	}
	if !answer.nextUpdate.After(answer.thisUpdate) {
		return nil, unusable("OCSP response", "the next one came before it")
	}
	if err := checkFresh("OCSP response", answer.thisUpdate, answer.nextUpdate, c.At, c.Skew); err != nil {
		return nil, err
	}
	if err := answer.checkNonce(c); err != nil {
		return nil, err
	}
	r := &OCSPResult{ThisUpdate: answer.thisUpdate, NextUpdate: answer.nextUpdate, HasNonce: answer.nonce != nil}
	switch answer.status {
	case statusGood:
		return r, nil
	case statusRevoked:
		return r, answer.revocation.refusal("OCSP response", answer.id.serial)
	default:
		return nil, unusable("OCSP response", "the responder does not know the certificate")
	}
}

const (
	statusGood = iota
	statusRevoked
	statusUnknown
)

// An ocspAnswer is a BasicOCSPResponse with one SingleResponse.
type ocspAnswer struct {
	tbs, signature []byte
	algorithm      cryptobyte.String
	delegate       *x509.Certificate // the first of certs, or nil
	byKey, byName  []byte            // the ResponderID
	producedAt     time.Time
	id             certID
	status         int
	revocation     Revocation
	thisUpdate     time.Time
	nextUpdate     time.Time
	nonce          []byte
}

// parseOCSPResponse reads an OCSPResponse down to its single response.
func parseOCSPResponse(der cryptobyte.String) (*ocspAnswer, error) {
	var seq, bytesSeq, outer, basic cryptobyte.String
	var status int
	var present bool
	var kind stdasn1.ObjectIdentifier
	if len(der) > MaxOCSPResponse {
		return nil, unusable("OCSP response", "%d octets, want at most %d", len(der), MaxOCSPResponse)
	}
	if !der.ReadASN1(&seq, asn1.SEQUENCE) || !der.Empty() || !seq.ReadASN1Enum(&status) || !seq.ReadOptionalASN1(&outer, &present, context0) || !seq.Empty() {
		return nil, unusable("OCSP response", "not an OCSP response in DER")
	}
	if status != ocspSuccessful {
		return nil, unusable("OCSP response", "the responder answers with failure %d", status)
	}
	if !present || !outer.ReadASN1(&bytesSeq, asn1.SEQUENCE) || !outer.Empty() || !bytesSeq.ReadASN1ObjectIdentifier(&kind) || !kind.Equal(oidOCSPBasic) ||
		!bytesSeq.ReadASN1(&basic, asn1.OCTET_STRING) || !bytesSeq.Empty() {
		return nil, unusable("OCSP response", "not a basic OCSP response")
	}
	a := &ocspAnswer{}
	if !a.readBasic(basic) {
		return nil, unusable("OCSP response", "not a basic OCSP response about one certificate, or with unknown critical extensions")
	}
	return a, nil
}

func (a *ocspAnswer) readBasic(basic cryptobyte.String) bool {
	var seq, tbs, certsOuter, list, first cryptobyte.String
	var hasCerts bool
	if !basic.ReadASN1(&seq, asn1.SEQUENCE) || !basic.Empty() || !seq.ReadASN1Element(&tbs, asn1.SEQUENCE) ||
		!seq.ReadASN1Element(&a.algorithm, asn1.SEQUENCE) || !seq.ReadASN1BitStringAsBytes(&a.signature) ||
		!seq.ReadOptionalASN1(&certsOuter, &hasCerts, context0) || !seq.Empty() {
		return false
	}
	a.tbs = tbs
	if hasCerts {
		if !certsOuter.ReadASN1(&list, asn1.SEQUENCE) || !certsOuter.Empty() {
			return false
		}
		if !list.Empty() {
			if !list.ReadASN1Element(&first, asn1.SEQUENCE) {
				return false
			}
			cert, err := x509.ParseCertificate(first)
			if err != nil {
				return false
			}
			a.delegate = cert
		}
	}
	return a.readData(tbs)
}

func (a *ocspAnswer) readData(tbs cryptobyte.String) bool {
	var data, responses, single, exts cryptobyte.String
	var hasExts bool
	if !tbs.ReadASN1(&data, asn1.SEQUENCE) || data.PeekASN1Tag(context0) || !a.readResponderID(&data) ||
		!data.ReadASN1GeneralizedTime(&a.producedAt) || !data.ReadASN1(&responses, asn1.SEQUENCE) ||
		!data.ReadOptionalASN1(&exts, &hasExts, context1) || !data.Empty() {
		return false
	}
	if hasExts {
		nonce, ok := readOCSPExtensions(exts)
		if !ok {
			return false
		}
		a.nonce = nonce
	}
	return responses.ReadASN1(&single, asn1.SEQUENCE) && responses.Empty() && a.readSingle(single)
}

func (a *ocspAnswer) readResponderID(data *cryptobyte.String) bool {
	var value cryptobyte.String
	var tag asn1.Tag
	if !data.ReadAnyASN1(&value, &tag) {
		return false
	}
	switch tag {
	case context1:
		a.byName = value
		return true
	case context2:
		return value.ReadASN1Bytes(&a.byKey, asn1.OCTET_STRING) && value.Empty()
	}
	return false
}

func (a *ocspAnswer) readSingle(single cryptobyte.String) bool {
	var status, next, exts cryptobyte.String
	var tag asn1.Tag
	var hasNext, hasExts, ok bool
	if a.id, ok = readCertID(&single); !ok || !single.ReadAnyASN1(&status, &tag) || !single.ReadASN1GeneralizedTime(&a.thisUpdate) ||
		!single.ReadOptionalASN1(&next, &hasNext, context0) || !single.ReadOptionalASN1(&exts, &hasExts, context1) || !single.Empty() {
		return false
	}
	if hasNext && (!next.ReadASN1GeneralizedTime(&a.nextUpdate) || !next.Empty()) {
		return false
	}
	if hasExts {
		if _, ok := readOCSPExtensions(exts); !ok {
			return false
		}
	}
	return a.readStatus(tag, status)
}

func (a *ocspAnswer) readStatus(tag asn1.Tag, value cryptobyte.String) bool {
	switch tag {
	case asn1.Tag(0).ContextSpecific():
		a.status = statusGood
		return value.Empty()
	case asn1.Tag(2).ContextSpecific():
		a.status = statusUnknown
		return value.Empty()
	case context1:
		var reason cryptobyte.String
		var hasReason bool
		var n int
		a.status = statusRevoked
		if !value.ReadASN1GeneralizedTime(&a.revocation.At) || !value.ReadOptionalASN1(&reason, &hasReason, context0) || !value.Empty() {
			return false
		}
		if hasReason && (!reason.ReadASN1Enum(&n) || !reason.Empty()) {
			return false
		}
		a.revocation.Reason = Reason(n)
		return true
	}
	return false
}

// checkSigner wants the signature of the CA, or of a responder that the CA
// itself has certified for it.
func (a *ocspAnswer) checkSigner(c *OCSPCheck) error {
	ca, signer := c.Issuer, c.Issuer
	if a.delegate != nil && !bytes.Equal(a.delegate.RawSubjectPublicKeyInfo, ca.RawSubjectPublicKeyInfo) {
		signer = a.delegate
		if err := checkDelegate(a.delegate, ca); err != nil {
			return err
		}
		if c.At.Add(c.Skew).Before(signer.NotBefore) || c.At.Add(-c.Skew).After(signer.NotAfter) {
			return unusable("OCSP responder", "is valid from %s to %s", signer.NotBefore.Format(time.RFC3339), signer.NotAfter.Format(time.RFC3339))
		}
	}
	hash, err := responderKeyHash(signer.RawSubjectPublicKeyInfo)
	if err != nil || a.byKey != nil && !bytes.Equal(a.byKey, hash) || a.byKey == nil && !bytes.Equal(a.byName, signer.RawSubject) {
		return unusable("OCSP response", "its responder is neither the CA nor the certificate in it")
	}
	alg := algorithmNamed(a.algorithm)
	if alg == x509.UnknownSignatureAlgorithm || weakKey(signer.PublicKey) != "" {
		return unusable("OCSP response", "signed with an unknown or weak algorithm")
	}
	if err := signer.CheckSignature(alg, a.tbs, a.signature); err != nil {
		return unusable("OCSP response", "signature is not that of the responder: %w", err)
	}
	return a.checkDelegateStanding(c, signer)
}

// checkDelegateStanding asks whether a delegated responder is revoked (RFC 6960
// section 4.2.2.2.1), once it is known to have signed.
func (a *ocspAnswer) checkDelegateStanding(c *OCSPCheck, signer *x509.Certificate) error {
	if signer == c.Issuer || nobodyNeedAsk(signer) {
		return nil
	}
	if c.Delegate == nil {
		return unusable("OCSP responder", "has no id-pkix-ocsp-nocheck, and its own revocation is not known")
	}
	if err := c.Delegate(signer); err != nil {
		return unusable("OCSP responder", "its own certificate: %w", err)
	}
	return nil
}

// algorithmNamed returns the signature algorithm of an AlgorithmIdentifier.
func algorithmNamed(der cryptobyte.String) x509.SignatureAlgorithm {
	var seq, null cryptobyte.String
	var id stdasn1.ObjectIdentifier
	if !der.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&id) ||
		!seq.Empty() && (!seq.ReadASN1(&null, asn1.NULL) || !null.Empty() || !seq.Empty()) {
		return x509.UnknownSignatureAlgorithm
	}
	for _, known := range []struct {
		id  stdasn1.ObjectIdentifier
		alg x509.SignatureAlgorithm
	}{
		{signatureAlgorithms[credentials.ECDSAP256], x509.ECDSAWithSHA256}, {signatureAlgorithms[credentials.ECDSAP384], x509.ECDSAWithSHA384},
		{signatureAlgorithms[credentials.ECDSAP521], x509.ECDSAWithSHA512}, {signatureAlgorithms[credentials.Ed25519], x509.PureEd25519},
		{stdasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, x509.SHA256WithRSA}, {stdasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, x509.SHA384WithRSA},
		{stdasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, x509.SHA512WithRSA},
	} {
		if known.id.Equal(id) {
			return known.alg
		}
	}
	return x509.UnknownSignatureAlgorithm
}

func (a *ocspAnswer) checkNonce(c OCSPCheck) error {
	switch {
	case len(c.Nonce) == 0:
		return nil
	case a.nonce == nil && c.RequireNonce:
		return credentials.Errorf(credentials.CodeNonce, "OCSP response", "has no nonce")
	case a.nonce != nil && subtle.ConstantTimeCompare(a.nonce, c.Nonce) != 1:
		return credentials.Errorf(credentials.CodeNonce, "OCSP response", "has another nonce than was sent")
	}
	return nil
}
