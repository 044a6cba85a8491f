package mls

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"iter"
	"slices"
)

// A Group is one client's view of a group. It is not safe for concurrent use.
//
// What changes a group comes in stages, each with a type of its own, so that
// none can be left out:
//
//	octets --ParseMessage--> Message --Verify--> *ApplicationMessage
//	                                             *VerifiedProposal --Keep--> (kept for a commit)
//	                                             *VerifiedCommit --Stage--> *StagedCommit --Merge--> (new epoch)
//
//	Commit --> *PendingCommit --> MergePending or DiscardPending
type Group struct {
	client *Client
	signer crypto.Signer

	public     *publicState
	keys       *ownKeys
	secrets    *epochSecrets
	messages   *secretTree
	exports    *secretTree // of the components' exported secrets
	reserved   reservation
	past       []*pastEpoch // newest first
	resumption map[uint64][]byte

	proposals  []*keptProposal
	byRef      map[string]*keptProposal
	ownUpdates map[string]ownUpdate // by encryption key

	pending *PendingCommit
	reinit  *ReInit // of the commit that began this epoch
	removed bool

	savedTree *ratchetTree // as Storage has it
	parent    *Group       // the old group, while this one succeeds it
}

// A reservation is the first generation of each of the own ratchets that
// stored state does not yet count as used.
type reservation struct{ handshake, application uint32 }

// A pastEpoch reads late application messages.
type pastEpoch struct {
	context    GroupContext
	raw        []byte
	senderData []byte
	messages   *secretTree
	keys       map[LeafIndex][]byte // signature keys of leaves that changed since; nil: blank
}

// A keptProposal waits to be committed.
type keptProposal struct {
	content *AuthenticatedContent
	ref     []byte
}

// An ownUpdate is the private side of an Update that this client sent.
type ownUpdate struct {
	pair   keyPair
	signer crypto.Signer
}

// GroupOptions vary a new group.
type GroupOptions struct {
	Extensions Extensions // of the GroupContext
}

// CreateGroup makes a group with this client as its only member (section 11).
// An empty id stands for a random one.
func (c *Client) CreateGroup(ctx context.Context, id []byte, opts GroupOptions) (*Group, error) {
	if len(id) == 0 {
		id = random(c.suite.nh)
	}
	if err := c.idUnused(ctx, id); err != nil {
		return nil, err
	}
	pair, err := c.keyPair(nil)
	if err != nil {
		return nil, err
	}
	leaf := c.newLeaf(LeafFromKeyPackage, pair.public)
	if err := leaf.sign(ctx, c.suite, c.cfg.Signer, nil, 0); err != nil {
		return nil, err
	}
	g, err := c.newGroup(leaf, pair, bytes.Clone(id), opts.Extensions)
	if err != nil {
		return nil, err
	}
	return g, g.Save(ctx)
}

func (c *Client) newGroup(leaf *LeafNode, pair keyPair, id []byte, ext Extensions) (*Group, error) {
	s := c.suite
	if err := ext.checkKnown(); err != nil {
		return nil, err
	}
	if err := ext.checkKnown(); err != nil {
		return nil, err
	}
	required, err := ext.RequiredCapabilities()
	if err != nil {
		return nil, err
	}
	if err := ext.checkReceivers(s); err != nil {
		return nil, err
	}
	if err := leaf.validateAlone(s, LeafFromKeyPackage, c.sending()); err != nil {
		return nil, err
	}
	if err := leaf.meets(required, ext); err != nil {
		return nil, err
	}
	needs, err := ext.groupNeeds()
	if err != nil {
		return nil, err
	}
	if err := needs.metBy(leaf); err != nil {
		return nil, err
	}
	p := &publicState{suite: s, tree: newTree(s, leaf), context: GroupContext{
		Version: MLS10, CipherSuite: s.id, GroupID: id, Extensions: ext,
	}}
	p.context.TreeHash = p.tree.hash()
	p.raw = p.context.bytes()
	if p.census, err = takeCensus(p.tree); err != nil {
		return nil, err
	}
	secrets := s.epochFrom(random(s.nh))
	p.confirm(s.mac(secrets.confirmationKey, nil))
	g := &Group{client: c, signer: c.cfg.Signer, public: p, keys: &ownKeys{0, pair, map[NodeIndex]keyPair{}}}
	g.enter(secrets)
	return g, nil
}

// enter starts the epoch of g.public.
func (g *Group) enter(secrets *epochSecrets) {
	g.secrets = secrets
	g.messages = newSecretTree(g.public.suite, g.public.tree.size, secrets.encryption)
	if g.exports != nil {
		g.exports.erase()
	}
	g.exports = newExporterTree(g.public.suite, secrets.applicationExport)
	secrets.forget()
	g.reserved = reservation{}
	g.proposals, g.byRef = nil, map[string]*keptProposal{}
	g.ownUpdates = map[string]ownUpdate{}
	g.pending = nil
	if g.resumption == nil {
		g.resumption = map[uint64][]byte{}
	}
	epoch := g.public.context.Epoch
	g.resumption[epoch] = secrets.resumptionPSK
	for e := range g.resumption {
		if epoch-e >= uint64(g.client.cfg.Limits.PastResumptionPSKs) {
			delete(g.resumption, e)
		}
	}
}

