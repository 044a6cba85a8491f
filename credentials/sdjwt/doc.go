// Package sdjwt issues, presents and verifies SD-JWT (RFC 9901) and SD-JWT VC
// (draft-ietf-oauth-sd-jwt-vc, as announced in -24).
//
// An Issuer signs a claims set in which chosen members and elements are
// redacted, and hands the Disclosures to the holder. The holder keeps them as
// a Credential, chooses what to disclose, and binds the presentation to one
// verifier with a Key Binding JWT. A Verifier has a Policy and answers with
// the claims that are left, or with a *credentials.Error that names the rule
// which the token broke.
//
// Keys are crypto.Signer, so they may live in a token or a TPM; one that also
// has SignContext is asked through it.
//
// The package fetches nothing: IssuerKeys and Policy.Status are where a caller
// plugs in key discovery and status lists. It does not read type metadata.
package sdjwt
