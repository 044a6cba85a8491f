package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/signing"
)

// Config is what an Issuer is made of. Key, Certificate and Store are needed.
type Config struct {
	Key         crypto.Signer     // in a token, a TPM, the signing service or memory
	Certificate *x509.Certificate // the CA certificate of Key
	Store       Store
	Profile     Profile
	Now         func() time.Time // nil means time.Now
}

// An Issuer issues certificates under one CA key. It is safe for concurrent
// use if its Key is.
type Issuer struct {
	key     crypto.Signer
	scheme  *credentials.Scheme
	cert    *x509.Certificate // for a root before it exists: subject and key only
	id      KeyID
	store   Store
	profile Profile
	now     func() time.Time
	leaf    *leafShape
	name    string        // subject of cert
	lintKey crypto.Signer // of the same scheme as key; nobody trusts it
}

// NewIssuer returns an Issuer. The certificate must be a CA certificate of the
// key that may sign certificates.
func NewIssuer(c Config) (*Issuer, error) {
	i, err := newIssuer(c)
	if err != nil {
		return nil, err
	}
	if !credentials.SamePublicKey(c.Certificate.PublicKey, c.Key.Public()) {
		return nil, errors.New("the CA certificate is for another key")
	}
	if !c.Certificate.BasicConstraintsValid || !c.Certificate.IsCA || c.Certificate.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("the certificate is not that of a CA: want basicConstraints CA:TRUE and key usage keyCertSign")
	}
	if len(c.Certificate.SubjectKeyId) == 0 || len(c.Certificate.RawSubject) <= 2 {
		return nil, errors.New("the CA certificate has no subject or no subject key identifier")
	}
	return i, nil
}

func newIssuer(c Config) (*Issuer, error) {
	if c.Key == nil || c.Certificate == nil || c.Store == nil {
		return nil, errors.New("an issuer needs a key, a certificate and a store")
	}
	i := &Issuer{key: c.Key, cert: c.Certificate, store: c.Store, profile: c.Profile, now: c.Now}
	if i.now == nil {
		i.now = time.Now
	}
	var err error
	if i.scheme, err = credentials.SchemeOf(c.Key.Public()); err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	if i.id, err = KeyIDOf(c.Key.Public()); err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	if err := checkURLs(c.Profile); err != nil {
		return nil, err
	}
	if i.leaf, err = newLeafShape(signatureAlgorithm(i.scheme), i.cert, i.profile); err != nil {
		return nil, err
	}
	i.name = i.cert.Subject.String()
	i.lintKey, err = throwaway(i.scheme)
	return i, err
}

// Certificate returns the CA certificate.
func (i *Issuer) Certificate() *x509.Certificate { return i.cert }

// ID returns the name of the issuer in its Store.
func (i *Issuer) ID() KeyID { return i.id }

// An Order is a certificate to be issued.
type Order struct {
	// Request proves possession of the key that is to be certified.
	Request *Request
	// Names are those of the authorised account. The names in Request must be
	// the same.
	Names Names
	// Nonce is the one that was given to the requester and has been redeemed.
	// If it is empty, the request is taken without proof of freshness.
	Nonce []byte
	// Lifetime of the certificate; 0 means the longest that the profile
	// allows.
	Lifetime time.Duration
	// Subject is shown to humans and may be empty.
	Subject pkix.Name
	// Extensions to add, such as the attestation level. They are never
	// critical.
	Extensions []pkix.Extension
	// Attachment is handed to the Store with the Intent.
	Attachment any
}

// A Prepared certificate has been checked, its intent stored. It is redeemed
// once, by Issue of the Issuer that prepared it.
type Prepared struct {
	issuer *Issuer
	tbs    []byte
	draft  *x509.Certificate // that was checked
	read   signing.Read      // tbs, if the key has parsed it
	intent Intent
	used   atomic.Bool
}

// Intent returns what was stored.
func (p *Prepared) Intent() Intent { return p.intent }

// TBS returns the octets that will be signed.
func (p *Prepared) TBS() []byte { return bytes.Clone(p.tbs) }

// ErrRedeemed says that a Prepared was used before or belongs to another
// Issuer.
var ErrRedeemed = errors.New("the prepared certificate was redeemed already, or was prepared by another issuer; prepare it again")

// Prepare builds the certificate of an order, reads it back with an independent
// parser and checks it, and stores the intent. Nothing is signed.
//
// The errors: those of names (identity-…), identity-unauthorized (the request
// asks for other names), nonce, name-constraint (the issuer may not serve the
// host), policy (lifetime, extensions), expired (the CA certificate), a
// *LintError, and those of the Store.
func (i *Issuer) Prepare(ctx context.Context, o Order) (*Prepared, error) {
	p, err := i.plan(o)
	if err != nil {
		return nil, err
	}
	return i.begin(ctx, p)
}

