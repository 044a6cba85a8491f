// Package enrol is how a device gets a credential of which the issuer knows
// where its key is kept, over HTTPS and in two steps.
//
// An operator invites an account: a one-time [Code] says which client and user
// may have which type of credential. The device begins with the code and, if it
// has a TPM, with the public areas of its endorsement key and its attestation
// key. It is given a nonce and a credential to activate. It finishes with the
// secret, with the certification of its key by the attestation key over the
// nonce, and with a PKCS#10 request for the names, over the nonce too. A device
// whose key is in a PKCS#11 token finishes with a [Statement] instead, which its
// appliance signs.
//
// What is proven goes into the credential as its attestation level, and what
// proved it is kept with the record of the credential.
//
// A session is good for one attempt and for a few minutes, and an account has
// one at a time. A code is spent when its device has proven itself, in the commit that
// writes the credential down, so that a failed attempt costs only the session.
// Where the invitations are in PostgreSQL, sessions are there too, sealed, and any
// node finishes what another has begun. On SQLite they are in memory: after a
// restart a device begins anew.
package enrol
