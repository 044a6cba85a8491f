package policy

import (
	"slices"

	"github.com/privyseal/privyseal/mimi"
)

// The four role lists of draft-ietf-mimi-room-policy-03, appendix A. They are
// good starting points for rooms. Where the appendix contradicts itself:
// canRevokeVoice and canGrantVoice of the cooperative room are not registered
// and left out (canChangeUserRole does both), and in the moderated room a
// speaker has what an attendee has and a moderator what a speaker has.

type indices = []mimi.RoleIndex

func limit(n uint32) *uint32 { return &n }

// from is one entry of authorized_role_changes.
func from(f mimi.RoleIndex, targets ...mimi.RoleIndex) SingleSourceRoleChangeTargets {
	return SingleSourceRoleChangeTargets{f, targets}
}

// toAllOthers moves a user from every role up to last, or from nowhere, to every
// other one.
func toAllOthers(last mimi.RoleIndex) (changes []SingleSourceRoleChangeTargets) {
	for f := range last + 1 {
		var targets indices
		for to := range last + 1 {
			if to != f {
				targets = append(targets, to)
			}
		}
		changes = append(changes, from(f, targets...))
	}
	return changes
}

func with(base []Capability, more ...Capability) []Capability {
	return append(slices.Clone(base), more...)
}

func bannedRole() Role {
	return Role{Index: mimi.RoleBanned, Name: BannedRoleName, MaximumActiveParticipants: limit(0)}
}

// enforcer is the policy_enforcer role that all four rooms have.
func enforcer(index mimi.RoleIndex, of ...mimi.RoleIndex) Role {
	changes := []SingleSourceRoleChangeTargets{from(0, 1), from(1, 0)}
	for _, f := range of {
		changes = append(changes, from(f, 0, 1))
	}
	return Role{
		Index: index, Name: "policy_enforcer",
		Capabilities: []Capability{CanRemoveParticipant, CanChangeUserRole, CanBan, CanUnBan, CanChangeRoleDefinitions,
			CanChangePreauthorizedUserList, CanChangeMlsOperationalPolicies, CanDestroyRoom, CanSendMLSReinitProposal},
		MinimumParticipants: 1, MaximumParticipants: limit(2), MaximumActiveParticipants: limit(0),
		AuthorizedRoleChanges: changes,
	}
}

var ownProfile = []Capability{CanChangeOwnName, CanChangeOwnPresence, CanChangeOwnMood, CanChangeOwnAvatar}

var transfers = []Capability{CanUploadImage, CanUploadVideo, CanUploadAudio, CanUploadAttachment,
	CanDownloadImage, CanDownloadVideo, CanDownloadAudio, CanDownloadAttachment}

// CooperativeRoles is a room whose ordinary users add and remove each other.
func CooperativeRoles() *RoleData {
	user := slices.Concat([]Capability{CanAddParticipant, CanRemoveParticipant, CanAddOwnClient, CanRemoveOwnClient, CanRemoveSelf,
		CanSendMessage, CanReceiveMessage, CanCopyMessage, CanReportAbuse, CanReplyToMessage, CanReactToMessage, CanDeleteOwnReaction,
		CanEditOwnMessage, CanDeleteOwnMessage, CanStartTopic, CanReplyInTopic, CanEditOwnTopic}, transfers,
		[]Capability{CanSendLink, CanSendLinkPreview, CanFollowLink, CanCopyLink,
			CanChangeRoomName, CanChangeRoomAvatar, CanChangeRoomSubject, CanChangeRoomMood}, ownProfile)
	admin := with(user, CanBan, CanUnBan, CanKick, CanChangeUserRole, CanDeleteOtherMessage, CanEditOtherTopic, CanChangeRoomDescription)
	super := with(admin, CanChangeRoomMembershipStyle, CanChangePreauthorizedUserList, CanDestroyRoom)
	return &RoleData{[]Role{
		{Index: 0, Name: "no_role", MaximumActiveParticipants: limit(0)},
		bannedRole(),
		{Index: 2, Name: "ordinary_user", Capabilities: user, AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, 2), from(2, 0)}},
		{Index: 3, Name: "group_admin", Capabilities: admin, MinimumParticipants: 1, AuthorizedRoleChanges: toAllOthers(3)},
		{Index: 4, Name: "super_admin", Capabilities: super, AuthorizedRoleChanges: toAllOthers(4)},
		enforcer(5, 2, 3, 4),
	}}
}

