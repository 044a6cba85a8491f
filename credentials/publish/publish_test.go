package publish_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/publish"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/problem"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

// A world is an issuer that is served.
type world struct {
	store      *certs.SQLStore
	root, cert *x509.Certificate
	leaf       *x509.Certificate
	issuer     *certs.Issuer
	list       *statuslist.Publisher
	key        crypto.Signer
	responder  *certs.Responder
	url        string
}

const (
	listURI = "https://issuer.example/tenant/status/1"
	iss     = "https://issuer.example/tenant"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, w := t.Context(), &world{key: newKey(t)}
	var err error
	w.store, err = certs.OpenSQLStore(ctx, filepath.Join(t.TempDir(), "x.db"))
	must(t, err)
	t.Cleanup(func() { w.store.Close() })
	rootKey, caKey := newKey(t), newKey(t)
	w.root, err = certs.CreateRoot(ctx, rootKey, w.store, nil, certs.CAOrder{Subject: pkix.Name{CommonName: "Root"}})
	must(t, err)
	root, err := certs.NewIssuer(certs.Config{Key: rootKey, Certificate: w.root, Store: w.store})
	must(t, err)
	w.cert, err = root.CreateIssuingCA(ctx, caKey, certs.CAOrder{Subject: pkix.Name{CommonName: "CA"}, Hosts: []string{"acme.example"}})
	must(t, err)
	w.issuer, err = certs.NewIssuer(certs.Config{Key: caKey, Certificate: w.cert, Store: w.store})
	must(t, err)
	w.leaf = w.issue(t)
	responder, err := certs.NewResponder(certs.OCSPConfig{CA: w.cert, Key: caKey, Store: w.store})
	w.responder = responder
	must(t, err)
	lists, err := statuslist.OpenSQLStore(ctx, filepath.Join(t.TempDir(), "s.db"))
	must(t, err)
	t.Cleanup(func() { lists.Close() })
	w.list = &statuslist.Publisher{Store: lists, URI: listURI, Key: w.key, Size: 64}
	must(t, w.list.Open(ctx))
	h, err := publish.New(publish.Config{
		CAs:   []publish.CA{{Name: "devices", Chain: []*x509.Certificate{w.cert, w.root}, Store: w.store, Responder: responder}},
		Lists: []*statuslist.Publisher{w.list}, Aggregation: iss + "/status",
		Issuers: []publish.Issuer{{URL: iss, Keys: []publish.Key{{ID: "one", Public: w.key.Public()}}}},
	})
	must(t, err)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

func (w *world) issue(t *testing.T) *x509.Certificate {
	names, err := certs.DeviceNames("mimi://acme.example/d/a/1", "mimi://acme.example/u/a")
	must(t, err)
	der, err := certs.CreateRequest(rand.Reader, newKey(t), names, nil)
	must(t, err)
	request, err := certs.ParseRequest(der)
	must(t, err)
	p, err := w.issuer.Prepare(t.Context(), certs.Order{Request: request, Names: names})
	must(t, err)
	c, err := w.issuer.Issue(t.Context(), p)
	must(t, err)
	return c
}

func do(t *testing.T, method, url string, body []byte, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, b
}

func TestNothingPublishedYet(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]int{
		"/ca/devices.crl": 404, "/ca/devices-delta.crl": 404, "/tenant/status/1": 404, "/": 404, "/ca/other.crl": 404, "/ca": 404,
	} {
		resp, body := do(t, "GET", w.url+path, nil)
		if resp.StatusCode != want || resp.Header.Get("Content-Type") != problem.MediaType || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s %s", path, resp.StatusCode, resp.Header, body)
		}
	}
}

