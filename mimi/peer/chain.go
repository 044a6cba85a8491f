package peer

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
)

const (
	chainMemory = 5 * time.Minute // for which a verified chain is believed
	maxChains   = 4096
	maxChainLen = 8
)

// Chains verifies the certificates of calling providers, and remembers for
// some minutes which it has verified. A connection may outlive its certificate,
// so that each request asks again.
type Chains struct {
	roots func() *x509.CertPool
	now   func() time.Time

	mu      sync.Mutex // guards what follows
	until   map[[sha256.Size]byte]time.Time
	forgets int // how often Forget was called
}

// NewChains returns a verifier on roots, which may change from call to call.
func NewChains(roots func() *x509.CertPool) *Chains {
	return &Chains{roots: roots, now: time.Now, until: make(map[[sha256.Size]byte]time.Time)}
}

// verify judges a chain, leaf first.
func (c *Chains) verify(chain []*x509.Certificate) error {
	now, key := c.now(), sha256.Sum256(chain[0].Raw)
	c.mu.Lock()
	until, forgets := c.until[key], c.forgets
	c.mu.Unlock()
	if now.Before(until) {
		return nil
	}
	if err := verifyChain(chain, c.roots(), now); err != nil {
		return err
	}
	c.remember(key, now, chain[0].NotAfter, forgets)
	return nil
}

// remember notes a chain, unless the roots may have changed since it was verified.
func (c *Chains) remember(key [sha256.Size]byte, now, notAfter time.Time, forgets int) {
	until := now.Add(chainMemory)
	if notAfter.Before(until) {
		until = notAfter
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forgets != forgets {
		return
	}
	if len(c.until) >= maxChains {
		clear(c.until)
	}
	c.until[key] = until
}

// Forget makes every chain be verified anew, after the roots changed.
func (c *Chains) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.until)
	c.forgets++
}

// verifyChain takes certificates for servers as well as for clients, since the
// public CAs issue none for clients any more.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	if len(chain) > maxChainLen {
		return fmt.Errorf("peer: %d certificates, want at most %d", len(chain), maxChainLen)
	}
	opts := x509.VerifyOptions{
		Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return fmt.Errorf("peer: certificate of the calling provider: %w", err)
	}
	return nil
}

// TLS returns a server's configuration on base, which has the certificates. A
// client certificate is asked for, and must be good if there is one: the
// directory and Oblivious HTTP are for callers without one too.
func (c *Chains) TLS(base *tls.Config) *tls.Config {
	cfg := base.Clone()
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS13)
	cfg.ClientAuth = tls.RequestClientCert
	cfg.NextProtos = []string{"h2", "http/1.1"}
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		return c.verify(cs.PeerCertificates)
	}
	return cfg
}

// Authenticate returns the peer of a request: the domain in From, which must be
// a dNSName of a client certificate that chains to a root. The error is a
// problem with 401 or 403.
func (c *Chains) Authenticate(r *http.Request) (Peer, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return Peer{}, problem.New(http.StatusUnauthorized, "no-certificate", "providers authenticate with a TLS client certificate")
	}
	if err := c.verify(r.TLS.PeerCertificates); err != nil {
		return Peer{}, problem.New(http.StatusUnauthorized, "certificate", "the client certificate is not believed: %w", err)
	}
	from := r.Header.Values("From")
	if len(from) != 1 {
		return Peer{}, problem.New(http.StatusForbidden, "from", "%d From headers, want one", len(from))
	}
	domain, ok := strings.CutPrefix(from[0], fromLocal)
	if !ok || checkDomain(domain) != nil {
		return Peer{}, problem.New(http.StatusForbidden, "from", "From is not %sDOMAIN", fromLocal)
	}
	if !names(r.TLS.PeerCertificates[0], domain) {
		return Peer{}, problem.New(http.StatusForbidden, "from", "the certificate has no dNSName %s", domain)
	}
	return Peer{Domain: domain}, nil
}
