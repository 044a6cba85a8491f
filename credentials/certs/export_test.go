package certs

import (
	"crypto"
	"crypto/x509"
)

// Lint checks a draft as Prepare does.
func (i *Issuer) Lint(kind Kind, draft *x509.Certificate, pub crypto.PublicKey, names []string) error {
	return i.lint(kind, draft, pub, names)
}
