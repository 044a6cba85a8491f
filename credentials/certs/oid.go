package certs

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
)

var (
	oidSubjectAltName       = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidCRLNumber            = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReasonCode           = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidDeltaCRLIndicator    = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistPoint     = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidNameConstraints      = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidPolicyMappings       = asn1.ObjectIdentifier{2, 5, 29, 33}
	oidAuthorityKeyID       = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidPolicyConstraints    = asn1.ObjectIdentifier{2, 5, 29, 36}
	oidFreshestCRL          = asn1.ObjectIdentifier{2, 5, 29, 46}
	oidExtKeyUsage          = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidInhibitAnyPolicy     = asn1.ObjectIdentifier{2, 5, 29, 54}
	oidKeyUsage             = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints     = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidExtensionRequest     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14} // RFC 2985 section 5.4.2
	oidChallengePassword    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}  // RFC 2985 section 5.4.1
	oidSubjectKeyIdentifier = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidCRLDistPoints        = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidAuthorityInfoAccess  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidAccessOCSP           = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}
	oidAccessCAIssuers      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}
	oidOCSPNoCheck          = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
)

// OIDIMURI is id-kp-imUri (RFC 9734 section 2): the key may sign for the
// instant messaging URIs in the subject alternative name.
var OIDIMURI = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 40}

// profileExtensions are the extensions that the profile sets itself.
var profileExtensions = []asn1.ObjectIdentifier{
	oidSubjectAltName, oidNameConstraints, oidAuthorityKeyID, oidSubjectKeyIdentifier, oidExtKeyUsage, oidKeyUsage,
	oidBasicConstraints, oidCRLDistPoints, oidAuthorityInfoAccess,
}

// extension returns the extension with the given identifier, or nil.
func extension(exts []pkix.Extension, id asn1.ObjectIdentifier) *pkix.Extension {
	i := slices.IndexFunc(exts, func(e pkix.Extension) bool { return e.Id.Equal(id) })
	if i < 0 {
		return nil
	}
	return &exts[i]
}

func hasOID(list []asn1.ObjectIdentifier, id asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(list, id.Equal)
}

// serialText returns a serial number in lower-case hexadecimal, the way it is
// stored and shown.
func serialText(serial *big.Int) string { return serial.Text(16) }