// StrictRoles is a room that administrators run.
func StrictRoles() *RoleData {
	user := slices.Concat([]Capability{CanAddOwnClient, CanJoinIfPreauthorized, CanRemoveOwnClient, CanRemoveSelf, CanChangeOwnRole,
		CanSendMessage, CanReceiveMessage, CanCopyMessage, CanReportAbuse, CanReactToMessage, CanDeleteOwnReaction,
		CanEditOwnMessage, CanDeleteOwnMessage, CanStartTopic, CanReplyInTopic}, transfers,
		[]Capability{CanSendLink, CanSendLinkPreview, CanFollowLink, CanCopyLink}, ownProfile)
	admin := with(user, CanAddParticipant, CanRemoveParticipant, CanBan, CanUnBan, CanKick, CanChangeUserRole,
		CanCreateJoinCode, CanDeleteJoinCode, CanDeleteOtherReaction, CanDeleteOtherMessage, CanEditOwnTopic, CanEditOtherTopic,
		CanChangeRoomDescription, CanChangeRoomName, CanChangeRoomAvatar, CanChangeRoomSubject, CanChangeRoomMood)
	super := with(admin, CanChangeRoomMembershipStyle, CanChangeRoleDefinitions, CanChangePreauthorizedUserList, CanDestroyRoom, CanSendMLSReinitProposal)
	return &RoleData{[]Role{
		{Index: 0, Name: "no_role", Capabilities: []Capability{CanUseJoinCode}, MaximumActiveParticipants: limit(0),
			AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, 2)}},
		bannedRole(),
		{Index: 2, Name: "ordinary_user", Capabilities: user, AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, 2), from(2, 0)}},
		{Index: 3, Name: "group_admin", Capabilities: admin, MinimumParticipants: 1, AuthorizedRoleChanges: toAllOthers(3)},
		{Index: 4, Name: "super_admin", Capabilities: super, AuthorizedRoleChanges: toAllOthers(4)},
		enforcer(5, 2, 3, 4),
	}}
}

// ModeratedRoles is a room with guests, attendees and speakers.
func ModeratedRoles() *RoleData {
	guest := []Capability{CanRemoveSelf, CanReceiveMessage, CanCopyMessage, CanReactToMessage, CanDeleteOwnReaction,
		CanFollowLink, CanCopyLink, CanDownloadImage, CanDownloadVideo, CanDownloadAudio}
	attendee := with(guest, CanAddOwnClient, CanJoinIfPreauthorized, CanRemoveOwnClient, CanChangeOwnRole, CanReportAbuse, CanReplyInTopic,
		CanDownloadAttachment, CanChangeOwnName, CanChangeOwnPresence, CanChangeOwnAvatar)
	speaker := with(attendee, CanSendMessage, CanEditOwnMessage, CanDeleteOwnMessage, CanStartTopic,
		CanUploadImage, CanUploadVideo, CanUploadAudio, CanUploadAttachment, CanSendLink, CanSendLinkPreview)
	moderator := with(speaker, CanAddParticipant, CanRemoveParticipant, CanBan, CanUnBan, CanKick, CanChangeUserRole,
		CanCreateJoinCode, CanDeleteJoinCode, CanDeleteOtherReaction, CanDeleteOtherMessage, CanEditOwnTopic, CanEditOtherTopic,
		CanChangeRoomName, CanChangeRoomAvatar, CanChangeRoomSubject, CanChangeRoomMood)
	super := with(moderator, CanChangeRoomDescription, CanChangeRoomMembershipStyle, CanChangeRoleDefinitions,
		CanChangePreauthorizedUserList, CanDestroyRoom, CanSendMLSReinitProposal)
	return &RoleData{[]Role{
		{Index: 0, Name: "no_role", Capabilities: []Capability{CanUseJoinCode}, AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, 2, 3)}},
		bannedRole(),
		{Index: 2, Name: "guest", Capabilities: guest, AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, 2), from(2, 0)}},
		{Index: 3, Name: "attendee", Capabilities: attendee, AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, 3), from(3, 0)}},
		{Index: 4, Name: "speaker", Capabilities: speaker, AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, 4), from(4, 0)}},
		{Index: 5, Name: "moderator", Capabilities: moderator, MinimumParticipants: 1, AuthorizedRoleChanges: toAllOthers(5)},
		{Index: 6, Name: "super_admin", Capabilities: super, AuthorizedRoleChanges: toAllOthers(6)},
		enforcer(7, 2, 3, 4, 5, 6),
	}}
}

