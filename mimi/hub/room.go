package hub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A Room is one room at its hub. Its methods are for one goroutine at a time.
type Room struct {
	cfg   *Config
	uri   mimi.URI
	group *mls.PublicGroup
	state *policy.State // of the epoch

	pending  []*bundle         // accepted in this epoch, in order
	silenced map[mimi.URI]bool // removed or banned by what is pending

	members      map[uint32]Member // by leaf
	byCredential map[CredentialID]uint32
	providers    map[string]int // leaves by host
	last         uint64         // newest accepted timestamp
	base         policy.BaseRoomPolicy
	ops          *policy.OperationalParameters        // nil if the room has none
	agent        []byte                               // the key with which franks are verified; nil if the room has none
	deaf         *[]string                            // nil when it has to be found out anew
	claims       map[CredentialID][]policy.Credential // of members, as found in this epoch
	newest       uint64                               // the epoch that began with the last client that came
	names_       *names                               // of the decision under way, for judge
	marked       *mls.PublicEpoch                     // since which TreeChanges says what has changed
}

// A bundle is proposals that were accepted as one intent.
type bundle struct {
	proposals []*mls.VerifiedProposal
	hub       bool // the hub's own
	accepted  uint64
}

// publicConfig is how the room follows its group. judge asks the names of the
// decision under way; when events are replayed there are none, and what was
// judged once is taken.
func (r *Room) publicConfig() mls.PublicConfig {
	return mls.PublicConfig{
		Components: room.Components(), ReceiverKey: r.cfg.ReceiverKey, Limits: mls.Limits{MaxMembers: r.cfg.MaxMembers},
		Judge: func(ctx context.Context, j *mls.Judgement) error {
			if r.names_ == nil {
				return nil
			}
			return r.names_.judge(ctx, j)
		},
	}
}

func newRoom(cfg *Config, uri mimi.URI) *Room {
	return &Room{
		cfg: cfg, uri: uri, silenced: make(map[mimi.URI]bool), members: make(map[uint32]Member),
		byCredential: make(map[CredentialID]uint32), providers: make(map[string]int), claims: make(map[CredentialID][]policy.Credential),
	}
}

// URI returns the room's name.
func (r *Room) URI() mimi.URI { return r.uri }

// Epoch returns the epoch of the room's group.
func (r *Room) Epoch() uint64 { return r.group.Current().Epoch() }

// GroupID returns the room's MLS group.
func (r *Room) GroupID() []byte { return r.group.Current().ID() }

// State returns the policy state of the epoch, which the caller must not
// change.
func (r *Room) State() *policy.State { return r.state }

// Newest is the epoch in which the last client that came was there first, or in
// which the franking agent became what it is. Messages of earlier epochs are not
// taken: the client could never read them, or their sender not verify the frank.
func (r *Room) Newest() uint64 { return r.newest }

// LastTimestamp returns the newest accepted timestamp.
func (r *Room) LastTimestamp() uint64 { return r.last }

// Members returns the leaves in their order.
func (r *Room) Members() []Member {
	return slices.SortedFunc(maps.Values(r.members), func(a, b Member) int { return int(a.Leaf) - int(b.Leaf) })
}

// Size returns the number of leaves.
func (r *Room) Size() int { return len(r.members) }

// MemberOf returns the leaf of a client.
func (r *Room) MemberOf(client mimi.URI) (Member, bool) {
	for _, m := range r.members {
		if m.Client == client {
			return m, true
		}
	}
	return Member{}, false
}

// Silenced reports whether a user is being removed: the removal is proposed and
// not committed. Until then nothing is done for the user in the room.
func (r *Room) Silenced(user mimi.URI) bool { return r.silenced[user] }

// Providers returns the hosts that have clients in the group.
func (r *Room) Providers() []string { return slices.Sorted(maps.Keys(r.providers)) }

// Followed reports whether other providers have clients in the group.
func (r *Room) Followed() bool {
	if r.providers[r.uri.Host()] > 0 {
		return len(r.providers) > 1
	}
	return len(r.providers) > 0
}

func (r *Room) suite() mls.CipherSuite { return r.group.Current().CipherSuite() }

// ownSender reports whether an entry of external_senders has the hub's key.
func (r *Room) ownSender(s mls.ExternalSender) bool {
	own := r.cfg.SenderKey(r.suite())
	return own != nil && bytes.Equal(own.Sender.SignatureKey, s.SignatureKey)
}

// component returns a decoded component of the epoch, or the zero value.
func component[T any](r *Room, id policy.ComponentID, parse func([]byte) (T, error)) (v T) {
	value, ok := r.state.Value(id)
	if !ok {
		return v
	}
	if parsed, err := parse(value); err == nil {
		v = parsed
	}
	return v
}

