package main

import (
	"context"

	"github.com/privyseal/privyseal/mls"
)

type createSuccessorParams struct {
	Client      string          `json:"client"`
	Parent      string          `json:"parent"` // state of the old group
	Usage       string          `json:"usage"`  // reinit, unless it is branch
	KeyPackages []octets        `json:"key_packages"`
	GroupID     octets          `json:"group_id"`   // of a branch
	Extensions  []peerExtension `json:"extensions"` // of a branch
	RatchetTree *bool           `json:"ratchet_tree_extension"`
}

type successorResult struct {
	State       string `json:"state"`
	GroupID     octets `json:"group_id"`
	Epoch       uint64 `json:"epoch"`
	Welcome     octets `json:"welcome"`
	RatchetTree octets `json:"ratchet_tree"`
}

// createSuccessor makes the group that a ReInit announced, or a branch of one
// (RFC 9420 sections 11.2 and 11.3), with the KeyPackages of its other members.
func (p *peer) createSuccessor(ctx context.Context, q *createSuccessorParams) (any, error) {
	c, err := p.client(q.Client)
	if err != nil {
		return nil, err
	}
	parent, err := p.current(ctx, q.Parent)
	if err != nil {
		return nil, err
	}
	var list []*mls.KeyPackage
	for _, b := range q.KeyPackages {
		k, err := mls.ParseKeyPackage(b)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	opts := mls.CommitOptions{RatchetTree: q.RatchetTree == nil || *q.RatchetTree}
	var g *mls.Group
	var made *mls.PendingCommit
	switch q.Usage {
	case "", "reinit":
		g, made, err = c.ReInitTo(ctx, parent.Group, list, opts)
	case "branch":
		g, made, err = c.Branch(ctx, parent.Group, q.GroupID, extensionList(q.Extensions), list, opts)
	default:
		return nil, malformed("params: usage is %q, want reinit or branch", q.Usage)
	}
	if err != nil {
		return nil, err
	}
	h, err := p.addState(&peerState{Group: g, client: c})
	if err != nil {
		return nil, err
	}
	return &successorResult{h, g.ID(), g.Epoch(), made.Welcome, g.RatchetTree()}, nil
}