// MultiOrganizationRoles is a room of organisations A, which hosts it, B and C.
// As in the draft, the policy enforcer has no entry for users of A.
func MultiOrganizationRoles() *RoleData {
	user := []Capability{CanRemoveSelf, CanAddOwnClient, CanRemoveOwnClient, CanSendMessage, CanReceiveMessage, CanCopyMessage,
		CanReportAbuse, CanReplyInTopic, CanReactToMessage, CanDeleteOwnReaction, CanEditOwnMessage,
		CanSendLink, CanSendLinkPreview, CanFollowLink, CanCopyLink, CanDownloadImage, CanDownloadVideo, CanDownloadAudio,
		CanDownloadAttachment, CanChangeOwnName, CanChangeOwnPresence, CanChangeOwnAvatar}
	admin := with(user, CanDeleteOwnMessage, CanStartTopic, CanUploadImage, CanUploadVideo, CanUploadAudio, CanUploadAttachment,
		CanAddParticipant, CanRemoveParticipant, CanBan, CanKick, CanChangeUserRole)
	host := []Capability{CanChangeOwnRole, CanJoinIfPreauthorized}
	adminA := with(admin, host...)
	super := with(adminA, CanUnBan, CanDeleteOtherReaction, CanDeleteOtherMessage, CanEditOwnTopic, CanEditOtherTopic,
		CanChangeRoomDescription, CanChangeRoomName, CanChangeRoomAvatar, CanChangeRoomSubject, CanChangeRoomMood,
		CanChangeRoomMembershipStyle, CanChangeRoleDefinitions, CanChangePreauthorizedUserList, CanDestroyRoom, CanSendMLSReinitProposal)
	return &RoleData{[]Role{
		{Index: 0, Name: "no_role", MaximumActiveParticipants: limit(0)},
		bannedRole(),
		orgUser(2, "org_a_user", with(user, host...)),
		orgUser(3, "org_b_user", user),
		orgUser(4, "org_c_user", user),
		{Index: 5, Name: "org_a_admin", Capabilities: adminA, AuthorizedRoleChanges: orgChanges(2, 5)},
		{Index: 6, Name: "org_b_admin", Capabilities: admin, MinimumParticipants: 1, MaximumParticipants: limit(3), MinimumActiveParticipants: 1, AuthorizedRoleChanges: orgChanges(3, 6)},
		{Index: 7, Name: "org_c_admin", Capabilities: slices.Clone(admin), MinimumParticipants: 1, MaximumParticipants: limit(3), MinimumActiveParticipants: 1, AuthorizedRoleChanges: orgChanges(4, 7)},
		{Index: 8, Name: "super_admin", Capabilities: super, MinimumParticipants: 1, MinimumActiveParticipants: 1,
			AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, 1, 2, 3, 4, 5, 6, 7, 8), from(1, 0, 2, 3, 4, 5, 6, 7, 8),
				from(2, 0, 1, 5, 8), from(3, 0, 1, 6), from(4, 0, 1, 7), from(5, 0, 1, 2, 8), from(6, 0, 1, 3), from(7, 0, 1, 4), from(8, 0, 1, 2, 5)}},
		enforcer(9, 3, 4, 5, 6, 7, 8),
	}}
}

func orgUser(index mimi.RoleIndex, name string, capabilities []Capability) Role {
	return Role{Index: index, Name: name, Capabilities: slices.Clone(capabilities),
		AuthorizedRoleChanges: []SingleSourceRoleChangeTargets{from(0, index), from(index, 0)}}
}

func orgChanges(user, admin mimi.RoleIndex) []SingleSourceRoleChangeTargets {
	return []SingleSourceRoleChangeTargets{from(0, user, admin), from(user, 0, 1, admin), from(admin, 0, 1, user)}
}
