package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// A Result is what became of a reservation.
type Result string

const (
	// Signed: the device answered and the signature was verified.
	Signed Result = "signed"
	// NotSigned: it is certain that the device made no signature. The guard
	// takes its decision back where no other reservation rests on it.
	NotSigned Result = "not-signed"
	// Unknown: the device may have signed: a time-out, a signature that did
	// not verify, a crash. For the guard this is as good as Signed.
	Unknown Result = "unknown"
	// Recorded: the entry is of one step and no device had a part in it.
	Recorded Result = "recorded"
)

// MaxResult bounds the octets that a device answers, and MaxClass an error
// class.
const (
	MaxResult = 16 << 10
	MaxClass  = 128

	maxOutcome = 5000 // as encoded, with every character escaped, and what stands around it
)

// classDropped is the error class of a signature that was made and not released,
// because what was written meanwhile does not allow it. The entry has the
// signature's digest.
const classDropped = "dropped"

// An Outcome is what became of a reservation.
type Outcome struct {
	Result Result
	// Signature is what the device answered and the caller will get. The
	// journal keeps its SHA-256, and the octets themselves only where the
	// intent has an idempotency key. It is nil for OpAgree, whose result is
	// secret.
	Signature []byte
	Device    string
	// ErrorClass says in a word why nothing is released; "" if something is.
	// It is a class, such as "device-timeout", and not a message.
	ErrorClass string
}

// An OutcomeRecord is an Outcome as it is kept; see IntentRecord.
type OutcomeRecord struct {
	Time       string `json:"time"`
	Result     Result `json:"result"`
	Signature  string `json:"signature_sha256,omitempty"`
	Device     string `json:"device,omitempty"`
	ErrorClass string `json:"error_class,omitempty"`
	Salt       string `json:"salt"` // hex of 16 random octets, so that a commitment does not give the entry away
}

func (o *Outcome) check() error {
	switch o.Result {
	case Signed, NotSigned, Unknown, Recorded:
	default:
		return fmt.Errorf("%w: %q is no result", ErrUsage, o.Result)
	}
	if len(o.Signature) > MaxResult || len(o.Device) > MaxName || len(o.ErrorClass) > MaxClass || !plain(o.Device) || !plain(o.ErrorClass) {
		return fmt.Errorf("%w: a part of the outcome is too long, or no text", ErrUsage)
	}
	if o.Result == NotSigned && o.Signature != nil {
		return fmt.Errorf("%w: a signature of what was not signed", ErrUsage)
	}
	return nil
}

// encode returns the kept form and, if there is a signature, its SHA-256.
func (o *Outcome) encode(now time.Time, salt []byte) (octets, digest []byte, err error) {
	r := OutcomeRecord{Time: now.UTC().Format(timeLayout), Result: o.Result, Device: o.Device,
		ErrorClass: o.ErrorClass, Salt: hex.EncodeToString(salt)}
	if o.Signature != nil {
		d := sha256.Sum256(o.Signature)
		digest, r.Signature = d[:], hex.EncodeToString(d[:])
	}
	octets, err = encode(&r)
	return octets, digest, err
}
