package mls

import (
	"bytes"
	"context"
	"crypto"
	"slices"
)

// A StagedCommit is a commit whose effect is known and checked, and that has
// not happened yet. The application looks at it, and merges it or drops it.
type StagedCommit struct {
	change  *change
	content *AuthenticatedContent
	next    *publicState

	keys        *ownKeys // nil if this client is removed
	secrets     *epochSecrets
	signer      crypto.Signer
	selfRemoved bool
	info        *GroupInfo // of the new epoch, if one was checked
}

// Epoch is the epoch that the commit begins.
func (s *StagedCommit) Epoch() uint64 { return s.next.context.Epoch }

// Sender made the commit; External reports whether it joins by it.
func (s *StagedCommit) Sender() Sender { return s.content.Content.Sender }

// External reports whether the commit is an external one.
func (s *StagedCommit) External() bool { return s.change.external }

// Committer is the committer's leaf in the new epoch. Old is nil for an
// external commit that replaces no leaf, New if the commit has no path.
func (s *StagedCommit) Committer() Replaced {
	r := Replaced{s.change.committer, s.change.oldCommitter, s.change.newCommitter}
	if s.change.external {
		r.Old = s.change.resync
	}
	return r
}

// Before returns a leaf of the epoch that the commit ends, or nil if it is
// blank or there is none.
func (s *StagedCommit) Before(l LeafIndex) *LeafNode { return s.change.base.tree.leaf(l) }

// A Replaced leaf is read-only, like all leaves.
type Replaced struct {
	Leaf     LeafIndex
	Old, New *LeafNode
}

// Added lists the members that Add proposals bring.
func (s *StagedCommit) Added() []Member {
	out := make([]Member, len(s.change.added))
	for i, a := range s.change.added {
		out[i] = Member{a.leaf, a.keyPackage.LeafNode}
	}
	return out
}

// Removed lists the members that leave.
func (s *StagedCommit) Removed() []Member {
	out := make([]Member, len(s.change.removed))
	for i, r := range s.change.removed {
		out[i] = Member{r.leaf, r.node}
	}
	return out
}

// Updated lists the leaves that Update proposals replace.
func (s *StagedCommit) Updated() []Replaced {
	out := make([]Replaced, len(s.change.updated))
	for i, u := range s.change.updated {
		out[i] = Replaced{u.leaf, u.old, u.new}
	}
	return out
}

// Extensions are the GroupContext extensions before and after.
func (s *StagedCommit) Extensions() (before, after Extensions) {
	return s.change.base.context.Extensions, s.next.context.Extensions
}

// PSKs lists the pre-shared keys that the commit injects.
func (s *StagedCommit) PSKs() []PreSharedKeyID { return slices.Clone(s.change.psks) }

// ReInit is the proposal that closes the group, or nil.
func (s *StagedCommit) ReInit() *ReInit { return s.change.reinit }

// SelfRemoved reports whether the commit removes this client.
func (s *StagedCommit) SelfRemoved() bool { return s.selfRemoved }

// Context is the GroupContext of the new epoch.
func (s *StagedCommit) Context() GroupContext { return s.next.context }

// RatchetTree is the encoded tree of the new epoch, as in the ratchet_tree
// extension, for those whom a commit of our own adds.
func (s *StagedCommit) RatchetTree() []byte { return s.next.tree.bytes() }

// EpochAuthenticator is that of the new epoch (section 8.7), or nil if the
// commit removes this client.
func (s *StagedCommit) EpochAuthenticator() []byte {
	if s.secrets == nil {
		return nil
	}
	return bytes.Clone(s.secrets.epochAuthenticator)
}

// A StagedProposal is one proposal of a commit and who made it.
type StagedProposal struct {
	Proposal    Proposal
	Sender      Sender
	ByReference bool
}

// Proposals lists all proposals in the order of the commit.
func (s *StagedCommit) Proposals() []StagedProposal {
	return stagedProposals(s.change.items)
}

func stagedProposals(items []proposalItem) []StagedProposal {
	out := make([]StagedProposal, len(items))
	for i, it := range items {
		out[i] = StagedProposal{it.proposal, it.sender, it.ref != nil}
	}
	return out
}

// ComponentChanges lists what AppDataUpdates change, sorted by component. The
// difference that a GroupContextExtensions proposal makes to the dictionary is
// not among them; see Extensions.
func (s *StagedCommit) ComponentChanges() []ComponentChange { return slices.Clone(s.change.components) }

// Ephemerals lists the data of AppEphemerals, sorted by component and then in
// the order of the commit.
func (s *StagedCommit) Ephemerals() []ComponentInput { return slices.Clone(s.change.ephemerals) }

// Stage works out what a commit does (section 12.4.2). The group is left as
// it is.
func (g *Group) Stage(ctx context.Context, v *VerifiedCommit) (*StagedCommit, error) {
	if v.base != g.public {
		return nil, ErrStale
	}
	if g.reinit != nil {
		return nil, ErrReInitialized
	}
	s, steps, err := g.stagePublic(v.content)
	if err != nil {
		return nil, err
	}
	if err := g.client.judgeChange(ctx, s.change); err != nil {
		return nil, err
	}
	if s.selfRemoved {
		s.next.confirm(v.content.Auth.ConfirmationTag)
		return s, nil
	}
	return s, g.stageSecrets(ctx, s, steps)
}

