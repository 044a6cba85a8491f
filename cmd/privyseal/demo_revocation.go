package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/publish"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
)

// A demoSite is the issuer's web server, on this machine.
type demoSite struct {
	url    string
	server *http.Server
	serves atomic.Pointer[http.Handler]
	book   *registry.Store // that it serves from
	cwt    []byte          // the SD-CWT as presented
}

func newDemoSite() (*demoSite, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &demoSite{url: "http://" + l.Addr().String()}
	s.server = &http.Server{ReadHeaderTimeout: closeTime, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := s.serves.Load(); h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	})}
	go s.server.Serve(l) // ends with Close
	return s, nil
}

func (s *demoSite) Close() error {
	err := s.server.Close()
	if s.book != nil {
		err = errors.Join(err, s.book.Close())
	}
	return err
}

// get fetches a bounded answer.
func (s *demoSite) get(ctx context.Context, method, url, accept string, body []byte) ([]byte, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/ocsp-request")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := readAll(resp.Body, url, maxStatusFile)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return b, resp.Header.Get("Content-Type"), err
}

// Fetch implements statuslist.Fetcher: the issuer's name leads to this machine.
func (s *demoSite) Fetch(ctx context.Context, uri string, accept []string, limit int64) ([]byte, string, error) {
	b, mediaType, err := s.get(ctx, http.MethodGet, s.url+strings.TrimPrefix(uri, demoIssuer), strings.Join(accept, ", "), nil)
	if int64(len(b)) > limit {
		err = errors.New("too large")
	}
	return b, mediaType, err
}

func (s *demoSite) checker(keys statuslist.StaticKeys, f statuslist.Format) *statuslist.Checker {
	return &statuslist.Checker{
		Rules: statuslist.Rules{Keys: keys, Formats: []statuslist.Format{f}, Skew: credentialSkew}, Fetcher: s, Prefixes: []string{demoIssuer + "/status/"},
	}
}

func (s *demoSite) jwtStatus(keys statuslist.StaticKeys) func(context.Context, sdjwt.StatusReference) error {
	return func(ctx context.Context, claim sdjwt.StatusReference) error {
		ref, err := statuslist.ParseReferenceJSON(claim.Status)
		if err != nil {
			return err
		}
		return s.checker(keys, statuslist.JWT).Check(ctx, ref)
	}
}

func (s *demoSite) cwtStatus(keys statuslist.StaticKeys) func(context.Context, []byte) error {
	return func(ctx context.Context, claim []byte) error {
		ref, err := statuslist.ParseReferenceCBOR(claim)
		if err != nil {
			return err
		}
		return s.checker(keys, statuslist.CWT).Check(ctx, ref)
	}
}

// statusKeys are those that a verifier believes about the status list.
func (d *demo) statusKeys(ctx context.Context) statuslist.StaticKeys {
	key, err := d.deviceKey(ctx, "status", signer.PurposeStatus)
	if err != nil {
		return nil
	}
	return statuslist.StaticKeys{key.public}
}

// proveToIssuer has the TPM prove the key to the issuer, so that the
// certificate says so.
func (d *demo) proveToIssuer(ctx context.Context, p *possession) error {
	roots, err := d.tpm.RootsPEM()
	if err != nil {
		return err
	}
	issuer, err := d.tpm.Issuer()
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"tpm-roots.pem": roots, "tpm-issuer.pem": issuer} {
		if _, err := d.save(name, text); err != nil {
			return err
		}
	}
	return d.attest(ctx, &issueOptions{requestOptions: requestOptions{holder: "alice-laptop"}}, p)
}

// publish signs what verifiers fetch and serves it.
func (d *demo) publish(ctx context.Context) error {
	return d.withBook(ctx, func(b *registry.Store) error {
		i, err := d.openIssuance(ctx, b)
		if err != nil {
			return err
		}
		if err := i.publisher.Publish(ctx); err != nil {
			return err
		}
		d.did("CRL, OCSP answers and status list signed", "by the keys of issuing-ca and status in the token")
		return d.serveBook(ctx)
	})
}

// serveBook serves from a book of its own, as another process would.
func (d *demo) serveBook(ctx context.Context) error {
	b, err := registry.Open(ctx, d.config.databaseSource(issuerPart))
	if err != nil {
		return err
	}
	i, err := d.openIssuance(ctx, b)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	h, err := publish.New(i.served(nil))
	if err != nil {
		return errors.Join(err, b.Close())
	}
	d.site.book = b
	d.site.serves.Store(&h)
	d.did("served over HTTP", "%s/ca/devices.crl and others", d.site.url)
	return nil
}

