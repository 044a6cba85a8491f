package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A Class says who can do something about an error.
type Class int

const (
	// ClassInput: the call itself is at fault; it will fail again.
	ClassInput Class = iota
	// ClassRetry: nothing is wrong with the call; the same call may succeed later.
	ClassRetry
	// ClassAuth: the authorization or the policy of the key was not met.
	// Trying again with the same authorization is pointless.
	ClassAuth
	// ClassGone: the TPM, or what was loaded in it, went away. The driver
	// has already tried to come back once.
	ClassGone
	// ClassOperator: a person has to act.
	ClassOperator
)

// String returns the class in one word.
func (c Class) String() string {
	switch c {
	case ClassInput:
		return "input"
	case ClassRetry:
		return "retry"
	case ClassAuth:
		return "auth"
	case ClassGone:
		return "gone"
	case ClassOperator:
		return "operator"
	}
	return fmt.Sprintf("Class(%d)", int(c))
}

// Errors that callers branch on. An [*Error] answers errors.Is with them.
var (
	ErrLockout    = errors.New("the TPM is in dictionary attack lockout")
	ErrAuth       = errors.New("the authorization value is wrong")
	ErrPolicy     = errors.New("the policy of the key is not satisfied")
	ErrGone       = errors.New("the TPM or its state went away")
	ErrMalformed  = errors.New("the TPM answered something that is not a TPM answer")
	ErrTimeout    = errors.New("the TPM did not answer in time")
	ErrClosed     = errors.New("the device is closed")
	ErrKeyUse     = errors.New("the key was not made for this use")
	ErrWrongTPM   = errors.New("this is not the TPM that was expected")
	ErrWrongKey   = errors.New("the key does not belong to this TPM or is damaged")
	ErrNotFound   = errors.New("no such object in the TPM")
	ErrDigestSize = errors.New("the digest has the wrong length for this key")
)

// An Error is the failure of one TPM command. It carries no secret.
type Error struct {
	Command string     // TPM2_Sign and the like; "" when no command was sent
	Address string     // the address of the device
	RC      tpm2.TPMRC // the response code, 0 when there was no answer
	Class   Class
	Advice  string // what to do next, one sentence; may be ""
	Err     error  // the cause: a tpm2.TPMRC, an I/O error, a sentinel of this package
}

