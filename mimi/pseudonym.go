//go:build mmr

package mimi

import (
	"context"
	"crypto"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// Minimal metadata rooms (section 8) are built with the tag mmr only: the
// draft leaves open who has the key of the identity link, so two
// implementations cannot meet, and it gives no credential type.

// CredentialPseudonymous is our private number.
const CredentialPseudonymous mls.CredentialType = 0xF0A1

const labelPseudonymousCredential = "PseudonymousCredentialTBS"

const maxIdentityLink = maxCredential + 1024

// A PseudonymousCredential names a client and its user by pseudonyms, and
// hides who they are from everybody who lacks a key.
//
//	struct {
//	    IdentifierUri client_pseudonym;
//	    IdentifierUri user_pseudonym;
//	    opaque signature_public_key<V>;
//	    opaque identity_link_ciphertext<V>;
//	} PseudonymousCredential;
type PseudonymousCredential struct {
	ClientPseudonym        URI
	UserPseudonym          URI // that of the participant list, same for all clients of the user
	SignaturePublicKey     []byte
	IdentityLinkCiphertext []byte
}

func (p *PseudonymousCredential) appendTBS(b *tlsvec.Builder) {
	appendURI(b, p.ClientPseudonym)
	appendURI(b, p.UserPseudonym)
	b.Vector(p.SignaturePublicKey)
}

func (p *PseudonymousCredential) append(b *tlsvec.Builder) {
	p.appendTBS(b)
	b.Vector(p.IdentityLinkCiphertext)
}

func (p *PseudonymousCredential) read(r *tlsvec.Reader) {
	p.ClientPseudonym = readURI(r, KindClient, KindPseudonym)
	p.UserPseudonym = readUser(r)
	p.SignaturePublicKey = readBounded(r, "signature_public_key", maxPublicKey)
	p.IdentityLinkCiphertext = readBounded(r, "identity_link_ciphertext", maxIdentityLink)
	if r.Err() == nil && p.ClientPseudonym.Host() != p.UserPseudonym.Host() {
		r.Fail("client_pseudonym and user_pseudonym are of different providers")
	}
}

// Marshal returns the body of the credential.
func (p *PseudonymousCredential) Marshal() []byte { return marshal(p) }

// ParsePseudonymousCredential decodes the body of a credential of type
// CredentialPseudonymous.
func ParsePseudonymousCredential(b []byte) (*PseudonymousCredential, error) {
	p := new(PseudonymousCredential)
	return p, parse("PseudonymousCredential", b, p)
}

// An identityLink is what identity_link_ciphertext hides.
//
//	struct {
//	    opaque pseudonymous_credential_signature<V>;
//	    Credential client_credential;
//	} IdentityLinkTBE;
type identityLink struct {
	signature  []byte
	credential mls.Credential
}

func (l *identityLink) append(b *tlsvec.Builder) {
	b.Vector(l.signature)
	appendCredential(b, l.credential)
}

func (l *identityLink) read(r *tlsvec.Reader) {
	l.signature = readBounded(r, "signature", maxSignature)
	l.credential = readCredential(r)
}

// Link signs the pseudonyms with the key of the real credential and encrypts
// both. Who may open the link is who has the AEAD key; how it is shared is for
// the application.
func (p *PseudonymousCredential) Link(ctx context.Context, suite mls.CipherSuite, key crypto.Signer, real mls.Credential, aead cipher.AEAD) error {
	sig, err := sign(ctx, suite, key, labelPseudonymousCredential, p)
	if err != nil {
		return err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	p.IdentityLinkCiphertext = aead.Seal(nonce, nonce, marshal(&identityLink{sig, real}), tbs(p))
	return nil
}

// OpenLink decrypts the identity link and returns the real credential, which
// the caller verifies, and a function that checks with that credential's key
// that its holder chose these pseudonyms.
func (p *PseudonymousCredential) OpenLink(aead cipher.AEAD) (mls.Credential, func(suite mls.CipherSuite, key []byte) error, error) {
	n := aead.NonceSize()
	if len(p.IdentityLinkCiphertext) < n {
		return mls.Credential{}, nil, errors.New("mimi: identity link is too short")
	}
	plain, err := aead.Open(nil, p.IdentityLinkCiphertext[:n], p.IdentityLinkCiphertext[n:], tbs(p))
	if err != nil {
		return mls.Credential{}, nil, fmt.Errorf("mimi: identity link: %w", err)
	}
	var link identityLink
	if err := parse("IdentityLinkTBE", plain, &link); err != nil {
		return mls.Credential{}, nil, err
	}
	check := func(suite mls.CipherSuite, key []byte) error {
		return verify(suite, key, labelPseudonymousCredential, p, link.signature)
	}
	return link.credential, check, nil
}
