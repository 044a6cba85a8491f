package trust_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// Every source of keys verifies both kinds of token, as far as it has them.
func TestSources(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL+"/tenant/")
	s.serve("/jwks", "application/jwk-set+json", jwks(t, i))
	s.serve("/cose", "application/cose-key-set", coseKeys(t, i))
	s.serve("/.well-known/jwt-vc-issuer/tenant", "application/json", []byte(`{"issuer":"`+i.iss+`","jwks_uri":"`+s.URL+`/jwks"}`))
	jwksFile, coseFile := writeFile(t, s.dir, "k.json", jwks(t, i)), writeFile(t, s.dir, "k.cbor", coseKeys(t, i))
	ca := filepath.Join(s.dir, "ca.pem")
	for _, keys := range []object{
		{"source": "jwks_file", "file": jwksFile}, {"source": "cose_key_set_file", "file": coseFile}, {"source": "jwks_uri", "uri": s.URL + "/jwks"},
		{"source": "cose_key_set_uri", "uri": s.URL + "/cose"}, {"source": "jwt_vc_issuer"}, {"source": "jwks_uri", "uri": s.URL + "/jwks", "ca_file": ca},
	} {
		for _, kind := range []string{"sd_jwt", "sd_cwt"} {
			if kind == "sd_jwt" && strings.HasPrefix(keys["source"].(string), "cose") {
				continue
			}
			l := openList(t, ck, config(s.fetch(), entry(kind, i.iss, keys)))
			token := i.jwt(holder)
			if kind == "sd_cwt" {
				token = i.kbt(holder)
			}
			e, err := check(t, l, token, holder)
			if err != nil || e.Issuer.Name != "idp" || e.NotAfter.Sub(e.NotBefore) != i.life || (e.SDJWT != nil) == (e.SDCWT != nil) {
				t.Errorf("%s with %v: %+v, %v", kind, keys, e, err)
			}
			_, err = check(t, l, token, newKey(t))
			wantCode(t, kind+" of another holder", err, credentials.CodeCnfLeafMismatch)
		}
	}
}

// A token of somebody else causes no traffic, whatever it says.
func TestUnknownIssuersAreNotAsked(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	s.serve("/.well-known/jwt-vc-issuer", "application/json", []byte(`{}`))
	l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL+"/other", object{"source": "jwt_vc_issuer"})))
	_, err := check(t, l, i.jwt(holder), holder)
	wantCode(t, "JWT", err, credentials.CodeIssuerUnknown)
	_, err = check(t, l, i.kbt(holder), holder)
	wantCode(t, "CWT", err, credentials.CodeIssuerUnknown)
	i.iss += "/other"
	_, err = check(t, l, i.kbt(holder), holder)
	wantCode(t, "CWT of an issuer of JWTs", err, credentials.CodeIssuerUnknown)
	if n := s.count("/.well-known/jwt-vc-issuer"); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestRotation(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	old, next := newIssuer(t, ck, s.URL), newIssuer(t, ck, s.URL)
	next.kid = "k2"
	s.serve("/jwks", "application/json", jwks(t, old))
	l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})))
	for range 3 {
		_, err := check(t, l, old.jwt(holder), holder)
		must(t, err)
	}
	if s.count("/jwks") != 1 {
		t.Errorf("%d fetches of a fresh set", s.count("/jwks"))
	}
	// A new key is found by its kid, at once but not at will.
	s.serve("/jwks", "application/json", jwks(t, old, next))
	ck.advance(time.Minute)
	_, err := check(t, l, next.jwt(holder), holder)
	must(t, err)
	if l.Generation() != 2 {
		t.Errorf("generation %d after the keys changed", l.Generation())
	}
	stranger := newIssuer(t, ck, s.URL)
	stranger.kid = "k3"
	for range 5 {
		_, err := check(t, l, stranger.jwt(holder), holder)
		wantCode(t, "unknown kid", err, credentials.CodeIssuerKey)
	}
	if n := s.count("/jwks"); n != 2 {
		t.Errorf("%d fetches, an unknown kid may cause one in five minutes", n)
	}
	// A key that is taken out is not believed any more.
	s.serve("/jwks", "application/json", jwks(t, next))
	ck.advance(2 * time.Hour)
	_, err = check(t, l, old.jwt(holder), holder)
	wantCode(t, "withdrawn key", err, credentials.CodeIssuerKey)
	if l.Generation() != 3 {
		t.Errorf("generation %d", l.Generation())
	}
	// A key that is forged under a good kid fails.
	stranger.kid = "k2"
	_, err = check(t, l, stranger.jwt(holder), holder)
	wantCode(t, "forged", err, credentials.CodeIssuerSignature)
}

