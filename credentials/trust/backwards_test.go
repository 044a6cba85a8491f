package trust_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/credentials/trust"
)

// TestHoldEndsByNewerOCSP replays an answer of before a hold, which anybody on the
// way can do, within its validity and without a nonce.
func TestHoldEndsByNewerOCSP(t *testing.T) {
	ck := newClock()
	s := newCertSite(t, ck)
	l := openList(t, ck, config(s.fetch(), s.entry(object{"mode": "hard", "methods": []string{"ocsp"}, "ocsp": []string{s.URL + "/ocsp"}})))
	response := func(status, reason int) []byte {
		der, err := ocsp.CreateResponse(s.ca, s.ca, ocsp.Response{
			Status: status, SerialNumber: big.NewInt(30), ThisUpdate: ck.now(), NextUpdate: ck.now().Add(10 * time.Hour), RevokedAt: ck.now(), RevocationReason: reason,
		}, s.key)
		must(t, err)
		return der
	}
	e, old := certEvidence(t, l, s.issue(30)), response(ocsp.Good, 0)
	ck.advance(time.Minute)
	s.serve("/ocsp", "application/ocsp-response", response(ocsp.Revoked, 6))
	wantStatus(t, "on hold", l, e, ck.now(), trust.Suspended, credentials.CodeSuspended)
	s.serve("/ocsp", "application/ocsp-response", old)
	ck.advance(10 * time.Minute)
	wantStatus(t, "an answer of before the hold", l, e, ck.now(), trust.Suspended, credentials.CodeSuspended)
	s.serve("/ocsp", "application/ocsp-response", response(ocsp.Good, 0))
	ck.advance(10 * time.Minute)
	wantStatus(t, "released", l, e, ck.now(), trust.Good, "")
}

// TestTwoCAsOfOneKey has one key serve two CAs, each of which has a serial 20.
func TestTwoCAsOfOneKey(t *testing.T) {
	ck := newClock()
	s := newCertSite(t, ck)
	first, issue := s.ca, s.issue
	second := certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Acme 2"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: []byte("key of Acme"),
	}, s.key.Public(), nil, s.key)
	writeFile(t, s.dir, "anchor.pem", pemOf(first, second))
	one := issue(20)
	s.ca = second
	two := issue(20)
	s.handle("/ocsp", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		must(t, err)
		q, err := ocsp.ParseRequest(body)
		must(t, err)
		ca, status := second, ocsp.Revoked
		own, err := ocsp.CreateRequest(one, first, nil)
		must(t, err)
		if p, err := ocsp.ParseRequest(own); err == nil && string(p.IssuerNameHash) == string(q.IssuerNameHash) {
			ca, status = first, ocsp.Good
		}
		der, err := ocsp.CreateResponse(ca, ca, ocsp.Response{Status: status, SerialNumber: q.SerialNumber, ThisUpdate: ck.now(), NextUpdate: ck.now().Add(time.Hour), RevokedAt: ck.now()}, s.key)
		must(t, err)
		w.Header().Set("Content-Type", "application/ocsp-response")
		w.Write(der)
	})
	l := openList(t, ck, config(s.fetch(), s.entry(object{"mode": "hard", "methods": []string{"ocsp"}, "ocsp": []string{s.URL + "/ocsp"}})))
	wantStatus(t, "of the first CA", l, certEvidence(t, l, one), ck.now(), trust.Good, "")
	wantStatus(t, "of the second CA", l, certEvidence(t, l, two), ck.now(), trust.Revoked, credentials.CodeRevoked)
}

