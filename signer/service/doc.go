// Package service is the signing service: the rules between a caller and a
// key. It knows no transport.
//
// A request passes, in this order: the caller's role and grants, its budget and
// its turn at the device (signer/admit), the rules of the policy
// (signer/policy), the guard and the journal (signer/journal), the device,
// verification (signer), the journal's completion, and release. What is refused
// or fails on the way was not signed or is not released; [Explain] says which,
// and what to do.
//
// Keys are named within the tenant of the caller: key "leaf" of tenant "acme"
// is the signer.KeyID "acme.leaf". Keys without a dot belong to the house, the
// operator of the appliance, and no caller can name them. A caller learns
// nothing of a key that it may not see: whether there is one is not even looked
// up.
package service
