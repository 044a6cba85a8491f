package mls

import (
	"bytes"
	"errors"
	"math"
	"slices"
)

// A publicState is what everybody who follows a group knows of an epoch. It
// is not changed: a commit makes a new one.
type publicState struct {
	suite           *suite
	context         GroupContext
	raw             []byte // encoding of context, of which a member needs much; nil where nobody is one
	tree            *ratchetTree
	census          *census
	interim         []byte // interim transcript hash
	confirmationTag []byte
}

var errLastEpoch = errors.New("mls: this is the last epoch that the group can have")

// A proposalItem is one proposal of a commit with its origin.
type proposalItem struct {
	proposal Proposal
	sender   Sender
	ref      []byte // nil if by value
	verified bool   // signatures inside were verified when it was received
}

// listRules are the parts of section 12.2 that depend on the receiver.
type listRules struct {
	leaf       leafRules
	pskUsage   ResumptionUsage // reinit or branch while such a group is made
	maxMembers int
	components Components
	leaving    bool // the commit removes the receiver, who need not know its components
}

// A change is the public effect of a commit in the making.
type change struct {
	base       *publicState
	rules      listRules
	from       Sender
	items      []proposalItem
	staged     []StagedProposal // items, as components see them
	tree       *ratchetTree
	census     *census
	extensions Extensions
	required   *RequiredCapabilities
	needs      *needs // what extensions require beyond that
	committer  LeafIndex
	external   bool
	resync     *LeafNode // the joiner's old leaf, in an external commit

	added        []addedMember
	addedLeaves  map[LeafIndex]bool
	updated      []replacedLeaf
	removed      []removedMember
	psks         []PreSharedKeyID
	reinit       *ReInit
	externalInit *ExternalInit
	oldCommitter *LeafNode
	newCommitter *LeafNode // with a path
	components   []ComponentChange
	ephemerals   []ComponentInput
}

type addedMember struct {
	leaf       LeafIndex
	keyPackage *KeyPackage
}

type removedMember struct {
	leaf LeafIndex
	node *LeafNode
}

type replacedLeaf struct {
	leaf     LeafIndex
	old, new *LeafNode
}

// apply validates a list of proposals (section 12.2) and applies it (section
// 12.3), up to but not including the path.
func (p *publicState) apply(items []proposalItem, from Sender, rules listRules) (*change, error) {
	c := &change{
		base: p, rules: rules, from: from, items: items, extensions: p.context.Extensions,
		committer: LeafIndex(from.Index), external: from.Type == SenderNewMemberCommit,
		addedLeaves: map[LeafIndex]bool{},
	}
	if p.context.Epoch == math.MaxUint64 {
		return nil, errLastEpoch
	}
	if err := c.validateList(from); err != nil {
		return nil, err
	}
	if err := c.applyExtensions(); err != nil {
		return nil, err
	}
	if err := c.verifyNewLeaves(); err != nil {
		return nil, err
	}
	c.tree, c.census = p.tree.fork(), newCensus(p.census)
	if err := c.applyLeaves(); err != nil {
		return nil, err
	}
	return c, nil
}

// applyExtensions works out the new GroupContext extensions first, since they
// govern the other proposals: what components make of theirs depends on
// nothing but the epoch that ends.
func (c *change) applyExtensions() error {
	for i := range c.items {
		if g, ok := c.items[i].proposal.(*GroupContextExtensions); ok {
			if err := c.checkExtensions(g.Extensions); err != nil {
				return err
			}
			c.extensions = g.Extensions
		}
	}
	if err := c.applyComponents(); err != nil {
		return err
	}
	return c.readRequirements()
}

func (c *change) checkExtensions(ext Extensions) error {
	if err := ext.checkKnown(); err != nil {
		return err
	}
	if err := ext.checkReceivers(c.base.suite); err != nil {
		return err
	}
	return c.checkDictionaryKept(ext)
}

func (c *change) readRequirements() (err error) {
	if c.required, err = c.extensions.RequiredCapabilities(); err != nil {
		return err
	}
	c.needs, err = c.extensions.groupNeeds()
	return err
}

