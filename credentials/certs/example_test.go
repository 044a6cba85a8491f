package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// A CA is made, a device enrols over a nonce, and a peer verifies its chain.
// Every key may as well be in a token: nothing more than crypto.Signer is
// asked of it.
func Example() {
	if err := enrol(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// request for mimi://acme.example/d/alice/phone
	// verified mimi://acme.example/d/alice/phone of mimi://acme.example/u/alice by acme-devices
	// one day later: expired
}

func enrol(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "certs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := certs.OpenSQLStore(ctx, filepath.Join(dir, "certs.db"))
	if err != nil {
		return err
	}
	defer store.Close()

	// The CA: a root, and an issuing CA for one provider.
	rootKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	caKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	root, err := certs.CreateRoot(ctx, rootKey, store, nil, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme root"}})
	if err != nil {
		return err
	}
	rootIssuer, err := certs.NewIssuer(certs.Config{Key: rootKey, Certificate: root, Store: store})
	if err != nil {
		return err
	}
	ca, err := rootIssuer.CreateIssuingCA(ctx, caKey, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme devices"}, Hosts: []string{"acme.example"}})
	if err != nil {
		return err
	}
	issuer, err := certs.NewIssuer(certs.Config{Key: caKey, Certificate: ca, Store: store})
	if err != nil {
		return err
	}

	// The device: a request over the nonce that it was given.
	nonce := certs.NewNonce()
	deviceKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	names, err := certs.DeviceNames("mimi://acme.example/d/alice/phone", "mimi://acme.example/u/alice")
	if err != nil {
		return err
	}
	der, err := certs.CreateRequest(rand.Reader, deviceKey, names, nonce)
	if err != nil {
		return err
	}

	// The CA again: names are those of the account that was authenticated.
	req, err := certs.ParseRequest(der)
	if err != nil {
		return err
	}
	fmt.Println("request for", req.Names().Client)
	prepared, err := issuer.Prepare(ctx, certs.Order{Request: req, Names: names, Nonce: nonce})
	if err != nil {
		return err
	}
	cert, err := issuer.Issue(ctx, prepared)
	if err != nil {
		return err
	}

	// A peer: the chain in an MLS leaf node.
	verifier, err := certs.NewVerifier(0, certs.Entry{Name: "acme-devices", Anchors: []*x509.Certificate{root}})
	if err != nil {
		return err
	}
	signatureKey, err := credentials.MLSPublicKey(deviceKey.Public())
	if err != nil {
		return err
	}
	check := certs.Check{Certificates: [][]byte{cert.Raw, ca.Raw}, Scheme: credentials.ECDSAP256, SignatureKey: signatureKey, At: time.Now()}
	result, err := verifier.Verify(ctx, check)
	if err != nil {
		return err
	}
	fmt.Println("verified", result.Client, "of", result.User, "by", result.Entry)

	check.At = time.Now().Add(25 * time.Hour) // without CRL and OCSP it lives a day
	_, err = verifier.Verify(ctx, check)
	fmt.Println("one day later:", credentials.CodeOf(err))
	return nil
}
