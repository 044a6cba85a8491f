package room

import (
	"context"
	"fmt"
	"iter"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// An Identities says who stands behind a leaf and behind an external sender.
// What it returns is verified: the credential's signatures, its validity and
// status, and that its issuer is believed for the name.
type Identities interface {
	Leaf(ctx context.Context, leaf *mls.LeafNode) (Identity, error)
	// Credentials returns what preauthorisation may look at in the credential of
	// a leaf that is in the group. Its validity was judged when the leaf came and
	// is the business of who may remove it: all ends must find the same.
	Credentials(ctx context.Context, leaf *mls.LeafNode) ([]policy.Credential, error)
	// ExternalSender returns who may speak for an entry of external_senders.
	ExternalSender(ctx context.Context, sender mls.ExternalSender) (Sender, error)
}

// A Sender is who may speak for an entry of external_senders.
type Sender struct {
	URI mimi.URI // of the provider
	// Credentials are those by which it may be preauthorised for a role. The
	// room's hub needs none.
	Credentials []policy.Credential
}

// An Identity is whom policy sees in a leaf. Credentials are those that
// preauthorisation may look at.
type Identity struct {
	policy.Client
	Credentials []policy.Credential
}

// NewState returns the state of the room that a group holds. members are the
// group's.
func NewState(ctx context.Context, config policy.Config, ext mls.Extensions, members iter.Seq[mls.Member], who Identities) (*policy.State, error) {
	d, err := ext.AppData()
	if err != nil {
		return nil, err
	}
	uri, err := URI(d)
	if err != nil {
		return nil, err
	}
	r := policy.Room{URI: uri, Components: make(map[policy.ComponentID][]byte, len(d))}
	for _, c := range d {
		r.Components[policy.ComponentID(c.ID)] = c.Data
	}
	for m := range members {
		id, err := who.Leaf(ctx, m.Node)
		if err != nil {
			return nil, fmt.Errorf("room: leaf %d: %w", m.Leaf, err)
		}
		r.Leaves = append(r.Leaves, policy.Leaf{Index: uint32(m.Leaf), Client: id.Client})
	}
	config.HubRemoves = true // in every room of ours, at the hub and at its members
	return policy.NewState(config, r)
}

// URI returns the room's name, which its metadata hold.
func URI(d mls.AppDataDictionary) (mimi.URI, error) {
	value, ok := d.Find(mls.ComponentID(policy.ComponentRoomMetadata))
	if !ok {
		return mimi.URI{}, fmt.Errorf("room: %w: it has no %s", ErrNotRoom, policy.ComponentRoomMetadata)
	}
	m, err := mimi.ParseRoomMetaData(value)
	if err != nil {
		return mimi.URI{}, err
	}
	if m.RoomURI.Kind() != mimi.KindRoom {
		return mimi.URI{}, fmt.Errorf("room: %w: room_uri names no room", ErrNotRoom)
	}
	return m.RoomURI, nil
}

// Franking returns the room's franking agent.
func Franking(ext mls.Extensions) (*mimi.FrankingAgent, error) {
	d, err := ext.AppData()
	if err != nil {
		return nil, err
	}
	value, ok := d.Find(mls.ComponentID(policy.ComponentFrankingAgent))
	if !ok {
		return nil, fmt.Errorf("room: %w: it has no %s", ErrNotRoom, policy.ComponentFrankingAgent)
	}
	return mimi.ParseFrankingAgent(value)
}
