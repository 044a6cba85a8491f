package trust_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
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
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/jose"
)

// entryOf is a CRL entry of a serial; a reason of 8 takes it off.
func (s *certSite) entryOf(serial int64, reason int) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: s.ck.now(), ReasonCode: reason}
}

// delta serves a delta CRL with a number that builds on a base.
func (s *certSite) delta(t *testing.T, number, base int64, entries ...x509.RevocationListEntry) {
	t.Helper()
	value, err := asn1.Marshal(big.NewInt(base))
	must(t, err)
	der, err := x509.CreateRevocationList(nil, &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: s.ck.now(), NextUpdate: s.ck.now().Add(time.Hour), RevokedCertificateEntries: entries,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: value}},
	}, s.ca, s.key)
	must(t, err)
	s.serve("/delta", "application/pkix-crl", der)
}

// crlWithFreshest serves a full CRL that says where its delta is.
func (s *certSite) crlWithFreshest(t *testing.T, number int64) {
	t.Helper()
	value := []byte(s.URL + "/delta")
	for _, tag := range []byte{0x86, 0xa0, 0xa0, 0x30, 0x30} { // a URI, of a full name, of a name, of a point, of a list
		value = append([]byte{tag, byte(len(value))}, value...)
	}
	der, err := x509.CreateRevocationList(nil, &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: s.ck.now(), NextUpdate: s.ck.now().Add(10 * time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 46}, Value: value}},
	}, s.ca, s.key)
	must(t, err)
	s.serve("/crl", "application/pkix-crl", der)
}

