package trust_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/credentials/trust"
)

// spreading opens a configuration whose refreshes are spread by a number from 0,
// the earliest, to 1, the latest.
func spreading(t *testing.T, ck *clock, spread float64, config object) *trust.List {
	t.Helper()
	l, err := trust.Open(write(t, t.TempDir(), config), trust.Options{Now: ck.now, Rand: func() float64 { return spread }})
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

// TestLivesOfLists has lists kept for their ttl within a minute and a day, and never
// beyond exp; refreshes are spread by a tenth.
func TestLivesOfLists(t *testing.T) {
	for _, c := range []struct {
		ttl, exp time.Duration
		spread   float64
		want     time.Duration
	}{
		{10 * time.Minute, time.Hour, 0.5, 10 * time.Minute},
		{time.Second, time.Hour, 0.5, time.Minute},
		{72 * time.Hour, 240 * time.Hour, 0.5, 24 * time.Hour},
		{time.Hour, 20 * time.Minute, 0.5, 20 * time.Minute},
		{time.Hour, 0, 0.5, time.Hour},
		{0, 0, 0.5, time.Hour},
		{0, 20 * time.Minute, 0.5, 20 * time.Minute},
		{10 * time.Minute, time.Hour, 0, 9 * time.Minute},
		{10 * time.Minute, time.Hour, 1, 10 * time.Minute}, // not beyond the ttl
	} {
		t.Run(fmt.Sprint(c.ttl, " ", c.exp, " ", c.spread), func(t *testing.T) {
			ck, holder := newClock(), newKey(t)
			s := newStatusSite(t, ck)
			l := spreading(t, ck, c.spread, config(s.fetch(), s.entry("sd_jwt", "hard")))
			statuses, err := statuslist.NewList(2, 256)
			must(t, err)
			lst, err := statuses.Compress()
			must(t, err)
			token := &statuslist.Token{Subject: s.URL + s.path, IssuedAt: ck.now(), TTL: c.ttl, Bits: 2, Compressed: lst}
			if c.exp > 0 {
				token.Expires = ck.now().Add(c.exp)
			}
			signed, err := token.Sign(t.Context(), statuslist.JWT, s.i.key, []byte(s.i.kid))
			must(t, err)
			s.serve(s.path, statuslist.MediaTypeJWT, signed)
			s.allocate(t)
			e, err := check(t, l, s.i.jwt(holder), holder)
			must(t, err)
			st := wantStatus(t, "good", l, e, ck.now(), trust.Good, "")
			if got := st.Until.Sub(ck.now()); got != c.want {
				t.Errorf("asked again after %v, want %v", got, c.want)
			}
		})
	}
}

// TestLivesOfCRLs has CRLs fetched anew at four fifths of their interval, and no
// sooner than five minutes or later than a day after the last time.
func TestLivesOfCRLs(t *testing.T) {
	for _, c := range []struct {
		interval time.Duration
		spread   float64
		want     time.Duration
	}{
		{10 * time.Hour, 0.5, 8 * time.Hour}, {10 * time.Hour, 0, 432 * time.Minute}, {10 * time.Hour, 1, 528 * time.Minute},
		{6 * time.Minute, 0.5, 5 * time.Minute}, {2 * time.Minute, 0.5, 2 * time.Minute}, {100 * time.Hour, 0.5, 24 * time.Hour},
	} {
		t.Run(fmt.Sprint(c.interval, " ", c.spread), func(t *testing.T) {
			ck := newClock()
			s := newCertSite(t, ck)
			l := spreading(t, ck, c.spread, config(s.fetch(), s.entry(object{"mode": "hard", "methods": []string{"crl"}, "crl": []string{s.URL + "/crl"}})))
			der, err := x509.CreateRevocationList(nil, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: ck.now(), NextUpdate: ck.now().Add(c.interval)}, s.ca, s.key)
			must(t, err)
			s.serve("/crl", "application/pkix-crl", der)
			st := wantStatus(t, "good", l, certEvidence(t, l, s.issue(2)), ck.now(), trust.Good, "")
			if got := st.Until.Sub(ck.now()); got != c.want {
				t.Errorf("asked again after %v, want %v", got, c.want)
			}
		})
	}
}

