package mls

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"
)

// A PublicConfig says what a PublicGroup accepts. Its zero value works.
type PublicConfig struct {
	// Judge decides whether credentials are believed, as in Config.
	Judge JudgeFunc
	// Components are those whose proposals are accepted, as in Config.
	Components Components
	// ReceiverKey finds the private key of the external receiver that this
	// service is, to read SemiPrivateMessages. When the group's list changes,
	// the key of the list before is needed until the commit is merged.
	ReceiverKey ReceiverKeyFunc
	// Now, if set, makes the service refuse leaves whose lifetime is over.
	Now func() time.Time

	// MaxMembers, MaxLifetime and MaxProposals count here.
	Limits Limits
}

// A PublicGroup follows a group without being a member of it: it is what a
// delivery service needs to know which messages are valid, who is a member
// and what newcomers must be told. It has no secrets.
//
// Messages pass the same stages as in a Group, and the values that go from
// one to the next have the same types; those of a Group and of a PublicGroup
// do not mix.
//
//	octets --ParseMessage--> Message --Verify--> *VerifiedProposal --Keep--> (kept for a commit)
//	                                             *VerifiedCommit --Stage--> *StagedCommit --Merge--> (new epoch)
//
// It checks everything that a non-member can check. It cannot check the
// membership_tag and the confirmation_tag, whose keys only members have, nor
// the ciphertexts of a path. A member can therefore send a commit that the
// service accepts and the other members refuse; and a group whose handshakes
// are PrivateMessages cannot be followed.
//
// Current may be called by any goroutine at any time. The other methods are
// for one goroutine at a time.
type PublicGroup struct {
	cfg       PublicConfig
	current   atomic.Pointer[PublicEpoch]
	proposals []*keptProposal
	byRef     map[string]*keptProposal
	reinit    *ReInit    // of the commit that began this epoch
	info      *GroupInfo // of this epoch, or nil
}

// A PublicEpoch is one epoch of a group as a non-member knows it. It does not
// change, and may be used by any number of goroutines: what it returns depends
// on context and tree, never on the census, which the next epoch takes over.
type PublicEpoch struct{ *publicState }

// NewPublicGroup starts to follow a group from a GroupInfo and, if it does not
// contain it, the ratchet tree.
func NewPublicGroup(ctx context.Context, info *GroupInfo, tree *RatchetTreeOption, cfg PublicConfig) (*PublicGroup, error) {
	s, err := lookupSuite(info.GroupContext.CipherSuite)
	if err != nil {
		return nil, err
	}
	p := newPublicGroup(cfg)
	var encoded []byte
	if tree != nil {
		if tree.Representation != TreeFull {
			return nil, broken(RuleTreeOption, "representation %d; a group that is not known yet needs its full tree", tree.Representation)
		}
		encoded = tree.Tree
	}
	state, err := newPublicState(s, info, encoded, leafRules{maxLifetime: p.cfg.Limits.MaxLifetime})
	if err != nil {
		return nil, err
	}
	if err := state.context.Extensions.checkReceivers(s); err != nil {
		return nil, err
	}
	if err := p.judgeAll(ctx, state); err != nil {
		return nil, err
	}
	state.confirm(info.ConfirmationTag)
	if err := state.checkGroupInfo(info); err != nil {
		return nil, err
	}
	p.info = withoutTree(info)
	p.current.Store(&PublicEpoch{state})
	return p, nil
}

func newPublicGroup(cfg PublicConfig) *PublicGroup {
	cfg.Limits = cfg.Limits.withDefaults()
	return &PublicGroup{cfg: cfg, byRef: map[string]*keptProposal{}}
}

