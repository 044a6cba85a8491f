package client

import (
	"context"
	"fmt"
	"net/http"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// RoomOptions say what a new room is.
type RoomOptions struct {
	// Roles are the room's, CooperativeRoles if nil, and Role is the creator's
	// own: the highest that may have clients in the group, if zero.
	Roles    *policy.RoleData
	Role     mimi.RoleIndex
	Base     *policy.BaseRoomPolicy // of a room with any number of clients for each user, if nil
	Metadata mimi.RoomMetaData      // RoomURI is filled in
	// Components are further ones, such as mls_operational_policy.
	Components map[policy.ComponentID][]byte
	// Senders are further providers that may make external proposals beside the
	// hub. What each may propose, the role says for which it is preauthorised.
	Senders []mls.ExternalSender
	// SemiPrivate makes the room's handshakes SemiPrivateMessages
	// (draft-mahy-mls-semiprivatemessage): members and the hub read them, and
	// followers do not see who comes, goes and may do what. External commits and
	// the proposals of those who leave stay public, as MLS wants them.
	SemiPrivate bool
}

// CreateRoom makes a room at the client's own provider, which becomes its hub.
// Its creator is its only participant at first.
func (c *Client) CreateRoom(ctx context.Context, uri mimi.URI, opts RoomOptions) (*Room, error) {
	if uri.Host() != c.URI().Host() {
		return nil, fmt.Errorf("client: a room of %s is made at the provider of that name, not at %s", uri, c.URI().Host())
	}
	ext, err := c.setup(ctx, uri, &opts)
	if err != nil {
		return nil, err
	}
	r := c.roomAt(uri)
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	if r.status != "" && r.status != RoomLeft && r.status != RoomClosed {
		return nil, fmt.Errorf("client: %s is %s", uri, r.status)
	}
	r.status, r.since = RoomCreating, uint64(c.now().UnixMilli())
	err = r.step(acting(ctx), func(ctx context.Context, u *unit) error { return r.create(ctx, u, ext) })
	if err != nil {
		return nil, err
	}
	return r, r.askToCreate(ctx)
}

func (c *Client) setup(ctx context.Context, uri mimi.URI, opts *RoomOptions) (mls.Extensions, error) {
	path := fmt.Sprintf("%s?suite=%d", clientapi.PathHubKeys, uint16(c.cfg.CipherSuite))
	hub, err := ask(ctx, c.provider, http.MethodGet, path, nil, clientapi.ParseHubKeys)
	if err != nil {
		return nil, err
	}
	agent, err := mimi.ParseFrankingAgent(hub.FrankingAgent)
	if err != nil {
		return nil, err
	}
	if opts.Roles == nil {
		opts.Roles = policy.CooperativeRoles()
	}
	if opts.Role == mimi.RoleNone {
		opts.Role = highestRole(opts.Roles)
	}
	s := room.Setup{
		URI: uri, Creator: c.User(), CreatorRole: opts.Role, Roles: opts.Roles, Base: opts.Base, Metadata: &opts.Metadata,
		Others: opts.Components, Hub: hub.HubSender, Senders: opts.Senders, FrankingAgent: *agent,
	}
	if opts.SemiPrivate {
		if s.Receiver = hub.HubReceiver; s.Receiver == nil {
			return nil, fmt.Errorf("client: %s reads no SemiPrivateMessages in cipher suite 0x%04x", uri.Host(), uint16(c.cfg.CipherSuite))
		}
	}
	return s.Extensions()
}

// highestRole is the last role that may have clients in the group.
func highestRole(d *policy.RoleData) (best mimi.RoleIndex) {
	for _, r := range d.Roles {
		if most := r.MaximumActiveParticipants; r.Index > mimi.RoleBanned && (most == nil || *most > 0) {
			best = max(best, r.Index)
		}
	}
	return best
}

// create makes the group and stores it with what is to be asked of the hub.
func (r *Room) create(ctx context.Context, u *unit, ext mls.Extensions) error {
	g, err := r.c.engine().CreateGroup(ctx, nil, mls.GroupOptions{Extensions: ext})
	if err != nil {
		return err
	}
	if _, err := r.c.stateOf(ctx, r.uri, g); err != nil {
		return err
	}
	info, err := g.GroupInfo(ctx, mls.GroupInfoOptions{ExternalPub: true})
	if err != nil {
		return err
	}
	q := &clientapi.CreateRoomRequest{RoomID: r.uri, GroupInfo: info, RatchetTree: mls.FullTree(g.RatchetTree())}
	r.groupID, r.request = g.ID(), q.Marshal()
	r.store(ctx, u)
	return nil
}

// askToCreate asks the hub for the room. It may be asked again.
func (r *Room) askToCreate(ctx context.Context) error {
	answer, err := ask(ctx, r.c.provider, http.MethodPost, clientapi.PathRooms, r.request, mimi.ParseUpdateRoomResponse)
	switch {
	case err != nil && unknown(err):
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case err == nil && answer.ResponseCode == mimi.UpdateSuccess:
		return r.step(ctx, func(ctx context.Context, u *unit) error {
			r.setStatus(ctx, u, RoomMember, "")
			r.advance(ctx, u, answer.AcceptedTimestamp)
			return nil
		})
	case err == nil:
		err = &RefusedError{answer.ResponseCode, answer.ErrorDescription}
	}
	undo := r.step(ctx, func(ctx context.Context, u *unit) error { r.forget(ctx, u, err); return nil })
	if undo != nil {
		return undo
	}
	return err
}
