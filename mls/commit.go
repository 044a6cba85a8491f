package mls

import (
	"context"
	"crypto"
)

// CommitOptions say what a commit does.
type CommitOptions struct {
	// Proposals are committed by value. The proposals that were kept in this
	// epoch are committed by reference, as far as they agree.
	Proposals []Proposal
	// OmitPath leaves the path out where section 12.4 allows that.
	OmitPath          bool
	AuthenticatedData []byte
	WireFormat        WireFormat // WirePrivateMessage if zero
	// Leaf changes this client's leaf. It needs a path.
	Leaf *LeafChange
	// RatchetTree puts the tree into the Welcome. HPKE then hashes the tree
	// once for every new member, so where many join a large group at once it
	// is better delivered beside the Welcome (JoinOptions.RatchetTree).
	RatchetTree bool
	// WelcomeExtensions go into the Welcome's GroupInfo.
	WelcomeExtensions Extensions
	// GroupInfo asks for a GroupInfo of the new epoch, for a hub.
	GroupInfo *GroupInfoOptions
}

// A LeafChange replaces parts of a client's leaf; nil fields stay.
type LeafChange struct {
	Signer       crypto.Signer // a new signature key
	Credential   *Credential
	Capabilities *Capabilities
	Extensions   Extensions
}

// A PendingCommit was made by this client and awaits the verdict of the
// delivery service.
type PendingCommit struct {
	Message   []byte // MLSMessage to all members
	Welcome   []byte // MLSMessage to the new members, nil if there are none
	GroupInfo []byte // MLSMessage, if asked for
	Staged    *StagedCommit

	firstSecret []byte  // path secret at the lowest node, nil without path
	leaf        keyPair // of the new leaf
	pskSecret   []byte
}

// Commit makes a commit, which becomes the pending one. The group stays in
// its epoch until MergePending.
func (g *Group) Commit(ctx context.Context, opts CommitOptions) (*PendingCommit, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	if g.pending != nil {
		return nil, ErrPendingCommit
	}
	b := &commitBuilder{g: g, opts: opts, sender: memberSender(g.keys.index), init: g.secrets.init}
	p, err := b.build(ctx)
	if err != nil {
		return nil, err
	}
	g.pending = p
	if err := g.Save(ctx); err != nil {
		g.pending = nil
		return nil, err
	}
	return p, nil
}

// Pending returns the pending commit, or nil.
func (g *Group) Pending() *PendingCommit { return g.pending }

// MergePending enters the epoch of the pending commit.
func (g *Group) MergePending(ctx context.Context) error {
	if g.pending == nil {
		return ErrNoPending
	}
	return g.Merge(ctx, g.pending.Staged)
}

// DiscardPending drops the pending commit, because it was refused. The
// proposals that it covered are kept.
func (g *Group) DiscardPending(ctx context.Context) error {
	if g.pending == nil {
		return ErrNoPending
	}
	g.pending = nil
	return g.Save(ctx)
}

// A commitBuilder takes the steps of section 12.4.1.
type commitBuilder struct {
	g        *Group
	opts     CommitOptions
	sender   Sender
	init     []byte
	pskUsage ResumptionUsage
	wire     WireFormat
	signer   crypto.Signer
	template *LeafNode // the joiner's leaf, in an external commit

	change  *change
	path    *newPath
	content *AuthenticatedContent
	pending *PendingCommit
}

func (b *commitBuilder) build(ctx context.Context) (*PendingCommit, error) {
	g := b.g
	b.pending, b.signer, b.wire = new(PendingCommit), g.signer, b.opts.WireFormat
	if b.wire == 0 {
		b.wire = WirePrivateMessage
	}
	if err := g.public.checkWireFormat(b.wire); err != nil {
		return nil, err
	}
	var err error
	if b.opts.AuthenticatedData, err = g.public.context.Extensions.outgoingAAD(b.opts.AuthenticatedData); err != nil {
		return nil, err
	}
	rules := g.listRules(g.client.sending())
	rules.pskUsage = b.pskUsage
	if err := b.choose(ctx, rules); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{b.makePath, b.judge, b.frame, b.derive, b.welcome, b.groupInfo, b.protect} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return b.pending, nil
}

func (b *commitBuilder) judge(ctx context.Context) error {
	return b.g.client.judgeChange(ctx, b.change)
}

