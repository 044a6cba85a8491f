package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A Kind is what a key is for and its algorithm.
type Kind int

// The kinds of keys that GenerateKey makes.
const (
	SignP256   Kind = iota // ECDSA on P-256 with SHA-256
	SignP384               // ECDSA on P-384 with SHA-384
	ECDHP256               // key agreement on P-256
	ECDHP384               // key agreement on P-384
	MACSHA256              // HMAC-SHA256
	AttestP256             // an attestation key: restricted, ECDSA on P-256 with SHA-256
	kindOther              // made by other programs
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case SignP256:
		return "sign-p256"
	case SignP384:
		return "sign-p384"
	case ECDHP256:
		return "ecdh-p256"
	case ECDHP384:
		return "ecdh-p384"
	case MACSHA256:
		return "mac-sha256"
	case AttestP256:
		return "attest-p256"
	case kindOther:
		return "other"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// keyAttributes are common to all keys that we make: they were made in this
// TPM, cannot be duplicated out of it (fixedTPM, fixedParent) and do not count
// towards lockout (noDA).
var keyAttributes = tpm2.TPMAObject{
	FixedTPM:            true,
	FixedParent:         true,
	SensitiveDataOrigin: true,
	UserWithAuth:        true,
	NoDA:                true,
}

// template returns the public area that TPM2_Create is asked for. A policy
// replaces the authorization value as the way to use the key.
func (k Kind) template(policy []byte) (tpm2.TPMTPublic, error) {
	attrs := keyAttributes
	if len(policy) > 0 {
		attrs.UserWithAuth = false
	}
	t := tpm2.TPMTPublic{
		NameAlg:    tpm2.TPMAlgSHA256,
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
	}
	switch k {
	case SignP256, AttestP256:
		attrs.SignEncrypt, attrs.Restricted = true, k == AttestP256
		eccTemplate(&t, tpm2.TPMECCNistP256, ecdsaScheme(tpm2.TPMAlgSHA256))
	case SignP384:
		attrs.SignEncrypt = true
		eccTemplate(&t, tpm2.TPMECCNistP384, ecdsaScheme(tpm2.TPMAlgSHA384))
	case ECDHP256:
		attrs.Decrypt = true
		eccTemplate(&t, tpm2.TPMECCNistP256, ecdhScheme(tpm2.TPMAlgSHA256))
	case ECDHP384:
		attrs.Decrypt = true
		eccTemplate(&t, tpm2.TPMECCNistP384, ecdhScheme(tpm2.TPMAlgSHA384))
	case MACSHA256:
		attrs.SignEncrypt = true
		hmacTemplate(&t)
	default:
		return t, fmt.Errorf("cannot make a key of kind %v", k)
	}
	t.ObjectAttributes = attrs
	return t, nil
}

func eccTemplate(t *tpm2.TPMTPublic, curve tpm2.TPMECCCurve, scheme tpm2.TPMTECCScheme) {
	t.Type = tpm2.TPMAlgECC
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Scheme: scheme, CurveID: curve})
}

func hmacTemplate(t *tpm2.TPMTPublic) {
	t.Type = tpm2.TPMAlgKeyedHash
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
		Scheme: tpm2.TPMTKeyedHashScheme{
			Scheme: tpm2.TPMAlgHMAC,
			Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{
				HashAlg: tpm2.TPMAlgSHA256,
			}),
		},
	})
}

func ecdsaScheme(hash tpm2.TPMAlgID) tpm2.TPMTECCScheme {
	return tpm2.TPMTECCScheme{
		Scheme:  tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash}),
	}
}

func ecdhScheme(hash tpm2.TPMAlgID) tpm2.TPMTECCScheme {
	return tpm2.TPMTECCScheme{
		Scheme:  tpm2.TPMAlgECDH,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDH, &tpm2.TPMSKeySchemeECDH{HashAlg: hash}),
	}
}

// kindOf recognises a public area. A key that other programs made to sign and
// to decrypt counts as a signing key: one purpose.
func kindOf(public *tpm2.TPMTPublic) Kind {
	attrs := public.ObjectAttributes
	if public.Type == tpm2.TPMAlgKeyedHash {
		return keyedHashKind(public)
	}
	parms, err := public.Parameters.ECCDetail()
	if public.Type != tpm2.TPMAlgECC || err != nil {
		return kindOther
	}
	p256, p384 := parms.CurveID == tpm2.TPMECCNistP256, parms.CurveID == tpm2.TPMECCNistP384
	switch {
	case attrs.Restricted && attrs.Decrypt:
		return kindOther
	case attrs.SignEncrypt && attrs.Restricted && p256:
		return AttestP256
	case attrs.Restricted:
		return kindOther
	case attrs.SignEncrypt && p256:
		return SignP256
	case attrs.SignEncrypt && p384:
		return SignP384
	case attrs.Decrypt && p256:
		return ECDHP256
	case attrs.Decrypt && p384:
		return ECDHP384
	}
	return kindOther
}

func keyedHashKind(public *tpm2.TPMTPublic) Kind {
	parms, err := public.Parameters.KeyedHashDetail()
	if err != nil || parms.Scheme.Scheme != tpm2.TPMAlgHMAC || !public.ObjectAttributes.SignEncrypt {
		return kindOther
	}
	details, err := parms.Scheme.Details.HMAC()
	if err != nil || details.HashAlg != tpm2.TPMAlgSHA256 {
		return kindOther
	}
	return MACSHA256
}

// schemeHash is the hash that a signing key is bound to, or 0 if its scheme
// leaves the choice to the caller.
func schemeHash(public *tpm2.TPMTPublic) tpm2.TPMAlgID {
	parms, err := public.Parameters.ECCDetail()
	if err != nil || parms.Scheme.Scheme != tpm2.TPMAlgECDSA {
		return 0
	}
	details, err := parms.Scheme.Details.ECDSA()
	if err != nil {
		return 0
	}
	return details.HashAlg
}
