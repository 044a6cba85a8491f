package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
)

const ocspResponderLifetime = 30 * 24 * time.Hour

// ocspTemplate is the profile of a delegated responder.
func ocspTemplate(o CAOrder, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	ski, err := subjectKeyID(pub)
	if err != nil {
		return nil, err
	}
	notBefore := now.Add(-Backdate).Truncate(time.Second).UTC()
	return &x509.Certificate{
		Subject: o.Subject, NotBefore: notBefore, NotAfter: notBefore.Add(o.Lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		BasicConstraintsValid: true, SubjectKeyId: ski,
		ExtraExtensions: []pkix.Extension{{Id: oidOCSPNoCheck, Value: stdasn1.NullBytes}},
	}, nil
}

// OCSPResponseStatus values (RFC 6960 section 4.2.1).
const (
	ocspSuccessful       = 0
	ocspMalformedRequest = 1
	ocspInternalError    = 2
	ocspUnauthorized     = 6
)

// OCSPConfig is what a Responder is made of.
type OCSPConfig struct {
	CA          *x509.Certificate // whose certificates are asked about
	Key         crypto.Signer     // the CA's, or that of Certificate
	Certificate *x509.Certificate // of a delegated responder, or nil
	Store       CRLStore
	Answers     OCSPAnswers      // keeps what Presign signs; nil keeps it in memory
	Validity    time.Duration    // of a response; 0 means one hour
	Now         func() time.Time // nil means time.Now
}

// A Responder answers OCSP requests about the certificates of one CA from the
// Store. Answers without a nonce are signed once and kept until four fifths of
// their validity or until the status changes, and where the key is away then,
// until their end; an answer with a nonce is signed for it alone. It is safe for
// concurrent use if its Key is.
type Responder struct {
	c      OCSPConfig
	scheme *credentials.Scheme
	id     KeyID
	hash   []byte // its ResponderID

	mu   sync.Mutex // guards kept
	kept map[string]keptAnswer
}

type keptAnswer struct {
	der    []byte
	status string    // what it says
	from   time.Time // its thisUpdate
	half   time.Time // from when on Presign signs anew
	until  time.Time // from when on whoever asks has it signed anew
	end    time.Time // its nextUpdate
}

// maxKept bounds the answers that are kept; beyond it all are dropped.
const maxKept = 1 << 16

// NewResponder returns a Responder.
func NewResponder(c OCSPConfig) (*Responder, error) {
	if c.CA == nil || c.Key == nil || c.Store == nil {
		return nil, errors.New("an OCSP responder needs a CA certificate, a key and a store")
	}
	owner := c.CA
	if c.Certificate != nil {
		owner = c.Certificate
		if err := checkDelegate(c.Certificate, c.CA); err != nil {
			return nil, err
		}
		if !nobodyNeedAsk(c.Certificate) {
			return nil, unusable("OCSP responder", "has no id-pkix-ocsp-nocheck; verifiers would have to learn of its own revocation")
		}
	}
	if !credentials.SamePublicKey(owner.PublicKey, c.Key.Public()) {
		return nil, errors.New("the key of the OCSP responder is not that of its certificate")
	}
	if c.Validity <= 0 {
		c.Validity = time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &Responder{c: c, kept: map[string]keptAnswer{}}
	var err error
	if r.scheme, err = credentials.SchemeOf(c.Key.Public()); err != nil {
		return nil, err
	}
	if r.id, err = KeyIDOf(c.CA.PublicKey); err != nil {
		return nil, err
	}
	r.hash, err = responderKeyHash(owner.RawSubjectPublicKeyInfo)
	return r, err
}

// Respond returns the answer to a request, both in DER
// (application/ocsp-response). There is always an answer; the error, if any,
// is for the operator and is not to be shown to who asked.
func (r *Responder) Respond(ctx context.Context, request []byte) ([]byte, error) {
	id, nonce, ok := parseOCSPRequest(request)
	if !ok {
		return ocspFailure(ocspMalformedRequest), nil
	}
	if !id.of(r.c.CA) {
		return ocspFailure(ocspUnauthorized), nil
	}
	record, err := r.c.Store.Record(ctx, r.id, id.serial)
	if err != nil && !errors.Is(err, ErrNoIntent) {
		return ocspFailure(ocspInternalError), fmt.Errorf("OCSP status of serial %s: %w", serialText(id.serial), err)
	}
	der, err := r.answer(ctx, id, record, nonce, nil)
	if err != nil {
		return ocspFailure(ocspInternalError), err
	}
	return der, nil
}

// answer signs an answer or takes one that is kept. One that is signed and kept is
// added to made, unless that is nil.
func (r *Responder) answer(ctx context.Context, id certID, record *Record, nonce []byte, made *[]OCSPAnswer) ([]byte, error) {
	now := r.c.Now().UTC().Truncate(time.Second)
	if d := r.c.Certificate; d != nil && now.After(d.NotAfter) {
		return nil, fmt.Errorf("the OCSP responder's certificate ended %s; make a new one", d.NotAfter.Format(time.RFC3339))
	}
	status := certStatus(record)
	name := id.hash.String() + " " + serialText(id.serial)
	var kept keptAnswer
	if nonce == nil {
		kept = r.atHand(ctx, name, id, status, now)
		due := kept.until
		if made != nil {
			due = kept.half
		}
		if now.Before(due) {
			return kept.der, nil
		}
	}
	signature, der, err := r.sign(ctx, r.responseData(id, status, nonce, now, r.c.Validity))
	switch {
	case err != nil && made == nil && now.Before(kept.end):
		return kept.der, nil // the key is away, of which Presign tells, and this still holds
	case err != nil:
		return nil, fmt.Errorf("OCSP answer for serial %s: %w", serialText(id.serial), err)
	}
	if nonce == nil && record != nil {
		r.keep(name, newKeptAnswer(der, status, now, r.c.Validity))
		if made != nil {
			*made = append(*made, OCSPAnswer{Issuer: r.id, Serial: serialText(id.serial), Hash: id.hash.String(), Responder: r.hash, Status: status, Produced: now, Validity: r.c.Validity, Signature: signature})
		}
	}
	return der, nil
}

func newKeptAnswer(der, status []byte, produced time.Time, validity time.Duration) keptAnswer {
	return keptAnswer{der: der, status: string(status), from: produced, half: produced.Add(validity / 2), until: produced.Add(validity * 4 / 5), end: produced.Add(validity)}
}

// atHand returns the answer that says this status, from memory or as it was
// stored by an earlier or another process; the zero value if there is none.
func (r *Responder) atHand(ctx context.Context, name string, id certID, status []byte, now time.Time) (none keptAnswer) {
	r.mu.Lock()
	kept := r.kept[name]
	r.mu.Unlock()
	if kept.status != string(status) || kept.from.After(now) { // or the clock was ahead
		kept = none
	}
	if r.c.Answers == nil || now.Before(kept.until) {
		return kept
	}
	stored, err := r.c.Answers.OCSPAnswer(ctx, r.id, serialText(id.serial), id.hash.String())
	if err != nil || stored.Produced.After(now) || !bytes.Equal(stored.Status, status) || !bytes.Equal(stored.Responder, r.hash) {
		return kept // it is signed anew
	}
	data := r.responseData(id, status, nil, stored.Produced, stored.Validity)
	if !r.scheme.Verify(r.c.Key.Public(), data, stored.Signature) {
		return kept
	}
	der, err := r.assemble(data, stored.Signature)
	if again := newKeptAnswer(der, status, stored.Produced, stored.Validity); err == nil && kept.end.Before(again.end) {
		r.keep(name, again)
		return again
	}
	return kept
}

// Presign has answers to requests without a nonce ready for certificates, so
// that they are served while the key is away. Requests that name the issuer by
// SHA-1, as nearly all do, are provided for. What is signed is stored, in one step,
// also where the key fails in between.
func (r *Responder) Presign(ctx context.Context, serials ...*big.Int) error {
	var made []OCSPAnswer
	err := r.presign(ctx, serials, &made)
	if len(made) == 0 || r.c.Answers == nil {
		return err
	}
	if putErr := r.c.Answers.PutOCSPAnswers(context.WithoutCancel(ctx), made, r.c.Now()); putErr != nil {
		err = errors.Join(err, fmt.Errorf("keeping OCSP answers: %w", putErr))
	}
	return err
}

func (r *Responder) presign(ctx context.Context, serials []*big.Int, made *[]OCSPAnswer) error {
	for _, serial := range serials {
		id, err := newCertID(r.c.CA, oidSHA1, serial)
		if err != nil {
			return err
		}
		record, err := r.c.Store.Record(ctx, r.id, serial)
		if err != nil {
			return fmt.Errorf("OCSP status of serial %s: %w", serialText(serial), err)
		}
		if _, err := r.answer(ctx, id, record, nil, made); err != nil {
			return err
		}
	}
	return nil
}

// Validity returns for how long an answer may be kept.
func (r *Responder) Validity() time.Duration { return r.c.Validity }

// CA returns the certificate of the CA that the Responder answers for.
func (r *Responder) CA() *x509.Certificate { return r.c.CA }

func (r *Responder) keep(name string, a keptAnswer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) >= maxKept {
		clear(r.kept)
	}
	r.kept[name] = a
}

// certStatus encodes
//
//	CertStatus ::= CHOICE {
//	     good    [0] IMPLICIT NULL,
//	     revoked [1] IMPLICIT RevokedInfo,
//	     unknown [2] IMPLICIT UnknownInfo }
//	RevokedInfo ::= SEQUENCE {
//	     revocationTime   GeneralizedTime,
//	     revocationReason [0] EXPLICIT CRLReason OPTIONAL }
//
// An intent whose certificate is not stored is unknown: nobody was given it.
func certStatus(record *Record) []byte {
	var b cryptobyte.Builder
	switch {
	case record != nil && record.Revocation != nil:
		b.AddASN1(context1, func(b *cryptobyte.Builder) {
			b.AddASN1GeneralizedTime(record.Revocation.At.UTC().Truncate(time.Second))
			if record.Revocation.Reason != Unspecified {
				b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(record.Revocation.Reason)) })
			}
		})
	case record == nil || record.Unfinished():
		b.AddASN1(asn1.Tag(2).ContextSpecific(), func(*cryptobyte.Builder) {})
	default:
		b.AddASN1(asn1.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
	}
	return b.BytesOrPanic()
}

