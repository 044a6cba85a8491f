package registry

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// A Type is the format of a credential.
type Type string

// The types. The MLS credentials of the same names carry them.
const (
	X509  Type = "x509"
	SDJWT Type = "sd-jwt"
	SDCWT Type = "sd-cwt"
)

// ParseType returns the Type of that name.
func ParseType(s string) (Type, error) {
	switch t := Type(s); t {
	case X509, SDJWT, SDCWT:
		return t, nil
	}
	return "", fmt.Errorf("there is no credential type %.40q; the types are %s, %s and %s", s, X509, SDJWT, SDCWT)
}

// A State is what became of a credential.
type State string

// The states. Revoked is for good.
const (
	Valid     State = "valid"
	Suspended State = "suspended"
	Revoked   State = "revoked"
)

// Errors of a Store.
var (
	ErrUnknown       = errors.New("no such credential")
	ErrRevoked       = errors.New("the credential is revoked for good")
	ErrNoStatus      = errors.New("nothing says of the credential where its status can be learned; it lives until it ends")
	ErrNotSuspending = errors.New("the credential's status list has one bit for each entry and cannot say suspended; revoke it")
)

// An ID names a credential: 16 octets in lower-case hexadecimal, that nobody can
// guess. It is the jti of an SD-JWT and, as octets, the cti of an SD-CWT.
type ID string

// NewID returns a fresh ID of random octets.
func NewID() ID {
	b := make([]byte, 16)
	rand.Read(b)
	return ID(hex.EncodeToString(b))
}

// NewCertificateID returns a fresh ID for a certificate: it begins with the time in
// milliseconds, which a certificate tells anyway, so that records are written side by
// side, and has 80 random bits.
func NewCertificateID(now time.Time) ID {
	b := make([]byte, 16)
	rand.Read(b)
	at := now.UnixMilli()
	for i := range 6 {
		b[i] = byte(at >> (8 * (5 - i)))
	}
	return ID(hex.EncodeToString(b))
}

// ParseID checks an ID.
func ParseID(s string) (ID, error) {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 16 || hex.EncodeToString(b) != s {
		return "", fmt.Errorf("%.40q is no credential id: want 32 lower-case hexadecimal digits", s)
	}
	return ID(s), nil
}

// Octets returns the 16 octets.
func (id ID) Octets() []byte {
	b, _ := hex.DecodeString(string(id))
	return b
}

// A Record is one credential in the book.
type Record struct {
	ID        ID          `json:"id"`
	Type      Type        `json:"type"`
	Kind      certs.Kind  `json:"kind"`
	Issuer    string      `json:"issuer"`     // iss, or the subject of the CA
	IssuerKey certs.KeyID `json:"issuer_key"` // SHA-256 of its SubjectPublicKeyInfo
	Client    string      `json:"client,omitempty"`
	User      string      `json:"user,omitempty"`
	Subject   string      `json:"subject,omitempty"` // of what has no client
	Holder    string      `json:"holder"`            // JWK thumbprint of the key
	NotBefore time.Time   `json:"not_before"`
	NotAfter  time.Time   `json:"not_after"`
	Prepared  time.Time   `json:"prepared"`
	Issued    time.Time   `json:"issued,omitzero"`  // zero: may or may not have been signed
	Serial    string      `json:"serial,omitempty"` // of a certificate, hexadecimal
	List      string      `json:"list,omitempty"`   // URI of the status list
	Index     int64       `json:"index,omitempty"`  // on the list
	Digest    HexBytes    `json:"digest,omitempty"` // SHA-256 of the credential
	State     State       `json:"state"`
	Reason    string      `json:"reason,omitempty"` // of a state other than valid
	Changed   time.Time   `json:"changed,omitzero"` // when the state last changed

	Attestation credentials.AttestationLevel `json:"-"`
	Level       string                       `json:"attestation"` // its name
	Evidence    []byte                       `json:"-"`           // what the level rests on; see Store.Evidence
}

// HexBytes are octets that are written in hexadecimal.
type HexBytes []byte

// MarshalText writes lower-case hexadecimal.
func (b HexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

// Unfinished reports whether the credential may have been signed although
// nobody was given it.
func (r *Record) Unfinished() bool { return r.Issued.IsZero() }

// Reference returns the credential's place on its status list; ok is false if
// it has none.
func (r *Record) Reference() (ref statuslist.Reference, ok bool) {
	return statuslist.Reference{URI: r.List, Index: r.Index}, r.List != ""
}

// A Draft is a token that is about to be signed.
type Draft struct {
	Type        Type
	Issuer      string // iss
	IssuerKey   crypto.PublicKey
	Names       certs.Names
	Holder      crypto.PublicKey
	NotBefore   time.Time
	NotAfter    time.Time
	List        string // status list that it gets an index on; "" for none
	Attestation credentials.AttestationLevel
	Evidence    []byte // kept with the record
	Along       Along
}

// Along is what else changes in the commit that writes a credential down, such as
// that an invitation is used. Its error takes back everything. It may run more
// than once, and has no effect but through the transaction, which is one in
// Store.Database. nil changes nothing.
type Along func(ctx context.Context, tx *sqldb.Tx, id ID) error

func (a Along) run(ctx context.Context, tx *sqldb.Tx, id ID) error {
	if a == nil {
		return nil
	}
	return a(ctx, tx, id)
}

// An Attachment is what the caller of certs.Issuer.Prepare hands, as
// certs.Order.Attachment, to the Store.
type Attachment struct {
	ID          ID // "" for a fresh one
	Issuer      string
	Attestation credentials.AttestationLevel
	Evidence    []byte
	Along       Along
}
