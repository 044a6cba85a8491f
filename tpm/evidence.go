package tpm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// An Attestation is a statement signed by a TPM.
type Attestation struct {
	Statement []byte `json:"statement"` // TPMS_ATTEST (Part 2, 10.12.12)
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
}

// A Quote is an attestation of the values of PCRs, with the values.
type Quote struct {
	Attestation
	PCRs map[int][]byte `json:"pcrs"` // of the SHA-256 bank
}

// EvidenceFormat is the format that this version writes and reads.
const EvidenceFormat = "privyseal-tpm-evidence-1"

// Evidence is what a TPM says about a key of its own. It is made by
// [Device.Attest], verified anywhere by [Verifier.Verify], and kept in JSON.
//
// That the attestation key is in the TPM that the endorsement certificate
// speaks of, is not in it: that takes a conversation (see [NewChallenge]),
// whose result is the Name of the attestation key, for [Verifier].AKName.
type Evidence struct {
	Format string `json:"format"`
	Nonce  []byte `json:"nonce"` // the verifier's, in extraData of each statement
	AK     []byte `json:"ak"`    // TPMT_PUBLIC of the attestation key
	Key    []byte `json:"key"`   // TPMT_PUBLIC of the key

	Certification *Attestation `json:"certification"`          // TPM2_Certify: the key is loaded in this TPM
	Creation      *Attestation `json:"creation,omitempty"`     // TPM2_CertifyCreation: the key was made in it
	CreationData  []byte       `json:"creationData,omitempty"` // TPMS_CREATION_DATA
	Quote         *Quote       `json:"quote,omitempty"`        // TPM2_Quote

	EK             []byte   `json:"ek,omitempty"`             // TPMT_PUBLIC of the endorsement key
	EKCertificates [][]byte `json:"ekCertificates,omitempty"` // DER, the endorsement key's first
}

// ErrEvidence is wrapped by every error about evidence.
var ErrEvidence = errors.New("the evidence is refused")

// An EvidenceError says which check failed. Its names are stable.
type EvidenceError struct {
	Check string // format, nonce, magic, type, name, ak-attributes, ak-name, signature, ...
	Err   error
}

// Error names the check and the reason.
func (e *EvidenceError) Error() string {
	return fmt.Sprintf("tpm: %v: check %s: %v", ErrEvidence, e.Check, e.Err)
}

// Unwrap returns ErrEvidence and the reason.
func (e *EvidenceError) Unwrap() []error { return []error{ErrEvidence, e.Err} }

func refuse(check, format string, args ...any) error {
	return &EvidenceError{Check: check, Err: fmt.Errorf(format, args...)}
}

// Bounds of evidence.
const (
	maxEvidence     = 64 << 10
	maxStatement    = 1024
	maxSignature    = 512
	maxCreationData = 1024
	maxCertificates = 4
	maxCertificate  = 8 << 10
	minNonce        = 16
	maxNonce        = 48 // qualifyingData has room for it in every TPM
)

// Marshal writes evidence in JSON.
func (e *Evidence) Marshal() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// ParseEvidence reads evidence. But for white space there is one form of it:
// unknown, repeated, reordered and differently spelled members are refused.
func ParseEvidence(b []byte) (*Evidence, error) {
	if len(b) > maxEvidence {
		return nil, refuse("format", "longer than %d octets", maxEvidence)
	}
	e := new(Evidence)
	if err := json.Unmarshal(b, e); err != nil {
		return nil, refuse("format", "%w", err)
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	again, err := json.Marshal(e)
	if err != nil {
		return nil, refuse("format", "%w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return nil, refuse("format", "%w", err)
	}
	if !bytes.Equal(compact.Bytes(), again) {
		return nil, refuse("format", "members are unknown, repeated, out of order or not in their one form")
	}
	return e, nil
}

// check holds the sizes against the bounds and looks for what must be there.
func (e *Evidence) check() error {
	switch {
	case e.Format != EvidenceFormat:
		return refuse("format", "format %.40q is not %q", e.Format, EvidenceFormat)
	case len(e.Nonce) < minNonce || len(e.Nonce) > maxNonce:
		return refuse("format", "a nonce of %d octets; it has %d to %d", len(e.Nonce), minNonce, maxNonce)
	case len(e.AK) == 0 || len(e.AK) > maxPublic || len(e.Key) == 0 || len(e.Key) > maxPublic || len(e.EK) > maxPublic:
		return refuse("format", "a public area is missing or too long")
	case e.Certification == nil:
		return refuse("format", "certification is missing")
	case (e.Creation == nil) != (len(e.CreationData) == 0):
		return refuse("format", "creation and creationData belong together")
	case len(e.CreationData) > maxCreationData:
		return refuse("format", "creationData is too long")
	case e.Quote != nil && (len(e.Quote.PCRs) == 0 || len(e.Quote.PCRs) > pcrCount):
		return refuse("format", "a quote of %d PCRs", len(e.Quote.PCRs))
	}
	return errors.Join(e.checkStatements(), e.checkCertificates())
}

func (e *Evidence) checkStatements() error {
	statements := []*Attestation{e.Certification, e.Creation}
	if e.Quote != nil {
		statements = append(statements, &e.Quote.Attestation)
	}
	for _, a := range statements {
		if a == nil {
			continue
		}
		if len(a.Statement) == 0 || len(a.Statement) > maxStatement || len(a.Signature) == 0 || len(a.Signature) > maxSignature {
			return refuse("format", "a statement or signature is missing or too long")
		}
	}
	return nil
}

func (e *Evidence) checkCertificates() error {
	if len(e.EKCertificates) > maxCertificates {
		return refuse("format", "more than %d certificates", maxCertificates)
	}
	for _, c := range e.EKCertificates {
		if len(c) == 0 || len(c) > maxCertificate {
			return refuse("format", "a certificate of %d octets", len(c))
		}
	}
	if len(e.EKCertificates) > 0 && len(e.EK) == 0 {
		return refuse("format", "certificates without an endorsement key")
	}
	return nil
}
