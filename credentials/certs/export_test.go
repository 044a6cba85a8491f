package certs

import (
	"context"
	"crypto"
	"crypto/x509"
)

// Pragma returns the value of a SQLite pragma on the connection that writes.
func (s *SQLStore) Pragma(ctx context.Context, name string) (value string, err error) {
	err = s.writer.conn.QueryRowContext(ctx, "PRAGMA "+name).Scan(&value)
	return value, err
}

// Lint checks a draft as Prepare does.
func (i *Issuer) Lint(kind Kind, draft *x509.Certificate, pub crypto.PublicKey, names []string) error {
	return i.lint(kind, draft, pub, names)
}