// stagePublic applies a commit to the public state.
func (g *Group) stagePublic(a *AuthenticatedContent) (*StagedCommit, []pathStep, error) {
	commit := a.Content.Commit
	items, err := resolve(commit, a.Content.Sender, g.byRef)
	if err != nil {
		return nil, nil, err
	}
	rules := g.listRules(g.client.receiving())
	rules.leaving = slices.ContainsFunc(items, func(it proposalItem) bool {
		l, ok := it.removes()
		return ok && l == g.keys.index
	})
	c, steps, err := g.public.follow(items, a.Content.Sender, commit.Path, rules)
	if err != nil {
		return nil, nil, err
	}
	s := &StagedCommit{change: c, content: a, next: c.finish(a), signer: g.signer}
	s.next.raw = s.next.context.bytes()
	s.selfRemoved = slices.ContainsFunc(c.removed, func(r removedMember) bool { return r.leaf == g.keys.index })
	return s, steps, nil
}

// follow applies proposals and the path of a received commit.
func (p *publicState) follow(items []proposalItem, from Sender, path *UpdatePath, rules listRules) (*change, []pathStep, error) {
	c, err := p.apply(items, from, rules)
	if err != nil {
		return nil, nil, err
	}
	if path == nil {
		if c.pathRequired() {
			return nil, nil, broken(RuleCommitPathRequired, "commit has no path")
		}
		c.place()
		return c, nil, c.checkGroup()
	}
	steps, err := c.mergePath(path)
	if err != nil {
		return nil, nil, err
	}
	return c, steps, c.checkGroup()
}

// resolve finds the proposals of a commit (section 12.4).
func resolve(commit *Commit, from Sender, byRef map[string]*keptProposal) ([]proposalItem, error) {
	items := make([]proposalItem, len(commit.Proposals))
	for i, p := range commit.Proposals {
		if p.Proposal != nil {
			items[i] = proposalItem{proposal: p.Proposal, sender: from}
			continue
		}
		kept := byRef[string(p.Reference)]
		if kept == nil {
			return nil, brokenBy(RuleCommitUnknownRef, ErrMissingPropose, "reference %x", p.Reference)
		}
		items[i] = kept.item()
	}
	return items, nil
}

func (k *keptProposal) item() proposalItem {
	c := &k.content.Content
	return proposalItem{proposal: c.Proposal, sender: c.Sender, ref: k.ref, verified: true}
}

// judgeChange asks about every leaf that enters the tree.
func (c *Client) judgeChange(ctx context.Context, ch *change) error {
	return ch.judge(ctx, c.cfg.Judge)
}

func (ch *change) judge(ctx context.Context, f JudgeFunc) error {
	ask := func(l LeafIndex, leaf, old *LeafNode) error {
		return f.judge(ctx, &Judgement{GroupID: ch.base.context.GroupID, Leaf: leaf, Old: old, Index: l})
	}
	for _, a := range ch.added {
		if err := ask(a.leaf, a.keyPackage.LeafNode, nil); err != nil {
			return err
		}
	}
	for _, u := range ch.updated {
		if err := ask(u.leaf, u.new, u.old); err != nil {
			return err
		}
	}
	if ch.newCommitter == nil {
		return nil
	}
	old := ch.oldCommitter
	if ch.external {
		old = ch.resync
	}
	return ask(ch.committer, ch.newCommitter, old)
}

// stageSecrets derives the new epoch's secrets from a received commit.
func (g *Group) stageSecrets(ctx context.Context, s *StagedCommit, steps []pathStep) error {
	suite, c := g.public.suite, s.change
	keys := g.keysAfter(s)
	commitSecret := suite.zero()
	if path := s.content.Content.Commit.Path; path != nil {
		provisional := c.provisional()
		var err error
		keys, commitSecret, err = decryptPath(suite, keys, c.committer, path, steps, encode(&provisional), c.addedLeaves)
		if err != nil {
			return err
		}
	}
	init := g.secrets.init
	if c.externalInit != nil {
		var err error
		if init, err = suite.receiveExternalInit(c.externalInit.KEMOutput, g.secrets.external); err != nil {
			return err
		}
	}
	psks, err := g.lookupPSKs(ctx, c.psks)
	if err != nil {
		return err
	}
	s.keys = keys
	s.secrets = suite.deriveEpoch(suite.joinerSecret(init, commitSecret, s.next.raw), suite.pskSecret(psks), s.next.raw)
	return s.checkTag(s.content.Auth.ConfirmationTag)
}

func (s *StagedCommit) checkTag(tag []byte) error {
	if !s.next.suite.verifyMAC(s.secrets.confirmationKey, s.next.context.ConfirmedTranscriptHash, tag) {
		return brokenBy(RuleCommitConfirmation, ErrBadMAC, "confirmation_tag")
	}
	s.next.confirm(tag)
	return nil
}

