package publish

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/privyseal/privyseal/internal/problem"
)

// FuzzOCSPPath reads requests out of paths: what is read has one spelling in
// base64, however it is escaped, and is read again.
func FuzzOCSPPath(f *testing.F) {
	for _, path := range []string{"/ocsp/a/MAA=", "/ocsp/a/MAA%3D", "/ocsp/a/MA%2F+", "/ocsp/a/", "/ocsp/b/MAA=", "/ocsp/a/MAB=", "/ocsp/a/M%0AAA=", "/ocsp/a//8=", "/ocsp/a/%zz"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		der, ok := requestInPath(u, "/ocsp/a/")
		if !ok {
			return
		}
		again := &url.URL{Path: "/ocsp/a/" + base64.StdEncoding.EncodeToString(der)}
		if got, ok := requestInPath(again, "/ocsp/a/"); len(again.EscapedPath()) <= maxOCSPPath && (!ok || string(got) != string(der)) {
			t.Fatalf("%q gave %x, and then %x, %v", path, der, got, ok)
		}
	})
}

// FuzzServe asks an issuer without anything for any path: the answer is a
// problem document or one of its own documents, never a failure of ours.
func FuzzServe(f *testing.F) {
	h, err := New(Config{Issuers: []Issuer{{URL: "https://issuer.example/tenant"}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{"/", "/tenant/jwks.json", "/.well-known/jwt-vc-issuer/tenant", "/ca/x.crl", "/../x", "//", "/%2e%2e", "/ocsp/x/MAA="} {
		f.Add("GET", path)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || path[0] != '/' {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, &http.Request{Method: method, URL: u, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "issuer.example"})
		if w.Code >= http.StatusInternalServerError {
			t.Fatalf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
		if w.Code >= http.StatusBadRequest && w.Header().Get("Content-Type") != problem.MediaType {
			t.Fatalf("%s %q: %d as %q", method, path, w.Code, w.Header().Get("Content-Type"))
		}
	})
}
