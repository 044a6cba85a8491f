package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// ErrNotCreated is found in the errors of Create that say what the room lacks.
var ErrNotCreated = errors.New("the room cannot be made")

// Create makes a room from the GroupInfo and the tree of its creator, a client
// of ours. All clients in it must be of our provider.
func Create(ctx context.Context, cfg *Config, from From, uri mimi.URI, info *mls.GroupInfo, tree *mls.RatchetTreeOption) (*Room, *Outcome, error) {
	r := newRoom(cfg, uri)
	if err := r.creatable(uri, info); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotCreated, err)
	}
	// Leaves are judged below, when the room's own policy is known.
	group, err := mls.NewPublicGroup(ctx, info, tree, r.publicConfig())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotCreated, err)
	}
	r.group = group
	out, err := r.found(ctx, from)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotCreated, err)
	}
	return r, out, nil
}

func (r *Room) creatable(uri mimi.URI, info *mls.GroupInfo) error {
	if uri.Host() != r.cfg.Provider.Host() {
		return fmt.Errorf("%s is not of %s", uri, r.cfg.Provider.Host())
	}
	gc := &info.GroupContext
	if err := room.Check(gc.Extensions); err != nil {
		return err
	}
	d, err := gc.Extensions.AppData()
	if err != nil {
		return err
	}
	if named, err := room.URI(d); err != nil || named != uri {
		return fmt.Errorf("room_uri in the metadata is %s", named)
	}
	if pub, err := info.Extensions.ExternalPub(); err != nil || pub == nil {
		return errors.New("the GroupInfo has no external_pub")
	}
	return r.hubKeys(gc)
}

// hubKeys checks that the group has the hub's keys: one to propose, one to
// frank.
func (r *Room) hubKeys(gc *mls.GroupContext) error {
	own := r.cfg.SenderKey(gc.CipherSuite)
	if own == nil {
		return fmt.Errorf("the hub has no key for cipher suite 0x%04x", uint16(gc.CipherSuite))
	}
	senders, err := gc.Extensions.ExternalSenders()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(senders, func(s mls.ExternalSender) bool {
		return bytes.Equal(s.SignatureKey, own.Sender.SignatureKey) && s.Credential.Equal(&own.Sender.Credential)
	}) {
		return errors.New("external_senders does not list the hub")
	}
	if err := r.receivers(gc.Extensions); err != nil {
		return err
	}
	agent, err := room.Franking(gc.Extensions)
	if err != nil {
		return err
	}
	if ours := r.cfg.FrankingAgent(gc.CipherSuite); ours == nil || !bytes.Equal(agent.SignatureKey, ours.SignatureKey) || !agent.Credential.Equal(&ours.Credential) {
		return errors.New("franking_agent does not have the hub's franking key and its credential")
	}
	return nil
}

// receivers checks that nobody but the hub is to read SemiPrivateMessages.
func (r *Room) receivers(ext mls.Extensions) error {
	list, err := ext.ExternalReceivers()
	if err != nil || len(list) == 0 {
		return err
	}
	if len(list) > 1 || r.cfg.ReceiverKey == nil {
		return errors.New("external_receivers may list the hub alone, if it reads SemiPrivateMessages")
	}
	key, err := r.cfg.ReceiverKey(context.Background(), list[0].PublicKey)
	if err == nil && key == nil {
		err = errors.New("external_receivers lists somebody else than the hub")
	}
	return err
}

// found judges the first members and makes the first state.
func (r *Room) found(ctx context.Context, from From) (*Outcome, error) {
	n := r.names(from.Provider)
	base, err := r.baseOfGroup()
	if err != nil {
		return nil, err
	}
	r.base = *base
	if err := r.newState(ctx, n); err != nil {
		return nil, err
	}
	if err := r.state.OneLeafEach(); err != nil {
		return nil, err
	}
	out := &Outcome{Suite: r.suite()}
	for m := range r.group.Current().Members() {
		v, err := n.evaluate(ctx, m.Node) // again: now the operational policy is known
		if err != nil {
			return nil, err
		}
		if v.Identity.Client.Host() != from.Provider {
			return nil, fmt.Errorf("%w: leaf %d is of %s", ErrForeign, m.Leaf, v.Identity.Client)
		}
		if err := r.meets(m.Node); err != nil {
			return nil, err
		}
		n.fresh[idOf(m.Node)] = v
		if err := n.mayHave(ctx, m.Node, v.Identity.User, r.state.RoleOf(v.Identity.User)); err != nil {
			return nil, err
		}
		next := memberOf(uint32(m.Leaf), idOf(m.Node), v)
		r.put(next)
		out.Came, out.Leaves = append(out.Came, next), append(out.Leaves, m.Node)
	}
	if _, ok := r.MemberOf(from.Client); !ok {
		return nil, fmt.Errorf("%w: %s is not in the group", ErrForeign, from.Client)
	}
	if err := r.baseAllows(); err != nil {
		return nil, err
	}
	out.Response = &mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateSuccess, AcceptedTimestamp: r.nextTimestamp()}
	return out, nil
}

// baseAllows checks a new room against its own base_room_policy, which policy
// otherwise checks as it changes.
func (r *Room) baseAllows() error {
	users := r.Len()
	switch {
	case r.base.MaxUsers != nil && users > int(*r.base.MaxUsers), r.base.MaxClients != nil && len(r.members) > int(*r.base.MaxClients):
		return errors.New("the room begins with more than its own policy allows")
	case !r.base.ParentDependant:
		return nil
	}
	parent, err := mimi.ParseURI(r.base.ParentRoom)
	if err != nil || parent.Host() != r.uri.Host() || r.cfg.Parent == nil {
		return errors.New("the parent room is not ours")
	}
	in := r.cfg.Parent(parent)
	if in == nil || users >= in.Len() {
		return errors.New("the participants must be some of the parent room's")
	}
	for _, p := range r.state.ParticipantList().Participants {
		if p.Role > mimi.RoleBanned && !in.Has(p.User) {
			return fmt.Errorf("%s is not in the parent room", p.User)
		}
	}
	return nil
}
