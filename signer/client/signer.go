package client

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/signing"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
)

// A Signer signs with the version of a remote key that was active when it was
// looked up. When the key is rotated, it fails with reason KEY_STATE and must
// be looked up again: its public key would be the wrong one.
type Signer struct {
	c      *Client
	ctx    context.Context
	key    *signerv1.Key
	public crypto.PublicKey
	scheme *credentials.Scheme
	lane   string
}

var (
	_ crypto.MessageSigner         = (*Signer)(nil)
	_ signing.MessageContextSigner = (*Signer)(nil)
	_ signing.ContextSigner        = (*Signer)(nil)
	_ ecdh.KeyExchanger            = (*KeyExchanger)(nil)
)

// Signer looks a key up by its name within the caller's tenant. ctx also
// governs the calls through interfaces that have no context.
func (c *Client) Signer(ctx context.Context, name string) (*Signer, error) {
	key, pub, err := c.lookUp(ctx, name)
	if err != nil {
		return nil, err
	}
	scheme, err := credentials.SchemeOf(pub)
	if err != nil {
		return nil, fmt.Errorf("key %s does not sign: %w", name, err)
	}
	return &Signer{c: c, ctx: ctx, key: key, public: pub, scheme: scheme, lane: deviceLane(key)}, nil
}

// lookUp returns a key and the public key of its active version.
func (c *Client) lookUp(ctx context.Context, name string) (key *signerv1.Key, pub crypto.PublicKey, err error) {
	err = c.retry(ctx, func(ctx context.Context) error {
		if key, err = once(ctx, c, c.keys.GetKey, &signerv1.GetKeyRequest{Name: name}); err != nil {
			return err
		}
		p, err := once(ctx, c, c.keys.GetPublicKey, &signerv1.GetPublicKeyRequest{Name: name, Version: key.GetActiveVersion()})
		if err != nil {
			return err
		}
		pub, err = parsePublic(p.GetPem())
		return err
	})
	return key, pub, err
}

func parsePublic(text string) (crypto.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: the public key is no PEM", ErrCorrupt)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: the public key does not parse", ErrCorrupt)
	}
	return pub, nil
}

// Public returns the public key.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Key returns the key as it was at the look-up.
func (s *Signer) Key() *signerv1.Key { return s.key }

// WithContext returns a copy of s whose Sign and SignMessage obey ctx.
func (s *Signer) WithContext(ctx context.Context) *Signer {
	c := *s
	c.ctx = ctx
	return &c
}

// SignMessage has the service parse message and sign it.
func (s *Signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignMessageContext(s.ctx, message, opts)
}

// SignMessageContext is SignMessage with a context of its own.
func (s *Signer) SignMessageContext(ctx context.Context, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts != nil && opts.HashFunc() != 0 && opts.HashFunc() != s.scheme.Hash {
		return nil, fmt.Errorf("client: key %s signs with %s, not with %v", s.key.GetName(), s.scheme, opts.HashFunc())
	}
	if s.key.GetPurpose() == "raw" && s.scheme.Hash != 0 {
		h := s.scheme.Hash.New()
		h.Write(message)
		return s.SignContext(ctx, h.Sum(nil), s.scheme.Hash)
	}
	return s.sign(ctx, &signerv1.SignRequest{Input: &signerv1.SignRequest_Octets{Octets: message}, InputCrc32C: checksum(message)},
		func(sig []byte) bool { return s.scheme.Verify(s.public, message, sig) })
}

// Sign signs a digest with a key of purpose raw, or with an Ed25519 key the
// message itself.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignContext(s.ctx, digest, opts)
}

// SignContext is Sign with a context of its own.
func (s *Signer) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.scheme.Hash == 0 {
		return s.SignMessageContext(ctx, digest, opts)
	}
	if opts == nil || opts.HashFunc() != s.scheme.Hash {
		return nil, fmt.Errorf("client: key %s signs digests of %v", s.key.GetName(), s.scheme.Hash)
	}
	in := &signerv1.DigestInput{Hash: s.scheme.Hash.String(), Digest: digest}
	pub, ok := s.public.(*ecdsa.PublicKey)
	return s.sign(ctx, &signerv1.SignRequest{Input: &signerv1.SignRequest_Digest{Digest: in}, InputCrc32C: checksum(digest)},
		func(sig []byte) bool { return ok && ecdsa.VerifyASN1(pub, digest, sig) })
}

