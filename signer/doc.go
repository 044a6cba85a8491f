// Package signer holds keys that each have one purpose, and signs with them
// only what that purpose allows.
//
// A key lives in a device (a PKCS#11 token, a TPM) and never leaves it; this
// package keeps its record: identity, algorithm, [Purpose], versions and the
// [Evidence] of how it was made. A [KeyStore] keeps the records in SQLite, a
// [Keyring] joins the store with the devices.
//
// Signing is typed. A [Signer] is handed the whole to-be-signed octets, parses
// them ([ParseRequest]) and refuses what it cannot classify or what the key's
// purpose does not permit ([Purpose.Permits]). A bare digest is signed only by
// a key of purpose raw. Every signature is verified before it is released;
// one that does not verify is never returned, and its device is marked suspect.
//
// The package knows no transport and no driver. It declares the [Device] that
// it needs, and whoever wires the program passes adapters for the drivers. To
// callers above, a key is the standard library's crypto.MessageSigner or
// ecdh.KeyExchanger, so that crypto/x509, crypto/tls and crypto/hpke take it.
//
// What it does not do: authenticate or authorise the caller, keep the journal,
// or guard against signing two contents for one epoch. Those are built on top.
package signer
