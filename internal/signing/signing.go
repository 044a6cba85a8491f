// Package signing asks a key for a signature in the best way that the key has.
//
// A key may be software, a token, a TPM or a signing service. The package knows
// four ways to ask, from the best: a whole message with a context, a digest
// with a context, a whole message, a digest. A signing service wants the whole
// message, since it parses what it signs; a device wants the context, since it
// may be slow or gone.
package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// A MessageContextSigner signs whole messages and obeys a context.
type MessageContextSigner interface {
	crypto.Signer
	SignMessageContext(ctx context.Context, msg []byte, opts crypto.SignerOpts) ([]byte, error)
}

// A ContextSigner signs digests, or messages where the scheme has no hash, and
// obeys a context.
type ContextSigner interface {
	crypto.Signer
	SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

// A VerifyingSigner says whether it has verified a signature with the public key
// before it returned it, so that nobody does it again. A false claim would be the
// caller's harm: only keys of this program implement it.
type VerifyingSigner interface {
	crypto.Signer
	SignVerified(ctx context.Context, msg []byte, opts crypto.SignerOpts) (sig []byte, verified bool, err error)
}

// A ReadingSigner parses what it signs, and does so before on request: who made the
// message looks at what the key has read, and it is parsed once.
type ReadingSigner interface {
	crypto.Signer
	Read(msg []byte) (Read, error)
	// SignRead is VerifyingSigner.SignVerified of what Read of such a key returned.
	SignRead(context.Context, Read) (sig []byte, verified bool, err error)
}

// A Read is a message that a key has parsed. It does not change.
type Read interface {
	Octets() []byte // the message
	Parsed() any    // what is in it
}

// OnlyRead returns the key as one that signs what was read and nothing else.
func OnlyRead(key ReadingSigner, r Read) VerifyingSigner { return onlyRead{key, r} }

type onlyRead struct {
	ReadingSigner
	read Read
}

// SignVerified implements VerifyingSigner.
func (k onlyRead) SignVerified(ctx context.Context, msg []byte, _ crypto.SignerOpts) (sig []byte, verified bool, err error) {
	if !bytes.Equal(msg, k.read.Octets()) {
		return nil, false, errors.New("the message is not the one that the key has read")
	}
	return k.SignRead(ctx, k.read)
}

// Verified is Message that says whether the signature was verified on the way.
func Verified(ctx context.Context, key crypto.Signer, msg []byte, hash crypto.Hash) (sig []byte, verified bool, err error) {
	if k, ok := key.(VerifyingSigner); ok {
		if err := ctx.Err(); err != nil {
			return nil, false, context.Cause(ctx)
		}
		return k.SignVerified(ctx, msg, hash)
	}
	sig, err = Message(ctx, key, msg, hash)
	return sig, false, err
}

// Message has key sign msg with hash, which is zero for a scheme that takes the
// message itself. The signature is in the form of crypto.Signer: DER for ECDSA.
func Message(ctx context.Context, key crypto.Signer, msg []byte, hash crypto.Hash) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if k, ok := key.(MessageContextSigner); ok {
		return k.SignMessageContext(ctx, msg, hash)
	}
	if hash != 0 && !hash.Available() {
		return nil, fmt.Errorf("hash %v is not linked into this program", hash)
	}
	if k, ok := key.(ContextSigner); ok {
		return k.SignContext(ctx, digest(msg, hash), hash)
	}
	if k, ok := key.(crypto.MessageSigner); ok {
		return k.SignMessage(rand.Reader, msg, hash)
	}
	return key.Sign(rand.Reader, digest(msg, hash), hash)
}

func digest(msg []byte, hash crypto.Hash) []byte {
	switch hash {
	case 0:
		return msg
	case crypto.SHA256: // of most keys
		sum := sha256.Sum256(msg)
		return sum[:]
	}
	h := hash.New()
	h.Write(msg)
	return h.Sum(nil)
}
