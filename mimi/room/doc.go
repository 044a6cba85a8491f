// Package room is where a MIMI room meets its MLS group.
//
// A room's policy, participants and metadata are components in the
// GroupContext of its group. This package says what a client's leaf must
// support to be in a room ([Capabilities], [Components], [SafeAADItems],
// [MediaTypes]), what the GroupContext of a new room holds ([Setup]) and
// whether one has all of it ([Check]). It turns what package mls has verified
// into what package policy judges: [NewState] makes the state of a room from a
// group, and [Action] the action to judge from a commit. A hub and a client
// make them of the same values, so both come to the same verdict.
//
// Who a leaf or an external sender is, it asks an [Identities].
package room
