package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

const (
	leastBackoff = 500 * time.Millisecond
	mostBackoff  = 5 * time.Minute
	mostPause    = time.Hour // that a provider may ask for
)

// A session is what a Client keeps about one provider. Each has connections of
// its own: two providers may share a host, and a connection that proved the one
// has not proved the other.
type session struct {
	provider  string
	transport *http.Transport
	client    *http.Client
	slots     chan struct{} // one for each call that may be open
	fetching  chan struct{} // one, for who fetches the directory
	lastUsed  time.Time     // guarded by the Client

	mu        sync.Mutex // guards what follows
	directory *Directory
	fetched   time.Time
	stale     time.Time
	failures  int
	until     time.Time // before which nobody calls
	cause     error
}

func (c *Client) newSession(provider string) *session {
	t := &http.Transport{
		DialContext:            c.cfg.DialContext,
		TLSClientConfig:        c.tlsConfig(provider),
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  time.Minute,
		IdleConnTimeout:        90 * time.Second,
		MaxConnsPerHost:        c.cfg.Concurrency,
		MaxIdleConnsPerHost:    c.cfg.Concurrency,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &session{
		provider: provider, transport: t, slots: make(chan struct{}, c.cfg.Concurrency), fetching: make(chan struct{}, 1),
		client: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// tlsConfig verifies a server twice: for the host of the URL, as any client,
// and for the provider's domain, as the draft asks (section 5).
func (c *Client) tlsConfig(provider string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection verifies, with the roots of the moment
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.cfg.Certificate()
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verifyServer(cs, provider, c.cfg.Roots(), c.cfg.Now())
		},
	}
}

func verifyServer(cs tls.ConnectionState, provider string, roots *x509.CertPool, now time.Time) error {
	if len(cs.PeerCertificates) == 0 || len(cs.PeerCertificates) > maxChainLen {
		return fmt.Errorf("peer: %d certificates from the server, want 1 to %d", len(cs.PeerCertificates), maxChainLen)
	}
	if cs.ServerName == "" { // which TLS has for names alone
		return errors.New("peer: the URL has an address in the place of a name, and no certificate proves that it is the provider's")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), DNSName: cs.ServerName, CurrentTime: now}
	for _, cert := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	leaf := cs.PeerCertificates[0]
	if _, err := leaf.Verify(opts); err != nil {
		return err
	}
	if !names(leaf, provider) {
		return fmt.Errorf("peer: the server's certificate does not name the provider %s", provider)
	}
	return nil
}

// enter waits for one of the session's slots.
func (s *session) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// closed reports whether the provider is left alone for now.
func (s *session) closed(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wait := s.until.Sub(now); wait > 0 {
		return &BackoffError{s.provider, wait, s.cause}
	}
	return nil
}

// failed begins or lengthens a back-off.
func (s *session) failed(now time.Time, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.until) {
		return // a call that began before the back-off says nothing new
	}
	s.failures++
	s.until, s.cause = now.Add(Backoff(s.failures)), cause
}

// pause leaves the provider alone for as long as it asked.
func (s *session) pause(now time.Time, d time.Duration, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until := now.Add(min(d, mostPause)); until.After(s.until) {
		s.until, s.cause = until, cause
	}
}

func (s *session) succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = 0
}

// Backoff returns how long to wait after so many failures in a row: half a
// second doubled with each, up to five minutes, less up to half at random.
func Backoff(failures int) time.Duration {
	d := mostBackoff
	if failures < 10 {
		d = leastBackoff << max(failures-1, 0)
	}
	return d - rand.N(d/2)
}
