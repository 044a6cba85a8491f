package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"

	"github.com/privyseal/privyseal/credentials"
)

// A Signer signs with the version of a key that was active when it was looked
// up. It is a crypto.MessageSigner, so crypto.SignMessage, crypto/x509 and
// crypto/tls hand it whole messages, which it parses.
//
// Signatures of ECDSA are DER, as the standard library wants them; RawSignature
// of credentials.Scheme makes the form of JOSE and COSE.
//
// When the key is rotated, in this process or another, the Signer answers
// ErrKeyState and must be looked up again: its public key would be the wrong
// one.
type Signer struct {
	ring *Keyring
	ctx  context.Context
	key  *Key
	v    *Version
	open *openVersion
}

var _ crypto.MessageSigner = (*Signer)(nil)

// Signer returns a Signer for the active version of a key, which must have
// that purpose. ctx governs the look-up and the signatures that are asked for
// through the standard library's interface, which has no context; WithContext
// gives those another.
func (k *Keyring) Signer(ctx context.Context, id KeyID, purpose Purpose) (*Signer, error) {
	key, v, open, err := k.openActive(ctx, id, purpose, UseSign)
	if err != nil {
		return nil, err
	}
	return &Signer{ring: k, ctx: ctx, key: key, v: v, open: open}, nil
}

// WithContext returns a copy of s whose Sign and SignMessage obey ctx.
func (s *Signer) WithContext(ctx context.Context) *Signer {
	c := *s
	c.ctx = ctx
	return &c
}

// Public returns the public key, an *ecdsa.PublicKey or ed25519.PublicKey.
func (s *Signer) Public() crypto.PublicKey { return s.open.public }

// KID returns the JWK thumbprint of the public key.
func (s *Signer) KID() string { return s.v.KID }

// Key returns the record of the key as it was at the look-up.
func (s *Signer) Key() *Key { return s.key }

// Version returns the number of the version that signs.
func (s *Signer) Version() int { return s.v.Number }

// Scheme returns the signature scheme of the key.
func (s *Signer) Scheme() *credentials.Scheme { return s.key.Algorithm.Scheme() }

// SignMessage parses message and signs it if the purpose permits it.
// opts.HashFunc is the hash of the key's scheme, or zero to leave it to us.
func (s *Signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignMessageContext(s.ctx, message, opts)
}

// SignMessageContext is SignMessage with a context of its own.
func (s *Signer) SignMessageContext(ctx context.Context, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	scheme := s.Scheme()
	if opts != nil && opts.HashFunc() != 0 && opts.HashFunc() != scheme.Hash {
		return nil, fmt.Errorf("%w: %s signs with %s, not with %v", ErrUsage, scheme, hashName(scheme.Hash), opts.HashFunc())
	}
	if s.key.Purpose == PurposeRaw {
		digest, hash := s.open.hash(message)
		return s.signRaw(ctx, digest, hash)
	}
	r, err := ParseRequest(message)
	if err != nil {
		return nil, err
	}
	return s.SignRequest(ctx, r)
}

// Sign serves callers that have no message to show. For ECDSA it is given a
// digest, which only a key of purpose raw signs. For Ed25519 it is given the
// message and does as SignMessage.
//
// crypto/x509 and crypto/tls call SignMessage instead. golang.org/x/crypto/ocsp
// does not: see SignOnly.
func (s *Signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.Scheme().Hash == 0 && (opts == nil || opts.HashFunc() == 0) {
		return s.SignMessage(rand, digest, opts)
	}
	if opts == nil || opts.HashFunc() == 0 {
		return nil, fmt.Errorf("%w: the digest has no hash in its options", ErrUsage)
	}
	return s.signRaw(s.ctx, digest, opts.HashFunc())
}

func (s *Signer) signRaw(ctx context.Context, digest []byte, hash crypto.Hash) ([]byte, error) {
	r, err := DigestRequest(hash, digest)
	if err != nil {
		return nil, err
	}
	return s.SignRequest(ctx, r)
}

