package sdjwt

// Digest gives the tests the digest of a Disclosure.
func Digest(hash, disclosure string) string { return hashAlgs[hash].digest([]byte(disclosure)) }