// TestRevokedBeyondKeyBinding has a revocation remembered for as long as the
// credential lives, and not only its key binding.
func TestRevokedBeyondKeyBinding(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	s := newStatusSite(t, ck)
	s.i.life = 89 * 24 * time.Hour
	path := write(t, t.TempDir(), config(s.fetch(), s.entry("sd_jwt", "hard")))
	source := filepath.Join(t.TempDir(), "trust.db")
	start := func() (*trust.List, func()) {
		db := openDB(t, source)
		l, err := trust.Open(path, trust.Options{Now: ck.now, DB: db})
		must(t, err)
		return l, func() { l.Close(); must(t, db.Close()) }
	}
	l, stop := start()
	revoked := func() *trust.Evidence {
		index := s.allocate(t)
		must(t, s.pub.Set(t.Context(), index, statuslist.Invalid))
		ck.advance(time.Minute)
		s.publish(t)
		e, err := check(t, l, s.i.jwt(holder), holder)
		must(t, err)
		must(t, ignore(l.Refresh(t.Context(), "idp")))
		wantStatus(t, "revoked", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
		return e
	}
	e := revoked()
	ck.advance(65 * 24 * time.Hour)
	revoked() // what is to be forgotten is, then
	stop()
	s.up = false
	ck.advance(24 * time.Hour)
	l, stop = start()
	defer stop()
	wantStatus(t, "after two months", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
}

// TestClockGoesBack has keys fetched while the clock is years ahead: once it is
// right they are not good for years.
func TestClockGoesBack(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	s := newSite(t)
	old, next, last := newIssuer(t, ck, s.URL), newIssuer(t, ck, s.URL), newIssuer(t, ck, s.URL)
	next.kid, last.kid = "k2", "k3"
	l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})))
	s.serve("/jwks", "application/json", jwks(t, old))
	ck.advance(10 * 365 * 24 * time.Hour)
	_, err := check(t, l, old.jwt(holder), holder)
	wantCode(t, "the clock is ahead", err, "")
	_, err = check(t, l, next.jwt(holder), holder) // an unknown kid makes us fetch once
	wantCode(t, "another key", err, credentials.CodeIssuerKey)
	ck.advance(-10 * 365 * 24 * time.Hour)
	s.serve("/jwks", "application/json", jwks(t, next))
	_, err = check(t, l, old.jwt(holder), holder)
	wantCode(t, "a key that was withdrawn", err, credentials.CodeIssuerKey)
	_, err = check(t, l, next.jwt(holder), holder)
	wantCode(t, "the new key", err, "")
	s.serve("/jwks", "application/json", jwks(t, last))
	ck.advance(6 * time.Minute)
	_, err = check(t, l, last.jwt(holder), holder)
	wantCode(t, "an unknown kid makes us fetch again", err, "")
}

// TestFailureDoesNotOutlastClock has a fetch fail while the clock is ahead.
func TestFailureDoesNotOutlastClock(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	s := newSite(t)
	i := newIssuer(t, ck, s.URL)
	l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})))
	ck.advance(10 * 365 * 24 * time.Hour)
	_, err := check(t, l, i.jwt(holder), holder)
	wantCode(t, "nothing there yet", err, credentials.CodeIssuerKey)
	ck.advance(-10 * 365 * 24 * time.Hour)
	s.serve("/jwks", "application/json", jwks(t, i))
	_, err = check(t, l, i.jwt(holder), holder)
	wantCode(t, "there, and the clock is right", err, "")
}

// TestListWithoutTTL has a list that may be used for a month asked for daily.
func TestListWithoutTTL(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	s := newStatusSite(t, ck)
	l := openList(t, ck, config(s.fetch(), s.entry("sd_jwt", "hard")))
	list, err := statuslist.NewList(2, 256)
	must(t, err)
	index := s.allocate(t)
	serve := func() {
		lst, err := list.Compress()
		must(t, err)
		token, err := (&statuslist.Token{Subject: s.URL + s.path, IssuedAt: ck.now(), Expires: ck.now().Add(30 * 24 * time.Hour), Bits: 2, Compressed: lst}).
			Sign(t.Context(), statuslist.JWT, s.i.key, []byte(s.i.kid))
		must(t, err)
		s.serve(s.path, statuslist.MediaTypeJWT, token)
	}
	serve()
	e, err := check(t, l, s.i.jwt(holder), holder)
	must(t, err)
	st := wantStatus(t, "good", l, e, ck.now(), trust.Good, "")
	if want := ck.now().Add(24 * time.Hour); !st.Until.Equal(want) {
		t.Errorf("to be asked again at %v, want %v", st.Until, want)
	}
	s.serve(s.path, "text/html", nil)
	ck.advance(25 * time.Hour)
	wantStatus(t, "nobody answers, and exp is far", l, e, ck.now(), trust.Good, "")
	must(t, list.Set(index, statuslist.Suspended))
	serve()
	ck.advance(6 * time.Minute)
	wantStatus(t, "suspended", l, e, ck.now(), trust.Suspended, credentials.CodeSuspended)
}