// Certify is Prepare and Issue with one durable step in place of two: the intent
// and the certificate are stored together, after the signature and before the
// certificate is returned. There is no certificate outside of the Store; what is
// lost when the process dies in between is the trace of one that was signed and
// that nobody was given. The caller bounds how often an order that the Store
// refuses makes the key sign.
//
// The errors are those of Prepare and Issue. After one, nothing is released.
func (i *Issuer) Certify(ctx context.Context, o Order) (*x509.Certificate, error) {
	p, err := i.plan(o)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	cert, err := i.sign(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("serial %s: %w", serialText(p.intent.Serial), err)
	}
	ctx, cancel := afterSigning(ctx)
	defer cancel()
	if err := i.store.PutIssued(ctx, p.intent, cert.Raw, i.now().UTC()); err != nil {
		return nil, fmt.Errorf("serial %s is signed and not released, storing it: %w", serialText(p.intent.Serial), err)
	}
	return cert, nil
}

// plan builds and checks the certificate of an order. Nothing is stored.
func (i *Issuer) plan(o Order) (*Prepared, error) {
	if err := i.checkOrder(o); err != nil {
		return nil, err
	}
	lifetime, err := i.profile.lifetime(o.Lifetime)
	if err != nil {
		return nil, err
	}
	template, err := leafTemplate(o, i.profile, i.now(), lifetime)
	if err != nil {
		return nil, err
	}
	kind := KindDevice
	if o.Names.IsHub() {
		kind = KindHub
	}
	return i.check(Intent{Kind: kind, Names: o.Names.URIs(), Public: o.Request.key, Attachment: o.Attachment, spki: o.Request.spki}, template)
}

func (i *Issuer) checkOrder(o Order) error {
	if o.Request == nil {
		return errors.New("order without a request: issuing needs proof of possession of the key")
	}
	if err := o.Names.check("order"); err != nil {
		return err
	}
	if err := o.Request.authorise(o.Names, o.Nonce); err != nil {
		return err
	}
	if credentials.SamePublicKey(o.Request.key, i.key.Public()) {
		return credentials.Errorf(credentials.CodePolicy, "order", "the key to be certified is the CA's own")
	}
	for _, ext := range o.Extensions {
		if ext.Critical || hasOID(profileExtensions, ext.Id) {
			return credentials.Errorf(credentials.CodePolicy, "order", "extension %v is critical or belongs to the profile", ext.Id)
		}
	}
	return checkPermitted(i.cert, o.Names.Host(), "order")
}

// prepare is Prepare for any template. Of the intent the kind, the names, the
// key and the attachment are given.
func (i *Issuer) prepare(ctx context.Context, in Intent, template *x509.Certificate) (*Prepared, error) {
	p, err := i.check(in, template)
	if err != nil {
		return nil, err
	}
	return i.begin(ctx, p)
}

// begin stores the intent.
func (i *Issuer) begin(ctx context.Context, p *Prepared) (*Prepared, error) {
	if err := i.store.PutIntent(ctx, p.intent); err != nil {
		return nil, fmt.Errorf("storing the intent of serial %s: %w", serialText(p.intent.Serial), err)
	}
	return p, nil
}

// check is plan for any template.
func (i *Issuer) check(in Intent, template *x509.Certificate) (*Prepared, error) {
	if err := i.checkValidity(template); err != nil {
		return nil, err
	}
	template.SerialNumber = newSerial(i.now(), func(b []byte) { rand.Read(b) })
	draft, read, err := i.draftOf(&in, template)
	if err != nil {
		return nil, err
	}
	if err := i.lint(in.Kind, draft, in.Public, in.Names); err != nil {
		return nil, err
	}
	in.Key = sha256.Sum256(in.spki)
	in.Issuer, in.IssuerName, in.Serial, in.TBS = i.id, i.name, template.SerialNumber, sha256.Sum256(draft.RawTBSCertificate)
	in.NotBefore, in.NotAfter, in.Prepared = template.NotBefore, template.NotAfter, i.now().UTC()
	return &Prepared{issuer: i, tbs: draft.RawTBSCertificate, draft: draft, read: read, intent: in}, nil
}

// draftOf returns what is linted, and sees to the intent's SubjectPublicKeyInfo. read is
// nil unless the key has parsed the draft.
func (i *Issuer) draftOf(in *Intent, template *x509.Certificate) (draft *x509.Certificate, read signing.Read, err error) {
	if in.spki == nil {
		if in.spki, err = x509.MarshalPKIXPublicKey(in.Public); err != nil {
			return nil, nil, err
		}
	}
	if in.Kind == KindDevice || in.Kind == KindHub {
		return i.draftLeaf(template, in.spki)
	}
	draft, err = i.draft(template, in.Public)
	return draft, nil, err
}

