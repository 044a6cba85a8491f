package trust_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/pgtest"
)

// wantStatus asks for the status of an evidence now.
func wantStatus(t *testing.T, what string, l *trust.List, e *trust.Evidence, at time.Time, want trust.Standing, code credentials.Code) trust.Status {
	t.Helper()
	st := l.Snapshot().Status(t.Context(), e, at)
	if st.Standing != want || credentials.CodeOf(st.Err) != code || (st.Err == nil) != (code == "") {
		t.Errorf("%s: %s, %v; want %s, %q", what, st.Standing, st.Err, want, code)
	}
	return st
}

// A statusSite is an issuer of tokens with a status list on a site.
type statusSite struct {
	*site
	i    *issuer
	pub  *statuslist.Publisher
	up   bool
	path string
}

func newStatusSite(t *testing.T, ck *clock) *statusSite {
	t.Helper()
	s := &statusSite{site: newSite(t), up: true, path: "/status/1"}
	s.i = newIssuer(t, ck, s.URL)
	s.i.life = 72 * time.Hour
	s.serve("/jwks", "application/json", jwks(t, s.i))
	store, err := statuslist.OpenSQLStore(t.Context(), filepath.Join(t.TempDir(), "status.db"))
	must(t, err)
	t.Cleanup(func() { store.Close() })
	s.pub = &statuslist.Publisher{Store: store, URI: s.URL + s.path, Key: s.i.key, KeyID: []byte(s.i.kid), Size: 256, TTL: 10 * time.Minute, Lifetime: 6 * time.Hour, Now: ck.now}
	must(t, s.pub.Open(t.Context()))
	s.handle(s.path, func(w http.ResponseWriter, r *http.Request) {
		if !s.up {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		s.pub.ServeHTTP(w, r)
	})
	s.publish(t)
	return s
}

func (s *statusSite) publish(t *testing.T) {
	t.Helper()
	_, err := s.pub.Publish(t.Context())
	must(t, err)
}

// allocate gives the next token a status.
func (s *statusSite) allocate(t *testing.T) int64 {
	t.Helper()
	ref, err := s.pub.Allocate(t.Context())
	must(t, err)
	s.i.status = object{"status_list": object{"idx": ref.Index, "uri": ref.URI}}
	return ref.Index
}

func (s *statusSite) entry(kind, mode string) object {
	e := entry(kind, s.i.iss, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})
	e["revocation"] = object{"mode": mode, "methods": []string{"status_list"}, "status_prefixes": []string{s.URL + "/status/"}, "max_stale_s": 3600}
	return e
}

