package journal

import (
	"errors"
	"fmt"
)

// What callers branch on.
var (
	// ErrUsage: an argument is wrong.
	ErrUsage = errors.New("bad journal entry")
	// ErrInFlight: a request with this idempotency key is under way, or was cut
	// off by a crash and is not reconciled yet. Try again later.
	ErrInFlight = errors.New("a request with this idempotency key is still under way")
	// ErrIdempotency: the idempotency key was used for another request. Choose
	// a new one.
	ErrIdempotency = errors.New("the idempotency key was used for another request")
	// ErrClosed: the reservation has an outcome already, by Complete or by
	// Reconcile. What the device answered must not be released.
	ErrClosed = errors.New("the reservation has an outcome already")
	// ErrNotFound: there is no such entry, or nothing that could be reported.
	ErrNotFound = errors.New("no such journal entry")
	// ErrDown: the journal is closed, or its database failed. Nothing may be
	// signed or released. Errors of the database are wrapped beside it.
	ErrDown = errors.New("the journal cannot be written")
)

// A RepeatedError says that another request with the same idempotency key was
// signed while the device worked on this one. What it made must not be released;
// the Outcome is that of the other one, and what the caller gets.
type RepeatedError struct{ Outcome *Outcome }

func (e *RepeatedError) Error() string {
	return "another request with this idempotency key was signed meanwhile"
}

// A GuardError says that the guard refuses a request: a signature was made, or
// may have been, that this one would contradict. Of Reserve, nothing was written.
// Of Complete, the entry says that a signature was made and dropped.
type GuardError struct {
	Claim  Claim  // what the request says
	Number Number // what the guard has
	Fork   bool   // the number is the same and the content another
}

func (e *GuardError) Error() string {
	what := e.Claim.Kind.noun()
	if e.Fork {
		return fmt.Sprintf("refused: another %s %s was signed, or may have been, for %s", what, e.Claim.Number, e.Claim.Name)
	}
	return fmt.Sprintf("refused: %s %s of %s is behind %s, which was signed or may have been", what, e.Claim.Number, e.Claim.Name, e.Number)
}

// A TamperError says where the journal contradicts itself.
type TamperError struct {
	Index  uint64 // of the entry, or of the first one that is missing
	Reason string
}

func (e *TamperError) Error() string {
	return fmt.Sprintf("the journal was changed: entry %d: %s", e.Index, e.Reason)
}
