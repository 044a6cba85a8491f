package mls

import (
	"context"
	"errors"
	"math"
)

// Send encrypts application data to the group (section 15).
func (g *Group) Send(ctx context.Context, data, authenticatedData []byte) ([]byte, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	if len(g.proposals) > 0 && !g.client.cfg.SendDespiteProposals {
		return nil, ErrProposals
	}
	if err := g.checkContent(data); err != nil {
		return nil, err
	}
	a, err := g.sign(ctx, WirePrivateMessage, authenticatedData, FramedContent{ContentType: ContentApplication, ApplicationData: data})
	if err != nil {
		return nil, err
	}
	return g.protect(ctx, a)
}

// Propose sends a proposal, public or private, and keeps it for a commit. For
// an Update see ProposeUpdate.
func (g *Group) Propose(ctx context.Context, p Proposal, opts ProposeOptions) ([]byte, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	if opts.WireFormat == 0 {
		opts.WireFormat = WirePrivateMessage
		if p.ProposalType() == ProposalSelfRemove {
			opts.WireFormat = WirePublicMessage
		}
	}
	a, err := g.sign(ctx, opts.WireFormat, opts.AuthenticatedData, FramedContent{ContentType: ContentProposal, Proposal: p})
	if err != nil {
		return nil, err
	}
	if err := g.validateOwn(a); err != nil {
		return nil, err
	}
	if err := g.checkProposed(p); err != nil {
		return nil, err
	}
	out, err := g.protect(ctx, a)
	if err != nil {
		return nil, err
	}
	ref := a.proposalRef(g.public.suite)
	if err := g.keep(a, ref); err != nil {
		return nil, err
	}
	if err := g.Save(ctx); err != nil {
		g.unkeep(ref)
		return nil, err
	}
	return out, nil
}

// checkProposed refuses to propose a leaf that the group as it is would
// refuse.
func (g *Group) checkProposed(p Proposal) error {
	var leaf *LeafNode
	switch p := p.(type) {
	case *Add:
		leaf = p.KeyPackage.LeafNode
	case *Update:
		leaf = p.LeafNode
	default:
		return nil
	}
	ext := g.public.context.Extensions
	required, err := ext.RequiredCapabilities()
	if err != nil {
		return err
	}
	if err := leaf.meets(required, ext); err != nil {
		return err
	}
	needs, err := ext.groupNeeds()
	if err != nil {
		return err
	}
	return needs.metBy(leaf)
}

// ProposeOptions vary how a proposal is sent.
type ProposeOptions struct {
	WireFormat        WireFormat // WirePrivateMessage if zero
	AuthenticatedData []byte
}

// ProposeUpdate proposes a new leaf for this client (section 12.1.2). Its
// private key is kept until the epoch ends.
func (g *Group) ProposeUpdate(ctx context.Context, ch *LeafChange, opts ProposeOptions) ([]byte, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	pair, err := g.client.keyPair(nil)
	if err != nil {
		return nil, err
	}
	leaf, signer, err := g.successor(g.public.tree.leaf(g.keys.index), ch, LeafFromUpdate, pair.public)
	if err != nil {
		return nil, err
	}
	if err := leaf.sign(ctx, g.public.suite, signer, g.public.context.GroupID, g.keys.index); err != nil {
		return nil, err
	}
	g.ownUpdates[string(pair.public)] = ownUpdate{pair, signer}
	out, err := g.Propose(ctx, &Update{leaf}, opts)
	if err != nil {
		delete(g.ownUpdates, string(pair.public))
	}
	return out, err
}

// ProposePSK proposes to inject an external PSK.
func (g *Group) ProposePSK(ctx context.Context, id []byte, opts ProposeOptions) ([]byte, error) {
	return g.Propose(ctx, g.ExternalPSK(id), opts)
}

// ExternalPSK makes a proposal for an external PSK, with a fresh nonce.
func (g *Group) ExternalPSK(id []byte) *PreSharedKey {
	return &PreSharedKey{PreSharedKeyID{Type: PSKExternal, ID: id, Nonce: random(g.public.suite.nh)}}
}

// ApplicationPSK makes a proposal for a pre-shared key of a component, with a
// fresh nonce.
func (g *Group) ApplicationPSK(component ComponentID, id []byte) *PreSharedKey {
	return &PreSharedKey{PreSharedKeyID{Type: PSKApplication, Component: component, ID: id, Nonce: random(g.public.suite.nh)}}
}

// ResumptionPSK makes a proposal for the resumption PSK of an epoch of this
// group, with a fresh nonce.
func (g *Group) ResumptionPSK(epoch uint64) *PreSharedKey {
	return &PreSharedKey{PreSharedKeyID{
		Type: PSKResumption, Usage: UsageApplication, GroupID: g.ID(), Epoch: epoch, Nonce: random(g.public.suite.nh),
	}}
}

// sign frames and signs a message of this member.
func (g *Group) sign(ctx context.Context, w WireFormat, authenticatedData []byte, c FramedContent) (*AuthenticatedContent, error) {
	if err := g.public.checkWireFormat(w); err != nil {
		return nil, err
	}
	authenticatedData, err := g.public.context.Extensions.outgoingAAD(authenticatedData)
	if err != nil {
		return nil, err
	}
	c.GroupID, c.Epoch = g.public.context.GroupID, g.public.context.Epoch
	c.Sender, c.AuthenticatedData = memberSender(g.keys.index), authenticatedData
	c.setBody()
	a := &AuthenticatedContent{WireFormat: w, Content: c}
	return a, a.sign(ctx, g.public.suite, g.signer, g.public.raw)
}

var errGenerations = errors.New("mls: the message keys of this epoch are used up; make a commit")

// ownKey takes the next key of an own ratchet. A block of generations is
// reserved in stored state before its first is used, so that a crash can skip
// generations and never repeat one.
func (g *Group) ownKey(ctx context.Context, t ContentType) (keyNonce, uint32, error) {
	r, err := g.messages.ratchet(g.keys.index, t)
	if err != nil {
		return keyNonce{}, 0, err
	}
	limit := &g.reserved.handshake
	if t == ContentApplication {
		limit = &g.reserved.application
	}
	if r.next >= math.MaxUint32-g.client.cfg.Limits.GenerationBlock {
		return keyNonce{}, 0, errGenerations
	}
	if r.next >= *limit {
		before := *limit
		*limit = r.next + g.client.cfg.Limits.GenerationBlock
		if err := g.Save(ctx); err != nil {
			*limit = before
			return keyNonce{}, 0, err
		}
	}
	generation := r.next
	return r.step(g.public.suite), generation, nil
}
