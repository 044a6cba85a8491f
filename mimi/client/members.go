package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// participants is a proposal that changes the participant list.
func participants(u mimi.ParticipantListUpdate) mls.Proposal {
	return mls.UpdateAppData(mls.ComponentID(policy.ComponentParticipantList), u.Marshal())
}

// A KeyMaterialError says why a user's clients cannot be added.
type KeyMaterialError struct {
	User mimi.URI
	Code mimi.KeyMaterialUserCode
	// Clients says it of each client that the provider names.
	Clients map[mimi.URI]string
}

func (e *KeyMaterialError) Error() string {
	s := fmt.Sprintf("client: no KeyPackage of %s can be had: %s", e.User, e.Code)
	switch e.Code {
	case mimi.KeyMaterialNoConsent, mimi.KeyMaterialNoConsentForThisRoom:
		s += ": ask for its consent, if it is there"
	case mimi.KeyMaterialUserUnknown:
		s += ": its provider has no such user, or no client of it"
	}
	for _, client := range slices.SortedFunc(maps.Keys(e.Clients), func(a, b mimi.URI) int { return strings.Compare(a.String(), b.String()) }) {
		s += fmt.Sprintf("; %s: %s", client, e.Clients[client])
	}
	return s
}

// AddOptions say how a user is added.
type AddOptions struct {
	Role mimi.RoleIndex // the first that the adder's role may give, if zero
	// WithoutClients adds the user to the list alone; its clients join by
	// external commit.
	WithoutClients bool
}

// Add adds a user to the room, with all of its clients of which KeyPackages
// can be had.
func (r *Room) Add(ctx context.Context, user mimi.URI, opts AddOptions) (*Committed, error) {
	var adds []mls.Proposal
	if !opts.WithoutClients {
		var err error
		if adds, err = r.claim(ctx, user); err != nil {
			return nil, err
		}
	}
	return r.commit(ctx, func(ctx context.Context) (*intent, error) {
		if r.state.RoleOf(user) != mimi.RoleNone {
			return nil, fmt.Errorf("client: %s participates in %s already", user, r.uri)
		}
		role, err := r.roleToGive(opts.Role)
		if err != nil {
			return nil, err
		}
		list := participants(mimi.ParticipantListUpdate{AddedParticipants: []mimi.UserRolePair{{User: user, Role: role}}})
		return &intent{proposals: append([]mls.Proposal{list}, adds...)}, nil
	})
}

// AddOwnClients adds the user's other clients, of which KeyPackages can be
// had.
func (r *Room) AddOwnClients(ctx context.Context) (*Committed, error) {
	adds, err := r.claim(ctx, r.c.User())
	if err != nil {
		return nil, err
	}
	return r.commit(ctx, func(ctx context.Context) (*intent, error) {
		left, err := r.notIn(ctx, adds)
		if err != nil || len(left) == 0 {
			return nil, err
		}
		return &intent{proposals: left}, nil
	})
}

// notIn are the additions of clients that another of the user's has not added
// meanwhile.
func (r *Room) notIn(ctx context.Context, adds []mls.Proposal) ([]mls.Proposal, error) {
	var left []mls.Proposal
	for _, p := range adds {
		v, err := r.c.verdicts.in(r.uri).of(ctx, p.(*mls.Add).KeyPackage.LeafNode)
		if err != nil {
			return nil, err
		}
		if len(r.leavesOf(ctx, func(c mimi.URI) bool { return c == v.Identity.Client }, v.User)) == 0 {
			left = append(left, p)
		}
	}
	return left, nil
}

// roleToGive is the role for a newcomer.
func (r *Room) roleToGive(role mimi.RoleIndex) (mimi.RoleIndex, error) {
	if role != mimi.RoleNone {
		return role, nil
	}
	own := r.state.Role(r.state.RoleOf(r.c.User()))
	if own != nil {
		for _, ch := range own.AuthorizedRoleChanges {
			for _, to := range ch.Targets {
				if ch.From == mimi.RoleNone && to > mimi.RoleBanned {
					return to, nil
				}
			}
		}
	}
	return 0, errors.New("client: this user's role may give no role to a newcomer")
}

// claim has the user's provider give out one KeyPackage of each client that is
// not in the room, and judges them strictly.
func (r *Room) claim(ctx context.Context, user mimi.URI) ([]mls.Proposal, error) {
	q, err := r.keyMaterialRequest(ctx, user)
	if err != nil {
		return nil, err
	}
	answer, err := ask(ctx, r.c.provider, http.MethodPost, clientapi.PathKeyMaterial, q.Marshal(), mimi.ParseKeyMaterialResponse)
	if err != nil {
		return nil, err
	}
	refused := &KeyMaterialError{User: user, Code: answer.UserStatus, Clients: make(map[mimi.URI]string)}
	if answer.UserURI != user {
		return nil, fmt.Errorf("client: KeyPackages of %s were asked for, and those of %s came", user, answer.UserURI)
	}
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	var adds []mls.Proposal
	for _, m := range answer.Clients {
		if why := r.checkMaterial(acting(ctx), user, &m); why != "" {
			refused.Clients[m.ClientURI] = why
			continue
		}
		adds = append(adds, &mls.Add{KeyPackage: m.KeyPackage})
	}
	if len(adds) == 0 {
		return nil, refused
	}
	return adds, nil
}

