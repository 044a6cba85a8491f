package tpm

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// ErrKeyFile is wrapped by every error about the content of a TSS2 file.
var ErrKeyFile = errors.New("not a TSS2 key file")

// A KeyFile is a wrapped key as other programs store it too: a PEM block of
// type "TSS2 PRIVATE KEY" around the TPMKey of "ASN.1 Specification for TPM 2.0
// Key Files" (draft-bottomley-tpm2-keys).
//
//	TPMKey ::= SEQUENCE {
//	    type        OBJECT IDENTIFIER,
//	    emptyAuth   [0] EXPLICIT BOOLEAN OPTIONAL,
//	    policy      [1] EXPLICIT SEQUENCE OF TPMPolicy OPTIONAL,
//	    secret      [2] EXPLICIT OCTET STRING OPTIONAL,
//	    authPolicy  [3] EXPLICIT SEQUENCE OF TPMAuthPolicy OPTIONAL,
//	    description [4] EXPLICIT UTF8String OPTIONAL,
//	    rsaParent   [5] EXPLICIT BOOLEAN OPTIONAL,
//	    parent      INTEGER,
//	    pubkey      OCTET STRING,
//	    privkey     OCTET STRING
//	}
//	TPMPolicy ::= SEQUENCE {
//	    CommandCode   [0] EXPLICIT INTEGER,
//	    CommandPolicy [1] EXPLICIT OCTET STRING
//	}
//
// Loadable keys are read and written; importable keys and sealed data
// (secret), signed policies (authPolicy) and RSA parents are refused by name.
// The encoding is DER; BER's TRUE of 0x01, which some writers use, is accepted.
type KeyFile struct {
	EmptyAuth   bool   // no authorization value is needed
	Description string // for people
	Parent      uint32 // TPM_RH_OWNER for the storage root key, or a persistent handle
	Public      []byte // TPMT_PUBLIC
	Private     []byte // TPM2B_PRIVATE without its size
	policy      policy
}

// The parents that a file may name.
const ParentOwner = uint32(tpm2.TPMRHOwner) // 0x40000001: the storage root key

// Bounds of a key file.
const (
	maxKeyFile     = 16 << 10
	maxDescription = 256
	maxPrivate     = 1024
)

const pemType = "TSS2 PRIVATE KEY"

// id-loadablekey, id-importablekey, id-sealedkey below the TCG's arc 2.23.133.10.1.
var (
	oidLoadable   = []byte{0x67, 0x81, 0x05, 0x0a, 0x01, 0x03}
	oidImportable = []byte{0x67, 0x81, 0x05, 0x0a, 0x01, 0x04}
	oidSealed     = []byte{0x67, 0x81, 0x05, 0x0a, 0x01, 0x05}
)

var (
	tagEmptyAuth   = asn1.Tag(0).Constructed().ContextSpecific()
	tagPolicy      = asn1.Tag(1).Constructed().ContextSpecific()
	tagSecret      = asn1.Tag(2).Constructed().ContextSpecific()
	tagAuthPolicy  = asn1.Tag(3).Constructed().ContextSpecific()
	tagDescription = asn1.Tag(4).Constructed().ContextSpecific()
	tagRSAParent   = asn1.Tag(5).Constructed().ContextSpecific()
)

func keyFileError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrKeyFile, fmt.Sprintf(format, args...))
}

// ParseKeyFile reads a PEM file with exactly one TSS2 PRIVATE KEY block and
// nothing after it.
func ParseKeyFile(file []byte) (*KeyFile, error) {
	if len(file) > maxKeyFile {
		return nil, keyFileError("longer than %d octets", maxKeyFile)
	}
	block, rest := pem.Decode(file)
	switch {
	case block == nil:
		return nil, keyFileError("no PEM block")
	case block.Type != pemType:
		return nil, keyFileError("a PEM block of type %q", block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, keyFileError("there is something after the PEM block")
	}
	return parseTPMKey(block.Bytes)
}

func parseTPMKey(der []byte) (*KeyFile, error) {
	in, f := cryptobyte.String(der), new(KeyFile)
	var seq, oid cryptobyte.String
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !in.Empty() {
		return nil, keyFileError("not one SEQUENCE")
	}
	if !seq.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
		return nil, keyFileError("field type is missing")
	}
	if err := checkKeyType(oid); err != nil {
		return nil, err
	}
	if err := f.readOptional(&seq); err != nil {
		return nil, err
	}
	return f, f.readBlobs(&seq)
}

