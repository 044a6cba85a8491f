package policy

import (
	"fmt"
	"strings"
)

// A Capability is one thing that the holders of a role may do
// (draft-ietf-mimi-room-policy-03, section 8 and the MIMI Role Capabilities
// registry of section 10.2).
//
//	uint16 CapabilityType;
type Capability uint16

// FirstPrivateCapability begins the range for private use. The registry gives
// 0xF000 to both of its ranges; we count it as private.
const FirstPrivateCapability Capability = 0xF000

// The registry. A reserved name has a number but no text that says what it
// allows; where this package consults one all the same, the row of the
// authorisation table says so.
const (
	CanAddParticipant               Capability = 0x0000 // canAddParticipant
	CanRemoveParticipant            Capability = 0x0001 // canRemoveParticipant
	CanAddOwnClient                 Capability = 0x0002 // canAddOwnClient
	CanRemoveOwnClient              Capability = 0x0003 // canRemoveOwnClient
	CanOpenJoin                     Capability = 0x0004 // canOpenJoin
	CanJoinIfPreauthorized          Capability = 0x0005 // canJoinIfPreauthorized
	CanRemoveSelf                   Capability = 0x0006 // canRemoveSelf
	CanCreateJoinCode               Capability = 0x0007 // canCreateJoinCode (reserved)
	CanDeleteJoinCode               Capability = 0x0008 // canDeleteJoinCode (reserved)
	CanUseJoinCode                  Capability = 0x0009 // canUseJoinCode
	CanBan                          Capability = 0x000a // canBan
	CanUnBan                        Capability = 0x000b // canUnBan
	CanKick                         Capability = 0x000c // canKick
	CanKnock                        Capability = 0x000d // canKnock (reserved)
	CanAcceptKnock                  Capability = 0x000e // canAcceptKnock (reserved)
	CanChangeUserRole               Capability = 0x000f // canChangeUserRole
	CanChangeOwnRole                Capability = 0x0010 // canChangeOwnRole
	CanCreateSubgroup               Capability = 0x0011 // canCreateSubgroup (reserved)
	CanSendMessage                  Capability = 0x0100 // canSendMessage
	CanReceiveMessage               Capability = 0x0101 // canReceiveMessage
	CanCopyMessage                  Capability = 0x0102 // canCopyMessage
	CanReportAbuse                  Capability = 0x0103 // canReportAbuse
	CanReplyToMessage               Capability = 0x0104 // canReplyToMessage
	CanReactToMessage               Capability = 0x0105 // canReactToMessage
	CanEditReaction                 Capability = 0x0106 // canEditReaction
	CanDeleteOwnReaction            Capability = 0x0107 // canDeleteOwnReaction
	CanDeleteOtherReaction          Capability = 0x0108 // canDeleteOtherReaction
	CanEditOwnMessage               Capability = 0x0109 // canEditOwnMessage
	CanDeleteOwnMessage             Capability = 0x010a // canDeleteOwnMessage
	CanDeleteOtherMessage           Capability = 0x010b // canDeleteOtherMessage
	CanStartTopic                   Capability = 0x010c // canStartTopic
	CanReplyInTopic                 Capability = 0x010d // canReplyInTopic
	CanEditOwnTopic                 Capability = 0x010e // canEditOwnTopic
	CanEditOtherTopic               Capability = 0x010f // canEditOtherTopic
	CanSendDirectMessage            Capability = 0x0110 // canSendDirectMessage (reserved)
	CanTargetMessage                Capability = 0x0111 // canTargetMessage (reserved)
	CanUploadImage                  Capability = 0x0200 // canUploadImage
	CanUploadAudio                  Capability = 0x0201 // canUploadAudio
	CanUploadVideo                  Capability = 0x0202 // canUploadVideo
	CanUploadAttachment             Capability = 0x0203 // canUploadAttachment
	CanDownloadImage                Capability = 0x0204 // canDownloadImage
	CanDownloadAudio                Capability = 0x0205 // canDownloadAudio
	CanDownloadVideo                Capability = 0x0206 // canDownloadVideo
	CanDownloadAttachment           Capability = 0x0207 // canDownloadAttachment
	CanSendLink                     Capability = 0x0208 // canSendLink
	CanSendLinkPreview              Capability = 0x0209 // canSendLinkPreview
	CanFollowLink                   Capability = 0x020a // canFollowLink
	CanCopyLink                     Capability = 0x020b // canCopyLink
	CanChangeRoomName               Capability = 0x0300 // canChangeRoomName
	CanChangeRoomDescription        Capability = 0x0301 // canChangeRoomDescription
	CanChangeRoomAvatar             Capability = 0x0302 // canChangeRoomAvatar
	CanChangeRoomSubject            Capability = 0x0303 // canChangeRoomSubject
	CanChangeRoomMood               Capability = 0x0304 // canChangeRoomMood
	CanChangeOwnName                Capability = 0x0380 // canChangeOwnName (reserved)
	CanChangeOwnPresence            Capability = 0x0381 // canChangeOwnPresence (reserved)
	CanChangeOwnMood                Capability = 0x0382 // canChangeOwnMood (reserved)
	CanChangeOwnAvatar              Capability = 0x0383 // canChangeOwnAvatar (reserved)
	CanStartCall                    Capability = 0x0400 // canStartCall
	CanJoinCall                     Capability = 0x0401 // canJoinCall
	CanSendAudio                    Capability = 0x0402 // canSendAudio
	CanReceiveAudio                 Capability = 0x0403 // canReceiveAudio
	CanSendVideo                    Capability = 0x0404 // canSendVideo
	CanReceiveVideo                 Capability = 0x0405 // canReceiveVideo
	CanShareScreen                  Capability = 0x0406 // canShareScreen
	CanViewSharedScreen             Capability = 0x0407 // canViewSharedScreen
	CanCreateRoom                   Capability = 0x0500 // canCreateRoom (reserved)
	CanDestroyRoom                  Capability = 0x0501 // canDestroyRoom
	CanChangeRoomMembershipStyle    Capability = 0x0502 // canChangeRoomMembershipStyle
	CanChangeRoleDefinitions        Capability = 0x0503 // canChangeRoleDefinitions
	CanChangePreauthorizedUserList  Capability = 0x0504 // canChangePreauthorizedUserList
	CanChangeOtherPolicyAttribute   Capability = 0x0505 // canChangeOtherPolicyAttribute (reserved)
	CanChangeMlsOperationalPolicies Capability = 0x0600 // canChangeMlsOperationalPolicies (reserved)
	CanSendMLSReinitProposal        Capability = 0x0601 // canSendMLSReinitProposal
	CanSendMLSUpdateProposal        Capability = 0x0602 // canSendMLSUpdateProposal (reserved)
	CanSendMLSPSKProposal           Capability = 0x0603 // canSendMLSPSKProposal (reserved)
	CanSendMLSExternalProposal      Capability = 0x0604 // canSendMLSExternalProposal (reserved)
	CanSendMLSExternalCommit        Capability = 0x0605 // canSendMLSExternalCommit (reserved)
)

