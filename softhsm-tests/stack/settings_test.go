//go:build soak

package stack

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mls"
)

const suite = mls.P256AES128SHA256P256

// The settings of a party are a file that it reads whenever it starts.
type settings struct {
	Name  string
	Host  string
	Trust string // path of the trust configuration
	Root  []byte // certificate of the providers' CA
	TLS   certified

	// Of a provider.
	Source   string            `json:",omitempty"`
	Sender   certified         `json:",omitzero"`
	Franking certified         `json:",omitzero"`
	MAC      []byte            `json:",omitempty"`
	Links    map[string]string `json:",omitempty"` // from provider to address

	// Of a client.
	State    string    `json:",omitempty"`
	Leaf     certified `json:",omitzero"`
	Provider string    `json:",omitempty"` // address of the link to it
	Rooms    []string  `json:",omitempty"`
}

// A certified key is one in software, as PKCS #8, with what was issued for it:
// a chain of certificates, or the body of an MLS credential.
type certified struct {
	Key        []byte
	Chain      [][]byte `json:",omitempty"`
	Credential []byte   `json:",omitempty"`
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func marshalKey(t testing.TB, key any) []byte {
	t.Helper()
	return must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
}

func (s *settings) write(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, must[[]byte](t)(json.Marshal(s)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *certified) key() (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		return nil, err
	}
	return k.(*ecdsa.PrivateKey), nil
}

func (c *certified) certificate() (cert tls.Certificate, err error) {
	cert.Certificate = c.Chain
	cert.PrivateKey, err = c.key()
	return cert, err
}

func (c *certified) credential() mls.Credential {
	return mls.Credential{Type: mls.CredentialX509, Body: c.Credential}
}

func (s *settings) roots() (*x509.CertPool, error) {
	root, err := x509.ParseCertificate(s.Root)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return pool, nil
}

func (s *settings) evaluator() (*identity.Evaluator, error) {
	l, err := trust.Open(s.Trust, trust.Options{})
	if err != nil {
		return nil, err
	}
	return identity.NewEvaluator(l, identity.EvaluatorOptions{}), nil
}

// certify makes a key for which the CA issues an MLS credential.
func certify(t testing.TB, ca *identitytest.CA, uris ...string) certified {
	t.Helper()
	key := identitytest.NewKey(t)
	c := mls.X509Credential([][]byte{ca.Issue(t, &key.PublicKey, identitytest.Day, uris...).Raw})
	return certified{Key: marshalKey(t, key), Credential: c.Body}
}

// selfSigned is the TLS certificate of a device, of which only the key counts.
func selfSigned(t testing.TB) certified {
	t.Helper()
	key := identitytest.NewKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "device"}, NotAfter: time.Now().Add(lifetime)}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return certified{Key: marshalKey(t, key), Chain: [][]byte{der}}
}

// lifetime of TLS certificates, longer than any soak.
const lifetime = 20 * time.Hour

func folder(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
