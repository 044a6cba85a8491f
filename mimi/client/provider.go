package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// A provider is the connection to the client's own provider.
type provider struct {
	base  string // https://host
	http  *http.Client
	now   func() time.Time
	stall time.Duration
}

// stallTime is how long a request may send nothing of its body, or an answer not
// go on. A bad network is given it again with every octet, so that what is long
// may take long.
const stallTime = time.Minute

// How often a request whose answer was lost is sent, and the longest that a
// Retry-After is obeyed for.
const (
	maxTries   = 5
	firstPause = 50 * time.Millisecond
	maxPause   = 30 * time.Second
)

func newProvider(base string, t *tls.Config, wrap func(http.RoundTripper) http.RoundTripper, now func() time.Time) *provider {
	transport := &http.Transport{
		TLSClientConfig: t, Proxy: nil, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: clientapi.MaxWait + time.Minute,
		IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 4,
	}
	var rt http.RoundTripper = transport
	if wrap != nil {
		rt = wrap(rt)
	}
	return &provider{base, &http.Client{
		Transport:     rt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, now, stallTime}
}

// A LostError says that the outcome of a request is not known: its answer did
// not come.
type LostError struct{ Err error }

func (e *LostError) Error() string { return "client: no answer of the provider: " + e.Err.Error() }
func (e *LostError) Unwrap() error { return e.Err }

// call makes a request that may be repeated, and repeats it while its answer
// is lost or the provider asks for that.
func (p *provider) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	pause := firstPause
	for try := 1; ; try++ {
		answer, err := p.once(ctx, method, path, body)
		if err == nil || try == maxTries || !repeatable(err) || ctx.Err() != nil {
			return answer, err
		}
		if wait(ctx, max(rand.N(pause), min(problem.Of(err).RetryAfter, maxPause))) != nil {
			return nil, err
		}
		pause *= 2
	}
}

func repeatable(err error) bool {
	var lost *LostError
	return errors.As(err, &lost) || clientapi.Temporary(err)
}

// unknown reports whether err leaves open if the request had its effect.
func unknown(err error) bool {
	var lost *LostError
	return errors.As(err, &lost) || clientapi.CodeHubUnreachable.Is(err) || clientapi.Temporary(err) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once makes a request. A failure is a *problem.Problem or a *LostError.
func (p *provider) once(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	resp, err := p.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, clientapi.MaxResponse+1))
	switch {
	case err != nil:
		return nil, &LostError{err}
	case len(answer) > clientapi.MaxResponse:
		return nil, fmt.Errorf("client: an answer of more than %d octets", clientapi.MaxResponse)
	}
	return answer, nil
}

// do makes a request and returns its answer if it has a status of success.
func (p *provider) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	return p.send(ctx, method, path, clientapi.ContentType, body)
}

// send is do with a body of a media type.
func (p *provider) send(ctx context.Context, method, path, mediaType string, body []byte) (*http.Response, error) {
	ctx, moving := watched(ctx, p.stall)
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, bytes.NewReader(body))
	if err != nil {
		moving.end()
		return nil, err
	}
	if len(body) > 0 {
		moving.out(req)
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		moving.end()
		return nil, &LostError{moving.why(ctx, err)}
	}
	resp.Body = moving.in(ctx, resp.Body)
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problem.Read(resp, p.now())
	}
	return resp, nil
}

// ask makes a request and decodes its answer.
func ask[T any](ctx context.Context, p *provider, method, path string, body []byte, parse func([]byte) (T, error)) (v T, err error) {
	answer, err := p.call(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	return parse(answer)
}
