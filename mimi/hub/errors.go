package hub

import (
	"errors"
	"fmt"

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
