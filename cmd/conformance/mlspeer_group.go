package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mls"
)

// A peerState is a group as one client sees it.
type peerState struct {
	*mls.Group
	client *peerClient
	order  int // number of its handle
	// open says that the pending commit is neither confirmed nor refused: the
	// driver left out merge. What it asks for next decides.
	open bool
	// merged says that the last commit was merged without merge_pending.
	merged bool
}

// settle merges a commit that was left open: the driver goes on.
func (s *peerState) settle(ctx context.Context) error {
	if !s.open || s.Pending() == nil {
		return nil
	}
	s.open, s.merged = false, true
	return s.MergePending(ctx)
}

// current returns a state in which the driver goes on.
func (p *peer) current(ctx context.Context, handle string) (*peerState, error) {
	s, err := p.group(handle)
	if err != nil {
		return nil, err
	}
	err = s.settle(ctx)
	s.merged = false
	return s, err
}

// seen returns a state to look at: an open commit counts as merged, and can
// still be discarded afterwards.
func (p *peer) seen(ctx context.Context, handle string) (*mls.Group, error) {
	s, err := p.group(handle)
	if err != nil {
		return nil, err
	}
	return s.seen(ctx)
}

func (s *peerState) seen(ctx context.Context) (*mls.Group, error) {
	if !s.open || s.Pending() == nil {
		return s.Group, nil
	}
	g, err := s.copy(ctx)
	if err != nil {
		return nil, err
	}
	return g, g.MergePending(ctx)
}

func (s *peerState) copy(ctx context.Context) (*mls.Group, error) {
	b, err := s.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return s.client.UnmarshalGroup(ctx, b)
}

type stateParams struct {
	State string `json:"state"`
}

type createGroupParams struct {
	Client     string          `json:"client"`
	GroupID    octets          `json:"group_id"`
	Extensions []peerExtension `json:"extensions"`
}

type groupResult struct {
	State   string `json:"state"`
	Commit  octets `json:"commit,omitzero"`
	GroupID octets `json:"group_id"`
	Epoch   uint64 `json:"epoch"`
}

func (p *peer) newState(c *peerClient, g *mls.Group, commit []byte) (any, error) {
	h, err := p.addState(&peerState{Group: g, client: c})
	if err != nil {
		return nil, err
	}
	return &groupResult{h, commit, g.ID(), g.Epoch()}, nil
}

func (p *peer) createGroup(ctx context.Context, q *createGroupParams) (any, error) {
	c, err := p.client(q.Client)
	if err != nil {
		return nil, err
	}
	g, err := c.CreateGroup(ctx, q.GroupID, mls.GroupOptions{Extensions: extensionList(q.Extensions)})
	if err != nil {
		return nil, err
	}
	return p.newState(c, g, nil)
}

// wireFormat reads the wire parameter. PublicMessage is what every engine has.
func wireFormat(name string) (mls.WireFormat, error) {
	switch name {
	case "", "public":
		return mls.WirePublicMessage, nil
	case "private":
		return mls.WirePrivateMessage, nil
	}
	return 0, malformed("params: wire is %q, want public or private", name)
}

type commitParams struct {
	State             string         `json:"state"`
	Proposals         []peerProposal `json:"proposals"`
	Wire              string         `json:"wire"`
	RatchetTree       *bool          `json:"ratchet_tree_extension"`
	AuthenticatedData octets         `json:"authenticated_data"`
	Merge             *bool          `json:"merge"`
}

// A commitResult describes the epoch that the commit begins.
type commitResult struct {
	Commit             octets `json:"commit"`
	Welcome            octets `json:"welcome,omitzero"`
	RatchetTree        octets `json:"ratchet_tree"`
	Epoch              uint64 `json:"epoch"`
	EpochAuthenticator octets `json:"epoch_authenticator"`
}

func (p *peer) commit(ctx context.Context, q *commitParams) (any, error) {
	s, err := p.current(ctx, q.State)
	if err != nil {
		return nil, err
	}
	opts := mls.CommitOptions{AuthenticatedData: q.AuthenticatedData, RatchetTree: q.RatchetTree == nil || *q.RatchetTree}
	if opts.WireFormat, err = wireFormat(q.Wire); err != nil {
		return nil, err
	}
	if opts.Proposals, err = committed(s, q.Proposals); err != nil {
		return nil, err
	}
	c, err := s.Commit(ctx, opts)
	if err != nil {
		return nil, err
	}
	r := &commitResult{Commit: c.Message, Welcome: c.Welcome, RatchetTree: c.Staged.RatchetTree(),
		Epoch: c.Staged.Epoch(), EpochAuthenticator: c.Staged.EpochAuthenticator()}
	s.open = q.Merge == nil
	if q.Merge != nil && *q.Merge {
		s.merged = true
		return r, s.MergePending(ctx)
	}
	return r, nil
}