// TestMemoryOfOneIssuer has an issuer with more lists than there is memory for: its
// own are forgotten, and not another's.
func TestMemoryOfOneIssuer(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	mine, theirs := newStatusSite(t, ck), newStatusSite(t, ck)
	theirs.i.iss = "https://other.example"
	writeFile(t, mine.dir, "both.pem", append(pemOf(mine.Certificate()), pemOf(theirs.Certificate())...))
	fetch := mine.fetch()
	fetch["ca_file"] = filepath.Join(mine.dir, "both.pem")
	other := theirs.entry("sd_jwt", "hard")
	other["name"], other["iss"] = "other", theirs.i.iss
	l := openList(t, ck, config(fetch, mine.entry("sd_jwt", "hard"), other))
	const list = 2048 // octets
	l.SetMemory(5 * list)
	mine.allocate(t)
	e, err := check(t, l, mine.i.jwt(holder), holder)
	must(t, err)
	wantStatus(t, "mine", l, e, ck.now(), trust.Good, "")
	for n := range 20 {
		uri := fmt.Sprintf("%s/status/big/%d", theirs.URL, n)
		statuses, err := statuslist.NewList(2, 4*list)
		must(t, err)
		lst, err := statuses.Compress()
		must(t, err)
		token, err := (&statuslist.Token{Subject: uri, IssuedAt: ck.now(), Expires: ck.now().Add(time.Hour), TTL: time.Hour, Bits: 2, Compressed: lst}).
			Sign(t.Context(), statuslist.JWT, theirs.i.key, []byte(theirs.i.kid))
		must(t, err)
		theirs.serve(fmt.Sprintf("/status/big/%d", n), statuslist.MediaTypeJWT, token)
		theirs.i.status = object{"status_list": object{"idx": 1, "uri": uri}}
		e, err := check(t, l, theirs.i.jwt(holder), holder)
		must(t, err)
		wantStatus(t, uri, l, e, ck.now(), trust.Good, "")
		wantStatus(t, uri+" at once again", l, e, ck.now(), trust.Good, "")
	}
	wantStatus(t, "mine again", l, e, ck.now(), trust.Good, "")
	if n := mine.count(mine.path); n != 1 {
		t.Errorf("my list was fetched %d times: another issuer's have crowded it out", n)
	}
	theirs.i.status = object{"status_list": object{"idx": 1, "uri": theirs.URL + "/status/big/0"}}
	e, err = check(t, l, theirs.i.jwt(holder), holder)
	must(t, err)
	wantStatus(t, "the first of theirs", l, e, ck.now(), trust.Good, "")
	if got, n := theirs.count("/status/big/0"), 20; got != 2 {
		t.Errorf("%d fetches of the first of %d lists, want 2: more are kept than there is memory for", got, n)
	}
}

// TestFetchAheadTogether has three servers answer only once all three are asked.
func TestFetchAheadTogether(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	s := newStatusSite(t, ck)
	l := openList(t, ck, config(s.fetch(), s.entry("sd_jwt", "hard")))
	const lists = 3
	var all sync.WaitGroup
	for n := range lists {
		path := fmt.Sprintf("/status/slow/%d", n)
		ask := func(before func()) {
			s.handle(path, func(w http.ResponseWriter, r *http.Request) {
				before()
				statuses, err := statuslist.NewList(2, 256)
				must(t, err)
				lst, err := statuses.Compress()
				must(t, err)
				token, err := (&statuslist.Token{Subject: s.URL + path, IssuedAt: ck.now(), Expires: ck.now().Add(time.Hour), TTL: time.Minute, Bits: 2, Compressed: lst}).
					Sign(context.WithoutCancel(r.Context()), statuslist.JWT, s.i.key, []byte(s.i.kid))
				must(t, err)
				w.Header().Set("Content-Type", statuslist.MediaTypeJWT)
				w.Write(token)
			})
		}
		ask(func() {})
		s.i.status = object{"status_list": object{"idx": 1, "uri": s.URL + path}}
		e, err := check(t, l, s.i.jwt(holder), holder)
		must(t, err)
		wantStatus(t, path, l, e, ck.now(), trust.Good, "")
		all.Add(1)
		ask(sync.OnceFunc(func() { all.Done(); all.Wait() }))
	}
	ck.advance(3 * time.Minute)
	go l.Run(t.Context())
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("one server that waits keeps the others from being asked")
	}
}