func TestStaleness(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	i.life = 72 * time.Hour
	up := true
	body := jwks(t, i)
	s.handle("/jwks", func(w http.ResponseWriter, r *http.Request) {
		if !up {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "public, max-age=7200")
		w.Write(body)
	})
	e := entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})
	e["revocation"] = object{"mode": "soft", "methods": []string{"status_list"}}
	l := openList(t, ck, config(s.fetch(), e))
	up = false
	token := i.jwt(holder)
	_, err := check(t, l, token, holder)
	wantCode(t, "never fetched", err, credentials.CodeIssuerKey)
	for range 5 {
		_, err = check(t, l, token, holder)
		wantCode(t, "a failure is kept", err, credentials.CodeIssuerKey)
	}
	if n := s.count("/jwks"); n != 1 {
		t.Errorf("%d fetches within half a minute of a failure", n)
	}
	up = true
	ck.advance(time.Minute)
	_, err = check(t, l, token, holder)
	must(t, err)
	up = false
	for _, after := range []time.Duration{119 * time.Minute, 22 * time.Hour} {
		ck.advance(after)
		_, err = check(t, l, token, holder)
		must(t, err)
	}
	ck.advance(3 * time.Hour)
	_, err = check(t, l, token, holder)
	wantCode(t, "older than max_stale", err, credentials.CodeIssuerKey)
	if !credentialsRetryable(err) {
		t.Errorf("%v is not retryable", err)
	}
}

func credentialsRetryable(err error) bool {
	e, ok := err.(*credentials.Error)
	return ok && e.Retryable()
}

// Many who ask at once make one fetch.
func TestSingleFlight(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	body := jwks(t, i)
	s.handle("/jwks", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond)
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	})
	l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})))
	token := i.jwt(holder)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := check(t, l, token, holder); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.count("/jwks"); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// What was fetched outlives a restart, on either engine.
func TestKeysOutliveRestart(t *testing.T) {
	for name, source := range map[string]string{"SQLite": filepath.Join(t.TempDir(), "trust.db"), "PostgreSQL": pgtest.Database(t)} {
		t.Run(name, func(t *testing.T) {
			s, ck, holder := newSite(t), newClock(), newKey(t)
			i := newIssuer(t, ck, s.URL)
			s.serve("/jwks", "application/json", jwks(t, i))
			path := write(t, t.TempDir(), config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})))
			token := i.jwt(holder)
			for restart := range 3 {
				db := openDB(t, source)
				l, err := trust.Open(path, trust.Options{Now: ck.now, DB: db})
				must(t, err)
				_, err = check(t, l, token, holder)
				must(t, err)
				l.Close()
				must(t, db.Close())
				if n := s.count("/jwks"); n != 1 {
					t.Errorf("%d fetches after restart %d", n, restart)
				}
			}
		})
	}
}