// committed makes the proposals of a commit. An Update stands for the path,
// which every commit of ours has.
func committed(s *peerState, list []peerProposal) ([]mls.Proposal, error) {
	var out []mls.Proposal
	for i := range list {
		if list[i].Type == "update" {
			continue
		}
		p, err := list[i].in(s.Group)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	s.client.learn(out...)
	return out, nil
}

func (p *peer) mergePending(ctx context.Context, q *stateParams) (any, error) {
	s, err := p.group(q.State)
	if err != nil {
		return nil, err
	}
	if s.Pending() == nil && s.merged {
		s.merged = false
		return nil, nil
	}
	s.open = false
	return nil, s.MergePending(ctx)
}

func (p *peer) discardPending(ctx context.Context, q *stateParams) (any, error) {
	s, err := p.group(q.State)
	if err != nil {
		return nil, err
	}
	s.open, s.merged = false, false
	return nil, s.DiscardPending(ctx)
}

func (p *peer) clearProposals(ctx context.Context, q *stateParams) (any, error) {
	s, err := p.current(ctx, q.State)
	if err != nil {
		return nil, err
	}
	s.ClearProposals()
	return nil, nil
}

type proposeParams struct {
	State             string       `json:"state"`
	Proposal          peerProposal `json:"proposal"`
	Wire              string       `json:"wire"`
	AuthenticatedData octets       `json:"authenticated_data"`
}

type messageResult struct {
	Message octets `json:"message"`
}

func (p *peer) propose(ctx context.Context, q *proposeParams) (any, error) {
	s, err := p.current(ctx, q.State)
	if err != nil {
		return nil, err
	}
	opts := mls.ProposeOptions{AuthenticatedData: q.AuthenticatedData}
	if opts.WireFormat, err = wireFormat(q.Wire); err != nil {
		return nil, err
	}
	var m []byte
	if q.Proposal.Type == "update" {
		m, err = s.ProposeUpdate(ctx, nil, opts)
		return &messageResult{m}, err
	}
	proposal, err := q.Proposal.in(s.Group)
	if err != nil {
		return nil, err
	}
	s.client.learn(proposal)
	m, err = s.Propose(ctx, proposal, opts)
	return &messageResult{m}, err
}

type joinParams struct {
	Client      string `json:"client"`
	Welcome     octets `json:"welcome"`
	RatchetTree octets `json:"ratchet_tree"`
}

func (p *peer) join(ctx context.Context, q *joinParams) (any, error) {
	c, err := p.client(q.Client)
	if err != nil {
		return nil, err
	}
	w, err := mls.ParseWelcome(q.Welcome)
	if err != nil {
		return nil, err
	}
	g, err := p.joinWith(ctx, c, w, q.RatchetTree)
	if err != nil {
		return nil, err
	}
	return p.newState(c, g, nil)
}

// joinWith joins without and, where a resumption PSK is asked for, with the
// states of the run as the group that this one succeeds, the latest first.
func (p *peer) joinWith(ctx context.Context, c *peerClient, w *mls.Welcome, tree []byte) (*mls.Group, error) {
	if len(c.entries) == 0 {
		return nil, mls.ErrNotForUs
	}
	opts := mls.JoinOptions{RatchetTree: tree}
	g, err := c.Join(ctx, w, c.entries, opts)
	if !errors.Is(err, mls.ErrUnknownPSK) && !errors.Is(err, mls.ErrNotFound) {
		return g, err
	}
	for _, s := range p.parents(c) {
		parent, perr := s.seen(ctx)
		if perr != nil {
			return nil, perr
		}
		opts.Parent = parent
		if g, perr := c.Join(ctx, w, c.entries, opts); perr == nil {
			return g, nil
		} else if !errors.Is(perr, mls.ErrUnknownPSK) && !errors.Is(perr, mls.ErrNotFound) {
			err = perr
		}
	}
	return nil, err
}

// parents are the states that a client may succeed: its own, and those of the
// same credential in another cipher suite.
func (p *peer) parents(c *peerClient) (list []*peerState) {
	for _, s := range p.states {
		if s.client == c || s.client.credential.Equal(&c.credential) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *peerState) int { return b.order - a.order })
	return list
}

type externalJoinParams struct {
	Client            string         `json:"client"`
	GroupInfo         octets         `json:"group_info"`
	RatchetTree       octets         `json:"ratchet_tree"`
	Resync            bool           `json:"resync"`
	AuthenticatedData octets         `json:"authenticated_data"`
	Proposals         []peerProposal `json:"proposals"` // of pre-shared keys
}

func (p *peer) externalJoin(ctx context.Context, q *externalJoinParams) (any, error) {
	c, err := p.client(q.Client)
	if err != nil {
		return nil, err
	}
	info, err := mls.ParseGroupInfo(q.GroupInfo)
	if err != nil {
		return nil, err
	}
	opts := mls.ExternalJoinOptions{RatchetTree: q.RatchetTree, Resync: q.Resync, AuthenticatedData: q.AuthenticatedData}
	for i := range q.Proposals {
		proposal, err := q.Proposals[i].outside(c.suite, nil)
		if err != nil {
			return nil, err
		}
		psk, ok := proposal.(*mls.PreSharedKey)
		if !ok {
			return nil, unsupported("an external commit here takes pre-shared keys, not %q", q.Proposals[i].Type)
		}
		opts.PSKs = append(opts.PSKs, psk)
	}
	j, err := c.JoinExternal(ctx, info, opts)
	if err != nil {
		return nil, err
	}
	g, err := j.Join(ctx)
	if err != nil {
		return nil, err
	}
	return p.newState(c, g, j.Message)
}

