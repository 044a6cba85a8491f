package enrol

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/strictjson"
)

// A Client is the device's side of HTTP.
type Client struct {
	base string
	est  string // URL of EST
	http *http.Client
}

// Bounds of a client.
const (
	stepTime = 90 * time.Second // of a step; the issuer may wait for its device
	maxReply = 1 << 20
)

// NewClient returns a client of the issuer at an https URL. roots verify its
// certificate; nil means those of the system. Redirects are not followed: a
// code is for one issuer.
func NewClient(base string, roots *x509.CertPool) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("%.100q is no https URL of an issuer", base)
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	est := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: ESTPath(u)}
	return &Client{strings.TrimSuffix(base, "/"), est.String(), &http.Client{
		Transport: t, Timeout: stepTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close closes the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Begin sends the first request. The issuer's refusal is a *problem.Problem.
func (c *Client) Begin(ctx context.Context, r *BeginRequest) (*Challenge, error) {
	a := new(Challenge)
	if err := c.post(ctx, PathBegin, r, a); err != nil {
		return nil, err
	}
	if len(a.Nonce) == 0 || a.Session == "" || (r.TPM == nil) != (a.Credential == nil) {
		return nil, errors.New("the issuer's answer is no challenge for this device")
	}
	return a, nil
}

// Finish sends the second request.
func (c *Client) Finish(ctx context.Context, r *FinishRequest) (*Issued, error) {
	a := new(Issued)
	return a, c.post(ctx, PathFinish, r, a)
}

// maxBegins is how often Enrol begins.
const maxBegins = 3

// Enrol makes both steps: answer proves what the challenge asks for. A session
// is in the memory of the issuer, which may restart between the steps; while the
// code is not spent, a session that is gone is begun again, three times in all.
func (c *Client) Enrol(ctx context.Context, begin *BeginRequest, answer func(context.Context, *Challenge) (*FinishRequest, error)) (*Issued, error) {
	for n := 1; ; n++ {
		challenge, err := c.Begin(ctx, begin)
		if err != nil {
			return nil, err
		}
		finish, err := answer(ctx, challenge)
		if err != nil {
			return nil, err
		}
		made, err := c.Finish(ctx, finish)
		if err == nil {
			return made, nil
		}
		if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != problemPrefix+string(ReasonSession) || n == maxBegins {
			return nil, err
		}
	}
}

func (c *Client) post(ctx context.Context, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", typeJSON)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problem.Read(resp, time.Now())
	}
	if b, err = io.ReadAll(io.LimitReader(resp.Body, maxReply+1)); err != nil {
		return err
	}
	return strictjson.Decode(b, maxReply, answer)
}