func TestStatusList(t *testing.T) {
	for _, kind := range []string{"sd_jwt", "sd_cwt"} {
		t.Run(kind, func(t *testing.T) {
			ck, holder := newClock(), newKey(t)
			s := newStatusSite(t, ck)
			l := openList(t, ck, config(s.fetch(), s.entry(kind, "hard")))
			token := s.i.jwt
			if kind == "sd_cwt" {
				token = s.i.kbt
			}
			evidence := func() *trust.Evidence {
				e, err := check(t, l, token(holder), holder)
				must(t, err)
				return e
			}
			index := s.allocate(t)
			e := evidence()
			st := wantStatus(t, "valid", l, e, ck.now(), trust.Good, "")
			if until := ck.now().Add(10 * time.Minute); !st.Until.Equal(until) || st.Source != s.URL+s.path {
				t.Errorf("until %v from %s, want %v", st.Until, st.Source, until)
			}
			must(t, s.pub.Set(t.Context(), index, statuslist.Suspended))
			s.publish(t)
			wantStatus(t, "within the ttl", l, e, ck.now(), trust.Good, "")
			ck.advance(11 * time.Minute)
			wantStatus(t, "suspended", l, e, ck.now(), trust.Suspended, credentials.CodeSuspended)
			must(t, s.pub.Set(t.Context(), index, statuslist.Valid))
			s.publish(t)
			ck.advance(11 * time.Minute)
			wantStatus(t, "resumed", l, e, ck.now(), trust.Good, "")
			// A revocation that is not waited for.
			must(t, s.pub.Set(t.Context(), index, statuslist.Invalid))
			ck.advance(time.Minute)
			s.publish(t)
			woken, stop := l.Watch()
			defer stop()
			must(t, l.Refresh(t.Context(), "idp"))
			if len(woken) != 1 {
				t.Error("nobody is told of the refresh")
			}
			wantStatus(t, "revoked", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
			// For good, even where a later list says otherwise.
			s.allocate(t)
			fresh := evidence()
			wantStatus(t, "another token", l, fresh, ck.now(), trust.Good, "")
			s.serve(s.path, "text/html", nil)
			ck.advance(48 * time.Hour)
			wantStatus(t, "revoked for good", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
			if err := l.Refresh(t.Context(), "nobody"); credentials.CodeOf(err) != credentials.CodeIssuerUnknown {
				t.Errorf("refresh of nobody: %v", err)
			}
		})
	}
}

func TestStatusListTroubles(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	for _, mode := range []string{"hard", "soft"} {
		s := newStatusSite(t, ck)
		l := openList(t, ck, config(s.fetch(), s.entry("sd_jwt", mode)))
		evidence := func() *trust.Evidence {
			e, err := check(t, l, s.i.jwt(holder), holder)
			must(t, err)
			return e
		}
		nothing, missing := trust.Invalid, credentials.CodeClaimMissing
		if mode == "soft" {
			nothing, missing = trust.Good, ""
		}
		wantStatus(t, mode+" without a status", l, evidence(), ck.now(), nothing, missing)
		for name, claim := range map[string]object{
			"another host":   {"status_list": object{"idx": 1, "uri": "https://evil.example/status/1"}},
			"another path":   {"status_list": object{"idx": 1, "uri": s.URL + "/other/1"}},
			"prefix escaped": {"status_list": object{"idx": 1, "uri": s.URL + "/statusx"}},
			"upwards":        {"status_list": object{"idx": 1, "uri": s.URL + "/status/../other/1"}},
			"upwards hidden": {"status_list": object{"idx": 1, "uri": s.URL + "/status/%2e%2e/other/1"}},
		} {
			s.i.status = claim
			wantStatus(t, name, l, evidence(), ck.now(), trust.Invalid, credentials.CodeStatusURI)
		}
		s.i.status = object{"status_list": object{"idx": 100000, "uri": s.URL + s.path}}
		wantStatus(t, "out of range", l, evidence(), ck.now(), trust.Invalid, credentials.CodeStatusInvalid)
		s.i.status = object{"status_list": object{"idx": 1, "uri": s.URL + "/status/none"}}
		wantStatus(t, "no list", l, evidence(), ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
		s.allocate(t)
		e := evidence()
		wantStatus(t, "good", l, e, ck.now(), trust.Good, "")
		s.up = false
		ck.advance(30 * time.Minute)
		wantStatus(t, "stale", l, e, ck.now(), trust.Stale, credentials.CodeStatusUnavailable)
		ck.advance(time.Hour)
		wantStatus(t, "too old", l, e, ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
		s.up = true
		ck.advance(10 * time.Minute)
		s.publish(t)
		wantStatus(t, "back", l, e, ck.now(), trust.Good, "")
	}
}

// A list that somebody else signed, or that goes back in time, changes nothing.
func TestStatusListForged(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	s := newStatusSite(t, ck)
	index := s.allocate(t)
	var old []byte
	capture := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", statuslist.MediaTypeJWT)
		w.Write(old)
	}
	p, err := s.pub.Publish(t.Context())
	must(t, err)
	old = p.JWT
	l := openList(t, ck, config(s.fetch(), s.entry("sd_jwt", "hard")))
	e, err := check(t, l, s.i.jwt(holder), holder)
	must(t, err)
	ck.advance(time.Minute)
	must(t, s.pub.Set(t.Context(), index, statuslist.Suspended))
	s.publish(t)
	wantStatus(t, "suspended", l, e, ck.now(), trust.Suspended, credentials.CodeSuspended)
	s.handle(s.path, capture)
	ck.advance(15 * time.Minute)
	wantStatus(t, "rolled back", l, e, ck.now(), trust.Suspended, credentials.CodeSuspended)
	s2 := newStatusSite(t, ck)
	s2.pub.Key = newKey(t)
	s2.allocate(t)
	s2.publish(t)
	l = openList(t, ck, config(s2.fetch(), s2.entry("sd_jwt", "soft")))
	e, err = check(t, l, s2.i.jwt(holder), holder)
	must(t, err)
	wantStatus(t, "signed by another key", l, e, ck.now(), trust.Invalid, credentials.CodeStatusInvalid)
}

// Lists and revocations outlive a restart while nobody answers.
func TestStatusOutlivesRestart(t *testing.T) {
	for name, source := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "trust.db"), "PostgreSQL": pgtest.Database(t)} {
		t.Run(name, func(t *testing.T) {
			ck, holder := newClock(), newKey(t)
			s := newStatusSite(t, ck)
			path := write(t, t.TempDir(), config(s.fetch(), s.entry("sd_jwt", "hard")))
			start := func() (*trust.List, func()) {
				db := openDB(t, source)
				l, err := trust.Open(path, trust.Options{Now: ck.now, DB: db})
				must(t, err)
				return l, func() { l.Close(); must(t, db.Close()) }
			}
			bad := s.allocate(t)
			badToken := s.i.jwt(holder)
			s.allocate(t)
			goodToken := s.i.jwt(holder)
			must(t, s.pub.Set(t.Context(), bad, statuslist.Invalid))
			ck.advance(time.Second)
			s.publish(t)
			for range 3 {
				l, stop := start()
				good, err := check(t, l, goodToken, holder)
				must(t, err)
				wantStatus(t, "good", l, good, ck.now(), trust.Good, "")
				e, err := check(t, l, badToken, holder)
				must(t, err)
				wantStatus(t, "revoked", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
				stop()
				s.up = false
			}
			ck.advance(8 * time.Hour)
			l, stop := start()
			defer stop()
			e, err := check(t, l, badToken, holder)
			must(t, err)
			wantStatus(t, "revoked, and the list has ended", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
		})
	}
}

// A certSite is a CA with CRLs and an OCSP responder.
type certSite struct {
	*site
	ck      *clock
	ca      *x509.Certificate
	key     crypto.Signer // of ca
	issue   func(serial int64) *x509.Certificate
	crl     func(number int64, revoked ...x509.RevocationListEntry)
	answers map[string]int
	reason  int
	up      bool
}

func newCertSite(t *testing.T, ck *clock) *certSite {
	t.Helper()
	s := &certSite{site: newSite(t), ck: ck, answers: map[string]int{}, up: true}
	key, holder := newKey(t), newKey(t)
	s.key = key
	s.ca = certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: []byte("key of Acme"),
	}, key.Public(), nil, key)
	uris := []*url.URL{}
	for _, text := range []string{client, user} {
		u, err := url.Parse(text)
		must(t, err)
		uris = append(uris, u)
	}
	s.issue = func(serial int64) *x509.Certificate {
		return certify(t, ck, &x509.Certificate{
			SerialNumber: big.NewInt(serial), URIs: uris, KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{certs.OIDIMURI},
			CRLDistributionPoints: []string{s.URL + "/crl"}, OCSPServer: []string{s.URL + "/ocsp"}, NotBefore: ck.now().Add(-time.Minute), NotAfter: ck.now().Add(30 * 24 * time.Hour),
		}, holder.Public(), s.ca, key)
	}
	s.crl = func(number int64, revoked ...x509.RevocationListEntry) {
		der, err := x509.CreateRevocationList(nil, &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: ck.now(), NextUpdate: ck.now().Add(10 * time.Hour), RevokedCertificateEntries: revoked}, s.ca, key)
		must(t, err)
		s.serve("/crl", "application/pkix-crl", der)
	}
	s.handle("/ocsp", func(w http.ResponseWriter, r *http.Request) {
		if !s.up {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(r.Body)
		must(t, err)
		q, err := ocsp.ParseRequest(body)
		must(t, err)
		der, err := ocsp.CreateResponse(s.ca, s.ca, ocsp.Response{
			Status: s.answers[q.SerialNumber.String()], SerialNumber: q.SerialNumber, ThisUpdate: ck.now(), NextUpdate: ck.now().Add(time.Hour), RevokedAt: ck.now(), RevocationReason: s.reason,
		}, key)
		must(t, err)
		w.Header().Set("Content-Type", "application/ocsp-response")
		w.Write(der)
	})
	writeFile(t, s.dir, "anchor.pem", pemOf(s.ca))
	return s
}

func (s *certSite) entry(revocation object) object {
	return object{
		"name": "acme", "type": "x509", "roles": []string{"client"}, "keys": object{"source": "anchors", "file": filepath.Join(s.dir, "anchor.pem")},
		"grants": clientGrant(), "revocation": revocation,
	}
}

func certEvidence(t *testing.T, l *trust.List, c *x509.Certificate) *trust.Evidence {
	t.Helper()
	e, err := l.Snapshot().Certificate(t.Context(), trust.CertificateCheck{Certificates: [][]byte{c.Raw}})
	must(t, err)
	return e
}

func TestCRL(t *testing.T) {
	ck := newClock()
	s := newCertSite(t, ck)
	file := filepath.Join(s.dir, "acme.crl")
	for name, crl := range map[string][]string{"by URL": {s.URL + "/crl"}, "by the certificate": nil, "second of two": {s.URL + "/none", s.URL + "/crl"}} {
		t.Run(name, func(t *testing.T) {
			ck.advance(time.Hour)
			s.crl(10)
			revocation := object{"mode": "hard", "methods": []string{"crl"}}
			if crl != nil {
				revocation["crl"] = crl
			} else {
				revocation["follow_certificates"] = true
			}
			l := openList(t, ck, config(s.fetch(), s.entry(revocation)))
			e, held := certEvidence(t, l, s.issue(2)), certEvidence(t, l, s.issue(3))
			st := wantStatus(t, "good", l, e, ck.now(), trust.Good, "")
			if want := ck.now().Add(8 * time.Hour); st.Until.Sub(want).Abs() > 2*time.Second {
				t.Errorf("to be asked again at %v, want %v", st.Until, want)
			}
			ck.advance(time.Hour)
			s.crl(9)
			must(t, ignore(l.Refresh(t.Context(), "acme")))
			wantStatus(t, "an older number", l, e, ck.now(), trust.Good, "")
			s.crl(11, x509.RevocationListEntry{SerialNumber: big.NewInt(2), RevocationTime: ck.now(), ReasonCode: 1}, x509.RevocationListEntry{SerialNumber: big.NewInt(3), RevocationTime: ck.now(), ReasonCode: 6})
			ck.advance(10 * time.Second)
			must(t, ignore(l.Refresh(t.Context(), "acme")))
			wantStatus(t, "revoked", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
			wantStatus(t, "on hold", l, held, ck.now(), trust.Suspended, credentials.CodeSuspended)
			s.crl(12)
			ck.advance(time.Minute)
			must(t, ignore(l.Refresh(t.Context(), "acme")))
			wantStatus(t, "released", l, held, ck.now(), trust.Good, "")
			wantStatus(t, "revoked for good", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
			s.serve("/crl", "text/html", []byte("no"))
			ck.advance(12 * time.Hour)
			wantStatus(t, "stale", l, held, ck.now(), trust.Stale, credentials.CodeStatusUnavailable)
			ck.advance(24 * time.Hour)
			wantStatus(t, "too old", l, held, ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
		})
	}
	l := openList(t, ck, config(s.fetch(), s.entry(object{"mode": "hard", "methods": []string{"crl"}, "crl": []string{file}})))
	e := certEvidence(t, l, s.issue(4))
	wantStatus(t, "no file", l, e, ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
	l = openList(t, ck, config(s.fetch(), s.entry(object{"mode": "hard"})))
	wantStatus(t, "nobody to ask", l, certEvidence(t, l, s.issue(4)), ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
	if n := s.count("/ocsp"); n != 0 {
		t.Errorf("%d OCSP requests to a URL of a certificate that was not to be followed", n)
	}
}

// ignore lets an error of a refresh pass that the next question shows.
// The certificates in x5c and x5chain are asked for where the entry says whom
// to ask. Serial 5 is revoked and 7 is not.
func TestCertifiedKeyRevoked(t *testing.T) {
	const iss = "https://idp.example"
	for _, kind := range []string{"sd_jwt", "sd_cwt"} {
		for _, serial := range []int64{7, 5} {
			for name, revocation := range map[string]func(*certSite) object{
				"crl": func(s *certSite) object { return object{"mode": "soft", "crl": []string{s.URL + "/crl"}} },
				"ocsp": func(s *certSite) object {
					return object{"mode": "soft", "methods": []string{"ocsp"}, "ocsp": []string{s.URL + "/ocsp"}}
				},
				"named there": func(*certSite) object { return object{"mode": "soft", "follow_certificates": true} },
				"nobody":      func(*certSite) object { return object{"mode": "soft"} },
			} {
				t.Run(fmt.Sprint(kind, " ", name, " ", serial), func(t *testing.T) {
					ck, holder := newClock(), newKey(t)
					s := newCertSite(t, ck)
					i := newIssuer(t, ck, iss)
					i.chain = s.certifyIssuer(t, i, serial)
					e := entry(kind, iss, object{"source": "anchors", "file": filepath.Join(s.dir, "anchor.pem")})
					e["revocation"] = revocation(s)
					l := openList(t, ck, config(s.fetch(), e))
					token := i.jwt
					if kind == "sd_cwt" {
						token = i.kbt
					}
					s.crl(1)
					evidence, err := check(t, l, token(holder), holder)
					must(t, err)
					wantStatus(t, "good", l, evidence, ck.now(), trust.Good, "")
					s.crl(2, x509.RevocationListEntry{SerialNumber: big.NewInt(5), RevocationTime: ck.now(), ReasonCode: 1})
					s.answers["5"] = ocsp.Revoked
					ck.advance(time.Minute)
					must(t, ignore(l.Refresh(t.Context(), e["name"].(string))))
					want, code := trust.Good, credentials.Code("")
					if serial == 5 && name != "nobody" {
						want, code = trust.Revoked, credentials.CodeRevoked
					}
					wantStatus(t, "afterwards", l, evidence, ck.now(), want, code)
				})
			}
		}
	}
}

// certifyIssuer makes the certificate of a token issuer's key.
func (s *certSite) certifyIssuer(t *testing.T, i *issuer, serial int64) [][]byte {
	t.Helper()
	u, err := url.Parse(i.iss)
	must(t, err)
	c := certify(t, s.ck, &x509.Certificate{
		SerialNumber: big.NewInt(serial), URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature,
		CRLDistributionPoints: []string{s.URL + "/crl"}, OCSPServer: []string{s.URL + "/ocsp"},
	}, i.key.Public(), s.ca, s.key)
	return [][]byte{c.Raw}
}

func ignore(error) error { return nil }

func TestOCSP(t *testing.T) {
	ck := newClock()
	s := newCertSite(t, ck)
	l := openList(t, ck, config(s.fetch(), s.entry(object{"mode": "hard", "methods": []string{"ocsp"}, "ocsp": []string{s.URL + "/ocsp"}})))
	good, bad, held, unknown := certEvidence(t, l, s.issue(20)), certEvidence(t, l, s.issue(21)), certEvidence(t, l, s.issue(22)), certEvidence(t, l, s.issue(23))
	for range 3 {
		wantStatus(t, "good", l, good, ck.now(), trust.Good, "")
	}
	if n := s.count("/ocsp"); n != 1 {
		t.Errorf("%d requests", n)
	}
	s.answers["21"], s.answers["23"] = ocsp.Revoked, ocsp.Unknown
	wantStatus(t, "revoked", l, bad, ck.now(), trust.Revoked, credentials.CodeRevoked)
	wantStatus(t, "unknown", l, unknown, ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
	s.answers["22"], s.reason = ocsp.Revoked, 6
	wantStatus(t, "on hold", l, held, ck.now(), trust.Suspended, credentials.CodeSuspended)
	delete(s.answers, "22")
	ck.advance(6 * time.Minute)
	wantStatus(t, "released", l, held, ck.now(), trust.Good, "")
	s.up = false
	ck.advance(2 * time.Hour)
	wantStatus(t, "stale", l, good, ck.now(), trust.Stale, credentials.CodeStatusUnavailable)
	ck.advance(25 * time.Hour)
	wantStatus(t, "too old", l, good, ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
	wantStatus(t, "revoked for good", l, bad, ck.now(), trust.Revoked, credentials.CodeRevoked)
	// OCSP first, and the CRL where it does not answer.
	s.crl(1)
	l = openList(t, ck, config(s.fetch(), s.entry(object{"mode": "hard", "methods": []string{"ocsp", "crl"}, "follow_certificates": true})))
	wantStatus(t, "by CRL", l, certEvidence(t, l, s.issue(24)), ck.now(), trust.Good, "")
}

// TestRun has what is due fetched without a question.
func TestRun(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	s := newStatusSite(t, ck)
	index := s.allocate(t)
	l := openList(t, ck, config(s.fetch(), s.entry("sd_jwt", "hard")))
	e, err := check(t, l, s.i.jwt(holder), holder)
	must(t, err)
	wantStatus(t, "good", l, e, ck.now(), trust.Good, "")
	must(t, s.pub.Set(t.Context(), index, statuslist.Invalid))
	ck.advance(11 * time.Minute)
	s.publish(t)
	woken, stop := l.Watch()
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	select {
	case <-woken:
	case <-time.After(20 * time.Second):
		t.Error("nobody is told of a list that was due")
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
	s.up = false
	wantStatus(t, "revoked", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
}
