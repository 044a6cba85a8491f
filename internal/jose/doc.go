// Package jose has the parts of JOSE that the token formats share: strict JSON
// as an ordered tree, base64url that has one spelling for each value, JSON Web
// Keys and their thumbprints (RFC 7517, RFC 7638), and the compact form of
// JSON Web Signatures (RFC 7515).
//
// It decides nothing: which algorithms, types and issuers are good is for its
// callers to say. It holds no table of signature algorithms either; Scheme is
// what it needs of one.
package jose
