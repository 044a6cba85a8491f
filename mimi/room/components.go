package room

import (
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// ComponentFrankAAD is the Safe AAD item that carries the franking tag
// (draft-ietf-mimi-protocol-06 section 5.4.1).
const ComponentFrankAAD mls.ComponentID = 0x0020 // frank_aad

// ContentType is the media type of the messages of a room.
const ContentType = "application/mimi-content"

// replaced are the components whose update is their next value.
var replaced = []policy.ComponentID{
	policy.ComponentOperational, policy.ComponentRoles, policy.ComponentPreauth, policy.ComponentBase,
	policy.ComponentStatusNotification, policy.ComponentJoinLinkPolicy, policy.ComponentLinkPreview,
	policy.ComponentAssets, policy.ComponentLogging, policy.ComponentHistory, policy.ComponentBots,
	policy.ComponentExpiration, policy.ComponentRoomMetadata,
}

// Components are the handlers of all components of a room, for mls.Config and
// mls.PublicConfig. They judge encodings; who may change what is for package
// policy.
func Components() mls.Components {
	all := mls.Components{
		ComponentFrankAAD: {}, // an item of the Safe AAD; it has no data
		mls.ComponentID(policy.ComponentParticipantList): {Update: updateParticipants, Remove: never},
		mls.ComponentID(policy.ComponentJoinLinks):       {Update: updateLinks},
		mls.ComponentID(policy.ComponentFrankingAgent):   franking(),
		mls.ComponentID(policy.ComponentRoomClosed):      {Ephemeral: closed},
	}
	for _, id := range replaced {
		all[mls.ComponentID(id)] = mls.ReplaceData(func(b []byte) error {
			_, err := policy.ParseComponent(id, b)
			return err
		})
	}
	return all
}

func franking() mls.ComponentHandler {
	h := mls.ReplaceData(func(b []byte) error {
		_, err := mimi.ParseFrankingAgent(b)
		return err
	})
	h.Remove = never
	return h
}

// closed judges the proposal with which a hub says that the room is no more.
func closed(c *mls.ComponentCall) error {
	for _, in := range c.Inputs {
		if in.Sender.Type != mls.SenderExternal || len(in.Data) > 0 {
			return errors.New("only a hub says that the room is closed, and says nothing else with it")
		}
	}
	return nil
}

// Closing is the proposal with which a hub says that the room is no more.
func Closing() mls.Proposal {
	return &mls.AppEphemeral{Component: mls.ComponentID(policy.ComponentRoomClosed)}
}

// IsClosing reports whether a proposal says that the room is no more. Whether
// its sender is the hub is for the caller to find out.
func IsClosing(s mls.Sender, p mls.Proposal) bool {
	e, ok := p.(*mls.AppEphemeral)
	return ok && s.Type == mls.SenderExternal && e.Component == mls.ComponentID(policy.ComponentRoomClosed)
}

func never(c *mls.ComponentCall) error {
	return fmt.Errorf("a room cannot do without component 0x%04x", uint16(c.Component))
}

// updateParticipants applies all updates of a commit to the list as it was
// when the epoch began.
func updateParticipants(c *mls.ComponentCall) ([]byte, error) {
	var err error
	updates := make([]*mimi.ParticipantListUpdate, len(c.Inputs))
	for i, in := range c.Inputs {
		if updates[i], err = mimi.ParseParticipantListUpdate(in.Data); err != nil {
			return nil, err
		}
	}
	roles, err := roles(c)
	if err != nil {
		return nil, err
	}
	return mimi.UpdateParticipants(c.Old, func(r mimi.RoleIndex) bool { return roles.Role(r) != nil }, updates...)
}

func roles(c *mls.ComponentCall) (*policy.RoleData, error) {
	ctx := c.Context()
	d, err := ctx.Extensions.AppData()
	if err != nil {
		return nil, err
	}
	value, _ := d.Find(mls.ComponentID(policy.ComponentRoles))
	return policy.ParseRoleData(value)
}

func updateLinks(c *mls.ComponentCall) ([]byte, error) {
	links := new(policy.JoinLinksData)
	if c.Present {
		var err error
		if links, err = policy.ParseJoinLinksData(c.Old); err != nil {
			return nil, err
		}
	}
	update := new(policy.JoinLinksUpdate)
	for _, in := range c.Inputs {
		u, err := policy.ParseJoinLinksUpdate(in.Data)
		if err != nil {
			return nil, err
		}
		update.RemovedIndices = append(update.RemovedIndices, u.RemovedIndices...)
		update.AddedLinks = append(update.AddedLinks, u.AddedLinks...)
	}
	next, err := links.Apply(update)
	if err != nil {
		return nil, err
	}
	return next.Marshal(), nil
}

// SafeAADItems are the items that a member of a room understands.
func SafeAADItems() mls.ComponentsList { return mls.ComponentsList{ComponentFrankAAD} }

// WireFormats are those beyond RFC 9420 that every client supports.
func WireFormats() []mls.WireFormat { return []mls.WireFormat{mls.WireSemiPrivateMessage} }

// SemiPrivate reports whether a room's handshakes are SemiPrivateMessages: read by
// its members and by the hub, and by no follower.
func SemiPrivate(ext mls.Extensions) bool {
	formats, err := ext.RequiredWireFormats()
	return err == nil && slices.Contains(formats, mls.WireSemiPrivateMessage)
}

// MediaTypes are what a member of a room can receive as a message of its own;
// ContentType, with which parts of other types come, is the group's first.
func MediaTypes() mls.MediaTypeList {
	return mls.MediaTypeList{{Type: ContentType}, {Type: "application/mimi-message-status"}}
}

// Capabilities are those of a leaf in a room. Every credential type that this
// engine knows is among them; which are believed is for the room's policy and
// the trust configuration.
func Capabilities() mls.Capabilities {
	c := mls.ExtendedCapabilities()
	c.Extensions = append(c.Extensions, mls.ExtensionExternalReceivers)
	c.Credentials = []mls.CredentialType{
		mls.CredentialX509, mls.CredentialMulti, mls.CredentialWeakMulti,
		mls.CredentialSDCWT, mls.CredentialSDJWT, mls.CredentialBasic,
	}
	return c
}