// Every document: its type, its cache, HEAD, a repeated GET, and other methods.
func TestDocuments(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		_, _, err := w.issuer.SignCRLs(t.Context(), w.store, certs.CRLOrder{Validity: time.Hour})
		must(t, err)
	}
	_, err := w.list.Publish(t.Context())
	must(t, err)
	request, err := certs.CreateOCSPRequest(w.leaf, w.cert, nil)
	must(t, err)
	for path, mediaType := range map[string]string{
		"/ca/devices.crl":                      "application/pkix-crl",
		"/ca/devices-delta.crl":                "application/pkix-crl",
		"/ca/devices.cer":                      "application/pkix-cert",
		"/ca/devices.pem":                      "application/pem-certificate-chain",
		"/ca/devices.p7c":                      "application/pkcs7-mime; smime-type=certs-only",
		"/tenant/status/1":                     "application/statuslist+jwt",
		"/tenant/jwks.json":                    "application/jwk-set+json",
		"/tenant/keys.cbor":                    "application/cose-key-set",
		"/.well-known/jwt-vc-issuer/tenant":    "application/json",
		"/ocsp/devices/" + ocspInPath(request): "application/ocsp-response",
	} {
		resp, body := do(t, "GET", w.url+path, nil)
		tag := resp.Header.Get("ETag")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != mediaType || len(body) == 0 || tag == "" ||
			!strings.HasPrefix(resp.Header.Get("Cache-Control"), "public, max-age=") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("GET %s: %d %v", path, resp.StatusCode, resp.Header)
		}
		if resp, head := do(t, "HEAD", w.url+path, nil); resp.StatusCode != 200 || len(head) > 0 || resp.ContentLength != int64(len(body)) && path != "/tenant/status/1" {
			t.Errorf("HEAD %s: %d, length %d of %d", path, resp.StatusCode, resp.ContentLength, len(body))
		}
		if resp, again := do(t, "GET", w.url+path, nil, "If-None-Match", tag, "Accept-Encoding", "identity"); resp.StatusCode != http.StatusNotModified && path != "/tenant/status/1" || resp.StatusCode == 304 && len(again) > 0 {
			t.Errorf("GET %s again: %d", path, resp.StatusCode)
		}
		if resp, _ := do(t, "DELETE", w.url+path, nil); resp.StatusCode != http.StatusMethodNotAllowed && !strings.HasPrefix(path, "/ocsp") {
			t.Errorf("DELETE %s: %d", path, resp.StatusCode)
		}
	}
}

func ocspInPath(request []byte) string {
	return url.PathEscape(base64.StdEncoding.EncodeToString(request))
}

// TestOCSPPathWithSlashes asks by GET in paths that are escaped, and as a client
// sends them that leaves slashes alone, also behind another ServeMux.
func TestOCSPPathWithSlashes(t *testing.T) {
	w := newWorld(t)
	h, err := publish.New(publish.Config{CAs: []publish.CA{{Name: "devices", Chain: []*x509.Certificate{w.cert}, Store: w.store, Responder: w.responder}}})
	must(t, err)
	var serial, double int
	for ; double < 3; serial++ {
		cert := *w.leaf
		cert.SerialNumber = new(big.Int).Lsh(big.NewInt(int64(serial)), 8) // of three octets and more
		request, err := certs.CreateOCSPRequest(&cert, w.cert, bytes.Repeat([]byte{0xff}, 12))
		must(t, err)
		text := base64.StdEncoding.EncodeToString(request)
		if !strings.Contains(text, "//") {
			continue
		}
		double++
		outer := http.NewServeMux()
		outer.Handle("/ocsp/", h)
		for name, handler := range map[string]http.Handler{
			"directly": h, "behind another": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { outer.ServeHTTP(w, publish.KeepSlashes(r)) }),
		} {
			for _, path := range []string{url.PathEscape(text), text, strings.Replace(text, "//", "/%2f", 1)} {
				rec := httptest.NewRecorder()
				handler.ServeHTTP(rec, httptest.NewRequest("GET", "/ocsp/devices/"+path, nil))
				_, err := certs.CheckOCSP(certs.OCSPCheck{Response: rec.Body.Bytes(), Certificate: &cert, Issuer: w.cert, At: time.Now()})
				if rec.Code != http.StatusOK || err == nil || !strings.Contains(err.Error(), "does not know") {
					t.Errorf("%s, %s: %d, %v", name, path, rec.Code, err)
				}
			}
		}
	}
	for _, path := range []string{"/ca//devices.crl", "/ca/../ocsp/devices//x"} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if rec.Code == http.StatusOK {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
}

