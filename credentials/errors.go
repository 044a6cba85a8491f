package credentials

import (
	"errors"
	"fmt"
)

// A Code names one reason for which a credential, a presentation or a status
// is refused. Codes are stable: they appear in results, logs, metrics and the
// conformance tool, and scripts may compare them.
type Code string

// The codes, in the order in which a verifier meets them.
const (
	CodeMalformed     Code = "malformed"
	CodeDepth         Code = "depth"
	CodeAlg           Code = "alg"
	CodeCrit          Code = "crit"
	CodeKBTTyp        Code = "kbt-typ"
	CodeKBTCWTClaims  Code = "kbt-cwt-claims"
	CodeKCWTMissing   Code = "kcwt-missing"
	CodeKBMissing     Code = "kb-missing"
	CodeSDCWTTyp      Code = "sdcwt-typ"
	CodeSDJWTTyp      Code = "sdjwt-typ"
	CodeSDAlg         Code = "sd-alg"
	CodeSDClaimsEmpty Code = "sd-claims-empty"
	CodeClaimsKey     Code = "claims-key"
	CodeHashShape     Code = "hash-shape"
	CodeHashDuplicate Code = "hash-duplicate"

	CodeIssuerUnknown   Code = "issuer-unknown"
	CodeIssuerKey       Code = "issuer-key"
	CodeIssuerRole      Code = "issuer-role"
	CodeIssuerSignature Code = "issuer-signature"

	CodeClaimMissing   Code = "claim-missing"
	CodeClaimType      Code = "claim-type"
	CodeClaimsConflict Code = "claims-conflict"
	CodeTimeOrder      Code = "time-order"
	CodeExpired        Code = "expired"
	CodeNotYetValid    Code = "not-yet-valid"
	CodeIssuedInFuture Code = "issued-in-future"

	CodeCnfUnsupported  Code = "cnf-unsupported"
	CodeCnfCurve        Code = "cnf-curve"
	CodeCnfPrivateKey   Code = "cnf-private-key"
	CodeCnfLeafMismatch Code = "cnf-leaf-mismatch"

	CodeKBTSignature Code = "kbt-signature"
	CodeKBTClaims    Code = "kbt-claims"
	CodeKBTTime      Code = "kbt-time"
	CodeNonce        Code = "nonce"
	CodeAudience     Code = "audience"
	CodeSDHash       Code = "sd-hash"

	CodeDisclosureShape        Code = "disclosure-shape"
	CodeDisclosureForbiddenKey Code = "disclosure-forbidden-key"
	CodeDisclosureKeyCollision Code = "disclosure-key-collision"
	CodeDisclosureUnmatched    Code = "disclosure-unmatched"
	CodeDisclosureDuplicate    Code = "disclosure-duplicate"
	CodeDisclosureDecrypt      Code = "disclosure-decrypt"

	CodeChain             Code = "chain"
	CodeNameConstraint    Code = "name-constraint"
	CodeCriticalExtension Code = "critical-extension"
	CodeKeyUsage          Code = "key-usage"

	CodeIdentityMissing      Code = "identity-missing"
	CodeIdentityMalformed    Code = "identity-malformed"
	CodeIdentityHostMismatch Code = "identity-host-mismatch"
	CodeIdentityUnauthorized Code = "identity-unauthorized"
	CodeIdentityMismatch     Code = "identity-mismatch"
	CodeIdentityDuplicate    Code = "identity-duplicate"
	CodeIdentityDowngrade    Code = "identity-downgrade"
	CodeIdentityKeyChanged   Code = "identity-key-changed"

	CodeMultiConflict    Code = "multi-conflict"
	CodeMultiNested      Code = "multi-nested"
	CodeMultiUnsupported Code = "multi-unsupported"
	CodeBindingSignature Code = "binding-signature"
	CodePolicy           Code = "policy"

	CodeRevoked            Code = "revoked"
	CodeSuspended          Code = "suspended"
	CodeStatusURI          Code = "status-uri"
	CodeStatusInvalid      Code = "status-invalid"
	CodeStatusUnknownValue Code = "status-unknown-value"
	CodeStatusUnavailable  Code = "status-unavailable"
)

// An Error says why a credential was refused. It never carries a secret: no
// salt, no undisclosed value, no private key.
type Error struct {
	Code   Code   // which rule refused it
	Where  string // the part of the token, such as "KB-JWT header" or "payload.cnf"
	Detail string // what was found and what was expected
	Err    error  // the cause, or nil
}

// Errorf returns an *Error. A %w verb in format sets its cause.
func Errorf(code Code, where, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Where: where, Detail: err.Error(), Err: errors.Unwrap(err)}
}

func (e *Error) Error() string {
	s := string(e.Code)
	if e.Where != "" {
		s += " in " + e.Where
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error of the same Code, so that a caller
// can write errors.Is(err, &credentials.Error{Code: credentials.CodeExpired}).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && (t.Where == "" || t.Where == e.Where)
}

// Retryable reports whether the same token may be accepted later without
// change, because only something that is fetched was missing.
func (e *Error) Retryable() bool {
	return e.Code == CodeIssuerKey || e.Code == CodeStatusUnavailable
}

// CodeOf returns the Code of the first *Error in err's chain, or "" if there
// is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
