package enrol

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/certsonly"
	"github.com/privyseal/privyseal/internal/problem"
)

// Enrollment over Secure Transport (RFC 7030, clarified by RFC 8951) is how a
// device without attestation gets its certificate in one request. Of its operations
// there are cacerts, simpleenroll and simplereenroll. A code is the password of
// HTTP Basic authentication (section 3.2.3); the user name is not looked at. It
// belongs on a listener with TLS.

// PathEST is where EST is on a host (RFC 7030 section 3.2.2).
const PathEST = "/.well-known/est"

// The operations.
const (
	estCACerts  = "/cacerts"
	estEnroll   = "/simpleenroll"
	estReenroll = "/simplereenroll"
)

const (
	typePKCS10 = "application/pkcs10"
	typePKCS7  = "application/pkcs7-mime"
	// headerCredential has the id under which a certificate is in the issuer's
	// book. EST has no place for it.
	headerCredential = "Privyseal-Credential"
)

// ESTPath returns where EST is for an issuer's URL: below PathEST, with the path of
// the URL as label if it is one segment and no operation (RFC 7030 section 3.2.2).
func ESTPath(issuer *url.URL) string {
	label := strings.Trim(issuer.Path, "/")
	switch "/" + label {
	case "/", estCACerts, estEnroll, estReenroll, "/fullcmc", "/serverkeygen", "/csrattrs":
		return PathEST
	}
	if strings.Contains(label, "/") {
		return PathEST
	}
	return PathEST + "/" + label
}

// EST serves EST below path, which ESTPath returns.
func (s *Service) EST(path string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(path+estCACerts, s.reporting(s.serveCACerts))
	mux.HandleFunc(path+estEnroll, s.reporting(s.serveSimple))
	mux.HandleFunc(path+estReenroll, s.reporting(s.serveSimple))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.New(http.StatusNotFound, "not-found", "of EST there is cacerts, simpleenroll and simplereenroll").Write(w)
	})
	return mux
}

// reporting answers with the problem that serve returns.
func (s *Service) reporting(serve func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			s.Report(err)
			problemOf(err).Write(w)
		}
	}
}

// serveCACerts is RFC 7030 section 4.1.
func (s *Service) serveCACerts(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return problem.New(http.StatusMethodNotAllowed, "method", "use GET")
	}
	if s.CACerts == nil {
		return problem.New(http.StatusNotFound, "not-found", "no CA issues certificates here")
	}
	chain, err := s.CACerts(r.Context())
	if err != nil {
		return err
	}
	var all [][]byte
	for _, c := range chain {
		all = append(all, c.Raw)
	}
	return writeCerts(w, all)
}

// serveSimple is RFC 7030 sections 4.2.1 and 4.2.2. What is enrolled again has
// been invited again, so that both operations are one.
func (s *Service) serveSimple(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return problem.New(http.StatusMethodNotAllowed, "method", "use POST")
	}
	_, code, ok := r.BasicAuth()
	if !ok || len(code) > maxText {
		w.Header().Set("WWW-Authenticate", `Basic realm="enrolment", charset="UTF-8"`)
		return problem.New(http.StatusUnauthorized, "unauthenticated", "the one-time code is the password of HTTP Basic authentication")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != typePKCS10 {
		return problem.New(http.StatusUnsupportedMediaType, "media-type", "the body is %s", typePKCS10)
	}
	body, err := readAll(w, r, 2*maxRequest)
	if err != nil {
		return err
	}
	der, err := decodeBase64(body)
	if err != nil {
		return problem.New(http.StatusBadRequest, "malformed", "the body is a PKCS#10 request, in DER and then base64: %w", err)
	}
	made, err := s.Simple(r.Context(), code, der)
	if err != nil {
		return err
	}
	w.Header().Set(headerCredential, made.ID)
	return writeCerts(w, made.Chain)
}

func writeCerts(w http.ResponseWriter, chain [][]byte) error {
	der, err := certsonly.Encode(chain)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", typePKCS7+"; smime-type=certs-only")
	h.Set("Content-Transfer-Encoding", "base64") // of RFC 7030; RFC 8951 section 3.1 passes it over
	h.Set("Cache-Control", "no-store")
	w.Write(encodeBase64(der))
	return nil
}

// CACerts fetches the certificates of the issuer's CA and of those above it. They
// are as good as the TLS connection.
func (c *Client) CACerts(ctx context.Context) ([]*x509.Certificate, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.est+estCACerts, nil)
	if err != nil {
		return nil, err
	}
	chain, _, err := c.certs(req)
	return chain, err
}

// Simple sends a PKCS#10 request in DER and gets the certificate in one round
// trip. The issuer's refusal is a *problem.Problem.
func (c *Client) Simple(ctx context.Context, code string, request []byte) (*Issued, error) {
	ours, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.est+estEnroll, bytes.NewReader(encodeBase64(request)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", typePKCS10)
	req.SetBasicAuth("", code)
	chain, header, err := c.certs(req)
	if err != nil {
		return nil, err
	}
	made := &Issued{ID: header.Get(headerCredential), Type: string(registry.X509), Attestation: credentials.AttestationNone.String(), NotAfter: chain[0].NotAfter}
	if !credentials.SamePublicKey(chain[0].PublicKey, ours.PublicKey) {
		return nil, errors.New("the issuer's answer begins with a certificate of another key")
	}
	if _, err := registry.ParseID(made.ID); err != nil {
		made.ID = ""
	}
	for _, cert := range chain {
		made.Chain = append(made.Chain, cert.Raw)
	}
	made.Credential = ChainText(made.Chain)
	return made, nil
}

// ChainText returns certificates in DER as PEM text, one after the other.
func ChainText(chain [][]byte) string {
	var text strings.Builder
	for _, c := range chain {
		pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c}) // no header in it that could be wrong
	}
	return text.String()
}

// certs sends a request and reads the certificates in the answer.
func (c *Client) certs(req *http.Request) ([]*x509.Certificate, http.Header, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, problem.Read(resp, time.Now())
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != typePKCS7 {
		return nil, nil, fmt.Errorf("the issuer's answer is no %s", typePKCS7)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, nil, err
	}
	if len(body) > maxReply {
		return nil, nil, fmt.Errorf("the issuer's answer has more than %d octets", maxReply)
	}
	chain, err := parseCerts(body)
	if err != nil {
		return nil, nil, fmt.Errorf("the issuer's answer: %w", err)
	}
	return chain, resp.Header, nil
}

func parseCerts(body []byte) (chain []*x509.Certificate, err error) {
	der, err := decodeBase64(body)
	if err != nil {
		return nil, err
	}
	all, err := certsonly.Parse(der)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		cert, err := x509.ParseCertificate(c)
		if err != nil {
			return nil, err
		}
		chain = append(chain, cert)
	}
	return chain, nil
}