// checkValidity keeps a certificate inside the lifetime of its CA.
func (i *Issuer) checkValidity(template *x509.Certificate) error {
	if i.cert.Raw == nil {
		return nil // a root, not signed yet
	}
	if now := i.now(); now.After(i.cert.NotAfter) {
		return credentials.Errorf(credentials.CodeExpired, "CA certificate", "ended %s; issue a new CA certificate", i.cert.NotAfter.Format(time.RFC3339))
	} else if now.Before(i.cert.NotBefore) {
		return credentials.Errorf(credentials.CodeNotYetValid, "CA certificate", "begins %s", i.cert.NotBefore.Format(time.RFC3339))
	}
	if template.NotAfter.After(i.cert.NotAfter) {
		return credentials.Errorf(credentials.CodePolicy, "order", "would end %s, after the CA certificate (%s); ask for a shorter lifetime or renew the CA",
			template.NotAfter.Format(time.RFC3339), i.cert.NotAfter.Format(time.RFC3339))
	}
	if template.NotBefore.Before(i.cert.NotBefore) {
		shift := i.cert.NotBefore.Sub(template.NotBefore)
		template.NotBefore, template.NotAfter = template.NotBefore.Add(shift), minTime(template.NotAfter.Add(shift), i.cert.NotAfter)
	}
	return nil
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// draft returns a certificate of a CA or responder, signed by the throwaway key.
// Its issuer name and authority key identifier are those of the real issuer.
func (i *Issuer) draft(template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	parent := *i.cert
	parent.PublicKey = i.lintKey.Public()
	der, err := x509.CreateCertificate(rand.Reader, template, &parent, pub, i.lintKey)
	if err != nil {
		return nil, fmt.Errorf("building the certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// Issue signs a prepared certificate, verifies the signature, stores the
// certificate and returns it. When it fails after the key may have been used,
// the intent stays unfinished in the Store, and p cannot be used again.
func (i *Issuer) Issue(ctx context.Context, p *Prepared) (*x509.Certificate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p == nil || p.issuer != i || !p.used.CompareAndSwap(false, true) {
		return nil, ErrRedeemed
	}
	cert, err := i.sign(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("serial %s: %w", serialText(p.intent.Serial), err)
	}
	ctx, cancel := afterSigning(ctx)
	defer cancel()
	if err := i.store.PutCertificate(ctx, i.id, p.intent.Serial, cert.Raw, i.now().UTC()); err != nil {
		return nil, fmt.Errorf("serial %s is signed and not released, storing it: %w", serialText(p.intent.Serial), err)
	}
	return cert, nil
}

// afterSigning returns the context for storing what has been signed: a caller
// who goes away does not leave it unfinished.
func afterSigning(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// sign signs the octets that were checked and nothing else.
func (i *Issuer) sign(ctx context.Context, p *Prepared) (*x509.Certificate, error) {
	if sha256.Sum256(p.tbs) != p.intent.TBS {
		return nil, errors.New("the prepared certificate has changed since its intent was stored")
	}
	key := i.key
	if p.read != nil {
		key = signing.OnlyRead(key.(signing.ReadingSigner), p.read)
	}
	der, sig, err := i.signDER(ctx, key, p.tbs)
	if err != nil {
		return nil, err
	}
	// What was read in the draft stands: only the signature is another.
	cert := *p.draft
	cert.Raw, cert.Signature = der, sig
	return &cert, nil
}

// signDER returns SIGNED { tbs }, and its signature, which was verified.
func (i *Issuer) signDER(ctx context.Context, key crypto.Signer, tbs []byte) (der, sig []byte, err error) {
	if sig, err = i.scheme.SignVerified(ctx, key, tbs, ErrBadSignature); err != nil {
		return nil, nil, fmt.Errorf("signing: %w", err)
	}
	der, err = assemble(tbs, i.leaf.algorithm, sig)
	return der, sig, err
}

// serialOf returns the serial number in a TBSCertificate, read without package
// x509.
func serialOf(tbs cryptobyte.String) (*big.Int, bool) {
	var seq cryptobyte.String
	serial := new(big.Int)
	ok := tbs.ReadASN1(&seq, asn1.SEQUENCE) && seq.SkipASN1(asn1.Tag(0).ContextSpecific().Constructed()) && seq.ReadASN1Integer(serial)
	return serial, ok
}
