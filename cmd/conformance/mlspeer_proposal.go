package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"

	"github.com/privyseal/privyseal/mls"
)

// A peerProposal is a proposal on the line. Which members count depends on the
// type.
type peerProposal struct {
	Type         string           `json:"type"`
	KeyPackage   octets           `json:"key_package"`
	Identity     octets           `json:"identity"`
	Leaf         *mls.LeafIndex   `json:"leaf"`
	PSKID        octets           `json:"psk_id"`
	GroupID      octets           `json:"group_id"`
	Epoch        *uint64          `json:"epoch"`
	Suite        *mls.CipherSuite `json:"suite"`
	Extensions   []peerExtension  `json:"extensions"`
	Component    *mls.ComponentID `json:"component"`
	Update       *octets          `json:"update"`
	ProposalType mls.ProposalType `json:"proposal_type"`
	Data         octets           `json:"data"`
}

// needs refuses a proposal that lacks what it is about.
func (q *peerProposal) needs() error {
	missing := ""
	switch q.Type {
	case "":
		missing = "a type"
	case "add":
		missing = unless(q.KeyPackage != nil, "key_package")
	case "remove":
		missing = unless(q.Leaf != nil || q.Identity != nil, "identity or leaf")
	case "psk":
		missing = unless(q.PSKID != nil, "psk_id")
	case "resumption_psk":
		missing = unless(q.Epoch != nil, "epoch")
	case "gce":
		missing = unless(q.Extensions != nil, "extensions")
	case "reinit":
		missing = unless(q.GroupID != nil && q.Suite != nil, "group_id and suite")
	case "app_data_update":
		missing = unless(q.Component != nil, "component")
	}
	if missing != "" {
		return malformed("params: a proposal %q needs %s", q.Type, missing)
	}
	return nil
}

func unless(there bool, missing string) string {
	if there {
		return ""
	}
	return missing
}

// in makes a proposal for a group that we are in.
func (q *peerProposal) in(g *mls.Group) (mls.Proposal, error) {
	if err := q.needs(); err != nil {
		return nil, err
	}
	switch q.Type {
	case "remove":
		if q.Leaf != nil {
			return &mls.Remove{Removed: *q.Leaf}, nil
		}
		l, err := memberNamed(g.Members(), q.Identity)
		return &mls.Remove{Removed: l}, err
	case "resumption_psk":
		p := g.ResumptionPSK(*q.Epoch)
		if q.GroupID != nil {
			p.PSK.GroupID = q.GroupID
		}
		return p, nil
	}
	return q.outside(g.CipherSuite(), nil)
}

// outside makes a proposal for a group of which only the tree is known, or not
// even that.
func (q *peerProposal) outside(suite mls.CipherSuite, tree *mls.RatchetTree) (mls.Proposal, error) {
	if err := q.needs(); err != nil {
		return nil, err
	}
	switch q.Type {
	case "add":
		k, err := mls.ParseKeyPackage(q.KeyPackage)
		if err != nil {
			return nil, err
		}
		return &mls.Add{KeyPackage: k}, nil
	case "remove":
		return q.removeFrom(tree)
	case "psk":
		return &mls.PreSharedKey{PSK: mls.PreSharedKeyID{Type: mls.PSKExternal, ID: q.PSKID, Nonce: freshNonce(suite)}}, nil
	case "resumption_psk":
		return &mls.PreSharedKey{PSK: mls.PreSharedKeyID{Type: mls.PSKResumption, Usage: mls.UsageApplication,
			GroupID: q.GroupID, Epoch: *q.Epoch, Nonce: freshNonce(suite)}}, nil
	case "gce":
		return &mls.GroupContextExtensions{Extensions: extensionList(q.Extensions)}, nil
	case "reinit":
		if !q.Suite.Supported() {
			return nil, unsupported("cipher suite %d", *q.Suite)
		}
		return &mls.ReInit{GroupID: q.GroupID, Version: mls.MLS10, CipherSuite: *q.Suite, Extensions: extensionList(q.Extensions)}, nil
	case "self_remove":
		return &mls.SelfRemove{}, nil
	case "app_data_update":
		if q.Update == nil {
			return mls.RemoveAppData(*q.Component), nil
		}
		return mls.UpdateAppData(*q.Component, nonNil(*q.Update)), nil
	case "custom":
		return q.custom()
	case "update":
		return nil, failed("only a member can propose an Update (RFC 9420 section 12.1.2)")
	}
	return nil, unsupported("proposal type %q", q.Type)
}