// responseData encodes
//
//	ResponseData ::= SEQUENCE {
//	     responderID        CHOICE { …, byKey [2] KeyHash },
//	     producedAt         GeneralizedTime,
//	     responses          SEQUENCE OF SingleResponse,
//	     responseExtensions [1] EXPLICIT Extensions OPTIONAL }
//	SingleResponse ::= SEQUENCE {
//	     certID CertID, certStatus CertStatus, thisUpdate GeneralizedTime,
//	     nextUpdate [0] EXPLICIT GeneralizedTime OPTIONAL, … }
func (r *Responder) responseData(id certID, status, nonce []byte, now time.Time, validity time.Duration) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(context2, func(b *cryptobyte.Builder) { b.AddASN1OctetString(r.hash) })
		b.AddASN1GeneralizedTime(now)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				id.add(b)
				b.AddBytes(status)
				b.AddASN1GeneralizedTime(now)
				b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(now.Add(validity)) })
			})
		})
		addNonce(b, context1, nonce)
	})
	return b.BytesOrPanic()
}

// sign returns the OCSPResponse with
//
//	BasicOCSPResponse ::= SEQUENCE {
//	     tbsResponseData ResponseData, signatureAlgorithm AlgorithmIdentifier,
//	     signature BIT STRING, certs [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL }
//
// after the signature was verified as a client does.
func (r *Responder) sign(ctx context.Context, data []byte) (sig, der []byte, err error) {
	if sig, err = r.scheme.SignContext(ctx, r.c.Key, data); err != nil {
		return nil, nil, err
	}
	if !r.scheme.Verify(r.c.Key.Public(), data, sig) {
		return nil, nil, ErrBadSignature
	}
	der, err = r.assemble(data, sig)
	return sig, der, err
}

