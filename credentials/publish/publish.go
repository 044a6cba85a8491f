// Package publish serves over HTTP what verifiers fetch from an issuer: CRLs
// full and delta, OCSP answers, status list tokens, the keys of its tokens as
// JWKS and COSE Key Set with the metadata of SD-JWT VC, and the certificates of
// its CAs.
//
// Everything is public, small and signed or self-evident, so that it may be
// served without TLS where a URL in a certificate has to be plain http, and
// cached by anyone: each answer has an entity tag and says for how long it may
// be kept. Failures are problem documents.
//
//	/ca/NAME.crl, /ca/NAME-delta.crl   application/pkix-crl
//	/ca/NAME.cer                       the CA's certificate, DER
//	/ca/NAME.pem, /ca/NAME.p7c         with those above it
//	/ocsp/NAME                         POST; and GET /ocsp/NAME/BASE64
//	the path of each status list's URI, and of the aggregation
//	/.well-known/jwt-vc-issuer[/PATH]  of each token issuer
//	PATH/jwks.json, PATH/keys.cbor     below the issuer's own URL
package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/problem"
)

// DefaultMaxAge is how long a cache may keep what can change: with the bound of
// publishing it is the longest that a revocation stays unknown to who fetches
// anew.
const DefaultMaxAge = 5 * time.Minute

// A CA is what is served for one CA key.
type CA struct {
	Name      string              // in the paths: 1 to 64 of a-z, 0-9, '-' and '.'
	Chain     []*x509.Certificate // its own certificate first, the root last
	Store     *certs.SQLStore
	Responder *certs.Responder // nil serves no OCSP
}

// A Config says what to serve.
type Config struct {
	CAs         []CA
	Lists       []*statuslist.Publisher
	Aggregation string // URI of the list of the Lists; "" for none
	Issuers     []Issuer
	MaxAge      time.Duration    // 0 means DefaultMaxAge
	Now         func() time.Time // nil means time.Now
	Report      func(error)      // is told what fails on our side; nil tells nobody
}

type handler struct {
	Config
	mux *http.ServeMux
}

var caName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)

// New returns a handler. Two things for one path are an error.
func New(c Config) (_ http.Handler, err error) {
	if c.MaxAge <= 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	h := &handler{c, http.NewServeMux()}
	defer func() { // ServeMux says that two patterns conflict by a panic
		if r := recover(); r != nil {
			err = fmt.Errorf("publish: two things have one path: %v", r)
		}
	}()
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem.New(http.StatusNotFound, "not-found", "nothing is published here").Write(w)
	})
	for _, ca := range c.CAs {
		if err := h.mountCA(ca); err != nil {
			return nil, err
		}
	}
	if err := h.mountLists(); err != nil {
		return nil, err
	}
	for _, i := range c.Issuers {
		if err := h.mountIssuer(i); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.mux.ServeHTTP(w, KeepSlashes(r))
}

// KeepSlashes returns a request for an OCSP answer whose path a ServeMux leaves as it
// is. The base64 of a request may have two slashes one after the other, which some
// clients do not escape and a ServeMux would make one. Whoever has a ServeMux in
// front of the handler calls it there.
func KeepSlashes(r *http.Request) *http.Request {
	path := r.URL.EscapedPath()
	if !strings.HasPrefix(path, ocspPath) || !strings.Contains(path, "//") {
		return r
	}
	again := *r
	u := *r.URL
	u.RawPath = strings.ReplaceAll(path, "//", "/%2F")
	if u.RawPath = strings.ReplaceAll(u.RawPath, "//", "/%2F"); u.EscapedPath() != u.RawPath {
		return r // not the same path
	}
	again.URL = &u
	return &again
}

func (h *handler) mountLists() error {
	for _, l := range h.Lists {
		path, err := pathOf(l.URI)
		if err != nil {
			return err
		}
		h.mux.Handle(path, l)
	}
	if h.Aggregation == "" || len(h.Lists) == 0 {
		return nil
	}
	path, err := pathOf(h.Aggregation)
	if err == nil {
		h.mux.Handle(path, &statuslist.Aggregation{Store: h.Lists[0].Store, MaxAge: h.MaxAge})
	}
	return err
}

// pathOf returns the path under which a URI of ours is mounted, as a pattern.
func pathOf(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ContainsAny(u.Path, "{}") {
		return "", fmt.Errorf("publish: %.100q is no URL of a thing to serve", uri)
	}
	if u.Path == "" || strings.HasSuffix(u.Path, "/") {
		return u.Path + "/{$}", nil
	}
	return u.Path, nil
}

// PathOf returns the path of an issuer's URL, below which its keys are served:
// "" for a URL without one.
func PathOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Path, "/")
}

// A document is one thing that is served as it is.
type document struct {
	body      []byte
	mediaType string
	modified  time.Time // zero where it has no time of its own
	expires   time.Time // zero where it does not end
}

// serve mounts a document that is read anew for each request. HEAD, entity
// tags, times and ranges are net/http's.
func (h *handler) serve(path string, read func(context.Context) (document, error)) {
	h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			problem.New(http.StatusMethodNotAllowed, "method-not-allowed", "read it with GET or HEAD").Write(w)
			return
		}
		d, err := read(r.Context())
		if err != nil {
			h.fail(w, err)
			return
		}
		h.write(w, r, d)
	})
}

func (h *handler) write(w http.ResponseWriter, r *http.Request, d document) {
	maxAge := h.MaxAge
	if !d.expires.IsZero() {
		left := d.expires.Sub(h.Now())
		if left <= 0 {
			h.fail(w, fmt.Errorf("%w: it ended %s", errStale, d.expires.Format(time.RFC3339)))
			return
		}
		maxAge = min(maxAge, left)
	}
	head := w.Header()
	sum := sha256.Sum256(d.body)
	head.Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	head.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(maxAge/time.Second)))
	head.Set("Content-Type", d.mediaType)
	http.ServeContent(w, r, "", d.modified, bytes.NewReader(d.body))
}

// errStale is the failure of a publisher that has not signed in time. What has
// ended is not served: a verifier could not use it.
var errStale = errors.New("what was published last has ended")

func (h *handler) fail(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, certs.ErrNoIntent):
		problem.New(http.StatusNotFound, "not-published", "nothing has been published yet").Write(w)
		return
	case h.Report != nil:
		h.Report(err)
	}
	problem.New(http.StatusServiceUnavailable, "unavailable", "there is nothing at hand that is still valid; try again later").After(30 * time.Second).Write(w)
}

// fixed is a document that does not change.
func fixed(body []byte, mediaType string) func(context.Context) (document, error) {
	return func(context.Context) (document, error) { return document{body: body, mediaType: mediaType}, nil }
}
