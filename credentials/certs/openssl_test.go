package certs_test

import (
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// openssl runs the openssl command in dir and returns what it prints.
func openssl(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := opensslTry(dir, args...)
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func opensslTry(dir string, args ...string) (string, error) {
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		err = fmt.Errorf("%w (is openssl there? run: make deps)", err)
	}
	return string(out), err
}

func TestOpenSSLVerifiesOurs(t *testing.T) {
	for _, scheme := range []*credentials.Scheme{credentials.ECDSAP256, credentials.ECDSAP384, credentials.Ed25519} {
		t.Run(scheme.Name, func(t *testing.T) {
			dir, ca := t.TempDir(), newTestCA(t, scheme, openStore(t), time.Now)
			key := mustKey(t, scheme)
			der, err := certs.CreateRequest(nil, key, deviceNames(t), certs.NewNonce())
			must(t, err)
			writePEM(t, dir, "req.pem", "CERTIFICATE REQUEST", der)
			if out := openssl(t, dir, "req", "-in", "req.pem", "-noout", "-verify", "-text"); !strings.Contains(out, "verify OK") || !strings.Contains(out, "URI:"+clientURI) || !strings.Contains(out, "challengePassword") {
				t.Errorf("openssl req:\n%s", out)
			}
			cert := issue(t, ca.issuing, certs.Order{Request: request(t, key, deviceNames(t), nil), Names: deviceNames(t)})
			writePEM(t, dir, "root.pem", "CERTIFICATE", ca.rootCert.Raw)
			writePEM(t, dir, "ca.pem", "CERTIFICATE", ca.cert.Raw)
			writePEM(t, dir, "leaf.pem", "CERTIFICATE", cert.Raw)
			if out := openssl(t, dir, "verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "ca.pem", "leaf.pem"); !strings.Contains(out, "leaf.pem: OK") {
				t.Errorf("openssl verify:\n%s", out)
			}
			opensslText(t, dir)
		})
	}
}

// opensslText compares openssl's view of a device certificate with the profile.
func opensslText(t *testing.T, dir string) {
	t.Helper()
	leaf := strings.Join(strings.Fields(openssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-text")), " ")
	for _, want := range []string{
		"Version: 3 (0x2)", "X509v3 Subject Alternative Name: critical URI:" + clientURI + ", URI:" + userURI,
		"X509v3 Key Usage: critical Digital Signature X509v3", "X509v3 Basic Constraints: critical CA:FALSE", "X509v3 Extended Key Usage: 1.3.6.1.5.5.7.3.40 X509v3",
		"URI:" + crlURL, "OCSP - URI:" + ocspURL, "X509v3 Authority Key Identifier", "X509v3 Subject Key Identifier",
	} {
		if !strings.Contains(leaf, want) {
			t.Errorf("openssl does not show %q in\n%s", want, leaf)
		}
	}
	ca := strings.Join(strings.Fields(openssl(t, dir, "x509", "-in", "ca.pem", "-noout", "-text")), " ")
	for _, want := range []string{
		"X509v3 Name Constraints: critical Permitted: URI:acme.example", "CA:TRUE, pathlen:0", "Key Usage: critical Certificate Sign, CRL Sign",
	} {
		if !strings.Contains(ca, want) {
			t.Errorf("openssl does not show %q in\n%s", want, ca)
		}
	}
}

const opensslExtensions = `
[req]
distinguished_name = dn
prompt = no
attributes = attributes
[dn]
CN = device
[attributes]
challengePassword = %s
[root]
basicConstraints = critical,CA:TRUE,pathlen:1
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[ca]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
nameConstraints = critical,permitted;URI:acme.example
extendedKeyUsage = 1.3.6.1.5.5.7.3.40
[leaf]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
extendedKeyUsage = 1.3.6.1.5.5.7.3.40
subjectAltName = critical,URI:` + clientURI + `,URI:` + userURI + `
[wish]
subjectAltName = URI:` + clientURI + `,URI:` + userURI + `
`

func TestOursVerifiesOpenSSL(t *testing.T) {
	for name, genpkey := range map[string][]string{
		"P-256":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"P-384":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
		"Ed25519":  {"-algorithm", "ED25519"},
		"RSA-2048": {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := opensslChain(t, genpkey)
			root, ca, leaf := readPEM(t, dir, "root.pem"), readPEM(t, dir, "ca.pem"), readPEM(t, dir, "leaf.pem")
			v, err := certs.NewVerifier(0, certs.Entry{Name: "openssl", Anchors: []*x509.Certificate{mustParse(t, root)}})
			must(t, err)
			check := checkOf(t, mustParse(t, leaf).PublicKey, mustParse(t, leaf), mustParse(t, ca))
			check.At = time.Now()
			r, err := v.Verify(t.Context(), check)
			must(t, err)
			if r.Client.String() != clientURI || r.User.String() != userURI {
				t.Errorf("names %v", r.Names)
			}
			check.At = time.Now().Add(48 * time.Hour)
			_, err = v.Verify(t.Context(), check)
			wantCode(t, err, credentials.CodeExpired)
		})
	}
}

// opensslChain has openssl make a root, an issuing CA and a device.
func opensslChain(t *testing.T, genpkey []string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "x.cnf"), fmt.Appendf(nil, opensslExtensions, strings.Repeat("ab", 32)), 0o600))
	for _, who := range []string{"root", "ca"} {
		openssl(t, dir, append([]string{"genpkey", "-out", who + ".key"}, genpkey...)...)
	}
	openssl(t, dir, "genpkey", "-out", "leaf.key", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
	openssl(t, dir, "req", "-new", "-x509", "-key", "root.key", "-subj", "/CN=root", "-days", "30", "-out", "root.pem", "-config", "x.cnf", "-extensions", "root")
	openssl(t, dir, "req", "-new", "-key", "ca.key", "-subj", "/CN=ca", "-out", "ca.csr", "-config", "x.cnf")
	openssl(t, dir, "x509", "-req", "-in", "ca.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "20", "-out", "ca.pem", "-extfile", "x.cnf", "-extensions", "ca", "-CAcreateserial")
	openssl(t, dir, "req", "-new", "-key", "leaf.key", "-out", "leaf.csr", "-config", "x.cnf", "-reqexts", "wish")
	openssl(t, dir, "x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "1", "-out", "leaf.pem", "-extfile", "x.cnf", "-extensions", "leaf", "-CAcreateserial")
	return dir
}

func readPEM(t testing.TB, dir, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is not PEM", name)
	}
	return block.Bytes
}

// A request that openssl makes, with the nonce as challengePassword, is as
// good as ours.
func TestOpenSSLRequest(t *testing.T) {
	dir := opensslChain(t, []string{"-algorithm", "ED25519"})
	r, err := certs.ParseRequest(readPEM(t, dir, "leaf.csr"))
	must(t, err)
	nonce, err := hex.DecodeString(strings.Repeat("ab", 32))
	must(t, err)
	ca := newTestCA(t, credentials.ECDSAP256, openStore(t), time.Now)
	cert := issue(t, ca.issuing, certs.Order{Request: r, Names: deviceNames(t), Nonce: nonce})
	if cert.Subject.CommonName != "" {
		t.Error("the subject was copied from the request")
	}
}
