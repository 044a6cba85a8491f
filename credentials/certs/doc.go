// Package certs issues, checks and revokes the X.509 credentials of MIMI:
// device certificates whose subject alternative name holds one client URI and
// one user URI (draft-mahy-mimi-identity-05, RFC 9420 section 5.3), hub
// certificates for a provider, and the CA certificates above them. The
// extended key usage is id-kp-imUri (RFC 9734) and nothing else.
//
// # Issuing
//
// An [Issuer] signs with any crypto.Signer: a token, a TPM, the signing
// service or software. The requester proves possession of the device key with
// a PKCS#10 request over a nonce ([CreateRequest], [ParseRequest]); the names
// in the request are compared with those of the authorised account and never
// copied. Issuing takes two steps. [Issuer.Prepare] builds the certificate,
// reads it back with an independent parser and set of checks, and stores the
// intent durably. [Issuer.Issue] redeems the
// prepared value once, signs exactly the octets that were checked, verifies
// the signature and stores the certificate before returning it. After a crash
// between any two writes the intent is still there, without its certificate:
// such a serial counts as "may have been signed". [Issuer.Certify] is both with one
// write, after the signature.
//
// # Verifying
//
// A [Verifier] holds issuer entries (anchors and intermediates) and judges the
// chain of an MLS Credential or of a hub in a fixed order, so that the error
// names the first rule that was broken. It does not look at the operating
// system's roots and does not search for paths among what a peer sent. Which
// entry may speak for which provider is decided by package trust, through
// [Check.Authorize].
//
// # Revoking
//
// [SQLStore.Revoke] marks a certificate; [Issuer.SignCRL] signs full and delta
// CRLs, whose numbers are durable before the key is used and never go
// backwards, and a [Responder] answers OCSP from the same store, signing once
// what many ask for. [ParseCRL] and [CheckOCSP] are the other end: what cannot
// be used is status-unavailable and never means good.
//
// # What it does not do
//
// It fetches nothing, and it issues no certificates for TLS servers. A Responder
// answers about one certificate a request, which is how RFC 5019 section 2.1.1 has
// clients ask; one about several is malformedRequest, and openssl ocsp makes such
// a request if it is given several -cert.
package certs
