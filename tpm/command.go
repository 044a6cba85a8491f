package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A command is one of go-tpm's.
type command[R any] interface {
	Command() tpm2.TPMCC
	Execute(Transport, ...tpm2.Session) (*R, error)
}

// run executes a command on an attachment and gives its failure a type.
func run[R any](a *attachment, cmd command[R], extra ...tpm2.Session) (rsp *R, err error) {
	name := commandName(cmd.Command())
	defer func() {
		// go-tpm reads optional parameters without looking whether they
		// are there. Its panic is the TPM's bad answer.
		if p := recover(); p != nil {
			rsp, err = nil, a.malformed(name, "%v", p)
		}
	}()
	rsp, err = cmd.Execute(a.transport, extra...)
	if err != nil {
		return nil, commandError(name, a.address, err)
	}
	return rsp, nil
}

// malformed is the error for an answer that arrived whole but makes no sense.
func (a *attachment) malformed(command, format string, args ...any) *Error {
	err := fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	e := commandError(command, a.address, err)
	e.Advice = "if it happens again, do not trust this TPM or the path to it"
	return e
}

// flush removes an object or a session from the TPM (Part 3, 28.4). If the TPM will not have
// it, we do not know any more what is loaded, and everything is given up.
func (a *attachment) flush(h tpm2.TPMHandle) error {
	err := a.runRaw(tpm2.TPMCCFlushContext, uint32(h))
	var e *Error
	if errors.As(err, &e) && e.RC != 0 {
		unknown := *e
		unknown.Class, unknown.Err = ClassGone, fmt.Errorf("%w: %w", ErrGone, e.RC)
		return &unknown
	}
	return err
}

// policyRestart brings a policy session back to its initial state (Part 3,
// 11.2); go-tpm has no struct for it.
func (a *attachment) policyRestart(h tpm2.TPMHandle) error {
	return a.runRaw(ccPolicyRestart, uint32(h))
}

const ccPolicyRestart tpm2.TPMCC = 0x00000180

// runRaw sends a command that is one handle and is answered by success alone.
func (a *attachment) runRaw(cc tpm2.TPMCC, handle uint32) error {
	return a.acknowledged(cc, binary.BigEndian.AppendUint32(nil, handle))
}

// acknowledged sends a command without a session that is answered by success
// alone.
func (a *attachment) acknowledged(cc tpm2.TPMCC, parms []byte) error {
	body, err := a.request(cc, parms)
	if err == nil && !body.Empty() {
		err = a.malformed(commandName(cc), "%d octets too many", len(body))
	}
	return err
}

// commandNames are the commands this package sends (Part 2, 6.5.2).
var commandNames = map[tpm2.TPMCC]string{
	tpm2.TPMCCStartup:            "TPM2_Startup",
	tpm2.TPMCCShutdown:           "TPM2_Shutdown",
	tpm2.TPMCCStartAuthSession:   "TPM2_StartAuthSession",
	ccPolicyRestart:              "TPM2_PolicyRestart",
	tpm2.TPMCCCreate:             "TPM2_Create",
	tpm2.TPMCCLoad:               "TPM2_Load",
	tpm2.TPMCCReadPublic:         "TPM2_ReadPublic",
	tpm2.TPMCCActivateCredential: "TPM2_ActivateCredential",
	tpm2.TPMCCECDHZGen:           "TPM2_ECDH_ZGen",
	tpm2.TPMCCHMAC:               "TPM2_HMAC",
	tpm2.TPMCCHMACStart:          "TPM2_HMAC_Start",
	tpm2.TPMCCSequenceUpdate:     "TPM2_SequenceUpdate",
	tpm2.TPMCCSequenceComplete:   "TPM2_SequenceComplete",
	tpm2.TPMCCCertify:            "TPM2_Certify",
	tpm2.TPMCCCertifyCreation:    "TPM2_CertifyCreation",
	tpm2.TPMCCQuote:              "TPM2_Quote",
	tpm2.TPMCCHash:               "TPM2_Hash",
	tpm2.TPMCCSign:               "TPM2_Sign",
	tpm2.TPMCCPCRRead:            "TPM2_PCR_Read",
	tpm2.TPMCCPCRExtend:          "TPM2_PCR_Extend",
	tpm2.TPMCCPCRReset:           "TPM2_PCR_Reset",
	tpm2.TPMCCPolicySecret:       "TPM2_PolicySecret",
	tpm2.TPMCCPolicyAuthValue:    "TPM2_PolicyAuthValue",
	tpm2.TPMCCPolicyPCR:          "TPM2_PolicyPCR",
	tpm2.TPMCCPolicyGetDigest:    "TPM2_PolicyGetDigest",
	tpm2.TPMCCCreatePrimary:      "TPM2_CreatePrimary",
	tpm2.TPMCCContextLoad:        "TPM2_ContextLoad",
	tpm2.TPMCCContextSave:        "TPM2_ContextSave",
	tpm2.TPMCCFlushContext:       "TPM2_FlushContext",
	tpm2.TPMCCEvictControl:       "TPM2_EvictControl",
	tpm2.TPMCCGetCapability:      "TPM2_GetCapability",
	tpm2.TPMCCNVReadPublic:       "TPM2_NV_ReadPublic",
	tpm2.TPMCCNVRead:             "TPM2_NV_Read",
	tpm2.TPMCCGetRandom:          "TPM2_GetRandom",
}

func commandName(cc tpm2.TPMCC) string {
	if name, ok := commandNames[cc]; ok {
		return name
	}
	return fmt.Sprintf("TPM command %#x", uint32(cc))
}
