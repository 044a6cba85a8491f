package peer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
)

// ErrNoEndpoint is found in the error of a call that the peer's directory has
// no entry for.
var ErrNoEndpoint = errors.New("peer: the provider's directory has no such endpoint")

// ErrTooLarge is found in the error of a call whose answer is over its bound.
var ErrTooLarge = errors.New("peer: the answer is too large")

// An UnreachableError says that a provider could not be reached, or is not who
// it should be.
type UnreachableError struct {
	Provider string
	Err      error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("peer: cannot reach %s: %v", e.Provider, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// A BackoffError says that no call was made, because earlier ones failed or
// the provider asked for time.
type BackoffError struct {
	Provider string
	Wait     time.Duration
	Err      error // the failure that began it
}

func (e *BackoffError) Error() string {
	return fmt.Sprintf("peer: %s is left alone for another %v: %v", e.Provider, e.Wait.Round(time.Millisecond), e.Err)
}

// Unwrap returns the failure that began it.
func (e *BackoffError) Unwrap() error { return e.Err }

// Retry reports whether the same call may succeed later, and the least time to
// wait that the provider asked for.
func Retry(err error) (after time.Duration, ok bool) {
	var backoff *BackoffError
	var unreachable *UnreachableError
	var p *problem.Problem
	switch {
	case err == nil:
		return 0, false
	case errors.As(err, &backoff):
		return backoff.Wait, true
	case errors.As(err, &p):
		return p.RetryAfter, p.Code == notAccepted || p.Status >= 500 && p.Status != http.StatusNotImplemented ||
			p.Status == http.StatusTooManyRequests || p.Status == http.StatusRequestTimeout
	case errors.As(err, &unreachable):
		return 0, true
	}
	return 0, errors.Is(err, context.DeadlineExceeded)
}

// notAccepted is the code of an answer to notify that is a success in HTTP and
// yet not one of the two that say that the fan-out was taken.
const notAccepted = "not-accepted"
