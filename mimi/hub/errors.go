package hub

import (
	"errors"
	"fmt"
	"net"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/mimi"
)

// Errors of requests that get no code in a body.
var (
	// ErrMalformed: the request is not one that the room could take from
	// anybody.
	ErrMalformed = errors.New("malformed request")
	// ErrForeign: the sender may not speak for whom the request names.
	ErrForeign = errors.New("the sender does not speak for that user")
)

// ErrStale is returned when the room moved on while a request was decided.
var ErrStale = errors.New("hub: the room has changed; decide again")

// A CredentialError says that a credential is not believed or not admitted.
type CredentialError struct{ Err error }

func (e *CredentialError) Error() string { return "credential: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *CredentialError) Unwrap() error { return e.Err }

// Told is Error without what only the operator should know: which address did
// not answer, and how.
func (e *CredentialError) Told() string {
	var why *credentials.Error
	var network net.Error
	known := errors.As(e.Err, &why)
	switch {
	case known && why.Code == credentials.CodeStatusUnavailable:
		return fmt.Sprintf("credential: %s: what says whether it is revoked cannot be had now; try again later", why.Code)
	case errors.As(e.Err, &network) && known:
		return fmt.Sprintf("credential: %s: what its issuer publishes cannot be had now; try again later", why.Code)
	case errors.As(e.Err, &network):
		return "credential: what its issuer publishes cannot be had now; try again later"
	}
	return e.Error()
}

// NotHeard refuses a member whose credential is suspended. It is a
// *CredentialError.
func NotHeard(user mimi.URI) error {
	return &CredentialError{credentials.Errorf(credentials.CodeSuspended, "leaf", "%s is not heard until it is valid again", user)}
}

// A reason is why an update is refused, with the code that says so.
type reason struct {
	code refusalCode
	text string
	refs [][]byte
}

type refusalCode uint8

const (
	notAllowed refusalCode = iota
	invalidProposal
	wrongEpoch
)

func (r *reason) Error() string { return r.text }

func refuse(format string, args ...any) error {
	return &reason{code: notAllowed, text: fmt.Sprintf(format, args...)}
}

func invalid(refs [][]byte, format string, args ...any) error {
	return &reason{code: invalidProposal, text: fmt.Sprintf(format, args...), refs: refs}
}

var errWrongEpoch = &reason{code: wrongEpoch, text: "the room is in another epoch"}
