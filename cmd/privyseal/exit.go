package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/client"
	signservice "github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/tpm"
)

// The exit codes. They are stable; scripts may rely on them.
const (
	exitOK      = 0
	exitLocal   = 1 // wrong usage, or an error on this machine
	exitRemote  = 2 // another machine answered with an error, or not at all
	exitRefused = 3 // understood and refused: by a purpose, a policy or a check
	exitDevice  = 4 // a token or TPM is not available or failed
	exitProblem = 5 // a check ran to its end and found problems
)

const exitCodesText = `Exit codes of privyseal:

  0  success
  1  wrong usage, or an error on this machine: a bad argument, a file, the
     configuration, the key store
  2  another machine answered with an error, or not at all
  3  understood and refused: the key's purpose or a policy does not permit it,
     or a credential, signature or evidence did not pass its checks
  4  a token or TPM is not available, failed, or is suspect; with --json the
     error says whether to retry, to log in again, or to call an operator
  5  a check ran to its end and found problems: token doctor, config check

Results are on standard output, everything else on standard error. With --json
an error is one JSON object: {"error":{"exit_code":4,"message":"..."}}.
`

func helpExitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit status means", Long: exitCodesText}
}

// usageError marks an error in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// remoteError marks an error of another machine.
type remoteError struct{ error }

func (e remoteError) Unwrap() error { return e.error }

// problemError ends a check that found problems; they have been printed.
type problemError struct{ count int }

func (e problemError) Error() string { return fmt.Sprintf("%d problem(s) found", e.count) }

// refusedError marks a refusal that has no type of its own.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// exitCode maps an error to the status that the program ends with.
func exitCode(err error) int {
	if remote, ok := errors.AsType[*client.Error](err); ok {
		return remoteExitCode(remote)
	}
	switch {
	case err == nil:
		return exitOK
	case is[problemError](err):
		return exitProblem
	case is[usageError](err), errors.Is(err, signer.ErrUsage), errors.Is(err, access.ErrUsage):
		return exitLocal
	case is[*signer.Refusal](err), is[*credentials.Error](err), is[refusedError](err), errors.Is(err, tpm.ErrEvidence), isLogFault(err):
		return exitRefused
	case isDevice(err):
		return exitDevice
	case is[remoteError](err):
		return exitRemote
	}
	return exitLocal
}

// remoteExitCode tells a refusal and a device of the signing service from its
// other errors.
func remoteExitCode(e *client.Error) int {
	switch e.Reason {
	case string(signservice.PolicyDenied), string(signservice.PurposeDenied), string(signservice.GuardDenied), string(signservice.RoleRequired):
		return exitRefused
	case string(signservice.DeviceRetry), string(signservice.DeviceOperator), string(signservice.DeviceSuspect):
		return exitDevice
	}
	return exitRemote
}

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

func isDevice(err error) bool {
	return is[*signer.DeviceError](err) || is[*hsm.Error](err) || is[*tpm.Error](err) ||
		errors.Is(err, hsm.ErrTokenGone) || errors.Is(err, hsm.ErrModule) || errors.Is(err, signer.ErrDeviceSuspect)
}

// fail prints an error to standard error and returns the exit status.
func (a *app) fail(err error) int {
	code := exitCode(err)
	if !a.json {
		a.note("privyseal: %v", err)
		return code
	}
	type body struct {
		ExitCode int           `json:"exit_code"`
		Message  string        `json:"message"`
		Device   string        `json:"device,omitempty"`
		Remedy   signer.Remedy `json:"remedy,omitempty"`
		Reason   string        `json:"reason,omitempty"` // code of a refused credential
	}
	b := body{ExitCode: code, Message: err.Error(), Reason: string(credentials.CodeOf(err))}
	if d, ok := errors.AsType[*signer.DeviceError](err); ok {
		b.Device, b.Remedy = d.Device, d.Remedy
	}
	if err := writeJSON(a.err, map[string]body{"error": b}); err != nil {
		return exitLocal
	}
	return code
}
