package tpm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/binary"
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
	parms := signParameters(digest, scheme) // a copy: the TPM may still read it when ctx has ended
	// The response of TPM2_Sign begins with a TPMT_SIGNATURE, which is no
	// TPM2B: it cannot be encrypted, and need not be.
	return withKey(ctx, k, in, func(a *attachment, h tpm2.AuthHandle) ([]byte, error) {
		answer, err := a.exchange(tpm2.TPMCCSign, h, parms)
		if err != nil {
			return nil, err
		}
		der, err := signatureDER(k.public, answer)
		if err != nil {
			return nil, a.malformed("TPM2_Sign", "%v", err)
		}
		return der, nil
	})
}

// signParameters are those of TPM2_Sign (Part 3, 20.2):
//
//	TPM2B_DIGEST        digest;
//	TPMT_SIG_SCHEME+    inScheme;    /* Part 2, 11.2.1.5: TPM_ALG_NULL, or TPM_ALG_ECDSA and a hash */
//	TPMT_TK_HASHCHECK   validation;  /* Part 2, 10.7.6: the null ticket */
//
// hash is TPM_ALG_NULL when the key brings its own scheme.
func signParameters(digest []byte, hash tpm2.TPMAlgID) []byte {
	b := append2B(make([]byte, 0, 2+len(digest)+4+8), digest)
	if hash == tpm2.TPMAlgNull {
		b = binary.BigEndian.AppendUint16(b, uint16(tpm2.TPMAlgNull))
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(tpm2.TPMAlgECDSA))
		b = binary.BigEndian.AppendUint16(b, uint16(hash))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(tpm2.TPMSTHashCheck))
	b = binary.BigEndian.AppendUint32(b, uint32(tpm2.TPMRHNull))
	return append2B(b, nil)
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

// signScheme checks that a digest can be signed and returns the hash of the scheme
// to ask for: TPM_ALG_NULL when the key brings its own.
func (k *Key) signScheme(digest []byte, opts crypto.SignerOpts) (tpm2.TPMAlgID, error) {
	const none = tpm2.TPMAlgNull
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
	return alg, nil
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

// signatureDER turns the parameters of an answer to TPM2_Sign into the form the
// standard library speaks. r and s come as unsigned integers of any length up
// to the curve's.
//
//	struct {
//	    TPMI_ALG_SIG_SCHEME  sigAlg;      /* TPM_ALG_ECDSA */
//	    TPMI_ALG_HASH        hash;
//	    TPM2B_ECC_PARAMETER  signatureR;
//	    TPM2B_ECC_PARAMETER  signatureS;
//	} TPMT_SIGNATURE;                     /* Part 2, 11.3.2 and 11.3.4 */
func signatureDER(public *ecdsa.PublicKey, parms cryptobyte.String) ([]byte, error) {
	var scheme, hash uint16
	var first, second cryptobyte.String
	if !parms.ReadUint16(&scheme) || tpm2.TPMAlgID(scheme) != tpm2.TPMAlgECDSA {
		return nil, errors.New("a signature of another scheme")
	}
	if !parms.ReadUint16(&hash) || hashOf(tpm2.TPMAlgID(hash)) == 0 {
		return nil, errors.New("a signature over an unknown hash")
	}
	if !parms.ReadUint16LengthPrefixed(&first) || !parms.ReadUint16LengthPrefixed(&second) || !parms.Empty() {
		return nil, errors.New("a signature that does not end where it should")
	}
	size := (public.Curve.Params().BitSize + 7) / 8
	if len(first) > size || len(second) > size {
		return nil, errors.New("a signature longer than the curve")
	}
	r, s := new(big.Int).SetBytes(first), new(big.Int).SetBytes(second)
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
