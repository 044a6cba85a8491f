package main

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/tpm"
)

// Believe implements enrol.Endorser.
func (p *ekPolicy) Believe(t *enrol.TPM) (enrol.Believed, error) {
	level, err := p.judge(t.EK, t.EKCertificates)
	if err != nil {
		return nil, err
	}
	challenge, credential, err := tpm.NewChallenge(t.EK, t.AK)
	if err != nil {
		return nil, err
	}
	return &believedTPM{t, level, challenge, credential}, nil
}

// tpmState is what is kept of a TPM between the two steps of an enrolment.
type tpmState struct {
	TPM    *enrol.TPM `json:"tpm"`
	Answer []byte     `json:"answer"`
}

// State implements enrol.Resumable.
func (b *believedTPM) State() ([]byte, error) {
	return json.Marshal(tpmState{b.tpm, b.challenge.Answer()})
}

// Resume implements enrol.Resumer.
func (p *ekPolicy) Resume(state []byte) (enrol.Believed, error) {
	var s tpmState
	if err := json.Unmarshal(state, &s); err != nil || s.TPM == nil {
		return nil, errors.New("not the state of an enrolment")
	}
	level, err := p.judge(s.TPM.EK, s.TPM.EKCertificates)
	if err != nil {
		return nil, err
	}
	challenge, err := tpm.ResumeChallenge(s.TPM.AK, s.Answer)
	if err != nil {
		return nil, err
	}
	return &believedTPM{s.TPM, level, challenge, nil}, nil
}

// A believedTPM is a remote TPM whose endorsement key is believed.
type believedTPM struct {
	tpm        *enrol.TPM
	level      credentials.AttestationLevel
	challenge  *tpm.Challenge
	credential *tpm.Credential // nil once the enrolment was resumed: it has been sent
}

func (b *believedTPM) Level() credentials.AttestationLevel { return b.level }

func (b *believedTPM) Credential() enrol.Credential {
	return enrol.Credential{Blob: b.credential.Blob, Secret: b.credential.Secret}
}

func (b *believedTPM) Activated(answer []byte) bool { return b.challenge.Check(answer) }

// Certified verifies the evidence of a key. What is kept of it names the
// endorsement key that was judged, and no other.
func (b *believedTPM) Certified(nonce, evidence []byte) (crypto.PublicKey, []byte, error) {
	e, err := tpm.ParseEvidence(evidence)
	if err != nil {
		return nil, nil, err
	}
	if len(e.EK) > 0 && !bytes.Equal(e.EK, b.tpm.EK) {
		return nil, nil, errors.New("the evidence names another endorsement key than the enrolment")
	}
	e.EK, e.EKCertificates = b.tpm.EK, b.tpm.EKCertificates
	v, err := (&tpm.Verifier{Nonce: nonce, AKName: b.challenge.AKName}).Verify(e)
	if err != nil {
		return nil, nil, err
	}
	if v.Key == nil {
		return nil, nil, errors.New("a MAC key has no credential")
	}
	kept, err := e.Marshal()
	return v.Key, kept, err
}
