package certs_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// A crlWorld is a CA with a store, a clock and three device certificates.
type crlWorld struct {
	t     *testing.T
	now   time.Time
	store *certs.SQLStore
	ca    *testCA
	leafs []*x509.Certificate
}

func newCRLWorld(t *testing.T, start time.Time) *crlWorld {
	w := &crlWorld{t: t, now: start, store: openStore(t)}
	w.ca = newTestCA(t, credentials.ECDSAP256, w.store, func() time.Time { return w.now })
	for range 3 {
		w.leafs = append(w.leafs, issue(t, w.ca.issuing, certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)}))
	}
	return w
}

func (w *crlWorld) revoke(n int, reason certs.Reason) error {
	return w.store.Revoke(w.t.Context(), w.ca.issuing.ID(), w.leafs[n].SerialNumber, certs.Revocation{At: w.now, Reason: reason})
}

func (w *crlWorld) resume(n int) error {
	return w.store.Resume(w.t.Context(), w.ca.issuing.ID(), w.leafs[n].SerialNumber)
}

func (w *crlWorld) sign(o certs.CRLOrder) *x509.RevocationList {
	w.t.Helper()
	list, err := w.ca.issuing.SignCRL(w.t.Context(), w.store, o)
	must(w.t, err)
	return list
}

func (w *crlWorld) entries(list *x509.RevocationList) string {
	names := map[string]int{}
	for n, l := range w.leafs {
		names[l.SerialNumber.String()] = n
	}
	var out []string
	for _, e := range list.RevokedCertificateEntries {
		out = append(out, fmt.Sprint(names[e.SerialNumber.String()], " ", certs.Reason(e.ReasonCode)))
	}
	return strings.Join(out, ", ")
}

func TestCRL(t *testing.T) { onBoth(t, testCRL) }

func testCRL(t *testing.T) {
	w := newCRLWorld(t, t0)
	if _, err := w.ca.issuing.SignCRL(t.Context(), w.store, certs.CRLOrder{Delta: true}); !errors.Is(err, certs.ErrNoBase) {
		t.Errorf("a delta without a base: %v", err)
	}
	first := w.sign(certs.CRLOrder{})
	if first.Number.Int64() != 1 || len(first.RevokedCertificateEntries) != 0 || !first.NextUpdate.Equal(t0.Add(24*time.Hour)) {
		t.Errorf("first CRL %+v", first)
	}
	must(t, w.revoke(0, certs.KeyCompromise))
	must(t, w.revoke(1, certs.CertificateHold))
	w.now = w.now.Add(time.Minute)
	if d := w.sign(certs.CRLOrder{Delta: true}); w.entries(d) != "0 keyCompromise, 1 certificateHold" && w.entries(d) != "1 certificateHold, 0 keyCompromise" {
		t.Errorf("delta: %s", w.entries(d))
	}
	full := w.sign(certs.CRLOrder{DistributionPoint: crlURL})
	if full.Number.Int64() != 3 || len(full.RevokedCertificateEntries) != 2 {
		t.Errorf("full CRL number %v: %s", full.Number, w.entries(full))
	}
	w.now = first.NextUpdate // now nobody uses the first any more
	if d := w.sign(certs.CRLOrder{Delta: true}); w.entries(d) != "" || d.Number.Int64() != 4 {
		t.Errorf("delta without changes, number %v: %s", d.Number, w.entries(d))
	}
	must(t, w.resume(1))
	must(t, w.revoke(2, certs.Superseded))
	d := w.sign(certs.CRLOrder{Delta: true})
	if got := w.entries(d); !strings.Contains(got, "1 removeFromCRL") || !strings.Contains(got, "2 superseded") || len(d.RevokedCertificateEntries) != 2 {
		t.Errorf("delta after resuming: %s", got)
	}
	if got := deltaBase(t, d); got != 3 {
		t.Errorf("delta builds on %d", got)
	}
	if got := w.entries(w.sign(certs.CRLOrder{})); !strings.Contains(got, "0 keyCompromise") || !strings.Contains(got, "2 superseded") || strings.Contains(got, "1 ") {
		t.Errorf("full CRL after resuming: %s", got)
	}
	stored, err := w.store.CRL(t.Context(), w.ca.issuing.ID(), true)
	must(t, err)
	if !bytes.Equal(stored, d.Raw) {
		t.Error("the stored delta is not the last one")
	}
}

func deltaBase(t *testing.T, list *x509.RevocationList) int64 {
	t.Helper()
	for _, ext := range list.Extensions {
		if ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 27}) && ext.Critical {
			n := new(big.Int)
			_, err := asn1.Unmarshal(ext.Value, &n)
			must(t, err)
			return n.Int64()
		}
	}
	t.Fatal("no critical delta indicator")
	return 0
}

