package tpm

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A Credential is a secret that only the TPM with a certain endorsement key
// can read, and only if the attestation key of a certain Name is loaded in it
// (Part 1, 24).
type Credential struct {
	Blob   []byte `json:"blob"`   // TPMS_ID_OBJECT
	Secret []byte `json:"secret"` // the seed, encrypted to the endorsement key
}

// A Challenge is the verifier's side of such a credential.
type Challenge struct {
	AKName []byte // the attestation key that is believed once the answer is right
	answer []byte
}

// challengeSize is the length of the secret; it fits the digest of every name
// algorithm.
const challengeSize = 32

// NewChallenge makes a challenge that is answered with
// [Device.ActivateCredential]: that proves that the attestation key is in the
// TPM of the endorsement key, which the verifier knows from its certificate
// (see [VerifyEKCertificate]) or has on file. It needs no TPM.
func NewChallenge(ekPublic, akPublic []byte) (*Challenge, *Credential, error) {
	ak, err := readAK(akPublic)
	if err != nil {
		return nil, nil, err
	}
	secret := randomBytes(challengeSize)
	c, err := MakeCredential(ekPublic, ak.name, secret)
	if err != nil {
		return nil, nil, err
	}
	return &Challenge{AKName: ak.name, answer: secret}, c, nil
}

// Answer returns the right answer, for who keeps a challenge between processes and
// seals it: whoever has it can answer without a TPM. [ResumeChallenge] takes it.
func (c *Challenge) Answer() []byte { return bytes.Clone(c.answer) }

// ResumeChallenge returns a challenge that was made before, for an attestation key
// (TPMT_PUBLIC).
func ResumeChallenge(akPublic, answer []byte) (*Challenge, error) {
	ak, err := readAK(akPublic)
	if err != nil {
		return nil, err
	}
	if len(answer) != challengeSize {
		return nil, fmt.Errorf("tpm: an answer of %d octets, want %d", len(answer), challengeSize)
	}
	return &Challenge{AKName: ak.name, answer: bytes.Clone(answer)}, nil
}

// Check reports whether an answer is the right one, in constant time.
func (c *Challenge) Check(answer []byte) bool {
	return len(c.answer) == challengeSize && subtle.ConstantTimeCompare(c.answer, answer) == 1
}

// MakeCredential encrypts a secret of at most 32 octets to an endorsement key,
// given by its TPMT_PUBLIC, for an object of the Name given.
func MakeCredential(ekPublic, name, secret []byte) (*Credential, error) {
	public, _, err := readPublicArea(ekPublic)
	if err != nil {
		return nil, refuse("ek", "%w", err)
	}
	if err := checkEKAttributes(public); err != nil {
		return nil, refuse("ek", "%w", err)
	}
	if _, err := anyPublicKey(public); err != nil {
		return nil, refuse("ek", "%w", err)
	}
	if len(secret) == 0 || len(secret) > challengeSize {
		return nil, fmt.Errorf("tpm: a credential of %d octets; it has 1 to %d", len(secret), challengeSize)
	}
	key, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return nil, refuse("ek", "%w", err)
	}
	blob, encrypted, err := tpm2.CreateCredential(rand.Reader, key, name, secret)
	if err != nil {
		return nil, refuse("ek", "%w", err)
	}
	return &Credential{Blob: blob, Secret: encrypted}, nil
}