// forget deletes what has been consumed when an epoch begins (section 9.2);
// the trees have the encryption and export secrets.
func (e *epochSecrets) forget() {
	clear(e.joiner)
	clear(e.welcome)
	e.joiner, e.welcome, e.encryption, e.applicationExport = nil, nil, nil, nil
}

// ID returns the group_id.
func (g *Group) ID() []byte { return bytes.Clone(g.public.context.GroupID) }

// Epoch returns the current epoch.
func (g *Group) Epoch() uint64 { return g.public.context.Epoch }

// CipherSuite returns the group's cipher suite.
func (g *Group) CipherSuite() CipherSuite { return g.public.suite.id }

// Context returns the GroupContext. It is read-only.
func (g *Group) Context() GroupContext { return g.public.context }

// ContextBytes returns the encoded GroupContext.
func (g *Group) ContextBytes() []byte { return bytes.Clone(g.public.raw) }

// OwnLeaf returns this client's leaf.
func (g *Group) OwnLeaf() LeafIndex { return g.keys.index }

// Active reports whether this client is a member and the group is open.
func (g *Group) Active() bool { return !g.removed && g.reinit == nil }

// ReInit returns the proposal that closed the group, or nil.
func (g *Group) ReInit() *ReInit { return g.reinit }

// A Member is one leaf of a group. Node is read-only.
type Member struct {
	Leaf LeafIndex
	Node *LeafNode
}

// Members yields the members from the left of the tree.
func (g *Group) Members() iter.Seq[Member] { return g.public.members() }

func (p *publicState) members() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		for l, leaf := range p.tree.leaves() {
			if !yield(Member{l, leaf}) {
				return
			}
		}
	}
}

// Member returns the leaf of a member, or nil.
func (g *Group) Member(l LeafIndex) *LeafNode { return g.public.tree.leaf(l) }

// Size returns the number of members.
func (g *Group) Size() int { return g.public.tree.members() }

// RatchetTree returns the encoded tree, as in the ratchet_tree extension.
func (g *Group) RatchetTree() []byte { return g.public.tree.bytes() }

// EpochAuthenticator lets members compare their view of the group (section
// 8.7).
func (g *Group) EpochAuthenticator() []byte { return bytes.Clone(g.secrets.epochAuthenticator) }

// Export derives a secret for the application (MLS-Exporter, section 8.5).
func (g *Group) Export(label string, context []byte, length int) ([]byte, error) {
	if length < 0 || length > 255*g.public.suite.nh {
		return nil, fmt.Errorf("mls: cannot export %d octets; at most %d", length, 255*g.public.suite.nh)
	}
	if g.removed {
		return nil, ErrInactive
	}
	return g.public.suite.export(g.secrets.exporter, label, context, length), nil
}

// usable refuses to send in a group that was left or closed.
func (g *Group) usable() error {
	switch {
	case g.removed:
		return ErrInactive
	case g.reinit != nil:
		return ErrReInitialized
	}
	return nil
}

// GroupInfoOptions vary a GroupInfo.
type GroupInfoOptions struct {
	RatchetTree bool // include the tree
	ExternalPub bool // let others join by external commit
	Extensions  Extensions
}

// GroupInfo describes the current epoch to newcomers (section 12.4.3).
func (g *Group) GroupInfo(ctx context.Context, opts GroupInfoOptions) (*GroupInfo, error) {
	if g.removed {
		return nil, ErrInactive
	}
	return g.groupInfo(ctx, g.public, g.secrets, g.signer, g.keys.index, opts)
}

func (g *Group) groupInfo(ctx context.Context, p *publicState, secrets *epochSecrets, signer crypto.Signer, self LeafIndex, opts GroupInfoOptions) (*GroupInfo, error) {
	gi := &GroupInfo{
		GroupContext: p.context, Extensions: slices.Clone(opts.Extensions),
		ConfirmationTag: p.confirmationTag, Signer: self,
	}
	if opts.RatchetTree {
		gi.Extensions = gi.Extensions.With(ExtensionRatchetTree, p.tree.bytes())
	}
	if opts.ExternalPub {
		k, err := p.suite.externalKey(secrets)
		if err != nil {
			return nil, err
		}
		e := externalPubExtension(k.PublicKey().Bytes())
		gi.Extensions = gi.Extensions.With(e.Type, e.Data)
	}
	if !g.client.cfg.NoGREASE {
		gi.Extensions = gi.Extensions.With(ExtensionType(randomGREASE()[1]), random(4))
		gi.Extensions = g.client.greaseInfo(gi.Extensions)
	}
	return gi, gi.sign(ctx, p.suite, signer)
}
