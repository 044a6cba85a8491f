package trust

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

const (
	typeOCSPRequest  = "application/ocsp-request"
	typeOCSPResponse = "application/ocsp-response"
	typeCRL          = "application/pkix-crl"
	fileAge          = time.Minute // after which a CRL file is read again
	memoryOfCRL      = 4           // times what an entry takes in DER
)

// chainStatus asks for every certificate below the anchor: the revocation of a
// CA counts as much.
func (s *Snapshot) chainStatus(ctx context.Context, i *Issuer, chain []*x509.Certificate, at time.Time) Status {
	var all Status
	for n := range chain[:len(chain)-1] {
		all = worse(all, s.certStatus(ctx, i, chain[n], chain[n+1], at))
	}
	return all
}

// tokenStatus looks a token up in its status list and, where the entry says
// whom to ask, asks for the certificates that came with it.
func (s *Snapshot) tokenStatus(ctx context.Context, e *Evidence, at time.Time) Status {
	st := s.listStatus(ctx, e, at)
	if len(e.signers) == 0 || !e.Issuer.config.Revocation.asksOfCertificates() {
		return st
	}
	return worse(st, s.chainStatus(ctx, e.Issuer, e.signers, at))
}

// certStatus tries the ways of an entry until one has an answer.
func (s *Snapshot) certStatus(ctx context.Context, i *Issuer, cert, ca *x509.Certificate, at time.Time) Status {
	best, about := Status{Standing: -1}, certSubject(ca, cert.SerialNumber)
	for _, m := range i.methods() {
		for _, doc := range s.documents(m, i, cert, ca) {
			st := s.ask(ctx, i, doc, cert, ca, at)
			if st.Standing == Good || st.Standing > Unavailable {
				return s.settle(ctx, about, st, cert.NotAfter)
			}
			if best.Standing < 0 || st.Standing < best.Standing {
				best = st
			}
		}
	}
	if best.Standing >= 0 {
		return s.settle(ctx, about, best, cert.NotAfter)
	}
	if len(cert.CRLDistributionPoints)+len(cert.OCSPServer) == 0 {
		return i.missing("certificate of serial " + cert.SerialNumber.Text(16))
	}
	return answer(errors.New("the certificate names where to ask, but no crl or ocsp is configured and follow_certificates is off"), false, time.Time{}, "nowhere")
}

// settle has the newest answer about a subject count, whoever learned it.
func (s *Snapshot) settle(ctx context.Context, about subject, st Status, ends time.Time) Status {
	return s.list.answers.settle(ctx, s.list.docs.store, about, st, ends, s.list.opts.Now())
}

// documents are those of one way of asking for a certificate.
func (s *Snapshot) documents(method string, i *Issuer, cert, ca *x509.Certificate) []*document {
	switch method {
	case MethodOCSP:
		return s.ocsps(i, cert, ca)
	case MethodCRL:
		return s.crls(i, cert, ca)
	}
	return nil
}

// ask has a document judge a certificate.
func (s *Snapshot) ask(ctx context.Context, i *Issuer, doc *document, cert, ca *x509.Certificate, at time.Time) Status {
	r, stale, err := s.list.docs.get(ctx, doc, i.MaxStale, asDue)
	if err != nil && !stale {
		return answer(err, false, time.Time{}, doc.uri)
	}
	if base, ok := r.value.(crl); ok {
		r, stale = s.complete(ctx, i, doc, base, ca, r, stale)
	}
	if stale && !at.Before(r.until) {
		at = r.until.Add(-time.Second) // what it says of the time for which it was made
	}
	st := answer(r.value.(certJudge).judge(cert, at, s.Skew()), stale, r.refresh, doc.uri)
	st.issue = r.issue
	return st
}

// A certJudge says whether a certificate is revoked.
type certJudge interface {
	judge(cert *x509.Certificate, at time.Time, skew time.Duration) error
}

// urls are those that are configured or, if that is wanted, those that a
// certificate names.
func (i *Issuer) urls(configured, named []string) []string {
	if len(configured) > 0 || !i.config.Revocation.FollowCertificates {
		return configured
	}
	const most = 4
	var urls []string
	for _, u := range named {
		if (strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://")) && len(urls) < most {
			urls = append(urls, u)
		}
	}
	return urls
}