// TestDeltaCRL has a delta complete the full CRL, by configuration and by what
// the full CRL says, before the full CRL is due.
func TestDeltaCRL(t *testing.T) {
	for name, revocation := range map[string]func(*certSite) object{
		"configured": func(s *certSite) object {
			return object{"mode": "hard", "methods": []string{"crl"}, "crl": []string{s.URL + "/crl"}, "delta_crl": []string{s.URL + "/delta"}}
		},
		"by the CRL": func(*certSite) object {
			return object{"mode": "hard", "methods": []string{"crl"}, "follow_certificates": true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ck := newClock()
			s := newCertSite(t, ck)
			s.crlWithFreshest(t, 10)
			l := openList(t, ck, config(s.fetch(), s.entry(revocation(s))))
			e, held := certEvidence(t, l, s.issue(2)), certEvidence(t, l, s.issue(3))
			wantStatus(t, "no delta yet", l, e, ck.now(), trust.Good, "")
			ck.advance(6 * time.Minute)
			s.delta(t, 11, 10, s.entryOf(3, 6))
			wantStatus(t, "held by a delta", l, held, ck.now(), trust.Suspended, credentials.CodeSuspended)
			wantStatus(t, "good by a delta", l, e, ck.now(), trust.Good, "")
			ck.advance(50 * time.Minute)
			s.delta(t, 12, 10, s.entryOf(2, 1), s.entryOf(3, 8))
			st := wantStatus(t, "revoked by a delta", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
			if st.Until.After(ck.now().Add(time.Hour)) {
				t.Errorf("to be asked again at %v: a delta ends in an hour", st.Until)
			}
			wantStatus(t, "taken off by a delta", l, held, ck.now(), trust.Good, "")
			// The full CRL was not fetched for any of this.
			if n := s.count("/crl"); n != 1 {
				t.Errorf("%d fetches of the full CRL", n)
			}
		})
	}
}

// TestDeltaNeverGoesBack shows that an older delta, or none, does not take back
// what a newer one has said, also after a restart.
func TestDeltaNeverGoesBack(t *testing.T) {
	ck := newClock()
	s := newCertSite(t, ck)
	s.crl(10)
	path := write(t, t.TempDir(), config(s.fetch(), s.entry(object{
		"mode": "hard", "methods": []string{"crl"}, "crl": []string{s.URL + "/crl"}, "delta_crl": []string{s.URL + "/delta"}, "max_stale_s": 3600,
	})))
	source := filepath.Join(t.TempDir(), "trust.db")
	var l *trust.List
	start := func() (stop func()) {
		db := openDB(t, source)
		var err error
		l, err = trust.Open(path, trust.Options{Now: ck.now, DB: db, Rand: func() float64 { return 0.5 }})
		must(t, err)
		return func() { l.Close(); must(t, db.Close()) }
	}
	stop := start()
	old := func() { s.delta(t, 11, 10) }
	old()
	serial := int64(100)
	fresh := func() *trust.Evidence { serial++; return certEvidence(t, l, s.issue(serial)) }
	held := s.issue(3)
	wantStatus(t, "good", l, fresh(), ck.now(), trust.Good, "")
	ck.advance(50 * time.Minute)
	s.delta(t, 13, 10, s.entryOf(3, 6))
	wantStatus(t, "held", l, certEvidence(t, l, held), ck.now(), trust.Suspended, credentials.CodeSuspended)
	stop()
	// A delta of a lower number, even a later one, is not taken.
	ck.advance(50 * time.Minute)
	s.delta(t, 12, 10)
	stop = start()
	wantStatus(t, "rolled back", l, certEvidence(t, l, held), ck.now(), trust.Suspended, credentials.CodeSuspended)
	// Without a delta, the full CRL alone is older than what was seen.
	s.serve("/delta", "text/html", nil)
	ck.advance(30 * time.Minute)
	wantStatus(t, "stale", l, fresh(), ck.now(), trust.Stale, credentials.CodeStatusUnavailable)
	wantStatus(t, "held, stale", l, certEvidence(t, l, held), ck.now(), trust.Suspended, credentials.CodeSuspended)
	ck.advance(2 * time.Hour)
	wantStatus(t, "held, the delta is lost", l, certEvidence(t, l, held), ck.now(), trust.Suspended, credentials.CodeSuspended)
	wantStatus(t, "the delta is lost, another", l, fresh(), ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
	stop()
	stop = start()
	defer func() { stop() }()
	wantStatus(t, "the delta is lost, after a restart", l, fresh(), ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
	// A full CRL that is as new says all that there is to say.
	s.crl(13)
	ck.advance(10 * time.Second)
	must(t, ignore(l.Refresh(t.Context(), "acme")))
	wantStatus(t, "a newer full CRL", l, fresh(), ck.now(), trust.Good, "")
	// A delta that builds on a later full CRL has that fetched.
	ck.advance(10 * time.Minute)
	s.crl(14)
	s.delta(t, 15, 14, s.entryOf(3, 1))
	wantStatus(t, "on a later full CRL", l, certEvidence(t, l, held), ck.now(), trust.Revoked, credentials.CodeRevoked)
	// And if that cannot be had, nothing is known.
	ck.advance(50 * time.Minute)
	s.delta(t, 17, 16)
	wantStatus(t, "its full CRL cannot be had", l, fresh(), ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
}

func TestDeltaConfig(t *testing.T) {
	ck := newClock()
	s := newCertSite(t, ck)
	for name, revocation := range map[string]object{
		"without a full CRL": {"mode": "hard", "delta_crl": []string{s.URL + "/delta"}},
		"mode none":          {"mode": "none", "delta_crl": []string{s.URL + "/delta"}},
		"no URL":             {"mode": "hard", "crl": []string{"a.crl"}, "delta_crl": []string{"ftp://x.example/a"}},
	} {
		if _, err := trust.Open(write(t, t.TempDir(), config(s.fetch(), s.entry(revocation))), trust.Options{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A certifiedList is a status list that is signed with a certified key.
type certifiedList struct {
	*statusSite
	certs *certSite
}

// sign publishes a list in which nobody is revoked but 7, by the key that serial
// is certified for.
func (c *certifiedList) sign(t *testing.T, ck *clock, serial int64, notAfter time.Time) {
	t.Helper()
	u, err := url.Parse(c.i.iss)
	must(t, err)
	cert := certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(serial), URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: ck.now().Add(-time.Hour), NotAfter: notAfter,
	}, c.i.key.Public(), c.certs.ca, c.certs.key)
	list, err := statuslist.NewList(1, 64)
	must(t, err)
	must(t, list.Set(7, statuslist.Invalid))
	lst, err := list.Compress()
	must(t, err)
	header := fmt.Sprintf(`{"alg":"ES256","typ":"statuslist+jwt","x5c":[%q]}`, base64.StdEncoding.EncodeToString(cert.Raw))
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"ttl":600,"status_list":{"bits":1,"lst":%q}}`, c.URL+c.path, ck.now().Unix(), jose.EncodeBase64(lst))
	token, err := jose.Sign(t.Context(), credentials.ECDSAP256, c.i.key, []byte(header), []byte(claims))
	must(t, err)
	c.serve(c.path, statuslist.MediaTypeJWT, []byte(token))
}

// TestStatusSignerRevoked asks for the certificate of a status list too. Serial
// 5 is revoked, 6 on hold, and 7 is not.
func TestStatusSignerRevoked(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	for _, mode := range []string{"hard", "soft"} {
		for serial, want := range map[int64]trust.Standing{5: trust.Invalid, 6: trust.Invalid, 7: trust.Good} {
			for _, idx := range []int64{3, 7} {
				t.Run(fmt.Sprintf("%s, serial %d, index %d", mode, serial, idx), func(t *testing.T) {
					c := &certifiedList{statusSite: newStatusSite(t, ck), certs: newCertSite(t, ck)}
					crl := filepath.Join(c.certs.dir, "acme.crl")
					der, err := x509.CreateRevocationList(nil, &x509.RevocationList{
						Number: big.NewInt(1), ThisUpdate: ck.now(), NextUpdate: ck.now().Add(10 * time.Hour),
						RevokedCertificateEntries: []x509.RevocationListEntry{c.certs.entryOf(5, 1), c.certs.entryOf(6, 6)},
					}, c.certs.ca, c.certs.key)
					must(t, err)
					writeFile(t, c.certs.dir, "acme.crl", der)
					c.sign(t, ck, serial, ck.now().Add(24*time.Hour))
					signer := entry("sd_cwt", c.i.iss, object{"source": "anchors", "file": filepath.Join(c.certs.dir, "anchor.pem")})
					signer["name"], signer["revocation"] = "lists", object{"mode": mode, "crl": []string{crl}}
					e := c.entry("sd_jwt", mode)
					e["revocation"].(object)["status_issuer"] = "lists"
					l := openList(t, ck, config(c.fetch(), e, signer))
					c.i.status = object{"status_list": object{"idx": idx, "uri": c.URL + c.path}}
					evidence, err := check(t, l, c.i.jwt(holder), holder)
					must(t, err)
					standing, code := want, credentials.Code("")
					switch {
					case want == trust.Invalid:
						code = credentials.CodeStatusInvalid
					case idx == 7:
						standing, code = trust.Revoked, credentials.CodeRevoked
					}
					wantStatus(t, "by the list", l, evidence, ck.now(), standing, code)
				})
			}
		}
	}
}

// A list outlives no certificate that it was signed with.
func TestStatusSignerExpired(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	c := &certifiedList{statusSite: newStatusSite(t, ck), certs: newCertSite(t, ck)}
	e := entry("sd_jwt", c.i.iss, object{"source": "jwks_uri", "uri": c.URL + "/jwks"})
	e["revocation"] = object{"mode": "hard", "status_prefixes": []string{c.URL + "/status/"}, "status_issuer": "lists"}
	signer := entry("sd_cwt", c.i.iss, object{"source": "anchors", "file": filepath.Join(c.certs.dir, "anchor.pem")})
	signer["name"] = "lists"
	l := openList(t, ck, config(c.fetch(), e, signer))
	c.i.status = object{"status_list": object{"idx": 3, "uri": c.URL + c.path}}
	evidence, err := check(t, l, c.i.jwt(holder), holder)
	must(t, err)
	c.sign(t, ck, 7, ck.now().Add(-10*time.Minute))
	wantStatus(t, "expired", l, evidence, ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
	c.sign(t, ck, 7, ck.now().Add(20*time.Minute))
	ck.advance(10 * time.Minute)
	wantStatus(t, "valid", l, evidence, ck.now(), trust.Good, "")
	ck.advance(15 * time.Minute)
	wantStatus(t, "ended since", l, evidence, ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
}

// TestOCSPResponderRevoked asks the CRL for a responder that does not say that
// nobody need ask. Serial 8 is revoked.
func TestOCSPResponderRevoked(t *testing.T) {
	for serial, want := range map[int64]trust.Standing{8: trust.Unavailable, 9: trust.Good} {
		for _, asked := range []bool{true, false} {
			ck := newClock()
			s := newCertSite(t, ck)
			key := newKey(t)
			delegate := certify(t, ck, &x509.Certificate{
				SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "OCSP"}, KeyUsage: x509.KeyUsageDigitalSignature,
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, CRLDistributionPoints: []string{s.URL + "/crl"},
			}, key.Public(), s.ca, s.key)
			s.handle("/ocsp", func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				must(t, err)
				q, err := ocsp.ParseRequest(body)
				must(t, err)
				der, err := ocsp.CreateResponse(s.ca, delegate, ocsp.Response{
					Status: ocsp.Good, SerialNumber: q.SerialNumber, ThisUpdate: ck.now(), NextUpdate: ck.now().Add(time.Hour), Certificate: delegate,
				}, key)
				must(t, err)
				w.Header().Set("Content-Type", "application/ocsp-response")
				w.Write(der)
			})
			s.crl(1, s.entryOf(8, 1))
			revocation := object{"mode": "hard", "methods": []string{"ocsp"}, "ocsp": []string{s.URL + "/ocsp"}}
			standing := trust.Unavailable // a CRL that is not to be asked
			if asked {
				revocation["methods"], revocation["crl"] = []string{"ocsp", "crl"}, []string{s.URL + "/crl"}
				standing = want
			}
			l := openList(t, ck, config(s.fetch(), s.entry(revocation)))
			e := certEvidence(t, l, s.issue(20))
			if asked { // the CRL would answer for the certificate by itself
				if st := l.Snapshot().Status(t.Context(), e, ck.now()); st.Standing != trust.Good || (st.Source == s.URL+"/ocsp") != (want == trust.Good) {
					t.Errorf("serial %d: %s from %s, %v", serial, st.Standing, st.Source, st.Err)
				}
				continue
			}
			wantStatus(t, fmt.Sprintf("serial %d", serial), l, e, ck.now(), standing, credentials.CodeStatusUnavailable)
		}
	}
}
