package mls

import (
	"context"
	"crypto"
)

// ExternalJoinOptions vary an external commit (section 12.4.3.2).
type ExternalJoinOptions struct {
	RatchetTree []byte // if the GroupInfo does not carry it
	// Resync removes this client's old leaf: OldLeaf or, if that is nil, the one
	// that has its signature key or else its credential. A client whose key and
	// credential are both new names the leaf, as the application knows it.
	Resync  bool
	OldLeaf *LeafIndex
	PSKs    []*PreSharedKey
	// Proposals are AppDataUpdates and AppEphemerals, committed by value.
	Proposals []Proposal
	// Pending are the PublicMessages of pending proposals that came with the
	// GroupInfo. All SelfRemoves among them are committed, and AppDataUpdates
	// and AppEphemerals as far as they agree; the others end with the epoch.
	Pending           [][]byte
	AuthenticatedData []byte
	GroupInfo         *GroupInfoOptions // ask for a GroupInfo of the new epoch
}

// An ExternalJoin is a group that this client entered by a commit of its own,
// which the delivery service may still refuse.
type ExternalJoin struct {
	Message   []byte // MLSMessage to the members
	GroupInfo []byte // MLSMessage, if asked for
	group     *Group
}

// Join is called when the commit was accepted. It saves the group.
func (j *ExternalJoin) Join(ctx context.Context) (*Group, error) {
	return j.group, j.group.Save(ctx)
}

// JoinExternal makes an external commit from a GroupInfo.
func (c *Client) JoinExternal(ctx context.Context, info *GroupInfo, opts ExternalJoinOptions) (*ExternalJoin, error) {
	p, err := c.openGroupInfo(ctx, info, opts.RatchetTree)
	if err != nil {
		return nil, err
	}
	p.confirm(info.ConfirmationTag)
	if !opts.Resync {
		if err := c.idUnused(ctx, p.context.GroupID); err != nil {
			return nil, err
		}
	}
	pub, err := info.Extensions.ExternalPub()
	if err != nil {
		return nil, err
	}
	if pub == nil {
		return nil, broken(RuleExternalPub, "GroupInfo has no external_pub")
	}
	kem, init, err := c.suite.externalInit(pub)
	if err != nil {
		return nil, err
	}
	proposals, err := c.externalProposals(p, &ExternalInit{kem}, &opts)
	if err != nil {
		return nil, err
	}
	return c.commitExternally(ctx, p, proposals, init, &opts)
}

func (c *Client) externalProposals(p *publicState, init *ExternalInit, opts *ExternalJoinOptions) ([]Proposal, error) {
	list := []Proposal{init}
	if opts.Resync {
		old, err := c.oldLeaf(p.tree, opts.OldLeaf)
		if err != nil {
			return nil, err
		}
		list = append(list, &Remove{old})
	}
	for _, psk := range opts.PSKs {
		list = append(list, psk)
	}
	return append(list, opts.Proposals...), nil
}

// oldLeaf returns the leaf that a resync removes.
func (c *Client) oldLeaf(t *ratchetTree, named *LeafIndex) (LeafIndex, error) {
	if named == nil {
		if found, ok := c.ownLeafIn(t); ok {
			return found, nil
		}
		return 0, broken(RuleExternalRemoveOnce, "no leaf of the group has this client's credential")
	}
	if t.leaf(*named) == nil {
		return 0, broken(RuleExternalRemoveOnce, "leaf %d is not in the group", *named)
	}
	return *named, nil
}

// ownLeafIn finds a leaf of this client: first by signature key, then by
// credential.
func (c *Client) ownLeafIn(t *ratchetTree) (LeafIndex, bool) {
	var found LeafIndex
	ok := false
	for l, leaf := range t.leaves() {
		if string(leaf.SignatureKey) == string(c.public) {
			return l, true
		}
		if !ok && leaf.Credential.Equal(&c.cfg.Credential) {
			found, ok = l, true
		}
	}
	return found, ok
}

