// Package client uses keys of a Privyseal signing service as if they were here.
//
// A [Signer] is a crypto.Signer and crypto.MessageSigner, a [KeyExchanger] is
// an ecdh.KeyExchanger, a [MAC] computes HMAC-SHA256: what crypto/x509,
// crypto/hpke, the mls and mimi packages and the issuers of credentials take.
// Requests and answers carry checksums, every signature is verified here too,
// and what may be asked again is, a bounded number of times and under one
// idempotency key.
//
// An [Identity] is the caller's certificate and key in a folder, enrolled once
// and renewed as long as it is used.
package client