// caID names a CA in the names of documents: by its name and its key, since one
// key may serve two CAs, whose serial numbers have nothing to do with each other.
func caID(ca *x509.Certificate) string {
	h := sha256.New()
	h.Write(ca.RawSubject)
	h.Write(ca.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// A crl is a verified CRL.
type crl struct{ list *certs.CRL }

func (c crl) judge(cert *x509.Certificate, at time.Time, skew time.Duration) error {
	return c.list.Check(cert, at, skew)
}

// life is that of a CRL: it is due anew at four fifths of its interval.
func (c crl) life(fetched time.Time) reading {
	this, next := c.list.Validity()
	at := this.Add(next.Sub(this) * 4 / 5)
	at = earlier(later(at, fetched.Add(minAge)), fetched.Add(maxAge))
	return reading{value: c, refresh: earlier(at, next), until: next}
}

func (c crl) renew(_ reading, fetched time.Time, _ time.Duration) reading { return c.life(fetched) }

// crls are the CRLs by which an entry judges a certificate.
func (s *Snapshot) crls(i *Issuer, cert, ca *x509.Certificate) (docs []*document) {
	for _, u := range i.urls(i.config.Revocation.CRL, cert.CRLDistributionPoints) {
		docs = append(docs, s.crlDocument(i, "crl ", u, ca, certs.ParseCRL))
	}
	return docs
}

// deltas are those by which the CRLs of a CA are completed.
func (s *Snapshot) deltas(i *Issuer, base crl, ca *x509.Certificate) (docs []*document) {
	for _, u := range i.urls(i.config.Revocation.DeltaCRL, base.list.Freshest()) {
		docs = append(docs, s.crlDocument(i, "crl-delta ", u, ca, certs.ParseDeltaCRL))
	}
	return docs
}

func (s *Snapshot) crlDocument(i *Issuer, kind, u string, ca *x509.Certificate, parse func([]byte, *x509.Certificate, *certs.CRL) (*certs.CRL, error)) *document {
	isFile := !strings.Contains(u, "://")
	if isFile && !filepath.IsAbs(u) {
		u = filepath.Join(i.dir, u)
	}
	return &document{
		kind: kind + caID(ca), uri: u, owner: i.Name, accept: []string{typeCRL}, limit: certs.MaxCRL, plain: true, client: i.client,
		read: func(_ context.Context, in input) (reading, error) {
			prev, _ := in.prev.(crl)
			list, err := parse(in.body, ca, prev.list)
			if err != nil {
				return reading{}, err
			}
			r := crl{list}.life(in.fetched)
			r.octets = memoryOfCRL * len(in.body)
			this, _ := list.Validity()
			r.issue = orderOf(this, list.Number(), in.fetched)
			if isFile {
				r.refresh = earlier(r.refresh, in.fetched.Add(fileAge))
			}
			return r, nil
		},
		changed: func(_, _ any) { s.list.watch.wake() },
	}
}

// A completed CRL is judged with its newest delta.
type completed struct{ base, delta crl }

func (c completed) judge(cert *x509.Certificate, at time.Time, skew time.Duration) error {
	return c.base.list.CheckWith(c.delta.list, cert, at, skew)
}

// A backwards CRL is older than a delta that was seen, and cannot be completed:
// what it says may have been taken back.
type backwards struct{ why error }

func (b backwards) judge(*x509.Certificate, time.Time, time.Duration) error { return b.why }

// complete takes the newest delta that is at hand for a full CRL. Without one,
// the full CRL decides, unless a newer delta has ever been seen: what is known
// never goes backwards.
func (s *Snapshot) complete(ctx context.Context, i *Issuer, doc *document, base crl, ca *x509.Certificate, r reading, stale bool) (reading, bool) {
	for _, d := range s.deltas(i, base, ca) {
		delta, old, err := s.list.docs.get(ctx, d, i.MaxStale, asDue)
		last := s.list.docs.last(d)
		known, _ := last.value.(crl)
		if known.list == nil || !newer(known.list, base.list) {
			continue
		}
		if err == nil && !old && base.list.Applies(known.list) != nil {
			// It builds on a later full CRL, which is fetched before it is due.
			if next, nextOld, err := s.list.docs.get(ctx, doc, i.MaxStale, forced); err == nil {
				r, stale, base = next, nextOld, next.value.(crl)
			}
			if !newer(known.list, base.list) {
				continue
			}
		}
		usable := err == nil || old
		if why := base.list.Applies(known.list); why != nil || !usable {
			if why == nil {
				why = credentials.Errorf(credentials.CodeStatusUnavailable, "CRL", "number %v is older than the delta number %v that was seen, which cannot be had anew: %w",
					base.list.Number(), known.list.Number(), err)
			}
			return reading{value: backwards{why}, refresh: earlier(r.refresh, delta.refresh), until: r.until}, false
		}
		return reading{value: completed{base, known}, issue: last.issue, refresh: earlier(r.refresh, delta.refresh), until: delta.until}, old
	}
	return r, stale
}

// newer reports whether the number of a is higher than that of b.
func newer(a, b *certs.CRL) bool {
	return a.Number() != nil && b.Number() != nil && a.Number().Cmp(b.Number()) > 0
}

// An ocspAnswer is what a responder said of one certificate: nothing, or that
// it is revoked or suspended.
type ocspAnswer struct {
	err  error
	this time.Time // thisUpdate
}

func (a ocspAnswer) judge(*x509.Certificate, time.Time, time.Duration) error { return a.err }

// ocsps are the OCSP answers by which an entry judges a certificate.
func (s *Snapshot) ocsps(i *Issuer, cert, ca *x509.Certificate) (docs []*document) {
	for _, u := range i.urls(i.config.Revocation.OCSP, cert.OCSPServer) {
		docs = append(docs, &document{
			kind: "ocsp " + caID(ca) + " " + cert.SerialNumber.Text(16), uri: u, owner: i.Name, accept: []string{typeOCSPResponse}, limit: certs.MaxOCSPResponse, plain: true, client: i.client,
			ask:     func() ([]byte, func([]byte) error, error) { return s.askOCSP(cert, ca) },
			read:    func(ctx context.Context, in input) (reading, error) { return s.readOCSP(ctx, i, cert, ca, in) },
			changed: func(_, _ any) { s.list.watch.wake() },
		})
	}
	return docs
}

// askOCSP makes a request with a fresh nonce, and the check that the answer is
// not to another nonce.
func (s *Snapshot) askOCSP(cert, ca *x509.Certificate) ([]byte, func([]byte) error, error) {
	nonce := certs.NewNonce()
	request, err := certs.CreateOCSPRequest(cert, ca, nonce)
	return request, func(response []byte) error {
		_, err := certs.CheckOCSP(certs.OCSPCheck{
			Response: response, Certificate: cert, Issuer: ca, Nonce: nonce, At: s.list.opts.Now(), Skew: s.Skew(),
			Delegate: func(*x509.Certificate) error { return nil }, // judged by readOCSP
		})
		if credentials.CodeOf(err) == credentials.CodeNonce {
			return err
		}
		return nil
	}, err
}

// delegate asks the CRLs of an entry for the certificate of an OCSP responder
// that is not exempt from it.
func (s *Snapshot) delegate(ctx context.Context, i *Issuer, ca *x509.Certificate, at time.Time) func(*x509.Certificate) error {
	return func(cert *x509.Certificate) error {
		best := credentials.Errorf(credentials.CodeStatusUnavailable, "status", "issuer %q is not configured for a CRL", i.Name)
		if !slices.Contains(i.methods(), MethodCRL) {
			return best
		}
		var err error = best
		for _, doc := range s.crls(i, cert, ca) {
			st := s.ask(ctx, i, doc, cert, ca, at)
			if st.Standing == Good || st.Standing > Unavailable {
				return st.Err
			}
			err = st.Err
		}
		return err
	}
}

func (s *Snapshot) readOCSP(ctx context.Context, i *Issuer, cert, ca *x509.Certificate, in input) (reading, error) {
	now := s.list.opts.Now()
	got, err := certs.CheckOCSP(certs.OCSPCheck{Response: in.body, Certificate: cert, Issuer: ca, At: now, Skew: s.Skew(), Delegate: s.delegate(ctx, i, ca, now)})
	standing := standingOf(err)
	if standing != Good && standing != Suspended && standing != Revoked {
		return reading{}, err
	}
	// A hold ends by a newer answer only. Answers come over plain http, where
	// anybody may repeat one of before it.
	if prev, ok := in.prev.(ocspAnswer); ok && standing != Revoked && got.ThisUpdate.Before(prev.this) {
		return reading{}, credentials.Errorf(credentials.CodeStatusUnavailable, "OCSP response", "it is older than the one at hand")
	}
	r := reading{value: ocspAnswer{err, got.ThisUpdate}, issue: orderOf(got.ThisUpdate, nil, in.fetched), until: got.NextUpdate}
	if standing == Revoked {
		r.issue = nil // it is for good, however old
	}
	at := got.ThisUpdate.Add(got.NextUpdate.Sub(got.ThisUpdate) * 4 / 5)
	if err != nil { // a suspension may end at any time
		at, r.until = in.fetched.Add(minAge), earlier(r.until, in.fetched.Add(minAge))
	}
	at = earlier(later(at, in.fetched.Add(minAge)), in.fetched.Add(maxAge))
	r.refresh = earlier(at, r.until)
	return r, nil
}
