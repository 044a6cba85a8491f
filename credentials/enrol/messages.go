package enrol

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/strictjson"
)

// Bounds of what a device sends.
const (
	maxBody         = 128 << 10
	maxPublicArea   = 2048
	maxCertificates = 4
	maxCertificate  = 8 << 10
	maxAnswer       = 64
	maxEvidence     = 64 << 10
	maxRequest      = 16 << 10
	maxText         = 128
)

// A BeginRequest begins an enrolment.
type BeginRequest struct {
	Code string `json:"code"`
	TPM  *TPM   `json:"tpm,omitempty"` // without it, the device finishes with a Statement
}

// A TPM is what a TPM shows of itself. The public areas are TPMT_PUBLIC.
type TPM struct {
	EK             []byte   `json:"ek"`
	EKCertificates [][]byte `json:"ek_certificates,omitempty"` // DER, the endorsement key's first
	AK             []byte   `json:"ak"`
}

// A Challenge is what the device must answer.
type Challenge struct {
	Session    string      `json:"session"`
	Nonce      []byte      `json:"nonce"`
	Audience   string      `json:"audience"`             // the issuer's URL, for a Statement
	Credential *Credential `json:"credential,omitempty"` // to be activated by the TPM
	Client     string      `json:"client"`               // the names of the request
	User       string      `json:"user"`
	Expires    time.Time   `json:"expires_at"`
}

// A Credential has a secret that only a TPM with the endorsement key and the
// attestation key can read.
type Credential struct {
	Blob   []byte `json:"blob"`   // TPMS_ID_OBJECT
	Secret []byte `json:"secret"` // the seed, encrypted to the endorsement key
}

// A FinishRequest answers a challenge: with Answer and Evidence from a TPM, or
// with a Statement.
type FinishRequest struct {
	Session   string          `json:"session"`
	Request   []byte          `json:"request"`             // PKCS#10, DER
	Answer    []byte          `json:"answer,omitempty"`    // the secret of the Credential
	Evidence  json.RawMessage `json:"evidence,omitempty"`  // privyseal-tpm-evidence-1
	Statement string          `json:"statement,omitempty"` // compact JWS
}

// An Issued is what the device gets.
type Issued struct {
	ID          string    `json:"id"`
	Type        string    `json:"type"`
	Credential  string    `json:"credential"` // PEM chain, or token; an Issuer may leave it to Chain
	Attestation string    `json:"attestation"`
	NotAfter    time.Time `json:"not_after"`
	Chain       [][]byte  `json:"-"` // a certificate and those above it but the root, DER
}

func parseBegin(b []byte) (*BeginRequest, error) {
	r := new(BeginRequest)
	if err := strictjson.Decode(b, maxBody, r); err != nil {
		return nil, err
	}
	if len(r.Code) > maxText {
		return nil, fmt.Errorf("code: more than %d octets", maxText)
	}
	return r, r.TPM.check()
}

func (t *TPM) check() error {
	if t == nil {
		return nil
	}
	for name, area := range map[string][]byte{"ek": t.EK, "ak": t.AK} {
		if len(area) == 0 || len(area) > maxPublicArea {
			return fmt.Errorf("tpm.%s: a public area of %d octets, want 1 to %d", name, len(area), maxPublicArea)
		}
	}
	if len(t.EKCertificates) > maxCertificates {
		return fmt.Errorf("tpm.ek_certificates: more than %d", maxCertificates)
	}
	for _, c := range t.EKCertificates {
		if len(c) == 0 || len(c) > maxCertificate {
			return fmt.Errorf("tpm.ek_certificates: a certificate of %d octets, want 1 to %d", len(c), maxCertificate)
		}
	}
	return nil
}

func parseFinish(b []byte) (*FinishRequest, error) {
	r := new(FinishRequest)
	if err := strictjson.Decode(b, maxBody, r); err != nil {
		return nil, err
	}
	switch {
	case len(r.Session) == 0 || len(r.Session) > maxText:
		return nil, fmt.Errorf("session: %d octets, want 1 to %d", len(r.Session), maxText)
	case len(r.Request) == 0 || len(r.Request) > maxRequest:
		return nil, fmt.Errorf("request: %d octets, want 1 to %d", len(r.Request), maxRequest)
	case len(r.Answer) > maxAnswer, len(r.Evidence) > maxEvidence, len(r.Statement) > maxStatement:
		return nil, fmt.Errorf("answer, evidence or statement is longer than any can be")
	case (len(r.Evidence) > 0) != (len(r.Answer) > 0), (len(r.Evidence) > 0) == (r.Statement != ""):
		return nil, fmt.Errorf("want answer and evidence of a TPM, or a statement of an appliance")
	}
	return r, nil
}
