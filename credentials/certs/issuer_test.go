package certs_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

func TestIssueWithEveryScheme(t *testing.T) {
	for _, scheme := range credentials.Schemes() {
		for _, leaf := range credentials.Schemes() {
			t.Run(scheme.Name+" CA, "+leaf.Name+" device", func(t *testing.T) {
				ca := newTestCA(t, scheme, openStore(t), at(t0))
				key, nonce := mustKey(t, leaf), certs.NewNonce()
				cert := issue(t, ca.issuing, certs.Order{Request: request(t, key, deviceNames(t), nonce), Names: deviceNames(t), Nonce: nonce})
				v, err := certs.NewVerifier(0, ca.entry())
				must(t, err)
				r, err := v.Verify(t.Context(), checkOf(t, key.Public(), cert, ca.cert))
				must(t, err)
				checkResult(t, r, cert)
			})
		}
	}
}

func checkResult(t *testing.T, r *certs.Result, cert *x509.Certificate) {
	t.Helper()
	if r.Client.String() != clientURI || r.User.String() != userURI || r.Entry != "acme" || r.Serial.Cmp(cert.SerialNumber) != 0 || len(r.Chain) != 3 {
		t.Errorf("result %+v", r)
	}
	if !r.NotBefore.Equal(t0.Add(-certs.Backdate)) || !r.NotAfter.Equal(r.NotBefore.Add(certs.DefaultLifetime)) {
		t.Errorf("valid from %v to %v", r.NotBefore, r.NotAfter)
	}
	if strings.Join(r.CRL, " ") != crlURL || strings.Join(r.OCSP, " ") != ocspURL {
		t.Errorf("revocation at %q and %q", r.CRL, r.OCSP)
	}
}

// TestProfile reads a device certificate field by field.
func TestProfile(t *testing.T) {
	ca := newTestCA(t, credentials.ECDSAP256, openStore(t), at(t0))
	key := p256(t)
	c := issue(t, ca.issuing, certs.Order{Request: request(t, key, deviceNames(t), nil), Names: deviceNames(t)})
	serials := map[string]bool{}
	for range 20 {
		other := issue(t, ca.issuing, certs.Order{Request: request(t, key, deviceNames(t), nil), Names: deviceNames(t)})
		serials[other.SerialNumber.String()] = true
	}
	if len(serials) != 20 || c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() != 127 {
		t.Errorf("serial numbers %v", serials)
	}
	if c.Version != 3 || len(c.Subject.Names) != 0 || c.IsCA || !c.BasicConstraintsValid || c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.ExtKeyUsage) != 0 {
		t.Errorf("certificate %+v", c)
	}
	if len(c.UnknownExtKeyUsage) != 1 || !c.UnknownExtKeyUsage[0].Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 40}) {
		t.Errorf("extended key usage %v", c.UnknownExtKeyUsage)
	}
	if !bytes.Equal(c.AuthorityKeyId, ca.cert.SubjectKeyId) || len(c.SubjectKeyId) != 20 {
		t.Errorf("key identifiers %x %x", c.AuthorityKeyId, c.SubjectKeyId)
	}
	critical := map[string]bool{}
	for _, ext := range c.Extensions {
		critical[ext.Id.String()] = ext.Critical
	}
	for id, want := range map[string]bool{"2.5.29.17": true, "2.5.29.15": true, "2.5.29.37": false, "2.5.29.31": false, "1.3.6.1.5.5.7.1.1": false} {
		if got, present := critical[id]; !present || got != want {
			t.Errorf("extension %s present %t, critical %t, want %t", id, present, got, want)
		}
	}
	if len(c.URIs) != 2 || c.URIs[0].String() != clientURI || c.URIs[1].String() != userURI || len(c.DNSNames) != 0 {
		t.Errorf("names %v", c.URIs)
	}
}