// SignRequest signs a parsed request: it refuses what the purpose does not
// permit, checks that the version may still sign, has the device sign, and
// verifies the signature before it returns it.
func (s *Signer) SignRequest(ctx context.Context, r *Request) ([]byte, error) {
	if err := r.check(s.key, s.open); err != nil {
		return nil, err
	}
	now, err := s.ring.mayUse(ctx, s.key, s.v)
	if err != nil {
		return nil, err
	}
	digest, hash := r.octets, r.hash
	if r.shape != ShapeDigest {
		digest, hash = s.open.hash(r.octets)
	}
	// The device gets a copy: what is verified below is what was asked for.
	sig, err := s.open.sign(ctx, bytes.Clone(digest), hash)
	if err != nil {
		return nil, deviceError(s.v.Device, "sign", err)
	}
	if now.unverified {
		return sig, nil
	}
	return s.release(ctx, digest, sig)
}

// release verifies a signature and returns it, or marks the device suspect.
// What the device returned is dropped: a faulty signature can give away the
// private key.
func (s *Signer) release(ctx context.Context, digest, sig []byte) ([]byte, error) {
	if verify(s.open.public, digest, sig) {
		return sig, nil
	}
	err := &DeviceError{Device: s.v.Device, Op: "sign", Remedy: RemedyOperator, Err: ErrBadSignature}
	reason := fmt.Sprintf("a signature by version %d of key %s did not verify", s.v.Number, s.key.ID)
	if mark := s.ring.store.MarkSuspect(context.WithoutCancel(ctx), s.v.Device, s.key.ID, s.v.Number, reason); mark != nil {
		return nil, errors.Join(err, fmt.Errorf("the device could not be marked suspect: %w", mark))
	}
	return nil, err
}

// verify reports whether sig is by pub over digest, or for Ed25519 over the
// message itself. It is the standard library's arithmetic, not the device's.
func verify(pub crypto.PublicKey, digest, sig []byte) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(pub, digest, sig)
	}
	return false
}

// SignOnly parses message and returns a crypto.Signer that signs its digest
// and no other, any number of times. It is for code that builds a message,
// hashes it and calls Sign, as golang.org/x/crypto/ocsp does: build it once
// with a throw-away key of the same algorithm to learn the to-be-signed
// octets, then again with this Signer.
func (s *Signer) SignOnly(message []byte) (crypto.Signer, error) {
	r, err := ParseRequest(message)
	if err != nil {
		return nil, err
	}
	digest, hash := s.open.hash(message)
	return &onlySigner{s, r, string(digest), hash}, nil
}

type onlySigner struct {
	s       *Signer
	request *Request
	digest  string
	hash    crypto.Hash
}

func (o *onlySigner) Public() crypto.PublicKey { return o.s.Public() }

func (o *onlySigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != o.hash || string(digest) != o.digest {
		return nil, &Refusal{Key: o.s.key.ID, Purpose: o.s.key.Purpose, Shape: ShapeDigest,
			Reason: "the digest is not of the message that was shown before"}
	}
	return o.s.SignRequest(o.s.ctx, o.request)
}

// A Signature is what Keyring.Sign returns.
type Signature struct {
	Key       KeyID
	Version   int
	KID       string
	Algorithm Algorithm
	Octets    []byte // DER for ECDSA
}

// Sign signs one request with the active version of a key.
func (k *Keyring) Sign(ctx context.Context, id KeyID, purpose Purpose, r *Request) (*Signature, error) {
	s, err := k.Signer(ctx, id, purpose)
	if err != nil {
		return nil, err
	}
	octets, err := s.SignRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	return &Signature{Key: id, Version: s.v.Number, KID: s.v.KID, Algorithm: s.key.Algorithm, Octets: octets}, nil
}
