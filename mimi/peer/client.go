package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
)

const (
	maxSessions        = 1024
	defaultConcurrency = 16
	defaultStreamTime  = 5 * time.Minute
)

// ClientConfig is what a Client needs.
type ClientConfig struct {
	Domain      string // of our provider, for From
	Certificate func() (*tls.Certificate, error)
	Roots       func() *x509.CertPool
	// DialContext opens connections; nil is a plain dialer. It is where a
	// deployment that does not trust its peers' directories refuses private
	// addresses.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	Concurrency int // most open calls to one provider; 0 means 16
	// StreamTime bounds a call from its beginning to the last octet of the answer;
	// 0 means 5 minutes. Calls that Call makes have bounds of their own below it.
	StreamTime time.Duration
	Now        func() time.Time // nil means time.Now
}

// A Client calls the endpoints of other providers.
type Client struct {
	cfg ClientConfig

	mu       sync.Mutex // guards sessions, and the lastUsed of each
	sessions map[string]*session
}

// NewClient returns a client of one provider of ours.
func NewClient(cfg ClientConfig) (*Client, error) {
	if err := checkDomain(cfg.Domain); err != nil {
		return nil, fmt.Errorf("peer: own domain: %w", err)
	}
	if cfg.DialContext == nil {
		cfg.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = defaultConcurrency
	}
	if cfg.StreamTime <= 0 {
		cfg.StreamTime = defaultStreamTime
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Client{cfg: cfg, sessions: make(map[string]*session)}, nil
}

// Close closes the connections that are idle.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.transport.CloseIdleConnections()
	}
}

func (c *Client) session(provider string) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.sessions[provider]
	if !ok {
		if err := checkDomain(provider); err != nil {
			return nil, fmt.Errorf("peer: provider: %w", err)
		}
		c.makeRoom()
		s = c.newSession(provider)
		c.sessions[provider] = s
	}
	s.lastUsed = c.cfg.Now()
	return s, nil
}

// makeRoom drops the session that was used the longest ago. A call that is open
// in it ends as if it were kept.
func (c *Client) makeRoom() {
	if len(c.sessions) < maxSessions {
		return
	}
	var oldest *session
	for _, s := range c.sessions {
		if oldest == nil || s.lastUsed.Before(oldest.lastUsed) {
			oldest = s
		}
	}
	oldest.transport.CloseIdleConnections()
	delete(c.sessions, oldest.provider)
}

// A Call is one call of an endpoint.
type Call struct {
	Provider string
	Endpoint Endpoint
	Value    func(variable string) string // see Value and ConsentValue
	Body     []byte
	Header   http.Header // beside those that the Client sets
}

// Do calls an endpoint once and returns the body of a successful answer. The
// variable is the value that the endpoint's URL is about, such as a room's URI.
// An answer that is no success is a *problem.Problem; see Retry for what to do
// with an error.
func (c *Client) Do(ctx context.Context, provider string, e Endpoint, variable string, body []byte) ([]byte, error) {
	return c.Call(ctx, Call{Provider: provider, Endpoint: e, Value: Value(variable), Body: body})
}

// Call is Do with everything said.
func (c *Client) Call(ctx context.Context, call Call) ([]byte, error) {
	t := traits[call.Endpoint]
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	resp, err := c.Open(ctx, call)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := readBounded(resp.Body, t.response)
	if err != nil {
		return nil, fmt.Errorf("peer: %s of %s: %w", call.Endpoint, call.Provider, err)
	}
	return b, nil
}

func readBounded(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%w: more than %d octets", ErrTooLarge, most)
	}
	return b, nil
}

