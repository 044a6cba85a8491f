package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A ListenerConfig says how to listen. The zero value of the optional fields
// works.
type ListenerConfig struct {
	Name    string // for logs, metrics and mounts
	Address string // host:port, or unix:/path

	// Certificate reads the server's certificate and key; nil listens without
	// TLS, for public material and for sockets of this machine only.
	Certificate func(ctx context.Context) (*tls.Certificate, error)
	// ClientCA reads the authorities of client certificates; nil asks for none.
	ClientCA func(ctx context.Context) (*x509.CertPool, error)
	// AnyClient asks for a client certificate of any issuer, in place of
	// ClientCA: what counts to the handler is its key.
	AnyClient bool
	// OptionalClient admits clients without a certificate, with AnyClient too.
	OptionalClient bool

	// MaxConnections bounds the open connections; the longest idle one makes
	// room for a new one. Default 4096.
	MaxConnections int
	// BodyTime bounds how long a request may take to arrive; one that goes on
	// arriving, with 4 KiB a second, has longer. A connection on which nothing has
	// moved for so long makes room for a new one too. Default 30 s.
	BodyTime time.Duration
}

// Defaults and bounds of a listener.
const (
	defaultConnections = 4096
	defaultBodyTime    = 30 * time.Second
	headerTime         = 10 * time.Second
	idleTime           = 2 * time.Minute
	maxHeader          = 64 << 10
	maxStreams         = 256 // requests at once on one HTTP/2 connection
)

// A Listener is a bound socket with its TLS settings.
type Listener struct {
	config ListenerConfig
	log    *slog.Logger
	ln     *limitListener
	mux    *http.ServeMux
	paths  []func(*http.Request) *http.Request
	server *http.Server
	trust  atomic.Pointer[trust] // nil without TLS

	mu        sync.Mutex // guards changes of trust, and refreshed
	refreshed uint64     // how often RefreshClients has replaced the authorities
}

// A trust is one generation of certificate and client authorities.
type trust struct {
	tls     *tls.Config
	clients *x509.CertPool
}

// Listen binds the address and reads the certificates. The Listener serves
// when a Daemon runs it; otherwise Close it.
func Listen(ctx context.Context, c ListenerConfig, log *slog.Logger) (*Listener, error) {
	if c.MaxConnections <= 0 {
		c.MaxConnections = defaultConnections
	}
	if c.BodyTime <= 0 {
		c.BodyTime = defaultBodyTime
	}
	l := &Listener{config: c, log: log.With("listener", c.Name), mux: http.NewServeMux()}
	first, err := l.readTrust(ctx)
	if err != nil {
		return nil, err
	}
	l.trust.Store(first)
	inner, err := bind(ctx, c.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", c.Name, err)
	}
	l.ln = newLimitListener(inner, c.MaxConnections, c.BodyTime)
	l.server = l.newServer()
	return l, nil
}

// bind listens on host:port, or on unix:/path with mode 0660, where it replaces
// a socket that nobody listens on.
func bind(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return lc.Listen(ctx, "tcp", address)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: somebody else does", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		os.Remove(path)
	}
	ln, err := lc.Listen(ctx, "unix", path)
	if err == nil {
		err = os.Chmod(path, 0o660)
	}
	return ln, err
}

// route hands a request to the handler of its path.
func (l *Listener) route(w http.ResponseWriter, r *http.Request) {
	for _, path := range l.paths {
		r = path(r)
	}
	l.mux.ServeHTTP(w, r)
}

// Addr returns the address that was bound.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Name returns the name in the configuration.
func (l *Listener) Name() string { return l.config.Name }

// Close unbinds a listener that does not serve.
func (l *Listener) Close() error { return l.ln.Close() }

func (l *Listener) newServer() *http.Server {
	s := &http.Server{
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ConnState: l.ln.stateChanged, ConnContext: l.connContext,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: idleTime, PingTimeout: headerTime},
		ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelDebug), // handshakes that fail
	}
	draining := make(chan struct{})
	s.RegisterOnShutdown(func() { close(draining) })
	s.BaseContext = func(net.Listener) context.Context {
		return context.WithValue(context.Background(), drainKey{}, (<-chan struct{})(draining))
	}
	if l.trust.Load() != nil {
		s.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: protocols,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return l.trust.Load().tls, nil },
		}
	}
	return s
}

type drainKey struct{}

