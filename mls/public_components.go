package mls

// CheckComponents reports whether an AppDataUpdate or AppEphemeral can be
// committed together with those that were kept before it. A service that
// orders proposals asks it before it takes one, so that no member can fill the
// epoch with proposals that everybody must leave out. Keep does not ask, since
// a commit need not refer to all proposals.
func (p *PublicGroup) CheckComponents(v *VerifiedProposal) error {
	if v.base != p.state() {
		return ErrStale
	}
	it := (&keptProposal{v.content, v.ref}).item()
	id, ok := it.component()
	if !ok {
		return nil
	}
	var items []proposalItem
	for _, k := range p.proposals {
		kept := k.item()
		if of, ok := kept.component(); ok && of == id {
			items = append(items, kept)
		}
	}
	c := &change{base: v.base, rules: p.listRules(), from: it.sender, items: append(items, it), extensions: v.base.context.Extensions}
	return c.applyComponents()
}