// commitExternally builds the commit with a group that exists only to hold
// the joiner's view.
func (c *Client) commitExternally(ctx context.Context, p *publicState, proposals []Proposal, init []byte, opts *ExternalJoinOptions) (*ExternalJoin, error) {
	g := &Group{client: c, signer: c.cfg.Signer, public: p, secrets: &epochSecrets{}, resumption: map[uint64][]byte{},
		keys: &ownKeys{parents: map[NodeIndex]keyPair{}}}
	if err := g.keepPending(opts.Pending); err != nil {
		return nil, err
	}
	b := &commitBuilder{
		g: g, init: init, sender: Sender{Type: SenderNewMemberCommit},
		template: c.newLeaf(LeafFromCommit, nil),
		opts: CommitOptions{
			Proposals: proposals, WireFormat: WirePublicMessage,
			AuthenticatedData: opts.AuthenticatedData, GroupInfo: opts.GroupInfo,
		},
	}
	pending, err := b.build(ctx)
	if err != nil {
		return nil, err
	}
	st := pending.Staged
	st.next.census = st.next.census.absorb()
	g.public, g.keys = st.next, st.keys
	g.resumption = nil
	g.enter(st.secrets)
	return &ExternalJoin{pending.Message, pending.GroupInfo, g}, nil
}

// ProposeJoin makes a new_member_proposal: an Add of this client, for members
// to commit (section 12.1.8).
func (c *Client) ProposeJoin(ctx context.Context, groupCtx *GroupContext, entry *KeyPackageEntry, authenticatedData []byte) ([]byte, error) {
	return c.proposeFromOutside(ctx, c.cfg.Signer, groupCtx, Sender{Type: SenderNewMemberProposal}, &Add{entry.KeyPackage}, authenticatedData)
}

// ProposeExternally makes a proposal of the external sender with the given
// index in the group's external_senders extension (section 12.1.8.1).
func ProposeExternally(ctx context.Context, signer crypto.Signer, groupCtx *GroupContext, index uint32, p Proposal, authenticatedData []byte) ([]byte, error) {
	s, err := lookupSuite(groupCtx.CipherSuite)
	if err != nil {
		return nil, err
	}
	if t := p.ProposalType(); !t.traits().externalSender {
		return nil, broken(RuleFrameExternalProposal, "external senders may not send proposal type 0x%04x", uint16(t))
	}
	return outsideMessage(ctx, s, signer, groupCtx, Sender{SenderExternal, index}, p, authenticatedData)
}

func (c *Client) proposeFromOutside(ctx context.Context, signer crypto.Signer, groupCtx *GroupContext, from Sender, p Proposal, authenticatedData []byte) ([]byte, error) {
	if groupCtx.CipherSuite != c.suite.id {
		return nil, broken(RuleKeyPackageSuite, "the group has cipher suite 0x%04x", uint16(groupCtx.CipherSuite))
	}
	return outsideMessage(ctx, c.suite, signer, groupCtx, from, p, authenticatedData)
}

func outsideMessage(ctx context.Context, s *suite, signer crypto.Signer, groupCtx *GroupContext, from Sender, p Proposal, authenticatedData []byte) ([]byte, error) {
	authenticatedData, err := groupCtx.Extensions.outgoingAAD(authenticatedData)
	if err != nil {
		return nil, err
	}
	a := &AuthenticatedContent{WireFormat: WirePublicMessage, Content: FramedContent{
		GroupID: groupCtx.GroupID, Epoch: groupCtx.Epoch, Sender: from,
		AuthenticatedData: authenticatedData, ContentType: ContentProposal, Proposal: p,
	}}
	a.Content.setBody()
	if err := a.sign(ctx, s, signer, nil); err != nil {
		return nil, err
	}
	m, err := a.public(s, nil, nil)
	if err != nil {
		return nil, err
	}
	return wrapMessage(WirePublicMessage, m), nil
}
