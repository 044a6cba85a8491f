package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/signer/api/privyseal/signer/v1/signerv1connect"
)

// Config says which service, and who calls.
type Config struct {
	// Address is the service's URL, such as https://signer.example:8443.
	Address string
	// Roots verify the service's certificate. Required: it is not a public one.
	Roots *x509.CertPool
	// Certificate returns the caller's certificate and key at each new
	// connection; Identity.Certificate is one. nil calls without, to enroll.
	Certificate func() (*tls.Certificate, error)
	// Attempts bounds how often a request is made; 5 if 0, 1 for once.
	Attempts int
	// Timeout bounds one attempt; 10 s if 0. The context of a call bounds all
	// of them together.
	Timeout time.Duration
	// Apart has each call be a request of its own. Otherwise calls that are made
	// at once share requests, which costs both ends a fraction of it.
	Apart bool
}

// A Client calls one service, over connections that it makes again when they
// are lost. Its methods may be called at the same time.
type Client struct {
	c       Config
	through *connections
	signing signerv1connect.SigningServiceClient
	keys    signerv1connect.KeyServiceClient
	access  signerv1connect.AccessServiceClient
	batches *batcher // nil if calls go apart

	idempotency *idempotency
}

const (
	defaultAttempts = 5
	defaultTimeout  = 10 * time.Second
	maxAnswer       = 4 << 20
)

// New returns a Client. It connects when it is first used.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.Address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("client: %q is no address of a service; it is https://HOST:PORT", c.Address)
	}
	if c.Roots == nil {
		return nil, errors.New("client: no roots to verify the service by")
	}
	if c.Attempts <= 0 {
		c.Attempts = defaultAttempts
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	through := new(connections)
	through.now.Store(transport(c))
	h := &http.Client{Transport: through, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	options := []connect.ClientOption{connect.WithReadMaxBytes(maxAnswer), connect.WithAcceptCompression("gzip", nil, nil)}
	out := &Client{c: c, through: through, idempotency: newIdempotency(),
		signing: signerv1connect.NewSigningServiceClient(h, c.Address, options...),
		keys:    signerv1connect.NewKeyServiceClient(h, c.Address, options...),
		access:  signerv1connect.NewAccessServiceClient(h, c.Address, options...),
	}
	if !c.Apart {
		out.batches = newBatcher()
	}
	return out, nil
}

func transport(c Config) *http.Transport {
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: c.Roots}
	if c.Certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Certificate() }
	}
	return &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		// A connection whose other end has gone without a word is noticed.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}

// connections makes requests over a transport that can be replaced.
type connections struct {
	now atomic.Pointer[http.Transport]
}

// RoundTrip makes a request over the present transport.
func (t *connections) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.now.Load().RoundTrip(r)
}

// Reconnect has new requests go over new connections, made with the present
// certificate. Those under way end on the old ones.
func (c *Client) Reconnect() {
	c.through.now.Swap(transport(c.c)).CloseIdleConnections()
}

// Close closes the connections that are idle.
func (c *Client) Close() { c.through.now.Load().CloseIdleConnections() }

// Keys, Signing and Access are the calls of the API as they are, without
// retries and checks, for what this package has no better form of.
func (c *Client) Keys() signerv1connect.KeyServiceClient { return c.keys }

// Signing returns the calls of SigningService; see Keys.
func (c *Client) Signing() signerv1connect.SigningServiceClient { return c.signing }

// Access returns the calls of AccessService; see Keys.
func (c *Client) Access() signerv1connect.AccessServiceClient { return c.access }

// once makes one attempt within the Timeout.
func once[Req, Res any](ctx context.Context, c *Client, call func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), m *Req) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, c.c.Timeout)
	defer cancel()
	r, err := call(ctx, connect.NewRequest(m))
	if err != nil {
		return nil, Explain(err)
	}
	return r.Msg, nil
}
