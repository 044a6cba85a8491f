package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// A Verifier checks evidence in software. Nonce is required; the zero value of
// everything else asks for less.
type Verifier struct {
	// Nonce is the verifier's own, which each statement must carry.
	Nonce []byte

	// AKName is the Name of the attestation key that is believed, for
	// example because it answered a challenge (NewChallenge). Without it the
	// evidence says only that some key of these attributes signed it.
	AKName []byte

	// PCRs are values that the quote must contain.
	PCRs map[int][]byte

	// EKRoots are the makers of TPMs that are believed. If set, the evidence
	// must contain an endorsement certificate that leads to one of them.
	EKRoots         *x509.CertPool
	EKIntermediates *x509.CertPool

	// Time at which certificates must be valid; now, if zero.
	Time time.Time
}

// Verified is what verified evidence proves.
type Verified struct {
	KeyName    []byte
	Key        *ecdsa.PublicKey // nil for a MAC key
	Attributes Attributes       // fixedTPM, fixedParent and sensitiveDataOrigin are true
	Kind       Kind
	AKName     []byte
	AKTrusted  bool           // the AK is the one that the verifier named
	Created    bool           // the TPM certified that it made the key
	PCRs       map[int][]byte // the quoted values; nil without a quote
	EK         *EKCertificate // nil if no certificate was asked for
}

