package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var (
	_ crypto.Signer        = (*Key)(nil)
	_ crypto.MessageSigner = (*Key)(nil)
)

// Sign signs a digest and returns the DER form of the signature. The TPM draws
// the randomness; rand is ignored. opts may be nil: the digest's length must
// be that of the key's hash in any case.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// SignMessage hashes a message with the key's hash and signs it.
func (k *Key) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignMessageContext(context.Background(), msg, opts)
}

// SignMessageContext is SignMessage, waiting for the TPM no longer than ctx.
func (k *Key) SignMessageContext(ctx context.Context, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := k.defaultHash()
	if opts != nil && opts.HashFunc() != 0 {
		hash = opts.HashFunc()
	}
	if !hash.Available() {
		return nil, k.d.inputError(ErrKeyUse, "hash %v", hash)
	}
	h := hash.New()
	h.Write(msg)
	return k.SignContext(ctx, h.Sum(nil), hash)
}

// SignContext is Sign, waiting for the TPM no longer than ctx.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	scheme, err := k.signScheme(digest, opts)
	if err != nil {
		return nil, err
	}
	digest = bytes.Clone(digest) // the TPM may still read it when ctx has ended
	// The response of TPM2_Sign begins with a TPMT_SIGNATURE, which is no
	// TPM2B: it cannot be encrypted, and need not be.
	return withKey(ctx, k, 0, in, func(a *attachment, h tpm2.AuthHandle) ([]byte, error) {
		rsp, err := run(a, tpm2.Sign{
			KeyHandle:  h,
			Digest:     tpm2.TPM2BDigest{Buffer: digest},
			InScheme:   scheme,
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		})
		if err != nil {
			return nil, err
		}
		der, err := signatureDER(k.public, &rsp.Signature)
		if err != nil {
			return nil, a.malformed("TPM2_Sign", "%v", err)
		}
		return der, nil
	})
}

// defaultHash is the hash of the key's scheme, or the one that fits its curve.
func (k *Key) defaultHash() crypto.Hash {
	if k.public == nil {
		return 0
	}
	if h := hashOf(schemeHash(k.object.public)); h != 0 {
		return h
	}
	if k.public.Curve.Params().BitSize > 256 {
		return crypto.SHA384
	}
	return crypto.SHA256
}

// signScheme checks that a digest can be signed and returns the scheme to ask
// for: none when the key brings its own.
func (k *Key) signScheme(digest []byte, opts crypto.SignerOpts) (tpm2.TPMTSigScheme, error) {
	var none tpm2.TPMTSigScheme
	if k.kind != SignP256 && k.kind != SignP384 {
		return none, k.d.inputError(ErrKeyUse, "a key of kind %v does not sign digests", k.kind)
	}
	fixed := schemeHash(k.object.public)
	want := k.defaultHash()
	if fixed == 0 && opts != nil && opts.HashFunc() != 0 {
		want = opts.HashFunc()
	}
	if opts != nil && opts.HashFunc() != 0 && opts.HashFunc() != want {
		return none, k.d.inputError(ErrKeyUse, "the key signs with %v, not %v", want, opts.HashFunc())
	}
	alg := algorithmOf(want)
	if alg == 0 {
		return none, k.d.inputError(ErrKeyUse, "hash %v", want)
	}
	if len(digest) != want.Size() {
		return none, k.d.inputError(ErrDigestSize, "%d octets where %v has %d", len(digest), want, want.Size())
	}
	if fixed != 0 {
		return none, nil
	}
	return tpm2.TPMTSigScheme{
		Scheme:  tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: alg}),
	}, nil
}

func algorithmOf(h crypto.Hash) tpm2.TPMAlgID {
	switch h {
	case crypto.SHA256:
		return tpm2.TPMAlgSHA256
	case crypto.SHA384:
		return tpm2.TPMAlgSHA384
	case crypto.SHA512:
		return tpm2.TPMAlgSHA512
	}
	return 0
}

// signatureDER turns a TPMT_SIGNATURE into the form the standard library
// speaks. r and s come as unsigned integers of any length up to the curve's.
func signatureDER(public *ecdsa.PublicKey, sig *tpm2.TPMTSignature) ([]byte, error) {
	if sig.SigAlg != tpm2.TPMAlgECDSA {
		return nil, errors.New("a signature of another scheme")
	}
	ecc, err := sig.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	size := (public.Curve.Params().BitSize + 7) / 8
	if len(ecc.SignatureR.Buffer) > size || len(ecc.SignatureS.Buffer) > size {
		return nil, errors.New("a signature longer than the curve")
	}
	r := new(big.Int).SetBytes(ecc.SignatureR.Buffer)
	s := new(big.Int).SetBytes(ecc.SignatureS.Buffer)
	n := public.Curve.Params().N
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return nil, errors.New("a signature out of range")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.Bytes()
}
