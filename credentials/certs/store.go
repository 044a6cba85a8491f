package certs

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// A Kind is the profile that a certificate was issued under.
type Kind string

// The kinds of certificate.
const (
	KindDevice    Kind = "device"
	KindHub       Kind = "hub"
	KindRoot      Kind = "root"
	KindIssuingCA Kind = "issuing-ca"
	KindOCSP      Kind = "ocsp-responder"
)

// An Intent is what is about to be signed. Issuer.Prepare stores it before the
// key is used, so that whatever happens afterwards there is a record of every serial
// number that may have been signed; Issuer.Certify stores it with the certificate.
type Intent struct {
	Issuer    KeyID             // the key that will sign
	Serial    *big.Int          // positive, unique for Issuer
	Kind      Kind              // the profile
	Names     []string          // the mimi: URIs, or the subject of a CA
	Key       KeyID             // the certified key
	TBS       [sha256.Size]byte // SHA-256 of the TBSCertificate
	NotBefore time.Time
	NotAfter  time.Time
	Prepared  time.Time

	// What a Store may also keep. Package certs does not read it back.
	Public     crypto.PublicKey // the certified key
	IssuerName string           // subject of the issuer's certificate
	Attachment any              // of the Order

	spki []byte // SubjectPublicKeyInfo of Public, while it is prepared
}

// A Store keeps intents and certificates. A method returns only after what it
// was given is durable; when it returns an error, the effect may or may not
// have taken place.
type Store interface {
	// PutIntent stores an intent. It fails with ErrSerialTaken if the issuer
	// has an intent with this serial number already.
	PutIntent(ctx context.Context, intent Intent) error

	// PutCertificate completes an intent with the certificate that was
	// signed. It fails with ErrNoIntent if there is no such intent and with
	// ErrSerialTaken if the intent has another certificate already.
	PutCertificate(ctx context.Context, issuer KeyID, serial *big.Int, der []byte, at time.Time) error

	// PutIssued stores an intent and its certificate in one step: both or
	// neither. It fails with ErrSerialTaken if the issuer has an intent with this
	// serial number already.
	PutIssued(ctx context.Context, intent Intent, der []byte, at time.Time) error
}

// Errors of a Store.
var (
	ErrSerialTaken = errors.New("the serial number is taken")
	ErrNoIntent    = errors.New("no intent with this issuer and serial number")
)

// A Record is an intent with what became of it.
type Record struct {
	Intent
	Certificate []byte      // DER; nil while the intent is unfinished
	Issued      time.Time   // when Certificate was stored
	Revocation  *Revocation // nil while it is not revoked
}

// Unfinished reports whether the certificate may have been signed although
// none is stored.
func (r *Record) Unfinished() bool { return r.Certificate == nil }

// A Reason is a CRLReason (RFC 5280 section 5.3.1).
type Reason int

// The reasons that may be given.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6 // suspended; may be resumed
	RemoveFromCRL        Reason = 8 // in delta CRLs only
	PrivilegeWithdrawn   Reason = 9
	AACompromise         Reason = 10
)

var reasonNames = map[Reason]string{
	Unspecified: "unspecified", KeyCompromise: "keyCompromise", CACompromise: "cACompromise", AffiliationChanged: "affiliationChanged",
	Superseded: "superseded", CessationOfOperation: "cessationOfOperation", CertificateHold: "certificateHold",
	RemoveFromCRL: "removeFromCRL", PrivilegeWithdrawn: "privilegeWithdrawn", AACompromise: "aACompromise",
}

// String returns the reason as RFC 5280 spells it.
func (r Reason) String() string {
	if s, ok := reasonNames[r]; ok {
		return s
	}
	return fmt.Sprintf("reason %d", int(r))
}

// ParseReason returns the reason with the name that RFC 5280 gives it.
func ParseReason(s string) (Reason, error) {
	for r, name := range reasonNames {
		if name == s && r != RemoveFromCRL {
			return r, nil
		}
	}
	return 0, fmt.Errorf("no revocation reason %.40q; the names are those of RFC 5280 section 5.3.1, such as keyCompromise", s)
}

// A Revocation says when and why a certificate was revoked.
type Revocation struct {
	At     time.Time
	Reason Reason
}
