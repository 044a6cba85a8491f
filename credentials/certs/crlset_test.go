package certs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// The whole path is asked about: a revoked issuing CA takes its devices along.
func TestVerifyWithCRLs(t *testing.T) {
	w := newCRLWorld(t, t0)
	must(t, w.revoke(0, certs.KeyCompromise))
	v, err := certs.NewVerifier(0, w.ca.entry())
	must(t, err)
	verify := func(n int, lists ...*certs.CRL) error {
		check := checkOf(t, w.leafs[n].PublicKey, w.leafs[n], w.ca.cert)
		check.Revocation = certs.CRLs{Lists: lists, At: t0, Skew: time.Minute}.Revocation
		_, err := v.Verify(t.Context(), check)
		return err
	}
	rootList, err := w.ca.root.SignCRL(t.Context(), w.store, certs.CRLOrder{})
	must(t, err)
	ofRoot, err := certs.ParseCRL(rootList.Raw, w.ca.rootCert, nil)
	must(t, err)
	ofCA, err := certs.ParseCRL(w.sign(certs.CRLOrder{}).Raw, w.ca.cert, nil)
	must(t, err)
	elsewhere, err := certs.ParseCRL(w.sign(certs.CRLOrder{DistributionPoint: "http://other.example/x.crl"}).Raw, w.ca.cert, nil)
	must(t, err)

	wantCode(t, verify(2), credentials.CodeStatusUnavailable)
	wantCode(t, verify(2, ofCA), credentials.CodeStatusUnavailable) // nothing is known about the CA
	wantCode(t, verify(2, ofRoot), credentials.CodeStatusUnavailable)
	wantCode(t, verify(2, ofRoot, elsewhere), credentials.CodeStatusUnavailable)
	must(t, verify(2, ofRoot, elsewhere, ofCA))
	must(t, verify(2, ofCA, elsewhere, ofRoot))
	wantCode(t, verify(0, ofRoot, elsewhere, ofCA), credentials.CodeRevoked)

	must(t, w.store.Revoke(t.Context(), w.ca.root.ID(), w.ca.cert.SerialNumber, certs.Revocation{At: t0, Reason: certs.CACompromise}))
	rootList, err = w.ca.root.SignCRL(t.Context(), w.store, certs.CRLOrder{})
	must(t, err)
	ofRoot, err = certs.ParseCRL(rootList.Raw, w.ca.rootCert, ofRoot)
	must(t, err)
	wantCode(t, verify(2, ofRoot, ofCA), credentials.CodeRevoked)
}

func TestShortLivedNeedsNoCRL(t *testing.T) {
	w := newCRLWorld(t, t0)
	bare, err := certs.NewIssuer(certs.Config{Key: w.ca.key, Certificate: w.ca.cert, Store: w.store, Now: at(t0)})
	must(t, err)
	cert := issue(t, bare, certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)})
	lists := certs.CRLs{At: t0}
	must(t, lists.Revocation(t.Context(), nil, cert, w.ca.cert))
	wantCode(t, lists.Revocation(t.Context(), nil, w.leafs[0], w.ca.cert), credentials.CodeStatusUnavailable)
	wantCode(t, lists.Revocation(t.Context(), nil, w.ca.cert, w.ca.rootCert), credentials.CodeStatusUnavailable)
}

const opensslCA = `
[ca]
default_ca = here
[here]
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 7
crl_extensions = crl
[crl]
authorityKeyIdentifier = keyid
`

func TestOursReadsOpenSSLCRL(t *testing.T) {
	dir := opensslChain(t, []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"})
	ca, leaf := mustParse(t, readPEM(t, dir, "ca.pem")), mustParse(t, readPEM(t, dir, "leaf.pem"))
	for reason, want := range map[string]credentials.Code{"": "", "keyCompromise": credentials.CodeRevoked, "certificateHold": credentials.CodeSuspended} {
		line := "V\t351231235959Z\t\t"
		if reason != "" {
			line = "R\t351231235959Z\t261101000000Z," + reason + "\t"
		}
		serial := strings.ToUpper(leaf.SerialNumber.Text(16))
		serial = strings.Repeat("0", len(serial)%2) + serial
		for name, text := range map[string]string{"ca.cnf": opensslCA, "crlnumber": "07\n", "index.txt": line + serial + "\tunknown\t/CN=device\n"} {
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		openssl(t, dir, "ca", "-config", "ca.cnf", "-gencrl", "-keyfile", "ca.key", "-cert", "ca.pem", "-out", "crl.pem")
		text, err := os.ReadFile(filepath.Join(dir, "crl.pem"))
		must(t, err)
		crl, err := certs.ParseCRL(text, ca, nil)
		must(t, err)
		if crl.Number().Int64() != 7 {
			t.Errorf("number %v", crl.Number())
		}
		wantCode(t, crl.Check(leaf, time.Now(), time.Minute), want)
	}
}
