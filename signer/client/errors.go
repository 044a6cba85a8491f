package client

import (
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
)

// An Action is what helps after an error.
type Action string

// The actions.
const (
	Retry       Action = "retry"        // the same request may succeed later
	FixRequest  Action = "fix-request"  // it will not succeed as it is
	AskOperator Action = "ask-operator" // a person must do something
)

// An Error is what the service answered, or that it did not.
type Error struct {
	Reason     string // such as "POLICY_DENIED"; "" where no service answered
	Action     Action
	RetryAfter time.Duration
	Message    string
	Metadata   map[string]string // such as "rule"
	Err        error             // *connect.Error
}

func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("signing service: %s", e.Message)
	}
	return fmt.Sprintf("signing service: %s (%s, %s)", e.Message, e.Reason, e.Action)
}

func (e *Error) Unwrap() error { return e.Err }

// ErrCorrupt says that an answer was changed on its way, or is not what was
// asked for, as often as it was asked for.
var ErrCorrupt = errors.New("the answer of the signing service does not check")

// Explain turns an error of the API's calls into an *Error.
func Explain(err error) error {
	ce, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return err
	}
	e := &Error{Action: FixRequest, Message: ce.Message(), Err: ce}
	switch ce.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeAborted, connect.CodeResourceExhausted:
		e.Action = Retry
	case connect.CodeUnknown, connect.CodeInternal:
		e.Action = AskOperator
	}
	for _, d := range ce.Details() {
		m, err := d.Value()
		if err != nil {
			continue
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Metadata = m.GetReason(), m.GetMetadata()
			e.Action = Action(m.GetMetadata()["action"])
		case *errdetails.RetryInfo:
			e.RetryAfter = m.GetRetryDelay().AsDuration()
		}
	}
	return e
}

// explainFailure is Explain for an item of a batch.
func explainFailure(f *signerv1.Failure) error {
	var code connect.Code
	if code.UnmarshalText([]byte(f.GetCode())) != nil {
		code = connect.CodeUnknown
	}
	return &Error{Reason: f.GetReason(), Action: Action(f.GetAction()), RetryAfter: time.Duration(f.GetRetryAfterMs()) * time.Millisecond,
		Message: f.GetMessage(), Metadata: f.GetMetadata(), Err: connect.NewError(code, errors.New(f.GetMessage()))}
}
