package service

import (
	"context"
	"errors"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/policy"
)

// ErrChecksum says that the octets of a request were changed on the way.
var ErrChecksum = errors.New("the checksum does not match the octets of the request")

// Forbidden says that a caller lacks a role or a grant.
type Forbidden struct{ Why string }

func (f *Forbidden) Error() string { return f.Why }

// An Action is what helps after an error.
type Action string

// The actions.
const (
	Retry       Action = "retry"        // the same request may succeed, after RetryAfter
	FixRequest  Action = "fix-request"  // it will not succeed as it is
	AskOperator Action = "ask-operator" // a person must do something
)

// A Reason names a kind of error. They are stable; programs may rely on them.
type Reason string

// The reasons.
const (
	BadRequest      Reason = "BAD_REQUEST"
	BadChecksum     Reason = "BAD_CHECKSUM"
	Unauthenticated Reason = "UNAUTHENTICATED"
	RoleRequired    Reason = "PERMISSION_DENIED"
	NotFound        Reason = "NOT_FOUND"
	AlreadyExists   Reason = "ALREADY_EXISTS"
	PurposeDenied   Reason = "PURPOSE_DENIED"
	PolicyDenied    Reason = "POLICY_DENIED"
	GuardDenied     Reason = "GUARD_DENIED"
	KeyState        Reason = "KEY_STATE"
	KeyReused       Reason = "IDEMPOTENCY_KEY_REUSED"
	InFlight        Reason = "IN_FLIGHT"
	Overloaded      Reason = "OVERLOADED"
	DeviceRetry     Reason = "DEVICE_UNAVAILABLE"
	DeviceOperator  Reason = "DEVICE_FAILED"
	DeviceSuspect   Reason = "DEVICE_SUSPECT"
	JournalDown     Reason = "JOURNAL_DOWN"
	StoreDown       Reason = "STORE_DOWN"
	Cancelled       Reason = "CANCELLED"
	DeadlinePassed  Reason = "DEADLINE_EXCEEDED"
	Internal        Reason = "INTERNAL"
)

// An Explanation says what an error means to a caller, and what to do.
type Explanation struct {
	Reason     Reason
	Action     Action
	RetryAfter time.Duration // for Retry
	Message    string
	Metadata   map[string]string
}

// retrySoon is when to ask again where nobody knows better.
const retrySoon = 500 * time.Millisecond

// Explain maps every error of this package and those below it. What nobody
// expected is Internal, with a message that gives nothing away.
func Explain(err error) *Explanation {
	e := explain(err)
	if e.Message == "" {
		e.Message = err.Error()
	}
	if e.Metadata == nil {
		e.Metadata = make(map[string]string)
	}
	return e
}

func explain(err error) *Explanation {
	if d, ok := errors.AsType[*policy.Denial](err); ok {
		return &Explanation{Reason: PolicyDenied, Action: FixRequest, Metadata: map[string]string{"rule": d.Rule, "policy": d.Policy}}
	}
	if g, ok := errors.AsType[*journal.GuardError](err); ok {
		return &Explanation{Reason: GuardDenied, Action: FixRequest, Metadata: map[string]string{"kind": string(g.Claim.Kind)}}
	}
	if o, ok := errors.AsType[*admit.Overload](err); ok {
		return &Explanation{Reason: Overloaded, Action: Retry, RetryAfter: o.RetryAfter}
	}
	if r, ok := errors.AsType[*signer.Refusal](err); ok {
		return &Explanation{Reason: PurposeDenied, Action: FixRequest, Metadata: map[string]string{"shape": string(r.Shape)}}
	}
	if _, ok := errors.AsType[*Forbidden](err); ok {
		return &Explanation{Reason: RoleRequired, Action: FixRequest}
	}
	if errors.Is(err, journal.ErrDown) {
		return &Explanation{Reason: JournalDown, Action: Retry, RetryAfter: retrySoon, Message: journal.ErrDown.Error()}
	}
	if d, ok := errors.AsType[*signer.DeviceError](err); ok {
		return explainDevice(d, err)
	}
	return explainSentinel(err)
}

// explainDevice keeps the device's own words: they name module, function and
// code, never a secret.
func explainDevice(d *signer.DeviceError, err error) *Explanation {
	e := &Explanation{Metadata: map[string]string{"device": d.Device, "remedy": string(d.Remedy)}}
	switch {
	case errors.Is(err, signer.ErrDeviceSuspect), errors.Is(err, signer.ErrBadSignature):
		e.Reason, e.Action = DeviceSuspect, AskOperator
	case d.Remedy == signer.RemedyOperator:
		e.Reason, e.Action = DeviceOperator, AskOperator
	default: // the service logs in again by itself
		e.Reason, e.Action, e.RetryAfter = DeviceRetry, Retry, retrySoon
	}
	return e
}

func explainSentinel(err error) *Explanation {
	for _, row := range []struct {
		is  error
		out Explanation
	}{
		{ErrChecksum, Explanation{Reason: BadChecksum, Action: Retry}},
		{signer.ErrUsage, Explanation{Reason: BadRequest, Action: FixRequest}},
		{access.ErrUsage, Explanation{Reason: BadRequest, Action: FixRequest}},
		{journal.ErrUsage, Explanation{Reason: BadRequest, Action: FixRequest}},
		{access.ErrUnknown, Explanation{Reason: Unauthenticated, Action: AskOperator}},
		{access.ErrExists, Explanation{Reason: AlreadyExists, Action: FixRequest}},
		{access.ErrNoCaller, Explanation{Reason: NotFound, Action: FixRequest}},
		{signer.ErrKeyExists, Explanation{Reason: AlreadyExists, Action: FixRequest}},
		{signer.ErrNoKey, Explanation{Reason: NotFound, Action: FixRequest}},
		{journal.ErrNotFound, Explanation{Reason: NotFound, Action: FixRequest}},
		{signer.ErrKeyState, Explanation{Reason: KeyState, Action: FixRequest}},
		{signer.ErrNoDevice, Explanation{Reason: DeviceOperator, Action: AskOperator}},
		{signer.ErrDeviceSuspect, Explanation{Reason: DeviceSuspect, Action: AskOperator}},
		{journal.ErrIdempotency, Explanation{Reason: KeyReused, Action: FixRequest}},
		{journal.ErrInFlight, Explanation{Reason: InFlight, Action: Retry, RetryAfter: retrySoon}},
		{journal.ErrClosed, Explanation{Reason: InFlight, Action: Retry, RetryAfter: retrySoon}},
		{context.DeadlineExceeded, Explanation{Reason: DeadlinePassed, Action: Retry}},
		{context.Canceled, Explanation{Reason: Cancelled, Action: Retry}},
	} {
		if errors.Is(err, row.is) {
			return &row.out
		}
	}
	if _, ok := errors.AsType[*access.StoreError](err); ok {
		return &Explanation{Reason: StoreDown, Action: Retry, RetryAfter: retrySoon, Message: "the database of callers failed"}
	}
	return &Explanation{Reason: Internal, Action: AskOperator, Message: "the service failed; its log says why"}
}
