package certs_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// responder returns a responder of the world's issuing CA, delegated or not.
func (w *crlWorld) responder(delegated bool) *certs.Responder {
	w.t.Helper()
	c := certs.OCSPConfig{CA: w.ca.cert, Key: w.ca.key, Store: w.store, Now: func() time.Time { return w.now }}
	if delegated {
		key := mustKey(w.t, credentials.ECDSAP384)
		cert, err := w.ca.issuing.CreateOCSPResponder(w.t.Context(), key, certs.CAOrder{Subject: pkix.Name{CommonName: "OCSP"}})
		must(w.t, err)
		c.Key, c.Certificate = key, cert
	}
	r, err := certs.NewResponder(c)
	must(w.t, err)
	return r
}

func (w *crlWorld) ask(r *certs.Responder, n int, nonce []byte) []byte {
	w.t.Helper()
	req, err := certs.CreateOCSPRequest(w.leafs[n], w.ca.cert, nonce)
	must(w.t, err)
	resp, err := r.Respond(w.t.Context(), req)
	must(w.t, err)
	return resp
}

func (w *crlWorld) check(resp []byte, n int, nonce []byte) error {
	_, err := certs.CheckOCSP(certs.OCSPCheck{Response: resp, Certificate: w.leafs[n], Issuer: w.ca.cert, Nonce: nonce, At: w.now, Skew: time.Minute})
	return err
}

func TestOCSP(t *testing.T) {
	for _, delegated := range []bool{false, true} {
		w := newCRLWorld(t, t0)
		r := w.responder(delegated)
		must(t, w.revoke(0, certs.KeyCompromise))
		must(t, w.revoke(1, certs.CertificateHold))
		for _, nonce := range [][]byte{nil, certs.NewNonce()} {
			wantCode(t, w.check(w.ask(r, 0, nonce), 0, nonce), credentials.CodeRevoked)
			wantCode(t, w.check(w.ask(r, 1, nonce), 1, nonce), credentials.CodeSuspended)
			must(t, w.check(w.ask(r, 2, nonce), 2, nonce))
			peerReads(t, w, w.ask(r, 0, nonce), 0, ocsp.Revoked)
			peerReads(t, w, w.ask(r, 2, nonce), 2, ocsp.Good)
		}
	}
}