// A registered is one line of the registry.
type registered struct {
	name     string
	reserved bool
}

// registry is the initial content of the MIMI Role Capabilities registry.
var registry = map[Capability]registered{
	CanAddParticipant:               {"canAddParticipant", false},
	CanRemoveParticipant:            {"canRemoveParticipant", false},
	CanAddOwnClient:                 {"canAddOwnClient", false},
	CanRemoveOwnClient:              {"canRemoveOwnClient", false},
	CanOpenJoin:                     {"canOpenJoin", false},
	CanJoinIfPreauthorized:          {"canJoinIfPreauthorized", false},
	CanRemoveSelf:                   {"canRemoveSelf", false},
	CanCreateJoinCode:               {"canCreateJoinCode", true},
	CanDeleteJoinCode:               {"canDeleteJoinCode", true},
	CanUseJoinCode:                  {"canUseJoinCode", false},
	CanBan:                          {"canBan", false},
	CanUnBan:                        {"canUnBan", false},
	CanKick:                         {"canKick", false},
	CanKnock:                        {"canKnock", true},
	CanAcceptKnock:                  {"canAcceptKnock", true},
	CanChangeUserRole:               {"canChangeUserRole", false},
	CanChangeOwnRole:                {"canChangeOwnRole", false},
	CanCreateSubgroup:               {"canCreateSubgroup", true},
	CanSendMessage:                  {"canSendMessage", false},
	CanReceiveMessage:               {"canReceiveMessage", false},
	CanCopyMessage:                  {"canCopyMessage", false},
	CanReportAbuse:                  {"canReportAbuse", false},
	CanReplyToMessage:               {"canReplyToMessage", false},
	CanReactToMessage:               {"canReactToMessage", false},
	CanEditReaction:                 {"canEditReaction", false},
	CanDeleteOwnReaction:            {"canDeleteOwnReaction", false},
	CanDeleteOtherReaction:          {"canDeleteOtherReaction", false},
	CanEditOwnMessage:               {"canEditOwnMessage", false},
	CanDeleteOwnMessage:             {"canDeleteOwnMessage", false},
	CanDeleteOtherMessage:           {"canDeleteOtherMessage", false},
	CanStartTopic:                   {"canStartTopic", false},
	CanReplyInTopic:                 {"canReplyInTopic", false},
	CanEditOwnTopic:                 {"canEditOwnTopic", false},
	CanEditOtherTopic:               {"canEditOtherTopic", false},
	CanSendDirectMessage:            {"canSendDirectMessage", true},
	CanTargetMessage:                {"canTargetMessage", true},
	CanUploadImage:                  {"canUploadImage", false},
	CanUploadAudio:                  {"canUploadAudio", false},
	CanUploadVideo:                  {"canUploadVideo", false},
	CanUploadAttachment:             {"canUploadAttachment", false},
	CanDownloadImage:                {"canDownloadImage", false},
	CanDownloadAudio:                {"canDownloadAudio", false},
	CanDownloadVideo:                {"canDownloadVideo", false},
	CanDownloadAttachment:           {"canDownloadAttachment", false},
	CanSendLink:                     {"canSendLink", false},
	CanSendLinkPreview:              {"canSendLinkPreview", false},
	CanFollowLink:                   {"canFollowLink", false},
	CanCopyLink:                     {"canCopyLink", false},
	CanChangeRoomName:               {"canChangeRoomName", false},
	CanChangeRoomDescription:        {"canChangeRoomDescription", false},
	CanChangeRoomAvatar:             {"canChangeRoomAvatar", false},
	CanChangeRoomSubject:            {"canChangeRoomSubject", false},
	CanChangeRoomMood:               {"canChangeRoomMood", false},
	CanChangeOwnName:                {"canChangeOwnName", true},
	CanChangeOwnPresence:            {"canChangeOwnPresence", true},
	CanChangeOwnMood:                {"canChangeOwnMood", true},
	CanChangeOwnAvatar:              {"canChangeOwnAvatar", true},
	CanStartCall:                    {"canStartCall", false},
	CanJoinCall:                     {"canJoinCall", false},
	CanSendAudio:                    {"canSendAudio", false},
	CanReceiveAudio:                 {"canReceiveAudio", false},
	CanSendVideo:                    {"canSendVideo", false},
	CanReceiveVideo:                 {"canReceiveVideo", false},
	CanShareScreen:                  {"canShareScreen", false},
	CanViewSharedScreen:             {"canViewSharedScreen", false},
	CanCreateRoom:                   {"canCreateRoom", true},
	CanDestroyRoom:                  {"canDestroyRoom", false},
	CanChangeRoomMembershipStyle:    {"canChangeRoomMembershipStyle", false},
	CanChangeRoleDefinitions:        {"canChangeRoleDefinitions", false},
	CanChangePreauthorizedUserList:  {"canChangePreauthorizedUserList", false},
	CanChangeOtherPolicyAttribute:   {"canChangeOtherPolicyAttribute", true},
	CanChangeMlsOperationalPolicies: {"canChangeMlsOperationalPolicies", true},
	CanSendMLSReinitProposal:        {"canSendMLSReinitProposal", false},
	CanSendMLSUpdateProposal:        {"canSendMLSUpdateProposal", true},
	CanSendMLSPSKProposal:           {"canSendMLSPSKProposal", true},
	CanSendMLSExternalProposal:      {"canSendMLSExternalProposal", true},
	CanSendMLSExternalCommit:        {"canSendMLSExternalCommit", true},
}

// byName finds a capability by its name in lower case: the draft writes both
// canUnBan and canUnban.
var byName = func() map[string]Capability {
	m := make(map[string]Capability, len(registry))
	for c, r := range registry {
		m[strings.ToLower(r.name)] = c
	}
	return m
}()

// Registered reports whether the registry has c.
func (c Capability) Registered() bool {
	_, ok := registry[c]
	return ok
}

// Reserved reports whether the registry has c for possible future use only.
func (c Capability) Reserved() bool { return registry[c].reserved }

// String returns the registered name, or the number.
func (c Capability) String() string {
	if r, ok := registry[c]; ok {
		return r.name
	}
	return fmt.Sprintf("capability 0x%04x", uint16(c))
}

// ParseCapability returns the capability with a registered name. Case does not
// matter.
func ParseCapability(name string) (Capability, bool) {
	c, ok := byName[strings.ToLower(name)]
	return c, ok
}