func checkKeyType(oid []byte) error {
	switch {
	case bytes.Equal(oid, oidLoadable):
		return nil
	case bytes.Equal(oid, oidImportable):
		return keyFileError("an importable key; import it with the tool that made it first")
	case bytes.Equal(oid, oidSealed):
		return keyFileError("sealed data, not a key")
	}
	return keyFileError("field type has an unknown value")
}

// readOptional reads the fields from emptyAuth to rsaParent.
func (f *KeyFile) readOptional(seq *cryptobyte.String) error {
	var err error
	if f.EmptyAuth, err = readOptionalBool(seq, tagEmptyAuth, "emptyAuth"); err != nil {
		return err
	}
	if f.policy, err = readPolicy(seq); err != nil {
		return err
	}
	if seq.PeekASN1Tag(tagSecret) {
		return keyFileError("field secret belongs to importable keys only")
	}
	if seq.PeekASN1Tag(tagAuthPolicy) {
		return keyFileError("signed policies (field authPolicy) are not supported")
	}
	if f.Description, err = readDescription(seq); err != nil {
		return err
	}
	rsa, err := readOptionalBool(seq, tagRSAParent, "rsaParent")
	if err == nil && rsa {
		err = keyFileError("an RSA parent (field rsaParent) is not supported")
	}
	return err
}

// readOptionalBool reads an optional BOOLEAN that defaults to FALSE.
func readOptionalBool(seq *cryptobyte.String, tag asn1.Tag, name string) (bool, error) {
	var explicit, value cryptobyte.String
	var present bool
	if !seq.ReadOptionalASN1(&explicit, &present, tag) {
		return false, keyFileError("field %s", name)
	}
	if !present {
		return false, nil
	}
	if !explicit.ReadASN1(&value, asn1.BOOLEAN) || !explicit.Empty() || len(value) != 1 {
		return false, keyFileError("field %s is no BOOLEAN", name)
	}
	return value[0] != 0, nil
}

func readDescription(seq *cryptobyte.String) (string, error) {
	var explicit, value cryptobyte.String
	var present bool
	if !seq.ReadOptionalASN1(&explicit, &present, tagDescription) {
		return "", keyFileError("field description")
	}
	if !present {
		return "", nil
	}
	if !explicit.ReadASN1(&value, asn1.UTF8String) || !explicit.Empty() || !utf8.Valid(value) || len(value) > maxDescription {
		return "", keyFileError("field description is no UTF8String of at most %d octets", maxDescription)
	}
	return string(value), nil
}

func readPolicy(seq *cryptobyte.String) (policy, error) {
	var explicit, list cryptobyte.String
	var present bool
	if !seq.ReadOptionalASN1(&explicit, &present, tagPolicy) {
		return nil, keyFileError("field policy")
	}
	if !present {
		return nil, nil
	}
	if !explicit.ReadASN1(&list, asn1.SEQUENCE) || !explicit.Empty() {
		return nil, keyFileError("field policy is no SEQUENCE")
	}
	var p policy
	for !list.Empty() {
		if len(p) == maxPolicySteps {
			return nil, keyFileError("a policy of more than %d steps", maxPolicySteps)
		}
		step, err := readPolicyStep(&list)
		if err != nil {
			return nil, err
		}
		p = append(p, step)
	}
	return p, nil
}

func readPolicyStep(list *cryptobyte.String) (policyStep, error) {
	var step, codeField, parmsField, parms cryptobyte.String
	var code uint64
	ok := list.ReadASN1(&step, asn1.SEQUENCE) &&
		step.ReadASN1(&codeField, asn1.Tag(0).Constructed().ContextSpecific()) &&
		codeField.ReadASN1Integer(&code) && codeField.Empty() &&
		step.ReadASN1(&parmsField, asn1.Tag(1).Constructed().ContextSpecific()) &&
		parmsField.ReadASN1(&parms, asn1.OCTET_STRING) && parmsField.Empty() &&
		step.Empty()
	if !ok {
		return policyStep{}, keyFileError("field policy has a step that is no TPMPolicy")
	}
	switch {
	case code == uint64(tpm2.TPMCCPolicyAuthValue) && len(parms) == 0:
		return policyStep{code: tpm2.TPMCCPolicyAuthValue}, nil
	case code == uint64(tpm2.TPMCCPolicyPCR):
		return readPolicyPCR(parms)
	}
	return policyStep{}, keyFileError("a policy with command %#x, which is not supported", code)
}

