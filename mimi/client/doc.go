// Package client is one client of a MIMI provider: a device of a user, with
// its keys, its rooms and what was said in them.
//
// A [Client] keeps everything in one SQLite file. It talks to its own provider
// alone, by package clientapi over mutual TLS; rooms whose hub is elsewhere
// look the same. [Client.Register] makes it known there, [Client.CreateRoom],
// [Client.Join] and Welcomes bring it into rooms, and a [Room] has what can be
// done in one. [Client.Sync] takes in the events that wait at the provider, and
// [Client.Watch] follows them.
//
// # Keys
//
// A [Custody] says where the client's keys are. In mode [Device] the leaf's
// signature key and the init keys of KeyPackages are in a token or TPM; in mode
// [Remote] they are in an appliance behind the signing API, which looks the
// same from here; in mode [Bound] the leaf's key is software and short-lived,
// and a MultiCredential binds it to a credential whose key is in the device.
//
// # What is durable
//
// An event is taken in by one transaction that holds the group's next state,
// the message or membership that came of it, and the cursor. The keys that MLS
// says to delete are gone with the same transaction. What this client sends is
// stored before it is sent, so that after a crash the same octets are sent
// again and the hub gives the same answer; generations of message keys are
// reserved before they are used and never used twice.
//
// # What is believed
//
// A member verifies what the hub has verified: the commits by package policy on
// the same state, the credentials by a [Judge], the franks. A sender's name is
// shown with its level and issuer. Where a credential has come into doubt after
// the hub let it in, the leaf is in quarantine: what it says is shown as such,
// and this client sends nothing to the room until it is resolved.
package client
