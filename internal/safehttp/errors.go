package safehttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A Reason says which rule ended a fetch.
type Reason string

// The reasons.
const (
	BadURL      Reason = "url"         // not a URL that is fetched
	BadAddress  Reason = "address"     // the name resolved to an address that is not connected to
	BadRedirect Reason = "redirect"    // too many, or off the host
	BadCoding   Reason = "coding"      // a content coding that was not asked for, or broken
	TooLarge    Reason = "too-large"   // more octets than the caller takes
	BadStatus   Reason = "status"      // an answer that is not success
	Timeout     Reason = "timeout"     // the time for the whole fetch is over
	Unreachable Reason = "unreachable" // no connection, no TLS, or it broke off
)

// An Error says why a fetch failed. It names the URL without its query, which
// may hold a token.
type Error struct {
	Reason     Reason
	URL        string
	Status     int           // of the answer, or 0
	RetryAfter time.Duration // asked for by the server, or 0
	Err        error         // the cause
}

func (e *Error) Error() string {
	if e.URL == "" {
		return fmt.Sprintf("fetch: %v", e.Err)
	}
	return fmt.Sprintf("fetch %s: %v", e.URL, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same fetch may succeed later without a change
// of configuration or of what is served.
func (e *Error) Temporary() bool {
	switch e.Reason {
	case Timeout, Unreachable:
		return true
	case BadStatus:
		return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
	}
	return false
}

// ReasonOf returns the Reason of the first *Error in err's chain, or "".
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func refuse(r Reason, u *url.URL, format string, args ...any) *Error {
	return &Error{Reason: r, URL: shown(u), Err: fmt.Errorf(format, args...)}
}

// shown is a URL as it may stand in a log.
func shown(u *url.URL) string {
	if u == nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// explain gives a failure of the transport its reason.
func explain(u *url.URL, err error) error {
	var own *Error
	if errors.As(err, &own) {
		own.URL = shown(u)
		return own
	}
	if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		return refuse(Timeout, u, "no complete answer in time: %w", err)
	}
	return refuse(Unreachable, u, "%w", err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