// TestOCSPOfAnotherIssuer has the CA sign an answer about a certificate of the same
// serial number that is another CA's.
func TestOCSPOfAnotherIssuer(t *testing.T) {
	w := newCRLWorld(t, t0)
	for name, c := range map[string]struct {
		issuer *x509.Certificate
		want   credentials.Code
	}{"its own": {w.ca.cert, ""}, "another's": {w.leafs[0], credentials.CodeStatusUnavailable}} {
		der, err := ocsp.CreateResponse(c.issuer, w.ca.cert, ocsp.Response{Status: ocsp.Good, SerialNumber: w.leafs[2].SerialNumber, ThisUpdate: t0, NextUpdate: t0.Add(time.Hour)}, w.ca.key)
		must(t, err)
		err = w.check(der, 2, nil)
		if credentials.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestOCSPWithoutNextUpdate holds for a day after it was produced.
func TestOCSPWithoutNextUpdate(t *testing.T) {
	w := newCRLWorld(t, t0)
	now := time.Now() // package ocsp produces it now
	der, err := ocsp.CreateResponse(w.ca.cert, w.ca.cert, ocsp.Response{Status: ocsp.Good, SerialNumber: w.leafs[2].SerialNumber, ThisUpdate: now}, w.ca.key)
	must(t, err)
	for after, want := range map[time.Duration]credentials.Code{23 * time.Hour: "", 25 * time.Hour: credentials.CodeStatusUnavailable} {
		w.now = now.Add(after)
		err := w.check(der, 2, nil)
		if credentials.CodeOf(err) != want || (err == nil) != (want == "") {
			t.Errorf("after %v: %v, want %q", after, err, want)
		}
	}
}

// TestOCSPAfterClockWasAhead has answers kept by a clock that was ahead: nobody
// believes them, and they are signed anew once it is right.
func TestOCSPAfterClockWasAhead(t *testing.T) {
	w := newCRLWorld(t, t0)
	r := w.responder(false)
	w.now = t0.Add(24 * time.Hour)
	must(t, w.check(w.ask(r, 2, nil), 2, nil))
	w.now = t0
	must(t, w.check(w.ask(r, 2, nil), 2, nil))
}

// peerReads has package ocsp of x/crypto read an answer.
func peerReads(t *testing.T, w *crlWorld, resp []byte, n, status int) {
	t.Helper()
	got, err := ocsp.ParseResponseForCert(resp, w.leafs[n], w.ca.cert)
	must(t, err)
	if got.Status != status || !got.ThisUpdate.Equal(w.now) || !got.NextUpdate.Equal(w.now.Add(time.Hour)) || status == ocsp.Revoked && got.RevocationReason != ocsp.KeyCompromise {
		t.Errorf("x/crypto reads %+v", got)
	}
}

// An answer without a nonce is signed once, until the status changes or it is
// old.
func TestOCSPPresigned(t *testing.T) {
	w := newCRLWorld(t, t0)
	r := w.responder(true)
	first := w.ask(r, 0, nil)
	w.now = w.now.Add(30 * time.Minute)
	if !bytes.Equal(w.ask(r, 0, nil), first) {
		t.Error("signed again while fresh")
	}
	if nonce := certs.NewNonce(); bytes.Equal(w.ask(r, 0, nonce), first) {
		t.Error("an answer for a nonce was kept")
	}
	w.now = w.now.Add(20 * time.Minute)
	second := w.ask(r, 0, nil)
	if bytes.Equal(second, first) {
		t.Error("not signed again at four fifths of its validity")
	}
	must(t, w.revoke(0, certs.Superseded))
	wantCode(t, w.check(w.ask(r, 0, nil), 0, nil), credentials.CodeRevoked)

	w.now = w.now.Add(31 * 24 * time.Hour) // the delegate has ended
	req, err := certs.CreateOCSPRequest(w.leafs[0], w.ca.cert, nil)
	must(t, err)
	if resp, err := r.Respond(t.Context(), req); err == nil || status(t, resp) != ocsp.InternalError {
		t.Errorf("answered with a certificate that ended: %v", err)
	}
}

func TestOCSPNonce(t *testing.T) {
	w := newCRLWorld(t, t0)
	r := w.responder(false)
	nonce := certs.NewNonce()
	wantCode(t, w.check(w.ask(r, 2, certs.NewNonce()), 2, nonce), credentials.CodeNonce)
	must(t, w.check(w.ask(r, 2, nil), 2, nonce)) // a pre-signed answer: fresh by its time
	_, err := certs.CheckOCSP(certs.OCSPCheck{Response: w.ask(r, 2, nil), Certificate: w.leafs[2], Issuer: w.ca.cert, Nonce: nonce, RequireNonce: true, At: w.now})
	wantCode(t, err, credentials.CodeNonce)
	res, err := certs.CheckOCSP(certs.OCSPCheck{Response: w.ask(r, 2, nonce), Certificate: w.leafs[2], Issuer: w.ca.cert, Nonce: nonce, RequireNonce: true, At: w.now})
	must(t, err)
	if !res.HasNonce || !res.NextUpdate.Equal(t0.Add(time.Hour)) {
		t.Errorf("result %+v", res)
	}
	long := make([]byte, 128)
	must(t, w.check(w.ask(r, 2, long), 2, long))
	_, err = certs.CreateOCSPRequest(w.leafs[0], w.ca.cert, make([]byte, 129))
	wantCode(t, err, credentials.CodeNonce)
}

// status is the OCSPResponseStatus of an answer that is a failure.
func status(t *testing.T, resp []byte) ocsp.ResponseStatus {
	t.Helper()
	_, err := ocsp.ParseResponse(resp, nil)
	var e ocsp.ResponseError
	if !errors.As(err, &e) {
		t.Fatalf("not a failure: %v", err)
	}
	return e.Status
}

func TestOCSPRequestsRefused(t *testing.T) {
	w := newCRLWorld(t, t0)
	r := w.responder(false)
	good, err := certs.CreateOCSPRequest(w.leafs[0], w.ca.cert, certs.NewNonce())
	must(t, err)
	for name, req := range map[string][]byte{
		"empty": nil, "trailing octet": append(bytes.Clone(good), 0), "too large": make([]byte, certs.MaxOCSPRequest+1),
		"nonce of 129 octets": withNonce(t, w, 129), "empty nonce": withNonce(t, w, 0),
	} {
		resp, err := r.Respond(t.Context(), req)
		must(t, err)
		if got := status(t, resp); got != ocsp.Malformed {
			t.Errorf("%s: %v", name, got)
		}
		wantCode(t, w.check(resp, 0, nil), credentials.CodeStatusUnavailable)
	}
	for i := range good {
		if _, err := r.Respond(t.Context(), good[:i]); err != nil {
			t.Errorf("prefix %d: %v", i, err)
		}
	}
	foreign, err := ocsp.CreateRequest(w.ca.cert, w.ca.rootCert, nil)
	must(t, err)
	resp, err := r.Respond(t.Context(), foreign)
	must(t, err)
	if got := status(t, resp); got != ocsp.Unauthorized {
		t.Errorf("about another CA's certificate: %v", got)
	}
	sha256, err := ocsp.CreateRequest(w.leafs[0], w.ca.cert, &ocsp.RequestOptions{Hash: crypto.SHA256})
	must(t, err)
	resp, err = r.Respond(t.Context(), sha256)
	must(t, err)
	must(t, w.check(resp, 0, nil))
}

// withNonce is a request whose nonce has any length.
func withNonce(t *testing.T, w *crlWorld, n int) []byte {
	t.Helper()
	plain, err := certs.CreateOCSPRequest(w.leafs[0], w.ca.cert, nil)
	must(t, err)
	var outer struct{ TBS struct{ List asn1.RawValue } }
	_, err = asn1.Unmarshal(plain, &outer)
	must(t, err)
	inner, err := asn1.Marshal(make([]byte, n))
	must(t, err)
	exts, err := asn1.Marshal([]pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, Value: inner}})
	must(t, err)
	der, err := asn1.Marshal(struct {
		TBS struct{ List, Exts asn1.RawValue }
	}{struct{ List, Exts asn1.RawValue }{outer.TBS.List, asn1.RawValue{Class: 2, Tag: 2, IsCompound: true, Bytes: exts}}})
	must(t, err)
	return der
}