// assemble joins ResponseData with its signature.
func (r *Responder) assemble(data, sig []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(data)
		b.AddBytes(signatureAlgorithm(r.scheme))
		b.AddASN1BitString(sig)
		if r.c.Certificate != nil {
			b.AddASN1(context0, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(r.c.Certificate.Raw) })
			})
		}
	})
	basic, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return ocspResponse(ocspSuccessful, basic), nil
}

// ocspResponse encodes
//
//	OCSPResponse ::= SEQUENCE {
//	     responseStatus ENUMERATED,
//	     responseBytes  [0] EXPLICIT SEQUENCE {
//	          responseType OBJECT IDENTIFIER, response OCTET STRING } OPTIONAL }
func ocspResponse(status int64, basic []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(status)
		if basic == nil {
			return
		}
		b.AddASN1(context0, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidOCSPBasic)
				b.AddASN1OctetString(basic)
			})
		})
	})
	return b.BytesOrPanic()
}

func ocspFailure(status int64) []byte { return ocspResponse(status, nil) }

// checkDelegate says why cert may not answer for ca, or returns nil: it must be
// signed directly by the CA's key, for OCSP signing. Package ocsp of x/crypto
// looks at the signature only, so that there any device of the CA could answer.
func checkDelegate(cert, ca *x509.Certificate) error {
	if !named(cert, ca) {
		return unusable("OCSP responder", "is not certified by the CA it answers for")
	}
	if err := checkLink(cert, ca, 0); err != nil {
		return unusable("OCSP responder", "is not certified by the CA it answers for: %w", err)
	}
	if !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return unusable("OCSP responder", "extended key usage without id-kp-OCSPSigning")
	}
	return checkDelegateUse(cert)
}

func checkDelegateUse(cert *x509.Certificate) error {
	if extension(cert.Extensions, oidKeyUsage) != nil && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return unusable("OCSP responder", "key usage without digitalSignature")
	}
	if len(cert.UnhandledCriticalExtensions) > 0 {
		return unusable("OCSP responder", "unknown critical extension %v", cert.UnhandledCriticalExtensions[0])
	}
	return nil
}

// nobodyNeedAsk reports whether a responder's certificate lives so short that
// its issuer lets nobody ask for its revocation.
func nobodyNeedAsk(cert *x509.Certificate) bool {
	return extension(cert.Extensions, oidOCSPNoCheck) != nil
}
