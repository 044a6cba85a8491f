package mls

import (
	"bytes"
	"context"
	"fmt"
)

// ReInitTo creates the successor of a group that a ReInit closed (section
// 11.2), with the KeyPackages of all its other members. The client must have
// the new cipher suite; JoinOptions.Parent lets the others check the result.
// The successor is merged already: only its Welcome is left to be sent.
func (c *Client) ReInitTo(ctx context.Context, old *Group, keyPackages []*KeyPackage, opts CommitOptions) (*Group, *PendingCommit, error) {
	r := old.reinit
	if r == nil {
		return nil, nil, broken(RuleReInitWelcome, "the old group was not closed by a ReInit")
	}
	if r.CipherSuite != c.suite.id {
		return nil, nil, fmt.Errorf("%w: the ReInit names cipher suite 0x%04x, the client has 0x%04x", ErrUnsupported, uint16(r.CipherSuite), uint16(c.suite.id))
	}
	return c.succeed(ctx, old, UsageReInit, r.GroupID, r.Extensions, keyPackages, opts)
}

// Branch creates a group with a subset of another one's members (section
// 11.3).
func (c *Client) Branch(ctx context.Context, old *Group, id []byte, ext Extensions, keyPackages []*KeyPackage, opts CommitOptions) (*Group, *PendingCommit, error) {
	if old.public.suite != c.suite {
		return nil, nil, broken(RuleBranchWelcome, "a branch keeps the cipher suite")
	}
	if err := old.usable(); err != nil {
		return nil, nil, err
	}
	if len(id) == 0 {
		id = random(c.suite.nh)
	}
	return c.succeed(ctx, old, UsageBranch, id, ext, keyPackages, opts)
}

// succeed makes a group whose first commit injects the old group's resumption
// PSK and adds everybody.
func (c *Client) succeed(ctx context.Context, old *Group, usage ResumptionUsage, id []byte, ext Extensions, keyPackages []*KeyPackage, opts CommitOptions) (*Group, *PendingCommit, error) {
	pair, err := c.keyPair(nil)
	if err != nil {
		return nil, nil, err
	}
	if err := c.idUnused(ctx, id); err != nil {
		return nil, nil, err
	}
	leaf := c.newLeaf(LeafFromKeyPackage, pair.public)
	if err := leaf.sign(ctx, c.suite, c.cfg.Signer, nil, 0); err != nil {
		return nil, nil, err
	}
	g, err := c.newGroup(leaf, pair, bytes.Clone(id), ext)
	if err != nil {
		return nil, nil, err
	}
	opts.Proposals = append([]Proposal{}, opts.Proposals...)
	for _, k := range keyPackages {
		opts.Proposals = append(opts.Proposals, &Add{k})
	}
	opts.Proposals = append(opts.Proposals, &PreSharedKey{PreSharedKeyID{
		Type: PSKResumption, Usage: usage, GroupID: old.ID(), Epoch: old.Epoch(), Nonce: random(c.suite.nh),
	}})
	g.parent = old
	b := &commitBuilder{g: g, opts: opts, sender: memberSender(0), init: g.secrets.init, pskUsage: usage}
	pending, err := b.build(ctx)
	if err != nil {
		return nil, nil, err
	}
	g.parent = nil
	if err := g.checkSuccessor(old, usage, pending); err != nil {
		return nil, nil, err
	}
	return g, pending, g.Merge(ctx, pending.Staged)
}

// checkSuccessor applies the joiners' checks before they have to.
func (g *Group) checkSuccessor(old *Group, usage ResumptionUsage, p *PendingCommit) error {
	if usage == UsageBranch {
		return checkBranch(old, p.Staged.next)
	}
	return checkReInit(old, &PreSharedKeyID{Epoch: old.Epoch()}, p.Staged.next)
}
