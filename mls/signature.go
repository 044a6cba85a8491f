package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/signing"
	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A ContextSigner is a crypto.Signer of a device that may be slow or gone. If a
// client's Signer has its method, it is called instead of Sign, with the same
// digest (or, for Ed25519, the same message).
type ContextSigner = signing.ContextSigner

// A MessageContextSigner is a crypto.MessageSigner that takes a context. It is
// preferred to every other method, since a signing service can then parse what
// it signs.
type MessageContextSigner = signing.MessageContextSigner

// A sigScheme is the signature scheme of a cipher suite (section 5.1.2).
type sigScheme struct {
	hash  crypto.Hash    // 0 for Ed25519
	curve elliptic.Curve // nil for Ed25519
}

var (
	sigEd25519 = sigScheme{}
	sigP256    = sigScheme{crypto.SHA256, elliptic.P256()}
	sigP384    = sigScheme{crypto.SHA384, elliptic.P384()}
	sigP521    = sigScheme{crypto.SHA512, elliptic.P521()}
)

// SignaturePublicKey encodes a public key as a SignaturePublicKey of a cipher
// suite (RFC 9420, section 5.1.1).
func SignaturePublicKey(c CipherSuite, pub crypto.PublicKey) ([]byte, error) {
	s, err := lookupSuite(c)
	if err != nil {
		return nil, err
	}
	return s.sig.encodePublicKey(pub)
}

// encodePublicKey gives the SignaturePublicKey of a signer's public key
// (section 5.1.1): an uncompressed point, or the octets of an Ed25519 key.
func (c sigScheme) encodePublicKey(pub crypto.PublicKey) ([]byte, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if c.curve == nil && len(k) == ed25519.PublicKeySize {
			return k, nil
		}
	case *ecdsa.PublicKey:
		if c.curve != nil && k.Curve == c.curve {
			return k.Bytes()
		}
	}
	return nil, fmt.Errorf("mls: a %T cannot sign for this cipher suite; use a key of the suite's signature scheme", pub)
}

// parsePublicKey is the inverse of encodePublicKey.
func (c sigScheme) parsePublicKey(b []byte) (crypto.PublicKey, error) {
	if c.curve != nil {
		return ecdsa.ParseUncompressedPublicKey(c.curve, b)
	}
	if len(b) != ed25519.PublicKeySize {
		return nil, errors.New("mls: an Ed25519 public key has 32 octets")
	}
	return ed25519.PublicKey(b), nil
}

// signContent is the input of the signature scheme (section 5.1.2).
//
//	struct {
//	    opaque label<V>;
//	    opaque content<V>;
//	} SignContent;
func signContent(label string, content []byte) []byte {
	b := tlsvec.NewBuilder(len(labelPrefix) + len(label) + len(content) + 8)
	b.String(labelPrefix + label)
	b.Vector(content)
	return b.Bytes()
}

// signWithLabel is SignWithLabel (section 5.1.2).
func (s *suite) signWithLabel(ctx context.Context, signer crypto.Signer, label string, content []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, &SignError{label, err}
	}
	sig, err := s.sig.sign(ctx, signer, signContent(label, content))
	if err != nil {
		return nil, &SignError{label, err}
	}
	return sig, nil
}

func (c sigScheme) sign(ctx context.Context, signer crypto.Signer, msg []byte) ([]byte, error) {
	return signing.Message(ctx, signer, msg, c.hash)
}

// digest is what the scheme signs of a message that comes in pieces: its hash,
// or for Ed25519 the message itself.
func (c sigScheme) digest(msg ...[]byte) []byte {
	if c.hash == 0 {
		return bytes.Join(msg, nil)
	}
	h := c.hash.New()
	for _, piece := range msg {
		h.Write(piece)
	}
	return h.Sum(nil)
}

// verifyWithLabel is VerifyWithLabel (section 5.1.2).
func (s *suite) verifyWithLabel(publicKey []byte, label string, content, signature []byte) error {
	return s.verifyPieces(publicKey, label, signature, content)
}

// verifyPieces is verifyWithLabel of content that comes in pieces, none of which
// is copied.
func (s *suite) verifyPieces(publicKey []byte, label string, signature []byte, content ...[]byte) error {
	pub, err := s.sig.parsePublicKey(publicKey)
	if err != nil {
		return fmt.Errorf("%w: public key: %w", ErrBadSignature, err)
	}
	n := 0
	for _, piece := range content {
		n += len(piece)
	}
	b := tlsvec.NewBuilder(len(labelPrefix) + len(label) + 8)
	b.String(labelPrefix + label)
	b.Raw(tlsvec.AppendLength(nil, n))
	if !s.sig.verify(pub, signature, append([][]byte{b.Bytes()}, content...)...) {
		return fmt.Errorf("%w: %s", ErrBadSignature, label)
	}
	return nil
}

// verify checks the signature of a message that comes in pieces.
func (c sigScheme) verify(pub crypto.PublicKey, sig []byte, msg ...[]byte) bool {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, c.digest(msg...), sig)
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, c.digest(msg...), sig)
	}
	return false
}

// SignWithLabel signs content with the label of another MLS-based protocol
// (RFC 9420, section 5.1.2), such as those that fetch KeyPackages.
func SignWithLabel(ctx context.Context, c CipherSuite, signer crypto.Signer, label string, content []byte) ([]byte, error) {
	s, err := lookupSuite(c)
	if err != nil {
		return nil, err
	}
	return s.signWithLabel(ctx, signer, label, content)
}

// VerifyWithLabel checks a signature that SignWithLabel made. publicKey is a
// SignaturePublicKey of the cipher suite.
func VerifyWithLabel(c CipherSuite, publicKey []byte, label string, content, signature []byte) error {
	s, err := lookupSuite(c)
	if err != nil {
		return err
	}
	return s.verifyWithLabel(publicKey, label, content, signature)
}