// TestLivesOfKeys has key sets kept as long as their server says, within five
// minutes and a day.
func TestLivesOfKeys(t *testing.T) {
	for control, want := range map[string]time.Duration{
		"": time.Hour, "max-age=600": 10 * time.Minute, "max-age=1": 5 * time.Minute, "max-age=0": 5 * time.Minute, "max-age=999999": 24 * time.Hour,
		"no-store": 5 * time.Minute, "no-cache, max-age=600": 5 * time.Minute, "public, Max-Age=\"900\"": 15 * time.Minute, "max-age=-5": time.Hour, "max-age=99999999999999999999": time.Hour,
	} {
		ck, holder := newClock(), newKey(t)
		s := newSite(t)
		i := newIssuer(t, ck, s.URL)
		s.handle("/jwks", func(w http.ResponseWriter, r *http.Request) {
			if control != "" {
				w.Header().Set("Cache-Control", control)
			}
			w.Header().Set("Content-Type", "application/json")
			w.Write(jwks(t, i))
		})
		l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})))
		e, err := check(t, l, i.jwt(holder), holder)
		must(t, err)
		if got := e.KeysUntil.Sub(ck.now()).Truncate(time.Second); got != want {
			t.Errorf("%q: kept for %v, want %v", control, got, want)
		}
	}
}

// TestRevokedIntermediate has the revocation of a CA below the anchor count for what
// it has issued.
func TestRevokedIntermediate(t *testing.T) {
	ck := newClock()
	s := newCertSite(t, ck)
	key := newKey(t)
	sub := certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(50), Subject: s.ca.Subject, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("sub"),
	}, key.Public(), s.ca, s.key)
	leaf := s.issue(2)
	leaf = certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: leaf.URIs, KeyUsage: leaf.KeyUsage, UnknownExtKeyUsage: leaf.UnknownExtKeyUsage, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}, leaf.PublicKey, sub, key)
	der, err := x509.CreateRevocationList(nil, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: ck.now(), NextUpdate: ck.now().Add(time.Hour)}, sub, key)
	must(t, err)
	s.serve("/sub", "application/pkix-crl", der)
	for _, revoked := range []bool{false, true} {
		s.crl(1)
		want, code := trust.Good, credentials.Code("")
		if revoked {
			s.crl(2, s.entryOf(50, 2))
			want, code = trust.Revoked, credentials.CodeRevoked
		}
		l := openList(t, ck, config(s.fetch(), s.entry(object{"mode": "hard", "methods": []string{"crl"}, "crl": []string{s.URL + "/crl", s.URL + "/sub"}})))
		e, err := l.Snapshot().Certificate(t.Context(), trust.CertificateCheck{Certificates: [][]byte{leaf.Raw, sub.Raw}})
		must(t, err)
		wantStatus(t, fmt.Sprintf("the CA revoked: %v", revoked), l, e, ck.now(), want, code)
	}
}

// TestUnrevocableLifetime has a credential of which nobody asks whether it is revoked
// live for a day at most.
func TestUnrevocableLifetime(t *testing.T) {
	const iss = "https://idp.example"
	ck, holder := newClock(), newKey(t)
	for _, kind := range []string{"sd_jwt", "sd_cwt"} {
		i := newIssuer(t, ck, iss)
		l := openList(t, ck, config(nil, entry(kind, iss, object{"source": "jwks_file", "file": writeFile(t, t.TempDir(), "keys.json", jwks(t, i))})))
		for life, want := range map[time.Duration]credentials.Code{24 * time.Hour: "", 24*time.Hour + time.Second: credentials.CodePolicy} {
			i.life = life
			token := i.jwt
			if kind == "sd_cwt" {
				token = i.kbt
			}
			_, err := check(t, l, token(holder), holder)
			wantCode(t, fmt.Sprint(kind, " for ", life), err, want)
		}
	}
	s := newCertSite(t, ck)
	l := openList(t, ck, config(nil, s.entry(object{"mode": "none"})))
	_, err := l.Snapshot().Certificate(t.Context(), trust.CertificateCheck{Certificates: [][]byte{s.issue(2).Raw}})
	wantCode(t, "a certificate of a month", err, credentials.CodePolicy)
}