func (r *Room) keyMaterialRequest(ctx context.Context, user mimi.URI) (*mimi.KeyMaterialRequest, error) {
	l, err := r.c.keys.leaf(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	gc := r.group.Context()
	required, err := gc.Extensions.RequiredCapabilities()
	if err != nil {
		return nil, err
	}
	q := &mimi.KeyMaterialRequest{
		Protocol: mimi.ProtocolMLS10, RequestingUser: r.c.User(), TargetUser: user, RoomID: r.uri,
		AcceptableSuites: []mls.CipherSuite{r.group.CipherSuite()}, RequiredCapabilities: *required,
		RequesterKey: r.c.engine().SignatureKey(), RequesterCredential: l.credential,
	}
	return q, q.Sign(ctx, l.signer)
}

// checkMaterial says why a client cannot be added, or nothing.
func (r *Room) checkMaterial(ctx context.Context, user mimi.URI, m *mimi.ClientKeyMaterial) string {
	switch m.Status {
	case mimi.KeyMaterialExhausted:
		return "its KeyPackages are used up"
	case mimi.KeyMaterialNothingCompatible:
		return "none of its KeyPackages fits the room"
	}
	if why := r.misfit(m.KeyPackage); why != "" {
		return why
	}
	v, err := r.c.verdicts.in(r.uri).ask(ctx, m.KeyPackage.LeafNode, true)
	if err != nil {
		return err.Error()
	}
	switch {
	case v.User != user:
		return fmt.Sprintf("its credential is of %s", v.User)
	case v.Identity.Client != m.ClientURI:
		return fmt.Sprintf("its credential names %s", v.Identity.Client)
	}
	if leaves := r.leavesOf(ctx, func(c mimi.URI) bool { return c == m.ClientURI }, user); len(leaves) > 0 {
		return "it is in the room"
	}
	return r.onlyAsserted(ctx, v)
}

// misfit says why the room cannot have a KeyPackage, or nothing: a request can name
// only some of what a room requires, and one client that lacks it must not keep its
// user's others out.
func (r *Room) misfit(k *mls.KeyPackage) string {
	if k.CipherSuite != r.group.CipherSuite() {
		return "its KeyPackage is of another cipher suite"
	}
	gc := r.group.Context()
	if err := gc.Extensions.MetBy(k.LeafNode); err != nil {
		return "it does not support what the room requires: " + err.Error()
	}
	if err := k.Validate(mls.LeafPolicy{Now: r.c.now()}); err != nil {
		return "its KeyPackage is not valid: " + err.Error()
	}
	return ""
}

// leavesOf lists the leaves of a user's clients that match.
func (r *Room) leavesOf(_ context.Context, match func(client mimi.URI) bool, user mimi.URI) []mls.LeafIndex {
	var list []mls.LeafIndex
	for _, l := range r.state.LeavesOf(user) {
		if c, ok := r.state.Client(l); ok && match(c.URI) {
			list = append(list, mls.LeafIndex(l))
		}
	}
	return list
}

func anyClient(mimi.URI) bool { return true }

// removals proposes to remove a user's clients.
func (r *Room) removals(ctx context.Context, user mimi.URI, match func(mimi.URI) bool) []mls.Proposal {
	var list []mls.Proposal
	for _, l := range r.leavesOf(ctx, match, user) {
		list = append(list, &mls.Remove{Removed: l})
	}
	return list
}

func (r *Room) index(user mimi.URI) (uint32, error) {
	i, ok := r.state.Index(user)
	if !ok {
		return 0, fmt.Errorf("client: %s does not participate in %s", user, r.uri)
	}
	return i, nil
}

// Remove removes a user and all of its clients from the room.
func (r *Room) Remove(ctx context.Context, user mimi.URI) (*Committed, error) {
	return r.commit(ctx, func(ctx context.Context) (*intent, error) {
		i, err := r.index(user)
		if err != nil {
			return nil, err
		}
		list := participants(mimi.ParticipantListUpdate{RemovedIndices: []uint32{i}})
		return &intent{proposals: append([]mls.Proposal{list}, r.removals(ctx, user, anyClient)...)}, nil
	})
}

// Kick removes clients of a user, who stays a participant: one, or all if
// client is zero.
func (r *Room) Kick(ctx context.Context, user, client mimi.URI) (*Committed, error) {
	return r.commit(ctx, func(ctx context.Context) (*intent, error) {
		if _, err := r.index(user); err != nil {
			return nil, err
		}
		list := r.removals(ctx, user, func(c mimi.URI) bool { return client.IsZero() || c == client })
		if len(list) == 0 {
			return nil, fmt.Errorf("client: %s has no such client in %s", user, r.uri)
		}
		return &intent{proposals: list}, nil
	})
}

// Ban removes a user's clients and keeps the user from coming back.
func (r *Room) Ban(ctx context.Context, user mimi.URI) (*Committed, error) {
	return r.setRole(ctx, user, mimi.RoleBanned, true)
}

// SetRole gives a participant another role. Unbanning is one.
func (r *Room) SetRole(ctx context.Context, user mimi.URI, role mimi.RoleIndex) (*Committed, error) {
	return r.setRole(ctx, user, role, false)
}

func (r *Room) setRole(ctx context.Context, user mimi.URI, role mimi.RoleIndex, remove bool) (*Committed, error) {
	return r.commit(ctx, func(ctx context.Context) (*intent, error) {
		i, err := r.index(user)
		if err != nil {
			return nil, err
		}
		do := &intent{proposals: []mls.Proposal{participants(mimi.ParticipantListUpdate{
			ChangedRoleParticipants: []mimi.UserIndexRolePair{{UserIndex: i, Role: role}},
		})}}
		if remove {
			do.proposals = append(do.proposals, r.removals(ctx, user, anyClient)...)
		}
		return do, nil
	})
}

// RoleNamed finds a role of the room by its name or number.
func (r *Room) RoleNamed(ctx context.Context, name string) (mimi.RoleIndex, error) {
	v, err := r.Component(ctx, policy.ComponentRoles)
	if err != nil {
		return 0, err
	}
	roles := v.(*policy.RoleData).Roles
	i := slices.IndexFunc(roles, func(role policy.Role) bool {
		return strings.EqualFold(role.Name, name) || fmt.Sprint(role.Index) == name
	})
	if i < 0 {
		return 0, fmt.Errorf("client: the room has no role %q", name)
	}
	return roles[i].Index, nil
}

// SetComponent replaces the value of a component of the room's policy, or of
// its metadata.
func (r *Room) SetComponent(ctx context.Context, id policy.ComponentID, value []byte) (*Committed, error) {
	if _, err := policy.ParseComponent(id, value); err != nil {
		return nil, err
	}
	return r.commit(ctx, func(context.Context) (*intent, error) {
		return &intent{proposals: []mls.Proposal{mls.UpdateAppData(mls.ComponentID(id), value)}}, nil
	})
}

// FixMembership keeps the room's participants as they are: from then on nobody
// comes or goes, but clients of theirs do (fixed_membership of base_room_policy,
// draft-ietf-mimi-room-policy-03 section 5). In such a room no role has
// canAddParticipant, which goes from the roles in the same commit.
func (r *Room) FixMembership(ctx context.Context) (*Committed, error) {
	return r.commit(ctx, func(context.Context) (*intent, error) {
		value, _ := r.state.Value(policy.ComponentBase)
		base, err := policy.ParseBaseRoomPolicy(value)
		if err != nil {
			return nil, err
		}
		value, _ = r.state.Value(policy.ComponentRoles)
		roles, err := policy.ParseRoleData(value)
		if err != nil {
			return nil, err
		}
		do, changed := new(intent), false
		for i := range roles.Roles {
			role := &roles.Roles[i]
			if role.Index > mimi.RoleBanned && role.Has(policy.CanAddParticipant) {
				role.Capabilities, changed = slices.DeleteFunc(role.Capabilities, func(c policy.Capability) bool { return c == policy.CanAddParticipant }), true
			}
		}
		if changed {
			do.proposals = append(do.proposals, mls.UpdateAppData(mls.ComponentID(policy.ComponentRoles), roles.Marshal()))
		}
		if !base.FixedMembership {
			base.FixedMembership = true
			do.proposals = append(do.proposals, mls.UpdateAppData(mls.ComponentID(policy.ComponentBase), base.Marshal()))
		}
		if len(do.proposals) == 0 {
			return nil, nil
		}
		return do, nil
	})
}

// SetMetadata changes the room's name, subject and what else people see of it.
// change gets what stands there when the commit is made.
func (r *Room) SetMetadata(ctx context.Context, change func(*mimi.RoomMetaData)) (*Committed, error) {
	return r.commit(ctx, func(context.Context) (*intent, error) {
		value, _ := r.state.Value(policy.ComponentRoomMetadata)
		m, err := mimi.ParseRoomMetaData(value)
		if err != nil {
			return nil, err
		}
		change(m)
		return &intent{proposals: []mls.Proposal{mls.UpdateAppData(mls.ComponentID(policy.ComponentRoomMetadata), m.Marshal())}}, nil
	})
}

// Refresh gives this client's leaf new keys, so that what was known of the old
// ones is of no more use.
func (r *Room) Refresh(ctx context.Context) (*Committed, error) {
	return r.commit(ctx, func(context.Context) (*intent, error) { return &intent{}, nil })
}

// JoinCode asks the hub for a code with which others may join.
func (r *Room) JoinCode(ctx context.Context, role mimi.RoleIndex, lifetime, uses uint32) (*clientapi.JoinCode, error) {
	q := &clientapi.JoinCodeRequest{Role: role, Lifetime: lifetime, Uses: uses}
	return ask(ctx, r.c.provider, http.MethodPost, clientapi.JoinCodesPath(r.uri), q.Marshal(), clientapi.ParseJoinCode)
}
