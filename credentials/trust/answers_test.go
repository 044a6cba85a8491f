package trust_test

import (
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/pgtest"
)

// onBoth runs a test with a database of each engine.
func onBoth(t *testing.T, f func(t *testing.T, source string)) {
	t.Run("SQLite", func(t *testing.T) { f(t, filepath.Join(t.TempDir(), "trust.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, pgtest.Database(t)) })
}

// node opens a list as one of several nodes that share a database does.
func node(t *testing.T, ck *clock, source, path string) *trust.List {
	t.Helper()
	l, err := trust.Open(path, trust.Options{Now: ck.now, DB: openDB(t, source), Rand: func() float64 { return 0.5 }})
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

// relearn has a list fetch everything anew, a while later.
func relearn(t *testing.T, ck *clock, l *trust.List) {
	t.Helper()
	ck.advance(10 * time.Second)
	must(t, ignore(l.Refresh(t.Context(), "acme")))
}

// Of two nodes, one has an older list than the other and is not due to fetch a
// new one. It goes by what the other has learned, whichever way that went.
func TestNewestListCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		ck, holder := newClock(), newKey(t)
		s := newStatusSite(t, ck)
		e := s.entry("sd_jwt", "hard")
		e["name"] = "acme"
		path := write(t, t.TempDir(), config(s.fetch(), e))
		index := s.allocate(t)
		token := s.i.jwt(holder)
		a, b := node(t, ck, source, path), node(t, ck, source, path)
		want := func(what string, l *trust.List, want trust.Standing, code credentials.Code) {
			t.Helper()
			e, err := check(t, l, token, holder)
			must(t, err)
			wantStatus(t, what, l, e, ck.now(), want, code)
		}
		set := func(st statuslist.Status) {
			t.Helper()
			must(t, s.pub.Set(t.Context(), index, st))
			ck.advance(time.Second)
			s.publish(t)
		}
		want("first", a, trust.Good, "")
		want("first", b, trust.Good, "")
		set(statuslist.Suspended)
		relearn(t, ck, b)
		want("the newer list", b, trust.Suspended, credentials.CodeSuspended)
		want("an older list, which says good", a, trust.Suspended, credentials.CodeSuspended)
		want("a node that has nothing", node(t, ck, source, path), trust.Suspended, credentials.CodeSuspended)
		relearn(t, ck, a)
		set(statuslist.Valid)
		relearn(t, ck, b)
		want("the newest list", b, trust.Good, "")
		want("an older list, which says suspended", a, trust.Good, "")
		// And nothing can be learned any more: no suspension is forgotten.
		set(statuslist.Suspended)
		relearn(t, ck, b)
		want("suspended again", b, trust.Suspended, credentials.CodeSuspended)
		s.up = false
		ck.advance(24 * time.Hour)
		for name, l := range map[string]*trust.List{"a": a, "b": b, "a third": node(t, ck, source, path)} {
			e, err := check(t, l, token, holder)
			if err == nil {
				wantStatus(t, name+" has no list any more", l, e, ck.now(), trust.Suspended, credentials.CodeSuspended)
			}
		}
	})
}

// The newer CRL is the one of the later time or, within a second, of the higher
// number.
func TestNewestCRLCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		ck := newClock()
		s := newCertSite(t, ck)
		s.crl(1)
		path := write(t, t.TempDir(), config(s.fetch(), s.entry(object{"mode": "hard", "methods": []string{"crl"}, "crl": []string{s.URL + "/crl"}})))
		a, b := node(t, ck, source, path), node(t, ck, source, path)
		c := s.issue(3)
		want := func(what string, l *trust.List, want trust.Standing, code credentials.Code) {
			t.Helper()
			wantStatus(t, what, l, certEvidence(t, l, c), ck.now(), want, code)
		}
		hold := x509.RevocationListEntry{SerialNumber: big.NewInt(3), RevocationTime: ck.now(), ReasonCode: 6}
		want("first", a, trust.Good, "")
		want("first", b, trust.Good, "")
		s.crl(2, hold) // of the same second
		relearn(t, ck, b)
		want("number 2", b, trust.Suspended, credentials.CodeSuspended)
		want("number 1", a, trust.Suspended, credentials.CodeSuspended)
		s.crl(4)
		relearn(t, ck, a)
		want("number 4", a, trust.Good, "")
		// The other node gets an older one from somewhere, and keeps it nowhere.
		s.crl(3, hold)
		ck.advance(-10 * time.Second)
		s.crl(3, hold)
		ck.advance(10 * time.Second)
		relearn(t, ck, b)
		want("number 3, while 4 is known", b, trust.Good, "")
		s.serve("/crl", "text/html", nil)
		want("after a restart", node(t, ck, source, path), trust.Good, "")
	})
}