// TestIssuerAsks has an entry ask for more than signatures of its credentials.
func TestIssuerAsks(t *testing.T) {
	const iss = "https://idp.example"
	ck, holder := newClock(), newKey(t)
	attested := func(level string) func(*issuer) {
		return func(i *issuer) {
			i.with = func(claims object) { claims[credentials.ClaimAttestation] = level }
			i.cwt = func(claims map[any]any) { claims[credentials.ClaimAttestation] = level }
		}
	}
	lives := func(d time.Duration) func(*issuer) { return func(i *issuer) { i.life = d } }
	without := func(key int) func(*issuer) {
		return func(i *issuer) { i.cwt = func(claims map[any]any) { delete(claims, key) } }
	}
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		entry, defaults object
		kinds           []string
		change          func(*issuer)
		want            credentials.Code
	}{
		"as long as the entry lets":      {object{"max_credential_lifetime_s": 3600}, nil, nil, lives(time.Hour), ""},
		"longer":                         {object{"max_credential_lifetime_s": 3600}, nil, nil, lives(time.Hour + time.Second), credentials.CodePolicy},
		"as long as all entries":         {nil, object{"max_credential_lifetime_s": 7200}, nil, lives(2 * time.Hour), ""},
		"longer than all entries":        {nil, object{"max_credential_lifetime_s": 7200}, nil, lives(2*time.Hour + time.Second), credentials.CodePolicy},
		"ninety days":                    {nil, nil, nil, lives(90 * day), ""},
		"longer than ninety days":        {nil, nil, nil, lives(90*day + time.Second), credentials.CodePolicy},
		"the entry beyond the default":   {object{"max_credential_lifetime_s": 100 * 86400}, nil, nil, lives(100 * day), ""},
		"attested as asked":              {object{"min_attestation": "tpm-listed"}, nil, nil, attested("tpm-certified"), ""},
		"attested at less":               {object{"min_attestation": "tpm-listed"}, nil, nil, attested("stated"), credentials.CodePolicy},
		"not attested":                   {object{"min_attestation": "stated"}, nil, nil, func(*issuer) {}, credentials.CodePolicy},
		"attested at nothing":            {nil, nil, nil, attested("well"), credentials.CodeClaimType},
		"without cti":                    {nil, nil, []string{"sd_cwt"}, without(7), credentials.CodeClaimMissing},
		"without cti, which need not be": {nil, object{"require_cti": false}, []string{"sd_cwt"}, without(7), ""},
		"without exp":                    {nil, nil, []string{"sd_cwt"}, without(4), credentials.CodeClaimMissing},
		"without exp too":                {nil, nil, []string{"sd_jwt"}, lives(0), credentials.CodeClaimMissing},
	} {
		kinds := c.kinds
		if kinds == nil {
			kinds = []string{"sd_jwt", "sd_cwt"}
		}
		for _, kind := range kinds {
			i := newIssuer(t, ck, iss)
			c.change(i)
			e := entry(kind, iss, object{"source": "jwks_file", "file": writeFile(t, t.TempDir(), "keys.json", jwks(t, i))})
			e["revocation"] = object{"mode": "soft"}
			for k, v := range c.entry {
				e[k] = v
			}
			cfg := config(nil, e)
			if c.defaults != nil {
				cfg["defaults"] = c.defaults
			}
			token := i.jwt
			if kind == "sd_cwt" {
				token = i.kbt
			}
			_, err := check(t, openList(t, ck, cfg), token(holder), holder)
			wantCode(t, kind+" "+name, err, c.want)
		}
	}
}

// TestExpOfListIsHard has nobody answer after the exp of a list: that staleness is
// allowed for longer changes nothing.
func TestExpOfListIsHard(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	s := newStatusSite(t, ck) // may be stale for an hour
	s.pub.Lifetime = 20 * time.Minute
	s.publish(t)
	l := openList(t, ck, config(s.fetch(), s.entry("sd_jwt", "soft")))
	s.allocate(t)
	e, err := check(t, l, s.i.jwt(holder), holder)
	must(t, err)
	wantStatus(t, "good", l, e, ck.now(), trust.Good, "")
	s.up = false
	ck.advance(15 * time.Minute)
	wantStatus(t, "after the ttl", l, e, ck.now(), trust.Stale, credentials.CodeStatusUnavailable)
	ck.advance(10 * time.Minute)
	wantStatus(t, "after exp", l, e, ck.now(), trust.Unavailable, credentials.CodeStatusUnavailable)
}

// TestPinnedRootIsItsOwn has x5c end in a certificate of a pinned key that another
// key has signed: what it says beside the key would be anybody's word.
func TestPinnedRootIsItsOwn(t *testing.T) {
	const iss = "https://idp.example"
	ck, holder, key, stranger := newClock(), newKey(t), newKey(t), newKey(t)
	template := func() *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Pinned"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte("p"),
		}
	}
	root := certify(t, ck, template(), key.Public(), nil, key)
	signer := template()
	signer.PublicKey = stranger.Public()
	forged := certify(t, ck, template(), key.Public(), signer, stranger)
	i := newIssuer(t, ck, iss)
	u, err := url.Parse(iss)
	must(t, err)
	leaf := certify(t, ck, &x509.Certificate{SerialNumber: big.NewInt(2), URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature}, i.key.Public(), root, key)
	l := openList(t, ck, config(nil, entry("sd_jwt", iss, object{"source": "anchors", "pins": []string{spki(root)}})))
	for name, c := range map[string]struct {
		last *x509.Certificate
		want credentials.Code
	}{"its own": {root, ""}, "signed by another": {forged, credentials.CodeChain}} {
		i.chain = [][]byte{leaf.Raw, c.last.Raw}
		_, err := check(t, l, i.jwt(holder), holder)
		wantCode(t, name, err, c.want)
	}
}