// makePath updates the direct path (section 7.5) and encrypts its secrets.
func (b *commitBuilder) makePath(ctx context.Context) error {
	c, g := b.change, b.g
	c.place()
	commit := &Commit{}
	for _, it := range c.items {
		p := ProposalOrRef{Reference: it.ref}
		if it.ref == nil {
			p.Proposal = it.proposal
		}
		commit.Proposals = append(commit.Proposals, p)
	}
	b.content = &AuthenticatedContent{WireFormat: b.wire, Content: FramedContent{
		GroupID: g.public.context.GroupID, Epoch: g.public.context.Epoch, Sender: b.sender,
		AuthenticatedData: b.opts.AuthenticatedData, ContentType: ContentCommit, Commit: commit,
	}}
	if b.opts.OmitPath && !c.pathRequired() && b.opts.Leaf == nil {
		return c.checkGroup()
	}
	leaf, err := b.newLeaf()
	if err != nil {
		return err
	}
	commit.Path, err = b.fillPath(ctx, leaf)
	return err
}

// newLeaf makes the committer's next leaf, unsigned.
func (b *commitBuilder) newLeaf() (*LeafNode, error) {
	pair, err := b.g.client.keyPair(nil)
	if err != nil {
		return nil, err
	}
	b.pending.leaf = pair
	if b.template != nil {
		b.template.EncryptionKey = pair.public
		return b.template, nil
	}
	leaf, signer, err := b.g.successor(b.change.oldCommitter, b.opts.Leaf, LeafFromCommit, pair.public)
	b.signer = signer
	return leaf, err
}

// successor makes a leaf that replaces old, unsigned, and says who signs it.
func (g *Group) successor(old *LeafNode, ch *LeafChange, source LeafNodeSource, encryptionKey []byte) (*LeafNode, crypto.Signer, error) {
	leaf := &LeafNode{
		EncryptionKey: encryptionKey, SignatureKey: old.SignatureKey, Credential: old.Credential,
		Capabilities: old.Capabilities, Source: source, Extensions: old.Extensions,
	}
	if ch == nil {
		return leaf, g.signer, nil
	}
	if ch.Credential != nil {
		leaf.Credential = *ch.Credential
	}
	if ch.Capabilities != nil {
		leaf.Capabilities = *ch.Capabilities
	}
	if ch.Extensions != nil {
		leaf.Extensions = g.client.advertise(ch.Extensions, &leaf.Capabilities)
	} else if ch.Capabilities != nil {
		leaf.Extensions = g.client.advertise(old.Extensions, &leaf.Capabilities)
	}
	if ch.Signer == nil {
		return leaf, g.signer, nil
	}
	var err error
	leaf.SignatureKey, err = g.public.suite.sig.encodePublicKey(ch.Signer.Public())
	return leaf, ch.Signer, err
}

func (b *commitBuilder) fillPath(ctx context.Context, leaf *LeafNode) (*UpdatePath, error) {
	c, s := b.change, b.g.public.suite
	steps := c.tree.filteredPath(c.committer)
	b.pending.firstSecret = random(s.nh)
	var err error
	if b.path, err = s.derivePath(steps, b.pending.firstSecret); err != nil {
		return nil, err
	}
	parents, hash := c.tree.pathParents(steps, b.path.publicKeys())
	leaf.ParentHash = hash
	if err := leaf.sign(ctx, s, b.signer, c.base.context.GroupID, c.committer); err != nil {
		return nil, err
	}
	if err := leaf.validateAlone(s, LeafFromCommit, c.rules.leaf); err != nil {
		return nil, err
	}
	if err := c.meets(leaf); err != nil {
		return nil, err
	}
	if err := c.setPath(leaf, steps, parents); err != nil {
		return nil, err
	}
	if err := c.checkGroup(); err != nil {
		return nil, err
	}
	provisional := c.provisional()
	nodes, err := b.path.encrypt(s, encode(&provisional), c.addedLeaves)
	return &UpdatePath{leaf, nodes}, err
}

// frame signs the commit under the old GroupContext. A new signature key
// signs the leaf, the old one still signs the message.
func (b *commitBuilder) frame(ctx context.Context) error {
	b.content.Content.setBody()
	signer := b.g.signer
	if b.sender.Type == SenderNewMemberCommit {
		signer = b.signer
	}
	return b.content.sign(ctx, b.g.public.suite, signer, b.g.public.raw)
}

// derive runs the key schedule into the new epoch.
func (b *commitBuilder) derive(ctx context.Context) error {
	g, s := b.g, b.g.public.suite
	psks, err := g.lookupPSKs(ctx, b.change.psks)
	if err != nil {
		return err
	}
	b.pending.pskSecret = s.pskSecret(psks)
	b.pending.Staged = g.ownStaged(b.change, b.content, b.path, b.pending, b.init)
	b.pending.Staged.signer = b.signer
	st := b.pending.Staged
	b.content.Auth.ConfirmationTag = s.mac(st.secrets.confirmationKey, st.next.context.ConfirmedTranscriptHash)
	st.next.confirm(b.content.Auth.ConfirmationTag)
	return nil
}