// verifyNewLeaves checks KeyPackages and Update leaves, signatures on all
// cores.
func (c *change) verifyNewLeaves() error {
	return parallel(len(c.items), func(i int) error {
		switch p := c.items[i].proposal.(type) {
		case *Add:
			return c.verifyAdd(p, c.items[i].verified)
		case *Update:
			return c.verifyUpdate(p, LeafIndex(c.items[i].sender.Index), c.items[i].verified)
		}
		return nil
	})
}

func (c *change) verifyAdd(p *Add, verified bool) error {
	s := c.base.suite
	if err := p.KeyPackage.validateFields(s, c.rules.leaf); err != nil {
		return err
	}
	if err := c.meets(p.KeyPackage.LeafNode); err != nil || verified {
		return err
	}
	return p.KeyPackage.verifySignatures(s)
}

func (c *change) verifyUpdate(p *Update, l LeafIndex, verified bool) error {
	old := c.base.tree.leaf(l)
	if old == nil {
		return broken(RuleUpdateSender, "Update from leaf %d, which is blank", l)
	}
	if err := p.LeafNode.validateAlone(c.base.suite, LeafFromUpdate, c.rules.leaf); err != nil {
		return err
	}
	if bytes.Equal(old.EncryptionKey, p.LeafNode.EncryptionKey) {
		return broken(RuleLeafUpdateKey, "Update of leaf %d keeps its encryption_key", l)
	}
	if err := c.meets(p.LeafNode); err != nil || verified {
		return err
	}
	return p.LeafNode.verifySignature(c.base.suite, c.base.context.GroupID, l)
}

// meets checks a leaf against the new GroupContext.
func (c *change) meets(leaf *LeafNode) error {
	if err := leaf.meets(c.required, c.extensions); err != nil {
		return err
	}
	return c.needs.metBy(leaf)
}

// applyLeaves applies Updates, then SelfRemoves and Removes, then Adds. The
// keys of all old leaves are given up before new ones are taken, since Updates
// have no order.
func (c *change) applyLeaves() error {
	for i := range c.items {
		switch p := c.items[i].proposal.(type) {
		case *Update:
			l := LeafIndex(c.items[i].sender.Index)
			old := c.base.tree.leaf(l)
			c.updated = append(c.updated, replacedLeaf{l, old, p.LeafNode})
			c.leave(l, old)
		case *Remove, *SelfRemove:
			l, _ := c.items[i].removes()
			old := c.base.tree.leaf(l)
			c.removed = append(c.removed, removedMember{l, old})
			c.leave(l, old)
		}
	}
	for _, u := range c.updated {
		if err := c.census.addLeaf(u.new, u.leaf); err != nil {
			return err
		}
		c.tree.update(u.leaf, u.new)
	}
	for _, r := range c.removed {
		c.tree.change(r.leaf, nil, blankParent)
	}
	c.tree.truncate()
	return c.applyAdds()
}

// leave takes a leaf and the parents above it out of the census.
func (c *change) leave(l LeafIndex, old *LeafNode) {
	c.census.removeLeaf(old)
	c.blankAbove(l)
}

func (c *change) blankAbove(l LeafIndex) {
	n := c.tree.root
	for level := c.tree.size.height(); level > 0; level-- {
		if n.parent != nil {
			c.census.removeKey('e', n.parent.EncryptionKey)
		}
		if l>>(level-1)&1 == 0 {
			n = n.left
		} else {
			n = n.right
		}
	}
}

func (c *change) applyAdds() error {
	seen := map[string]bool{}
	for i := range c.items {
		p, ok := c.items[i].proposal.(*Add)
		if !ok {
			continue
		}
		leaf := p.KeyPackage.LeafNode
		key := string(leaf.SignatureKey)
		if seen[key] {
			return broken(RuleListSameClient, "two KeyPackages of the list have one signature_key")
		}
		seen[key] = true
		if c.census.hasKey('s', leaf.SignatureKey) {
			return broken(RuleListMemberAdded, "the signature_key of an added KeyPackage is a member's")
		}
		if err := c.room(); err != nil {
			return err
		}
		leaf = leaf.own()
		l := c.tree.add(leaf)
		if err := c.census.addLeaf(leaf, l); err != nil {
			return err
		}
		c.added = append(c.added, addedMember{l, p.KeyPackage})
		c.addedLeaves[l] = true
	}
	return nil
}

