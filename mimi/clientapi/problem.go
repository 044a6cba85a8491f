package clientapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// A Code says what went wrong, for programs.
type Code string

// The codes, with their status.
const (
	CodeMalformed      Code = "malformed"       // 400: the body or the query is not what the route takes
	CodeRefused        Code = "refused"         // 403: well-formed, and this client may not
	CodeNotRegistered  Code = "not-registered"  // 401: the TLS key is of no client; register
	CodeCredential     Code = "credential"      // 403: the credential is not believed, or not of this provider
	CodeInvitation     Code = "invitation"      // 403: an invitation is needed, or it is not good (any more)
	CodeClock          Code = "clock"           // 403: the time in the registration is too far off
	CodeClientTaken    Code = "client-taken"    // 409: another device is registered as this client
	CodeRoomExists     Code = "room-exists"     // 409: the room's name is taken
	CodeNotFound       Code = "not-found"       // 404: no such route, room or user, or none that the client may know of
	CodeCursorGone     Code = "cursor-gone"     // 410: events after the cursor are not kept any more
	CodeTooLarge       Code = "too-large"       // 413
	CodeTooMany        Code = "too-many"        // 429: wait for Retry-After
	CodeInternal       Code = "internal"        // 500: a bug
	CodeHubUnreachable Code = "hub-unreachable" // 502: the room's hub did not answer; nothing is known of the outcome
	CodeUnavailable    Code = "unavailable"     // 503: the provider's own database or device failed; try again
)

var statuses = map[Code]int{
	CodeMalformed: 400, CodeRefused: 403, CodeNotRegistered: 401, CodeCredential: 403, CodeInvitation: 403, CodeClock: 403,
	CodeClientTaken: 409, CodeRoomExists: 409, CodeNotFound: 404, CodeCursorGone: 410, CodeTooLarge: 413, CodeTooMany: 429,
	CodeInternal: 500, CodeHubUnreachable: 502, CodeUnavailable: 503,
}

// Status returns the code's HTTP status.
func (c Code) Status() int {
	if s, ok := statuses[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Type returns the problem type URI of the code.
func (c Code) Type() string { return problemPrefix + string(c) }

const problemPrefix = "urn:privyseal:problem:client:"

// A Problem is a request that failed without a code in a body (RFC 9457).
type Problem struct {
	Code   Code
	Status int
	Detail string // for a person, without secrets
	// RetryAfter is in seconds; 0 if the server does not say.
	RetryAfter int
}

// Problemf returns a problem with the status of its code.
func Problemf(code Code, format string, args ...any) *Problem {
	return &Problem{Code: code, Status: code.Status(), Detail: fmt.Sprintf(format, args...)}
}

// Error returns the problem in words.
func (p *Problem) Error() string {
	return fmt.Sprintf("the provider answered %d %s: %s", p.Status, p.Code, p.Detail)
}

// Is reports whether target is a *Problem of the same code.
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Code == p.Code
}

// Temporary reports whether the same request may succeed later.
func (p *Problem) Temporary() bool {
	return p.Status == http.StatusTooManyRequests || p.Status >= 500 && p.Code != CodeInternal
}

type problemDocument struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Write answers a request with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	b, err := json.Marshal(problemDocument{p.Code.Type(), strings.ReplaceAll(string(p.Code), "-", " "), p.Status, p.Detail})
	if err != nil {
		b = nil // a struct of strings and a number always encodes
	}
	w.Header().Set("Content-Type", ContentTypeError)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(p.RetryAfter))
	}
	w.WriteHeader(p.Status)
	w.Write(b)
}

// maxProblem bounds a problem document.
const maxProblem = 64 << 10

// ReadProblem returns the problem in a response of status 400 or more. A
// response that has none, from a proxy for example, is a problem by its status
// alone.
func ReadProblem(r *http.Response) *Problem {
	p := &Problem{Code: codeOf(r.StatusCode), Status: r.StatusCode}
	fmt.Sscan(r.Header.Get("Retry-After"), &p.RetryAfter)
	p.RetryAfter = min(max(p.RetryAfter, 0), 24*3600)
	b, err := io.ReadAll(io.LimitReader(r.Body, maxProblem))
	var d problemDocument
	if err != nil || json.Unmarshal(b, &d) != nil {
		return p
	}
	if code, ok := strings.CutPrefix(d.Type, problemPrefix); ok && statuses[Code(code)] == r.StatusCode {
		p.Code = Code(code)
	}
	p.Detail = printable(d.Detail)
	return p
}

// codeOf is the code of a status for a response that names none.
func codeOf(status int) Code {
	switch {
	case status == 401:
		return CodeNotRegistered
	case status == 403:
		return CodeRefused
	case status == 404:
		return CodeNotFound
	case status == 413:
		return CodeTooLarge
	case status == 429:
		return CodeTooMany
	case status >= 500:
		return CodeUnavailable
	}
	return CodeMalformed
}

// printable keeps a stranger's text from steering a terminal.
func printable(s string) string {
	if len(s) > maxProblemMessage {
		s = s[:maxProblemMessage]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\uFFFD' {
			return -1
		}
		return r
	}, s)
}
