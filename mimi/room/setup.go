package room

import (
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// A Setup is what a new room is made of. Base and Metadata may be nil for a
// room where each user has any number of clients.
type Setup struct {
	URI         mimi.URI
	Creator     mimi.URI // user
	CreatorRole mimi.RoleIndex
	Roles       *policy.RoleData
	Base        *policy.BaseRoomPolicy
	Metadata    *mimi.RoomMetaData // its RoomURI is filled in
	// Others are further components, such as mls_operational_policy.
	Others map[policy.ComponentID][]byte

	Hub           mls.ExternalSender   // the hub's entry in external_senders
	Senders       []mls.ExternalSender // further ones: followers' that enforce the room's policy
	FrankingAgent mimi.FrankingAgent

	// Receiver, if it is not nil, is the hub that reads the room's handshakes as
	// SemiPrivateMessages, and makes them that.
	Receiver *mls.ExternalReceiver
}

// Extensions returns the GroupContext extensions of the room's group.
func (s *Setup) Extensions() (mls.Extensions, error) {
	base, metadata := s.Base, s.Metadata
	if base == nil {
		base = &policy.BaseRoomPolicy{MultiDevice: true}
	}
	named := mimi.RoomMetaData{}
	if metadata != nil {
		named = *metadata
	}
	named.RoomURI = s.URI
	list := mimi.ParticipantListData{Participants: []mimi.UserRolePair{{User: s.Creator, Role: s.CreatorRole}}}
	first := mls.MediaTypeList{{Type: ContentType}}
	values := map[policy.ComponentID][]byte{
		policy.ComponentAppComponents:     s.required().Bytes(),
		policy.ComponentSafeAAD:           SafeAADItems().Bytes(),
		policy.ComponentContentMediaTypes: first.Bytes(),
		policy.ComponentFrankingAgent:     s.FrankingAgent.Marshal(),
		policy.ComponentParticipantList:   list.Marshal(),
		policy.ComponentRoomMetadata:      named.Marshal(),
		policy.ComponentRoles:             s.Roles.Marshal(),
		policy.ComponentBase:              base.Marshal(),
	}
	var d mls.AppDataDictionary
	for id, value := range values {
		d = d.With(mls.ComponentID(id), value)
	}
	for id, value := range s.Others {
		if _, twice := values[id]; twice {
			return nil, fmt.Errorf("room: %s is made from the other fields of the Setup", id)
		}
		d = d.With(mls.ComponentID(id), value)
	}
	capabilities := requiredCapabilities()
	var more mls.Extensions
	if s.Receiver != nil {
		capabilities.Extensions = append(capabilities.Extensions, mls.ExtensionSupportedWireFormats, mls.ExtensionRequiredWireFormats, mls.ExtensionExternalReceivers)
		more = mls.Extensions{mls.WireFormatsExtension(mls.ExtensionRequiredWireFormats, WireFormats()...), mls.ExternalReceiversExtension(*s.Receiver)}
	}
	ext := mls.Extensions{capabilities.Extension(), d.Extension(), mls.ExternalSendersExtension(append([]mls.ExternalSender{s.Hub}, s.Senders...)...)}
	ext = append(ext, more...)
	return ext, Check(ext)
}

// required are the components that every member of a room must support.
func required() mls.ComponentsList {
	return mls.ComponentsList{
		mls.ComponentID(policy.ComponentAppComponents), mls.ComponentID(policy.ComponentSafeAAD), mls.ComponentID(policy.ComponentContentMediaTypes),
		ComponentFrankAAD, mls.ComponentID(policy.ComponentFrankingAgent), mls.ComponentID(policy.ComponentParticipantList),
		mls.ComponentID(policy.ComponentRoomMetadata), mls.ComponentID(policy.ComponentRoles), mls.ComponentID(policy.ComponentBase),
	}
}

// required are the components that every member of this room must support: with
// those that it begins with, so that nobody comes in who would refuse a commit that
// changes one.
func (s *Setup) required() mls.ComponentsList {
	list, known := required(), Components()
	for id := range s.Others {
		if _, ok := known[mls.ComponentID(id)]; ok {
			list = append(list, mls.ComponentID(id))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func requiredCapabilities() mls.RequiredCapabilities {
	return mls.RequiredCapabilities{
		Extensions: []mls.ExtensionType{mls.ExtensionAppDataDictionary},
		Proposals:  []mls.ProposalType{mls.ProposalAppDataUpdate, mls.ProposalAppEphemeral, mls.ProposalSelfRemove},
	}
}

// ErrNotRoom is found in the errors of Check.
var ErrNotRoom = errors.New("the group is not that of a MIMI room")

// indispensable are the components without which a group is no room.
var indispensable = []policy.ComponentID{
	policy.ComponentAppComponents, policy.ComponentSafeAAD, policy.ComponentContentMediaTypes, policy.ComponentFrankingAgent,
	policy.ComponentParticipantList, policy.ComponentRoomMetadata, policy.ComponentRoles, policy.ComponentBase,
}

// Check checks that a GroupContext has what every room has: the components,
// what clients need to understand them, and an external sender for the hub.
// The values are judged by NewState.
func Check(ext mls.Extensions) error {
	d, err := ext.AppData()
	if err != nil {
		return err
	}
	for _, id := range indispensable {
		if _, ok := d.Find(mls.ComponentID(id)); !ok {
			return fmt.Errorf("room: %w: it has no %s", ErrNotRoom, id)
		}
	}
	if err := checkRequired(ext); err != nil {
		return err
	}
	senders, err := ext.ExternalSenders()
	if err == nil && len(senders) == 0 {
		err = fmt.Errorf("room: %w: external_senders does not list the hub", ErrNotRoom)
	}
	return err
}

func checkRequired(ext mls.Extensions) error {
	have, err := ext.RequiredCapabilities()
	if err != nil {
		return err
	}
	want := requiredCapabilities()
	if have == nil || lacks(have.Extensions, want.Extensions) || lacks(have.Proposals, want.Proposals) {
		return fmt.Errorf("room: %w: required_capabilities lacks app_data_dictionary, app_data_update, app_ephemeral or self_remove", ErrNotRoom)
	}
	return nil
}

// lacks reports whether one of want is not in have.
func lacks[T comparable](have, want []T) bool {
	for _, w := range want {
		found := false
		for _, h := range have {
			found = found || h == w
		}
		if !found {
			return true
		}
	}
	return false
}
