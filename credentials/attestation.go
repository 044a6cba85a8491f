package credentials

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// An AttestationLevel says how much an issuer knew, when it issued a
// credential, of where the private key is kept. A higher level is stronger. It
// speaks of the moment of issuing and of the key, and says nothing about the
// software that uses the key or about who sits in front of it.
type AttestationLevel int

// The levels. What each proves, and what it does not, is in
// docs/attestation.md.
const (
	// AttestationNone: the holder proved possession of the key and nothing
	// else. It is never written into a credential.
	AttestationNone AttestationLevel = 0
	// AttestationStated: an appliance signed what a PKCS#11 module answered
	// when it was asked for the key's attributes. It is the module's word.
	AttestationStated AttestationLevel = 1
	// AttestationListed: a TPM certified that the key was made in it and cannot
	// leave it. The operator of the issuer vouches for that TPM, by a list of
	// endorsement keys.
	AttestationListed AttestationLevel = 2
	// AttestationCertified: as AttestationListed, and the maker of the TPM
	// vouches for it, by its endorsement certificate.
	AttestationCertified AttestationLevel = 3
)

var attestationNames = []string{"none", "stated", "tpm-listed", "tpm-certified"}

// String returns the name of the level, as it stands in claims.
func (l AttestationLevel) String() string {
	if l >= 0 && int(l) < len(attestationNames) {
		return attestationNames[l]
	}
	return fmt.Sprintf("attestation level %d", int(l))
}

// ParseAttestationLevel returns the level of that name.
func ParseAttestationLevel(s string) (AttestationLevel, error) {
	for l, name := range attestationNames {
		if name == s {
			return AttestationLevel(l), nil
		}
	}
	return 0, Errorf(CodeClaimType, ClaimAttestation, "%.40q is no attestation level", s)
}

// ClaimAttestation is the name of the claim with the level in an SD-JWT, and,
// as a text key, in an SD-CWT. Its value is the name of the level, as text. It
// is never redacted; a credential without it has level none.
const ClaimAttestation = "attestation"

// OIDAttestation is the X.509 extension with the level. It is provisional: it
// stands under the enterprise number for documentation (RFC 5612) until one is
// assigned to the project, and changes then.
var OIDAttestation = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 4, 1}

// Extension returns the level as an X.509 extension, which is not critical:
//
//	AttestationLevel ::= ENUMERATED { stated(1), tpmListed(2), tpmCertified(3) }
//
// There is none for AttestationNone; ok is false then.
func (l AttestationLevel) Extension() (ext pkix.Extension, ok bool) {
	if l < AttestationStated || l > AttestationCertified {
		return pkix.Extension{}, false
	}
	der, err := asn1.Marshal(asn1.Enumerated(l))
	if err != nil {
		panic("credentials: " + err.Error()) // an integer always encodes
	}
	return pkix.Extension{Id: OIDAttestation, Value: der}, true
}

// AttestationOf returns the level in a certificate, AttestationNone if it has
// no such extension. One that is repeated, critical, not DER, or of a level
// that we do not know is refused, as malformed.
func AttestationOf(cert *x509.Certificate) (AttestationLevel, error) {
	level := AttestationNone
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(OIDAttestation) {
			continue
		}
		if level != AttestationNone {
			return 0, Errorf(CodeMalformed, "certificate", "two attestation extensions")
		}
		var n asn1.Enumerated
		rest, err := asn1.Unmarshal(ext.Value, &n)
		if l := AttestationLevel(n); err == nil && len(rest) == 0 && !ext.Critical && l >= AttestationStated && l <= AttestationCertified {
			level = l
			continue
		}
		return 0, Errorf(CodeMalformed, "certificate", "attestation extension is critical, not DER, or of an unknown level")
	}
	return level, nil
}
