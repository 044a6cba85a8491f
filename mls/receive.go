package mls

import (
	"bytes"
	"errors"
	"fmt"
)

// A Verified message has passed sections 6.1 to 6.3: it is an
// *ApplicationMessage, a *VerifiedProposal or a *VerifiedCommit.
type Verified interface {
	Sender() Sender
	Epoch() uint64
	AuthenticatedData() []byte
	verified()
}

// verifiedContent is what the three have in common.
type verifiedContent struct {
	content *AuthenticatedContent
	base    *publicState
}

// Sender says who sent the message.
func (v *verifiedContent) Sender() Sender { return v.content.Content.Sender }

// Epoch is the epoch in which it was sent.
func (v *verifiedContent) Epoch() uint64 { return v.content.Content.Epoch }

// AuthenticatedData came with the message, signed and in the clear.
func (v *verifiedContent) AuthenticatedData() []byte { return v.content.Content.AuthenticatedData }

func (v *verifiedContent) verified() {}

// An ApplicationMessage is data that a member sent.
type ApplicationMessage struct {
	verifiedContent
	Generation uint32 // in the sender's application ratchet
}

// Data returns what was sent.
func (m *ApplicationMessage) Data() []byte { return m.content.Content.ApplicationData }

// A VerifiedProposal was sent by whom it says. It takes effect if it is kept
// and a commit refers to it.
type VerifiedProposal struct {
	verifiedContent
	ref []byte
}

// Proposal returns the proposal. It is read-only.
func (p *VerifiedProposal) Proposal() Proposal { return p.content.Content.Proposal }

// Ref is the ProposalRef by which commits name it.
func (p *VerifiedProposal) Ref() []byte { return bytes.Clone(p.ref) }

// A VerifiedCommit was sent by whom it says; Stage works out what it does.
type VerifiedCommit struct{ verifiedContent }

// Commit returns the commit. It is read-only.
func (c *VerifiedCommit) Commit() *Commit { return c.content.Content.Commit }

// Verify opens a message to the group and checks who sent it. The key of a
// private message is used up, so the group should be saved afterwards.
//
// A message that this client sent itself gives ErrOwnMessage; if it is the
// pending commit, the caller knows that it was accepted and calls
// MergePending.
func (g *Group) Verify(m *Message) (Verified, error) {
	if g.removed {
		return nil, ErrInactive
	}
	switch {
	case m.PublicMessage != nil:
		return g.verifyPublic(m.PublicMessage)
	case m.PrivateMessage != nil:
		return g.verifyPrivate(m.PrivateMessage)
	}
	return nil, fmt.Errorf("%w: wire format 0x%04x is not a message to a group", ErrUnsupported, uint16(m.WireFormat))
}

func (g *Group) verifyPublic(m *PublicMessage) (Verified, error) {
	if m.Content.Sender == memberSender(g.keys.index) && bytes.Equal(m.Content.GroupID, g.public.context.GroupID) {
		return nil, ErrOwnMessage
	}
	a, err := g.public.openPublic(m, g.secrets.membershipKey)
	if err != nil {
		return nil, err
	}
	return g.classify(a, g.public, 0)
}

// classify gives a verified message its type.
func (g *Group) classify(a *AuthenticatedContent, base *publicState, generation uint32) (Verified, error) {
	c := &a.Content
	if h := g.hooks.authenticatedData; h != nil && base != nil {
		if err := h(&base.context, c.AuthenticatedData); err != nil {
			return nil, brokenBy(RuleFrameAuthenticatedData, err, "authenticated_data")
		}
	}
	v := verifiedContent{a, base}
	switch {
	case c.ContentType == ContentApplication:
		return &ApplicationMessage{v, generation}, nil
	case c.ContentType == ContentProposal && c.Sender.Type != SenderNewMemberCommit:
		return &VerifiedProposal{v, a.proposalRef(g.public.suite)}, nil
	case c.ContentType == ContentCommit && (c.Sender.Type == SenderMember || c.Sender.Type == SenderNewMemberCommit):
		return &VerifiedCommit{v}, nil
	}
	return nil, broken(RuleFrameSender, "sender type %d sent content type %d", c.Sender.Type, c.ContentType)
}

func (g *Group) verifyPrivate(m *PrivateMessage) (Verified, error) {
	if !bytes.Equal(m.GroupID, g.public.context.GroupID) {
		return nil, ErrWrongGroup
	}
	e := g.privateEpoch(m)
	if e == nil {
		return nil, fmt.Errorf("%w: %d, the group is in %d", ErrWrongEpoch, m.Epoch, g.public.context.Epoch)
	}
	a, generation, err := e.open(g, m)
	if err != nil {
		return nil, err
	}
	return g.classify(a, e.base, generation)
}

// An openEpoch is what decrypts the messages of one epoch.
type openEpoch struct {
	base       *publicState // nil for a past epoch
	raw        []byte
	senderData []byte
	messages   *secretTree
	key        func(LeafIndex) []byte // signature key, nil if blank
}

