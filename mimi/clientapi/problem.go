package clientapi

import (
	"errors"
	"net/http"

	"github.com/privyseal/privyseal/internal/problem"
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
	CodeClientTaken    Code = "client-taken"    // 409: the TLS key is registered for another client
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

// Problemf returns a problem with the status of its code. The detail is formatted
// as by fmt.Errorf, and has no secrets.
func Problemf(code Code, format string, args ...any) *problem.Problem {
	return problem.New(code.Status(), string(code), format, args...)
}

// Is reports whether err is a problem of this code.
func (c Code) Is(err error) bool {
	var p *problem.Problem
	return errors.As(err, &p) && p.Code == string(c)
}

// Temporary reports whether err is a problem after which the same request may
// succeed later.
func Temporary(err error) bool {
	var p *problem.Problem
	return errors.As(err, &p) && p.Code != string(CodeInternal) && (p.Status == http.StatusTooManyRequests || p.Status >= 500)
}
