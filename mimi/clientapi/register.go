package clientapi

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// RegistrationComponent is the component in whose name a client signs its
// registration (draft-ietf-mls-extensions, SafeSignWithLabel). The number is of
// the private range.
const RegistrationComponent mls.ComponentID = 0xF0C0

const registrationLabel = "RegisterClient"

// RegistrationSkew is how far the time in a registration may be from the
// provider's.
const RegistrationSkew = 5 * time.Minute

// TLSKeyHash returns what names a TLS key: the SHA-256 of the certificate's
// SubjectPublicKeyInfo.
func TLSKeyHash(c *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(c.RawSubjectPublicKeyInfo)
}

// A RegisterRequest binds the TLS key of the connection that it comes on to a
// client, which is the one that its credential names. A provider registers a
// client of its own domain whose credential it believes; one whose credential
// proves nothing (basic) also needs an invitation, which names its user and is
// good for one client.
//
//	struct {
//	    IdentifierUri provider;
//	    uint64 time;                    /* milliseconds since the UNIX epoch */
//	    opaque tls_key_hash[32];        /* SHA-256 of the SubjectPublicKeyInfo */
//	    opaque invitation<V>;           /* may be empty */
//	    CipherSuite cipher_suite;
//	    SignaturePublicKey signature_key;
//	    Credential credential;
//	    /* SafeSignWithLabel(., 0xF0C0, "RegisterClient", all of the above) */
//	    opaque signature<V>;
//	} RegisterRequest;
//
// A client registers again to change its credential, its signature key or its
// TLS key.
type RegisterRequest struct {
	Provider     mimi.URI
	Time         uint64
	TLSKeyHash   [sha256.Size]byte
	Invitation   []byte
	CipherSuite  mls.CipherSuite
	SignatureKey []byte
	Credential   mls.Credential
	Signature    []byte
}

func (q *RegisterRequest) appendTBS(b *tlsvec.Builder) {
	appendURI(b, q.Provider)
	b.Uint64(q.Time)
	b.Raw(q.TLSKeyHash[:])
	b.Vector(q.Invitation)
	b.Uint16(uint16(q.CipherSuite))
	b.Vector(q.SignatureKey)
	appendCredential(b, q.Credential)
}

func (q *RegisterRequest) append(b *tlsvec.Builder) {
	q.appendTBS(b)
	b.Vector(q.Signature)
}

func (q *RegisterRequest) read(r *tlsvec.Reader) {
	q.Provider = readURI(r, mimi.KindProvider)
	q.Time = r.Uint64()
	copy(q.TLSKeyHash[:], r.Bytes(sha256.Size))
	q.Invitation = readBounded(r, "invitation", MaxInvitation)
	q.CipherSuite = mls.CipherSuite(r.Uint16())
	q.SignatureKey = readBounded(r, "signature_key", 1024)
	q.Credential = readCredential(r)
	q.Signature = readBounded(r, "signature", 1024)
}

func (q *RegisterRequest) tbs() []byte {
	b := tlsvec.NewBuilder(512)
	q.appendTBS(b)
	return b.Bytes()
}

// Sign signs the request with the client's MLS signature key.
func (q *RegisterRequest) Sign(ctx context.Context, key crypto.Signer) (err error) {
	q.Signature, err = mls.SafeSignWithLabel(ctx, q.CipherSuite, key, RegistrationComponent, registrationLabel, q.tbs())
	if err != nil {
		return fmt.Errorf("clientapi: registration: %w", err)
	}
	return nil
}

// Verify checks the signature under SignatureKey. That the credential is
// believed, and names that key, is for package mimi/identity to say.
func (q *RegisterRequest) Verify() error {
	if err := mls.SafeVerifyWithLabel(q.CipherSuite, q.SignatureKey, RegistrationComponent, registrationLabel, q.tbs(), q.Signature); err != nil {
		return fmt.Errorf("clientapi: registration: %w", err)
	}
	return nil
}

// Marshal returns the request's encoding.
func (q *RegisterRequest) Marshal() []byte { return marshal(q) }

// ParseRegisterRequest decodes a request. Verify checks its signature.
func ParseRegisterRequest(b []byte) (*RegisterRequest, error) {
	q := new(RegisterRequest)
	return q, parse("RegisterRequest", b, q)
}

// A Registration is what the provider knows of a client.
//
//	struct {
//	    IdentifierUri client;
//	    IdentifierUri user;
//	    uint64 cursor;
//	    uint64 oldest;
//	    KeyPackageCounts key_packages;
//	} Registration;
type Registration struct {
	Client mimi.URI
	User   mimi.URI
	// Cursor is the sequence number of the newest event of the provider; a
	// client that is new begins to read after it. Oldest is the first cursor
	// that still works.
	Cursor, Oldest uint64
	KeyPackages    KeyPackageCounts
}

func (p *Registration) append(b *tlsvec.Builder) {
	appendURI(b, p.Client)
	appendURI(b, p.User)
	b.Uint64(p.Cursor)
	b.Uint64(p.Oldest)
	p.KeyPackages.append(b)
}

func (p *Registration) read(r *tlsvec.Reader) {
	p.Client = readURI(r, mimi.KindClient)
	p.User = readUser(r)
	p.Cursor = r.Uint64()
	p.Oldest = r.Uint64()
	p.KeyPackages.read(r)
}

// Marshal returns the registration's encoding.
func (p *Registration) Marshal() []byte { return marshal(p) }

// ParseRegistration decodes a registration.
func ParseRegistration(b []byte) (*Registration, error) {
	p := new(Registration)
	return p, parse("Registration", b, p)
}
