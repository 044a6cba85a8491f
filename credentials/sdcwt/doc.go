// Package sdcwt issues, presents and verifies SD-CWTs: CBOR Web Tokens whose
// claims the holder discloses one by one (draft-ietf-spice-sd-cwt-08).
//
// An [Issuer] turns a claims set, in which [Redact] and [Decoy] mark what to
// hide, into a signed SD-CWT. A [Holder] checks it and gets a [Credential],
// which is presented to one verifier at a time as a Key Binding Token (KBT). A
// [Verifier] judges a KBT and returns the validated disclosed claims set.
//
// Hashes and signatures are over octets as received: nothing is encoded again
// between receipt and check. Every refusal is a *credentials.Error whose Code
// names the rule.
package sdcwt
