package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// Sentinels that callers branch on. An [*Error] answers errors.Is for those
// that fit its code.
var (
	ErrAmbiguous     = errors.New("more than one match")
	ErrTokenGone     = errors.New("token not found")
	ErrKeyNotFound   = errors.New("key not found")
	ErrKeyGone       = errors.New("key is gone from the token")
	ErrKeyChanged    = errors.New("another key is under this name")
	ErrKeyExists     = errors.New("a key with this id exists")
	ErrKeyUse        = errors.New("key was not made for this use")
	ErrWeakKey       = errors.New("key does not have the attributes that are required")
	ErrUnsupported   = errors.New("not supported by the token")
	ErrNotLoggedIn   = errors.New("not logged in")
	ErrPINRefused    = errors.New("PIN refused")
	ErrPINLocked     = errors.New("PIN locked")
	ErrPINFinalTry   = errors.New("one try is left before the PIN locks")
	ErrPINNotSet     = errors.New("user PIN is not set")
	ErrDigestLength  = errors.New("digest has the wrong length")
	ErrBadOutput     = errors.New("the module returned a wrong result")
	ErrBadPoint      = errors.New("bad public point")
	ErrModule        = errors.New("module does not work")
	ErrClosed        = errors.New("closed")
	ErrWorkerLost    = errors.New("worker process was lost")
	ErrMessageLength = errors.New("message is too long")
)

// An Error is a PKCS#11 function that failed, and what that means.
type Error struct {
	Module   string // path of the module
	Kind     Kind
	Slot     uint
	Token    string // label
	Key      string // label and id, when a key was involved
	Function string // C_Sign, ...
	Code     CKR
	Class    Class
	Advice   string
	Cause    string // text of a failure that is not a CKR_ code

	missing *KeyInfo // the key that a search did not find
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", e.Function)
	if e.Cause != "" {
		b.WriteString(e.Cause)
	} else {
		b.WriteString(e.Code.String())
	}
	fmt.Fprintf(&b, " (module %s", e.Module)
	if e.Token != "" {
		fmt.Fprintf(&b, ", slot %d, token %q", e.Slot, e.Token)
	}
	if e.Key != "" {
		fmt.Fprintf(&b, ", key %s", e.Key)
	}
	b.WriteString("): ")
	b.WriteString(e.Advice)
	if e.Retryable() {
		b.WriteString("; the call may be tried again")
	}
	return b.String()
}

// Retryable reports whether the same call may succeed later by itself.
func (e *Error) Retryable() bool { return e.Class.Retryable() }

// NeedsLogin reports whether the login was lost and could not be renewed.
func (e *Error) NeedsLogin() bool { return e.Class == ClassLogin }

// NeedsOperator reports whether a person has to act first.
func (e *Error) NeedsOperator() bool { return e.Class == ClassOperator }

// errorSentinels ties codes to sentinels.
var errorSentinels = map[CKR]error{
	pkcs11.CKR_PIN_INCORRECT:              ErrPINRefused,
	pkcs11.CKR_PIN_INVALID:                ErrPINRefused,
	pkcs11.CKR_PIN_LEN_RANGE:              ErrPINRefused,
	pkcs11.CKR_PIN_LOCKED:                 ErrPINLocked,
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED:   ErrPINNotSet,
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED: ErrKeyUse,
	pkcs11.CKR_TOKEN_NOT_PRESENT:          ErrTokenGone,
	pkcs11.CKR_DEVICE_REMOVED:             ErrTokenGone,
	pkcs11.CKR_SLOT_ID_INVALID:            ErrTokenGone,
}

// classSentinels ties classes to sentinels.
var classSentinels = map[Class]error{
	ClassUnsupported: ErrUnsupported,
	ClassLogin:       ErrNotLoggedIn,
	ClassKeyGone:     ErrKeyGone,
	ClassModule:      ErrModule,
}

// Is makes errors.Is answer for the sentinels of code and class, and for the
// bare code as miekg/pkcs11 has it.
func (e *Error) Is(target error) bool {
	if code, ok := target.(pkcs11.Error); ok {
		return e.Cause == "" && CKR(code) == e.Code
	}
	return target == errorSentinels[e.Code] || target == classSentinels[e.Class]
}

// ckr gives the code of an error of miekg/pkcs11.
func ckr(err error) (CKR, bool) {
	var code pkcs11.Error
	if errors.As(err, &code) {
		return CKR(code), true
	}
	var e *Error
	if errors.As(err, &e) && e.Cause == "" {
		return e.Code, true
	}
	return 0, false
}

// classOf gives the class of an error of this package, 0 when it has none.
func classOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return 0
}

// newError wraps what a PKCS#11 function returned.
func newError(module string, kind Kind, function string, err error) *Error {
	e := &Error{Module: module, Kind: kind, Function: function}
	code, ok := ckr(err)
	if !ok {
		e.Class, e.Cause, e.Advice = ClassModule, err.Error(), "see the cause"
		return e
	}
	v := judge(kind, code)
	e.Code, e.Class, e.Advice = code, v.class, v.advice
	return e
}

// Retryable reports whether the call that failed with err may succeed later
// without anybody changing the configuration.
func Retryable(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Retryable()
	}
	return errors.Is(err, ErrTokenGone) || errors.Is(err, ErrWorkerLost)
}
