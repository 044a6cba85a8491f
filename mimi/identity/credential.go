package identity

import (
	"bytes"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// MaxCredential is the most octets of a credential that is read.
const MaxCredential = 1 << 20

// ParseCredential reads a Credential structure of RFC 9420 section 5.3 and
// nothing after it. Its error is malformed; whom the credential is of is judged
// by an [Evaluator].
func ParseCredential(octets []byte) (mls.Credential, error) {
	var c mls.Credential
	if len(octets) > MaxCredential {
		return c, credentials.Errorf(credentials.CodeMalformed, "credential", "%d octets, at most %d are read", len(octets), MaxCredential)
	}
	r := tlsvec.NewReader(bytes.Clone(octets))
	mls.Read(r, &c)
	if err := r.Done(); err != nil {
		return mls.Credential{}, credentials.Errorf(credentials.CodeMalformed, "credential", "not a Credential of RFC 9420: %w", err)
	}
	return c, nil
}

// FormatCredential is the opposite of ParseCredential.
func FormatCredential(c *mls.Credential) []byte {
	var b tlsvec.Builder
	mls.Write(&b, c)
	return b.Bytes()
}
