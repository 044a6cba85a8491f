package signer

import (
	"encoding/json"
	"errors"
	"time"
)

// Evidence is what we know about how a key was made and how it is kept. It is
// either a claim or a proof, never both, and the two are never called by the
// same name: [AttributeClaim] is what a PKCS#11 module says about its own
// object, [Certification] is a statement signed by a TPM that anyone can check.
type Evidence struct {
	Claim *AttributeClaim `json:"claim,omitempty"`
	Proof *Certification  `json:"proof,omitempty"`
}

// The kinds of Evidence.
const (
	EvidenceClaim = "claim"
	EvidenceProof = "proof"
)

// Kind returns "claim", "proof" or "" for none.
func (e *Evidence) Kind() string {
	switch {
	case e == nil:
		return ""
	case e.Proof != nil:
		return EvidenceProof
	case e.Claim != nil:
		return EvidenceClaim
	}
	return ""
}

// check refuses evidence that calls itself both.
func (e *Evidence) check() error {
	if e != nil && (e.Claim == nil) == (e.Proof == nil) {
		return errors.New("evidence must be exactly one of a claim and a proof")
	}
	return nil
}

// An AttributeClaim is what a PKCS#11 module answered when it was asked for
// the attributes of a new object (PKCS#11 3.0 section 4.9). It is the module's
// word: a software module gives the same answers.
type AttributeClaim struct {
	Sensitive        bool      `json:"sensitive"`
	AlwaysSensitive  bool      `json:"always_sensitive"`
	Extractable      bool      `json:"extractable"`
	NeverExtractable bool      `json:"never_extractable"`
	Local            bool      `json:"local"`
	Module           string    `json:"module,omitempty"` // the module's description of itself
	Token            string    `json:"token,omitempty"`  // label and serial of the token
	ReadAt           time.Time `json:"read_at"`
}

// Weaknesses names the attributes that are not what a device key should have.
func (c *AttributeClaim) Weaknesses() []string {
	var weak []string
	for _, a := range []struct {
		ok   bool
		name string
	}{
		{c.Sensitive, "CKA_SENSITIVE is false"},
		{c.AlwaysSensitive, "CKA_ALWAYS_SENSITIVE is false"},
		{!c.Extractable, "CKA_EXTRACTABLE is true"},
		{c.NeverExtractable, "CKA_NEVER_EXTRACTABLE is false"},
		{c.Local, "CKA_LOCAL is false"},
	} {
		if !a.ok {
			weak = append(weak, a.name)
		}
	}
	return weak
}

// A Certification is a TPM's signed statement about a key that it made
// (TPM2_CertifyCreation or TPM2_Certify, TPM 2.0 part 3 section 18). Statement
// has all that a verifier needs, in the encoding of the tpm package. It proves
// what the attestation key says; that this attestation key lives in a genuine
// TPM is for its endorsement certificate to prove.
type Certification struct {
	Format              string          `json:"format"` // such as "tpm2-certify-creation"
	FixedTPM            bool            `json:"fixed_tpm"`
	FixedParent         bool            `json:"fixed_parent"`
	SensitiveDataOrigin bool            `json:"sensitive_data_origin"`
	AttestationKey      string          `json:"attestation_key"` // Name of the key that signed, hexadecimal
	Statement           json.RawMessage `json:"statement"`
	VerifiedAt          time.Time       `json:"verified_at"` // when we checked the statement
}

// Weaknesses names the certified attributes that are not what a device key
// should have.
func (c *Certification) Weaknesses() []string {
	var weak []string
	for _, a := range []struct {
		ok   bool
		name string
	}{
		{c.FixedTPM, "fixedTPM is clear"},
		{c.FixedParent, "fixedParent is clear"},
		{c.SensitiveDataOrigin, "sensitiveDataOrigin is clear"},
	} {
		if !a.ok {
			weak = append(weak, a.name)
		}
	}
	return weak
}

// Weaknesses names what the evidence shows to be weaker than wanted.
func (e *Evidence) Weaknesses() []string {
	switch e.Kind() {
	case EvidenceClaim:
		return e.Claim.Weaknesses()
	case EvidenceProof:
		return e.Proof.Weaknesses()
	}
	return []string{"there is no evidence of how the key was made"}
}