// An OCSP answer that is older than the one by which a certificate is on hold
// does not release it, neither here nor after a CRL has said so.
func TestOCSPNeverGoesBack(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		ck := newClock()
		s := newCertSite(t, ck)
		s.crl(1)
		path := write(t, t.TempDir(), config(s.fetch(), s.entry(object{
			"mode": "hard", "methods": []string{"ocsp", "crl"}, "ocsp": []string{s.URL + "/ocsp"}, "crl": []string{s.URL + "/crl"},
		})))
		produced := time.Time{} // an answer that was made then, again and again
		status := ocsp.Good
		s.handle("/ocsp", func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			must(t, err)
			q, err := ocsp.ParseRequest(body)
			must(t, err)
			if !s.up {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			der, err := ocsp.CreateResponse(s.ca, s.ca, ocsp.Response{
				Status: status, SerialNumber: q.SerialNumber, ThisUpdate: produced, NextUpdate: produced.Add(48 * time.Hour), RevokedAt: produced, RevocationReason: 6,
			}, s.key)
			must(t, err)
			w.Header().Set("Content-Type", "application/ocsp-response")
			w.Write(der)
		})
		a, b := node(t, ck, source, path), node(t, ck, source, path)
		first, second := s.issue(3), s.issue(4)
		want := func(what string, l *trust.List, c *x509.Certificate, want trust.Standing, code credentials.Code) {
			t.Helper()
			wantStatus(t, what, l, certEvidence(t, l, c), ck.now(), want, code)
		}
		early := ck.now()
		produced = early
		want("first", a, first, trust.Good, "")
		want("first", b, first, trust.Good, "")
		ck.advance(time.Hour)
		produced, status = ck.now(), ocsp.Revoked
		relearn(t, ck, b)
		want("on hold", b, first, trust.Suspended, credentials.CodeSuspended)
		want("on hold, at the node with an older answer", a, first, trust.Suspended, credentials.CodeSuspended)
		produced, status = early, ocsp.Good
		ck.advance(10 * time.Minute)
		want("an older answer again", b, first, trust.Suspended, credentials.CodeSuspended)
		want("an older answer, and nothing at hand", node(t, ck, source, path), first, trust.Suspended, credentials.CodeSuspended)
		produced = ck.now()
		relearn(t, ck, b)
		ck.advance(10 * time.Minute)
		want("released", b, first, trust.Good, "")
		want("released, at the other node", a, first, trust.Good, "")
		// The same by two ways of asking.
		s.up = false
		s.crl(2, x509.RevocationListEntry{SerialNumber: big.NewInt(4), RevocationTime: ck.now(), ReasonCode: 6})
		relearn(t, ck, a)
		want("on hold by CRL", a, second, trust.Suspended, credentials.CodeSuspended)
		s.up, produced = true, early
		ck.advance(10 * time.Minute)
		want("an OCSP answer from before that", a, second, trust.Suspended, credentials.CodeSuspended)
		produced = ck.now()
		relearn(t, ck, a)
		ck.advance(10 * time.Minute)
		want("an OCSP answer from after that", a, second, trust.Good, "")
	})
}