// ownStaged derives what a commit of our own leads to.
func (g *Group) ownStaged(c *change, content *AuthenticatedContent, path *newPath, p *PendingCommit, init []byte) *StagedCommit {
	s := g.public.suite
	st := &StagedCommit{change: c, content: content, next: c.finish(content), keys: g.keys.clone(), signer: g.signer}
	st.next.raw = st.next.context.bytes()
	commitSecret := s.zero()
	if path != nil {
		commitSecret = path.commitSecret
		st.keys = &ownKeys{c.committer, p.leaf, map[NodeIndex]keyPair{}}
		path.keep(st.keys)
	}
	st.secrets = s.deriveEpoch(s.joinerSecret(init, commitSecret, st.next.raw), p.pskSecret, st.next.raw)
	return st
}

// protect encodes the message (sections 6.2, 6.3). It is the last step: what
// fails before it has used up no message key.
func (b *commitBuilder) protect(ctx context.Context) (err error) {
	b.pending.Message, err = b.g.protect(ctx, b.content)
	return err
}

// protect encodes an authenticated handshake message as its wire format says.
func (g *Group) protect(ctx context.Context, a *AuthenticatedContent) ([]byte, error) {
	if a.WireFormat == WirePublicMessage {
		m, err := a.public(g.public.suite, g.secrets.membershipKey, g.public.raw)
		if err != nil {
			return nil, err
		}
		return wrapMessage(WirePublicMessage, m), nil
	}
	k, generation, err := g.ownKey(ctx, a.Content.ContentType)
	if err != nil {
		return nil, err
	}
	defer k.erase()
	if a.WireFormat == WireSemiPrivateMessage {
		return g.protectSemiPrivate(a, k, generation)
	}
	m, err := a.seal(g.public.suite, g.secrets.senderData, k, generation, g.client.cfg.Padding)
	if err != nil {
		return nil, err
	}
	return wrapMessage(WirePrivateMessage, m), nil
}

// welcome makes the Welcome for all new members (section 12.4.3.1).
func (b *commitBuilder) welcome(ctx context.Context) error {
	st := b.pending.Staged
	if len(b.change.added) == 0 {
		return nil
	}
	opts := GroupInfoOptions{RatchetTree: b.opts.RatchetTree, Extensions: b.opts.WelcomeExtensions}
	gi, err := b.g.groupInfo(ctx, st.next, st.secrets, b.signer, b.change.committer, opts)
	if err != nil {
		return err
	}
	s := st.next.suite
	w := &Welcome{CipherSuite: s.id, Secrets: make([]EncryptedGroupSecrets, len(b.change.added))}
	if w.EncryptedGroupInfo, err = s.sealGroupInfo(st.secrets.welcome, gi); err != nil {
		return err
	}
	info := encryptContext("Welcome", w.EncryptedGroupInfo)
	err = parallel(len(b.change.added), func(i int) (err error) {
		w.Secrets[i], err = b.newMember(&b.change.added[i], info)
		return err
	})
	b.pending.Welcome = w.Message()
	return err
}

func (b *commitBuilder) newMember(a *addedMember, info []byte) (EncryptedGroupSecrets, error) {
	s := b.g.public.suite
	secrets := groupSecrets{joiner: b.pending.Staged.secrets.joiner, psks: b.change.psks}
	if b.path != nil {
		secrets.pathSecret = b.path.secretFor(b.change.committer, a.leaf)
	}
	ct, err := s.seal(a.keyPackage.InitKey, info, encode(&secrets))
	return EncryptedGroupSecrets{a.keyPackage.Ref(), ct}, err
}

func (b *commitBuilder) groupInfo(ctx context.Context) error {
	if b.opts.GroupInfo == nil {
		return nil
	}
	st := b.pending.Staged
	gi, err := b.g.groupInfo(ctx, st.next, st.secrets, b.signer, b.change.committer, *b.opts.GroupInfo)
	if err == nil {
		b.pending.GroupInfo = gi.Message()
	}
	return err
}

// collect chooses the proposals of a commit: those kept in this epoch as far
// as they agree with each other and with the new ones (section 12.2), then
// the new ones.
func (g *Group) collect(values []Proposal, from Sender) []proposalItem {
	values = g.withoutSelfRemoved(values)
	pick := newPicker(g, from, values)
	for _, k := range g.proposals {
		pick.consider(k)
	}
	return g.agreeing(append(pick.items(), byValue(values, from)...), from)
}

func byValue(values []Proposal, from Sender) []proposalItem {
	items := make([]proposalItem, len(values))
	for i, p := range values {
		items[i] = proposalItem{proposal: p, sender: from}
	}
	return items
}