// privateEpoch finds the epoch of a message: the current one, or for
// application data one of the last ones.
func (g *Group) privateEpoch(m *PrivateMessage) *openEpoch {
	if m.Epoch == g.public.context.Epoch {
		return &openEpoch{g.public, g.public.raw, g.secrets.senderData, g.messages, g.signatureKey}
	}
	if m.ContentType != ContentApplication {
		return nil
	}
	for _, p := range g.past {
		if p.context.Epoch == m.Epoch {
			return &openEpoch{nil, p.raw, p.senderData, p.messages, func(l LeafIndex) []byte {
				if key, changed := p.keys[l]; changed {
					return key
				}
				return g.signatureKey(l)
			}}
		}
	}
	return nil
}

func (g *Group) signatureKey(l LeafIndex) []byte {
	if leaf := g.public.tree.leaf(l); leaf != nil {
		return leaf.SignatureKey
	}
	return nil
}

// open decrypts a message and verifies its signature. The message key is
// erased only if both succeed: what cannot be read costs nobody a key.
func (e *openEpoch) open(g *Group, m *PrivateMessage) (*AuthenticatedContent, uint32, error) {
	s := g.public.suite
	d, err := s.openSenderData(e.senderData, m)
	if err != nil {
		return nil, 0, err
	}
	if d.leaf == g.keys.index {
		return nil, 0, ErrOwnMessage
	}
	key := e.key(d.leaf)
	if key == nil {
		return nil, 0, broken(RuleFrameSenderData, "leaf %d is blank", d.leaf)
	}
	r, err := e.messages.ratchet(d.leaf, m.ContentType)
	if err != nil {
		return nil, 0, err
	}
	k, err := r.find(s, d.generation, g.client.ratchetLimits())
	if err != nil {
		return nil, 0, err
	}
	a, err := s.openContent(m, k, d)
	if err != nil {
		return nil, 0, err
	}
	if err := a.verify(s, key, e.raw); err != nil {
		return nil, 0, err
	}
	r.erase(d.generation)
	return a, d.generation, nil
}

var errTooManyProposals = errors.New("mls: too many proposals in this epoch")

// Keep validates a proposal by itself and keeps it until the epoch ends, so
// that commits can refer to it.
func (g *Group) Keep(p *VerifiedProposal) error {
	if p.base != g.public {
		return ErrStale
	}
	if err := g.validateProposal(&p.content.Content); err != nil {
		return err
	}
	return g.keep(p.content, p.ref)
}

func (g *Group) keep(content *AuthenticatedContent, ref []byte) error {
	if g.byRef[string(ref)] != nil {
		return nil
	}
	if len(g.proposals) >= g.client.cfg.Limits.MaxProposals {
		return errTooManyProposals
	}
	kept := &keptProposal{content, ref}
	g.proposals = append(g.proposals, kept)
	g.byRef[string(ref)] = kept
	return nil
}

// validateProposal checks what section 12.1 says of one proposal. Signatures
// in it are not verified again when it is committed.
func (g *Group) validateProposal(c *FramedContent) error {
	items := []proposalItem{{proposal: c.Proposal, sender: c.Sender}}
	ch := &change{base: g.public, rules: g.listRules(g.client.receiving()), items: items, extensions: g.public.context.Extensions}
	var err error
	if ch.required, err = ch.extensions.RequiredCapabilities(); err != nil {
		return err
	}
	switch p := c.Proposal.(type) {
	case *Add:
		return ch.verifyAdd(p, false)
	case *Update:
		if c.Sender.Type != SenderMember {
			return broken(RuleUpdateSender, "Update from sender type %d", c.Sender.Type)
		}
		return ch.verifyUpdate(p, LeafIndex(c.Sender.Index), false)
	case *Remove:
		if g.public.tree.leaf(p.Removed) == nil {
			return broken(RuleRemoveTarget, "leaf %d is blank", p.Removed)
		}
	case *PreSharedKey:
		return validatePSK(g.public.suite, &p.PSK, 0)
	case *ReInit:
		if p.Version < g.public.context.Version {
			return broken(RuleReInitVersion, "ReInit to version %d", p.Version)
		}
	case *ExternalInit:
		return broken(RuleListExternalInit, "ExternalInit as a proposal of its own")
	case *GroupContextExtensions:
		return p.Extensions.checkKnown()
	}
	return nil
}

// ClearProposals forgets the kept proposals of this epoch. A commit of
// another member that refers to one of them can then not be processed.
func (g *Group) ClearProposals() {
	g.proposals, g.byRef = nil, map[string]*keptProposal{}
}

// PendingProposals lists the proposals that the next commit covers.
func (g *Group) PendingProposals() []*VerifiedProposal {
	out := make([]*VerifiedProposal, len(g.proposals))
	for i, k := range g.proposals {
		out[i] = &VerifiedProposal{verifiedContent{k.content, g.public}, k.ref}
	}
	return out
}

func (g *Group) listRules(leaf leafRules) listRules {
	return listRules{leaf: leaf, maxMembers: g.client.cfg.Limits.MaxMembers, hooks: &g.hooks}
}
