// Package statuslist is the Token Status List (draft-ietf-oauth-status-list-21):
// one array of small numbers that says of every credential of an issuer whether
// it is valid, revoked or suspended, signed as a JWT or a CWT.
//
// A [Publisher] is the issuer's side: it hands out indices that cannot be
// guessed and are never given twice, changes a status durably before it says
// so, and signs and serves the list. A [Checker] is the verifier's side: it
// fetches, verifies and keeps lists, and refuses whatever it cannot judge.
package statuslist
