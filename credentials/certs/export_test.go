package certs

import (
	"crypto"
	"crypto/x509"
	"errors"
)

// Lint checks a draft as Prepare does.
func (i *Issuer) Lint(kind Kind, draft *x509.Certificate, pub crypto.PublicKey, names []string) error {
	return i.lint(kind, draft, pub, names)
}

// SPKI is the key of a request as it goes into a certificate.
func SPKI(r *Request) []byte { return r.spki }

// ReadRequest is ParseRequest but for the signature.
func ReadRequest(der []byte) error {
	parts, err := readRequest(der)
	if err != nil {
		return err
	}
	_, _, _, badKey := readKey(parts.spki)
	_, badNames := requestedNames(parts.extensions)
	_, badNonce := requestNonce(parts.challenges)
	return errors.Join(badKey, checkWishes(parts.extensions), badNames, badNonce)
}