func TestOCSPUnknownAndBroken(t *testing.T) {
	w := newCRLWorld(t, t0)
	r := w.responder(false)
	never := *w.leafs[0]
	never.SerialNumber = big.NewInt(12345)
	req, err := certs.CreateOCSPRequest(&never, w.ca.cert, nil)
	must(t, err)
	resp, err := r.Respond(t.Context(), req)
	must(t, err)
	_, err = certs.CheckOCSP(certs.OCSPCheck{Response: resp, Certificate: &never, Issuer: w.ca.cert, At: t0})
	wantCode(t, err, credentials.CodeStatusUnavailable)
	// Prepared and not issued: unknown too.
	p, err := w.ca.issuing.Prepare(t.Context(), certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)})
	must(t, err)
	never.SerialNumber = p.Intent().Serial
	req, err = certs.CreateOCSPRequest(&never, w.ca.cert, nil)
	must(t, err)
	resp, err = r.Respond(t.Context(), req)
	must(t, err)
	if got, err := ocsp.ParseResponse(resp, w.ca.cert); err != nil || got.Status != ocsp.Unknown {
		t.Errorf("unfinished intent: %+v, %v", got, err)
	}
	must(t, w.store.Close())
	req, err = certs.CreateOCSPRequest(w.leafs[0], w.ca.cert, nil)
	must(t, err)
	resp, err = r.Respond(context.Background(), req)
	if err == nil || status(t, resp) != ocsp.InternalError {
		t.Errorf("with the store closed: %v", err)
	}
}

// answerBy has package ocsp sign an answer "good" for leaf 0.
func answerBy(t *testing.T, w *crlWorld, cert *x509.Certificate, key crypto.Signer, change func(*ocsp.Response)) []byte {
	t.Helper()
	resp := ocsp.Response{Status: ocsp.Good, SerialNumber: w.leafs[0].SerialNumber, ThisUpdate: t0, NextUpdate: t0.Add(time.Hour), Certificate: cert, IssuerHash: crypto.SHA1}
	if change != nil {
		change(&resp)
	}
	signer := w.ca.cert
	if cert != nil {
		signer = cert
	}
	der, err := ocsp.CreateResponse(w.ca.cert, signer, resp, key)
	must(t, err)
	return der
}

