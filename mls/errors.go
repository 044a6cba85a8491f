package mls

import (
	"errors"
	"fmt"
)

// Errors that a caller branches on. They are wrapped with what was found.
var (
	ErrUnsupported    = errors.New("mls: not supported")
	ErrBadSignature   = errors.New("mls: signature does not verify")
	ErrBadMAC         = errors.New("mls: authentication tag does not match")
	ErrDecrypt        = errors.New("mls: message does not decrypt")
	ErrWrongGroup     = errors.New("mls: message is for another group")
	ErrWrongEpoch     = errors.New("mls: message is for another epoch")
	ErrOwnMessage     = errors.New("mls: message was sent by this client")
	ErrPendingCommit  = errors.New("mls: a commit is pending; merge or discard it first")
	ErrNoPending      = errors.New("mls: no commit is pending")
	ErrStale          = errors.New("mls: the group has moved on since this was staged")
	ErrInactive       = errors.New("mls: this client is no longer a member of the group")
	ErrReInitialized  = errors.New("mls: the group was closed by a ReInit; create or join its successor")
	ErrUnknownPSK     = errors.New("mls: pre-shared key is not known here")
	ErrNotForUs       = errors.New("mls: Welcome names none of the given KeyPackages")
	ErrNoTree         = errors.New("mls: GroupInfo carries no ratchet tree and none was given")
	ErrConsumed       = errors.New("mls: message key was used already or is too old")
	ErrExported       = errors.New("mls: the component's secret of this epoch was exported already")
	ErrTooFarAhead    = errors.New("mls: message generation is too far ahead")
	ErrProposals      = errors.New("mls: proposals of this epoch must be committed before application data is sent")
	ErrStateVersion   = errors.New("mls: state was written by a later release")
	ErrMissingPropose = errors.New("mls: commit refers to a proposal that was not received")
)

// A ParseError says which structure could not be decoded; the error that it
// wraps names the octet.
type ParseError struct {
	Struct string
	Err    error
}

func (e *ParseError) Error() string { return "mls: " + e.Struct + ": " + e.Err.Error() }
func (e *ParseError) Unwrap() error { return e.Err }

// A SignError says that the client's signer failed. The group is unchanged.
type SignError struct {
	Label string
	Err   error
}

func (e *SignError) Error() string { return fmt.Sprintf("mls: signing %s: %v", e.Label, e.Err) }
func (e *SignError) Unwrap() error { return e.Err }

// A ValidationError says which rule of docs/validation.md was broken.
type ValidationError struct {
	Rule   Rule
	Detail string // what was found; no secret
	Err    error  // the cause, or nil
}

func (e *ValidationError) Error() string {
	msg := fmt.Sprintf("mls: rule %v (section %s): %s", e.Rule, e.Rule.Section(), e.Detail)
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

func (e *ValidationError) Unwrap() error { return e.Err }

func broken(r Rule, format string, args ...any) error {
	return &ValidationError{Rule: r, Detail: fmt.Sprintf(format, args...)}
}

func brokenBy(r Rule, err error, format string, args ...any) error {
	return &ValidationError{Rule: r, Detail: fmt.Sprintf(format, args...), Err: err}
}
