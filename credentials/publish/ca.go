package publish

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/internal/certsonly"
	"github.com/privyseal/privyseal/internal/problem"
)

// The media types of a CA's documents.
const (
	typeCRL          = "application/pkix-crl"                          // RFC 2585
	typeCertificate  = "application/pkix-cert"                         // RFC 2585
	typePEMChain     = "application/pem-certificate-chain"             // RFC 8555 section 9.1
	typeCertsOnly    = "application/pkcs7-mime; smime-type=certs-only" // RFC 5280 section 4.2.2.1
	typeOCSPRequest  = "application/ocsp-request"                      // RFC 6960 appendix A
	typeOCSPResponse = "application/ocsp-response"
)

func (h *handler) mountCA(ca CA) error {
	if !caName.MatchString(ca.Name) || len(ca.Chain) == 0 || ca.Store == nil {
		return fmt.Errorf("publish: CA %.70q needs a name of a-z, 0-9, '-' and '.', a certificate and a store", ca.Name)
	}
	id, err := certs.KeyIDOf(ca.Chain[0].PublicKey)
	if err != nil {
		return err
	}
	var chain [][]byte
	for _, c := range ca.Chain {
		chain = append(chain, c.Raw)
	}
	p7c, err := certsonly.Encode(chain)
	if err != nil {
		return err
	}
	path := "/ca/" + ca.Name
	h.serve(path+".crl", func(ctx context.Context) (document, error) { return readCRL(ctx, ca.Store, id, false) })
	h.serve(path+"-delta.crl", func(ctx context.Context) (document, error) { return readCRL(ctx, ca.Store, id, true) })
	h.serve(path+".cer", fixed(ca.Chain[0].Raw, typeCertificate))
	h.serve(path+".pem", fixed(chainPEM(ca.Chain), typePEMChain))
	h.serve(path+".p7c", fixed(p7c, typeCertsOnly))
	if ca.Responder != nil {
		h.mountOCSP(ocspPath+ca.Name, ca.Responder)
	}
	return nil
}

func readCRL(ctx context.Context, store *certs.SQLStore, id certs.KeyID, delta bool) (document, error) {
	c, err := store.LastCRL(ctx, id, delta)
	if err != nil {
		return document{}, err
	}
	return document{c.DER, typeCRL, c.ThisUpdate, c.NextUpdate}, nil
}

func chainPEM(chain []*x509.Certificate) (text []byte) {
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// ocspPath is below which OCSP is.
const ocspPath = "/ocsp/"

// maxOCSPPath is the most characters of a request in a path: RFC 6960 has GET
// for requests of less than 255 octets.
const maxOCSPPath = 1024

func (h *handler) mountOCSP(path string, responder *certs.Responder) {
	h.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != typeOCSPRequest {
			problem.New(http.StatusUnsupportedMediaType, "media-type", "want %s", typeOCSPRequest).Write(w)
			return
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, certs.MaxOCSPRequest+1))
		if err != nil || len(body) > certs.MaxOCSPRequest {
			problem.New(http.StatusRequestEntityTooLarge, "too-large", "want a request of at most %d octets", certs.MaxOCSPRequest).Write(w)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", typeOCSPResponse)
		w.Write(h.respond(r.Context(), responder, body)) // an error is the client's, who has gone
	})
	h.mux.HandleFunc("GET "+path+"/{request...}", func(w http.ResponseWriter, r *http.Request) {
		body, ok := requestInPath(r.URL, path+"/")
		if !ok {
			problem.New(http.StatusBadRequest, "malformed", "want one OCSP request in base64, percent-encoded").Write(w)
			return
		}
		answer := h.respond(r.Context(), responder, body)
		if len(answer) < minOCSPSuccess { // an error, which nobody is to keep
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("Content-Type", typeOCSPResponse)
			w.Write(answer)
			return
		}
		// An answer that is kept is good for a fifth of its validity at least.
		h.write(w, r, document{body: answer, mediaType: typeOCSPResponse, expires: h.Now().Add(responder.Validity() / 5).Truncate(time.Second)})
	})
	h.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "POST")
		problem.New(http.StatusMethodNotAllowed, "method-not-allowed", "ask with POST, or with GET %s/ and the request in base64", path).Write(w)
	})
}

// minOCSPSuccess is more than the five octets of an answer that is an error.
const minOCSPSuccess = 16

func (h *handler) respond(ctx context.Context, responder *certs.Responder, request []byte) []byte {
	answer, err := responder.Respond(ctx, request)
	if err != nil && h.Report != nil {
		h.Report(err)
	}
	return answer
}

// requestInPath returns the request in the rest of a path.
func requestInPath(u *url.URL, prefix string) ([]byte, bool) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), prefix)
	if !ok || len(rest) > maxOCSPPath {
		return nil, false
	}
	text, err := url.PathUnescape(rest)
	if err != nil {
		return nil, false
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	return der, err == nil && len(der) > 0
}
