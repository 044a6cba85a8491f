// Package mimi has the words of MIMI (More Instant Messaging
// Interoperability, draft-ietf-mimi-protocol-06): its identifiers, protocol
// structs and franking, in the order of the draft.
//
// A provider, user, client, room or group is named by a [URI] in one
// canonical form; two names are the same when their octets are equal.
// Transport and rooms are not here: mimi/hub and mimi/client are the two ends.
package mimi
