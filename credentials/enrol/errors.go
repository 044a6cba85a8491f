package enrol

import "fmt"

// A Reason names why an enrolment was refused. Reasons are stable: with
// "enrol-" before them they are the codes of problem documents.
type Reason string

// problemPrefix is what a Reason has before it as the code of a problem document.
const problemPrefix = "enrol-"

// The reasons, in the order in which they are met.
const (
	ReasonCode        Reason = "code"        // never given out, ended or used; which of these is not told
	ReasonMethod      Reason = "method"      // the issuer does not take this kind of proof
	ReasonEndorsement Reason = "endorsement" // the TPM is not believed, or its keys are not what they should be
	ReasonLevel       Reason = "level"       // the invitation asks for a higher level
	ReasonSession     Reason = "session"     // never given out, ended or used
	ReasonRequest     Reason = "request"     // the PKCS#10 request is not for the invited names over the nonce
	ReasonActivation  Reason = "activation"  // the secret is wrong: not the TPM with both keys
	ReasonEvidence    Reason = "evidence"    // the key is not certified by the attestation key over the nonce
	ReasonStatement   Reason = "statement"   // not signed by a believed appliance, or of a weak key
)

// An Error is a refusal. It carries no secret.
type Error struct {
	Reason Reason
	Err    error
}

// Error names the reason and what was found.
func (e *Error) Error() string { return fmt.Sprintf("enrolment refused (%s): %v", e.Reason, e.Err) }

// Unwrap returns what was found.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error of the same Reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

func refuse(r Reason, format string, args ...any) error {
	return &Error{r, fmt.Errorf(format, args...)}
}