func (p *PublicGroup) judgeAll(ctx context.Context, state *publicState) error {
	if n := state.tree.members(); n > p.cfg.Limits.MaxMembers {
		return broken(RuleAddLeafLimit, "%d members, at most %d", n, p.cfg.Limits.MaxMembers)
	}
	for l, leaf := range state.tree.leaves() {
		j := &Judgement{GroupID: state.context.GroupID, Leaf: leaf, Index: l, Joining: true}
		if err := p.cfg.Judge.judge(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

// withoutTree returns the GroupInfo if it is kept as it came: one with a tree
// would keep the tree of a past epoch alive.
func withoutTree(info *GroupInfo) *GroupInfo {
	if _, ok := info.Extensions.Find(ExtensionRatchetTree); ok {
		return nil
	}
	return info
}

// Current returns the present epoch.
func (p *PublicGroup) Current() *PublicEpoch { return p.current.Load() }

func (p *PublicGroup) state() *publicState { return p.current.Load().publicState }

// ReInit returns the proposal that closed the group, or nil.
func (p *PublicGroup) ReInit() *ReInit { return p.reinit }

// GroupInfo is the last one that was checked for the present epoch, for
// newcomers; nil if there was none, or if it contained the tree. It is
// read-only.
func (p *PublicGroup) GroupInfo() *GroupInfo { return p.info }

// SetGroupInfo checks and keeps a GroupInfo of the present epoch, of any
// member. For the one that comes with a commit see StagedCommit.
func (p *PublicGroup) SetGroupInfo(info *GroupInfo) error {
	if err := p.state().checkGroupInfo(info); err != nil {
		return err
	}
	p.info = withoutTree(info)
	return nil
}

// TreeOption is the present ratchet tree for newcomers.
func (p *PublicGroup) TreeOption() *RatchetTreeOption { return FullTree(p.Current().RatchetTree()) }

// Verify opens a handshake message and checks who sent it.
func (p *PublicGroup) Verify(ctx context.Context, m *Message) (Verified, error) {
	if p.reinit != nil {
		return nil, ErrReInitialized
	}
	a, err := p.open(ctx, m)
	if err != nil {
		return nil, err
	}
	base := p.state()
	return classify(base.suite, a, base, 0)
}

func (p *PublicGroup) open(ctx context.Context, m *Message) (*AuthenticatedContent, error) {
	switch {
	case m.PublicMessage != nil:
		return p.state().openPublic(m.PublicMessage, nil)
	case m.SemiPrivateMessage != nil:
		return p.state().openAsReceiver(ctx, m.SemiPrivateMessage, p.cfg.ReceiverKey)
	case m.PrivateMessage != nil && m.PrivateMessage.ContentType != ContentApplication:
		return nil, broken(RulePublicHandshake, "a handshake came as a PrivateMessage, which only members can read")
	}
	return nil, fmt.Errorf("%w: wire format 0x%04x is no handshake of a group", ErrUnsupported, uint16(m.WireFormat))
}

// CheckApplication checks what a non-member can see of application data: the
// group, the epoch, the wire format and the authenticated_data.
func (p *PublicGroup) CheckApplication(m *Message) error {
	if m.PrivateMessage == nil {
		return broken(RuleFrameApplicationPrivate, "wire format 0x%04x", uint16(m.WireFormat))
	}
	if m.PrivateMessage.ContentType != ContentApplication {
		return broken(RulePublicHandshake, "a handshake came as a PrivateMessage, which only members can read")
	}
	s := p.state()
	if err := s.checkAddress(m.PrivateMessage.GroupID, m.PrivateMessage.Epoch); err != nil {
		return err
	}
	return s.context.Extensions.checkAAD(m.PrivateMessage.AuthenticatedData)
}

// Keep validates a proposal by itself and keeps it until the epoch ends, so
// that commits can refer to it.
func (p *PublicGroup) Keep(v *VerifiedProposal) error {
	if v.base != p.state() {
		return ErrStale
	}
	if err := v.base.validateProposal(&v.content.Content, p.listRules()); err != nil {
		return err
	}
	if p.byRef[string(v.ref)] != nil {
		return nil
	}
	if _, ok := v.Proposal().(*SelfRemove); ok && selfRemoving(p.proposals, v.Sender()) {
		return broken(RuleSelfRemoveOnce, "a second SelfRemove of leaf %d in one epoch", v.Sender().Index)
	}
	if len(p.proposals) >= p.cfg.Limits.MaxProposals {
		return errTooManyProposals
	}
	p.keep(&keptProposal{v.content, v.ref})
	return nil
}

func (p *PublicGroup) keep(k *keptProposal) {
	p.proposals = append(p.proposals, k)
	p.byRef[string(k.ref)] = k
}

// Drop forgets a proposal that was kept, for a service that takes several
// proposals together or none. No commit may have been accepted that refers to
// it, and the members must not have been told of it.
func (p *PublicGroup) Drop(v *VerifiedProposal) {
	if p.byRef[string(v.ref)] == nil {
		return
	}
	delete(p.byRef, string(v.ref))
	p.proposals = slices.DeleteFunc(p.proposals, func(k *keptProposal) bool { return bytes.Equal(k.ref, v.ref) })
}

// PendingProposals lists the proposals that were kept in this epoch.
func (p *PublicGroup) PendingProposals() []*VerifiedProposal {
	return pendingProposals(p.proposals, p.state())
}

// LeftOut lists the kept proposals that a staged commit does not cover. It is
// for the service to say whether it takes the commit all the same.
func (p *PublicGroup) LeftOut(s *StagedCommit) []*VerifiedProposal {
	covered := map[string]bool{}
	for i := range s.change.items {
		covered[string(s.change.items[i].ref)] = true
	}
	return slices.DeleteFunc(p.PendingProposals(), func(v *VerifiedProposal) bool { return covered[string(v.ref)] })
}

func (p *PublicGroup) listRules() listRules {
	rules := leafRules{maxLifetime: p.cfg.Limits.MaxLifetime}
	if p.cfg.Now != nil {
		rules.now = p.cfg.Now()
	}
	return listRules{leaf: rules, maxMembers: p.cfg.Limits.MaxMembers, components: p.cfg.Components}
}

// Stage works out what a commit does. The group is left as it is.
func (p *PublicGroup) Stage(ctx context.Context, v *VerifiedCommit) (*StagedCommit, error) {
	if v.base != p.state() {
		return nil, ErrStale
	}
	if p.reinit != nil {
		return nil, ErrReInitialized
	}
	c := &v.content.Content
	items, err := resolve(c.Commit, c.Sender, p.byRef)
	if err != nil {
		return nil, err
	}
	change, _, err := v.base.follow(items, c.Sender, c.Commit.Path, p.listRules())
	if err != nil {
		return nil, err
	}
	if err := change.judge(ctx, p.cfg.Judge); err != nil {
		return nil, err
	}
	s := &StagedCommit{change: change, content: v.content, next: change.finish(v.content)}
	s.next.confirm(bytes.Clone(v.content.Auth.ConfirmationTag)) // not to keep the message
	return s, nil
}

// Merge enters the epoch of a staged commit. If a GroupInfo was checked or
// rebuilt with the staged commit, it becomes the group's.
func (p *PublicGroup) Merge(s *StagedCommit) error {
	if s.change.base != p.state() {
		return ErrStale
	}
	s.next.census = s.next.census.absorb()
	p.proposals, p.byRef = nil, map[string]*keptProposal{}
	p.reinit, p.info = s.change.reinit, nil
	if s.info != nil {
		p.info = withoutTree(s.info)
	}
	p.current.Store(&PublicEpoch{s.next})
	return nil
}

// Process verifies a handshake; a proposal it keeps, a commit it stages. One
// of the results is nil.
func (p *PublicGroup) Process(ctx context.Context, m *Message) (*VerifiedProposal, *StagedCommit, error) {
	v, err := p.Verify(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	switch v := v.(type) {
	case *VerifiedProposal:
		return v, nil, p.Keep(v)
	case *VerifiedCommit:
		s, err := p.Stage(ctx, v)
		return nil, s, err
	}
	return nil, nil, broken(RuleFrameSender, "the message is no handshake")
}

// Propose makes and keeps a proposal of the service itself, which must be one
// of the group's external senders (RFC 9420, section 12.1.8.1). The signer's
// public key says which.
func (p *PublicGroup) Propose(ctx context.Context, signer crypto.Signer, proposal Proposal, authenticatedData []byte) ([]byte, error) {
	base := p.state()
	index, err := base.externalSender(signer)
	if err != nil {
		return nil, err
	}
	if authenticatedData, err = base.context.Extensions.outgoingAAD(authenticatedData); err != nil {
		return nil, err
	}
	raw, err := ProposeExternally(ctx, signer, &base.context, index, proposal, authenticatedData)
	if err != nil {
		return nil, err
	}
	m, err := ParseMessage(raw)
	if err != nil {
		return nil, err
	}
	_, _, err = p.Process(ctx, m)
	return raw, err
}

func (p *publicState) externalSender(signer crypto.Signer) (uint32, error) {
	key, err := p.suite.sig.encodePublicKey(signer.Public())
	if err != nil {
		return 0, err
	}
	senders, err := p.context.Extensions.ExternalSenders()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(senders, func(s ExternalSender) bool { return bytes.Equal(s.SignatureKey, key) })
	if i < 0 {
		return 0, broken(RuleFrameSender, "the signer is none of the group's external senders")
	}
	return uint32(i), nil
}

// ID returns the group_id.
func (e *PublicEpoch) ID() []byte { return bytes.Clone(e.context.GroupID) }

// Epoch returns the number of the epoch.
func (e *PublicEpoch) Epoch() uint64 { return e.context.Epoch }

// CipherSuite returns the group's cipher suite.
func (e *PublicEpoch) CipherSuite() CipherSuite { return e.suite.id }

// Context returns the GroupContext. It is read-only.
func (e *PublicEpoch) Context() GroupContext { return e.context }

// ContextBytes returns the encoded GroupContext.
func (e *PublicEpoch) ContextBytes() []byte { return e.context.bytes() }

// ConfirmationTag is that of the commit that began the epoch.
func (e *PublicEpoch) ConfirmationTag() []byte { return bytes.Clone(e.confirmationTag) }

// InterimTranscriptHash is that of the epoch (section 8.2).
func (e *PublicEpoch) InterimTranscriptHash() []byte { return bytes.Clone(e.interim) }

// Members yields the members from the left of the tree.
func (e *PublicEpoch) Members() iter.Seq[Member] { return e.members() }

// Member returns the leaf of a member, or nil.
func (e *PublicEpoch) Member(l LeafIndex) *LeafNode { return e.tree.leaf(l) }

// Size returns the number of members.
func (e *PublicEpoch) Size() int { return e.tree.members() }

// RatchetTree returns the encoded tree, as in the ratchet_tree extension.
func (e *PublicEpoch) RatchetTree() []byte { return e.tree.bytes() }

// Components is the app_data_dictionary of the GroupContext, nil if it is
// absent.
func (e *PublicEpoch) Components() (AppDataDictionary, error) { return e.context.Extensions.AppData() }
