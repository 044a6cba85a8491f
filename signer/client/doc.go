// Package client uses keys of a Privyseal signing service as if they were here.
//
// A [Signer] is a crypto.Signer and crypto.MessageSigner, a [KeyExchanger] is
// an ecdh.KeyExchanger, a [MAC] computes HMAC-SHA256: what crypto/x509,
// crypto/hpke, the mls and mimi packages and the issuers of credentials take.
// Requests and answers carry checksums, every signature is verified here too,
// and what may be asked again is, a bounded number of times and under one
// idempotency key.
//
// Calls of one [Client] that are made at once share requests, unless
// [Config].Apart says no: see docs/decisions/0025. Each has its own result and
// obeys its own context.
//
// An [Identity] is the caller's certificate and key in a folder, enrolled once
// and renewed as long as it is used.
package client