type sendParams struct {
	State             string `json:"state"`
	Plaintext         octets `json:"plaintext"`
	AuthenticatedData octets `json:"authenticated_data"`
}

func (p *peer) send(ctx context.Context, q *sendParams) (any, error) {
	s, err := p.current(ctx, q.State)
	if err != nil {
		return nil, err
	}
	if q.Plaintext == nil {
		return nil, malformed("params: plaintext is needed")
	}
	m, err := s.Send(ctx, q.Plaintext, q.AuthenticatedData)
	return &messageResult{m}, err
}

type groupInfoParams struct {
	State       string `json:"state"`
	RatchetTree *bool  `json:"ratchet_tree"`
}

type groupInfoResult struct {
	GroupInfo   octets `json:"group_info"`
	RatchetTree octets `json:"ratchet_tree"`
}

func (p *peer) groupInfo(ctx context.Context, q *groupInfoParams) (any, error) {
	g, err := p.seen(ctx, q.State)
	if err != nil {
		return nil, err
	}
	info, err := g.GroupInfo(ctx, mls.GroupInfoOptions{ExternalPub: true, RatchetTree: q.RatchetTree == nil || *q.RatchetTree})
	if err != nil {
		return nil, err
	}
	return &groupInfoResult{info.Message(), g.RatchetTree()}, nil
}

type exportParams struct {
	State   string  `json:"state"`
	Label   *string `json:"label"`
	Context octets  `json:"context"`
	Length  *uint32 `json:"length"`
}

type exportResult struct {
	Secret octets `json:"secret"`
}

func (p *peer) export(ctx context.Context, q *exportParams) (any, error) {
	g, err := p.seen(ctx, q.State)
	if err != nil {
		return nil, err
	}
	if q.Label == nil || q.Length == nil {
		return nil, malformed("params: label and length are needed")
	}
	secret, err := g.Export(*q.Label, q.Context, int(*q.Length))
	if err != nil {
		return nil, err
	}
	return &exportResult{nonNil(secret)}, nil
}

// clone copies a state, an open or pending commit included. What the two send
// afterwards is a fork: it is for tests of what others make of one.
func (p *peer) clone(ctx context.Context, q *stateParams) (any, error) {
	s, err := p.group(q.State)
	if err != nil {
		return nil, err
	}
	g, err := s.copy(ctx)
	if err != nil {
		return nil, err
	}
	h, err := p.addState(&peerState{Group: g, client: s.client, open: s.open})
	if err != nil {
		return nil, err
	}
	return &groupResult{h, nil, g.ID(), g.Epoch()}, nil
}

type memberResult struct {
	Leaf         mls.LeafIndex   `json:"leaf"`
	Identity     octets          `json:"identity"`
	Credential   *peerCredential `json:"credential"`
	SignatureKey octets          `json:"signature_key"`
}

type stateResult struct {
	GroupID                 octets          `json:"group_id"`
	Epoch                   uint64          `json:"epoch"`
	EpochAuthenticator      octets          `json:"epoch_authenticator"`
	TreeHash                octets          `json:"tree_hash"`
	ConfirmedTranscriptHash octets          `json:"confirmed_transcript_hash"`
	GroupContext            octets          `json:"group_context"`
	Extensions              []peerExtension `json:"extensions"`
	OwnLeaf                 mls.LeafIndex   `json:"own_leaf"`
	Active                  bool            `json:"active"`
	Members                 []memberResult  `json:"members"`
	RatchetTree             octets          `json:"ratchet_tree"`
}

func (p *peer) state(ctx context.Context, q *stateParams) (any, error) {
	g, err := p.seen(ctx, q.State)
	if err != nil {
		return nil, err
	}
	c := g.Context()
	r := &stateResult{
		GroupID: g.ID(), Epoch: g.Epoch(), EpochAuthenticator: nonNil(g.EpochAuthenticator()), TreeHash: c.TreeHash,
		ConfirmedTranscriptHash: nonNil(c.ConfirmedTranscriptHash), GroupContext: g.ContextBytes(),
		Extensions: describeExtensions(c.Extensions), OwnLeaf: g.OwnLeaf(), Active: g.Active(),
		Members: []memberResult{}, RatchetTree: g.RatchetTree(),
	}
	for m := range g.Members() {
		r.Members = append(r.Members, memberResult{m.Leaf, nonNil(m.Node.Credential.Identity()),
			describeCredential(&m.Node.Credential), m.Node.SignatureKey})
	}
	return r, nil
}

// memberNamed finds the member with a basic credential.
func memberNamed(members func(func(mls.Member) bool), identity []byte) (mls.LeafIndex, error) {
	for m := range members {
		if m.Node.Credential.Type == mls.CredentialBasic && string(m.Node.Credential.Body) == string(identity) {
			return m.Leaf, nil
		}
	}
	return 0, &peerError{codeFailed, fmt.Sprintf("no member has the identity %x", identity)}
}