func TestProfileOfCAs(t *testing.T) {
	ca := newTestCA(t, credentials.ECDSAP384, openStore(t), at(t0))
	if c := ca.rootCert; !c.IsCA || c.MaxPathLen != 1 || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || hasEKU(c) || c.SignatureAlgorithm != x509.ECDSAWithSHA384 {
		t.Errorf("root %+v", c)
	}
	c := ca.cert
	if !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || !hasEKU(c) ||
		strings.Join(c.PermittedURIDomains, " ") != "acme.example" || !c.PermittedDNSDomainsCritical {
		t.Errorf("issuing CA %+v", c)
	}
}

func hasEKU(c *x509.Certificate) bool {
	return len(c.UnknownExtKeyUsage) == 1 && c.UnknownExtKeyUsage[0].Equal(certs.OIDIMURI)
}

func TestHubAndSubjectAndExtension(t *testing.T) {
	ca := newTestCA(t, credentials.ECDSAP256, openStore(t), at(t0))
	key := p256(t)
	level := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}, Value: []byte{5, 0}} // the example arc of RFC 5612
	c := issue(t, ca.issuing, certs.Order{
		Request: request(t, key, hubNames(t), nil), Names: hubNames(t), Subject: pkix.Name{CommonName: "the hub"},
		Extensions: []pkix.Extension{level}, Lifetime: time.Hour,
	})
	v, err := certs.NewVerifier(0, ca.entry())
	must(t, err)
	check := checkOf(t, key.Public(), c, ca.cert)
	check.Role = certs.RoleHub
	r, err := v.Verify(t.Context(), check)
	must(t, err)
	if r.Provider.String() != "mimi://acme.example" || !r.IsHub() || r.Host() != "acme.example" || c.NotAfter.Sub(c.NotBefore) != time.Hour {
		t.Errorf("result %+v", r)
	}
	for _, ext := range c.Extensions {
		if ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) && ext.Critical {
			t.Error("the alternative name is critical beside a subject")
		}
	}
}

func TestLifetime(t *testing.T) {
	ca := newTestCA(t, credentials.ECDSAP256, openStore(t), at(t0))
	bare, err := certs.NewIssuer(certs.Config{Key: ca.key, Certificate: ca.cert, Store: openStore(t), Now: at(t0)})
	must(t, err)
	order := certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)}
	if c := issue(t, bare, order); c.NotAfter.Sub(c.NotBefore) != 24*time.Hour || len(c.CRLDistributionPoints) != 0 {
		t.Errorf("without revocation the certificate lasts %v", c.NotAfter.Sub(c.NotBefore))
	}
	order.Lifetime = 25 * time.Hour
	_, err = bare.Prepare(t.Context(), order)
	wantCode(t, err, credentials.CodePolicy)
	issue(t, ca.issuing, order)
	order.Lifetime = certs.DefaultLifetime + time.Second
	_, err = ca.issuing.Prepare(t.Context(), order)
	wantCode(t, err, credentials.CodePolicy)
	order.Lifetime = -1
	_, err = ca.issuing.Prepare(t.Context(), order)
	wantCode(t, err, credentials.CodePolicy)
}