// TestCostlyCertificates has x5c name a key that takes long to verify with.
func TestCostlyCertificates(t *testing.T) {
	const iss = "https://idp.example"
	ck, holder := newClock(), newKey(t)
	s := newCertSite(t, ck)
	i := newIssuer(t, ck, iss)
	modulus := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 100_000), big.NewInt(1))
	inner := certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(6), Subject: pkix.Name{CommonName: "Anybody"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte("a"),
	}, &rsa.PublicKey{N: modulus, E: 1<<31 - 1}, s.ca, s.key)
	parent := *inner
	parent.PublicKey = i.key.Public() // the signature is any: it must not come to verifying it
	leaf := certify(t, ck, &x509.Certificate{SerialNumber: big.NewInt(7), KeyUsage: x509.KeyUsageDigitalSignature}, i.key.Public(), &parent, i.key)
	i.chain = [][]byte{leaf.Raw, inner.Raw}
	l := openList(t, ck, config(nil, entry("sd_jwt", iss, object{"source": "anchors", "file": filepath.Join(s.dir, "anchor.pem")})))
	_, err := check(t, l, i.jwt(holder), holder)
	wantCode(t, "an RSA key of 100,001 bits", err, credentials.CodeAlg)
}

// TestCertifiedIssuerConstraints has the CA of a token issuer permit one host, which
// is no other host (RFC 5280 section 4.2.1.10).
func TestCertifiedIssuerConstraints(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	for iss, want := range map[string]credentials.Code{
		"https://idp.example": "", "https://sub.idp.example": credentials.CodeNameConstraint,
	} {
		s := newCertSite(t, ck)
		key := newKey(t)
		inner := certify(t, ck, &x509.Certificate{
			SerialNumber: big.NewInt(6), Subject: pkix.Name{CommonName: "Of one host"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte("a"),
			PermittedURIDomains: []string{"idp.example"}, PermittedDNSDomainsCritical: true,
		}, key.Public(), s.ca, s.key)
		i := newIssuer(t, ck, iss)
		u, err := url.Parse(iss)
		must(t, err)
		leaf := certify(t, ck, &x509.Certificate{SerialNumber: big.NewInt(7), URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature}, i.key.Public(), inner, key)
		i.chain = [][]byte{leaf.Raw, inner.Raw}
		l := openList(t, ck, config(nil, entry("sd_jwt", iss, object{"source": "anchors", "file": filepath.Join(s.dir, "anchor.pem")})))
		_, err = check(t, l, i.jwt(holder), holder)
		wantCode(t, iss, err, want)
	}
}

// TestVCTWhateverTheType holds the list of credential types for tokens of each typ
// that the entry admits.
func TestVCTWhateverTheType(t *testing.T) {
	const iss = "https://idp.example"
	ck, holder := newClock(), newKey(t)
	i := newIssuer(t, ck, iss)
	dir := t.TempDir()
	e := entry("sd_jwt", iss, object{"source": "jwks_file", "file": writeFile(t, dir, "keys.json", jwks(t, i))})
	e["typ"], e["vct"] = []string{"dc+sd-jwt", "JWT"}, []string{"https://vct.example/1"}
	l := openList(t, ck, config(nil, e))
	for _, typ := range []string{"dc+sd-jwt", "JWT"} {
		i.typ, i.with = typ, nil
		_, err := check(t, l, i.jwt(holder), holder)
		wantCode(t, typ, err, "")
		i.with = func(claims object) { claims["vct"] = "https://vct.example/2" }
		_, err = check(t, l, i.jwt(holder), holder)
		wantCode(t, typ+" of another vct", err, credentials.CodePolicy)
	}
}