// DrainSignal returns a channel that is closed when the listener of a request
// drains, so that a handler with a long stream ends it early. It is nil for the
// context of anything else.
func DrainSignal(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(drainKey{}).(<-chan struct{})
	return c
}

var protocols = []string{"h2", "http/1.1"}

// readTrust reads the certificate and the client authorities.
func (l *Listener) readTrust(ctx context.Context) (*trust, error) {
	if l.config.Certificate == nil {
		return nil, nil
	}
	cert, err := l.config.Certificate(ctx)
	if err != nil {
		return nil, fmt.Errorf("listener %s: certificate: %w", l.config.Name, err)
	}
	t := &trust{tls: &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: protocols, Certificates: []tls.Certificate{*cert}}}
	if l.config.AnyClient {
		t.tls.ClientAuth, t.tls.SessionTicketsDisabled = tls.RequireAnyClientCert, true
		if l.config.OptionalClient {
			t.tls.ClientAuth = tls.RequestClientCert
		}
	}
	if l.config.ClientCA == nil {
		return t, nil
	}
	if t.clients, err = l.config.ClientCA(ctx); err != nil {
		return nil, fmt.Errorf("listener %s: client authorities: %w", l.config.Name, err)
	}
	t.tls.ClientCAs = t.clients
	t.tls.ClientAuth = tls.RequireAndVerifyClientCert
	if l.config.OptionalClient {
		t.tls.ClientAuth = tls.VerifyClientCertIfGiven
	}
	// A resumed session would outlive the trust that admitted it.
	t.tls.SessionTicketsDisabled = true
	return t, nil
}

// reload reads the certificates again; apply puts them to use.
func (l *Listener) reload(ctx context.Context) (apply func(), err error) {
	l.mu.Lock()
	before := l.refreshed
	l.mu.Unlock()
	next, err := l.readTrust(ctx)
	if err != nil || next == nil {
		return nil, err
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.refreshed != before { // those are younger
			next = next.withClients(l.trust.Load().clients)
		}
		l.trust.Store(next)
	}, nil
}

// RefreshClients reads ClientCA alone again, and puts it to use where it has
// changed. It is for authorities that are kept in a database; a reload reads
// them too.
func (l *Listener) RefreshClients(ctx context.Context) error {
	if l.config.ClientCA == nil || l.config.Certificate == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	pool, err := l.config.ClientCA(ctx)
	if err != nil {
		return fmt.Errorf("listener %s: client authorities: %w", l.config.Name, err)
	}
	now := l.trust.Load()
	if pool.Equal(now.clients) {
		return nil
	}
	l.refreshed++
	l.trust.Store(now.withClients(pool))
	l.log.InfoContext(ctx, "other client authorities are in use")
	return nil
}

// withClients returns the trust with other client authorities.
func (t *trust) withClients(pool *x509.CertPool) *trust {
	c := t.tls.Clone()
	c.ClientCAs = pool
	return &trust{tls: c, clients: pool}
}

// serve serves until the server is shut down.
func (l *Listener) serve(handler http.Handler) error {
	l.server.Handler = roomy(l.admit(limitBody(l.config.BodyTime, handler)))
	var err error
	if l.trust.Load() != nil {
		err = l.server.ServeTLS(l.ln, "", "")
	} else {
		err = l.server.Serve(l.ln)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("listener %s: %w", l.config.Name, err)
}

type connKey struct{}

// A connTrust is the generation of trust that last admitted a connection.
type connTrust struct {
	admitted atomic.Pointer[trust]
}

func (l *Listener) connContext(ctx context.Context, _ net.Conn) context.Context {
	c := new(connTrust)
	c.admitted.Store(l.trust.Load())
	return context.WithValue(ctx, connKey{}, c)
}

// admit looks again at the client's certificate where the authorities were
// replaced since the connection was made, and has such a connection end after
// its answer.
func (l *Listener) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := l.trust.Load()
		c, ok := r.Context().Value(connKey{}).(*connTrust)
		if ok && c.admitted.Load() != now {
			w.Header().Set("Connection", "close")
			if now.clients != nil && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !now.admits(r.TLS.PeerCertificates) {
				http.Error(w, "the client certificate is not admitted any more", http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// admits verifies a client's chain as crypto/tls does in the handshake.
func (t *trust) admits(chain []*x509.Certificate) bool {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: t.clients, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

// ReadPool reads the certificates of a PEM file, which holds at least one and
// nothing else.
func ReadPool(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !bytes.Contains(b, []byte("-----BEGIN CERTIFICATE-----")) || !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}