func openDB(t testing.TB, source string) *sqldb.DB {
	t.Helper()
	db, err := trust.OpenDB(t.Context(), source)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// Documents that are not what they should be.
func TestHostileKeySets(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	good := jwks(t, i)
	var key json.RawMessage
	var set struct{ Keys []json.RawMessage }
	must(t, json.Unmarshal(good, &set))
	key = set.Keys[0]
	many := `{"keys":[` + strings.Repeat(string(key)+",", 64) + string(key) + `]}`
	private := strings.Replace(string(key), `"kty"`, `"d":"AAAA","kty"`, 1)
	token := i.jwt(holder)
	noKid := newIssuer(t, ck, s.URL)
	noKid.kid, noKid.key = "", i.key
	for name, c := range map[string]struct {
		mediaType string
		body      string
		token     []byte
		want      credentials.Code
	}{
		"good":                      {"application/jwk-set+json; charset=utf-8", string(good), token, ""},
		"no kid, one key":           {"application/json", string(good), noKid.jwt(holder), ""},
		"HTML":                      {"text/html", string(good), token, credentials.CodeIssuerKey},
		"no type":                   {"", string(good), token, credentials.CodeIssuerKey},
		"nothing":                   {"application/json", "", token, credentials.CodeIssuerKey},
		"an array":                  {"application/json", "[]", token, credentials.CodeIssuerKey},
		"no keys":                   {"application/json", "{}", token, credentials.CodeIssuerKey},
		"keys an object":            {"application/json", `{"keys":{}}`, token, credentials.CodeIssuerKey},
		"a key a string":            {"application/json", `{"keys":["x"]}`, token, credentials.CodeIssuerKey},
		"empty":                     {"application/json", `{"keys":[]}`, token, credentials.CodeIssuerKey},
		"65 keys":                   {"application/json", many, token, credentials.CodeIssuerKey},
		"a private key":             {"application/json", `{"keys":[` + private + `]}`, token, credentials.CodeIssuerKey},
		"keys twice":                {"application/json", `{"keys":[],"keys":[` + string(key) + `]}`, token, credentials.CodeIssuerKey},
		"kid twice":                 {"application/json", `{"keys":[` + string(key) + `,` + string(key) + `]}`, token, credentials.CodeIssuerKey},
		"no kid, two keys":          {"application/json", `{"keys":[` + string(key) + `,` + strings.Replace(string(key), `"k1"`, `"k2"`, 1) + `]}`, noKid.jwt(holder), credentials.CodeIssuerKey},
		"for encryption":            {"application/json", strings.Replace(string(good), `"kty"`, `"use":"enc","kty"`, 1), token, credentials.CodeIssuerKey},
		"another alg":               {"application/json", strings.Replace(string(good), `"kty"`, `"alg":"ES384","kty"`, 1), token, credentials.CodeIssuerKey},
		"unknown keys beside it":    {"application/json", `{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct2"},` + string(key) + `]}`, token, ""},
		"a symmetric key beside it": {"application/json", `{"keys":[{"kty":"oct","k":"AAAA"},` + string(key) + `]}`, token, credentials.CodeIssuerKey},
		"too large":                 {"application/json", `{"x":"` + strings.Repeat("x", 256<<10) + `"}`, token, credentials.CodeIssuerKey},
		"deep":                      {"application/json", `{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, token, credentials.CodeIssuerKey},
	} {
		path := "/" + url.PathEscape(name)
		s.handle("/"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = []string{c.mediaType}
			fmt.Fprint(w, c.body)
		})
		l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + path})))
		_, err := check(t, l, c.token, holder)
		wantCode(t, name, err, c.want)
	}
}

func TestHostileCOSEKeySets(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	good := coseKeys(t, i)
	private := bytes.Clone(good)
	private[1]++ // one more member of the map
	private = append(private, 0x23, 0x41, 0x01)
	for name, c := range map[string]struct {
		body []byte
		want credentials.Code
	}{
		"good": {good, ""}, "nothing": {nil, credentials.CodeIssuerKey}, "empty": {[]byte{0x80}, credentials.CodeIssuerKey}, "a map": {[]byte{0xa0}, credentials.CodeIssuerKey},
		"a key alone": {good[1:], credentials.CodeIssuerKey}, "trailing": {append(bytes.Clone(good), 0), credentials.CodeIssuerKey}, "cut": {good[:len(good)-1], credentials.CodeIssuerKey},
		"indefinite": {append(append([]byte{0x9f}, good[1:]...), 0xff), credentials.CodeIssuerKey}, "numbers": {[]byte{0x82, 1, 2}, credentials.CodeIssuerKey}, "private": {private, credentials.CodeIssuerKey},
		"huge": {[]byte{0x9b, 0, 0, 0, 1, 0, 0, 0, 0}, credentials.CodeIssuerKey},
	} {
		s.serve("/"+name, "application/cose-key-set", c.body)
		l := openList(t, ck, config(s.fetch(), entry("sd_cwt", s.URL, object{"source": "cose_key_set_uri", "uri": s.URL + "/" + url.PathEscape(name)})))
		_, err := check(t, l, i.kbt(holder), holder)
		wantCode(t, name, err, c.want)
	}
}

func TestHostileMetadata(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	set := string(jwks(t, i))
	s.serve("/jwks", "application/json", []byte(set))
	iss := `"issuer":"` + s.URL + `"`
	for name, c := range map[string]struct {
		body string
		want credentials.Code
	}{
		"by reference":      {`{` + iss + `,"jwks_uri":"` + s.URL + `/jwks","display":[{}]}`, ""},
		"inline":            {`{` + iss + `,"jwks":` + set + `}`, ""},
		"both":              {`{` + iss + `,"jwks_uri":"` + s.URL + `/jwks","jwks":` + set + `}`, credentials.CodeIssuerKey},
		"neither":           {`{` + iss + `}`, credentials.CodeIssuerKey},
		"another issuer":    {`{"issuer":"` + s.URL + `/","jwks":` + set + `}`, credentials.CodeIssuerKey},
		"no issuer":         {`{"jwks":` + set + `}`, credentials.CodeIssuerKey},
		"issuer a number":   {`{"issuer":1,"jwks":` + set + `}`, credentials.CodeIssuerKey},
		"http":              {`{` + iss + `,"jwks_uri":"http://127.0.0.1/jwks"}`, credentials.CodeIssuerKey},
		"a file":            {`{` + iss + `,"jwks_uri":"file:///etc/passwd"}`, credentials.CodeIssuerKey},
		"a private host":    {`{` + iss + `,"jwks_uri":"https://10.0.0.1/jwks"}`, credentials.CodeIssuerKey},
		"the metadata":      {`{` + iss + `,"jwks_uri":"https://169.254.169.254/latest/meta-data"}`, credentials.CodeIssuerKey},
		"uri a number":      {`{` + iss + `,"jwks_uri":1}`, credentials.CodeIssuerKey},
		"jwks a string":     {`{` + iss + `,"jwks":"x"}`, credentials.CodeIssuerKey},
		"jwks without":      {`{` + iss + `,"jwks":{}}`, credentials.CodeIssuerKey},
		"an array":          {`[]`, credentials.CodeIssuerKey},
		"issuer twice":      {`{` + iss + `,` + iss + `,"jwks":` + set + `}`, credentials.CodeIssuerKey},
		"not JSON":          {`<html>`, credentials.CodeIssuerKey},
		"private key in it": {`{` + iss + `,"jwks":{"keys":[{"kty":"oct","k":"AA"}]}}`, credentials.CodeIssuerKey},
	} {
		s.serve("/.well-known/jwt-vc-issuer", "application/json", []byte(c.body))
		l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwt_vc_issuer"})))
		_, err := check(t, l, i.jwt(holder), holder)
		wantCode(t, name, err, c.want)
	}
}

// A redirect off the host is not followed, and neither is one on it.
func TestNoRedirects(t *testing.T) {
	s, other, ck, holder := newSite(t), newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	other.serve("/jwks", "application/json", jwks(t, i))
	s.serve("/moved", "application/json", jwks(t, i))
	for _, to := range []string{other.URL + "/jwks", "/moved"} {
		s.handle("/jwks", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
		l := openList(t, ck, config(s.fetch(), entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})))
		_, err := check(t, l, i.jwt(holder), holder)
		wantCode(t, to, err, credentials.CodeIssuerKey)
	}
	if other.count("/jwks") != 0 {
		t.Error("another host was asked")
	}
}

// Without a word of the configuration no private address is asked.
func TestPrivateAddressesAreRefused(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	s.serve("/jwks", "application/json", jwks(t, i))
	fetch := s.fetch()
	delete(fetch, "allow_private")
	l := openList(t, ck, config(fetch, entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})))
	_, err := check(t, l, i.jwt(holder), holder)
	wantCode(t, "loopback", err, credentials.CodeIssuerKey)
	if s.count("/jwks") != 0 {
		t.Error("it was asked")
	}
}

// Certificates in tokens lead to anchors of the issuer's entry and are for its
// iss.
func TestCertifiedKeys(t *testing.T) {
	ck, holder, dir := newClock(), newKey(t), t.TempDir()
	const iss = "https://idp.example"
	rootKey, subKey, strangerKey := newKey(t), newKey(t), newKey(t)
	caOf := func(name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	root := certify(t, ck, caOf("root"), rootKey.Public(), nil, rootKey)
	sub := certify(t, ck, caOf("sub"), subKey.Public(), root, rootKey)
	stranger := certify(t, ck, caOf("root"), strangerKey.Public(), nil, strangerKey)
	writeFile(t, dir, "root.pem", pemOf(root))
	writeFile(t, dir, "sub.pem", pemOf(sub))
	leafOf := func(change func(*x509.Certificate)) *x509.Certificate {
		u, err := url.Parse(iss)
		must(t, err)
		c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "idp"}, URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature}
		change(c)
		return c
	}
	same := func(*x509.Certificate) {}
	dns := func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"idp.example"} }
	other := func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"other.example"} }
	isCA := func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }
	usage := func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }
	anchors := object{"source": "anchors", "file": filepath.Join(dir, "root.pem")}
	withSub := object{"source": "anchors", "file": filepath.Join(dir, "root.pem"), "intermediates": filepath.Join(dir, "sub.pem")}
	pins := object{"source": "anchors", "pins": []string{spki(root)}}
	raw := func(cs ...*x509.Certificate) (out [][]byte) {
		for _, c := range cs {
			out = append(out, c.Raw)
		}
		return out
	}
	for _, c := range []struct {
		name  string
		keys  object
		chain func(leafKey crypto.PublicKey) [][]byte
		want  credentials.Code
	}{
		{"by the root", anchors, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(same), k, root, rootKey)) }, ""},
		{"by DNS name", anchors, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(dns), k, root, rootKey)) }, ""},
		{"by an intermediate that is sent", anchors, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(same), k, sub, subKey), sub) }, ""},
		{"by an intermediate that is configured", withSub, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(same), k, sub, subKey)) }, ""},
		{"by a pinned root that is sent", pins, func(k crypto.PublicKey) [][]byte {
			return raw(certify(t, ck, leafOf(same), k, root, rootKey), root)
		}, ""},
		{"pinned root missing", pins, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(same), k, root, rootKey)) }, credentials.CodeChain},
		{"intermediate missing", anchors, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(same), k, sub, subKey)) }, credentials.CodeChain},
		{"a stranger's root of the same name", anchors, func(k crypto.PublicKey) [][]byte {
			return raw(certify(t, ck, leafOf(same), k, stranger, strangerKey), stranger)
		}, credentials.CodeChain},
		{"no certificates", anchors, func(crypto.PublicKey) [][]byte { return nil }, credentials.CodeIssuerKey},
		{"for another iss", anchors, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(other), k, root, rootKey)) }, credentials.CodeIssuerUnknown},
		{"a CA", anchors, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(isCA), k, root, rootKey)) }, credentials.CodeKeyUsage},
		{"for key agreement", anchors, func(k crypto.PublicKey) [][]byte { return raw(certify(t, ck, leafOf(usage), k, root, rootKey)) }, credentials.CodeKeyUsage},
		{"garbage after it", anchors, func(k crypto.PublicKey) [][]byte {
			return append(raw(certify(t, ck, leafOf(same), k, root, rootKey)), []byte("x"))
		}, credentials.CodeMalformed},
		{"nine", anchors, func(k crypto.PublicKey) [][]byte {
			return append(raw(certify(t, ck, leafOf(same), k, root, rootKey)), raw(sub, sub, sub, sub, sub, sub, sub, sub)...)
		}, credentials.CodeMalformed},
		{"another key than signed", anchors, func(crypto.PublicKey) [][]byte {
			return raw(certify(t, ck, leafOf(same), newKey(t).Public(), root, rootKey))
		}, credentials.CodeIssuerSignature},
	} {
		for _, kind := range []string{"sd_jwt", "sd_cwt"} {
			i := newIssuer(t, ck, iss)
			i.chain = c.chain(i.key.Public())
			l := openList(t, ck, config(nil, entry(kind, iss, c.keys)))
			token := i.jwt
			if kind == "sd_cwt" {
				token = i.kbt
			}
			want := c.want
			if c.name == "nine" && kind == "sd_cwt" {
				want = credentials.CodeChain // refused by the shape of x5chain
			}
			e, err := check(t, l, token(holder), holder)
			wantCode(t, kind+" "+c.name, err, want)
			if err == nil && e.NotAfter.After(ck.now().Add(i.life)) {
				t.Errorf("%s: valid until %v", c.name, e.NotAfter)
			}
		}
	}
}

// Whole domains are believed where that is switched on, and nowhere else.
func TestAutoDomain(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	for _, on := range []bool{false, true} {
		c := config(nil)
		c["auto_domain"] = on
		l := openList(t, ck, c)
		// acme.example has no server, so that believing it shows as
		// issuer-key.
		want := credentials.CodeIssuerUnknown
		if on {
			want = credentials.CodeIssuerKey
		}
		_, err := check(t, l, newIssuer(t, ck, "https://acme.invalid").jwt(holder), holder)
		wantCode(t, fmt.Sprint("a domain, switched on: ", on), err, want)
		for _, iss := range []string{"https://acme.invalid/", "https://acme.invalid:443", "http://acme.invalid", "https://127.0.0.1", "https://ACME.invalid", "https://u@acme.invalid"} {
			_, err := check(t, l, newIssuer(t, ck, iss).jwt(holder), holder)
			wantCode(t, iss, err, credentials.CodeIssuerUnknown)
		}
		_, err = check(t, l, newIssuer(t, ck, "https://acme.invalid").kbt(holder), holder)
		wantCode(t, "CWT", err, credentials.CodeIssuerUnknown)
	}
}

// What has not changed is not sent again.
func TestConditionalRequests(t *testing.T) {
	s, ck, holder := newSite(t), newClock(), newKey(t)
	i := newIssuer(t, ck, s.URL)
	i.life = 72 * time.Hour
	body, sent := jwks(t, i), 0
	s.handle("/jwks", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		sent++
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	})
	e := entry("sd_jwt", s.URL, object{"source": "jwks_uri", "uri": s.URL + "/jwks"})
	e["revocation"] = object{"mode": "soft"}
	l := openList(t, ck, config(s.fetch(), e))
	token := i.jwt(holder)
	for range 4 {
		_, err := check(t, l, token, holder)
		must(t, err)
		ck.advance(2 * time.Hour)
	}
	if sent != 1 || s.count("/jwks") != 4 || l.Generation() != 1 {
		t.Errorf("sent %d times for %d requests, generation %d", sent, s.count("/jwks"), l.Generation())
	}
}
