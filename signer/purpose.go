package signer

import (
	"fmt"
	"slices"
	"strings"
)

// A Purpose says what a key is for. A key has exactly one, fixed when it is
// created.
type Purpose string

// The purposes.
const (
	PurposeX509CA                 Purpose = "x509-ca"                 // certificates, CRLs, OCSP responses
	PurposeCredentialIssuer       Purpose = "credential-issuer"       // SD-JWT, SD-CWT and other JWT and CWT credentials
	PurposeStatus                 Purpose = "status"                  // status list tokens, OCSP responses of a delegated responder
	PurposeCredentialConfirmation Purpose = "credential-confirmation" // KB-JWT, KBT and credential bindings of a holder
	PurposeMLSLeaf                Purpose = "mls-leaf"                // what an MLS client signs, and the KB-JWT or KBT of its own credential
	PurposeMLSInit                Purpose = "mls-init"                // key agreement for KeyPackages
	PurposeHubSender              Purpose = "hub-sender"              // external proposals and answers of a hub
	PurposeFrankSign              Purpose = "frank-sign"              // franking signatures
	PurposeFrankMAC               Purpose = "frank-mac"               // server franks, HMAC-SHA256
	PurposeLogCheckpoint          Purpose = "log-checkpoint"          // checkpoints of the transparency log
	PurposeTLS                    Purpose = "tls"                     // TLS 1.3 handshakes
	PurposeRaw                    Purpose = "raw"                     // bare digests; needs a key made for nothing else
)

// Purposes returns every Purpose, in the order of the documentation.
func Purposes() []Purpose {
	return []Purpose{
		PurposeX509CA, PurposeCredentialIssuer, PurposeStatus, PurposeCredentialConfirmation,
		PurposeMLSLeaf, PurposeMLSInit, PurposeHubSender, PurposeFrankSign, PurposeFrankMAC,
		PurposeLogCheckpoint, PurposeTLS, PurposeRaw,
	}
}

// ParsePurpose returns the Purpose of that name.
func ParsePurpose(s string) (Purpose, error) {
	if p := Purpose(s); slices.Contains(Purposes(), p) {
		return p, nil
	}
	var names []string
	for _, p := range Purposes() {
		names = append(names, string(p))
	}
	return "", fmt.Errorf("%w: there is no purpose %q; use one of %s", ErrUsage, clip(s), strings.Join(names, ", "))
}

// Use returns what a device must be able to do with a key of this purpose.
func (p Purpose) Use() Use {
	switch p {
	case PurposeMLSInit:
		return UseAgree
	case PurposeFrankMAC:
		return UseMAC
	}
	return UseSign
}

// DefaultAlgorithm returns the algorithm of a new key when nobody asks for
// another: P-256, which every token and every TPM has.
func (p Purpose) DefaultAlgorithm() Algorithm {
	switch p.Use() {
	case UseAgree:
		return ECDHP256
	case UseMAC:
		return HMACSHA256
	}
	return P256
}

// clip bounds text from outside that is quoted in an error.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