func TestCRLThatEndedIsNotServed(t *testing.T) {
	w := newWorld(t)
	_, err := w.issuer.SignCRL(t.Context(), w.store, certs.CRLOrder{Validity: time.Hour})
	must(t, err)
	var reported error
	h, err := publish.New(publish.Config{
		CAs: []publish.CA{{Name: "devices", Chain: []*x509.Certificate{w.cert}, Store: w.store}},
		Now: func() time.Time { return time.Now().Add(time.Hour) }, Report: func(err error) { reported = err },
	})
	must(t, err)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/ca/devices.crl", nil))
	if rec.Code != http.StatusServiceUnavailable || reported == nil || rec.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v, reported %v", rec.Code, rec.Header(), reported)
	}
}

func TestOCSP(t *testing.T) {
	w := newWorld(t)
	nonce := bytes.Repeat([]byte{7}, 32)
	ask := func(nonce []byte) error {
		request, err := certs.CreateOCSPRequest(w.leaf, w.cert, nonce)
		must(t, err)
		resp, body := do(t, "POST", w.url+"/ocsp/devices", request, "Content-Type", "application/ocsp-request")
		if resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("POST: %d %v", resp.StatusCode, resp.Header)
		}
		_, err = certs.CheckOCSP(certs.OCSPCheck{Response: body, Certificate: w.leaf, Issuer: w.cert, Nonce: nonce, RequireNonce: nonce != nil, At: time.Now()})
		return err
	}
	if err := ask(nonce); err != nil {
		t.Error(err)
	}
	must(t, w.store.Revoke(t.Context(), w.issuer.ID(), w.leaf.SerialNumber, certs.Revocation{At: time.Now(), Reason: certs.KeyCompromise}))
	for _, n := range [][]byte{nonce, nil} {
		if err := ask(n); credentials.CodeOf(err) != credentials.CodeRevoked {
			t.Errorf("after the revocation: %v", err)
		}
	}
	for name, c := range map[string]struct {
		method, path, mediaType string
		body                    []byte
		want                    int
	}{
		"type":       {"POST", "/ocsp/devices", "text/plain", nil, http.StatusUnsupportedMediaType},
		"large":      {"POST", "/ocsp/devices", "application/ocsp-request", make([]byte, certs.MaxOCSPRequest+1), http.StatusRequestEntityTooLarge},
		"malformed":  {"POST", "/ocsp/devices", "application/ocsp-request", []byte("x"), 200},
		"not base64": {"GET", "/ocsp/devices/!!!", "", nil, http.StatusBadRequest},
		"empty":      {"GET", "/ocsp/devices/", "", nil, http.StatusBadRequest},
		"long":       {"GET", "/ocsp/devices/" + strings.Repeat("AAAA", 300), "", nil, http.StatusBadRequest},
		"bad DER":    {"GET", "/ocsp/devices/AAAA", "", nil, 200},
		"put":        {"PUT", "/ocsp/devices", "", nil, http.StatusMethodNotAllowed},
	} {
		resp, body := do(t, c.method, w.url+c.path, c.body, "Content-Type", c.mediaType)
		if resp.StatusCode != c.want || c.want == 200 && !bytes.Equal(body, []byte{0x30, 3, 0x0a, 1, 1}) || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %x %v", name, resp.StatusCode, body, resp.Header)
		}
	}
}

