package identity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
)

const (
	client = "mimi://acme.example/d/alice/phone"
	user   = "mimi://acme.example/u/alice"
	iss    = "https://issuer.acme.example"
	hub    = "mimi://hub.example"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func uri(t testing.TB, s string) mimi.URI {
	t.Helper()
	u, err := mimi.ParseURI(s)
	must(t, err)
	return u
}

func wantCode(t *testing.T, what string, err error, code credentials.Code) {
	t.Helper()
	if credentials.CodeOf(err) != code {
		t.Errorf("%s: error %v, want code %q", what, err, code)
	}
}

type cryptoSigner = crypto.Signer

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func point(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	b, err := credentials.MLSPublicKey(key.Public())
	must(t, err)
	return b
}

// acme may speak for the users and clients of acme.example.
func acme() *identity.Issuer {
	return &identity.Issuer{
		Name: "acme", UserClaim: "mimi_user",
		Allows: func(u mimi.URI) bool {
			return u.Host() == "acme.example" && !strings.Contains(u.Path(), "ceo")
		},
	}
}

// An authority is a CA of acme.example.
type authority struct {
	root, ca *x509.Certificate
	issuer   *certs.Issuer
	verifier *certs.Verifier
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	ctx := t.Context()
	store, err := certs.OpenSQLStore(ctx, filepath.Join(t.TempDir(), "certs.db"))
	must(t, err)
	t.Cleanup(func() { store.Close() })
	rootKey, caKey := newKey(t), newKey(t)
	a := new(authority)
	a.root, err = certs.CreateRoot(ctx, rootKey, store, nil, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme root"}})
	must(t, err)
	top, err := certs.NewIssuer(certs.Config{Key: rootKey, Certificate: a.root, Store: store})
	must(t, err)
	a.ca, err = top.CreateIssuingCA(ctx, caKey, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme devices"}, Hosts: []string{"acme.example"}})
	must(t, err)
	a.issuer, err = certs.NewIssuer(certs.Config{Key: caKey, Certificate: a.ca, Store: store})
	must(t, err)
	a.verifier, err = certs.NewVerifier(0, certs.Entry{Name: "acme", Anchors: []*x509.Certificate{a.root}})
	must(t, err)
	return a
}

// chain enrols a key for names.
func (a *authority) chain(t testing.TB, key crypto.Signer, names certs.Names) [][]byte {
	t.Helper()
	nonce := certs.NewNonce()
	der, err := certs.CreateRequest(rand.Reader, key, names, nonce)
	must(t, err)
	request, err := certs.ParseRequest(der)
	must(t, err)
	prepared, err := a.issuer.Prepare(t.Context(), certs.Order{Request: request, Names: names, Nonce: nonce})
	must(t, err)
	cert, err := a.issuer.Issue(t.Context(), prepared)
	must(t, err)
	return [][]byte{cert.Raw, a.ca.Raw}
}

// verify is what a peer does with the chain of a leaf.
func (a *authority) verify(ctx context.Context, chain [][]byte, role certs.Role, signatureKey []byte) (*certs.Result, error) {
	return a.verifier.Verify(ctx, certs.Check{
		Certificates: chain, Role: role, Scheme: credentials.ECDSAP256, SignatureKey: signatureKey, At: time.Now(),
	})
}

func deviceNames(t testing.TB) certs.Names {
	t.Helper()
	n, err := certs.DeviceNames(client, user)
	must(t, err)
	return n
}

// jwt issues, presents and verifies a real SD-JWT with the claims.
func jwt(t testing.TB, key crypto.Signer, claims map[string]any, redact ...sdjwt.Path) *sdjwt.Verified {
	t.Helper()
	ctx, issuerKey, now := t.Context(), newKey(t), time.Now()
	claims["vct"] = iss + "/vct/mimi-device/1"
	body, err := json.Marshal(claims)
	must(t, err)
	token, err := (&sdjwt.Issuer{Key: issuerKey, Name: iss, Kid: "1"}).Issue(ctx, sdjwt.Request{
		Claims: body, Redact: redact, Holder: key.Public(), IssuedAt: now, Expires: now.Add(24 * time.Hour),
	})
	must(t, err)
	verifier, err := sdjwt.NewVerifier(sdjwt.Policy{
		Issuers: sdjwt.IssuerTable{iss: sdjwt.StaticKeys{{Kid: "1", Public: issuerKey.Public()}}},
		VC:      true, Audiences: []string{hub}, AnyNonce: true,
	})
	must(t, err)
	credential, err := verifier.Receive(ctx, token.String(), key.Public())
	must(t, err)
	shown, err := credential.Present(ctx, sdjwt.Presentation{DiscloseAll: true, Key: key, Audience: hub, Nonce: "a nonce of enough length"})
	must(t, err)
	seen, err := verifier.Verify(ctx, shown.String(), sdjwt.Expect{HolderKey: key.Public()})
	must(t, err)
	return seen
}

// cwt issues, presents and verifies a real SD-CWT with the claims.
func cwt(t testing.TB, key crypto.Signer, claims sdcwt.Claims) *sdcwt.Verified {
	t.Helper()
	ctx, issuerKey, now := t.Context(), newKey(t), time.Now()
	cnf, err := credentials.CWTConfirmation(key.Public())
	must(t, err)
	confirmation, err := sdcwt.CBOR(cnf)
	must(t, err)
	claims[sdcwt.ClaimIssuer], claims[sdcwt.ClaimCnf] = iss, confirmation
	claims[sdcwt.ClaimIssuedAt], claims[sdcwt.ClaimExpires] = now.Unix(), now.Add(time.Hour).Unix()
	token, err := (&sdcwt.Issuer{Key: issuerKey}).Issue(ctx, claims)
	must(t, err)
	issuers := &sdcwt.StaticIssuer{Issuer: iss, Keys: []sdcwt.StaticKey{{Public: issuerKey.Public()}}}
	credential, err := (&sdcwt.Holder{Issuers: issuers, Key: key.Public()}).Accept(ctx, token)
	must(t, err)
	kbt, err := credential.Present(ctx, key, sdcwt.Presentation{
		Audience: hub, IssuedAt: now, Disclose: func(*sdcwt.Disclosure) bool { return true },
	})
	must(t, err)
	seen, err := (&sdcwt.Verifier{Issuers: issuers, Audience: []string{hub}, ConfirmationKey: key.Public()}).Verify(ctx, kbt)
	must(t, err)
	return seen
}