// settle decodes what every decision looks at.
func (r *Room) settle() {
	r.deaf = nil
	r.ops = component(r, policy.ComponentOperational, policy.ParseOperationalParameters)
	r.base = *component(r, policy.ComponentBase, policy.ParseBaseRoomPolicy) // a State has one
	r.agent = nil
	if agent := component(r, policy.ComponentFrankingAgent, mimi.ParseFrankingAgent); agent != nil {
		r.agent = agent.SignatureKey
	}
}

// AssetPolicy returns the room's asset policy, or nil.
func (r *Room) AssetPolicy() *policy.AssetPolicy {
	return component(r, policy.ComponentAssets, policy.ParseAssetPolicy)
}

func (r *Room) policyConfig() (policy.Config, error) {
	c := policy.Config{Envelope: r.cfg.Envelope}
	base, err := r.baseOfGroup()
	if err != nil || !base.ParentDependant || r.cfg.Parent == nil {
		return c, err
	}
	parent, err := mimi.ParseURI(base.ParentRoom)
	if err == nil && parent.Host() == r.uri.Host() {
		c.Parent = r.cfg.Parent(parent)
	}
	return c, nil
}

func (r *Room) baseOfGroup() (*policy.BaseRoomPolicy, error) {
	d, err := r.group.Current().Components()
	if err != nil {
		return nil, err
	}
	value, _ := d.Find(mls.ComponentID(policy.ComponentBase))
	return policy.ParseBaseRoomPolicy(value)
}

// newState makes the policy state anew from the group and the members.
func (r *Room) newState(ctx context.Context, n *names) error {
	config, err := r.policyConfig()
	if err != nil {
		return err
	}
	gc := r.group.Current().Context()
	state, err := room.NewState(ctx, config, gc.Extensions, r.group.Current().Members(), n)
	if err != nil {
		return err
	}
	r.state = state
	r.settle()
	return nil
}

// put and drop keep the members and their indices.
func (r *Room) put(m Member) {
	r.members[m.Leaf] = m
	r.byCredential[m.Credential] = m.Leaf
	r.providers[m.Client.Host()]++
}

func (r *Room) drop(leaf uint32) (Member, bool) {
	m, ok := r.members[leaf]
	if !ok {
		return m, false
	}
	delete(r.members, leaf)
	if r.byCredential[m.Credential] == leaf {
		delete(r.byCredential, m.Credential)
	}
	if r.providers[m.Client.Host()]--; r.providers[m.Client.Host()] == 0 {
		delete(r.providers, m.Client.Host())
	}
	return m, true
}

// nextTimestamp returns a time later than that of every event of the room, so
// that no two messages have franks that could be exchanged.
func (r *Room) nextTimestamp() uint64 {
	r.last = max(r.last+1, uint64(r.cfg.now().UnixMilli()))
	return r.last
}

// Has and Len make a Room the parent of others (policy.Parent).
func (r *Room) Has(user mimi.URI) bool { return r.state.RoleOf(user) > mimi.RoleBanned }

// Len returns the number of participants who are not banned.
func (r *Room) Len() int {
	banned, _ := r.state.Counts(mimi.RoleBanned)
	return r.state.Participants() - banned
}

func (r *Room) String() string {
	return fmt.Sprintf("%s in epoch %d with %d clients", r.uri, r.Epoch(), len(r.members))
}

// Parent returns the room on whose participants those of this room depend; zero
// if there is none.
func (r *Room) Parent() mimi.URI {
	if !r.base.ParentDependant {
		return mimi.URI{}
	}
	parent, err := mimi.ParseURI(r.base.ParentRoom)
	if err != nil {
		return mimi.URI{}
	}
	return parent
}

// FixedMembership reports whether nobody may come or go.
func (r *Room) FixedMembership() bool { return r.base.FixedMembership }

// ParticipantSet names the set of participants, whatever their order and roles.
func (r *Room) ParticipantSet() []byte {
	var users []string
	for _, p := range r.state.ParticipantList().Participants {
		if p.Role > mimi.RoleBanned {
			users = append(users, p.User.String())
		}
	}
	slices.Sort(users)
	h := sha256.Sum256([]byte(strings.Join(users, "\n")))
	return h[:]
}

// Context returns the GroupContext, which the caller must not change.
func (r *Room) Context() mls.GroupContext { return r.group.Current().Context() }

// ContextBytes returns the encoded GroupContext.
func (r *Room) ContextBytes() []byte { return r.group.Current().ContextBytes() }
