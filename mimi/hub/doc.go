// Package hub decides what happens in a MIMI room
// (draft-ietf-mimi-protocol-06 sections 4 and 5).
//
// A [Room] is one room as its hub knows it: the MLS group as a non-member
// follows it, the policy state of the epoch, the proposals that were accepted
// and not yet committed, and what they already mean. Its methods take a request
// and come to a decision: the answer and, if it was accepted, the events to
// store and to fan out. They do no input or output of their own beyond asking
// the [Evaluator] about credentials and the hub's key for signatures, so that
// the same decisions can be replayed from the stored events.
//
// Requests are decided one at a time; the caller serialises them and stores a
// decision before it answers. If it cannot store one, the Room is ahead of the
// store and has to be loaded again.
//
// Storage, HTTP and the delivery of events are in package mimi/hub/provider.
package hub
