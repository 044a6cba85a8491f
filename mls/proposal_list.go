package mls

// validateList checks a list of proposals before it is applied (section
// 12.2). What needs the changed tree is checked while applying.
func (c *change) validateList(from Sender) error {
	v := listValidator{change: c, from: from, leaves: map[LeafIndex]bool{}, psks: map[string]bool{}}
	for i := range c.items {
		if err := v.item(&c.items[i]); err != nil {
			return err
		}
	}
	return v.whole()
}

// A listValidator remembers what earlier proposals of a list did.
type listValidator struct {
	*change
	from          Sender
	leaves        map[LeafIndex]bool
	psks          map[string]bool
	gces, removes int
}

func (v *listValidator) item(it *proposalItem) error {
	t := it.proposal.ProposalType()
	if v.external {
		if err := v.externalItem(it, t); err != nil {
			return err
		}
	}
	switch p := it.proposal.(type) {
	case *Update:
		return v.update(it)
	case *Remove:
		return v.remove(p)
	case *SelfRemove:
		return v.selfRemove(it)
	case *PreSharedKey:
		return v.psk(&p.PSK)
	case *ReInit:
		return v.reInit(p)
	case *ExternalInit:
		return v.externalInitItem(p)
	case *GroupContextExtensions:
		if v.gces++; v.gces > 1 {
			return broken(RuleListOneGCE, "two GroupContextExtensions proposals")
		}
	}
	return nil
}

// externalItem checks what an external commit may contain.
func (v *listValidator) externalItem(it *proposalItem, t ProposalType) error {
	traits := t.traits()
	if it.ref != nil && !traits.externalByRef {
		return broken(RuleExternalByValue, "external commit refers to a proposal of type 0x%04x", uint16(t))
	}
	if it.ref == nil && !traits.externalByValue {
		return broken(RuleExternalList, "external commit contains a proposal of type 0x%04x", uint16(t))
	}
	return nil
}

func (v *listValidator) update(it *proposalItem) error {
	if it.sender.Type != SenderMember {
		return broken(RuleUpdateSender, "Update from sender type %d", it.sender.Type)
	}
	l := LeafIndex(it.sender.Index)
	if it.sender == v.from {
		return broken(RuleListOwnUpdate, "the committer's own Update")
	}
	return v.touch(l)
}

func (v *listValidator) remove(p *Remove) error {
	if v.base.tree.leaf(p.Removed) == nil {
		return broken(RuleRemoveTarget, "leaf %d is blank", p.Removed)
	}
	if !v.external && p.Removed == v.committer {
		return broken(RuleListSelfRemove, "the committer removes itself")
	}
	if v.external {
		if v.removes++; v.removes > 1 {
			return broken(RuleExternalRemoveOnce, "external commit with two Removes")
		}
		v.resync = v.base.tree.leaf(p.Removed)
	}
	return v.touch(p.Removed)
}

func (v *listValidator) touch(l LeafIndex) error {
	if v.leaves[l] {
		return broken(RuleListSameLeaf, "two Updates or Removes of leaf %d", l)
	}
	v.leaves[l] = true
	return nil
}

func (v *listValidator) psk(id *PreSharedKeyID) error {
	if err := validatePSK(v.base.suite, id, v.rules.pskUsage); err != nil {
		return err
	}
	key := string(encode(id))
	if v.psks[key] || len(v.psks) == maxPSKs {
		return broken(RuleListSamePSK, "one PreSharedKeyID twice, or too many")
	}
	v.psks[key] = true
	v.change.psks = append(v.change.psks, *id)
	return nil
}

// validatePSK checks a PreSharedKeyID (section 12.1.4). usage is that of the
// group being made, or zero.
func validatePSK(s *suite, id *PreSharedKeyID, usage ResumptionUsage) error {
	if id.Type == PSKResumption && id.Usage != UsageApplication && id.Usage != usage {
		return broken(RulePSKUsage, "resumption PSK with usage %d", id.Usage)
	}
	if len(id.Nonce) != s.nh {
		return broken(RulePSKNonce, "psk_nonce has %d octets, want %d", len(id.Nonce), s.nh)
	}
	return nil
}

func (v *listValidator) reInit(p *ReInit) error {
	if len(v.items) > 1 {
		return broken(RuleListReInitAlone, "ReInit together with %d other proposals", len(v.items)-1)
	}
	if p.Version < v.base.context.Version {
		return broken(RuleReInitVersion, "ReInit to version %d", p.Version)
	}
	v.reinit = p
	return nil
}

func (v *listValidator) externalInitItem(p *ExternalInit) error {
	if !v.external {
		return broken(RuleListExternalInit, "ExternalInit in a regular commit")
	}
	if v.externalInit != nil {
		return broken(RuleExternalInitOnce, "two ExternalInits")
	}
	v.externalInit = p
	return nil
}

// whole checks what needs the complete list.
func (v *listValidator) whole() error {
	if v.external && v.externalInit == nil {
		return broken(RuleExternalInitOnce, "external commit without ExternalInit")
	}
	for i := range v.items {
		if t := v.items[i].proposal.ProposalType(); !t.isDefault() {
			if err := v.supported(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// supported checks that every member who will process the commit supports a
// non-default proposal type: those removed by it need not.
func (v *listValidator) supported(t ProposalType) error {
	supporting := v.base.census.supporting(capProposal, uint16(t))
	members := v.base.tree.members()
	for i := range v.items {
		l, ok := v.items[i].removes()
		if !ok {
			continue
		}
		members--
		if v.base.tree.leaf(l).Capabilities.supportsProposal(t) {
			supporting--
		}
	}
	if supporting != members {
		return broken(RuleListUnsupported, "proposal type 0x%04x is not supported by all members", uint16(t))
	}
	return nil
}