// keysAfter are our keys once our own Update, if it is committed, took effect.
func (g *Group) keysAfter(s *StagedCommit) *ownKeys {
	keys := g.keys.clone()
	for _, u := range s.change.updated {
		if own, ok := g.ownUpdates[string(u.new.EncryptionKey)]; ok && u.leaf == keys.index {
			keys.leaf, keys.parents = own.pair, map[NodeIndex]keyPair{}
			s.signer = own.signer
		}
	}
	return keys
}

// lookupPSKs finds the secrets of a commit's PSKs (section 8.4).
func (g *Group) lookupPSKs(ctx context.Context, ids []PreSharedKeyID) ([]psk, error) {
	psks := make([]psk, len(ids))
	for i := range ids {
		secret, err := g.lookupPSK(ctx, &ids[i])
		if err != nil {
			return nil, brokenBy(RuleCommitPSKAvailable, err, "PSK %d", i)
		}
		psks[i] = psk{ids[i], secret}
	}
	return psks, nil
}

func (g *Group) lookupPSK(ctx context.Context, id *PreSharedKeyID) ([]byte, error) {
	if id.Type == PSKResumption && bytes.Equal(id.GroupID, g.public.context.GroupID) {
		if secret := g.resumption[id.Epoch]; secret != nil {
			return secret, nil
		}
	}
	if g.parent != nil && id.Type == PSKResumption && bytes.Equal(id.GroupID, g.parent.public.context.GroupID) {
		return g.parent.lookupPSK(ctx, id)
	}
	return g.client.lookupPSK(ctx, id)
}

// lookupPSK finds an external PSK, or the resumption PSK of a stored group.
func (c *Client) lookupPSK(ctx context.Context, id *PreSharedKeyID) ([]byte, error) {
	switch {
	case id.Type == PSKExternal && c.cfg.PSK != nil:
		return c.cfg.PSK(ctx, id.ID)
	case id.Type == PSKApplication && c.cfg.ComponentPSK != nil:
		return c.cfg.ComponentPSK(ctx, id.Component, id.ID)
	case id.Type == PSKResumption && c.cfg.Storage != nil:
		other, err := c.LoadGroup(ctx, id.GroupID)
		if err != nil {
			return nil, err
		}
		if secret := other.resumption[id.Epoch]; secret != nil {
			return secret, nil
		}
	}
	return nil, ErrUnknownPSK
}

// Merge enters the epoch of a staged commit and saves the group. A pending
// commit of this client is dropped: it lost.
func (g *Group) Merge(ctx context.Context, s *StagedCommit) error {
	if s.change.base != g.public {
		return ErrStale
	}
	if s.selfRemoved {
		g.leave(s)
		return g.Save(ctx)
	}
	g.keepPast(s.change)
	s.next.census = s.next.census.absorb()
	g.public, g.keys, g.signer = s.next, s.keys, s.signer
	g.reinit = s.change.reinit
	g.forgetParents()
	g.enter(s.secrets)
	return g.Save(ctx)
}

// leave ends membership: the secrets are dropped.
func (g *Group) leave(s *StagedCommit) {
	s.next.census = s.next.census.absorb()
	g.public, g.removed, g.pending = s.next, true, nil
	g.keys = &ownKeys{g.keys.index, keyPair{}, map[NodeIndex]keyPair{}}
	g.secrets, g.past, g.exports = &epochSecrets{}, nil, &secretTree{suite: g.public.suite, size: exporterSize}
	g.messages = &secretTree{suite: g.public.suite, size: 1, nodes: map[NodeIndex][]byte{}, ratchets: map[LeafIndex]*senderRatchets{}}
	g.resumption, g.ownUpdates = map[uint64][]byte{}, map[string]ownUpdate{}
	g.proposals, g.byRef = nil, map[string]*keptProposal{}
}

// forgetParents drops private keys of nodes that have been blanked.
func (g *Group) forgetParents() {
	for x, pair := range g.keys.parents {
		n := g.public.tree.at(x)
		if n == nil || n.parent == nil || !bytes.Equal(n.parent.EncryptionKey, pair.public) {
			delete(g.keys.parents, x)
		}
	}
}

// keepPast keeps what reads late messages of the epoch that ends, and notes
// which leaves change.
func (g *Group) keepPast(c *change) {
	ctx := g.public.context
	p := &pastEpoch{ctx, g.public.raw, g.secrets.senderData, g.messages, map[LeafIndex][]byte{}}
	g.past = append([]*pastEpoch{p}, g.past...)
	if n := g.client.cfg.Limits.PastEpochs; len(g.past) > n {
		g.past = g.past[:n]
	}
	for l := range c.touched() {
		for _, past := range g.past {
			if _, noted := past.keys[l]; !noted {
				past.keys[l] = g.signatureKey(l)
			}
		}
	}
}

// touched yields every leaf that the commit changes.
func (c *change) touched() map[LeafIndex]bool {
	set := map[LeafIndex]bool{c.committer: true}
	for _, a := range c.added {
		set[a.leaf] = true
	}
	for _, r := range c.removed {
		set[r.leaf] = true
	}
	for _, u := range c.updated {
		set[u.leaf] = true
	}
	return set
}