// readPolicyPCR reads the parameters of TPM2_PolicyPCR: the digest (sized) and
// the selection.
func readPolicyPCR(parms cryptobyte.String) (policyStep, error) {
	var digest cryptobyte.String
	if !parms.ReadUint16LengthPrefixed(&digest) || len(digest) != 0 && len(digest) != 32 {
		return policyStep{}, keyFileError("TPM2_PolicyPCR with a digest that is none of SHA-256")
	}
	list, err := decodeExact[tpm2.TPMLPCRSelection](parms)
	if err != nil {
		return policyStep{}, keyFileError("TPM2_PolicyPCR: %v", err)
	}
	pcrs, err := parsePCRSelection(*list)
	if err != nil {
		return policyStep{}, keyFileError("TPM2_PolicyPCR: %v", err)
	}
	return policyStep{code: tpm2.TPMCCPolicyPCR, pcrDigest: bytes.Clone(digest), pcrs: pcrs}, nil
}

// readBlobs reads parent, pubkey and privkey.
func (f *KeyFile) readBlobs(seq *cryptobyte.String) error {
	var parent uint64
	var pubkey, privkey cryptobyte.String
	if !seq.ReadASN1Integer(&parent) {
		return keyFileError("field parent is no INTEGER")
	}
	if !isParent(parent) {
		return keyFileError("parent %#x: neither TPM_RH_OWNER (%#x) nor a persistent handle", parent, ParentOwner)
	}
	f.Parent = uint32(parent)
	if !seq.ReadASN1(&pubkey, asn1.OCTET_STRING) || !seq.ReadASN1(&privkey, asn1.OCTET_STRING) || !seq.Empty() {
		return keyFileError("fields pubkey and privkey are not two OCTET STRINGs at the end")
	}
	var err error
	if f.Public, err = readSized(pubkey, maxPublic); err != nil {
		return keyFileError("field pubkey: %v", err)
	}
	if f.Private, err = readSized(privkey, maxPrivate); err != nil {
		return keyFileError("field privkey: %v", err)
	}
	public, _, err := readPublicArea(f.Public)
	if err != nil {
		return keyFileError("field pubkey: %v", err)
	}
	return f.checkPolicy(public)
}

func isParent(h uint64) bool {
	return h == uint64(ParentOwner) || h>>24 == uint64(firstPersistent>>24)
}

// checkPolicy holds the policy of the file against that of the public area. A
// policy with a PCR step without digest means "the values at the time", and
// then only the TPM can tell.
func (f *KeyFile) checkPolicy(public *tpm2.TPMTPublic) error {
	for _, s := range f.policy {
		if s.code == tpm2.TPMCCPolicyPCR && len(s.pcrDigest) == 0 {
			return nil
		}
	}
	if len(f.policy) > 0 && !bytes.Equal(f.policy.digest(), public.AuthPolicy.Buffer) {
		return keyFileError("field policy is not the policy of the key")
	}
	return nil
}

// readSized reads a TPM2B that fills its field.
func readSized(b cryptobyte.String, limit int) ([]byte, error) {
	var content cryptobyte.String
	if !b.ReadUint16LengthPrefixed(&content) || !b.Empty() {
		return nil, errors.New("no TPM2B")
	}
	if len(content) == 0 || len(content) > limit {
		return nil, fmt.Errorf("%d octets", len(content))
	}
	return bytes.Clone(content), nil
}

// Encode writes the file in PEM.
func (f *KeyFile) Encode() ([]byte, error) {
	der, err := f.marshal()
	if err != nil {
		return nil, keyFileError("%v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

func (f *KeyFile) marshal() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oidLoadable) })
		// Written even when it is FALSE: tpm2-openssl takes its absence for TRUE.
		b.AddASN1(tagEmptyAuth, func(b *cryptobyte.Builder) { b.AddASN1Boolean(f.EmptyAuth) })
		if len(f.policy) > 0 {
			b.AddASN1(tagPolicy, f.policy.marshal)
		}
		if f.Description != "" {
			b.AddASN1(tagDescription, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(f.Description)) })
			})
		}
		b.AddASN1Uint64(uint64(f.Parent))
		b.AddASN1OctetString(sized(f.Public))
		b.AddASN1OctetString(sized(f.Private))
	})
	return b.Bytes()
}

func (p policy) marshal(b *cryptobyte.Builder) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, s := range p {
			b.AddASN1(asn1.SEQUENCE, s.marshal)
		}
	})
}

func (s policyStep) marshal(b *cryptobyte.Builder) {
	b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
		b.AddASN1Uint64(uint64(s.code))
	})
	b.AddASN1(asn1.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
		var parms []byte
		if s.code == tpm2.TPMCCPolicyPCR {
			parms = append(sized(s.pcrDigest), tpm2.Marshal(s.pcrs.tpml())...)
		}
		b.AddASN1OctetString(parms)
	})
}

func sized(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}
