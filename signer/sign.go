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
	"github.com/privyseal/privyseal/internal/signing"
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

	burst *burst // nil but for Burst
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

// SignerOf is Signer for a key that was just read from the store.
func (k *Keyring) SignerOf(ctx context.Context, key *Key) (*Signer, error) {
	key, v, open, err := k.openRead(ctx, key, key.Purpose, UseSign)
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
	sig, _, err := s.SignVerified(ctx, message, opts)
	return sig, err
}

// SignVerified is SignMessageContext that says whether the signature was verified
// before it was released, as it is unless the key is marked Unverified.
func (s *Signer) SignVerified(ctx context.Context, message []byte, opts crypto.SignerOpts) (sig []byte, verified bool, err error) {
	scheme := s.Scheme()
	if opts != nil && opts.HashFunc() != 0 && opts.HashFunc() != scheme.Hash {
		return nil, false, fmt.Errorf("%w: %s signs with %s, not with %v", ErrUsage, scheme, hashName(scheme.Hash), opts.HashFunc())
	}
	r, err := s.request(message)
	if err != nil {
		return nil, false, err
	}
	return s.SignRead(ctx, r)
}

// request parses a message, unless the key has purpose raw.
func (s *Signer) request(message []byte) (*Request, error) {
	if s.key.Purpose == PurposeRaw {
		digest, hash := hashFor(s.open.scheme, message)
		return DigestRequest(hash, digest)
	}
	return ParseRequest(message)
}

// Read parses a message as SignVerified does, for SignRead. What it returns is a
// *Request.
func (s *Signer) Read(message []byte) (signing.Read, error) { return s.request(message) }

// SignRead is SignVerified of a *Request.
func (s *Signer) SignRead(ctx context.Context, read signing.Read) (sig []byte, verified bool, err error) {
	r, ok := read.(*Request)
	if !ok {
		return nil, false, fmt.Errorf("%w: a %T is not a request that was parsed", ErrUsage, read)
	}
	made, err := s.Issue(ctx, r)
	if err != nil {
		return nil, false, err
	}
	return made.Octets, made.Verified, nil
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
// permit, checks that the version may still sign, has a device sign, and
// verifies the signature before it returns it.
func (s *Signer) SignRequest(ctx context.Context, r *Request) ([]byte, error) {
	sig, err := s.Issue(ctx, r)
	if err != nil {
		return nil, err
	}
	return sig.Octets, nil
}

// Issue is SignRequest that also says which device signed.
func (s *Signer) Issue(ctx context.Context, r *Request) (*Signature, error) {
	if err := r.check(s.key, s.open); err != nil {
		return nil, err
	}
	now, err := s.burst.mayUse(ctx, s.ring, s.key, s.v)
	if err != nil {
		return nil, err
	}
	digest, hash := r.octets, r.hash
	if r.shape != ShapeDigest {
		digest, hash = hashFor(s.open.scheme, r.octets)
	}
	sig := &Signature{Key: s.key.ID, Version: s.v.Number, KID: s.v.KID, Algorithm: s.key.Algorithm}
	sig.Device, err = s.ring.try(ctx, "sign", s.key, s.v, s.open, &now, func(ctx context.Context, p *place) error {
		// The device gets a copy: what is verified below is what was asked for.
		octets, err := p.sign(ctx, bytes.Clone(digest), hash)
		if err == nil && !now.unverified && !verify(s.open.public, digest, octets) {
			return s.ring.markSuspect(ctx, s.key, s.v, p.device, "signature")
		}
		sig.Octets, sig.Verified = octets, !now.unverified
		return err
	})
	if err != nil {
		s.burst.failed()
		return nil, err
	}
	return sig, nil
}

// markSuspect records that a device answered wrongly, and returns the error of
// it. What the device returned is dropped: a faulty signature can give away the
// private key.
func (k *Keyring) markSuspect(ctx context.Context, key *Key, v *Version, device, what string) error {
	err := &DeviceError{Device: device, Op: "sign", Remedy: RemedyOperator, Err: ErrBadSignature}
	reason := fmt.Sprintf("a %s by version %d of key %s did not verify", what, v.Number, key.ID)
	if mark := k.store.MarkSuspect(context.WithoutCancel(ctx), device, key.ID, v.Number, reason); mark != nil {
		return errors.Join(err, fmt.Errorf("the device could not be marked suspect: %w", mark))
	}
	return err
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
	digest, hash := hashFor(s.open.scheme, message)
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
	Device    string // name of the device that signed
	Octets    []byte // DER for ECDSA
	Verified  bool   // before it was released
}

// Sign signs one request with the active version of a key.
func (k *Keyring) Sign(ctx context.Context, id KeyID, purpose Purpose, r *Request) (*Signature, error) {
	s, err := k.Signer(ctx, id, purpose)
	if err != nil {
		return nil, err
	}
	return s.Issue(ctx, r)
}