func TestUnusableOCSP(t *testing.T) {
	w := newCRLWorld(t, t0)
	must(t, w.check(answerBy(t, w, nil, w.ca.key, nil), 0, nil))
	deviceKey := p256(t)
	device := issue(t, w.ca.issuing, certs.Order{Request: request(t, deviceKey, deviceNames(t), nil), Names: deviceNames(t)})
	delegate := func(change func(*x509.Certificate)) (*x509.Certificate, crypto.Signer) {
		key := p256(t)
		tmpl := &x509.Certificate{
			SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "delegate"}, NotBefore: t0.Add(-time.Hour), NotAfter: t0.Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}},
		}
		change(tmpl)
		return create(t, tmpl, w.ca.cert, key.Public(), w.ca.key), key
	}
	by := func(change func(*x509.Certificate)) []byte {
		cert, key := delegate(change)
		return answerBy(t, w, cert, key, nil)
	}
	must(t, w.check(by(func(*x509.Certificate) {}), 0, nil))
	good := answerBy(t, w, nil, w.ca.key, nil)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	rootKey := p256(t)
	for name, resp := range map[string][]byte{
		"empty": nil, "not DER": []byte("good"), "trailing octet": append(bytes.Clone(good), 0), "too large": make([]byte, certs.MaxOCSPResponse+1),
		"signature": flipped, "another key": answerBy(t, w, nil, rootKey, nil),
		"any device":                         answerBy(t, w, device, deviceKey, nil),
		"delegate without usage":             by(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"delegate without nocheck":           by(func(c *x509.Certificate) { c.ExtraExtensions = nil }),
		"delegate expired":                   by(func(c *x509.Certificate) { c.NotAfter = t0.Add(-2 * time.Minute) }),
		"delegate of tomorrow":               by(func(c *x509.Certificate) { c.NotBefore = t0.Add(2 * time.Minute) }),
		"delegate for agreement":             by(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }),
		"delegate with a critical extension": by(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, unknownCritical) }),
		"another certificate":                answerBy(t, w, nil, w.ca.key, func(r *ocsp.Response) { r.SerialNumber = big.NewInt(3) }),
		"old":                                answerBy(t, w, nil, w.ca.key, func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = t0.Add(-2*time.Hour), t0 }),
		"of tomorrow":                        answerBy(t, w, nil, w.ca.key, func(r *ocsp.Response) { r.ThisUpdate = t0.Add(2 * time.Minute) }),
		"unknown":                            answerBy(t, w, nil, w.ca.key, func(r *ocsp.Response) { r.Status = ocsp.Unknown }),
		"critical extension":                 answerBy(t, w, nil, w.ca.key, func(r *ocsp.Response) { r.ExtraExtensions = []pkix.Extension{unknownCritical} }),
		"try later":                          ocsp.TryLaterErrorResponse,
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, w.check(resp, 0, nil), credentials.CodeStatusUnavailable) })
	}
	// An answer of the root, or by a delegate of the root.
	f := newForge(t)
	other := create(t, f.rootTmpl, f.rootTmpl, rootKey.Public(), rootKey)
	wantCode(t, w.check(answerBy(t, w, other, rootKey, nil), 0, nil), credentials.CodeStatusUnavailable)
	for i := range good {
		wantCode(t, w.check(good[:i], 0, nil), credentials.CodeStatusUnavailable)
	}
}

func TestNewResponderRefuses(t *testing.T) {
	w := newCRLWorld(t, t0)
	for name, c := range map[string]certs.OCSPConfig{
		"nothing":              {},
		"another key":          {CA: w.ca.cert, Key: p256(t), Store: w.store},
		"a device as delegate": {CA: w.ca.cert, Key: p256(t), Store: w.store, Certificate: w.leafs[0]},
	} {
		if _, err := certs.NewResponder(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := w.ca.issuing.CreateOCSPResponder(t.Context(), p256(t), certs.CAOrder{}); err == nil {
		t.Error("a responder without a name was made")
	}
	_, err := w.ca.issuing.CreateOCSPResponder(t.Context(), p256(t), certs.CAOrder{Subject: pkix.Name{CommonName: "x"}, Lifetime: 31 * 24 * time.Hour})
	wantCode(t, err, credentials.CodePolicy)
}

func TestOpenSSLOCSP(t *testing.T) {
	w := newCRLWorld(t, time.Now().Truncate(time.Second))
	must(t, w.revoke(0, certs.KeyCompromise))
	dir := t.TempDir()
	writePEM(t, dir, "ca.pem", "CERTIFICATE", w.ca.cert.Raw)
	writePEM(t, dir, "root.pem", "CERTIFICATE", w.ca.rootCert.Raw)
	for _, delegated := range []bool{false, true} {
		r := w.responder(delegated)
		for n, want := range map[int]string{0: "revoked", 2: "good"} {
			writePEM(t, dir, "leaf.pem", "CERTIFICATE", w.leafs[n].Raw)
			openssl(t, dir, "ocsp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-reqout", "req.der")
			req, err := os.ReadFile(filepath.Join(dir, "req.der"))
			must(t, err)
			resp, err := r.Respond(t.Context(), req)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "resp.der"), resp, 0o600))
			// -reqin brings its nonce along, which openssl compares; it would add another without -no_nonce.
			out := openssl(t, dir, "ocsp", "-no_nonce", "-reqin", "req.der", "-respin", "resp.der", "-issuer", "ca.pem", "-cert", "leaf.pem", "-CAfile", "root.pem", "-verify_other", "ca.pem")
			if !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "leaf.pem: "+want) || strings.Contains(out, "WARNING") {
				t.Errorf("delegated %t, leaf %d:\n%s", delegated, n, out)
			}
		}
	}
}

