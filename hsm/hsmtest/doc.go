// Package hsmtest holds the contract of a PKCS#11 token and the real modules to
// hold to it.
//
// [SoftHSM], [P11Kit], [NSS], [TPM2PKCS11] and [OpenCryptoki] make a throwaway
// token each, with a configuration, a PIN file and daemons of its own that end
// with the test. A test of another package that only needs a token calls
//
//	tok := hsmtest.Token(t)
//
// and has a SoftHSM token with a login.
//
// [TestToken] is the contract. It runs unchanged on every module; where a
// module cannot do something or does it otherwise, its [Deviations] say so as
// data. [TestRecovery] does to a token what happens to tokens.
//
// [Faults] is the only fake: a layer around a real module that makes the nth
// call fail, before or after it took effect. [Sweep] moves n over a whole
// scenario. [FlipSignatures] is a module that signs wrongly and does not say so.
//
// A package that is missing ends a test with the command that installs it;
// nothing here skips.
package hsmtest
