package policy

import (
	"fmt"

	"github.com/privyseal/privyseal/mimi"
)

// A Row is a row of the authorisation table, or one of the steps around it. The
// values are stable.
type Row string

// The rows. Every action of an actor upon a user falls into exactly one.
const (
	RowAttribute Row = "A"  // who acts cannot be told
	RowActor     Row = "B"  // the actor's effective role
	RowClassify  Row = "C"  // the action makes no sense in this state
	RowAdd       Row = "1"  // another user into the list, with clients or without
	RowOwnClient Row = "2"  // a client of one's own
	RowPreauth   Row = "J1" // join by preauthorisation
	RowJoinCode  Row = "J2" // join by a code
	RowOpenJoin  Row = "J3" // join an open room
	RowRemove    Row = "3"  // another user out of the list, with all clients
	RowLeave     Row = "4"  // oneself out of the list, with all clients
	RowDropOwn   Row = "5"  // clients of one's own
	RowKick      Row = "6"  // another user's clients
	RowBan       Row = "7"  // another user to role 1, with all clients
	RowRole      Row = "8"  // another user's role
	RowUnban     Row = "9"  // another user from role 1
	RowOwnRole   Row = "10" // one's own role
	RowPolicy    Row = "11" // a component
	RowMLS       Row = "12" // other proposals, and committing as such
	RowMessage   Row = "13" // messages and whatever is not in a commit
	RowOther     Row = "14" // anything else
	RowRoom      Row = "Z"  // the constraints of the room as it would be
)

// A Check is what an action must pass in a row. The values are stable.
type Check string

// The checks.
const (
	CheckSender           Check = "sender"            // the sender may not send this
	CheckLeaf             Check = "leaf"              // a leaf that is not in the group, or removed twice
	CheckNoRole           Check = "no-role"           // not a participant, and no preauthorisation matches
	CheckInert            Check = "inert-role"        // banned, or a role without capabilities
	CheckExternalProposal Check = "external-proposal" // external_proposal_allowed is false
	CheckExternalCommit   Check = "external-commit"   // external_commit_allowed is false
	CheckListUpdate       Check = "list-update"       // the participant list update is invalid
	CheckParticipant      Check = "participant"       // whether the user participates
	CheckCapability       Check = "capability"        // Refusal.Capability is missing
	CheckRoleChange       Check = "role-change"       // authorized_role_changes has no such transition
	CheckPreauth          Check = "preauth"           // the first matching entry gives another role, or none matches
	CheckJoinCode         Check = "join-code"         // none, not valid, or for another role
	CheckBannedRole       Check = "banned-role"       // role 1 does not exist
	CheckClientsRemain    Check = "clients-remain"    // the user would keep clients
	CheckClientsAdded     Check = "clients-added"     // this row adds no clients
	CheckOwnLeaf          Check = "own-leaf"          // a leaf of somebody else
	CheckOwnRemoval       Check = "own-removal"       // the committer's own leaf
	CheckUnclassified     Check = "unclassified"      // no row allows it

	CheckComponent Check = "component"   // the value does not decode or breaks a rule of its own
	CheckUnknown   Check = "unknown"     // a component that this package does not know
	CheckNeeded    Check = "needed"      // every room has this component
	CheckImmutable Check = "immutable"   // the value never changes
	CheckHubOnly   Check = "hub-only"    // only the room's hub may
	CheckNoChange  Check = "no-change"   // the value is what it was
	CheckEnvelope  Check = "envelope"    // outside of what the provider accepts
	CheckRoleInUse Check = "role-in-use" // something refers to a role that would be gone

	CheckMaxParticipants Check = "max-participants"
	CheckMaxActive       Check = "max-active"
	CheckMinParticipants Check = "min-participants"
	CheckMinActive       Check = "min-active"
	CheckFixedMembership Check = "fixed-membership"
	CheckParent          Check = "parent"       // not a strict subset of the parent room
	CheckMultiDevice     Check = "multi-device" // more than one client of a user
	CheckMaxClients      Check = "max-clients"
	CheckMaxUsers        Check = "max-users"
	CheckPseudonym       Check = "pseudonym"
	CheckStrangerLeaf    Check = "leaf-without-participant"
	CheckInactiveRole    Check = "inactive-role"      // a leaf of a user whose role has no clients
	CheckDuplicate       Check = "identity-duplicate" // two leaves of one client
	CheckUserTwice       Check = "user-twice"         // two changes of one user
	CheckComponentTwice  Check = "component-twice"    // two updates of one component
	CheckRolesWithList   Check = "roles-with-list"    // roles_list with a participant list change
	CheckPreauthWithList Check = "preauth-with-list"  // preauth_list with more than removals
)

// A Refusal says which row and check refused an action.
type Refusal struct {
	Row        Row
	Check      Check
	Actor      mimi.URI       // who acts, if that is known
	User       mimi.URI       // the user affected, or zero
	Capability Capability     // with CheckCapability
	Role       mimi.RoleIndex // with checks of constraints and of transitions
	Detail     string         // in words, without secrets
}

func (r *Refusal) Error() string {
	s := fmt.Sprintf("policy: refused by row %s, check %s", r.Row, r.Check)
	if r.Check == CheckCapability {
		s += fmt.Sprintf(" (%s)", r.Capability)
	}
	if !r.Actor.IsZero() {
		s += fmt.Sprintf(": %s acts", r.Actor)
	}
	if !r.User.IsZero() && r.User != r.Actor {
		s += fmt.Sprintf(" on %s", r.User)
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}
