package mls

// A picker chooses among the kept proposals of an epoch: a Remove is
// preferred to Updates of its leaf, a later Update to an earlier one, and
// anything to a ReInit (section 12.2). A SelfRemove is preferred to all of its
// leaf's other proposals.
type picker struct {
	g       *Group
	from    Sender
	chosen  []*keptProposal
	byLeaf  map[LeafIndex]int // index in chosen
	fixed   map[LeafIndex]bool
	clients map[string]bool
	psks    map[string]bool
	gce     bool
	reinit  *keptProposal
	values  int
}

func newPicker(g *Group, from Sender, values []Proposal) *picker {
	p := &picker{g: g, from: from, byLeaf: map[LeafIndex]int{}, fixed: map[LeafIndex]bool{},
		clients: map[string]bool{}, psks: map[string]bool{}, values: len(values)}
	for _, v := range values {
		switch v := v.(type) {
		case *Remove:
			p.fixed[v.Removed] = true
		case *Add:
			p.clients[string(v.KeyPackage.LeafNode.SignatureKey)] = true
		case *PreSharedKey:
			p.psks[string(encode(&v.PSK))] = true
		case *GroupContextExtensions:
			p.gce = true
		case *ReInit:
			p.reinit = new(keptProposal)
		}
	}
	return p
}

func (p *picker) consider(k *keptProposal) {
	c := &k.content.Content
	switch v := c.Proposal.(type) {
	case *Update:
		if c.Sender != p.from {
			p.leaf(LeafIndex(c.Sender.Index), k, false)
		}
	case *SelfRemove:
		if c.Sender != p.from {
			p.selfRemove(LeafIndex(c.Sender.Index), k)
		}
	case *Remove:
		if v.Removed != LeafIndex(p.from.Index) {
			p.leaf(v.Removed, k, true)
		}
	case *Add:
		if key := string(v.KeyPackage.LeafNode.SignatureKey); !p.clients[key] {
			p.clients[key] = true
			p.chosen = append(p.chosen, k)
		}
	case *PreSharedKey:
		if key := string(encode(&v.PSK)); !p.psks[key] {
			p.psks[key] = true
			p.chosen = append(p.chosen, k)
		}
	case *GroupContextExtensions:
		if !p.gce {
			p.gce = true
			p.chosen = append(p.chosen, k)
		}
	case *ReInit:
		if p.reinit == nil {
			p.reinit = k
		}
	default:
		p.chosen = append(p.chosen, k)
	}
}

// leaf takes an Update or a Remove of a leaf that no better one has.
func (p *picker) leaf(l LeafIndex, k *keptProposal, remove bool) {
	if p.fixed[l] {
		return
	}
	p.fixed[l] = remove
	if i, has := p.byLeaf[l]; has {
		p.chosen[i] = k
		return
	}
	p.byLeaf[l] = len(p.chosen)
	p.chosen = append(p.chosen, k)
}

// selfRemove takes the first SelfRemove of a leaf.
func (p *picker) selfRemove(l LeafIndex, k *keptProposal) {
	p.fixed[l] = true
	i, has := p.byLeaf[l]
	if !has {
		p.byLeaf[l] = len(p.chosen)
		p.chosen = append(p.chosen, k)
		return
	}
	if _, same := p.chosen[i].content.Content.Proposal.(*SelfRemove); !same {
		p.chosen[i] = k
	}
}

func (p *picker) items() []proposalItem {
	chosen := p.chosen
	if len(chosen)+p.values == 0 && p.reinit != nil {
		chosen = []*keptProposal{p.reinit}
	}
	items := make([]proposalItem, len(chosen))
	for i, k := range chosen {
		items[i] = k.item()
	}
	return items
}
