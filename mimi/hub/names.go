package hub

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A CredentialID names a leaf's signature key with its credential. It is what
// a verdict is about.
type CredentialID [sha256.Size]byte

// CredentialIDOf returns the ID of a key with a credential.
func CredentialIDOf(key []byte, c mls.Credential) CredentialID {
	b := tlsvec.NewBuilder(len(key) + len(c.Body) + 16)
	b.Vector(key)
	b.Uint16(uint16(c.Type))
	b.Vector(c.Body)
	return sha256.Sum256(b.Bytes())
}

func idOf(leaf *mls.LeafNode) CredentialID { return CredentialIDOf(leaf.SignatureKey, leaf.Credential) }

// A Member is a leaf of a room with the identity that the hub believed when it
// let the leaf in.
type Member struct {
	Leaf       uint32
	Client     mimi.URI
	User       mimi.URI
	Credential CredentialID
	Type       mls.CredentialType
	Level      identity.Level
	Issuer     string
	NotAfter   time.Time // zero for never
	// Suspended says that the credential is not believed for the time being: the
	// leaf stays, and is not heard.
	Suspended bool
}

// proven reports whether an issuer has said who the member is.
func (m Member) proven() bool { return m.Level >= identity.Issued }

func memberOf(leaf uint32, id CredentialID, v *Verdict) Member {
	return Member{
		Leaf: leaf, Client: v.Identity.Client, User: v.Identity.User, Credential: id,
		Type: v.Identity.Type, Level: v.Identity.Level, Issuer: v.Identity.Issuer, NotAfter: v.Identity.NotAfter,
	}
}

// names says who stands behind the leaves of a room. Members were judged when
// they came; newcomers are judged once for each decision.
type names struct {
	room    *Room
	voucher string
	fresh   map[CredentialID]*Verdict
}

func (r *Room) names(voucher string) *names {
	return &names{room: r, voucher: voucher, fresh: make(map[CredentialID]*Verdict)}
}

// Leaf implements room.Identities.
func (n *names) Leaf(ctx context.Context, leaf *mls.LeafNode) (room.Identity, error) {
	v, err := n.verdict(ctx, leaf)
	if err != nil {
		return room.Identity{}, err
	}
	return room.Identity{Client: policy.Client{User: v.Identity.User, URI: v.Identity.Client}, Credentials: v.Claims}, nil
}

// Credentials implements room.Identities. They are asked for once in an epoch,
// so that what was accepted in it stays so.
func (n *names) Credentials(ctx context.Context, leaf *mls.LeafNode) ([]policy.Credential, error) {
	id := idOf(leaf)
	if known, ok := n.room.claims[id]; ok {
		return known, nil
	}
	if m, ok := n.room.members[n.room.byCredential[id]]; ok && m.Credential == id && !m.proven() {
		return nil, nil
	}
	q := n.question(leaf)
	q.Member = true
	v, err := n.room.cfg.Evaluator.Evaluate(ctx, q)
	if err != nil {
		return nil, &CredentialError{err}
	}
	n.room.claims[id] = v.Claims
	return v.Claims, nil
}

// bound returns the highest role that trust allows whom a leaf stands for, if
// there is such a bound.
func (n *names) bound(ctx context.Context, leaf *mls.LeafNode) (mimi.RoleIndex, bool, error) {
	id := idOf(leaf)
	if v := n.fresh[id]; v != nil {
		return v.MaxRole, v.Bounded, nil
	}
	m, ok := n.room.members[n.room.byCredential[id]]
	if !ok || m.Credential != id || m.proven() {
		return 0, false, nil
	}
	q := n.question(leaf)
	q.Member, q.Voucher = true, m.Client.Host() // which vouched for it when it came
	v, err := n.room.cfg.Evaluator.Evaluate(ctx, q)
	if err != nil {
		return 0, true, &CredentialError{err}
	}
	return v.MaxRole, v.Bounded, nil
}

// within checks that nobody gets a role, or comes with one, that trust does not
// allow without proof of who it is: those whose role changes with all their
// clients, and the users of leaves that come. Nobody joins a user who is proven by
// an assertion. State is that before the effect.
func (n *names) within(ctx context.Context, e *policy.Effect, came []*mls.LeafNode) error {
	role := make(map[mimi.URI]mimi.RoleIndex)
	for _, p := range e.Roles() {
		role[p.User] = p.Role
	}
	for user, r := range role {
		for _, i := range n.room.state.LeavesOf(user) {
			if err := n.mayHave(ctx, n.room.group.Current().Member(mls.LeafIndex(i)), user, r); err != nil {
				return err
			}
		}
	}
	proven := make(map[mimi.URI]bool) // users of leaves that come
	for _, leaf := range came {
		v, err := n.verdict(ctx, leaf)
		if err != nil {
			return err
		}
		proven[v.Identity.User] = proven[v.Identity.User] || v.Identity.Proven()
	}
	for _, leaf := range came {
		v, err := n.verdict(ctx, leaf)
		if err != nil {
			return err
		}
		user := v.Identity.User
		if err := n.noAssertion(v.Identity, proven[user]); err != nil {
			return err
		}
		r, ok := role[user]
		if !ok {
			r = n.room.state.RoleOf(user)
		}
		if err := n.mayHave(ctx, leaf, user, r); err != nil {
			return err
		}
	}
	return nil
}