func TestRevocationRules(t *testing.T) {
	w := newCRLWorld(t, t0)
	must(t, w.revoke(0, certs.KeyCompromise))
	must(t, w.revoke(0, certs.KeyCompromise))
	if err := w.revoke(0, certs.Superseded); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("another reason: %v", err)
	}
	if err := w.revoke(0, certs.CertificateHold); !errors.Is(err, certs.ErrRevoked) {
		t.Errorf("from revoked to hold: %v", err)
	}
	if err := w.resume(0); !errors.Is(err, certs.ErrNotOnHold) {
		t.Errorf("resuming a revoked certificate: %v", err)
	}
	if err := w.resume(1); !errors.Is(err, certs.ErrNotOnHold) {
		t.Errorf("resuming a good certificate: %v", err)
	}
	must(t, w.revoke(1, certs.CertificateHold))
	must(t, w.revoke(1, certs.PrivilegeWithdrawn))
	for _, reason := range []certs.Reason{certs.RemoveFromCRL, 7, 11, -1} {
		if err := w.revoke(2, reason); err == nil {
			t.Errorf("revoked for %v", reason)
		}
	}
	if err := w.store.Revoke(t.Context(), w.ca.issuing.ID(), big.NewInt(1), certs.Revocation{At: t0}); !errors.Is(err, certs.ErrNoIntent) {
		t.Errorf("revoked what was never issued: %v", err)
	}
	r, err := w.store.Record(t.Context(), w.ca.issuing.ID(), w.leafs[1].SerialNumber)
	must(t, err)
	if r.Revocation == nil || r.Revocation.Reason != certs.PrivilegeWithdrawn || !r.Revocation.At.Equal(t0) {
		t.Errorf("revocation %+v", r.Revocation)
	}
	if got, err := certs.ParseReason("keyCompromise"); err != nil || got != certs.KeyCompromise {
		t.Errorf("ParseReason = %v, %v", got, err)
	}
	if _, err := certs.ParseReason("removeFromCRL"); err == nil {
		t.Error("removeFromCRL is a reason")
	}
}

// Numbers and times never go backwards, whatever fails.
func TestCRLMonotonic(t *testing.T) { onBoth(t, testCRLMonotonic) }

func testCRLMonotonic(t *testing.T) {
	w := newCRLWorld(t, t0)
	fault := &faultyCRLs{CRLStore: w.store}
	var highest int64
	for _, tt := range []struct {
		fail  string
		after bool
	}{{"", false}, {"reserve", false}, {"reserve", true}, {"put", false}, {"put", true}, {"", false}} {
		fault.fail, fault.after = tt.fail, tt.after
		list, err := w.ca.issuing.SignCRL(t.Context(), fault, certs.CRLOrder{})
		if (err == nil) != (tt.fail == "") || err != nil && (list != nil || !errors.Is(err, errFault)) {
			t.Fatalf("fail %q: %v, %v", tt.fail, list, err)
		}
		if err == nil && list.Number.Int64() <= highest {
			t.Errorf("number %v after %d", list.Number, highest)
		}
		highest = max(highest, fault.highest)
	}
	if highest < 5 {
		t.Errorf("highest number %d", highest)
	}
	w.now = w.now.Add(-time.Minute)
	if _, err := w.ca.issuing.SignCRL(t.Context(), w.store, certs.CRLOrder{}); !errors.Is(err, certs.ErrClockBehind) {
		t.Errorf("with the clock behind: %v", err)
	}
	for _, o := range []certs.CRLOrder{{Validity: -1}, {Validity: 8 * 24 * time.Hour}, {DistributionPoint: "file:///x"}} {
		if _, err := w.ca.issuing.SignCRL(t.Context(), w.store, o); err == nil {
			t.Errorf("order %+v was signed", o)
		}
	}
}

type faultyCRLs struct {
	certs.CRLStore
	fail    string
	after   bool
	highest int64
}

func (f *faultyCRLs) ReserveCRL(ctx context.Context, issuer certs.KeyID, kinds certs.CRLKinds, this, next time.Time) ([]*certs.Reservation, error) {
	if f.fail == "reserve" && !f.after {
		return nil, errFault
	}
	r, err := f.CRLStore.ReserveCRL(ctx, issuer, kinds, this, next)
	if err == nil {
		f.highest = r[0].Number
	}
	if f.fail == "reserve" {
		return nil, errFault
	}
	return r, err
}