// room checks that one more member may join.
func (c *change) room() error {
	if limit := c.rules.maxMembers; limit > 0 && c.tree.members() >= limit {
		return broken(RuleAddLeafLimit, "more than %d members", limit)
	}
	return nil
}

// place gives the committer its leaf: an external one gets the leftmost free
// leaf of the new tree.
func (c *change) place() {
	if c.external {
		c.committer = c.tree.freeLeaf()
	}
	c.oldCommitter = c.tree.leaf(c.committer)
}

// pathRequired is the rule of section 12.4.
func (c *change) pathRequired() bool {
	if len(c.items) == 0 || c.external {
		return true
	}
	return slices.ContainsFunc(c.items, func(it proposalItem) bool {
		return it.proposal.ProposalType().traits().pathRequired
	})
}

// mergePath validates an UpdatePath and puts it into the tree (section
// 12.4.2). It returns the filtered direct path that it fills.
func (c *change) mergePath(path *UpdatePath) ([]pathStep, error) {
	c.place()
	steps := c.tree.filteredPath(c.committer)
	if err := checkPathShape(c.base.suite, path, steps, c.addedLeaves); err != nil {
		return nil, err
	}
	parents, hash := c.tree.pathParents(steps, path.publicKeys())
	if err := c.checkPathLeaf(path.LeafNode, hash); err != nil {
		return nil, err
	}
	return steps, c.setPath(path.LeafNode.own(), steps, parents)
}

func (c *change) checkPathLeaf(leaf *LeafNode, hash []byte) error {
	s := c.base.suite
	if err := leaf.validateAlone(s, LeafFromCommit, c.rules.leaf); err != nil {
		return err
	}
	if c.oldCommitter != nil && bytes.Equal(c.oldCommitter.EncryptionKey, leaf.EncryptionKey) {
		return broken(RuleCommitLeafKey, "path keeps the committer's encryption_key")
	}
	if c.resync != nil && bytes.Equal(c.resync.EncryptionKey, leaf.EncryptionKey) {
		return broken(RuleCommitLeafKey, "external commit keeps the encryption_key of the leaf that it removes")
	}
	if !bytes.Equal(leaf.ParentHash, hash) {
		return broken(RulePathParentHash, "parent_hash of the path's leaf is not the computed one")
	}
	if err := c.meets(leaf); err != nil {
		return err
	}
	return leaf.verifySignature(s, c.base.context.GroupID, c.committer)
}

// setPath exchanges the committer's leaf and parents in census and tree. New
// keys must be in no node of the tree as it was before (section 12.4.2).
func (c *change) setPath(leaf *LeafNode, steps []pathStep, parents []*ParentNode) error {
	if c.census.hasKey('e', leaf.EncryptionKey) {
		return broken(RulePathKeysFresh, "encryption_key of the path's leaf is in the tree")
	}
	for _, p := range parents {
		if !c.census.addKey('e', p.EncryptionKey) {
			return broken(RulePathKeysFresh, "a public key of the path is in the tree or twice in the path")
		}
	}
	if c.oldCommitter != nil {
		c.census.removeLeaf(c.oldCommitter)
	} else if err := c.room(); err != nil {
		return err
	}
	c.blankAbove(c.committer)
	if err := c.census.addLeaf(leaf, c.committer); err != nil {
		return err
	}
	c.newCommitter = leaf
	c.tree.setPath(c.committer, leaf, steps, parents)
	return nil
}

// checkGroup checks the members of the new epoch against each other.
func (c *change) checkGroup() error {
	if err := c.census.checkGroup(c.extensions, c.tree.members()); err != nil {
		return err
	}
	if err := c.census.checkBindings(c.tree, c.entered()); err != nil {
		return err
	}
	before, err := c.base.context.Extensions.groupNeeds()
	if err != nil || c.needs.equal(before) {
		return err
	}
	return c.needs.metByAll(c.tree)
}