func TestOrdersRefused(t *testing.T) {
	ca := newTestCA(t, credentials.ECDSAP256, openStore(t), at(t0))
	good, nonce := deviceNames(t), certs.NewNonce()
	key := p256(t)
	other, err := certs.DeviceNames("mimi://acme.example/d/bob/phone", "mimi://acme.example/u/bob")
	must(t, err)
	foreign, err := certs.DeviceNames("mimi://globex.example/d/bob/phone", "mimi://globex.example/u/bob")
	must(t, err)
	sub, err := certs.DeviceNames("mimi://sub.acme.example/d/bob/phone", "mimi://sub.acme.example/u/bob")
	must(t, err)
	for _, tt := range []struct {
		name  string
		order certs.Order
		code  credentials.Code
	}{
		{"other account", certs.Order{Request: request(t, key, other, nil), Names: good}, credentials.CodeIdentityUnauthorized},
		{"hub asked by a device account", certs.Order{Request: request(t, key, hubNames(t), nil), Names: good}, credentials.CodeIdentityUnauthorized},
		{"foreign host", certs.Order{Request: request(t, key, foreign, nil), Names: foreign}, credentials.CodeNameConstraint},
		{"subdomain", certs.Order{Request: request(t, key, sub, nil), Names: sub}, credentials.CodeNameConstraint},
		{"no nonce in the request", certs.Order{Request: request(t, key, good, nil), Names: good, Nonce: nonce}, credentials.CodeNonce},
		{"another nonce", certs.Order{Request: request(t, key, good, certs.NewNonce()), Names: good, Nonce: nonce}, credentials.CodeNonce},
		{"no names", certs.Order{Request: request(t, key, good, nil)}, credentials.CodeIdentityMissing},
		{"the CA's own key", certs.Order{Request: request(t, ca.key, good, nil), Names: good}, credentials.CodePolicy},
		{"critical extension", certs.Order{Request: request(t, key, good, nil), Names: good, Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true}}}, credentials.CodePolicy},
		{"extension of the profile", certs.Order{Request: request(t, key, good, nil), Names: good, Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}}, credentials.CodePolicy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ca.issuing.Prepare(t.Context(), tt.order)
			wantCode(t, err, tt.code)
		})
	}
	if _, err := ca.issuing.Prepare(t.Context(), certs.Order{Names: good}); err == nil {
		t.Error("an order without a request was prepared")
	}
}

func TestCAExpiry(t *testing.T) {
	now := t0
	ca := newTestCA(t, credentials.ECDSAP256, openStore(t), func() time.Time { return now })
	order := certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)}
	now = ca.cert.NotAfter.Add(-time.Hour)
	_, err := ca.issuing.Prepare(t.Context(), order)
	wantCode(t, err, credentials.CodePolicy)
	now = ca.cert.NotAfter.Add(time.Second)
	_, err = ca.issuing.Prepare(t.Context(), order)
	wantCode(t, err, credentials.CodeExpired)
	now = ca.cert.NotBefore.Add(-time.Second)
	_, err = ca.issuing.Prepare(t.Context(), order)
	wantCode(t, err, credentials.CodeNotYetValid)
	now = ca.cert.NotBefore.Add(time.Second)
	if c := issue(t, ca.issuing, order); c.NotBefore.Before(ca.cert.NotBefore) {
		t.Errorf("a device certificate begins %v, its CA %v", c.NotBefore, ca.cert.NotBefore)
	}
}

func TestRedeemOnce(t *testing.T) {
	ca := newTestCA(t, credentials.ECDSAP256, openStore(t), at(t0))
	same, err := certs.NewIssuer(certs.Config{Key: ca.key, Certificate: ca.cert, Store: openStore(t), Now: at(t0)})
	must(t, err)
	p, err := ca.issuing.Prepare(t.Context(), certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)})
	must(t, err)
	if _, err := same.Issue(t.Context(), p); !errors.Is(err, certs.ErrRedeemed) {
		t.Errorf("another issuer with the same key redeemed it: %v", err)
	}
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for range 8 {
		wg.Go(func() {
			_, err := ca.issuing.Issue(t.Context(), p)
			results <- err
		})
	}
	wg.Wait()
	close(results)
	issued := 0
	for err := range results {
		if err == nil {
			issued++
		} else if !errors.Is(err, certs.ErrRedeemed) {
			t.Error(err)
		}
	}
	if issued != 1 {
		t.Errorf("redeemed %d times", issued)
	}
	if _, err := ca.issuing.Issue(t.Context(), nil); !errors.Is(err, certs.ErrRedeemed) {
		t.Errorf("nothing was redeemed: %v", err)
	}
}

