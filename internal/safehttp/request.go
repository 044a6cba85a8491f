package safehttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Request is one fetch.
type Request struct {
	URL    string
	Accept []string // media types, in order of preference
	// Plain admits http, for answers that are signed: CRLs and OCSP.
	Plain bool
	// Post is sent with the media type PostType; nil means GET.
	Post     []byte
	PostType string
	// IfNoneMatch is the ETag of the copy at hand. Only with it may the answer
	// have the status 304.
	IfNoneMatch string
	// MaxBody is the most octets of the body, after inflation; 0 means
	// DefaultBody.
	MaxBody int64
	// Gzip admits Content-Encoding gzip, inflated up to MaxBody.
	Gzip bool
	// Redirects that are followed, on the same host and scheme only. A POST
	// is never redirected.
	Redirects int
}

// A Response is a whole answer with status 2xx, or 304 if IfNoneMatch was
// given.
type Response struct {
	URL    string // after redirects
	Status int
	Header http.Header
	Body   []byte
}

// A Stream is an answer whose body is still to be read. Reading past the
// bound, or past the time, fails with an *Error. It must be closed.
type Stream struct {
	URL    string
	Status int
	Header http.Header
	Length int64 // as announced and after decoding; -1 if unknown
	io.ReadCloser
}

// Do fetches and reads the whole answer.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	s, err := c.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	body, err := io.ReadAll(s)
	if err != nil {
		return nil, err
	}
	return &Response{URL: s.URL, Status: s.Status, Header: s.Header, Body: body}, nil
}

// Open fetches and returns the answer with its body unread.
func (c *Client) Open(ctx context.Context, r Request) (*Stream, error) {
	u, err := CheckURL(r.URL, r.Plain)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	s, err := c.follow(ctx, cancel, u, &r)
	if err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// follow sends the request and goes where redirects lead within the rules.
func (c *Client) follow(ctx context.Context, cancel func(), u *url.URL, r *Request) (*Stream, error) {
	for hops := 0; ; hops++ {
		req, err := c.request(ctx, u, r)
		if err != nil {
			return nil, err
		}
		resp, err := c.transport.RoundTrip(req)
		if err != nil {
			return nil, explain(u, err)
		}
		if !redirects(resp.StatusCode) {
			return c.open(ctx, cancel, u, r, resp)
		}
		resp.Body.Close()
		if u, err = next(u, r, resp, hops); err != nil {
			return nil, err
		}
	}
}

func (c *Client) request(ctx context.Context, u *url.URL, r *Request) (*http.Request, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if r.Post != nil {
		method, body = http.MethodPost, bytes.NewReader(r.Post)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, refuse(BadURL, u, "%w", err)
	}
	set := func(name, value string) {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	req.Header.Set("User-Agent", c.config.UserAgent) // "" sends none
	set("Accept", strings.Join(r.Accept, ", "))
	set("If-None-Match", r.IfNoneMatch)
	if r.Post != nil {
		set("Content-Type", r.PostType)
	}
	if r.Gzip {
		set("Accept-Encoding", "gzip")
	} else {
		set("Accept-Encoding", "identity")
	}
	return req, nil
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// next is where a redirect leads, if it may be followed.
func next(u *url.URL, r *Request, resp *http.Response, hops int) (*url.URL, error) {
	if hops >= r.Redirects || r.Post != nil {
		return nil, refuse(BadRedirect, u, "redirected with status %d, and %d redirects are followed", resp.StatusCode, r.Redirects)
	}
	to, err := u.Parse(resp.Header.Get("Location"))
	if err != nil {
		return nil, refuse(BadRedirect, u, "redirected to no URL: %w", err)
	}
	to.Fragment = ""
	checked, err := CheckURL(to.String(), r.Plain)
	if err != nil {
		return nil, refuse(BadRedirect, u, "redirected to a URL that is not fetched: %w", errors.Unwrap(err))
	}
	if checked.Host != u.Host || checked.Scheme != u.Scheme {
		return nil, refuse(BadRedirect, u, "redirected off the host to %s", shown(checked))
	}
	return checked, nil
}

// open checks the head of the final answer and bounds its body.
func (c *Client) open(ctx context.Context, cancel func(), u *url.URL, r *Request, resp *http.Response) (*Stream, error) {
	if err := checkStatus(u, r, resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	b := &body{url: u, from: resp.Body, ctx: ctx, cancel: cancel, left: r.MaxBody}
	if b.left <= 0 {
		b.left = DefaultBody
	}
	length, err := b.decode(r, resp)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return &Stream{URL: u.String(), Status: resp.StatusCode, Header: resp.Header, Length: length, ReadCloser: b}, nil
}

func checkStatus(u *url.URL, r *Request, resp *http.Response) error {
	s := resp.StatusCode
	if s >= 200 && s < 300 || s == http.StatusNotModified && r.IfNoneMatch != "" {
		return nil
	}
	e := refuse(BadStatus, u, "the server answered with status %d", s)
	e.Status, e.RetryAfter = s, retryAfter(resp.Header.Get("Retry-After"))
	return e
}

// retryAfter reads the delay of RFC 9110 section 10.2.3, at most a day.
func retryAfter(value string) time.Duration {
	const most = 24 * time.Hour
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, most)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, min(time.Until(at), most))
	}
	return 0
}