// provisional is the GroupContext under which path secrets are encrypted
// (section 12.4.1).
func (c *change) provisional() GroupContext {
	ctx := c.base.context
	ctx.Epoch++
	ctx.TreeHash = c.tree.hash()
	ctx.Extensions = c.extensions
	return ctx
}

// finish makes the public state of the new epoch. The confirmation tag may
// come later; see confirm.
func (c *change) finish(m *AuthenticatedContent) *publicState {
	s := c.base.suite
	ctx := c.provisional()
	ctx.ConfirmedTranscriptHash = s.confirmedTranscript(c.base.interim, m)
	return &publicState{suite: s, context: ctx, tree: c.tree, census: c.census}
}

// media are the media types of framed application data, or nil.
func (p *publicState) media() (MediaTypeList, error) {
	return p.context.Extensions.ContentMediaTypes()
}

// confirm adds the confirmation tag to a new state.
func (p *publicState) confirm(tag []byte) {
	p.confirmationTag = tag
	p.interim = p.suite.interimTranscript(p.context.ConfirmedTranscriptHash, tag)
}

// senderKey returns the signature key of a message's sender (section 6.1).
func (p *publicState) senderKey(a *AuthenticatedContent) ([]byte, error) {
	c := &a.Content
	switch c.Sender.Type {
	case SenderMember:
		leaf := p.tree.leaf(LeafIndex(c.Sender.Index))
		if leaf == nil {
			return nil, broken(RuleFrameSender, "leaf %d is blank", c.Sender.Index)
		}
		return leaf.SignatureKey, nil
	case SenderExternal:
		return p.externalSenderKey(c)
	case SenderNewMemberProposal:
		if add, ok := c.Proposal.(*Add); ok {
			return add.KeyPackage.LeafNode.SignatureKey, nil
		}
		return nil, broken(RuleFrameSender, "new_member_proposal carries no Add")
	case SenderNewMemberCommit:
		if c.Commit == nil {
			return nil, broken(RuleFrameSender, "new_member_commit carries no Commit")
		}
		if c.Commit.Path == nil {
			return nil, broken(RuleExternalPath, "external commit has no path")
		}
		return c.Commit.Path.LeafNode.SignatureKey, nil
	}
	return nil, broken(RuleFrameSender, "sender_type %d", c.Sender.Type)
}

func (p *publicState) externalSenderKey(c *FramedContent) ([]byte, error) {
	if c.Proposal == nil {
		return nil, broken(RuleFrameSender, "an external sender may send proposals only")
	}
	if t := c.Proposal.ProposalType(); !t.traits().externalSender {
		return nil, broken(RuleFrameExternalProposal, "external sender sent proposal type 0x%04x", uint16(t))
	}
	senders, err := p.context.Extensions.ExternalSenders()
	if err != nil {
		return nil, err
	}
	if int64(c.Sender.Index) >= int64(len(senders)) {
		return nil, broken(RuleFrameSender, "external sender %d of %d", c.Sender.Index, len(senders))
	}
	return senders[c.Sender.Index].SignatureKey, nil
}

// openPublic verifies a PublicMessage of the current epoch. Without a
// membership key the membership tag is not checked.
func (p *publicState) openPublic(m *PublicMessage, membershipKey []byte) (*AuthenticatedContent, error) {
	if err := p.checkAddress(m.Content.GroupID, m.Content.Epoch); err != nil {
		return nil, err
	}
	a, err := m.open(p.suite, membershipKey, p.raw) // a member has both, others neither
	if err != nil {
		return nil, err
	}
	key, err := p.senderKey(a)
	if err != nil {
		return nil, err
	}
	return a, a.verify(p.suite, key, p.contextPieces()...)
}

// contextPieces is the encoded GroupContext, in pieces that follow each other.
func (p *publicState) contextPieces() [][]byte {
	if p.raw != nil {
		return [][]byte{p.raw}
	}
	return p.context.pieces()
}

func (p *publicState) checkAddress(groupID []byte, epoch uint64) error {
	if !bytes.Equal(groupID, p.context.GroupID) {
		return ErrWrongGroup
	}
	if epoch != p.context.Epoch {
		return brokenBy(RuleFrameEpoch, ErrWrongEpoch, "epoch %d, the group is in %d", epoch, p.context.Epoch)
	}
	return nil
}