func (f *faultyCRLs) PutCRL(ctx context.Context, issuer certs.KeyID, r *certs.Reservation, der []byte) error {
	if f.fail == "put" && !f.after {
		return errFault
	}
	err := f.CRLStore.PutCRL(ctx, issuer, r, der)
	if f.fail == "put" {
		return errFault
	}
	return err
}

func TestCRLKeepsExpired(t *testing.T) { onBoth(t, testCRLKeepsExpired) }

func testCRLKeepsExpired(t *testing.T) {
	w := newCRLWorld(t, t0)
	must(t, w.revoke(0, certs.KeyCompromise))
	w.now = w.leafs[0].NotAfter.Add(time.Hour)
	if got := w.entries(w.sign(certs.CRLOrder{})); got != "0 keyCompromise" {
		t.Errorf("just after its end: %q", got)
	}
	w.now = w.leafs[0].NotAfter.Add(8 * 24 * time.Hour)
	if got := w.entries(w.sign(certs.CRLOrder{})); got != "" {
		t.Errorf("long after its end: %q", got)
	}
}

func TestCheckCRL(t *testing.T) {
	w := newCRLWorld(t, t0)
	must(t, w.revoke(0, certs.KeyCompromise))
	must(t, w.revoke(1, certs.CertificateHold))
	older := w.sign(certs.CRLOrder{})
	newer := w.sign(certs.CRLOrder{DistributionPoint: crlURL})
	crl, err := certs.ParseCRL(newer.Raw, w.ca.cert, nil)
	must(t, err)
	wantCode(t, crl.Check(w.leafs[0], t0, time.Minute), credentials.CodeRevoked)
	wantCode(t, crl.Check(w.leafs[1], t0, time.Minute), credentials.CodeSuspended)
	must(t, crl.Check(w.leafs[2], t0, time.Minute))
	wantCode(t, crl.Check(w.leafs[2], t0.Add(-2*time.Minute), time.Minute), credentials.CodeStatusUnavailable)
	wantCode(t, crl.Check(w.leafs[2], t0.Add(24*time.Hour), time.Minute), credentials.CodeStatusUnavailable)
	wantCode(t, crl.Check(w.ca.cert, t0, time.Minute), credentials.CodeStatusUnavailable)
	if crl.Number().Int64() != 2 {
		t.Errorf("number %v", crl.Number())
	}
	if this, next := crl.Validity(); !this.Equal(t0) || !next.Equal(t0.Add(24*time.Hour)) {
		t.Errorf("valid from %v to %v", this, next)
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: newer.Raw})
	if _, err := certs.ParseCRL(asPEM, w.ca.cert, crl); err != nil {
		t.Errorf("PEM: %v", err)
	}
	_, err = certs.ParseCRL(older.Raw, w.ca.cert, crl)
	wantCode(t, err, credentials.CodeStatusUnavailable) // a rollback

	elsewhere := w.sign(certs.CRLOrder{DistributionPoint: "http://other.example/x.crl"})
	crl, err = certs.ParseCRL(elsewhere.Raw, w.ca.cert, crl)
	must(t, err)
	wantCode(t, crl.Check(w.leafs[2], t0, time.Minute), credentials.CodeStatusUnavailable)
}

// crlOf signs any CRL with package x509.
func (w *crlWorld) crlOf(change func(*x509.RevocationList)) []byte {
	w.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(9), ThisUpdate: t0, NextUpdate: t0.Add(time.Hour)}
	change(l)
	der, err := x509.CreateRevocationList(rand.Reader, l, w.ca.cert, w.ca.key)
	must(w.t, err)
	return der
}

func ext(id asn1.ObjectIdentifier, value ...byte) pkix.Extension {
	return pkix.Extension{Id: id, Critical: true, Value: value}
}

