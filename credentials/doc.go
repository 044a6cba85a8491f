// Package credentials holds the words that every credential format of
// Privyseal shares: the reasons for refusal (Error, Code) and the one table of
// signature schemes in their MLS, COSE and JOSE spellings (Scheme).
//
// The formats themselves are the packages below it: certs (X.509), sdjwt
// (SD-JWT and SD-JWT VC), sdcwt (SD-CWT) and statuslist (Token Status List).
// They import this package and never each other.
package credentials