// DoRetry is Do again and again, until it succeeds, fails for good or the
// context ends. Only a call that may be received twice may be so made.
func (c *Client) DoRetry(ctx context.Context, provider string, e Endpoint, variable string, body []byte) ([]byte, error) {
	for failures := 1; ; failures++ {
		b, err := c.Do(ctx, provider, e, variable, body)
		after, again := Retry(err)
		if !again {
			return b, err
		}
		timer := time.NewTimer(max(after, Backoff(failures)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// Get fetches a path at a provider's own domain, such as one that is well
// known, of at most so many octets.
func (c *Client) Get(ctx context.Context, provider, path, accept string, most int64) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s, err := c.session(provider)
	if err != nil {
		return nil, nil, err
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	return c.get(ctx, s, path, accept, most)
}

func (c *Client) get(ctx context.Context, s *session, path, accept string, most int64) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.provider+path, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := c.roundTrip(s, req, func(status int) bool { return status == http.StatusOK })
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := readBounded(resp.Body, most)
	return b, resp.Header, err
}

// Open calls an endpoint and returns a successful answer, whose body the caller
// bounds in size and closes. The call counts as open until then, or until its
// time is over, so that a provider that sends an octet now and then holds nobody
// for ever.
func (c *Client) Open(ctx context.Context, call Call) (*http.Response, error) {
	if len(call.Body) > int(traits[call.Endpoint].request) {
		return nil, fmt.Errorf("peer: %s of %d octets, want at most %d", call.Endpoint, len(call.Body), traits[call.Endpoint].request)
	}
	s, err := c.session(call.Provider)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StreamTime)
	leave, err := s.enter(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := c.open(ctx, s, call)
	if err != nil {
		cancel()
		leave()
		return nil, err
	}
	resp.Body = &body{resp.Body, ctx, sync.OnceFunc(func() { cancel(); leave() })}
	return resp, nil
}

// body gives the slot back when it is closed.
type body struct {
	io.ReadCloser
	ctx   context.Context
	leave func()
}

// Read implements io.Reader. A server that hears our hanging up may end its answer
// in order: an end after our time is none.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && b.ctx.Err() != nil {
		err = b.ctx.Err()
	}
	return n, err
}

func (b *body) Close() error {
	defer b.leave()
	return b.ReadCloser.Close()
}

// open calls the URL that the directory has. If the provider does not know it
// and has moved meanwhile, it calls the new one.
func (c *Client) open(ctx context.Context, s *session, call Call) (*http.Response, error) {
	u, err := c.url(ctx, s, call)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, s, call, u)
	if !moved(err) || !s.forget(c.cfg.Now()) {
		return resp, err
	}
	again, urlErr := c.url(ctx, s, call)
	if urlErr != nil || again.String() == u.String() {
		return nil, err
	}
	return c.send(ctx, s, call, again)
}

func moved(err error) bool {
	var p *problem.Problem
	return errors.As(err, &p) && (p.Status == http.StatusNotFound || p.Status == http.StatusGone || p.Status == http.StatusMisdirectedRequest)
}

func (c *Client) url(ctx context.Context, s *session, call Call) (*url.URL, error) {
	d, err := c.directory(ctx, s)
	if err != nil {
		return nil, err
	}
	u, err := d.URL(call.Endpoint, call.Value)
	if err != nil {
		return nil, fmt.Errorf("peer: %s: %w", call.Provider, err)
	}
	return u, nil
}

func (c *Client) send(ctx context.Context, s *session, call Call, u *url.URL) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, traits[call.Endpoint].method, u.String(), bytes.NewReader(call.Body))
	if err != nil {
		return nil, err
	}
	for name, values := range call.Header {
		req.Header[name] = values
	}
	if req.Method == http.MethodPost && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", octets)
	}
	return c.roundTrip(s, req, func(status int) bool { return accepted(call.Endpoint, status) })
}

// accepted reports whether a status is the endpoint's success. Any 2xx is,
// except that a fan-out which was not taken must be sent again.
func accepted(e Endpoint, status int) bool {
	if e == Notify {
		return status == http.StatusCreated || status == http.StatusAccepted
	}
	return status/100 == 2
}

// roundTrip sends a request unless the provider is left alone for now, and
// keeps account of how it went.
func (c *Client) roundTrip(s *session, req *http.Request, success func(int) bool) (*http.Response, error) {
	if err := s.closed(c.cfg.Now()); err != nil {
		return nil, err
	}
	req.Header.Set("From", fromLocal+c.cfg.Domain)
	req.Header["User-Agent"] = nil
	resp, err := s.client.Do(req)
	if err != nil {
		if req.Context().Err() != nil {
			return nil, req.Context().Err()
		}
		err = &UnreachableError{s.provider, withoutURL(err)}
		s.failed(c.cfg.Now(), err)
		return nil, err
	}
	s.succeeded()
	if success(resp.StatusCode) {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.refusal(s, resp)
}

// withoutURL drops the URL, which may name a user, from an error of net/http.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (c *Client) refusal(s *session, resp *http.Response) error {
	p := problem.Read(resp, c.cfg.Now())
	if resp.StatusCode/100 == 2 {
		p.Code = notAccepted
	}
	err := fmt.Errorf("peer: %s answered: %w", s.provider, p)
	if p.Status == http.StatusServiceUnavailable && p.RetryAfter > 0 {
		s.pause(c.cfg.Now(), p.RetryAfter, err)
	}
	return err
}