func TestUnusableCRLs(t *testing.T) {
	w := newCRLWorld(t, t0)
	good := w.crlOf(func(*x509.RevocationList) {})
	if _, err := certs.ParseCRL(good, w.ca.cert, nil); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	idp := asn1.ObjectIdentifier{2, 5, 29, 28}
	point := []byte{0x30, 7, 0xa0, 5, 0xa0, 3, 0x86, 1, 'x'}
	for name, data := range map[string][]byte{
		"empty":          nil,
		"not DER":        []byte("no CRL"),
		"trailing octet": append(bytes.Clone(good), 0),
		"signature":      flipped,
		"too large":      make([]byte, certs.MaxCRL+1),
		"PEM of another": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good}),
		"PEM and more":   append(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}), "more"...),
		"broken PEM":     []byte("-----BEGIN X509 CRL-----\n"),
		"delta": w.crlOf(func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{ext(asn1.ObjectIdentifier{2, 5, 29, 27}, 2, 1, 1)}
		}),
		"unknown critical": w.crlOf(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{unknownCritical} }),
		"some reasons": w.crlOf(func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{ext(idp, 0x30, 4, 0x83, 2, 6, 0x40)}
		}),
		"CA certificates": w.crlOf(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{ext(idp, 0x30, 3, 0x82, 1, 0xff)} }),
		"indirect":        w.crlOf(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{ext(idp, 0x30, 3, 0x84, 1, 0xff)} }),
		"point and indirect": w.crlOf(func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{ext(idp, append([]byte{0x30, 10}, append(point[2:], 0x84, 1, 0xff)...)...)}
		}),
		"unknown critical in an entry": w.crlOf(func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: t0, ExtraExtensions: []pkix.Extension{unknownCritical}}}
		}),
		"of the root": func() []byte {
			der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: t0, NextUpdate: t0.Add(time.Hour)}, w.ca.rootCert, w.ca.rootKey)
			must(t, err)
			return der
		}(),
	} {
		c, err := certs.ParseCRL(data, w.ca.cert, nil)
		if c != nil {
			t.Errorf("%s: a CRL with %v", name, err)
		}
		if credentials.CodeOf(err) != credentials.CodeStatusUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A device cannot sign CRLs for its CA, whatever name it takes.
	f := newForge(t)
	f.leafTmpl.KeyUsage = x509.KeyUsageDigitalSignature
	noSign := *w.ca.cert
	noSign.KeyUsage = x509.KeyUsageCertSign
	_, err := certs.ParseCRL(good, &noSign, nil)
	wantCode(t, err, credentials.CodeStatusUnavailable)
}

func TestOpenSSLReadsCRL(t *testing.T) {
	w := newCRLWorld(t, time.Now())
	must(t, w.revoke(0, certs.KeyCompromise))
	dir := t.TempDir()
	rootCRL, err := w.ca.root.SignCRL(t.Context(), w.store, certs.CRLOrder{})
	must(t, err)
	writePEM(t, dir, "crls.pem", "X509 CRL", w.sign(certs.CRLOrder{DistributionPoint: crlURL}).Raw, rootCRL.Raw)
	must(t, w.revoke(1, certs.CertificateHold))
	writePEM(t, dir, "delta.pem", "X509 CRL", w.sign(certs.CRLOrder{Delta: true, DistributionPoint: crlURL}).Raw)
	writePEM(t, dir, "ca.pem", "CERTIFICATE", w.ca.cert.Raw)
	writePEM(t, dir, "root.pem", "CERTIFICATE", w.ca.rootCert.Raw)
	for n := range w.leafs {
		writePEM(t, dir, fmt.Sprintf("leaf%d.pem", n), "CERTIFICATE", w.leafs[n].Raw)
	}
	args := []string{"verify", "-crl_check_all", "-extended_crl", "-CAfile", "root.pem", "-untrusted", "ca.pem", "-CRLfile", "crls.pem"}
	if out, err := opensslTry(dir, append(args, "leaf0.pem")...); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("revoked certificate: %v\n%s", err, out)
	}
	if out := openssl(t, dir, append(args, "leaf2.pem")...); !strings.Contains(out, "OK") {
		t.Errorf("good certificate:\n%s", out)
	}
	if out := openssl(t, dir, "crl", "-in", "delta.pem", "-noout", "-text", "-CAfile", "ca.pem"); !strings.Contains(out, "verify OK") ||
		!strings.Contains(out, "Delta CRL Indicator: critical") || !strings.Contains(out, "Certificate Hold") || !strings.Contains(out, "Issuing Distribution Point: critical") {
		t.Errorf("delta CRL:\n%s", out)
	}
}

func FuzzParseCRL(f *testing.F) {
	forged := newForge(f)
	forged.rootKey = seeded(1)
	root := create(f, forged.rootTmpl, forged.rootTmpl, forged.rootKey.Public(), forged.rootKey)
	for _, exts := range [][]pkix.Extension{nil, {unknownCritical}, {ext(asn1.ObjectIdentifier{2, 5, 29, 28}, 0x30, 7, 0xa0, 5, 0xa0, 3, 0x86, 1, 'x')}} {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: t0, NextUpdate: t0.Add(time.Hour), ExtraExtensions: exts,
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: t0, ReasonCode: 1}},
		}, root, forged.rootKey)
		must(f, err)
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := certs.ParseCRL(data, root, nil)
		if err != nil && credentials.CodeOf(err) != credentials.CodeStatusUnavailable {
			t.Fatalf("error %v", err)
		}
		if err == nil {
			c.Check(root, t0, 0)
		}
	})
}
