// Package problem is the form in which our HTTP interfaces report a failure: a
// problem document (RFC 9457) whose type names one entry of docs/problems.md.
package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// MediaType is the type of a problem document.
const MediaType = "application/problem+json"

// Base, with a code after it, is the type of each problem of ours.
const Base = "https://github.com/privyseal/privyseal/blob/main/docs/problems.md#"

// maxDocument is the most octets of a document that Read takes.
const maxDocument = 16 << 10

// A Problem is a failure as a caller is told of it. It is an error, so that a
// handler can return it. It never carries a secret.
type Problem struct {
	Status     int           // the HTTP status
	Code       string        // what went wrong, in lower-case words joined by hyphens
	Detail     string        // what to do about it, for a person
	Type       string        // the URI; empty for Base and the code
	RetryAfter time.Duration // how long to wait before the next attempt; zero for not said
	Err        error         // the cause, which is never sent
}

// New returns a problem with a detail formatted as by fmt.Errorf; an error
// wrapped with %w is its cause.
func New(status int, code, format string, args ...any) *Problem {
	err := fmt.Errorf(format, args...)
	return &Problem{Status: status, Code: code, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// After returns the problem with the time to wait before the next attempt.
func (p *Problem) After(d time.Duration) *Problem {
	q := *p
	q.RetryAfter = d
	return &q
}

func (p *Problem) Error() string {
	return fmt.Sprintf("%d %s: %s", p.Status, p.Code, p.Detail)
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// document is the encoding.
type document struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title,omitempty"`
	Status int    `json:"status,omitempty"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code,omitempty"`
}

// Write answers a request with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	typ := p.Type
	if typ == "" {
		typ = Base + p.Code
	}
	b, err := json.Marshal(document{typ, http.StatusText(p.Status), p.Status, p.Detail, p.Code})
	if err != nil {
		panic(err) // strings and an integer
	}
	h := w.Header()
	h.Set("Content-Type", MediaType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(p.RetryAfter.Seconds())), 10))
	}
	w.WriteHeader(p.Status)
	w.Write(b)
}

// Of returns the problem in err. An error without one is a failure of our own,
// of which the caller learns nothing but the status.
func Of(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return &Problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "the server failed; its log has the reason", Err: err}
}

// Read returns the problem that an answer tells, also where the other side
// sends no problem document. It does not close the body. now serves a
// Retry-After that names a date.
func Read(resp *http.Response, now time.Time) *Problem {
	p := &Problem{Status: resp.StatusCode, Code: "http-status", Detail: http.StatusText(resp.StatusCode)}
	p.RetryAfter = RetryAfter(resp.Header, now)
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != MediaType {
		return p
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil || len(b) > maxDocument {
		return p
	}
	var d document
	if json.Unmarshal(b, &d) != nil {
		return p
	}
	p.Type = d.Type
	if d.Code != "" {
		p.Code = d.Code
	}
	if d.Detail != "" {
		p.Detail = d.Detail
	}
	return p
}

// MaxRetryAfter bounds what RetryAfter returns.
const MaxRetryAfter = 24 * time.Hour

// RetryAfter returns what a Retry-After header asks for: zero when it is
// absent or malformed, and at most MaxRetryAfter.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, MaxRetryAfter)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), MaxRetryAfter)
	}
	return 0
}
