// Package tpm drives a TPM 2.0: keys that are made in the device and never
// leave it, evidence that this is so, and a verifier of that evidence which
// needs no TPM.
//
// [Open] returns a [Device] over the kernel's resource manager, a Unix socket
// or TCP (see [ParseAddress]). The device makes keys ([Device.GenerateKey]),
// loads them from TSS2 files or persistent handles ([Device.OpenKey]) and keeps
// as many in use as the caller likes: the few transient slots of the TPM are
// shared, least recently used first out.
//
// A [Key] is a crypto.Signer and crypto.MessageSigner, or an
// ecdh.KeyExchanger, or a MAC, according to the use it was made for. Methods
// ending in Context wait for the device no longer than their context allows.
//
// # Authorization values
//
// Every key gets a random authorization value of 32 printable octets (192 bits
// of entropy) unless the caller brings one; see [Auth]. The value is needed to
// use the key and is not part of the TSS2 file. [SaveKeyFile] keeps it beside
// the file, under the same name with ".auth" appended and mode 0600, so that
// the two can be put on different media; [Config].AuthSource reads it from
// elsewhere, for example a systemd credential. Keys are created with noDA: a
// wrong value never counts towards the lockout of the TPM.
//
// # On the wire
//
// Authorization is by HMAC sessions, reused, salted with the storage root key
// and encrypting the first parameter in each direction where the command
// permits it (Part 1, 19.6 and 21): whoever listens on the bus learns neither
// authorization values nor agreed secrets. Whoever can replace messages can put
// a storage root key of their own in place at start; [Config].SRKName pins it.
//
// # What this package does not do
//
// It knows nothing of credentials, purposes or policies of the services above
// it, does not log, and does not take ownership of the TPM: hierarchy
// authorizations and the dictionary attack parameters are the operator's.
//
// Parts and sections cited are those of the TCG TPM 2.0 Library specification,
// revision 1.59.
package tpm