// Error names the command, the device, the cause and the next step.
func (e *Error) Error() string {
	s := "tpm: "
	if e.Command != "" {
		s += e.Command + " on "
	}
	s += fmt.Sprintf("%s: %v", e.Address, e.Err)
	if e.Advice != "" {
		s += "; " + e.Advice
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is answers for the sentinels of this package that the response code stands for.
func (e *Error) Is(target error) bool {
	if e.RC == 0 {
		return false
	}
	m, ok := rcMeanings[canonical(e.RC)]
	return ok && m.is != nil && m.is == target
}

// ClassOf returns the class of an error, and [ClassInput] when it is not one
// of this package.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ClassInput
}

type rcMeaning struct {
	class  Class
	is     error // the sentinel, nil if none
	advice string
}

// rcMeanings is the one table from response codes (Part 2, 6.6.3) to what a
// caller can do about them. A code that is not in it is [ClassInput] when it is
// a format-one error (something in the command was refused) and
// [ClassOperator] otherwise.
var rcMeanings = map[tpm2.TPMRC]rcMeaning{
	tpm2.TPMRCLockout: {ClassOperator, ErrLockout,
		"wait for the lockout to recover or have the holder of the lockout authorization reset it (tpm2_dictionarylockout --clear-lockout); do not restart the TPM uncleanly"},
	tpm2.TPMRCAuthFail:        {ClassAuth, ErrAuth, "the failure was counted towards lockout; do not try again before checking the value"},
	tpm2.TPMRCBadAuth:         {ClassAuth, ErrAuth, "check the .auth file that belongs to the key"},
	tpm2.TPMRCAuthMissing:     {ClassAuth, ErrAuth, ""},
	tpm2.TPMRCAuthUnavailable: {ClassAuth, ErrPolicy, "the key may be used by its policy only"},
	tpm2.TPMRCPolicyFail:      {ClassAuth, ErrPolicy, "the PCRs differ from those the key is bound to, or the policy is another one"},
	tpm2.TPMRCPolicyCC:        {ClassAuth, ErrPolicy, "the policy forbids this command"},
	tpm2.TPMRCPCRChanged:      {ClassAuth, ErrPolicy, "the PCRs changed while the policy was evaluated"},

	tpm2.TPMRCRetry:          {ClassRetry, nil, "the TPM was busy twice in a row; try again"},
	tpm2.TPMRCYielded:        {ClassRetry, nil, "the TPM was busy; try again"},
	tpm2.TPMRCTesting:        {ClassRetry, nil, "the TPM is testing itself; try again in a second"},
	tpm2.TPMRCNVRate:         {ClassRetry, nil, "the TPM limits writes to its memory; try again later"},
	tpm2.TPMRCNVUnavailable:  {ClassRetry, nil, "the TPM's memory is not available now; try again later"},
	tpm2.TPMRCCanceled:       {ClassRetry, nil, "somebody cancelled the command; try again"},
	tpm2.TPMRCObjectMemory:   {ClassRetry, nil, "another client holds the TPM's slots; use the resource manager (device:/dev/tpmrm0) or stop the other client"},
	tpm2.TPMRCSessionMemory:  {ClassRetry, nil, "another client holds the TPM's sessions; use the resource manager (device:/dev/tpmrm0) or stop the other client"},
	tpm2.TPMRCSessionHandles: {ClassRetry, nil, "another client holds the TPM's sessions; flush them (tpm2_flushcontext -s)"},
	tpm2.TPMRCMemory:         {ClassRetry, nil, "another client holds the TPM's memory"},

	tpm2.TPMRCInitialize:  {ClassGone, ErrGone, "the TPM was reset"},
	tpm2.TPMRCReferenceH0: {ClassGone, ErrGone, "the TPM lost the object that was loaded; was it reset?"},
	tpm2.TPMRCReferenceH1: {ClassGone, ErrGone, "the TPM lost the object that was loaded; was it reset?"},
	tpm2.TPMRCReferenceS0: {ClassGone, ErrGone, "the TPM lost the session; was it reset?"},
	tpm2.TPMRCReferenceS1: {ClassGone, ErrGone, "the TPM lost the session; was it reset?"},

	tpm2.TPMRCFailure:   {ClassOperator, nil, "the TPM is in failure mode; restart it"},
	tpm2.TPMRCDisabled:  {ClassOperator, nil, "the command is disabled in this TPM"},
	tpm2.TPMRCHierarchy: {ClassOperator, nil, "the hierarchy is disabled; enable it in the firmware settings"},
	tpm2.TPMRCNVSpace:   {ClassOperator, nil, "the TPM's memory is full; remove persistent keys or indices that are no longer used"},
	tpm2.TPMRCLocality:  {ClassOperator, nil, ""},
}

// canonical strips the number of the handle, parameter or session from a
// format-one response code.
func canonical(rc tpm2.TPMRC) tpm2.TPMRC {
	if rc&0x80 == 0 {
		return rc
	}
	return rc &^ 0xf40
}

// isBadHandle reports whether a response code says that a handle of the
// command does not exist: TPM_RC_HANDLE or TPM_RC_VALUE about a handle, not
// about a parameter (0x040) or a session (0x800).
func isBadHandle(rc tpm2.TPMRC) bool {
	c := canonical(rc)
	return (c == tpm2.TPMRCHandle || c == tpm2.TPMRCValue) && rc&0x840 == 0 && rc&0x700 != 0
}

func meaningOf(rc tpm2.TPMRC) rcMeaning {
	if isBadHandle(rc) {
		return rcMeaning{ClassGone, nil, "the TPM does not know the object or session any more"}
	}
	if m, ok := rcMeanings[canonical(rc)]; ok {
		return m
	}
	if rc&0x80 != 0 {
		return rcMeaning{class: ClassInput}
	}
	return rcMeaning{class: ClassOperator}
}

// rcError turns a response code into the error of a command.
func rcError(command, address string, rc tpm2.TPMRC) *Error {
	m := meaningOf(rc)
	return &Error{Command: command, Address: address, RC: rc, Class: m.class, Advice: m.advice, Err: rc}
}

// commandError gives the failure of a command its type. Response codes keep
// their meaning, what the connection says is gone or a timeout, and anything
// else was an answer that could not be read.
func commandError(command, address string, err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		named := *known
		named.Command = command
		return &named
	}
	var rc tpm2.TPMRC
	if errors.As(err, &rc) {
		return rcError(command, address, rc)
	}
	e := &Error{Command: command, Address: address}
	switch {
	case errors.Is(err, ErrTimeout):
		e.Class, e.Err = ClassRetry, err
		e.Advice = "the connection was dropped and the next call makes a new one; check that no other program holds the TPM"
	case errors.Is(err, ErrGone):
		e.Class, e.Err = ClassGone, err
	case errors.Is(err, ErrMalformed):
		e.Class, e.Err = ClassGone, err
	default:
		e.Class, e.Err = ClassGone, fmt.Errorf("%w: %w", ErrMalformed, err)
		e.Advice = "if it happens again, do not trust this TPM or the path to it"
	}
	return e
}

// inputError reports a call that was refused before anything was sent.
func (d *Device) inputError(err error, format string, args ...any) *Error {
	if format != "" {
		err = fmt.Errorf("%w: %s", err, fmt.Sprintf(format, args...))
	}
	return &Error{Address: d.address.String(), Class: ClassInput, Err: err}
}

// isLost reports whether the connection, or everything that was loaded over
// it, is to be given up: the TPM is gone, cannot be understood, or is full of
// things that we did not put there.
func isLost(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Class == ClassGone || errors.Is(err, ErrTimeout) ||
		errors.Is(err, tpm2.TPMRCObjectMemory) || errors.Is(err, tpm2.TPMRCSessionMemory)
}