func (q *peerProposal) removeFrom(tree *mls.RatchetTree) (mls.Proposal, error) {
	if q.Leaf != nil {
		return &mls.Remove{Removed: *q.Leaf}, nil
	}
	if tree == nil {
		return nil, failed("an identity can be removed only if the GroupInfo has the tree; give the leaf")
	}
	l, err := memberNamed(treeMembers(tree), q.Identity)
	return &mls.Remove{Removed: l}, err
}

func treeMembers(t *mls.RatchetTree) func(func(mls.Member) bool) {
	return func(yield func(mls.Member) bool) {
		for l := range mls.LeafIndex(t.Nodes()/2 + 1) {
			if leaf := t.Leaf(l); leaf != nil && !yield(mls.Member{Leaf: l, Node: leaf}) {
				return
			}
		}
	}
}

// custom makes a proposal of the private use range, and refuses numbers that
// mean something else.
func (q *peerProposal) custom() (mls.Proposal, error) {
	const firstPrivate = 0xF000
	if q.ProposalType < firstPrivate {
		return nil, unsupported("custom proposals have types from 0x%04x, not 0x%04x", firstPrivate, uint16(q.ProposalType))
	}
	return &mls.CustomProposal{Type: q.ProposalType, Data: nonNil(q.Data)}, nil
}

// freshNonce is a psk_nonce (section 8.4).
func freshNonce(suite mls.CipherSuite) []byte {
	p, err := mls.NewPrimitives(suite)
	if err != nil {
		return nil
	}
	nonce := make([]byte, p.HashLength())
	rand.Read(nonce)
	return nonce
}

type proposeExternalAddParams struct {
	Client    string `json:"client"`
	GroupInfo octets `json:"group_info"`
}

func (p *peer) proposeExternalAdd(ctx context.Context, q *proposeExternalAddParams) (any, error) {
	c, err := p.client(q.Client)
	if err != nil {
		return nil, err
	}
	info, err := mls.ParseGroupInfo(q.GroupInfo)
	if err != nil {
		return nil, err
	}
	e, err := p.newKeyPackage(ctx, c, mls.KeyPackageOptions{})
	if err != nil {
		return nil, err
	}
	m, err := c.ProposeJoin(ctx, &info.GroupContext, e, nil)
	return &messageResult{m}, err
}

type proposeExternalParams struct {
	GroupInfo        octets       `json:"group_info"`
	Proposal         peerProposal `json:"proposal"`
	SignaturePrivate octets       `json:"signature_private_key"`
	SignaturePublic  octets       `json:"signature_public_key"`
	SenderIndex      *uint32      `json:"sender_index"`
}

func (p *peer) proposeExternal(ctx context.Context, q *proposeExternalParams) (any, error) {
	info, err := mls.ParseGroupInfo(q.GroupInfo)
	if err != nil {
		return nil, err
	}
	if q.SignaturePrivate == nil {
		return nil, malformed("params: signature_private_key is needed")
	}
	suite := info.GroupContext.CipherSuite
	signer, err := p.signatureKey(ctx, suite, q.SignaturePrivate)
	if err != nil {
		return nil, err
	}
	index, err := q.senderIndex(info)
	if err != nil {
		return nil, err
	}
	tree, err := treeOf(info)
	if err != nil {
		return nil, err
	}
	proposal, err := q.Proposal.outside(suite, tree)
	if err != nil {
		return nil, err
	}
	m, err := mls.ProposeExternally(ctx, signer, &info.GroupContext, index, proposal, nil)
	return &messageResult{m}, err
}

// senderIndex finds the sender in external_senders by its public key.
func (q *proposeExternalParams) senderIndex(info *mls.GroupInfo) (uint32, error) {
	if q.SenderIndex != nil {
		return *q.SenderIndex, nil
	}
	senders, err := info.GroupContext.Extensions.ExternalSenders()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(senders, func(s mls.ExternalSender) bool { return bytes.Equal(s.SignatureKey, q.SignaturePublic) })
	if i < 0 {
		return 0, failed("signature_public_key is not one of the %d external senders", len(senders))
	}
	return uint32(i), nil
}

// treeOf returns the tree that a GroupInfo carries, or nil.
func treeOf(info *mls.GroupInfo) (*mls.RatchetTree, error) {
	data, ok := info.Extensions.Find(mls.ExtensionRatchetTree)
	if !ok {
		return nil, nil
	}
	p, err := mls.NewPrimitives(info.GroupContext.CipherSuite)
	if err != nil {
		return nil, err
	}
	return p.ParseRatchetTree(data)
}
