package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/durable"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
)

// identityFile holds the certificates and then the private key, so that both
// are always replaced together.
const identityFile = "identity.pem"

// An Identity is a caller's certificate and key in a folder.
type Identity struct {
	dir string

	mu   sync.Mutex // guards cert
	cert *tls.Certificate
}

// OpenIdentity reads the identity in a folder.
func OpenIdentity(dir string) (*Identity, error) {
	path := filepath.Join(dir, identityFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w; enroll first", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("identity: %s has mode %04o and others may read it; run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", path, err)
	}
	return &Identity{dir: dir, cert: &cert}, nil
}

// Certificate returns the certificate for a new connection.
func (i *Identity) Certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cert, nil
}

// Leaf returns the caller's certificate.
func (i *Identity) Leaf() *x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cert.Leaf
}

// Enroll makes a key, exchanges a one-time token for its certificate, and
// stores both in the folder. If it fails without an answer, calling it again
// uses the same key, so that the token is not lost. c calls without a
// certificate.
func Enroll(ctx context.Context, c *Client, dir, token string) (*Identity, error) {
	if _, err := os.Stat(filepath.Join(dir, identityFile)); err == nil {
		return nil, fmt.Errorf("identity: there is one in %s; move it away first", dir)
	}
	key, err := pendingKey(dir)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	var issued *signerv1.Certificate
	err = c.retry(ctx, func(ctx context.Context) error {
		issued, err = once(ctx, c, c.access.Enroll, &signerv1.EnrollRequest{Token: token, Csr: csr})
		return err
	})
	if err != nil {
		return nil, err
	}
	i := &Identity{dir: dir}
	if err := i.store(issued.GetChain(), key); err != nil {
		return nil, err
	}
	return i, os.Remove(filepath.Join(dir, pendingFile))
}

// pendingFile holds the key while it has no certificate.
const pendingFile = "enrolling.pem"

func pendingKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, pendingFile)
	b, err := os.ReadFile(path)
	if err == nil {
		return parseKey(b)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := formatKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(path, text, 0o600)
}

func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("identity: %s is no PEM; remove it", pendingFile)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := k.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("identity: %s has no ECDSA key; remove it", pendingFile)
	}
	return key, nil
}

func formatKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// store puts a new certificate and key to use, on the disk first.
func (i *Identity) store(chain [][]byte, key *ecdsa.PrivateKey) error {
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	k, err := formatKey(key)
	if err != nil {
		return err
	}
	text = append(text, k...)
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return fmt.Errorf("%w: the certificate is not for the key: %w", ErrCorrupt, err)
	}
	if err := durable.WriteFile(filepath.Join(i.dir, identityFile), text, 0o600); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cert = &cert
	return nil
}

// RenewAfter returns when two thirds of the certificate's life are over.
func (i *Identity) RenewAfter() time.Time {
	leaf := i.Leaf()
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
}

// Renew gets a certificate for a new key, and has c use it.
func (i *Identity) Renew(ctx context.Context, c *Client) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	var issued *signerv1.Certificate
	err = c.retry(ctx, func(ctx context.Context) error {
		issued, err = once(ctx, c, c.access.Renew, &signerv1.RenewRequest{Csr: csr})
		return err
	})
	if err != nil {
		return err
	}
	if err := i.store(issued.GetChain(), key); err != nil {
		return err
	}
	c.Reconnect()
	return nil
}

// renewRetry is the time between attempts to renew.
const renewRetry = time.Minute

// KeepFresh renews the certificate in time until ctx ends. failed, if not nil,
// is told of attempts that failed; they are made again.
func (i *Identity) KeepFresh(ctx context.Context, c *Client, failed func(error)) {
	for {
		wait := max(time.Until(i.RenewAfter()), 0)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := i.Renew(ctx, c)
		if err == nil {
			continue
		}
		if failed != nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(renewRetry):
		}
	}
}
