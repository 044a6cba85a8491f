package registry_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/pgtest"
)

const (
	alice    = "mimi://acme.example/u/alice"
	laptop   = "mimi://acme.example/d/alice/laptop"
	phone    = "mimi://acme.example/d/alice/phone"
	issURL   = "https://issuer.acme.example"
	listURL  = issURL + "/status/1"
	crlURL   = "http://issuer.acme.example/ca/devices.crl"
	deltaURL = "http://issuer.acme.example/ca/devices-delta.crl"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onBoth runs a test on both engines; source knows by the test's name.
func onBoth(t *testing.T, test func(t *testing.T)) {
	t.Run("SQLite", test)
	t.Run("PostgreSQL", test)
}

func source(t testing.TB) string {
	if strings.Contains(t.Name(), "/PostgreSQL") {
		return pgtest.Database(t)
	}
	return filepath.Join(t.TempDir(), "issuer.db")
}

// keys are those of an issuer.
type keys struct{ root, ca, tokens, status *ecdsa.PrivateKey }

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func newKeys(t testing.TB) keys { return keys{newKey(t), newKey(t), newKey(t), newKey(t)} }

// A book is an issuer with everything in one Store.
type book struct {
	*registry.Store
	keys
	rootCert, caCert *x509.Certificate
	issuer           *certs.Issuer
	responder        *certs.Responder
	list             *statuslist.Publisher
	publisher        *registry.Publisher
	away             atomic.Bool // the key with which the responder answers
}

// An awaySigner is a key in a device that can be unplugged.
type awaySigner struct {
	crypto.Signer
	away *atomic.Bool
}

func (s awaySigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.away.Load() {
		return nil, errors.New("the device is away")
	}
	return s.Signer.Sign(random, digest, opts)
}

// openBook opens a store; ca is the certificate of the CA if it has one.
func openBook(ctx context.Context, source string, k keys, root, ca *x509.Certificate) (b *book, err error) {
	b = &book{keys: k, rootCert: root, caCert: ca}
	if b.Store, err = registry.Open(ctx, source); err != nil {
		return nil, err
	}
	if ca == nil {
		if err := b.makeCA(ctx); err != nil {
			return nil, err
		}
	}
	b.issuer, err = certs.NewIssuer(certs.Config{Key: k.ca, Certificate: b.caCert, Store: b.Store, Profile: certs.Profile{CRL: []string{crlURL}}})
	if err != nil {
		return nil, err
	}
	if b.responder, err = certs.NewResponder(certs.OCSPConfig{CA: b.caCert, Key: awaySigner{k.ca, &b.away}, Store: b.Certificates(), Answers: b.Certificates()}); err != nil {
		return nil, err
	}
	b.list = &statuslist.Publisher{Store: b.StatusLists(), URI: listURL, Issuer: issURL, Key: k.status, Size: 1024}
	if err := b.list.Open(ctx); err != nil {
		return nil, err
	}
	b.publisher = &registry.Publisher{
		Store: b.Store, Lists: []*statuslist.Publisher{b.list},
		CAs: []*registry.CA{{Issuer: b.issuer, Order: certs.CRLOrder{DistributionPoint: crlURL, Freshest: deltaURL}, Responder: b.responder, Presign: 100}},
	}
	return b, nil
}

func (b *book) makeCA(ctx context.Context) (err error) {
	if b.rootCert, err = certs.CreateRoot(ctx, b.root, b.Store, nil, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme root"}}); err != nil {
		return err
	}
	root, err := certs.NewIssuer(certs.Config{Key: b.root, Certificate: b.rootCert, Store: b.Store})
	if err != nil {
		return err
	}
	b.caCert, err = root.CreateIssuingCA(ctx, b.ca, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme devices"}, Hosts: []string{"acme.example"}})
	return err
}

func newBook(t testing.TB) *book {
	t.Helper()
	b, err := openBook(t.Context(), source(t), newKeys(t), nil, nil)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func names(t testing.TB, client string) certs.Names {
	n, err := certs.DeviceNames(client, alice)
	must(t, err)
	return n
}

// certificate issues one, and returns its record.
func (b *book) certificate(t testing.TB, client string, key crypto.Signer) (*registry.Record, *x509.Certificate) {
	t.Helper()
	der, err := certs.CreateRequest(rand.Reader, key, names(t, client), nil)
	must(t, err)
	request, err := certs.ParseRequest(der)
	must(t, err)
	id := registry.NewID()
	p, err := b.issuer.Prepare(t.Context(), certs.Order{Request: request, Names: names(t, client), Lifetime: 24 * time.Hour, Attachment: registry.Attachment{ID: id, Attestation: 2, Evidence: []byte("evidence")}})
	must(t, err)
	cert, err := b.issuer.Issue(t.Context(), p)
	must(t, err)
	r, err := b.Get(t.Context(), id)
	must(t, err)
	return r, cert
}

// token writes one down as issued.
func (b *book) token(t testing.TB, typ registry.Type, client string, key crypto.Signer) *registry.Record {
	t.Helper()
	r, err := b.Begin(t.Context(), registry.Draft{
		Type: typ, Issuer: issURL, IssuerKey: b.tokens.Public(), Names: names(t, client), Holder: key.Public(),
		NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour), List: listURL,
	})
	must(t, err)
	must(t, b.Finish(t.Context(), r.ID, []byte("a token")))
	r, err = b.Get(t.Context(), r.ID)
	must(t, err)
	return r
}

func serialOf(t testing.TB, r *registry.Record) *big.Int {
	n, ok := new(big.Int).SetString(r.Serial, 16)
	if !ok {
		t.Fatalf("serial %q", r.Serial)
	}
	return n
}
