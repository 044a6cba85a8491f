package signer

import (
	"errors"
	"fmt"
)

// What callers branch on.
var (
	ErrUsage         = errors.New("bad request")           // an argument is wrong
	ErrNoKey         = errors.New("no such key")           // unknown key or version
	ErrKeyExists     = errors.New("key exists")            // the id is taken
	ErrKeyState      = errors.New("wrong key state")       // no active version, or a step was taken meanwhile
	ErrNoObject      = errors.New("no such device object") // the device does not have it
	ErrNoDevice      = errors.New("no such device")        // the name is not configured
	ErrDeviceSuspect = errors.New("device is suspect")     // it returned a wrong signature
	ErrBadSignature  = errors.New("device returned a wrong signature")
	ErrSchema        = errors.New("key store has another schema") // made by a newer release, or not ours
)

// A Refusal says that a request was understood, or could not be, and will not
// be signed. Nothing reached the device.
type Refusal struct {
	Key     KeyID
	Purpose Purpose
	Shape   Shape  // ShapeUnknown where the octets could not be classified
	Type    string // label, typ or the like; "" where there is none
	Reason  string
	Err     error
}

func (r *Refusal) Error() string {
	what := string(r.Shape)
	if r.Type != "" {
		what += fmt.Sprintf(" of type %q", clip(r.Type))
	}
	s := fmt.Sprintf("refused to sign %s", what)
	if r.Key != "" {
		s += fmt.Sprintf(" with key %s", r.Key)
	}
	if r.Purpose != "" {
		s += fmt.Sprintf(" (purpose %s)", r.Purpose)
	}
	return s + ": " + r.Reason
}

func (r *Refusal) Unwrap() error { return r.Err }

// refuse returns a Refusal of octets that are not what they seem to be.
func refuse(shape Shape, format string, args ...any) *Refusal {
	err := fmt.Errorf(format, args...)
	return &Refusal{Shape: shape, Reason: err.Error(), Err: errors.Unwrap(err)}
}