// openssl answers, we judge.
func TestOursReadsOpenSSLOCSP(t *testing.T) {
	dir := opensslChain(t, []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"})
	ca, leaf := mustParse(t, readPEM(t, dir, "ca.pem")), mustParse(t, readPEM(t, dir, "leaf.pem"))
	serial := strings.ToUpper(leaf.SerialNumber.Text(16))
	if len(serial)%2 == 1 {
		serial = "0" + serial
	}
	for status, want := range map[string]credentials.Code{
		"V\t351231235959Z\t\t": "", "R\t351231235959Z\t261101000000Z,keyCompromise\t": credentials.CodeRevoked,
		"R\t351231235959Z\t261101000000Z,certificateHold\t": credentials.CodeSuspended,
	} {
		must(t, os.WriteFile(filepath.Join(dir, "index.txt"), []byte(status+serial+"\tunknown\t/CN=device\n"), 0o600))
		nonce := certs.NewNonce()
		req, err := certs.CreateOCSPRequest(leaf, ca, nonce)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "req.der"), req, 0o600))
		openssl(t, dir, "ocsp", "-index", "index.txt", "-rsigner", "ca.pem", "-rkey", "ca.key", "-CA", "ca.pem", "-reqin", "req.der", "-respout", "resp.der", "-nmin", "5")
		resp, err := os.ReadFile(filepath.Join(dir, "resp.der"))
		must(t, err)
		_, err = certs.CheckOCSP(certs.OCSPCheck{Response: resp, Certificate: leaf, Issuer: ca, Nonce: nonce, RequireNonce: true, At: time.Now(), Skew: time.Minute})
		wantCode(t, err, want)
	}
}

func FuzzOCSP(f *testing.F) {
	forged := newForge(f)
	key := seeded(1)
	ca := create(f, forged.rootTmpl, forged.rootTmpl, key.Public(), key)
	leaf := create(f, forged.leafTmpl, ca, seeded(2).Public(), key)
	ctx := context.Background()
	store, err := certs.OpenSQLStore(ctx, filepath.Join(f.TempDir(), "ocsp.db"))
	must(f, err)
	f.Cleanup(func() { store.Close() })
	in := testIntent(3)
	in.Issuer, err = certs.KeyIDOf(key.Public())
	must(f, err)
	must(f, store.PutIntent(ctx, in))
	must(f, store.PutCertificate(ctx, in.Issuer, in.Serial, leaf.Raw, t0))
	must(f, store.Revoke(ctx, in.Issuer, in.Serial, certs.Revocation{At: t0, Reason: certs.KeyCompromise}))
	r, err := certs.NewResponder(certs.OCSPConfig{CA: ca, Key: key, Store: store, Now: at(t0)})
	must(f, err)
	for _, nonce := range [][]byte{nil, make([]byte, 32)} {
		req, err := certs.CreateOCSPRequest(leaf, ca, nonce)
		must(f, err)
		f.Add(req)
		resp, err := r.Respond(ctx, req)
		must(f, err)
		f.Add(resp)
	}
	f.Add(ocsp.TryLaterErrorResponse)
	f.Add(derSeq(derSeq(derCtx(0, derInt(0)))))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := certs.CheckOCSP(certs.OCSPCheck{Response: data, Certificate: leaf, Issuer: ca, At: t0})
		if code := credentials.CodeOf(err); err != nil && code != credentials.CodeStatusUnavailable && code != credentials.CodeRevoked && code != credentials.CodeSuspended {
			t.Fatalf("response: %v", err)
		}
		answer, err := r.Respond(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ocsp.ParseResponse(answer, nil); err != nil {
			var e ocsp.ResponseError
			if !errors.As(err, &e) {
				t.Fatalf("an answer that cannot be read: %v", err)
			}
		}
	})
}
