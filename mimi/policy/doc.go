// Package policy has the room policy of MIMI
// (draft-ietf-mimi-room-policy-03): the components in which a room says what
// its roles may do, and the one function that judges by them.
//
// A hub keeps a [State] for each room and a client keeps one for each of its
// groups. [Authorize] judges a commit, a bundle of bare proposals, a message or
// another deed in such a state, and answers with an [Effect] or with a
// [*Refusal] that names the row of the authorisation table and the check that
// refused. It changes nothing; [State.Apply] carries an effect out. Both ends
// run the same function on the same state, so a commit that the hub accepts is
// accepted by every member. The cost of judging a change to one user does not
// grow with the room.
//
// Who acts is not found out here: an [Actor] comes from verified signatures and
// credentials. Neither is the cryptographic validity of a commit (package mls)
// nor the encoding of what a participant list or the metadata hold (package
// mimi).
//
// Component values are decoded strictly: what a Parse function accepts encodes
// to the same octets again.
package policy