// Verify checks evidence, every statement in it, and says what it proves.
func (v *Verifier) Verify(e *Evidence) (*Verified, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if len(v.Nonce) < minNonce {
		return nil, refuse("nonce", "the verifier brought a nonce of %d octets; at least %d", len(v.Nonce), minNonce)
	}
	ak, err := readAK(e.AK)
	if err != nil {
		return nil, err
	}
	if v.AKName != nil && !bytes.Equal(v.AKName, ak.name) {
		return nil, refuse("ak-name", "the attestation key is %x, not %x", ak.name, v.AKName)
	}
	r := &Verified{AKName: ak.name, AKTrusted: v.AKName != nil}
	if err := v.verifyKey(e, ak, r); err != nil {
		return nil, err
	}
	if err := v.verifyQuote(e, ak, r); err != nil {
		return nil, err
	}
	if v.EKRoots != nil {
		if r.EK, err = v.verifyEK(e); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// verifyKey checks the certification, the creation if it is there, and the
// attributes of the key.
func (v *Verifier) verifyKey(e *Evidence, ak *attestationKey, r *Verified) error {
	public, name, err := readPublicArea(e.Key)
	if err != nil {
		return refuse("key", "%w", err)
	}
	if err := v.verifyCertification(e.Certification, ak, name.Buffer); err != nil {
		return err
	}
	if e.Creation != nil {
		if err := v.verifyCreation(e, ak, name.Buffer, public.NameAlg); err != nil {
			return err
		}
		r.Created = true
	}
	a := attributesOf(public)
	if !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin {
		return refuse("key-attributes", "the key is not fixedTPM, fixedParent and sensitiveDataOrigin: %+v", a)
	}
	r.KeyName, r.Attributes, r.Kind = name.Buffer, a, kindOf(public)
	if r.Kind != MACSHA256 {
		if r.Key, err = publicKey(public); err != nil {
			return refuse("key", "%w", err)
		}
	}
	return nil
}

func (v *Verifier) verifyCertification(a *Attestation, ak *attestationKey, keyName []byte) error {
	s, err := v.statement(a, ak, tpm2.TPMSTAttestCertify)
	if err != nil {
		return err
	}
	info, err := s.Attested.Certify()
	if err != nil {
		return refuse("type", "%w", err)
	}
	if !bytes.Equal(info.Name.Buffer, keyName) {
		return refuse("name", "the certified key is %x, the key in the evidence %x", info.Name.Buffer, keyName)
	}
	return nil
}

func (v *Verifier) verifyCreation(e *Evidence, ak *attestationKey, keyName []byte, nameAlg tpm2.TPMIAlgHash) error {
	s, err := v.statement(e.Creation, ak, tpm2.TPMSTAttestCreation)
	if err != nil {
		return err
	}
	info, err := s.Attested.Creation()
	if err != nil {
		return refuse("type", "%w", err)
	}
	if !bytes.Equal(info.ObjectName.Buffer, keyName) {
		return refuse("name", "the created key is %x, the key in the evidence %x", info.ObjectName.Buffer, keyName)
	}
	if _, err := decodeExact[tpm2.TPMSCreationData](e.CreationData); err != nil {
		return refuse("creation-hash", "%w", err)
	}
	h := hashOf(nameAlg).New()
	h.Write(e.CreationData)
	if !bytes.Equal(h.Sum(nil), info.CreationHash.Buffer) {
		return refuse("creation-hash", "the creation data is not what was certified")
	}
	return nil
}

// verifyQuote checks the quote, if there is or has to be one.
func (v *Verifier) verifyQuote(e *Evidence, ak *attestationKey, r *Verified) error {
	if e.Quote == nil {
		if len(v.PCRs) > 0 {
			return refuse("pcrs", "there is no quote")
		}
		return nil
	}
	if _, err := v.statement(&e.Quote.Attestation, ak, tpm2.TPMSTAttestQuote); err != nil {
		return err
	}
	if err := e.Quote.checkDigest(); err != nil {
		return err
	}
	for p, want := range v.PCRs {
		if !bytes.Equal(e.Quote.PCRs[p], want) {
			return refuse("pcrs", "PCR %d is %x, not %x", p, e.Quote.PCRs[p], want)
		}
	}
	r.PCRs = e.Quote.PCRs
	return nil
}

// checkDigest holds the PCR values of a quote against what was signed. The
// digest is by the hash of the attestation key's scheme, which is SHA-256.
func (q *Quote) checkDigest() error {
	s, err := parseStatement(q.Statement)
	if err != nil {
		return err
	}
	info, err := s.Attested.Quote()
	if err != nil {
		return refuse("type", "%w", err)
	}
	signed, err := parsePCRSelection(info.PCRSelect)
	if err != nil {
		return refuse("pcr-digest", "%w", err)
	}
	if len(signed) != len(q.PCRs) {
		return refuse("pcr-digest", "%d PCRs were signed, %d are given", len(signed), len(q.PCRs))
	}
	for _, p := range signed {
		if len(q.PCRs[p]) != 32 {
			return refuse("pcr-digest", "PCR %d has %d octets", p, len(q.PCRs[p]))
		}
	}
	if !bytes.Equal(digestPCRs(signed, q.PCRs), info.PCRDigest.Buffer) {
		return refuse("pcr-digest", "the PCRs are not those that were signed")
	}
	return nil
}

// statement checks what all statements have in common and returns it decoded.
func (v *Verifier) statement(a *Attestation, ak *attestationKey, kind tpm2.TPMST) (*tpm2.TPMSAttest, error) {
	s, err := parseStatement(a.Statement)
	if err != nil {
		return nil, err
	}
	if s.Type != kind {
		return nil, refuse("type", "the statement is of type %#04x, not %#04x", uint16(s.Type), uint16(kind))
	}
	if subtle.ConstantTimeCompare(s.ExtraData.Buffer, v.Nonce) != 1 {
		return nil, refuse("nonce", "the statement was made for another nonce")
	}
	if err := ak.verify(a); err != nil {
		return nil, err
	}
	return s, nil
}

// tpmGenerated begins every statement of a TPM and nothing else that a
// restricted key signs (Part 2, 6.2).
const tpmGenerated = 0xff544347

func parseStatement(b []byte) (*tpm2.TPMSAttest, error) {
	if len(b) > maxStatement {
		return nil, refuse("format", "a statement of %d octets", len(b))
	}
	if len(b) < 4 || binary.BigEndian.Uint32(b) != tpmGenerated {
		return nil, refuse("magic", "the statement does not begin with TPM_GENERATED")
	}
	s, err := decodeExact[tpm2.TPMSAttest](b)
	if err != nil {
		return nil, refuse("format", "the statement %w", err)
	}
	return s, nil
}

// An attestationKey is a key that can be believed to sign statements of its
// TPM only.
type attestationKey struct {
	public *ecdsa.PublicKey
	hash   tpm2.TPMAlgID
	name   []byte
}

// readAK checks the attributes of an attestation key. Only a restricted key
// will do: any other can be made to sign a forged statement.
func readAK(b []byte) (*attestationKey, error) {
	public, name, err := readPublicArea(b)
	if err != nil {
		return nil, refuse("ak", "%w", err)
	}
	a := attributesOf(public)
	if !a.Restricted || !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Sign || a.Decrypt {
		return nil, refuse("ak-attributes", "the attestation key is not a restricted signing key that was made in the TPM and cannot leave it: %+v", a)
	}
	key, err := publicKey(public)
	if err != nil {
		return nil, refuse("ak", "%w", err)
	}
	hash := schemeHash(public)
	if hash != tpm2.TPMAlgSHA256 {
		return nil, refuse("ak", "the attestation key does not sign with ECDSA and SHA-256")
	}
	return &attestationKey{public: key, hash: hash, name: name.Buffer}, nil
}

// verify checks the signature of a statement.
func (k *attestationKey) verify(a *Attestation) error {
	if len(a.Signature) > maxSignature {
		return refuse("signature", "%d octets", len(a.Signature))
	}
	sig, err := decodeExact[tpm2.TPMTSignature](a.Signature)
	if err != nil {
		return refuse("signature", "%w", err)
	}
	if sig.SigAlg != tpm2.TPMAlgECDSA {
		return refuse("signature", "scheme %#04x", uint16(sig.SigAlg))
	}
	ecc, err := sig.Signature.ECDSA()
	if err != nil || ecc.Hash != k.hash {
		return refuse("signature", "not of the attestation key's scheme")
	}
	h := hashOf(k.hash).New()
	h.Write(a.Statement)
	r := new(big.Int).SetBytes(ecc.SignatureR.Buffer)
	s := new(big.Int).SetBytes(ecc.SignatureS.Buffer)
	if !ecdsa.Verify(k.public, h.Sum(nil), r, s) {
		return refuse("signature", "it does not verify")
	}
	return nil
}
