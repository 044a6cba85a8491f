package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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

	framing *ApplicationFraming
}

// open checks and decodes what the GroupContext of the message's epoch makes
// of authenticated_data and application_data.
func (m *ApplicationMessage) open(ext Extensions) error {
	if m.base == nil { // otherwise classify has checked it
		if err := ext.checkAAD(m.content.Content.AuthenticatedData); err != nil {
			return err
		}
	}
	media, err := ext.ContentMediaTypes()
	if err != nil {
		return err
	}
	m.framing, err = openFraming(media, m.content.Content.ApplicationData)
	return err
}

// Content returns what was sent with its media type, or nil if the group does
// not frame application data.
func (m *ApplicationMessage) Content() *ApplicationFraming { return m.framing }

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

// Message returns the PublicMessage in which the proposal came, for those who
// join by external commit; nil if it came in another form.
func (p *VerifiedProposal) Message() []byte {
	a := p.content
	if a.WireFormat != WirePublicMessage || a.Content.Sender.Type == SenderMember && a.tag == nil {
		return nil
	}
	return wrapMessage(WirePublicMessage, &PublicMessage{a.Content, a.Auth, a.tag})
}

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
	case m.SemiPrivateMessage != nil:
		return g.verifySemiPrivate(m.SemiPrivateMessage)
	}
	return nil, fmt.Errorf("%w: wire format 0x%04x is not a message to a group", ErrUnsupported, uint16(m.WireFormat))
}

func (g *Group) verifyPublic(m *PublicMessage) (Verified, error) {
	if m.Content.Sender == memberSender(g.keys.index) {
		return nil, g.ownMessage(m)
	}
	a, err := g.public.openPublic(m, g.secrets.membershipKey)
	if err != nil {
		return nil, err
	}
	return classify(g.public.suite, a, g.public, 0)
}

// ownMessage gives ErrOwnMessage for a message that has our membership tag,
// so that nobody outside the group can make us believe that we sent it.
func (g *Group) ownMessage(m *PublicMessage) error {
	if err := g.public.checkAddress(m.Content.GroupID, m.Content.Epoch); err != nil {
		return err
	}
	if _, err := m.open(g.public.suite, g.secrets.membershipKey, g.public.raw); err != nil {
		return err
	}
	return ErrOwnMessage
}

// classify gives a verified message its type.
func classify(s *suite, a *AuthenticatedContent, base *publicState, generation uint32) (Verified, error) {
	c := &a.Content
	if base != nil {
		if err := base.context.Extensions.checkAAD(c.AuthenticatedData); err != nil {
			return nil, err
		}
	}
	v := verifiedContent{a, base}
	switch {
	case c.ContentType == ContentApplication:
		return &ApplicationMessage{verifiedContent: v, Generation: generation}, nil
	case c.ContentType == ContentProposal && c.Sender.Type != SenderNewMemberCommit:
		return &VerifiedProposal{v, a.proposalRef(s)}, nil
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
	if e == nil && m.ContentType != ContentApplication {
		return nil, g.public.checkAddress(m.GroupID, m.Epoch)
	}
	if e == nil {
		return nil, fmt.Errorf("%w: %d, the group is in %d", ErrWrongEpoch, m.Epoch, g.public.context.Epoch)
	}
	a, generation, err := e.open(g, m)
	if err != nil {
		return nil, err
	}
	v, err := classify(g.public.suite, a, e.base, generation)
	if err != nil {
		return nil, err
	}
	if m, ok := v.(*ApplicationMessage); ok {
		err = m.open(e.extensions)
	}
	return v, err
}

// An openEpoch is what decrypts the messages of one epoch.
type openEpoch struct {
	base       *publicState // nil for a past epoch
	extensions Extensions   // of the GroupContext
	raw        []byte
	senderData []byte
	messages   *secretTree
	key        func(LeafIndex) []byte // signature key, nil if blank
}

// privateEpoch finds the epoch of a message: the current one, or for
// application data one of the last ones.
func (g *Group) privateEpoch(m *PrivateMessage) *openEpoch {
	if m.Epoch == g.public.context.Epoch {
		return &openEpoch{g.public, g.public.context.Extensions, g.public.raw, g.secrets.senderData, g.messages, g.signatureKey}
	}
	if m.ContentType != ContentApplication {
		return nil
	}
	for _, p := range g.past {
		if p.context.Epoch == m.Epoch {
			return &openEpoch{nil, p.context.Extensions, p.raw, p.senderData, p.messages, func(l LeafIndex) []byte {
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
	defer r.abandon()
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

// unkeep forgets a proposal that was not sent after all.
func (g *Group) unkeep(ref []byte) {
	delete(g.byRef, string(ref))
	g.proposals = slices.DeleteFunc(g.proposals, func(k *keptProposal) bool { return bytes.Equal(k.ref, ref) })
}

// validateProposal checks what section 12.1 says of one proposal. Signatures
// in it are not verified again when it is committed. Whether a leaf meets the
// GroupContext is not checked: a GroupContextExtensions proposal of the same
// commit may change that (section 12.3).
func (g *Group) validateProposal(c *FramedContent) error {
	return g.public.validateProposal(c, g.listRules(g.client.receiving()))
}

func (p *publicState) validateProposal(c *FramedContent, rules listRules) error {
	items := []proposalItem{{proposal: c.Proposal, sender: c.Sender}}
	ch := &change{base: p, rules: rules, from: c.Sender, items: items}
	switch v := c.Proposal.(type) {
	case *Add:
		return ch.verifyAdd(v, false)
	case *Update:
		if c.Sender.Type != SenderMember {
			return broken(RuleUpdateSender, "Update from sender type %d", c.Sender.Type)
		}
		return ch.verifyUpdate(v, LeafIndex(c.Sender.Index), false)
	case *Remove:
		if p.tree.leaf(v.Removed) == nil {
			return broken(RuleRemoveTarget, "leaf %d is blank", v.Removed)
		}
	case *PreSharedKey:
		return validatePSK(p.suite, &v.PSK, 0)
	case *ReInit:
		if v.Version < p.context.Version {
			return broken(RuleReInitVersion, "ReInit to version %d", v.Version)
		}
	case *ExternalInit:
		return broken(RuleListExternalInit, "ExternalInit as a proposal of its own")
	case *GroupContextExtensions:
		return ch.checkExtensions(v.Extensions)
	case *AppDataUpdate, *AppEphemeral:
		return ch.checkComponent(&items[0])
	case *SelfRemove:
		return p.checkSelfRemove(c.Sender)
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
	return pendingProposals(g.proposals, g.public)
}

func pendingProposals(kept []*keptProposal, base *publicState) []*VerifiedProposal {
	out := make([]*VerifiedProposal, len(kept))
	for i, k := range kept {
		out[i] = &VerifiedProposal{verifiedContent{k.content, base}, k.ref}
	}
	return out
}

func (g *Group) listRules(leaf leafRules) listRules {
	return listRules{leaf: leaf, maxMembers: g.client.cfg.Limits.MaxMembers, components: g.client.cfg.Components}
}