func TestKeysAreTheIssuers(t *testing.T) {
	w := newWorld(t)
	_, body := do(t, "GET", w.url+"/.well-known/jwt-vc-issuer/tenant", nil)
	var m struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	must(t, json.Unmarshal(body, &m))
	if m.Issuer != iss || m.JWKS != iss+"/jwks.json" {
		t.Errorf("metadata %s", body)
	}
	_, body = do(t, "GET", w.url+"/tenant/jwks.json", nil)
	var set struct{ Keys []json.RawMessage }
	must(t, json.Unmarshal(body, &set))
	if len(set.Keys) != 1 {
		t.Fatalf("JWKS %s", body)
	}
	if key, _, err := credentials.ParseJWK(set.Keys[0]); err != nil || !credentials.SamePublicKey(key, w.key.Public()) || !bytes.Contains(set.Keys[0], []byte(`"kid":"one"`)) {
		t.Errorf("JWK %s: %v", set.Keys[0], err)
	}
	_, body = do(t, "GET", w.url+"/tenant/keys.cbor", nil)
	v, err := dcbor.Decode(body)
	must(t, err)
	keys, ok := v.Elements()
	if !ok || len(keys) != 1 {
		t.Fatalf("COSE_KeySet %v", v)
	}
	k, err := credentials.COSEKeyFrom(keys[0])
	if err != nil || !credentials.SamePublicKey(k.Public, w.key.Public()) {
		t.Errorf("COSE_Key %v: %v", v, err)
	}
	_, body = do(t, "GET", w.url+"/tenant/status", nil)
	if uris, err := statuslist.ParseAggregation(body); err != nil || len(uris) != 1 || uris[0] != listURI {
		t.Errorf("aggregation %s, %v", body, err)
	}
}

// openssl reads what we serve.
func TestOpenSSLReadsIt(t *testing.T) {
	w := newWorld(t)
	must(t, w.store.Revoke(t.Context(), w.issuer.ID(), w.leaf.SerialNumber, certs.Revocation{At: time.Now(), Reason: certs.KeyCompromise}))
	_, _, err := w.issuer.SignCRLs(t.Context(), w.store, certs.CRLOrder{})
	must(t, err)
	dir := t.TempDir()
	for _, name := range []string{"devices.crl", "devices.p7c", "devices.pem"} {
		_, body := do(t, "GET", w.url+"/ca/"+name, nil)
		must(t, os.WriteFile(filepath.Join(dir, name), body, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(dir, "leaf.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.leaf.Raw}), 0o600))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pkcs7", "-inform", "DER", "-in", "devices.p7c", "-print_certs"}, "subject=CN = CA"},
		{[]string{"crl", "-inform", "DER", "-in", "devices.crl", "-noout", "-text"}, "Key Compromise"},
		{[]string{"ocsp", "-issuer", "devices.pem", "-cert", "leaf.pem", "-url", w.url + "/ocsp/devices", "-CAfile", "devices.pem"}, "leaf.pem: revoked"},
	} {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "openssl", c.args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(c.want)) {
			t.Errorf("openssl %s: %v\n%s", c.args[0], err, out)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	ca := publish.CA{Name: "devices", Chain: []*x509.Certificate{w.cert}, Store: w.store}
	for name, c := range map[string]publish.Config{
		"CA twice":    {CAs: []publish.CA{ca, ca}},
		"no name":     {CAs: []publish.CA{{Chain: ca.Chain, Store: ca.Store}}},
		"path":        {CAs: []publish.CA{{Name: "a/b", Chain: ca.Chain, Store: ca.Store}}},
		"http issuer": {Issuers: []publish.Issuer{{URL: "http://x.example"}}},
		"pattern":     {Issuers: []publish.Issuer{{URL: "https://x.example/{x}"}}},
		"query":       {Issuers: []publish.Issuer{{URL: "https://x.example/?a"}}},
		"same path":   {Lists: []*statuslist.Publisher{{URI: "https://x.example/a/jwks.json"}}, Issuers: []publish.Issuer{{URL: "https://x.example/a"}}},
	} {
		if _, err := publish.New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
