// Package consent keeps who may fetch whose KeyPackages
// (draft-ietf-mimi-protocol-06 section 5.7).
//
// A user asks, cancels, grants or revokes through its own provider, which tells
// the other's directly, never through a hub. A [Service] takes what its own
// clients say ([Service.FromClient]) and what other providers send
// ([Service.Routes]), answers the question of keyMaterial ([Service.May]), and
// tells others in the order in which things happened, until they have taken it
// ([Service.Run]).
//
// The draft leaves open which word counts when scopes overlap. Here one about
// the room goes before one about any room, within a scope the last one stands,
// and without a word there is no consent.
//
// A requester never learns whether its target exists or has seen the request,
// unless the provider is configured to say so.
package consent