// noAssertion refuses a leaf that is only said to be of a user whom an issuer has
// proven, by a leaf in the group or by one that comes with it.
func (n *names) noAssertion(id *identity.Identity, proven bool) error {
	if id.Proven() {
		return nil
	}
	for _, i := range n.room.state.LeavesOf(id.User) {
		m := n.room.members[i]
		proven = proven || m.proven()
	}
	if !proven {
		return nil
	}
	return &CredentialError{credentials.Errorf(credentials.CodeIdentityDowngrade, "leaf", "%s is proven by an issuer, and the leaf of %s is only %s", id.User, id.Client, id.Level)}
}

func (n *names) mayHave(ctx context.Context, leaf *mls.LeafNode, user mimi.URI, role mimi.RoleIndex) error {
	if leaf == nil || role <= mimi.RoleBanned {
		return nil
	}
	most, bounded, err := n.bound(ctx, leaf)
	if err != nil || !bounded || role <= most {
		return err
	}
	return &CredentialError{credentials.Errorf(credentials.CodePolicy, "leaf",
		"%s would have role %d, and no issuer has proven who it is: its role is at most %d (basic_max_role)", user, role, most)}
}

// ExternalSender implements room.Identities. The hub's own entry needs no
// evaluation: it has the hub's key.
func (n *names) ExternalSender(ctx context.Context, s mls.ExternalSender) (room.Sender, error) {
	if n.room.ownSender(s) {
		return room.Sender{URI: n.room.cfg.Provider}, nil
	}
	sender, err := n.room.cfg.Evaluator.Sender(ctx, n.room.suite(), s)
	if err != nil {
		return sender, &CredentialError{err}
	}
	return sender, nil
}

func (n *names) question(leaf *mls.LeafNode) *Question {
	return &Question{
		Suite: n.room.suite(), Credential: leaf.Credential, SignatureKey: leaf.SignatureKey, Room: n.room.uri, Voucher: n.voucher,
	}
}

func (n *names) verdict(ctx context.Context, leaf *mls.LeafNode) (*Verdict, error) {
	id := idOf(leaf)
	if v := n.fresh[id]; v != nil {
		return v, nil
	}
	if m, ok := n.room.members[n.room.byCredential[id]]; ok && m.Credential == id {
		return &Verdict{Identity: &identity.Identity{Client: m.Client, User: m.User, Level: m.Level, Type: m.Type, Issuer: m.Issuer, NotAfter: m.NotAfter}}, nil
	}
	v, err := n.evaluate(ctx, leaf)
	if err == nil {
		n.fresh[id] = v
	}
	return v, err
}

func (n *names) evaluate(ctx context.Context, leaf *mls.LeafNode) (*Verdict, error) {
	v, err := n.room.cfg.Evaluator.Evaluate(ctx, n.question(leaf))
	if err != nil {
		return nil, &CredentialError{err}
	}
	return v, n.admitted(v.Identity)
}

// admitted compares an identity with what the room's policy asks of leaves.
func (n *names) admitted(id *identity.Identity) error {
	expected := identity.Expected{Pseudonyms: n.room.base.PseudonymsAllowed}
	ops := n.room.ops
	if ops != nil && ops.MaxCredentialLifetime > 0 && id.Proven() {
		expected.MaxLifetime = time.Duration(min(ops.MaxCredentialLifetime, 1<<32)) * time.Second
	}
	if err := expected.Check(id); err != nil {
		return &CredentialError{err}
	}
	if id.Type == mls.CredentialBasic && n.room.state != nil && !n.room.admitsBasic(ops) {
		return &CredentialError{fmt.Errorf("the room's operational policy does not list basic credentials")}
	}
	return nil
}

func (r *Room) admitsBasic(ops *policy.OperationalParameters) bool {
	if r.cfg.AdmitBasic {
		return true
	}
	return ops != nil && (slices.Contains(ops.MandatoryCapabilities.Credentials, uint16(mls.CredentialBasic)) ||
		slices.Contains(ops.DefaultCapabilities.Credentials, uint16(mls.CredentialBasic)))
}

// judge is the mls.JudgeFunc of a decision. A successor keeps its client and
// is proven no less.
func (n *names) judge(ctx context.Context, j *mls.Judgement) error {
	next, err := n.verdict(ctx, j.Leaf)
	if err != nil || j.Old == nil || j.Joining {
		return err
	}
	old, err := n.verdict(ctx, j.Old)
	if err != nil {
		return err
	}
	if err := identity.CheckSuccessor(old.Identity, next.Identity); err != nil {
		return &CredentialError{err}
	}
	return nil
}
