package policy

import (
	"fmt"

	"github.com/privyseal/privyseal/mimi"
)

// A ComponentID names a component of the app_data_dictionary
// (draft-ietf-mls-extensions).
type ComponentID uint16

// The components that a room's policy is about. Those from 0x0024 are suggested
// by draft-ietf-mimi-room-policy-03 section 10.1 and provisional, as are the
// two for hub retraction.
const (
	ComponentAppComponents     ComponentID = 0x0001 // app_components
	ComponentSafeAAD           ComponentID = 0x0002 // safe_aad
	ComponentContentMediaTypes ComponentID = 0x0003 // content_media_types
	ComponentAppAck            ComponentID = 0x0005 // app_ack, ephemeral

	ComponentFrankingAgent   ComponentID = 0x0021 // franking_agent
	ComponentParticipantList ComponentID = 0x0022 // participant_list
	ComponentRoomMetadata    ComponentID = 0x0023 // room_metadata

	ComponentOperational        ComponentID = 0x0024 // mls_operational_policy
	ComponentRoles              ComponentID = 0x0025 // roles_list
	ComponentPreauth            ComponentID = 0x0026 // preauth_list
	ComponentBase               ComponentID = 0x0027 // base_room_policy
	ComponentStatusNotification ComponentID = 0x0028 // status_notification_policy
	ComponentJoinLinkPolicy     ComponentID = 0x0029 // join_link_policy
	ComponentJoinLinks          ComponentID = 0x002A // join_links
	ComponentLinkPreview        ComponentID = 0x002B // link_preview_policy
	ComponentAssets             ComponentID = 0x002C // asset_policy
	ComponentLogging            ComponentID = 0x002D // logging_policy
	ComponentHistory            ComponentID = 0x002E // chat_history_policy
	ComponentBots               ComponentID = 0x002F // bot_policy
	ComponentExpiration         ComponentID = 0x0030 // message_expiration_policy

	ComponentHubRetracted      ComponentID = 0x0050 // hub_retracted_messages, ephemeral
	ComponentHubRetractedRange ComponentID = 0x0051 // hub_retracted_range, ephemeral
)

// A component says how a room's component is read and who may replace it.
type component struct {
	name     string
	needs    Capability // to replace or remove it
	required bool       // every room has it, so that it cannot be removed
	parse    func([]byte) (any, error)
}

func parser[T any](f func([]byte) (*T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) {
		v, err := f(b)
		if err != nil {
			return nil, err
		}
		return v, nil
	}
}

// opaqueValue is the parser of components whose content this package does not
// judge.
func opaqueValue(b []byte) (any, error) { return b, nil }

// components are those whose update replaces the value whole, by a capability
// that stands for the component as such. The participant list, the metadata, the
// join links and the franking agent have rules of their own.
var components = map[ComponentID]component{
	ComponentAppComponents:     {"app_components", CanChangeMlsOperationalPolicies, true, opaqueValue},
	ComponentSafeAAD:           {"safe_aad", CanChangeMlsOperationalPolicies, true, opaqueValue},
	ComponentContentMediaTypes: {"content_media_types", CanChangeMlsOperationalPolicies, true, opaqueValue},

	ComponentOperational:        {"mls_operational_policy", CanChangeMlsOperationalPolicies, false, parser(ParseOperationalParameters)},
	ComponentRoles:              {"roles_list", CanChangeRoleDefinitions, true, parser(ParseRoleData)},
	ComponentPreauth:            {"preauth_list", CanChangePreauthorizedUserList, false, parser(ParsePreAuthData)},
	ComponentBase:               {"base_room_policy", CanChangeRoomMembershipStyle, true, parser(ParseBaseRoomPolicy)},
	ComponentStatusNotification: {"status_notification_policy", CanChangeOtherPolicyAttribute, false, parser(ParseStatusNotificationPolicy)},
	ComponentJoinLinkPolicy:     {"join_link_policy", CanChangeOtherPolicyAttribute, false, parser(ParseJoinLinkPolicy)},
	ComponentLinkPreview:        {"link_preview_policy", CanChangeOtherPolicyAttribute, false, parser(ParseLinkPreviewPolicy)},
	ComponentAssets:             {"asset_policy", CanChangeOtherPolicyAttribute, false, parser(ParseAssetPolicy)},
	ComponentLogging:            {"logging_policy", CanChangeOtherPolicyAttribute, false, parser(ParseLoggingPolicy)},
	ComponentHistory:            {"chat_history_policy", CanChangeOtherPolicyAttribute, false, parser(ParseHistoryPolicy)},
	ComponentBots:               {"bot_policy", CanChangeOtherPolicyAttribute, false, parser(ParseBotPolicy)},
	ComponentExpiration:         {"message_expiration_policy", CanChangeOtherPolicyAttribute, false, parser(ParseMessageExpiration)},
}

// privateComponents are ours; a room has them only with the Config that says so.
var privateComponents = map[ComponentID]component{
	ComponentPendingPreference: {"pending_proposal_preference", CanChangeMlsOperationalPolicies, false, parser(ParsePendingProposalPreference)},
	ComponentSelfRoleChanges:   {"self_role_changes", CanChangeRoleDefinitions, false, parser(ParseSelfRoleChanges)},
}

// special are the components with rules of their own.
var special = map[ComponentID]component{
	ComponentFrankingAgent:   {"franking_agent", 0, false, opaqueValue},
	ComponentParticipantList: {"participant_list", 0, true, parser(mimi.ParseParticipantListData)},
	ComponentRoomMetadata:    {"room_metadata", 0, true, parser(mimi.ParseRoomMetaData)},
	ComponentJoinLinks:       {"join_links", CanCreateJoinCode, false, parser(ParseJoinLinksData)},
}

// String returns the component's name, or its number.
func (c ComponentID) String() string {
	for _, table := range []map[ComponentID]component{components, special, privateComponents} {
		if known, ok := table[c]; ok {
			return known.name
		}
	}
	return fmt.Sprintf("component 0x%04x", uint16(c))
}

// ParseComponent decodes the value of a component that this package knows:
// pointers to this package's and mimi's structs, and plain octets for those of
// the MLS extensions and for franking_agent.
func ParseComponent(id ComponentID, data []byte) (any, error) {
	for _, table := range []map[ComponentID]component{components, special, privateComponents} {
		if known, ok := table[id]; ok {
			return known.parse(data)
		}
	}
	return nil, &ParseError{id.String(), invalid("the component is unknown")}
}
