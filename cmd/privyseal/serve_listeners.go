package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/signer"
)

// listen binds every listener of the configuration, or none.
func listen(ctx context.Context, w *wiring, log *slog.Logger) (bound []*daemon.Listener, err error) {
	sections := w.config.Serve.Listeners
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		l, err := daemon.Listen(ctx, listenerConfig(w, name, sections[name]), log)
		if err != nil {
			closeAll(bound)
			return nil, err
		}
		bound = append(bound, l)
		if own := w.clientCA[name]; own != nil {
			own.listener.Store(l)
		}
	}
	return bound, nil
}

// ownClients are the client authorities of a listener whose service keeps them.
type ownClients struct {
	pool     func(context.Context) (*x509.CertPool, error)
	listener atomic.Pointer[daemon.Listener] // when it is bound
}

// refresh has the listener take the authorities as they are now.
func (o *ownClients) refresh(ctx context.Context) error {
	l := o.listener.Load()
	if l == nil {
		return nil // it will read them when it is bound
	}
	return l.RefreshClients(ctx)
}

func closeAll(listeners []*daemon.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func listenerConfig(w *wiring, name string, s *ListenerSection) daemon.ListenerConfig {
	c := daemon.ListenerConfig{
		Name: name, Address: s.Address, MaxConnections: s.MaxConnections, BodyTime: time.Duration(s.BodyTime),
		OptionalClient: s.ClientAuth == "optional" || s.ClientAuth == "asked", AnyClient: s.judgedElsewhere(),
	}
	if !s.Plain {
		c.Certificate = func(ctx context.Context) (*tls.Certificate, error) { return serverCertificate(ctx, w, s) }
	}
	if own := w.clientCA[name]; own != nil {
		c.ClientCA, c.OptionalClient = own.pool, true
	}
	if s.ClientCA != "" {
		c.ClientCA = func(context.Context) (*x509.CertPool, error) {
			return daemon.ReadPool(resolve(w.config.dir, s.ClientCA))
		}
	}
	return c
}

// serverCertificate reads a listener's certificate chain and its key.
func serverCertificate(ctx context.Context, w *wiring, s *ListenerSection) (*tls.Certificate, error) {
	chain := resolve(w.config.dir, s.Certificate)
	if s.KeyID != "" {
		return deviceCertificate(ctx, w, chain, s.KeyID)
	}
	certs, err := readBounded(chain, maxCredentialFile)
	if err != nil {
		return nil, err
	}
	key, err := readPrivate(resolve(w.config.dir, s.Key), maxCredentialFile)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certs, key)
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", chain, s.Key, err)
	}
	return &cert, checkServerCertificate(cert.Leaf, time.Now())
}

// readPrivate reads a file of a secret, and refuses one that others may read. The
// file that is judged is the one that is read.
func readPrivate(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o and others may read it; run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	return readAll(f, path, limit)
}

// checkServerCertificate refuses a certificate that no client would accept now.
func checkServerCertificate(leaf *x509.Certificate, now time.Time) error {
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("the certificate ended at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// deviceCertificate joins a chain with a key of purpose tls. The device is not
// asked before the first handshake, so that a listener starts without it.
func deviceCertificate(ctx context.Context, w *wiring, chain string, id signer.KeyID) (*tls.Certificate, error) {
	certs, err := readChain(chain)
	if err != nil {
		return nil, err
	}
	key, err := w.store.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	if key.Purpose != signer.PurposeTLS {
		return nil, fmt.Errorf("key %s has purpose %s, and a listener needs one of purpose %s", id, key.Purpose, signer.PurposeTLS)
	}
	v := key.Active()
	if v == nil {
		return nil, fmt.Errorf("key %s has no active version", id)
	}
	pub, err := v.PublicKey()
	if err != nil {
		return nil, err
	}
	if !credentials.SamePublicKey(pub, certs[0].PublicKey) {
		return nil, fmt.Errorf("%s is not for version %d of key %s", chain, v.Number, id)
	}
	cert := &tls.Certificate{PrivateKey: &tlsKey{w.ring, id, pub}, Leaf: certs[0]}
	for _, c := range certs {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, checkServerCertificate(certs[0], time.Now())
}

func readChain(path string) ([]*x509.Certificate, error) {
	b, err := readBounded(path, maxCredentialFile)
	if err != nil {
		return nil, err
	}
	return parseCertificates(b)
}

// handshakeTime bounds the signature of one handshake.
const handshakeTime = 10 * time.Second

// A tlsKey signs handshakes with a key in a device.
type tlsKey struct {
	ring *signer.Keyring
	id   signer.KeyID
	pub  crypto.PublicKey
}

var _ crypto.MessageSigner = (*tlsKey)(nil)

func (k *tlsKey) Public() crypto.PublicKey { return k.pub }

// SignMessage is what crypto/tls calls.
func (k *tlsKey) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	s, err := k.ring.Signer(ctx, k.id, signer.PurposeTLS)
	if err != nil {
		return nil, err
	}
	if !credentials.SamePublicKey(s.Public(), k.pub) {
		return nil, fmt.Errorf("%w: key %s was rotated; put the new certificate in place and reload", signer.ErrKeyState, k.id)
	}
	return s.SignMessageContext(ctx, message, opts)
}

// Sign is for callers that have only a digest, which is refused.
func (k *tlsKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a key of purpose tls signs handshakes, not digests")
}
