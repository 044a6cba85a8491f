// Package peer is how MIMI providers speak to one another: HTTPS with
// certificates on both sides, a directory of URI templates, and bodies in the
// encoding of package mimi (draft-ietf-mimi-protocol-06 sections 5 and 5.1).
//
// A [Server] authenticates the peer of each call before anything of it is
// read: the client certificate names the domain in From, Host names a provider
// that we serve, and the peer speaks for the users of its own domain alone
// ([Peer.SpeaksFor]). It bounds bodies and times, and answers failures with
// problem documents.
//
// A [Client] finds a provider's endpoints through its directory and calls them
// with bounded answers, bounded calls at once, back-off and Retry-After. It
// believes a server only if its certificate names both the host of the URL and
// the provider's domain.
//
// The package knows no rooms and no rules of MIMI beyond who may speak.
package peer
