package mls

import (
	"context"
	"slices"
)

// ProposeSelfRemove proposes that others remove this member (section 5.3.1).
// Until a commit does, the member stays; ErrProposals keeps it from sending.
func (g *Group) ProposeSelfRemove(ctx context.Context, authenticatedData []byte) ([]byte, error) {
	return g.Propose(ctx, &SelfRemove{}, ProposeOptions{WireFormat: WirePublicMessage, AuthenticatedData: authenticatedData})
}

// removes gives the leaf that a Remove or SelfRemove removes.
func (it *proposalItem) removes() (LeafIndex, bool) {
	switch p := it.proposal.(type) {
	case *Remove:
		return p.Removed, true
	case *SelfRemove:
		return LeafIndex(it.sender.Index), true
	}
	return 0, false
}

// checkFraming checks how a proposal may be framed: a SelfRemove is public, so
// that external joiners can commit it.
func (a *AuthenticatedContent) checkFraming() error {
	if _, ok := a.Content.Proposal.(*SelfRemove); !ok {
		return nil
	}
	if a.WireFormat != WirePublicMessage || a.Content.Sender.Type != SenderMember {
		return broken(RuleSelfRemoveFraming, "SelfRemove has wire format 0x%04x and sender type %d", uint16(a.WireFormat), a.Content.Sender.Type)
	}
	return nil
}

// checkSelfRemove checks a SelfRemove by itself: all members support it.
func (p *publicState) checkSelfRemove(from Sender) error {
	if from.Type != SenderMember || p.tree.leaf(LeafIndex(from.Index)) == nil {
		return broken(RuleSelfRemoveFraming, "SelfRemove of no member")
	}
	if p.census.supporting(capProposal, uint16(ProposalSelfRemove)) != p.tree.members() {
		return broken(RuleListUnsupported, "not all members support SelfRemove")
	}
	return nil
}

// selfRemove checks a SelfRemove in a list.
func (v *listValidator) selfRemove(it *proposalItem) error {
	l := LeafIndex(it.sender.Index)
	switch {
	case it.ref == nil:
		return broken(RuleSelfRemoveByRef, "SelfRemove by value")
	case it.sender.Type != SenderMember || v.base.tree.leaf(l) == nil:
		return broken(RuleSelfRemoveFraming, "SelfRemove of no member")
	case it.sender == v.from:
		return broken(RuleSelfRemoveOwn, "the committer's own SelfRemove")
	}
	return v.touch(l)
}

// withoutSelfRemoved drops Removes by value of members whose SelfRemove waits:
// beside that, they would be invalid.
func (g *Group) withoutSelfRemoved(values []Proposal) []Proposal {
	return slices.DeleteFunc(slices.Clone(values), func(p Proposal) bool {
		r, ok := p.(*Remove)
		return ok && selfRemoving(g.proposals, memberSender(r.Removed))
	})
}

// selfRemoving reports whether a SelfRemove of a member is kept.
func selfRemoving(kept []*keptProposal, from Sender) bool {
	return slices.ContainsFunc(kept, func(k *keptProposal) bool {
		_, ok := k.content.Content.Proposal.(*SelfRemove)
		return ok && k.content.Content.Sender == from
	})
}

// agreeing drops kept proposals that components refuse.
func (g *Group) agreeing(items []proposalItem, from Sender) []proposalItem {
	if !slices.ContainsFunc(items, func(it proposalItem) bool { _, ok := it.component(); return ok && it.ref != nil }) {
		return items
	}
	c := &change{base: g.public, rules: g.listRules(leafRules{}), from: from, items: items, extensions: g.public.context.Extensions}
	for i := range items {
		if p, ok := items[i].proposal.(*GroupContextExtensions); ok {
			c.extensions = p.Extensions
		}
	}
	return c.agreeing()
}

// validateOwn checks a proposal that is about to be sent.
func (g *Group) validateOwn(a *AuthenticatedContent) error {
	if err := a.checkFraming(); err != nil {
		return err
	}
	if _, ok := a.Content.Proposal.(*SelfRemove); ok && selfRemoving(g.proposals, a.Content.Sender) {
		return broken(RuleSelfRemoveOnce, "a SelfRemove was proposed in this epoch already")
	}
	return g.validateProposal(&a.Content)
}

// keepPending verifies pending proposals for an external commit, as far as a
// newcomer can, and keeps those that it may refer to (section 5.3.1).
func (g *Group) keepPending(messages [][]byte) error {
	g.byRef = map[string]*keptProposal{}
	for _, raw := range messages {
		a, err := g.public.openPending(raw)
		if err != nil {
			return err
		}
		if !a.Content.Proposal.ProposalType().traits().externalByRef {
			continue
		}
		err = g.validateProposal(&a.Content)
		if _, app := (&proposalItem{proposal: a.Content.Proposal}).component(); app && err != nil {
			continue // no commit could refer to it
		}
		if err != nil {
			return err
		}
		if err := g.keep(a, a.proposalRef(g.public.suite)); err != nil {
			return err
		}
	}
	return nil
}

func (p *publicState) openPending(raw []byte) (*AuthenticatedContent, error) {
	m, err := ParseMessage(raw)
	if err != nil {
		return nil, err
	}
	if m.PublicMessage == nil || m.PublicMessage.Content.Proposal == nil {
		return nil, broken(RuleExternalByValue, "pending message is no public proposal")
	}
	a, err := p.openPublic(m.PublicMessage, nil)
	if err != nil {
		return nil, err
	}
	return a, p.context.Extensions.checkAAD(a.Content.AuthenticatedData)
}