// cwt issues an SD-CWT for the device, presents it with a key binding signed by
// the TPM, and has it judged.
func (d *demo) cwt(ctx context.Context) error {
	p, err := d.possession(ctx)
	if err != nil {
		return err
	}
	made, err := issueSDCWT(ctx, d.wiring, &issueOptions{
		kind: typeSDCWT, lifetime: time.Hour, claims: d.dir + "/claims.json", redact: []string{`["department"]`, `["badge"]`},
	}, p)
	if err != nil {
		return err
	}
	d.did("SD-CWT with cnf = the TPM's key", "two claims selectively disclosable")
	key, err := d.holderSigner(ctx, "alice-laptop")
	if err != nil {
		return err
	}
	shown, err := presentSDCWT(ctx, &presentOptions{audience: demoVerifier, nonce: "nonce of the hub", disclose: []string{`["badge"]`}}, []byte(made.Credential), key)
	if err != nil {
		return err
	}
	if _, err := d.save("presentation.sd-cwt", []byte(shown)); err != nil {
		return err
	}
	if d.site.cwt, err = jose.DecodeBase64(shown); err != nil {
		return err
	}
	r, err := d.judgeCWT(ctx)
	if err != nil {
		return err
	}
	badge, _ := r.Claims.Get("badge")
	d.did("our verifier", "accepted; badge %v, department shown %v", badge, r.Claims.Has("department"))
	return nil
}

func (d *demo) judgeCWT(ctx context.Context) (*sdcwt.Verified, error) {
	key, err := d.deviceKey(ctx, "issuer", signer.PurposeCredentialIssuer)
	if err != nil {
		return nil, err
	}
	v := &sdcwt.Verifier{
		Issuers:  &sdcwt.StaticIssuer{Issuer: demoIssuer, Keys: []sdcwt.StaticKey{{Public: key.public}}},
		Audience: []string{demoVerifier}, Nonce: []byte("nonce of the hub"), Profile: sdcwt.DeviceProfile(), Status: d.site.cwtStatus(d.statusKeys(ctx)),
	}
	return v.Verify(ctx, d.site.cwt)
}

// revocation revokes the device, publishes, and asks everywhere.
func (d *demo) revocation(ctx context.Context) error {
	for _, q := range d.questions() {
		if err := q.ask(ctx); err != nil {
			return fmt.Errorf("%s before the revocation: %w", q.what, err)
		}
	}
	d.did("before: certificate by CRL and OCSP, both tokens", "accepted")
	begin := time.Now()
	err := d.withBook(ctx, func(b *registry.Store) error {
		changes, err := b.Revoke(ctx, registry.Target{Client: demoClient}, certs.KeyCompromise)
		if err != nil {
			return err
		}
		d.did("the laptop is revoked, in one step", "%d credentials in three formats", len(changes))
		i, err := d.openIssuance(ctx, b)
		if err != nil {
			return err
		}
		return i.publisher.Publish(ctx)
	})
	if err != nil {
		return err
	}
	d.did("published", "after %v", time.Since(begin).Round(time.Millisecond))
	for _, q := range d.questions() {
		if err := q.ask(ctx); credentials.CodeOf(err) != credentials.CodeRevoked {
			return fmt.Errorf("%s after the revocation: %w", q.what, errAccepted(err))
		}
		d.did(q.what, "%s", credentials.CodeRevoked)
	}
	return nil
}

// A question is one way to ask whether the device is revoked, over HTTP.
type question struct {
	what string
	ask  func(context.Context) error
}

func (d *demo) questions() []question {
	return []question{
		{"certificate, by the CRL that it names", d.askCRL},
		{"certificate, by the OCSP responder that it names", d.askOCSP},
		{"SD-JWT, by the status list as a JWT", func(ctx context.Context) error {
			d.tokenNonce = new(sdjwt.MemoryNonces)
			_, err := d.judgeToken(ctx, time.Now(), nil)
			return err
		}},
		{"SD-CWT, by the status list as a CWT", func(ctx context.Context) error {
			_, err := d.judgeCWT(ctx)
			return err
		}},
	}
}

// leafAndCA returns the device's certificate and that of its CA.
func (d *demo) leafAndCA() (leaf, ca *x509.Certificate, err error) {
	if leaf, err = x509.ParseCertificate(d.leafChain[0]); err == nil {
		ca, err = x509.ParseCertificate(d.leafChain[1])
	}
	return leaf, ca, err
}

func (d *demo) askCRL(ctx context.Context) error {
	leaf, ca, err := d.leafAndCA()
	if err != nil {
		return err
	}
	der, _, err := d.site.get(ctx, http.MethodGet, leaf.CRLDistributionPoints[0], "", nil)
	if err != nil {
		return err
	}
	list, err := certs.ParseCRL(der, ca, nil)
	if err != nil {
		return err
	}
	return list.Check(leaf, time.Now(), credentialSkew)
}

func (d *demo) askOCSP(ctx context.Context) error {
	leaf, ca, err := d.leafAndCA()
	if err != nil {
		return err
	}
	nonce := certs.NewNonce()
	request, err := certs.CreateOCSPRequest(leaf, ca, nonce)
	if err != nil {
		return err
	}
	answer, _, err := d.site.get(ctx, http.MethodPost, leaf.OCSPServer[0], "", request)
	if err != nil {
		return err
	}
	_, err = certs.CheckOCSP(certs.OCSPCheck{Response: answer, Certificate: leaf, Issuer: ca, Nonce: nonce, RequireNonce: true, At: time.Now(), Skew: credentialSkew})
	return err
}