// sign asks until a signature verifies, under one idempotency key; an answer
// that does not check is asked for anew.
func (s *Signer) sign(ctx context.Context, m *signerv1.SignRequest, verifies func([]byte) bool) (sig []byte, err error) {
	m.Key, m.Version, m.Format = s.key.GetName(), s.key.GetActiveVersion(), signerv1.SignatureFormat_SIGNATURE_FORMAT_DER
	m.IdempotencyKey = s.c.idempotency.next()
	err = s.c.retry(ctx, func(ctx context.Context) error {
		r, err := attempt(ctx, s.c, s.lane, s.c.signs(), m)
		if err != nil {
			return err
		}
		sig = r.GetSignature()
		if !intact(sig, r.GetSignatureCrc32C()) || !verifies(sig) {
			return fmt.Errorf("%w: the signature by %s", ErrCorrupt, s.key.GetName())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return sig, nil
}

// A KeyExchanger does ECDH with a remote key of purpose mls-init.
type KeyExchanger struct {
	c      *Client
	ctx    context.Context
	name   string
	public *ecdh.PublicKey
	lane   string
}

// KeyExchanger looks a key up by its name within the caller's tenant. ctx also
// governs the calls of ECDH, which has none.
func (c *Client) KeyExchanger(ctx context.Context, name string) (*KeyExchanger, error) {
	key, pub, err := c.lookUp(ctx, name)
	if err != nil {
		return nil, err
	}
	x := &KeyExchanger{c: c, ctx: ctx, name: name, lane: deviceLane(key)}
	switch pub := pub.(type) {
	case *ecdh.PublicKey:
		x.public = pub
	case *ecdsa.PublicKey: // what x509 makes of a P-256 key
		if x.public, err = pub.ECDH(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("client: key %s agrees on nothing, it is a %T", name, pub)
	}
	return x, nil
}

// PublicKey returns the public key.
func (x *KeyExchanger) PublicKey() *ecdh.PublicKey { return x.public }

// Curve returns the curve.
func (x *KeyExchanger) Curve() ecdh.Curve { return x.public.Curve() }

// ECDH returns the shared secret with remote.
func (x *KeyExchanger) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	return x.ECDHContext(x.ctx, remote)
}

// ECDHContext is ECDH with a context of its own.
func (x *KeyExchanger) ECDHContext(ctx context.Context, remote *ecdh.PublicKey) (secret []byte, err error) {
	m := &signerv1.AgreeRequest{Key: x.name, PublicKey: remote.Bytes(), PublicKeyCrc32C: checksum(remote.Bytes())}
	err = x.c.retry(ctx, func(ctx context.Context) error {
		r, err := attempt(ctx, x.c, x.lane, x.c.agrees(), m)
		if err != nil {
			return err
		}
		if secret = r.GetSharedSecret(); len(secret) != 32 || !intact(secret, r.GetSharedSecretCrc32C()) {
			return fmt.Errorf("%w: the secret of %s", ErrCorrupt, x.name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return secret, nil
}

// A MAC computes HMAC-SHA256 with a remote key of purpose frank-mac.
type MAC struct {
	c    *Client
	name string
}

// MAC returns the key of that name; it is looked up when it is used.
func (c *Client) MAC(name string) *MAC { return &MAC{c, name} }

// MAC returns HMAC-SHA256(key, data).
func (m *MAC) MAC(ctx context.Context, data []byte) (mac []byte, err error) {
	req := &signerv1.MacRequest{Key: m.name, Data: data, DataCrc32C: checksum(data), IdempotencyKey: m.c.idempotency.next()}
	err = m.c.retry(ctx, func(ctx context.Context) error {
		r, err := attempt(ctx, m.c, keyLane(m.name), m.c.macs(), req)
		if err != nil {
			return err
		}
		if mac = r.GetMac(); len(mac) != 32 || !intact(mac, r.GetMacCrc32C()) {
			return fmt.Errorf("%w: the MAC by %s", ErrCorrupt, m.name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return mac, nil
}

// Frank makes a frank in one call: the MAC, and the signature in the form of
// MLS. The signature is the service's to verify; a receiver does so anyway.
func (c *Client) Frank(ctx context.Context, m *signerv1.FrankRequest) (out *signerv1.FrankResponse, err error) {
	if m.IdempotencyKey == "" {
		m.IdempotencyKey = c.idempotency.next()
	}
	err = c.retry(ctx, func(ctx context.Context) error {
		if out, err = attempt(ctx, c, keyLane(m.GetMacKey()), c.franks(), m); err != nil {
			return err
		}
		if !intact(out.GetServerFrank(), out.GetServerFrankCrc32C()) || !intact(out.GetIntegritySignature(), out.GetIntegritySignatureCrc32C()) {
			return fmt.Errorf("%w: the frank", ErrCorrupt)
		}
		return nil
	})
	return out, err
}