func TestNewIssuerRefuses(t *testing.T) {
	store := openStore(t)
	ca := newTestCA(t, credentials.ECDSAP256, store, at(t0))
	leafKey := p256(t)
	leaf := issue(t, ca.issuing, certs.Order{Request: request(t, leafKey, deviceNames(t), nil), Names: deviceNames(t)})
	for name, c := range map[string]certs.Config{
		"nothing":       {},
		"no store":      {Key: ca.key, Certificate: ca.cert},
		"another key":   {Key: p256(t), Certificate: ca.cert, Store: store},
		"a device":      {Key: leafKey, Certificate: leaf, Store: store},
		"a file URL":    {Key: ca.key, Certificate: ca.cert, Store: store, Profile: certs.Profile{CRL: []string{"file:///etc/passwd"}}},
		"relative URL":  {Key: ca.key, Certificate: ca.cert, Store: store, Profile: certs.Profile{OCSP: []string{"/ocsp"}}},
		"URL with user": {Key: ca.key, Certificate: ca.cert, Store: store, Profile: certs.Profile{CAIssuers: []string{"http://a:b@c.example/"}}},
	} {
		if _, err := certs.NewIssuer(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCAOrdersRefused(t *testing.T) {
	store := openStore(t)
	ca := newTestCA(t, credentials.ECDSAP256, store, at(t0))
	name := pkix.Name{CommonName: "x"}
	if _, err := certs.CreateRoot(t.Context(), p256(t), store, at(t0), certs.CAOrder{}); err == nil {
		t.Error("a root without a name was made")
	}
	_, err := ca.root.CreateIssuingCA(t.Context(), p256(t), certs.CAOrder{Subject: name})
	wantCode(t, err, credentials.CodeNameConstraint)
	_, err = ca.root.CreateIssuingCA(t.Context(), p256(t), certs.CAOrder{Subject: name, Hosts: []string{"Acme.example"}})
	wantCode(t, err, credentials.CodeIdentityMalformed)
	_, err = ca.root.CreateIssuingCA(t.Context(), p256(t), certs.CAOrder{Subject: name, Hosts: []string{"acme.example"}, Lifetime: 20 * 365 * 24 * time.Hour})
	wantCode(t, err, credentials.CodePolicy)

	narrow, err := certs.CreateRoot(t.Context(), ca.rootKey, store, at(t0), certs.CAOrder{Subject: name, Hosts: []string{"acme.example"}})
	must(t, err)
	i, err := certs.NewIssuer(certs.Config{Key: ca.rootKey, Certificate: narrow, Store: store, Now: at(t0)})
	must(t, err)
	_, err = i.CreateIssuingCA(t.Context(), p256(t), certs.CAOrder{Subject: name, Hosts: []string{"acme.example", "sub.acme.example"}})
	wantCode(t, err, credentials.CodeNameConstraint)
}

// A badSigner is a device that fails in one way.
type badSigner struct {
	crypto.Signer
	sign func(sig []byte, err error) ([]byte, error)
}

func (b badSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return b.sign(b.Signer.Sign(random, digest, opts))
}

func TestBadSignatureIsNotReleased(t *testing.T) {
	broken := errors.New("device removed")
	for name, tt := range map[string]struct {
		sign func([]byte, error) ([]byte, error)
		want error
	}{
		"bit flip":   {func(sig []byte, err error) ([]byte, error) { sig[len(sig)-1] ^= 1; return sig, err }, certs.ErrBadSignature},
		"empty":      {func([]byte, error) ([]byte, error) { return nil, nil }, certs.ErrBadSignature},
		"garbage":    {func([]byte, error) ([]byte, error) { return bytes.Repeat([]byte{0x30}, 70), nil }, certs.ErrBadSignature},
		"after sign": {func([]byte, error) ([]byte, error) { return nil, broken }, broken},
	} {
		t.Run(name, func(t *testing.T) {
			store := openStore(t)
			ca := newTestCA(t, credentials.ECDSAP256, store, at(t0))
			i, err := certs.NewIssuer(certs.Config{Key: badSigner{ca.key, tt.sign}, Certificate: ca.cert, Store: store, Now: at(t0)})
			must(t, err)
			p, err := i.Prepare(t.Context(), certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)})
			must(t, err)
			if cert, err := i.Issue(t.Context(), p); !errors.Is(err, tt.want) || cert != nil {
				t.Fatalf("Issue = %v, %v", cert, err)
			}
			if got := unfinished(t, store); len(got) != 1 || got[0].Cmp(p.Intent().Serial) != 0 {
				t.Errorf("unfinished: %v, want serial %v", got, p.Intent().Serial)
			}
		})
	}
}

func unfinished(t testing.TB, store *certs.SQLStore) (serials []*big.Int) {
	t.Helper()
	must(t, store.Unfinished(t.Context(), func(r *certs.Record) error {
		if !r.Unfinished() {
			t.Errorf("finished record %v among the unfinished", r.Serial)
		}
		serials = append(serials, r.Serial)
		return nil
	}))
	return serials
}

// The draft that is linted is what is signed: the throwaway key's certificate
// and the real one have the same TBSCertificate.
func TestSignsWhatWasChecked(t *testing.T) {
	ca := newTestCA(t, credentials.Ed25519, openStore(t), at(t0))
	var signed []byte
	spy := spySigner{ca.key, func(m []byte) { signed = bytes.Clone(m) }}
	i, err := certs.NewIssuer(certs.Config{Key: spy, Certificate: ca.cert, Store: openStore(t), Now: at(t0)})
	must(t, err)
	p, err := i.Prepare(t.Context(), certs.Order{Request: request(t, mustKey(t, credentials.Ed25519), deviceNames(t), nil), Names: deviceNames(t)})
	must(t, err)
	if signed != nil {
		t.Fatal("the CA key was used by Prepare")
	}
	cert, err := i.Issue(t.Context(), p)
	must(t, err)
	if !bytes.Equal(signed, p.TBS()) || !bytes.Equal(cert.RawTBSCertificate, p.TBS()) {
		t.Error("what was signed is not what was prepared")
	}
}

type spySigner struct {
	crypto.Signer
	seen func([]byte)
}

func (s spySigner) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.seen(message)
	return s.Signer.Sign(rand.Reader, message, opts)
}

