// Package mls is an engine for the Messaging Layer Security protocol, RFC
// 9420, whose signature keys and KeyPackage keys may be held by hardware.
//
// A Client has a crypto.Signer and a Credential. It makes KeyPackages, creates
// groups and joins them; a Group sends, receives, commits and exports. What
// comes in passes stages that are types of their own (see Group), so that an
// application sees the effect of a commit before it happens.
//
// Beyond RFC 9420 it has the application components of
// draft-ietf-mls-extensions-10: an application registers what it knows in
// Config.Components and changes their data by AppDataUpdate proposals; see
// ExtendedCapabilities.
//
// A delivery service follows a group as a PublicGroup, from public handshakes
// or from SemiPrivateMessages, of which it is an external receiver.
//
// The engine does not deliver messages, does not decide which credentials are
// believed (Config.Judge does) and does not choose where state is kept
// (Storage is an interface of three methods). Every rule that it enforces has
// a number, listed in docs/validation.md and carried by ValidationError.
//
// State that this release stores can be read by later ones.
package mls