// A caller who goes away while the device signs leaves nothing unfinished; one
// who has gone before has nothing signed.
func TestCallerGoesAway(t *testing.T) {
	store := openStore(t)
	ca := newTestCA(t, credentials.ECDSAP256, store, at(t0))
	ctx, cancel := context.WithCancel(t.Context())
	signed := 0
	i, err := certs.NewIssuer(certs.Config{Key: spySigner{ca.key, func([]byte) { signed++; cancel() }}, Certificate: ca.cert, Store: store, Now: at(t0)})
	must(t, err)
	order := certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)}
	p, err := i.Prepare(ctx, order)
	must(t, err)
	q, err := i.Prepare(ctx, order)
	must(t, err)
	cert, err := i.Issue(ctx, p)
	must(t, err)
	if r, err := store.Record(t.Context(), i.ID(), cert.SerialNumber); err != nil || r.Unfinished() {
		t.Errorf("record %+v, %v", r, err)
	}
	if _, err := i.Issue(ctx, q); !errors.Is(err, context.Canceled) || signed != 1 {
		t.Errorf("after the caller was gone: %v, signed %d times", err, signed)
	}
	if _, err := i.Issue(t.Context(), q); err != nil {
		t.Errorf("a prepared certificate that was not used: %v", err)
	}

	// In one step.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	signed = 0
	if cert, err = i.Certify(ctx, order); err != nil {
		t.Fatal(err)
	}
	if r, err := store.Record(t.Context(), i.ID(), cert.SerialNumber); err != nil || !bytes.Equal(r.Certificate, cert.Raw) {
		t.Errorf("record %+v, %v", r, err)
	}
	if _, err := i.Certify(ctx, order); !errors.Is(err, context.Canceled) || signed != 1 {
		t.Errorf("after the caller was gone: %v, signed %d times", err, signed)
	}
}
